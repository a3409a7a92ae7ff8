"""The program that runs the tests on a busy machine: its rounds, its limit in time, and its loops."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.busy import ROOT, busy_loops, main
from tests.patience import HANG_S, killed_at_the_end, until

TESTS = """
    from pathlib import Path
    import pytest

    @pytest.mark.parametrize("number", range(8))
    def test_it(number):
        with open({log!r}, "a") as log:
            log.write(str(number))
        assert len(Path({log!r}).read_text()) != {fails_at}
"""


def rounds(folder: Path, *options: str, count: int = 2, fails_at: int = 0) -> tuple[int, str]:
    """The exit code of rounds of eight tests, and the order of the tests."""
    log = folder / "log"
    log.write_text("")
    tests = folder / "test_it.py"
    tests.write_text(textwrap.dedent(TESTS).format(log=str(log), fails_at=fails_at))
    code = main(["--rounds", str(count), "-p", "no:cacheprovider", *options, str(tests)])
    return code, log.read_text()


def test_each_round_has_its_own_order_which_can_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, order = rounds(tmp_path, "--loops", "0")
    assert code == 0
    assert sorted(order) == sorted("01234567" * 2)
    assert order[:8] != order[8:]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("round 1 (order 1) took ")
    assert printed[1].startswith("  8 passed in ")
    assert printed[2].startswith("round 2 (order 2) took ")
    assert printed[4] == "2 of 2 rounds passed"
    _, again = rounds(tmp_path, "--loops", "0", "--order", "2", count=1)
    assert again == order[8:]


def test_a_failure_in_one_round_is_named_and_fails_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, order = rounds(tmp_path, "--loops", "1", fails_at=11)
    assert code == 1
    assert len(order) == 16
    printed = capsys.readouterr().out.splitlines()
    assert "  E       AssertionError: assert 11 != 11" in printed
    (named,) = [line for line in printed if line.startswith("  FAILED ")]
    assert f"test_it.py::test_it[{order[10]}]" in named
    assert printed[-2].startswith("  1 failed, 7 passed in ")
    assert printed[-1] == "1 of 2 rounds passed"


def test_a_round_is_stopped_when_the_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = tmp_path / "test_slow.py"
    slow.write_text("import time\n\ndef test_slow():\n    time.sleep(3000)\n")
    assert main(["--minutes", "0.01", "--loops", "0", str(slow), "-p", "no:cacheprovider"]) == 1
    printed = capsys.readouterr().out
    assert "stopped after 1 s" in printed
    assert "0 of 10 rounds passed" in printed


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_loops_end_with_the_program_that_started_them() -> None:
    with busy_loops(2, 600) as loops:
        assert all(map(running, loops))
    assert not any(map(running, loops))
    program = """
        import os, signal
        from tests.busy import busy_loops
        with busy_loops(2, 600) as loops:
            print(*loops, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    orphans = [int(word) for word in killed.stdout.split()]
    assert len(orphans) == 2
    assert until(lambda: not any(map(running, orphans)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_round_ends_with_the_program_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    slow = tmp_path / "test_slow.py"
    began = tmp_path / "began"
    slow.write_text(
        "import os, time\nfrom pathlib import Path\n\n"
        f"def test_slow():\n    Path({str(began)!r}).write_text(str(os.getpid()))\n    time.sleep({2 * HANG_S})\n"
    )
    command = [sys.executable, "-m", "tests.busy", "--loops", "0", str(slow), "-p", "no:cacheprovider"]
    # As a shell starts it in the background.
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, ignored)
    with killed_at_the_end(program):
        assert until(lambda: began.exists() and began.read_text() != "")
        program.send_signal(number)
        assert until(lambda: not running(int(began.read_text())))
        assert program.wait(HANG_S) != 0


def test_the_loops_end_when_the_time_is_up() -> None:
    with busy_loops(1, 0.01) as (loop,):
        assert until(lambda: not running(loop))
