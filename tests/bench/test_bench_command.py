"""`python -m bench`, from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_results import results, traffic

from bench import __main__ as command
from bench import metrics, publish
from bench.metrics import Run
from bench.rounds import PlannedRun
from bench.servers import ROOT
from bench.workloads import ONE_AT_A_TIME
from tests.patience import HANG_S, until


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick run of one very short workload, which no other work can disturb."""
    monkeypatch.setattr(metrics, "DISTURBED", 1.0)
    monkeypatch.setattr(metrics, "DISTURBED_LATENCY", 1.0)
    load = replace(ONE_AT_A_TIME.load, clients=4, warm_s=0.02, seconds=0.1)
    monkeypatch.setattr(command, "quick", lambda: (replace(ONE_AT_A_TIME, rounds=1, load=load),))


@pytest.mark.usefixtures("short")
def test_results_are_printed_and_written_and_can_be_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the charts need matplotlib")
    chosen = ["--quick", "--servers", "asyncio,threads", "--results", str(tmp_path)]
    assert command.main(chosen) == 0
    printed = capsys.readouterr()
    assert "| threads, sendall  |" in printed.out
    assert "not measured" in printed.out
    assert "[2/2] one-at-a-time · asyncio · round 1 of 1" in printed.err
    assert f"results written to {tmp_path}" in printed.err
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert raw["head"]["kind"] == "quick (one short round)"
    assert [run["server"] for run in raw["runs"]] == ["threads", "asyncio"]
    table = (tmp_path / "results.md").read_text()
    assert "### one-at-a-time" in table
    (tmp_path / "results.md").unlink()
    assert command.main(["--redraw", str(tmp_path / "raw.json")]) == 0
    assert (tmp_path / "results.md").read_text() == table


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where a run writes and where it is published, with measurements that are made up."""
    pytest.importorskip("matplotlib", reason="the charts need matplotlib")
    local, published = tmp_path / "results", tmp_path / "published"
    monkeypatch.setattr(command, "RESULTS", local)
    monkeypatch.setattr(publish, "FOLDER", published)
    page = tmp_path / "README.md"
    page.write_text("<!-- benchmark: sentence -->\nas before\n<!-- end of sentence -->\n")
    monkeypatch.setattr(publish, "PAGES", (page,))
    found = results({("saturated-100", key): traffic() for key in ("geventchat", "asyncio", "redis")})
    monkeypatch.setattr(command, "_measure", lambda *_, **__: (found, True))
    monkeypatch.setattr(command, "_available", list)
    return local, published


def test_a_full_and_a_quick_run_write_different_folders_and_publish_nothing(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    local, published = folders
    assert command.main([]) == 1
    assert command.main(["--quick"]) == 1
    assert "- kind: full" in (local / "results.md").read_text()
    assert "- kind: quick" in (local / "quick" / "results.md").read_text()
    assert f"results written to {local / 'quick'}" in capsys.readouterr().err
    assert not published.exists()


@pytest.mark.parametrize("part", [["--servers", "redis"], ["--workloads", "idle-8000"], ["--rounds", "1"]])
def test_a_part_of_a_full_run_writes_nothing(folders: tuple[Path, Path], part: list[str]) -> None:
    assert command.main(part) == 1
    assert not folders[0].exists()


def test_a_complete_full_run_can_be_published_at_once_or_later(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    local, published = folders
    page = tmp_path / "README.md"
    assert command.main(["--publish"]) == 1
    once = page.read_text()
    assert "geventchat delivers 1.0 million messages per second" in once
    assert (published / "results.md").read_text() == (local / "results.md").read_text()
    assert (published / "throughput.svg").exists()
    page.write_text(once.replace("1.0 million", "9.9 million"))
    assert command.main(["--redraw", str(local / "raw.json"), "--publish"]) == 1
    assert page.read_text() == once


def test_a_run_without_the_headline_is_kept_and_not_published(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = results(
        {
            ("saturated-100", "geventchat"): [traffic(), traffic(disturbance=0.5)],
            ("one-at-a-time", "geventchat"): traffic(),
        }
    )
    monkeypatch.setattr(command, "_measure", lambda *_, **__: (found, True))
    assert command.main(["--publish"]) == 2
    assert (
        "not published: no result for geventchat in saturated-100: measure again" in capsys.readouterr().err
    )
    assert (folders[0] / "raw.json").exists()
    assert not folders[1].exists()
    assert "as before" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("part", [["--quick"], ["--rounds", "1"], ["--results", "elsewhere"]])
def test_only_a_complete_full_run_can_be_published(
    part: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([*part, "--publish"])
    assert ended.value.code == 2
    assert "only a complete full run can be published" in capsys.readouterr().err


def test_a_run_that_was_disturbed_throughout_is_not_a_result(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disturbed = results({("saturated-100", "geventchat"): traffic(disturbance=0.5)})
    monkeypatch.setattr(command, "_measure", lambda *_, **__: (disturbed, True))
    assert command.main([]) == 2
    assert not folders[0].exists()
    assert "other work disturbed every run" in capsys.readouterr().err


def test_results_of_this_machine_are_not_under_version_control() -> None:
    assert command.RESULTS == ROOT / "bench" / "results"
    assert "bench/results/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--servers", "apache"], "unknown server 'apache'; choose from geventchat, "),
        (["--workloads", "nothing"], "unknown workload 'nothing'; choose from saturated-100, "),
    ],
)
def test_an_unknown_name_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("short")
def test_without_a_compiler_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert command.main(["--quick", "--servers", "asyncio,reference"]) == 2
    errors = capsys.readouterr().err
    assert "skipped: C reference, epoll (a C compiler is not installed)" in errors
    assert "load is a C program: install a C compiler" in errors


def test_sigterm_stops_its_processes_and_prints_its_results() -> None:
    chosen = ["--quick", "--servers", "asyncio", "--workloads", "one-at-a-time,paced-500"]
    bench = subprocess.Popen(
        [sys.executable, "-m", "bench", *chosen],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert bench.stderr is not None
    progress = iter(bench.stderr.readline, "")
    assert any("[2/2] paced-500" in line for line in progress)
    assert until(lambda: len(children_of(bench.pid)) >= 2)
    children = children_of(bench.pid)
    bench.terminate()
    out, err = bench.communicate(timeout=HANG_S)
    assert "interrupted: the results cover the runs measured so far" in err
    assert "| asyncio protocols |" in out
    assert until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("repeats", [-1, 0, 1])
def test_only_repeats_can_be_missing_from_a_run_that_is_written(
    repeats: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the charts need matplotlib")

    def measured_until_interrupted(planned: list[PlannedRun], *_: object, **__: object) -> Iterator[Run]:
        runs = [Run(run.workload.key, run.server.key, run.round, traffic(1.0)) for run in planned]
        yield from [*runs, *runs][: len(runs) + repeats]
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "measure_all", measured_until_interrupted)
    command.main(["--quick"])
    assert (tmp_path / "quick" / "raw.json").exists() == (repeats >= 0)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
