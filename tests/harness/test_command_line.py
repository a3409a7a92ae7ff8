"""The command `harness`: its output, its files and its exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from harness.cli import _parser, main
from tests.harness.test_command import gone
from tests.patience import HANG_S, killed_at_the_end, until

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
CORRECT = ("--app", "tests.harness.servers.talk:serve_correctly")
WITH_FAULT = ("--app", "tests.harness.servers.talk:serve")
GOOD = "title: a login is answered\n\nalice> LOGIN alice\nalice< OK\n"
BAD = "alice> LOGIN alice\nalice< NO\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    return tmp_path


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.chat").write_text(text)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (GOOD, 0, "1 passed in"),
        (BAD, 1, "FAILED a.chat:2   alice received something else"),
        ("alice conects\n", 2, "SCRIPT ERROR a.chat"),
        (
            "needs: magic\n\na> x\n",
            0,
            "skipped a.chat  needs magic, which tests.harness.servers.talk:serve lacks",
        ),
        ("server: fault=drops salt=1\n\na> x\n", 2, "no option 'salt'; known: fault"),
    ],
)
def test_the_exit_code_says_whose_fault_it_is(folder, capsys, text, code, message):
    write(folder, a=text)
    assert main(["play", "a.chat", *WITH_FAULT]) == code
    assert message in capsys.readouterr().out


def test_without_a_command_it_prints_the_help(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "play scripts and report what fails" in captured.out
    assert captured.out.startswith("usage: harness ")
    assert not captured.err


def test_it_prints_its_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"harness (\d+\.\d+.*|\(not installed\))\n", capsys.readouterr().out)


def test_a_script_error_outweighs_a_failure(folder, capsys):
    write(folder, a=BAD, b="alice conects\n", c=GOOD)
    assert main(["play", ".", *CORRECT]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 failed, 1 script error, 1 passed in ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["play", "nowhere.chat", *CORRECT], "cannot read nowhere.chat: No such file"),
        (["play", 300 * "x", *CORRECT], "x: File name too long"),
        (["play", ".", *CORRECT], "no *.chat file in ."),
        (["play", "a.chat", "-k", "zebra", *CORRECT], "no *.chat file in a.chat with 'zebra' in its path"),
        (["play", "a.chat", "--app", "nowhere:serve"], "nowhere:serve: No module named 'nowhere'"),
        (["play", "a.chat", "--app", "os:path"], "os:path is not a factory"),
        (["play", "a.chat", "--app", "os"], "expected MODULE:FACTORY"),
        (["play", "a.chat", "--connect", "nonsense"], "expected HOST:PORT"),
        (
            ["play", "a.chat", "--server", "x", "--ready", "("],
            "--ready '(': missing ), unterminated subpattern",
        ),
        (
            ["audit", "a.chat", "--ready", "x", "--node", "a=x {port}"],
            "--ready is for --server, not for --node",
        ),
        (["play", "a.chat", "--shared", *CORRECT], "--shared is for --server, not for --app"),
        (["play", "a.chat", "--server", "x {port} {socket}"], "gives the only endpoint a port and a socket"),
        (["play", "a.chat", "--connect", "127.0.0.1:1"], "connection refused by 127.0.0.1:1"),
        (["play", "a.chat", "--fence", "PING", *CORRECT], "a line without its answer"),
        (["play", "a.chat", "--within", "5", *CORRECT], "'5' is not a duration"),
        (
            ["play", "a.chat"],
            "a.chat has no server; name it: --server 'COMMAND {port}', --connect HOST:PORT or --app",
        ),
        (["update", "a.chat"], "a.chat has no server; name it"),
        (["generate", "--model", "os:path"], "os:path is not a model"),
        (
            ["generate", "--model", "tests.harness.servers.talkers:Talkers"],
            "name the server: --server 'COMMAND {port}'",
        ),
        (["play", "a.chat", "--server", "false {port}"], "exited with status 1 before it listened"),
    ],
)
def test_a_script_that_cannot_be_played_is_explained_and_exits_with_2(folder, capsys, arguments, message):
    if arguments[1] == "a.chat":
        write(folder, a=GOOD)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.out + captured.err


@pytest.mark.parametrize("words", [["play", "a.chat", "--app"], ["generate", "--model"]])
@pytest.mark.parametrize(
    ("code", "message", "shown"),
    [
        ("import sys\nsys.exit()\n", "the module raised SystemExit", "sys.exit()"),
        (
            "def helper():\n    return 1 / 0\nhelper()\n",
            "ZeroDivisionError: division by zero",
            "return 1 / 0",
        ),
        ("import os\nos.nothing\n", "has no attribute 'nothing'", "line 2, in <module>"),
        ("serve = (\n", "SyntaxError: '(' was never closed", "serve = ("),
    ],
    ids=["exits", "raises", "wrong attribute", "wrong syntax"],
)
def test_a_module_that_cannot_be_imported_is_explained_and_exits_with_2(
    folder, capsys, monkeypatch, words, code, message, shown
):
    """Also where it exits with status 0: the run would look as if everything had passed."""
    write(folder, a=GOOD)
    (folder / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    assert main([*words, "broken:serve"]) == 2
    written = capsys.readouterr().err
    assert written.startswith("harness: broken:serve: the module raised ")
    assert message in written
    assert shown in written
    assert "importlib" not in written
    assert "choice.py" not in written


TARGETED = "target: {}\n\n" + GOOD.partition("\n\n")[2]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_each_script_is_played_at_the_server_that_its_header_names(folder, capsys, monkeypatch, jobs):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "80")
    write(
        folder,
        one=TARGETED.format("app tests.harness.servers.talk:serve_correctly"),
        two=TARGETED.format(f"server {sys.executable} -m tests.harness.servers.talk {{port}} none"),
        three=TARGETED.format("connect 127.0.0.1:1"),
        four="alice> tab\there\n",
    )
    assert main(["play", ".", "-v", "-j", jobs]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ") and line] == [
        "SCRIPT ERROR four.chat",
        "passed one.chat",
        "TARGET ERROR three.chat",
        "passed two.chat  (settled: silence is not proven; with a fence line the grade",
        lines[-1],
    ]
    assert main(["play", ".", *CORRECT, "-j", jobs]) == 2
    assert "1 script error, 3 passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nowhere.example:4000", "Name or service not known"),
        ("255.255.255.255:4000", "Network is unreachable"),
    ],
)
def test_a_server_that_cannot_be_reached_is_an_error_of_the_target(folder, capsys, monkeypatch, address, why):
    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return socket.getaddrinfo(host, *arguments, **options)

    monkeypatch.setattr("harness.stage.connection._getaddrinfo", look_up)
    write(folder, good=GOOD)
    said = f"cannot connect to {address}: {why}"
    assert main(["play", "good.chat", "--connect", address]) == 2
    assert said in capsys.readouterr().out
    model = "tests.harness.test_judging_by_laws:LineChat"
    assert main(["laws", "--model", model, "--connect", address, "--seconds", "1"]) == 2
    assert said in capsys.readouterr().out
    main(["compare", "good.chat", "--app", f"one={CORRECT[1]}", "--connect", f"two={address}"])
    assert said in capsys.readouterr().out


def test_a_header_names_the_server_for_the_other_commands_too(folder, capsys):
    target = TARGETED.format("app tests.harness.servers.talk:serve_correctly")
    write(folder, a=target.replace("< OK", "< ?"))
    assert main(["update", "a.chat"]) == 0
    assert (folder / "a.chat").read_text() == target
    assert main(["audit", "a.chat"]) == 0
    assert main(["explore", "a.chat", "--runs", "2"]) == 0
    write(folder, a=TARGETED.format("connect 127.0.0.1:1"))
    capsys.readouterr()
    assert main(["explore", "a.chat"]) == 2
    assert "cannot explore 127.0.0.1:1" in capsys.readouterr().err


def test_x_stops_at_the_first_failure_and_k_chooses(folder, capsys):
    write(folder, a=BAD, b=BAD, good=GOOD)
    assert main(["play", ".", "-x", *CORRECT]) == 1
    assert capsys.readouterr().out.count("FAILED") == 1
    assert main(["play", ".", "-k", "GOOD", "-v", *CORRECT]) == 0
    assert capsys.readouterr().out.startswith("passed good.chat\n1 passed in ")


def test_folders_are_searched_and_files_of_definitions_are_left_out(folder, capsys):
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.chat").write_text("include ../common.chat\n\nalice logs in\n")
    (folder / "deep" / "common.chat").write_text("define X logs in:\n    X>~ LOGIN ${X}\n    X< OK\n")
    assert main(["play", "deep", *CORRECT]) == 0
    assert capsys.readouterr().out.startswith("1 passed in ")


def checked(capsys) -> str:
    """What the check of the current folder says."""
    main(["check", "."])
    out, err = capsys.readouterr()
    return (out + err).rstrip("\n")


def test_what_a_folder_hides_or_has_installed_is_not_searched(folder, capsys):
    write(folder, a=GOOD)
    installed = "lib/python3/site-packages/harness/conformance/chat-line"
    for place in (f".venv/{installed}", f"env/{installed}", f"conda/{installed}", ".git"):
        (folder / place).mkdir(parents=True)
        (folder / place / "b.chat").write_text(BAD)
    (folder / "env" / "pyvenv.cfg").touch()
    (folder / "conda" / "conda-meta").mkdir()
    (folder / ".#a.chat").symlink_to("someone@host.1:2")  # a lock of Emacs
    assert checked(capsys) == "1 script is valid"
    assert main(["update", ".", *CORRECT]) == 0
    assert capsys.readouterr().out == "unchanged a.chat\n"
    # What is named is meant.
    assert main(["check", ".venv", "env", ".git/b.chat"]) == 0
    assert capsys.readouterr().out == "3 scripts are valid\n"


def test_links_to_folders_are_followed_and_each_folder_is_searched_once(folder, capsys):
    inner, outside = folder / "project" / "inner", folder / "outside"
    inner.mkdir(parents=True)
    outside.mkdir()
    for place in (inner, outside):
        (place / "a.chat").write_text(BAD)
    (folder / "project" / "again").symlink_to(inner)
    (folder / "project" / "out").symlink_to(outside)
    (outside / "round").symlink_to(outside)
    (inner / "up").symlink_to(folder / "project")
    assert main(["play", "project", *CORRECT]) == 1
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert failed == ["project/inner/a.chat:2", "outside/a.chat:2"]


def test_only_files_are_scripts_of_a_folder_but_a_link_to_nothing_is_reported(folder, capsys):
    write(folder, a=GOOD)
    (folder / "folder.chat").mkdir()
    os.mkfifo(folder / "pipe.chat")  # opening it would wait for ever
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.chat")
    assert checked(capsys) == "1 script is valid"
    (folder / "gone.chat").symlink_to("nowhere.chat")
    assert "cannot read gone.chat: No such file" in checked(capsys)


def test_a_folder_that_cannot_be_read_is_an_error(folder, capsys):
    write(folder, a=GOOD)
    for _ in range(20):  # not even root can name the last one
        os.mkdir("deep" * 60)
        os.chdir("deep" * 60)
    os.chdir(folder)
    assert main(["check", "."]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"harness: cannot read \./deep[/deep]+: File name too long\n", err)


def test_a_script_that_has_lost_its_steps_is_not_left_out(folder, capsys):
    lost = {
        "empty": "",
        "title": "title: x\n",
        "comments": "# a> x\n",
        "skipped": "skip: why\n\ninclude head.chat\n",
    }
    others = {
        "head": "fence: PING -> PONG\n",
        "includes": "include head.chat\n",
        "named": "title: x\n\ndefine X y:\n    X> y\n",
    }
    write(folder, good=GOOD, **lost, **others)
    assert main(["check", "."]) == 2
    assert capsys.readouterr().out.count("nothing happens in this script") == len(lost)
    assert main(["play", ".", *CORRECT]) == 2
    assert "4 script errors, 1 passed" in capsys.readouterr().out
    assert main(["check", "head.chat", "includes.chat", "named.chat"]) == 0


def test_several_processes_give_the_same_verdicts_in_the_same_order(capsys):
    def output(*more: str) -> str:
        assert main(["play", str(GOLDEN), *WITH_FAULT, "-k", "line", *more]) == 1
        text = capsys.readouterr().out
        return "\n".join(line for line in text.splitlines() if line.startswith(("FAILED", "  hint", "bob")))

    assert output("-j", "2") == output()


def test_the_junit_report_has_every_failure(folder):
    write(
        folder,
        a=BAD,
        b="alice conects\n",
        c=GOOD,
        d="needs: magic\n\na> x\n",
        e="alice> \\x01\nalice<< \\x01\n",
    )
    assert main(["play", ".", *CORRECT, "--junit", "report.xml"]) == 2
    suite = ET.parse(folder / "report.xml").getroot()[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "2", "errors": "1", "skipped": "1",
    }  # fmt: skip
    failure = suite[0].find("failure")
    assert failure.get("message") == "alice received something else"
    assert "received  OK" in failure.text


def test_the_page_is_self_contained(folder):
    write(folder, a=BAD, c=GOOD, evil="title: <script>alert(1)</script>\n\nalice> LOGIN <b>\nalice< <i>\n")
    assert main(["play", ".", *CORRECT, "--html", "page.html"]) == 1
    page = (folder / "page.html").read_text()
    assert "2 failed, 1 passed" in page
    assert "<script" not in page
    assert "<b>" not in re.sub(r'<b class="\w+">', "", page)
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert 'class="bad"' in page
    # All turns of a script that passed are shown too.
    assert "&gt; LOGIN alice" in page


def test_update_prints_the_difference_and_exits_with_0_if_all_files_pass_now(folder, capsys):
    write(folder, a=BAD, b=GOOD)
    assert main(["update", ".", *CORRECT]) == 0
    out = capsys.readouterr().out
    assert "-alice< NO\n+alice< OK\n" in out
    assert "unchanged b.chat" in out
    assert main(["play", ".", *CORRECT]) == 0


def test_update_explains_a_refusal_and_exits_with_1(folder, capsys):
    write(folder, a="repeat 2 as n:\n    a>~ LOGIN ${n}\n    a< OK\n    a> WHO\n    a< x\n")
    assert main(["update", "a.chat", *CORRECT]) == 1
    assert "not rewritten: line 5 is played 2 times" in capsys.readouterr().out


def test_a_file_that_update_cannot_write_is_an_error_and_the_others_are_updated(folder, capsys):
    write(folder, a=BAD, b=BAD)
    with open("a.chat", "rb") as opened:
        os.unlink("a.chat")
        # It can be read, but not even root can replace it.
        assert main(["update", f"/proc/self/fd/{opened.fileno()}", "b.chat", *CORRECT]) == 2
    out = capsys.readouterr().out
    assert "FAILED a.chat (deleted):2" in out
    assert "not rewritten: cannot replace a.chat (deleted): No such file or directory\n" in out
    assert (folder / "b.chat").read_text() == BAD.replace("NO", "OK")
    assert os.listdir() == ["b.chat"]


def test_the_words_around_reports_fit_a_narrow_terminal_too(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    write(
        folder,
        a="repeat 2 as n:\n    a>~ LOGIN ${n}\n    a< OK\n    a> WHO\n    a< x\n",
        b="alcie< OK OK OK OK\n",
    )
    assert main(["update", "a.chat", *CORRECT]) == 1
    assert main(["check", "b.chat"]) == 2
    out = capsys.readouterr().out
    assert "not rewritten: " in out
    assert "b.chat:1:1: " in out
    assert max(map(len, out.splitlines())) <= 50


@pytest.mark.parametrize("closed", [["stdout"], ["stderr"], ["stdout", "stderr"]], ids=" and ".join)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["play", "a.chat", *CORRECT], 0), (["play", ".", *CORRECT], 1), (["check", ".", "-k", "zebra"], 2)],
)
def test_a_command_without_an_output_has_its_exit_code(folder, monkeypatch, arguments, code, closed):
    write(folder, a=GOOD, b=BAD)
    for name in closed:
        monkeypatch.setattr(sys, name, None)
    assert main(arguments) == code


def test_check_needs_no_server(folder, capsys):
    write(folder, a=GOOD, b="alice> LOGIN alice\nalcie< OK\n")
    assert main(["check", "a.chat"]) == 0
    assert capsys.readouterr().out == "1 script is valid\n"
    assert main(["check", "a.chat", "b.chat", "c.chat"]) == 2
    out = capsys.readouterr().out
    assert "b.chat:2:1: alcie has not connected yet" in out
    assert "cannot read c.chat: No such file or directory" in out


def harness(*arguments: str, folder: Path, **streams: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments], cwd=folder, env=environment, **streams
    )


(_COMMANDS,) = (one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction))
# For each command, what it writes without reading anything that is missing here.
WRITING = {
    "play": [[".", "-v", *CORRECT], [".", "-j", "2", "-v", *CORRECT]],
    "update": [[".", *CORRECT]],
    "record": [["--connect", "127.0.0.1:9", "--listen", "0", "-o", "out.chat"]],
    "check": [["."]],
    "audit": [[".", *CORRECT]],
    "explore": [[".", "--runs", "1", *CORRECT]],
    "generate": [["--model", "tests.harness.servers.talkers:Talkers", "--runs", "1", *CORRECT]],
    "laws": [["--model", "tests.harness.servers.lawless:LineChat", "--clients", "3", "--seconds", "1",
              "--app", "tests.harness.servers.lawless:serve"]],
    "compare": [[".", "--app", "talk=tests.harness.servers.talk:serve"]],
}  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        *([name, *words] for name in _COMMANDS.choices for words in (["--help"], *WRITING[name])),
    ],
    ids=" ".join,
)
def test_every_command_ends_quietly_if_its_output_is_closed(folder, arguments):
    write(folder, a=GOOD, b=BAD, c="alice conects\n")
    reader, writer = os.pipe()
    os.close(reader)
    process = harness(*arguments, folder=folder, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, errors = process.communicate(timeout=HANG_S)
    assert errors == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_closed_output_has_its_exit_code_also_without_standard_error(folder):
    write(folder, a=GOOD, b=BAD)
    reader, writer = os.pipe()
    os.close(reader)
    with without_standard_error("play", ".", *CORRECT, folder=folder, stdout=writer) as process:
        os.close(writer)
        assert process.wait(HANG_S) == 128 + signal.SIGPIPE


def without_standard_error(*arguments: str, folder: Path, **streams: Any) -> subprocess.Popen[bytes]:
    shell = ["sh", "-c", 'exec "$0" -m harness "$@" 2>&-', sys.executable, *arguments]
    return subprocess.Popen(shell, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, **streams)


def test_what_the_encoding_of_the_output_lacks_is_escaped(folder, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (folder / "ä.chat").write_text("alice> LOGIN alice\nalice< ö\n")
    (folder / os.fsdecode(b"\xff.chat")).write_text(BAD)  # not UTF-8
    for arguments, code, texts in (
        (["play", "--help"], 0, ["\\u2026"]),
        (
            ["play", ".", *CORRECT],
            1,
            ["FAILED \\xe4.chat:2", "FAILED \\udcff.chat:2", "\n  expected  \\xf6 "],
        ),
    ):
        process = harness(*arguments, folder=folder, stdout=subprocess.PIPE)
        output = process.communicate(timeout=HANG_S)[0].decode("ascii")
        assert process.returncode == code
        for text in texts:
            assert text in output


def test_a_name_that_is_not_utf_8_is_escaped_in_files(folder, capsys):
    (folder / os.fsdecode(b"\xff.chat")).write_text(BAD)
    played = ["play", ".", *CORRECT]
    compared = ["compare", ".", "--app", f"mine={CORRECT[1]}"]
    for command, option in (
        (played, "--html"),
        (compared, "--html"),
        (compared, "--markdown"),
        (compared, "--write-baseline"),
    ):
        assert main([*command, option, "report"]) == 1
        assert r"\udcff.chat" in (folder / "report").read_text()
    assert main([*compared, "--baseline", "report"]) == 0
    for command in (played, compared):
        assert main([*command, "--junit", "report.xml"]) == 1
        assert ET.parse(folder / "report.xml").getroot().tag == "testsuites"


def test_output_that_cannot_be_written_is_an_error(folder):
    write(folder, a=GOOD)
    with open("/dev/full", "wb") as full:
        process = harness("check", ".", folder=folder, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=HANG_S)
    assert errors == b"harness: cannot write the output: No space left on device\n"
    assert process.returncode == 2


@pytest.mark.parametrize("outputs", [["stderr"], ["stdout", "stderr"]], ids=" and ".join)
def test_an_error_that_cannot_be_written_has_its_exit_code(folder, outputs):
    with open("/dev/full", "wb") as full:
        process = harness("check", ".", folder=folder, **dict.fromkeys(outputs, full))
        assert process.wait(HANG_S) == 2


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/out", "cannot write nowhere/out: nowhere is not a folder"),
        ("a.chat/out", "cannot write a.chat/out: a.chat is not a folder"),
        ("chats", "cannot write chats: is a folder"),
        (300 * "x", "cannot write " + 300 * "x" + ": File name too long"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["play", "a.chat", *CORRECT, "--junit"],
        ["play", "a.chat", *CORRECT, "--repeat", "2", "--html"],
        ["compare", "a.chat", "--app", f"mine={CORRECT[1]}", "--markdown"],
        ["compare", "a.chat", "--app", f"mine={CORRECT[1]}", "--write-baseline"],
        ["record", "--connect", "127.0.0.1:1", "--listen", "127.0.0.1:0", "-o"],
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_before_anything_is_played(
    folder, capsys, command, output, message
):
    write(folder, a=GOOD)
    (folder / "chats").mkdir()
    with pytest.raises(SystemExit) as ended:
        main([*command, output])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--junit"], ["--html"], ["--repeat", "2", "--junit"]])
def test_a_file_that_cannot_be_written_in_the_end_is_an_error_after_the_summary(folder, capsys, more):
    write(folder, a=GOOD)
    assert main(["play", "a.chat", *CORRECT, *more, "/dev/full"]) == 2
    told = capsys.readouterr()
    assert "passed in " in told.out
    assert told.err == "harness: cannot write /dev/full: No space left on device\n"


def test_the_help_imports_nothing_that_is_slow(folder):
    code = (
        "import contextlib, io, sys\nfrom harness.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        "print(*sorted(set(sys.modules) & {'gevent', 'asyncio', 'multiprocessing', 'socket', 'harness.playing'}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout == "\n"


def on_a_terminal(*arguments: str, folder: Path, **environment: str) -> str:
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder, stdout=theirs, stderr=theirs, env={**clean, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    process.wait()
    return written.decode()


def test_a_terminal_gets_colours_and_progress(folder):
    write(folder, a=BAD, b=GOOD)
    text = on_a_terminal("play", ".", *CORRECT, folder=folder)
    assert "\x1b[1;31mFAILED " in text
    assert "1/2  1 failed  a.chat\r\x1b[K" in text
    assert "\x1b[1;31m" not in on_a_terminal("play", ".", *CORRECT, folder=folder, NO_COLOR="1")


# --- several processes --------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The processes that this one has started and that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state not in "ZX":
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_run_is_killed(folder, number):
    """Neither the processes of -j, which are at work or wait for more, nor their servers."""
    write(folder, a="alice> hi\nwait 1h\n", b="bob> hi\nwait 1h\n", c="carol> hi\nwait 1h\n")
    (folder / "serve.py").write_text(
        "import os, socket, sys\n"
        "door = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "print(os.getpid(), file=open('servers', 'a'), flush=True)\n"
        "kept = [door.accept() for _ in range(9)]\n"
    )
    server = f"{sys.executable} -S serve.py {{port}}"
    command = [sys.executable, "-m", "harness", "play", ".", "-j", "2", "--shared", "--server", server]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with killed_at_the_end(subprocess.Popen(command, env=environment)) as run:
        servers = folder / "servers"
        assert until(lambda: servers.exists() and len(servers.read_text().split()) == 2)
        started = [*children(run.pid), *map(int, servers.read_text().split())]
        assert len(started) >= 4
        run.send_signal(number)
        run.wait(HANG_S)
        assert until(lambda: all(map(gone, started))), [pid for pid in started if not gone(pid)]


def test_a_process_that_dies_at_its_work_is_explained_and_exits_with_2(folder, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write(folder, a="alice> hi\n", b="bob> hi\n")
    (folder / "deadly.py").write_text("import os\n\ndef serve(spec):\n    os._exit(7)\n")
    assert main(["play", ".", "--app", "deadly:serve", "-j", "2"]) == 2
    assert "harness: a worker process died" in capsys.readouterr().err


# --- tags, and what a script says of itself -----------------------------------------------------------------


def test_scripts_are_selected_by_their_tags(folder, capsys):
    write(
        folder,
        a=f"tags: smoke slow\n{GOOD}",
        b=f"tags: slow\n{GOOD}",
        c=GOOD,
        d="include lib.chat\n\nalice> LOGIN alice\nalice< OK\n",
    )
    write(folder, lib="tags: smoke\n\ndefine X waits:\n    X connects\n")
    for tags, number in ((["smoke"], 2), (["slow"], 2), (["smoke", "slow"], 3)):
        assert main(["play", ".", "--tag", " ".join(tags), *CORRECT]) == 0
        assert capsys.readouterr().out.startswith(f"{number} passed in")
    assert main(["check", ".", "--tag", "slow"]) == 0
    assert capsys.readouterr().out == "2 scripts are valid\n"
    assert main(["play", ".", "--tag", "fast", *CORRECT]) == 2
    assert "no *.chat file in . with the tag fast" in capsys.readouterr().err


def test_a_script_that_cannot_be_read_has_every_tag(folder, capsys):
    write(folder, a="tags: smoke,slow\n\na> x\n", b="tags: x x\n\na> x\n")
    assert main(["play", ".", "--tag", "slow", *CORRECT]) == 2
    text = capsys.readouterr().out
    assert "a.chat:1:7: 'smoke,slow' is not a tag" in text
    assert "b.chat:1:9: 'x' twice" in text


def test_a_skipped_script_is_checked_but_not_played(folder, capsys):
    write(folder, a=f"skip: not yet\n\n{BAD}")
    assert main(["play", "a.chat", *CORRECT]) == 0
    assert capsys.readouterr().out.startswith("skipped a.chat  not yet\n1 skipped in")
    write(folder, a="skip: not yet\n\nalice< OK\n")
    assert main(["play", "a.chat", *CORRECT]) == 2


def test_a_script_that_is_known_to_fail_passes_only_unexpectedly(folder, capsys):
    write(folder, known=f"xfail: ticket 7\n\n{BAD}")
    files = ["--junit", "j.xml", "--html", "h.html"]
    assert main(["play", "known.chat", *files, *CORRECT]) == 0
    text = " ".join(capsys.readouterr().out.split())
    failed = "failed as expected known.chat ticket 7 (known.chat:4 alice received something else)"
    assert text.startswith(f"{failed} 1 failed as expected in")
    suite = ET.parse("j.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    assert suite[0][0].get("message") == "failed as expected: ticket 7"
    assert "failed as expected" in Path("h.html").read_text()

    write(folder, known=f"xfail: ticket 7\n{GOOD}")
    assert main(["play", "known.chat", *files, *CORRECT]) == 1
    text = capsys.readouterr().out
    assert text.startswith(
        "PASSED UNEXPECTEDLY known.chat   remove `xfail: ticket 7`\n1 passed unexpectedly in"
    )
    suite = ET.parse("j.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "0")
    assert suite[0][0].get("message") == "passed unexpectedly: ticket 7"

    write(folder, known="xfail: ticket 7\n\nalice conects\n")
    assert main(["play", "known.chat", *CORRECT]) == 2


def test_what_an_included_file_says_of_itself_is_for_that_file_alone(folder, capsys):
    write(
        folder,
        lib="xfail: no\nskip: no\n\ndefine X waits:\n    X connects\n",
        a=f"include lib.chat\n\n{GOOD.partition(chr(10) * 2)[2]}",
    )
    assert main(["play", "a.chat", *CORRECT]) == 0
    assert capsys.readouterr().out.startswith("1 passed in")


def test_a_comparison_marks_what_is_known(folder, capsys):
    write(folder, known=f"xfail: ticket 7\n\n{BAD}", fixed=f"xfail: ticket 8\n{GOOD}")
    app = f"one={CORRECT[1]}"
    assert main(["compare", ".", "--app", app]) == 1
    text = capsys.readouterr().out
    assert re.search(r"known.chat +\(4\)", text)
    assert re.search(r"fixed.chat +passed", text)
    assert "passed unexpectedly: ticket 8" in text
    assert re.search(r"passed +0 of 1", text)
