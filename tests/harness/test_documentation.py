"""The documentation is true: its servers, scripts, models and reports are played, and its options exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import Command, Grade, InProcess, PlayOptions, Verdict, parse, play
from harness.cli import main
from harness.interception.schedule import Perturbation
from harness.language.fences import Fence
from harness.laws.history import Law
from harness.options import OPTIONS
from harness.report.styled_text import plain
from harness.report.text import report, run_summary
from harness.update import update
from tests.app import serve
from tests.foreign.installed import program

ROOT = Path(__file__).parents[2]
TRANSCRIPTS, AUDIT, EXPLORE = "transcripts.md", "audit-and-compare.md", "explore-and-generate.md"
TARGETS = "targets.md"
FENCE = Fence("PING", ("PONG",))


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages show the output without a terminal."""
    monkeypatch.setenv("COLUMNS", "120")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def block(name: str, *parts: str) -> str:
    """The only block of this page that contains all these parts."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    (found,) = [text for text in blocks if all(part in text for part in parts)]
    return found


def without_times(text: str) -> str:
    return re.sub(r"[0-9]+\.[0-9]{2} s", "0.00 s", text)


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


def test_the_first_transcript_passes(server):
    verdict = played(block(TRANSCRIPTS, *FIRST), server)
    assert verdict.passed, plain(report(verdict))


def test_the_fence_line_that_others_hear_is_heard(server):
    verdict = play(parse(block(TRANSCRIPTS, "title: what the harness says")), server)
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), plain(report(verdict))


def test_the_failing_transcript_has_the_report_that_is_shown(server):
    shown = block(TRANSCRIPTS, "$ harness play wrong.chat").split("\n", 1)[1].rsplit("\n\n1 failed", 1)[0]
    title = shown.splitlines()[1].strip()
    first = block(TRANSCRIPTS, *FIRST)
    wrong = first.replace(first.splitlines()[0], f"title: {title}").replace(
        "bob< MSG", "alice< MSG alice hello there\nbob< MSG"
    )
    assert plain(report(played(wrong, server))).rstrip() == shown


def test_the_draft_is_filled_in_as_shown(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("draft.chat")
    path.write_text(block(TRANSCRIPTS, "receives nothing\n\n# what"))
    done = update(path, server, PlayOptions(FENCE))
    assert [line.rstrip() for line in done.diff.splitlines()] == block(
        TRANSCRIPTS, "--- draft.chat"
    ).splitlines()[1:]


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
    verdict = play(parse(block(TRANSCRIPTS, "title: a value has as many bytes")), server)
    assert verdict.passed, plain(report(verdict))


def test_many_clients_pass(server):
    verdict = played(block(TRANSCRIPTS, "c1..c20 joins"), server)
    assert verdict.passed, plain(report(verdict))


def test_the_tasks_go_to_one_worker_each(server):
    verdict = played(block(TRANSCRIPTS, "title: every task"), server)
    assert verdict.passed, plain(report(verdict))


def test_the_captures_are_a_script():
    assert parse(block(TRANSCRIPTS, "alice<~ CREATED ${id:int}"))


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


# --- explore-and-generate.md --------------------------------------------------------------------------------


@pytest.fixture
def explored(tmp_path: Path) -> Path:
    (tmp_path / "relay.py").write_text(block(EXPLORE, "import StreamServer", "they say"))
    (tmp_path / "relay.chat").write_text(block(EXPLORE, "title: everyone else", "bob connects"))
    (tmp_path / "names.py").write_text(block(EXPLORE, "import StreamServer", "TAKEN"))
    (tmp_path / "namelaws.py").write_text(block(EXPLORE, "class Names:"))
    (tmp_path / "talkers.py").write_text(block(EXPLORE, "class Talkers"))
    return tmp_path


def output(folder: Path, command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", *(word.replace("\xa0", " ") for word in command.split(" "))]
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert not ran.stderr
    return without_times(ran.stdout)


@pytest.mark.parametrize("which", ["explore relay.chat", "generate --model", "laws --model"])
def test_a_command_prints_the_documented_output(explored: Path, which: str) -> None:
    command, shown = block(EXPLORE, f"$ harness {which}").split("\n", 1)
    assert output(explored, command.removeprefix("$ ")) == without_times(shown)


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


def test_the_minute_passes_in_a_second(tmp_path: Path, monkeypatch, capsys) -> None:
    program("faketime", "faketime")
    monkeypatch.chdir(tmp_path)
    Path("minute.py").write_text(block(TARGETS, "import asyncio", "for a minute"))
    Path("minute.chat").write_text(block(TARGETS, "title: whoever says nothing"))
    assert main(["play", "minute.chat", "--server", f"{sys.executable} minute.py {{port}}"]) == 0
    (shown,) = re.findall(r"^1 passed .*time x60.*$", page(TARGETS), re.MULTILINE)
    assert without_times(capsys.readouterr().out) == without_times(shown) + "\n"


def test_the_asyncio_server_passes_its_transcript(tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text(block(TARGETS, "async def serve"))
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
    Path("two.chat").write_text(block(TARGETS, "title: what is said while"))
    command = (
        block(TARGETS, "$ harness play two.chat").removeprefix("$ harness ").replace("python", sys.executable)
    )
    assert main(shlex.split(command)) == 0, capsys.readouterr().out


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


@pytest.mark.parametrize("name", [TRANSCRIPTS, AUDIT, EXPLORE])
def test_every_option_in_the_documentation_exists(name: str) -> None:
    known = {row.flag for row in OPTIONS} | {row.pytest_flag for row in OPTIONS}
    pytest_options = {"--lf", "--junitxml", "--port", "--pdb", "--tb"}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page(name)))
    assert mentioned - known - pytest_options == set()
