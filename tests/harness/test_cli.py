"""python -m harness as its users type it: what it prints, what it writes and how it exits."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.cli import main

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
RIGHT = ("--app", "tests.harness.servers.talk:serve_right")
AS_ASKED = ("--app", "tests.harness.servers.talk:serve")
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
    ("text", "code", "said"),
    [
        (GOOD, 0, "1 passed in"),
        (BAD, 1, "FAILED a.chat:2   alice received something else"),
        ("alice conects\n", 2, "SCRIPT WRONG a.chat"),
        (
            "needs: magic\n\na> x\n",
            0,
            "skipped a.chat  needs magic, which tests.harness.servers.talk:serve lacks",
        ),
        ("server: fault=drops salt=1\n\na> x\n", 2, "no option 'salt'; known: fault"),
    ],
)
def test_the_exit_code_says_whose_fault_it_is(folder, capsys, text, code, said):
    write(folder, a=text)
    assert main(["play", "a.chat", *AS_ASKED]) == code
    assert said in capsys.readouterr().out


def test_alone_it_shows_what_there_is(capsys):
    assert main([]) == 2
    said = capsys.readouterr()
    assert "play scripts and say what failed" in said.out
    assert not said.err


def test_it_tells_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"harness (\d+\.\d+.*|not installed)\n", capsys.readouterr().out)


def test_a_broken_script_weighs_more_than_a_failed_one(folder, capsys):
    write(folder, a=BAD, b="alice conects\n", c=GOOD)
    assert main(["play", ".", *RIGHT]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 failed, 1 script wrong, 1 passed in ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["play", "nowhere.chat", *RIGHT], "cannot read nowhere.chat: No such file"),
        (["play", ".", *RIGHT], "there is no *.chat file here"),
        (["play", "a.chat", "-k", "zebra", *RIGHT], "no script is left to play"),
        (["play", "a.chat", "--app", "nowhere:serve"], "nowhere:serve: No module named 'nowhere'"),
        (["play", "a.chat", "--app", "os:path"], "os:path is no factory"),
        (["play", "a.chat", "--app", "os"], "expected MODULE:FACTORY"),
        (["play", "a.chat", "--connect", "nonsense"], "expected HOST:PORT"),
        (["play", "a.chat", "--connect", "127.0.0.1:1"], "nobody listens at 127.0.0.1:1"),
        (["play", "a.chat", "--fence", "PING", *RIGHT], "a line without its answer"),
        (["play", "a.chat", "--within", "5", *RIGHT], "'5' is no duration"),
        (["play", "a.chat", "--server", "false {port}"], "exited with status 1 before it answered"),
    ],
)
def test_what_cannot_be_played_is_told_and_exits_with_2(folder, capsys, arguments, said):
    if arguments[1] == "a.chat":
        write(folder, a=GOOD)
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_x_stops_at_the_first_failure_and_k_chooses(folder, capsys):
    write(folder, a=BAD, b=BAD, good=GOOD)
    assert main(["play", ".", "-x", *RIGHT]) == 1
    assert capsys.readouterr().out.count("FAILED") == 1
    assert main(["play", ".", "-k", "GOOD", "-v", *RIGHT]) == 0
    assert capsys.readouterr().out.startswith("passed good.chat\n1 passed in ")


def test_folders_are_searched_and_files_of_definitions_alone_are_left_out(folder, capsys):
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.chat").write_text("include ../common.chat\n\nalice logs in\n")
    (folder / "deep" / "common.chat").write_text("define X logs in:\n    X>~ LOGIN ${X}\n    X< OK\n")
    assert main(["play", "deep", *RIGHT]) == 0
    assert capsys.readouterr().out.startswith("1 passed in ")


def test_several_processes_give_the_same_verdicts_in_the_same_order(capsys):
    def told(*more: str) -> str:
        assert main(["play", str(GOLDEN), *AS_ASKED, "-k", "line", *more]) == 1
        text = capsys.readouterr().out
        return "\n".join(line for line in text.splitlines() if line.startswith(("FAILED", "  hint", "bob")))

    assert told("-j", "2") == told()


def test_the_junit_report_is_xml_that_says_it_all(folder):
    write(
        folder,
        a=BAD,
        b="alice conects\n",
        c=GOOD,
        d="needs: magic\n\na> x\n",
        e="alice> \\x01\nalice<< \\x01\n",
    )
    assert main(["play", ".", *RIGHT, "--junit", "report.xml"]) == 2
    suite = ET.parse(folder / "report.xml").getroot()[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "2", "errors": "1", "skipped": "1",
    }  # fmt: skip
    failure = suite[0].find("failure")
    assert failure.get("message") == "alice received something else"
    assert "alice heard   OK" in failure.text


def test_the_page_holds_everything_and_loads_nothing(folder):
    write(folder, a=BAD, c=GOOD, evil="title: <script>alert(1)</script>\n\nalice> LOGIN <b>\nalice< <i>\n")
    assert main(["play", ".", *RIGHT, "--html", "page.html"]) == 1
    page = (folder / "page.html").read_text()
    assert "2 failed, 1 passed" in page
    assert "<script" not in page
    assert "<b>" not in re.sub(r'<b class="\w+">', "", page)
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert 'class="bad"' in page
    # A script that passed is shown, too: all of its turns.
    assert "&gt; LOGIN alice" in page


def test_update_shows_the_difference_and_exits_with_0_once_all_pass(folder, capsys):
    write(folder, a=BAD, b=GOOD)
    assert main(["update", ".", *RIGHT]) == 0
    out = capsys.readouterr().out
    assert "-alice< NO\n+alice< OK\n" in out
    assert "unchanged b.chat" in out
    assert main(["play", ".", *RIGHT]) == 0


def test_update_that_refuses_says_why_and_exits_with_1(folder, capsys):
    write(folder, a="repeat 2 as n:\n    a>~ LOGIN ${n}\n    a< OK\n    a> WHO\n    a< x\n")
    assert main(["update", "a.chat", *RIGHT]) == 1
    assert "not rewritten: line 5 is played 2 times" in capsys.readouterr().out


def test_check_needs_no_server(folder, capsys):
    write(folder, a=GOOD, b="alice> LOGIN alice\nalcie< OK\n")
    assert main(["check", "a.chat"]) == 0
    assert capsys.readouterr().out == "1 script keeps the language\n"
    assert main(["check", "a.chat", "b.chat", "c.chat"]) == 2
    out = capsys.readouterr().out
    assert "b.chat:2:1: alcie has not connected yet" in out
    assert "cannot read c.chat: No such file or directory" in out


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


def test_a_terminal_sees_colours_and_how_far_it_is(folder):
    write(folder, a=BAD, b=GOOD)
    text = on_a_terminal("play", ".", *RIGHT, folder=folder)
    assert "\x1b[1;31mFAILED " in text
    assert "1/2  1 failed  a.chat\r\x1b[K" in text
    assert "\x1b[1;31m" not in on_a_terminal("play", ".", *RIGHT, folder=folder, NO_COLOR="1")
