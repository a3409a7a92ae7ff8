"""`python -m bench`, from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.workloads import ONE_AT_A_TIME


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = replace(ONE_AT_A_TIME.crowd, clients=4, warm_s=0.02, seconds=0.1)
    monkeypatch.setattr(command, "quick", lambda: (replace(ONE_AT_A_TIME, rounds=1, crowd=crowd),))


@pytest.mark.usefixtures("short")
def test_results_are_printed_and_kept_and_can_be_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the pictures of a result need matplotlib")
    chosen = ["--quick", "--servers", "asyncio,threads", "--results", str(tmp_path)]
    assert command.main(chosen) == 0
    printed = capsys.readouterr()
    assert "| threads, sendall  |" in printed.out
    assert "not measured" in printed.out
    assert "[2/2] one-at-a-time · asyncio · round 1 of 1" in printed.err
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert raw["head"]["kind"] == "quick (one short round)"
    assert [run["server"] for run in raw["runs"]] == ["threads", "asyncio"]
    table = (tmp_path / "table.md").read_text()
    assert "### one-at-a-time" in table
    (tmp_path / "table.md").unlink()
    assert command.main(["--redraw", str(tmp_path / "raw.json")]) == 0
    assert (tmp_path / "table.md").read_text() == table


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--servers", "apache"], "there is no server 'apache'; there are: geventchat"),
        (["--workloads", "nothing"], "there is no workload 'nothing'; there are: saturated-100"),
    ],
)
def test_a_wrong_choice_is_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("short")
def test_without_a_compiler_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert command.main(["--quick", "--servers", "asyncio"]) == 2
    assert "there is no C compiler" in capsys.readouterr().err


def test_ended_from_outside_it_leaves_nothing_running_and_shows_what_it_has() -> None:
    chosen = ["--quick", "--servers", "asyncio", "--workloads", "one-at-a-time,paced-500"]
    root = Path(command.__file__).parents[1]
    bench = subprocess.Popen(
        [sys.executable, "-m", "bench", *chosen],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert bench.stderr is not None
    assert "[1/2] one-at-a-time" in bench.stderr.readline()
    assert "[2/2] paced-500" in bench.stderr.readline()
    while len(children := begun_by(bench.pid)) < 2:
        assert bench.poll() is None
    bench.terminate()
    out, err = bench.communicate(timeout=60)
    assert "stopped: what follows is what was measured until now" in err
    assert "| asyncio protocols |" in out
    deadline = time.monotonic() + 10
    while left := [child for child in children if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < deadline, f"{left} still run"


def begun_by(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
