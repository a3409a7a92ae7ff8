"""The documentation is true: its servers, scripts, models, tests and commands run, and print what the pages show.

`test_every_example_of_a_page_is_used_by_a_test` finds a block of a page that no test here names.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent.server import StreamServer

from harness import Command, Grade, InProcess, PlayOptions, ServerSpec, Verdict, parse, play
from harness.cli import main
from harness.compare.compare import Tags
from harness.interception.schedule import Perturbation
from harness.language.fences import Fence
from harness.laws.history import Law
from harness.options import OPTIONS
from harness.report.styled_text import plain
from harness.report.text import report, run_summary
from harness.stage.target import address_of
from tests.app import serve
from tests.foreign.installed import module, program
from tests.harness.zoo import SERVERS
from tests.harness.zoo.__main__ import _options as zoo_options
from tests.independent.__main__ import SUITES
from tests.patience import HANG_S, killed_at_the_end
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
TRANSCRIPTS, AUDIT, EXPLORE = "transcripts.md", "audit-and-compare.md", "explore-and-generate.md"
TARGETS, VERDICTS, README = "targets.md", "verdicts.md", "../harness/README.md"
PAGES = (TRANSCRIPTS, TARGETS, VERDICTS, AUDIT, EXPLORE, README)
FENCE = Fence("PING", ("PONG",))
OF_A_CHANGED_PROGRAM = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
"""Python takes a program that has changed within a second, and not in its length, for the one it has compiled."""


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages show the output without a terminal."""
    monkeypatch.setenv("COLUMNS", "120")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def block(name: str, *parts: str) -> str:
    """The only block of this page that contains all these parts."""
    (found,) = [text for text in blocks(name) if all(part in text for part in parts)]
    return found


def blocks(name: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)


def without_times(text: str) -> str:
    return re.sub(r"[0-9]+\.[0-9]{2} s", "0.00 s", text)


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., str]:
    """Runs a command of a page as it stands there, in an empty folder; `harness` and `python` are those of this run."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, words in (("harness", f"{sys.executable} -m harness"), ("python", sys.executable)):
        (commands / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (commands / name).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        **OF_A_CHANGED_PROGRAM,
        "COLUMNS": "120",
    }

    def run(command: str, **files: str) -> str:
        for name, text in files.items():
            (folder / ".".join(name.rsplit("_", 1))).write_text(text)
        ran = subprocess.run(
            ["bash", "-c", command.removeprefix("$ ")],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert not ran.stderr, ran.stderr
        return without_times(ran.stdout)

    return run


def command_and_output(name: str, *parts: str) -> tuple[str, str]:
    """The command at the beginning of a block, and what follows it."""
    found = block(name, *parts)
    command = re.match(r"\$ (?:.*\\\n)*.*\n", found)
    assert command is not None
    return command[0].removeprefix("$ ").rstrip(), without_times(found[command.end() :])


# --- transcripts.md -----------------------------------------------------------------------------------------

TOLERANT = {
    "carol.chat": "what carol hears does not matter",
    "parrot.chat": "bob is a parrot",
    "any.chat": "one suite for servers that greet or echo",
}
FIRST = ("title: everyone else", "alice> LOGIN alice")


@pytest.fixture
def server(tmp_path: Path) -> Command:
    path = tmp_path / "chat.py"
    path.write_text(block(TRANSCRIPTS, "socketserver.ThreadingTCPServer"))
    return Command([sys.executable, str(path), "{port}"])


def played(text: str, server: Command) -> Verdict:
    return play(parse(text, "wrong.chat"), server, PlayOptions(FENCE, within_s=2.0))


CHAT = ("import socketserver, sys, threading", "LOGIN")


def test_the_first_transcript_passes_as_shown(shell):
    command, shown = command_and_output(TRANSCRIPTS, "$ harness play first.chat")
    first = block(TRANSCRIPTS, "title: everyone else", "alice> LOGIN alice")
    assert shell(command, chat_py=block(TRANSCRIPTS, *CHAT), first_chat=first) == shown


def test_the_fence_line_that_others_hear_is_heard(server):
    verdict = play(parse(block(TRANSCRIPTS, "title: what the harness says")), server)
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), plain(report(verdict))


def test_the_failing_transcript_has_the_report_that_is_shown(shell):
    command, shown = command_and_output(TRANSCRIPTS, "$ harness play wrong.chat")
    title = shown.splitlines()[1].strip()
    first = block(TRANSCRIPTS, *FIRST)
    wrong = first.replace(first.splitlines()[0], f"title: {title}").replace(
        "bob< MSG", "alice< MSG alice hello there\nbob< MSG"
    )
    told = shell(f"{command} --within 2s", chat_py=block(TRANSCRIPTS, *CHAT), wrong_chat=wrong)
    assert told == shown


def test_the_draft_is_filled_in_as_shown(shell):
    command, shown = command_and_output(TRANSCRIPTS, "$ harness update draft.chat")
    draft = block(TRANSCRIPTS, "receives nothing\n\n# what")
    told = shell(command, chat_py=block(TRANSCRIPTS, *CHAT), draft_chat=draft)
    assert "".join(f"{line.rstrip()}\n" for line in told.partition("\n\n1 ")[0].splitlines()) in (
        shown,
        f"{shown}\n",
    )


def test_the_recorder_writes_the_session_that_is_shown(shell, tmp_path):
    """Also the short form of targets.md, and `nc` is any client."""
    command, says = command_and_output(TRANSCRIPTS, "$ harness record")
    session = block(TRANSCRIPTS, "title: recorded from")
    source = tmp_path / "chat.py"
    source.write_text(block(TRANSCRIPTS, *CHAT))
    target = Command([sys.executable, str(source), "{port}"])
    with target.start(ServerSpec(), 60.0) as server:
        ports = {"4000": address_of(server.addresses, None)[1], "4001": free_port()}
        for words in (command, block(TARGETS, "harness record --connect").splitlines()[0]):
            for shown, own in ports.items():
                words = words.replace(shown, str(own))
            recorded = tmp_path / "session.chat"
            words = words.replace("session.chat", str(recorded))
            printed = recorded_talk(shlex.split(words)[1:], ports["4001"])
            if "--fence" in words:
                for shown, own in ports.items():
                    printed = printed.replace(str(own), shown)
                assert printed == says
            # On a slow machine time passes in between, and bob has not left when the recorder ends.
            lines = [line for line in recorded.read_text().splitlines() if not line.startswith("wait ")]
            wanted = session.replace("4000", str(ports["4000"])).splitlines()
            if "--fence" not in words:
                wanted = [line for line in wanted if not line.startswith("fence")]
            assert lines in (wanted, wanted[:-2]), lines


def recorded_talk(words: list[str], port: int) -> str:
    """Run the recorder, and let the people of the session talk once it listens; returns its output."""
    command = [sys.executable, "-m", "harness", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with killed_at_the_end(
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    ) as recorder:
        assert recorder.stdout is not None
        printed = recorder.stdout.readline()
        with socket.create_connection(("127.0.0.1", port)) as alice, alice.makefile("rb") as to_alice:
            alice.sendall(b"LOGIN alice\n")
            assert to_alice.readline() == b"OK\n"
            with socket.create_connection(("127.0.0.1", port)) as bob, bob.makefile("rb") as to_bob:
                bob.sendall(b"LOGIN bob\n")
                assert to_bob.readline() == b"OK\n"
                alice.sendall(b"MSG hi bob\n")
                assert to_bob.readline() == b"MSG alice hi bob\n"
                alice.sendall(b"QUIT\n")
                assert to_alice.read() == b"Goodbye!\n"
        recorder.send_signal(signal.SIGINT)
        recorder.wait(HANG_S)
    return printed


def test_a_misspelt_name_has_the_problem_that_is_shown(shell):
    command, shown = command_and_output(TRANSCRIPTS, "$ harness check slip.chat")
    slip = block(TRANSCRIPTS, *FIRST).replace("bob< OK", "bbo< OK")
    assert shell(f"{command} 2>&1", slip_chat=slip).startswith(shown)


DIES = """
import sys
from tests.harness.servers.talk import _main
_main(sys.argv[1], "dies")
"""


def test_a_server_that_dies_has_the_report_that_is_shown(shell):
    shown = block(TRANSCRIPTS, "FAILED dies.chat:11   the server died")
    script = "title: a message reaches everyone else\n\n\n"
    for name in ("alice", "bob", "carol"):
        script += f"{name}> LOGIN {name}\n{name}< OK\n"
    script += "\nalice> MSG hello there\nbob< MSG alice hello there\ncarol< MSG alice hello there\n"
    told = shell("harness play dies.chat --server 'python chat.py {port}'", chat_py=DIES, dies_chat=script)
    assert told.startswith(shown)


def test_the_definitions_and_the_free_order_pass(server):
    text = (
        block(TRANSCRIPTS, "define X logs in:")
        + "carol logs in\ndave logs in\n\n"
        + block(TRANSCRIPTS, "in any order, the same for carol dave:")
    )
    verdict = played(text, server)
    assert verdict.passed, plain(report(verdict))


def test_the_recorded_session_passes(server):
    text = block(TRANSCRIPTS, "title: recorded from").replace("127.0.0.1:4000", "somewhere")
    verdict = played(text, server)
    assert verdict.passed, plain(report(verdict))


@pytest.mark.parametrize("name", TOLERANT)
def test_the_tolerant_scripts_pass_as_shown(name, server):
    command, title = f"harness play -v {name}", TOLERANT[name]
    verdict = play(parse(block(TRANSCRIPTS, f"title: {title}"), name), server)
    shown = block(TRANSCRIPTS, command).splitlines()[1:]
    assert [*plain(report(verdict)).splitlines(), run_summary([verdict], 0.21)] == shown


def test_the_data_connection_passes():
    server = Command([sys.executable, "-S", str(ROOT / "tests/harness/servers/passive.py"), "{port}"])
    verdict = play(parse(block(TRANSCRIPTS, "carol connects to port")), server)
    assert verdict.passed, plain(report(verdict))


def test_the_message_arrives_in_time(server):
    verdict = played(block(TRANSCRIPTS, "title: a message arrives at once"), server)
    text = plain(report(verdict))
    assert verdict.passed, text
    assert re.search(r"\(slowest: [0-9.]+[mu]?s of 2s, in real time, on the clock of this machine:", text)


def test_the_sized_value_passes():
    memcached = program("memcached", "memcached")
    server = Command([memcached, "-u", "nobody", "-l", "127.0.0.1", "-p", "{port}", "-U", "0", "-t", "1"])
    verdict = play(parse(block(TRANSCRIPTS, "title: a value has the announced")), server)
    assert verdict.passed, plain(report(verdict))


def test_what_a_script_says_of_itself_is_shown(shell):
    command, shown = command_and_output(TRANSCRIPTS, "$ harness play taken.chat rooms.chat")
    files = {
        "chat_py": block(TRANSCRIPTS, *CHAT),
        "taken_chat": block(TRANSCRIPTS, "xfail: chat.py"),
        "rooms_chat": block(TRANSCRIPTS, "skip: chat.py"),
    }
    assert shell(command, **files) == shown
    alone = shell(f"{command} --tag smoke", **files)
    assert alone.splitlines()[-1].startswith("1 failed as expected in")


def test_only_the_clients_that_can_be_asked_are_asked(shell):
    command, shown = command_and_output(TRANSCRIPTS, "$ harness play -v after.chat")
    after = block(TRANSCRIPTS, "title: alice is asked once")
    # This one disconnects those who ask before they have logged in, and bob in any case.
    strict = block(TRANSCRIPTS, *CHAT).replace(
        'elif verb == "PING":', 'elif verb == "PING" and name != "alice":\n return\n elif verb == "PING":'
    )
    strict = strict.replace("\n return", f"\n{' ' * 20}return").replace("\n elif", f"\n{' ' * 16}elif")
    assert shell(command, chat_py=strict, after_chat=after) == shown
    for header in ("fence-after: LOGIN\n", "unfenced: bob\n"):
        assert header in after
        said = shell(f"{command} --within 1s || true", chat_py=strict, after_chat=after.replace(header, ""))
        assert "1 failed" in said


def test_many_clients_pass(server):
    verdict = played(block(TRANSCRIPTS, "c1..c20 joins"), server)
    assert verdict.passed, plain(report(verdict))


def test_a_connection_ends_in_one_way_only(server):
    text = block(TRANSCRIPTS, "title: a name that is taken")
    verdict = played(text, server)
    assert verdict.passed, plain(report(verdict))
    assert not played(text.replace("bob< OK\nor", "bob< NO\nor"), server).passed


def test_the_tasks_go_to_one_worker_each(server):
    verdict = played(block(TRANSCRIPTS, "title: every task"), server)
    assert verdict.passed, plain(report(verdict))


def test_the_captures_pass():
    def converse(sock, _address):
        for line in sock.makefile("rb"):
            said = b"CREATED 17 BY alice\n" if line == b"NEW\n" else b"ITEM 17 12:30\n"
            sock.sendall(said if line in (b"NEW\n", b"GET 17\n") else b"ERR\n")

    verdict = play(
        parse(block(TRANSCRIPTS, "alice<~ CREATED ${id:int}")),
        InProcess(lambda spec: StreamServer(("127.0.0.1", 0), converse)),
    )
    assert verdict.passed, plain(report(verdict))


def test_the_first_test_in_python_passes_in_both_ways(pytester: pytest.Pytester):
    pytester.makeconftest(
        "import pytest\nfrom harness import InProcess\nfrom tests.app import serve\n\n"
        "@pytest.fixture\ndef harness_target():\n    return InProcess(serve)\n"
    )
    plainly = block(TARGETS, "with Stage(InProcess(factory)) as stage:")
    pytester.makepyfile(
        test_fixture=block(TRANSCRIPTS, "def test_takeover(stage):"),
        test_plain=plainly.replace(
            "import InProcess, Stage\n", "import InProcess, Stage\nfrom tests.app import serve as factory\n"
        ),
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_pytest_finds_the_server_in_a_header_an_ini_and_a_fixture(pytester: pytest.Pytester):
    hello = block(TRANSCRIPTS, *FIRST)
    pytester.makefile(".py", chat=block(TRANSCRIPTS, *CHAT))
    python = lambda text: re.sub(r"\bpython chat\.py", f"{sys.executable} chat.py", text)  # noqa: E731
    header = python(block(TRANSCRIPTS, "target: server python chat.py {port}\n"))
    (pytester.path / "hello.chat").write_text(hello.replace("fence:", f"{header.strip()}\nfence:"))
    quiet = ("-p", "no:cacheprovider")
    pytester.runpytest_inprocess(*quiet, "hello.chat").assert_outcomes(passed=1)
    pytester.runpytest_inprocess(*quiet).assert_outcomes()
    (pytester.path / "chats").mkdir()
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "chats").mkdir()
    (pytester.path / "tests" / "chats" / "hello.chat").write_text(hello)
    ini = python(block(TRANSCRIPTS, "[tool.pytest.ini_options]"))
    (pytester.path / "pyproject.toml").write_text(ini)
    pytester.runpytest_inprocess(*quiet).assert_outcomes(passed=1)
    fixture = block(TRANSCRIPTS, "def harness_target(request):").replace(
        "./chat-in-go -listen :{port}", "python chat.py {port}"
    )
    pytester.makeconftest(python(fixture))
    (pytester.path / "pyproject.toml").write_text(ini.partition("harness_server")[0])
    result = pytester.runpytest_inprocess(*quiet, "-v", "-k", "hello")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*hello.chat::hello[[]python] PASSED*", "*hello.chat::hello[[]go] PASSED*"])


def test_the_play_in_python_passes(shell):
    said = shell(
        "python program.py",
        program_py=block(TRANSCRIPTS, "verdict = play(load("),
        chat_py=block(TRANSCRIPTS, *CHAT),
        first_chat=block(TRANSCRIPTS, *FIRST),
    )
    assert said.startswith("answered (ClientTurn(client='alice'")


def test_the_readme_of_the_package_has_a_script_and_commands_that_work(shell):
    hello = block(README, "title: everyone else receives a message")
    pip, first, suite = block(README, "pip install ./harness").splitlines()
    assert pip == "pip install ./harness"
    assert "1 passed" in shell(first, hello_chat=hello, my_server_py=block(TRANSCRIPTS, *CHAT))
    assert suite == "harness play suite:chat-line --server './my-server {port}'"


def test_the_suite_is_played_with_a_server_of_ones_own(shell, tmp_path):
    command = block(AUDIT, "harness play suite:chat-line --server './my-server {port}'")
    mine = f"#!/bin/sh\nexec python {ROOT}/tests/conformance/servers/threaded.py $1 60\n"
    said = shell(f"chmod +x my-server && {command.rstrip()} -k ping.chat", **{"my-server": mine})
    assert said.startswith("1 passed in ")


NUMBERS = r"""
import pytest
from gevent.server import StreamServer
from harness import InProcess

def converse(sock, _address):
    for line in sock.makefile("rb"):
        verb = line.split()[0]
        sock.sendall({b"NEW": b"CREATED 1\n", b"LAST": b"LAST 1\n", b"LOGIN": b"OK\n"}.get(verb, b"ITEM 1 by alice\n"))

@pytest.fixture
def harness_target():
    return InProcess(lambda spec: StreamServer(("127.0.0.1", 0), converse))
"""


def test_the_tests_in_python_pass_and_fail_as_shown(pytester: pytest.Pytester):
    pytester.makeconftest(NUMBERS)
    source = block(TRANSCRIPTS, "def test_ids")
    pytester.makepyfile(test_ids=source, test_async=block(TRANSCRIPTS, "async def test_takeover"))
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
    pytester.makepyfile(test_ids=source.replace("by alice", "by bob"))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "test_ids.py")
    shown = block(TRANSCRIPTS, "harness.Unexpected: bob received")
    assert [line.rstrip() for line in shown.splitlines()] == [
        line.rstrip() for line in result.stdout.lines if line.startswith("E  ")
    ]


def test_the_flaky_script_has_the_report_that_is_shown(tmp_path: Path):
    (tmp_path / "echo.py").write_text(block(TRANSCRIPTS, "if number % 5"))
    (tmp_path / "echo.chat").write_text("title: an echo\n\na> hello\na< hello\n")
    command, shown = block(TRANSCRIPTS, "--repeat 20").split("\n", 1)
    assert output(tmp_path, command.removeprefix("$ ")) == without_times(shown)


# --- audit-and-compare.md -----------------------------------------------------------------------------------

SERVER = f"{sys.executable} chat.py {{port}}"


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "chat.py").write_text(block(TRANSCRIPTS, "socketserver.ThreadingTCPServer"))
    (tmp_path / "hello.chat").write_text(block(AUDIT, "title: bob hears what alice says\n"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    return main([command, "hello.chat", "--server", SERVER, "--within", "2s"])


def test_the_audit_of_the_loose_script_has_the_report_that_is_shown(audited, capsys):
    assert run("audit") == 1
    shown = block(AUDIT, "$ harness audit hello.chat").split("\n", 1)[1]
    assert without_times(capsys.readouterr().out) == without_times(shown)


def test_the_loose_script_passes_the_mistake_and_the_literal_line_does_not(audited, capsys):
    server, script = audited / "chat.py", audited / "hello.chat"
    correct = server.read_text()
    assert "MSG {name} {rest}" in correct
    server.write_text(correct.replace("MSG {name} {rest}", "MSG {other} {rest}"))
    assert run("play") == 0
    script.write_text(script.read_text().replace("bob<~ MSG ${who} hello", "bob< MSG alice hello"))
    capsys.readouterr()
    assert run("play") == 1
    assert block(AUDIT, "FAILED hello.chat:9") in capsys.readouterr().out
    server.write_text(correct)
    assert run("audit") == 0


def test_the_adapted_server_has_the_report_that_is_shown(tmp_path: Path):
    (tmp_path / "other.py").write_text(block(AUDIT, "/nick", "socketserver"))
    (tmp_path / "other.adapter").write_text(block(AUDIT, "greets: Welcome to chat\n"))
    command, shown = block(AUDIT, "--adapter other=other.adapter\n").split("\n", 1)
    python = command.removeprefix("$ ").replace(
        "'python other.py {port}'", f"{sys.executable}\xa0other.py\xa0{{port}}"
    )
    assert output(tmp_path, f"{python} --within 1s") == shown


def test_the_known_differences_are_those_that_are_shown(shell):
    command, shown = command_and_output(AUDIT, "--baseline known.txt\n")
    files = {
        "other_py": block(AUDIT, "/nick", "socketserver"),
        "other_adapter": block(AUDIT, "greets: Welcome to chat\n"),
    }
    known = block(AUDIT, "# server\tscript\tcause\n")
    write = command.replace("--baseline", "--write-baseline")
    assert shell(f"{write} --within 1s >/dev/null; cat known.txt", **files) == known
    assert shell(f"{command} --within 1s && echo known", known_txt=known) == f"{shown}known\n"


def test_what_an_adapter_changed_is_counted_as_shown(tmp_path: Path):
    (tmp_path / "other.py").write_text(block(AUDIT, "/nick", "socketserver"))
    (tmp_path / "other.adapter").write_text(block(AUDIT, "greets: Welcome to chat\n"))
    (tmp_path / "hello.chat").write_text(block(AUDIT, "title: bob hears what alice says\n"))
    command, shown = block(AUDIT, "$ harness play -v hello.chat").split("\n", 1)
    python = command.removeprefix("$ ").replace(
        "'python other.py {port}'", f"{sys.executable}\xa0other.py\xa0{{port}}"
    )
    assert output(tmp_path, python) == without_times(shown)


def test_the_tagged_lines_have_the_tags_that_are_described():
    text = "alice> LOGIN alice\nalice< OK\n" + block(AUDIT, "# [000 001]")
    assert Tags(parse(text, "t.chat")).at("t.chat", 5) == ("000", "001")


# --- explore-and-generate.md --------------------------------------------------------------------------------


FREES = ("people.pop(name, None)", "people.get(name) is sock and people.pop(name)")
STOPS = (
    """\
                for other in people:
                    if other != name:
                        people[other].sendall(name.encode() + b": " + line)
""",
    """\
                for other, to in list(people.items()):
                    if other != name:
                        try:
                            to.sendall(name.encode() + b": " + line)
                        except OSError:
                            pass
""",
)
"""The two mistakes of names.py that the page names, each with its correction."""


def corrected(server: str, *mistakes: tuple[str, str]) -> str:
    for wrong, right in mistakes:
        assert wrong in server
        server = server.replace(wrong, right)
    return server


def test_the_second_mistake_that_laws_find_is_the_one_that_is_named(shell) -> None:
    command, _ = command_and_output(EXPLORE, "$ harness laws --model")
    server, model = block(EXPLORE, "import StreamServer", "TAKEN"), block(EXPLORE, "class Names:")
    said = shell(command, names_py=corrected(server, FREES), namelaws_py=model)
    assert said.startswith("BROKEN nothing is lost")
    assert "1 law broken" in said
    said = shell(command, names_py=corrected(server, FREES, STOPS), namelaws_py=model)
    assert said.startswith("no law was broken")


IN_PYTHON = ("generate(Talkers", "check_laws(Chat")


@pytest.mark.parametrize("part", IN_PYTHON)
def test_the_tests_in_python_pass_with_a_correct_server_and_fail_with_the_other(
    part: str, pytester: pytest.Pytester
) -> None:
    wrong = block(EXPLORE, "import StreamServer", "TAKEN")
    model = block(EXPLORE, "class Talkers" if "Talkers" in part else "class Names:").replace(
        "class Names", "class Chat"
    )
    example = block(EXPLORE, part)
    smaller = example.replace("clients=200, seconds=3", "clients=50, seconds=1").replace("(1, 51)", "(1, 21)")
    assert smaller != example
    pytester.makepyfile(test_it=f"from names import serve\n{model}\n{smaller}")
    for server, outcome in ((wrong, {"failed": 1}), (corrected(wrong, FREES, STOPS), {"passed": 1})):
        pytester.makefile(".py", names=server)
        pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(**outcome)


def test_pytest_explores_as_described(shell) -> None:
    command = block(EXPLORE, "$ python -m pytest --harness-explore")
    said = shell(
        f"{command.rstrip().partition('  ')[0]} -p no:cacheprovider relay.chat || true",
        relay_py=block(EXPLORE, "import StreamServer", "they say"),
        relay_chat=block(EXPLORE, "title: everyone else", "bob connects"),
        pytest_ini="[pytest]\nharness_app = relay:serve\n",
    )
    assert "cause     input cut into smaller reads" in said
    assert "1 failed" in said


@pytest.fixture
def explored(tmp_path: Path) -> Path:
    (tmp_path / "relay.py").write_text(block(EXPLORE, "import StreamServer", "they say"))
    (tmp_path / "relay.chat").write_text(block(EXPLORE, "title: everyone else", "bob connects"))
    (tmp_path / "names.py").write_text(block(EXPLORE, "import StreamServer", "TAKEN"))
    (tmp_path / "namelaws.py").write_text(block(EXPLORE, "class Names:"))
    (tmp_path / "talkers.py").write_text(block(EXPLORE, "class Talkers"))
    return tmp_path


def output(folder: Path, command: str) -> str:
    environment = {**os.environ, **OF_A_CHANGED_PROGRAM}
    words = [sys.executable, "-m", *(word.replace("\xa0", " ") for word in command.split(" "))]
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert not ran.stderr
    return without_times(ran.stdout)


COMMANDS = ("explore relay.chat --app relay", "generate --model", "laws --model")


@pytest.mark.parametrize("which", COMMANDS)
def test_a_command_prints_the_documented_output(explored: Path, which: str) -> None:
    command, shown = block(EXPLORE, f"$ harness {which}").split("\n", 1)
    assert output(explored, command.removeprefix("$ ")) == without_times(shown)


def test_the_mistake_of_a_server_on_asyncio_is_found_as_shown(explored: Path) -> None:
    (explored / "lines.py").write_text(block(EXPLORE, "import asyncio", "reader.read(4096)"))
    command, shown = command_and_output(EXPLORE, "$ harness explore relay.chat --app lines:serve")
    assert output(explored, command).startswith(shown)
    server = explored / "lines.py"
    server.write_text(server.read_text().replace("reader.read(4096)", "reader.readline()"))
    assert output(explored, command).startswith("1 passed under seeds 1 to 20")


def test_every_law_is_documented() -> None:
    table = page(EXPLORE).split("| law | broken if |\n|---|---|\n")[1].split("\n\n")[0]
    assert [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()] == [
        law.value for law in Law
    ]


def test_the_second_mistake_of_the_relay_has_the_cause_that_is_named(explored: Path) -> None:
    server = explored / "relay.py"
    head, _ = server.read_text().split("    while chunk")
    server.write_text(
        head
        + """\
    for line in sock.makefile("rb"):
        for other in people:
            if other is not sock:
                other.sendall(b"they say " + line)
    people.remove(sock)
"""
    )
    assert "1 passed" in output(explored, "harness explore relay.chat --app relay:serve")
    (explored / "two.chat").write_text(
        "alice connects\nbob connects\ncarol connects\n\ntogether:\n    alice> hello\n    bob> hello yourself\n"
        "in any order:\n    alice< they say hello yourself\n    bob< they say hello\n    carol< they say hello\n"
        "    carol< they say hello yourself\n"
    )
    cause = Perturbation.STALLS.description
    assert f"caused by `{cause}`" in page(EXPLORE)
    shown = output(explored, "harness explore two.chat --app relay:serve")
    assert re.search(rf"^  cause     .*{cause}$", shown, re.MULTILINE)


def test_the_script_with_a_fault_passes() -> None:
    text = block(EXPLORE, "accepting fails with EMFILE", "bob receives nothing")
    verdict = play(parse(text), InProcess(serve))
    assert verdict.passed, plain(report(verdict))


def test_every_kind_of_perturbation_is_documented() -> None:
    assert re.findall(r"^\| `(\w+)` \| ", page(EXPLORE), re.MULTILINE) == [
        kind.value for kind in Perturbation
    ]


# --- targets.md ---------------------------------------------------------------------------------------------


def test_the_minute_passes_in_a_second(shell) -> None:
    program("faketime", "faketime")
    command, shown = command_and_output(TARGETS, "$ harness play minute.chat")
    files = {
        "minute_py": block(TARGETS, "import asyncio", "for a minute"),
        "minute_chat": block(TARGETS, "title: a client that says nothing"),
    }
    # A tenth of a second that a server waits for a processor counts as six here. That can spoil one play, but not ten.
    printed = ""
    for _ in range(10):
        printed = shell(command, **files)
        if printed == shown:
            break
    assert printed == shown


def test_the_asyncio_server_passes_its_transcript(tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text(block(TARGETS, "IDLE_S = 60"))
    (tmp_path / "idle.chat").write_text(block(TARGETS, "title: after a minute of silence"))
    command = re.search(r"`harness (play idle\.chat[^`]*)`", page(TARGETS))
    assert command is not None
    assert "1 passed" in output(tmp_path, f"harness {command[1]}")
    server = tmp_path / "idle.py"
    server.write_text(server.read_text().replace("IDLE_S = 60", "IDLE_S = 59"))
    assert "1 failed" in output(tmp_path, f"harness {command[1]}")


def test_the_two_nodes_pass_their_transcript(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("node.py").write_text(block(TARGETS, "tell_the_other_node"))
    Path("two.chat").write_text(block(TARGETS, "title: messages are lost while"))
    command = (
        block(TARGETS, "$ harness play two.chat").removeprefix("$ harness ").replace("python", sys.executable)
    )
    assert main(shlex.split(command)) == 0, capsys.readouterr().out


ADMIN = """#!/usr/bin/env python3
import socketserver, threading

class Chat(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(self.server.name + b": " + line)

for name in (b"chat", b"admin"):
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Chat)
    server.name = name
    threading.Thread(target=server.serve_forever).start()
    print(f"{name.decode()} on port {server.server_address[1]}", flush=True)
"""


def test_a_server_with_two_ports_names_them(shell) -> None:
    command, _ = command_and_output(TARGETS, "$ harness play admin.chat --server './serve'")
    script = "alice> hi\nalice< chat: hi\nbob connects to admin\nbob> hi\nbob< admin: hi\n"
    assert "1 passed" in shell(f"chmod +x serve && {command}", serve=ADMIN, admin_chat=script)


def test_the_lines_of_a_far_client_arrive_although_they_are_late_in_pieces_or_held_back(shell) -> None:
    command, shown = command_and_output(TARGETS, "$ harness play far.chat")
    far = block(TARGETS, "title: lines that are late", "is stopped")
    chat = block(TRANSCRIPTS, *CHAT)
    assert shell(command, chat_py=chat, far_chat=far) == shown
    alone = shell(f"{command.replace('--node chat=', '--server ')} || true", chat_py=chat, far_chat=far)
    assert "has no nodes" in alone


def test_the_echo_comes_over_a_unix_socket(shell) -> None:
    command, shown = command_and_output(TARGETS, "$ harness play echo.chat --server")
    echo = block(TARGETS, "title: what alice says comes back")
    assert shell(command, unix_py=block(TARGETS, "ThreadingUnixStreamServer"), echo_chat=echo) == shown


def test_the_echo_comes_over_tls_from_a_server_whose_certificate_is_known(shell) -> None:
    program("openssl", "openssl")
    shell(f"{block(TARGETS, '$ openssl req').strip()} 2>openssl.log")
    command, shown = command_and_output(TARGETS, "$ harness play echo.chat --app secure:serve")
    files = {
        "secure_py": block(TARGETS, "load_cert_chain"),
        "echo_chat": block(TARGETS, "title: what alice says comes back"),
    }
    assert shell(command, **files) == shown
    unknown = shell(f"{command.partition(' --tls-ca')[0]} || true", **files)
    assert "the server's certificate is not accepted" in unknown


def test_the_messages_come_over_a_websocket(shell) -> None:
    module("websockets")
    command, shown = command_and_output(TARGETS, "$ harness play web.chat")
    files = {
        "web_py": block(TARGETS, "from websockets.asyncio.server"),
        "web_chat": block(TARGETS, "transport: websocket /chat\n"),
    }
    assert shell(command, **files) == shown


# --- verdicts.md --------------------------------------------------------------------------------------------


def test_the_commands_that_measure_can_be_given_and_name_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [*block(VERDICTS, "python -m tests.harness.zoo").splitlines()]
    commands += re.findall(r"^`(python -m tests\.harness\.zoo [^`]*)`$", page(VERDICTS), re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        words = shlex.split(command, comments=True)
        assert words[:3] == ["python", "-m", "tests.harness.zoo"]
        monkeypatch.setattr(sys, "argv", words[2:])
        options = zoo_options()
        for part in options.servers:
            assert any(part in one.name for one in SERVERS), part


def test_the_independent_servers_are_compared_with_the_suites_that_are_named() -> None:
    command = shlex.split(block(AUDIT, "python -m tests.independent"))
    assert command[:3] == ["python", "-m", "tests.independent"]
    assert command[3] in SUITES
    assert set(command[4:]) & {row.flag for row in OPTIONS if "compare" in row.commands} == {"--html"}


def test_the_command_that_compares_an_adapted_server_names_files_and_options_that_there_are() -> None:
    """`tests/independent/adapted` plays the same."""
    command = shlex.split(block(AUDIT, "tests/independent/adapted/tavern.py"))
    assert command[:3] == ["harness", "compare", "suite:chat-line"]
    named = re.findall(r"tests/[\w/]+\.\w+", " ".join(command))
    assert len(named) == 2
    assert all((ROOT / path).exists() for path in named)
    assert {word for word in command if word.startswith("--")} == {"--server", "--adapter"}


# --- all of them --------------------------------------------------------------------------------------------


def test_the_usage_lines_name_commands_and_options_that_there_are() -> None:
    lines = (
        block(TRANSCRIPTS, "harness play   FILE").splitlines()
        + block(AUDIT, "harness audit FILE").splitlines()
    )
    assert len(lines) == 5
    for line in lines:
        words = line.split()
        assert words[0] == "harness"
        known = {flag for row in OPTIONS if words[1] in row.commands.split() for flag in row.flag.split()}
        known |= {"-k", "-x", "-v", "-j", "-o"}
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)) <= known, line


IN_THE_CONFORMANCE_SUITE = (
    "$ harness compare suite:chat-line --fence",
    "FAILED harness/conformance/chat-line",
)
"""Blocks that `test_conformance_suite.py` compares with the page."""


def named_blocks() -> Iterator[tuple[str, list[str]]]:
    """The page and the parts of each block that a test of this file asks for."""
    constants = {name: value for name, value in globals().items() if isinstance(value, (str, tuple))}

    def parts_of(node: ast.expr) -> list[str]:
        match node:
            case ast.Constant(value):
                return [str(value)]
            case ast.Name(name):
                value = constants.get(name, ())
                return [value] if isinstance(value, str) else list(value)
            case ast.Starred(inner):
                return parts_of(inner)
            case _:
                return []

    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8"))):
        asks = isinstance(node, ast.Call) and ast.unparse(node.func) in ("block", "command_and_output")
        if isinstance(node, ast.Call) and asks:
            name, *parts = ([*parts_of(argument)] for argument in node.args)
            if name:
                yield name[0], [part for some in parts for part in some]


def test_every_example_of_a_page_is_used_by_a_test() -> None:
    named = [
        *named_blocks(),
        *((AUDIT, [part]) for part in IN_THE_CONFORMANCE_SUITE),
        *((TRANSCRIPTS, [f"harness play -v {name}"]) for name in TOLERANT),
        *((TRANSCRIPTS, [f"title: {title}"]) for title in TOLERANT.values()),
        *((EXPLORE, [f"$ harness {which}"]) for which in COMMANDS),
        *((EXPLORE, [part]) for part in IN_PYTHON),
    ]
    unused = [
        f"{name}: {text.splitlines()[0]}"
        for name in PAGES
        for text in blocks(name)
        if not any(page == name and parts and all(part in text for part in parts) for page, parts in named)
    ]
    assert unused == []


# --- options ------------------------------------------------------------------------------------------------


def test_every_option_is_documented_on_the_page_of_its_command_or_as_one_of_play() -> None:
    pages = {"laws": EXPLORE, "audit": AUDIT, "compare": AUDIT, "explore": EXPLORE, "generate": EXPLORE}
    missing = {
        (command, row.flag)
        for row in OPTIONS
        for command in row.commands.split()
        if not re.search(
            rf"{row.flag}\b",
            page(TRANSCRIPTS if "play" in row.commands else pages.get(command, TRANSCRIPTS)),
        )
    }
    assert missing == set()


def test_every_option_of_the_pytest_plugin_is_documented() -> None:
    pages = page(TRANSCRIPTS) + page(AUDIT) + page(EXPLORE)
    flags = {row.pytest_flag for row in OPTIONS if row.pytest_flag}
    assert {flag for flag in flags if not re.search(rf"{flag}\b(?!-)", pages)} == set()
    keys = {row.ini_key for row in OPTIONS if row.ini_key}
    assert {key for key in keys if not re.search(rf"\b{key}\b", pages)} == set()


def test_the_options_without_a_key_in_the_ini_are_counted() -> None:
    flags = {row.pytest_flag for row in OPTIONS if row.pytest_flag and not row.ini_key}
    (paragraph,) = (one for one in page(TRANSCRIPTS).split("\n\n") if "have no key in" in one)
    assert {flag for flag in flags if not re.search(rf"`{flag}`", paragraph)} == set()
    number = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")[len(flags)]
    assert f"these {number} change what the tests of a run do" in paragraph


@pytest.mark.parametrize("name", [TRANSCRIPTS, AUDIT, EXPLORE])
def test_every_option_in_the_documentation_exists(name: str) -> None:
    known = {row.flag for row in OPTIONS} | {row.pytest_flag for row in OPTIONS}
    pytest_options = {"--lf", "--junitxml", "--port", "--pdb", "--tb", "--trace"}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page(name)))
    assert mentioned - known - pytest_options == set()
