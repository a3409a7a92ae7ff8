"""Scripts are played many times: which of them always pass, which always fail, which are flaky, and in which ways."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gevent.server import StreamServer

from harness import ServerSpec
from harness.cli import main
from tests.patience import HANG_S

ROOT = Path(__file__).parents[2]
FLAKY = ("--app", f"{__name__}:flaky")
PLAYS = [0]


def flaky(_spec: ServerSpec) -> StreamServer:
    """An echo whose every fifth start forgets, and every seventh is wrong."""
    PLAYS[0] += 1
    number = PLAYS[0]

    def talk(sock, _address) -> None:
        for line in sock.makefile("rb"):
            if number % 5:
                sock.sendall(line if number % 7 else b"what?\n")

    return StreamServer(("127.0.0.1", 0), talk)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys.modules[__name__], "PLAYS", [0])
    (tmp_path / "echo.chat").write_text("a> hello\na< hello\n")
    return tmp_path


def played(capsys, *words: str) -> tuple[int, list[str]]:
    code = main(["play", *words])
    return code, capsys.readouterr().out.splitlines()


def test_a_flaky_script_has_its_rate_and_its_different_failures(folder, capsys):
    code, lines = played(capsys, "echo.chat", "--repeat", "20", *FLAKY)
    assert code == 1
    assert lines[:3] == [
        "FLAKY echo.chat  6 of 20 plays failed (30%)",
        "     4x echo.chat:2 a did not receive what was expected",
        "     2x echo.chat:2 a received something else: `< what?`",
    ]
    assert sum(line.startswith("FAILED echo.chat:2") for line in lines) == 2
    assert lines[-1].startswith("1 flaky in ")
    assert lines[-1].endswith("(20 plays)")


def test_the_different_failures_fit_the_terminal(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    (folder / "echo.chat").write_text(f"a> {'hello ' * 20}!\na< hello\n")
    _, lines = played(capsys, "echo.chat", "--repeat", "2", *FLAKY)
    assert lines[1:3] == [
        "     2x echo.chat:2 a received something else: `<",
        "        hello hello hello hello hello hello hello",
    ]
    assert max(map(len, lines[: lines.index("")])) <= 50


def test_what_always_fails_or_passes_is_not_flaky(folder, capsys):
    (folder / "never.chat").write_text("a> hello\na< hullo\n")
    (folder / "needy.chat").write_text("needs: quantum\n\na> x\na< x\n")
    code, lines = played(capsys, ".", "--repeat", "3", "-v", *FLAKY)
    assert code == 1
    assert lines[0] == "passed echo.chat  3 of 3 plays"
    assert "FAILED never.chat  all 3 plays failed" in lines
    assert lines[-1].startswith("1 always failed, 1 always passed, 1 skipped in ")
    PLAYS[0] = 0
    code, lines = played(capsys, "echo.chat", "--repeat", "1", *FLAKY)
    assert (code, len(lines)) == (0, 1)


def test_a_script_error_is_one_cause(folder, capsys):
    (folder / "echo.chat").write_text("a> tab\there\n")
    code, lines = played(capsys, "echo.chat", "--repeat", "4", *FLAKY)
    assert code == 2
    assert lines[0] == "FAILED echo.chat  all 4 plays failed"
    assert lines[1].startswith("     4x script error")


def test_x_stops_after_the_first_play_that_fails(folder, capsys):
    code, lines = played(capsys, "echo.chat", "--repeat", "20", "-x", *FLAKY)
    assert code == 1
    assert lines[0] == "FLAKY echo.chat  1 of 5 plays failed (20%)"
    assert lines[-1].endswith("(5 plays)")


def test_rare_failures_have_a_rate_above_zero():
    from harness.repeat import Cause, Repetition, headline

    rare = Repetition("x.chat", plays=2000, passed=1999, causes={(): Cause(None)})
    assert headline(rare) == "1 of 2000 plays failed (0.05%)"


def test_processes_share_the_plays(folder, capsys):
    code, lines = played(capsys, "echo.chat", "--repeat", "20", "-j", "2", *FLAKY)
    assert code == 1
    assert lines[0].startswith("FLAKY echo.chat  ")
    assert lines[-1].endswith("(20 plays)")


@pytest.mark.parametrize("wrong", ["0", "x", "-1"])
def test_the_number_of_plays_is_a_whole_number(folder, capsys, wrong):
    with pytest.raises(SystemExit):
        main(["play", "echo.chat", "--repeat", wrong, *FLAKY])
    assert f"'{wrong}' is not a whole number from 1" in capsys.readouterr().err


def test_the_reports_have_every_play(folder, capsys):
    played(capsys, "echo.chat", "--repeat", "5", *FLAKY, "--junit", "j.xml", "--html", "p.html")
    assert 'tests="5" failures="1"' in (folder / "j.xml").read_text()
    assert (folder / "p.html").read_text().count("<details") == 5


def test_pytest_repeats_inside_one_test(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys.modules[__name__], "PLAYS", [0])
    (pytester.path / "echo.chat").write_text("a> hello\na< hello\n")
    (pytester.path / "needy.chat").write_text("needs: quantum\n\na> x\na< x\n")
    (pytester.path / "known.chat").write_text("xfail: it says hello\n\na> hello\na< hullo\n")
    result = pytester.runpytest_inprocess(
        "echo.chat",
        "needy.chat",
        "known.chat",
        f"--harness-app={__name__}:flaky",
        "--harness-repeat=10",
        "-p",
        "no:cacheprovider",
    )
    result.assert_outcomes(failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["FLAKY echo.chat::echo  3 of 10 plays failed (30%)"])
    PLAYS[0] = 0
    result = pytester.runpytest_inprocess(
        "echo.chat", f"--harness-app={__name__}:flaky", "-o", "harness_repeat=4", "-p", "no:cacheprovider"
    )
    result.assert_outcomes(passed=1)
    result = pytester.runpytest_inprocess("echo.chat", "-o", "harness_repeat=four", "-p", "no:cacheprovider")
    assert "'four' is not a whole number from 1" in result.stderr.str()


# --- Ctrl-C -------------------------------------------------------------------------------------------------

BLOCKS = """
import os, time
from gevent.server import StreamServer

def serve(spec):
    return StreamServer(("127.0.0.1", 0), talk)

def talk(sock, address):
    open(f"started-{os.getpid()}", "w").close()
    time.sleep(100)
"""
BLOCKED_COMMAND = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.accept()
open(f"started-{os.getpid()}", "w").close()
time.sleep(100)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "words",
    [
        ["explore", "one.chat", "two.chat", "--app", "blocks:serve"],
        ["play", "one.chat", "two.chat", "--server", f"{sys.executable} -S blocked.py {{port}}"],
        ["generate", "--model", "tests.harness.servers.talkers:Talkers", "--app", "blocks:serve"],
    ],
    ids=["explore", "play", "generate"],
)
def test_an_interrupt_ends_all_processes_at_once(tmp_path, words):
    (tmp_path / "blocks.py").write_text(BLOCKS)
    (tmp_path / "blocked.py").write_text(BLOCKED_COMMAND)
    for name in ("one", "two"):
        (tmp_path / f"{name}.chat").write_text("a> hello\na< hello\n")
    run = subprocess.Popen(
        [sys.executable, "-m", "harness", *words, "-j", "2", "--within", "100s"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + HANG_S
    while len(started := list(tmp_path.glob("started-*"))) < 2:
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.02)  # between two looks
    run.send_signal(signal.SIGINT)
    assert run.wait(HANG_S) == 130
    while any(running(int(path.name.partition("-")[2])) for path in started):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_failure_that_is_expected_is_no_failure_and_no_pass(folder, capsys):
    (folder / "known.chat").write_text("xfail: ticket 7\n\na> hello\na< goodbye\n")
    code, lines = played(capsys, ".", "--repeat", "2", *FLAKY)
    assert (code, lines[0]) == (0, "failed as expected known.chat  2 of 2 plays  ticket 7")
    assert lines[1].startswith("1 always passed, 1 always failed as expected in ")
    PLAYS[0] = 0
    (folder / "echo.chat").write_text("xfail: ticket 7\n\na> hello\na< hello\n")
    code, lines = played(capsys, "echo.chat", "--repeat", "1", *FLAKY)
    assert code == 1
