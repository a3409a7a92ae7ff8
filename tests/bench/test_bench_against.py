"""`python -m bench --against`: this tree beside another commit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_results import idle, traffic

from bench import __main__ as command
from bench import against, metrics
from bench.against import COMPARISONS, Comparison, Pair, Verdict, median_interval, table, verdict
from bench.machine import Cores
from bench.metrics import Run
from bench.rounds import PlannedRun
from bench.servers import BY_KEY, ROOT, Server

SATURATED, IDLE = COMPARISONS[0], COMPARISONS[3]
THIS, OTHER = (replace(BY_KEY["geventchat"], key=key, title=key) for key in ("this tree", "abc1234"))


def run(cost_us: float, disturbance: float = 0.0, failure: str | None = None) -> Run:
    return Run("saturated-100", "any", 0, traffic(cost_us, disturbance=disturbance), failure)


def pairs(*costs: tuple[float, float]) -> list[Pair]:
    return [Pair(run(this), run(other)) for this, other in costs]


def test_the_interval_of_a_median_needs_eight_values_and_ignores_outliers() -> None:
    assert median_interval([1.0] * 7) is None
    assert median_interval([1.0] * 8) == (1.0, 1.0)
    twelve = [float(value) for value in range(12)]
    assert median_interval(twelve) == (1.0, 10.0)
    assert median_interval([*twelve[:-1], 1e9]) == (1.0, 10.0)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (None, Verdict.TOO_FEW),
        ((0.9, 1.049), Verdict.WITHIN),
        ((0.9, 1.051), Verdict.UNDECIDED),
        ((1.051, 1.2), Verdict.WORSE),
    ],
)
def test_a_verdict_is_given_only_where_the_whole_interval_agrees(
    interval: tuple[float, float] | None, expected: Verdict
) -> None:
    assert verdict(interval) is expected


def test_the_table_shows_ratios_taken_within_rounds() -> None:
    # The machine is twice as slow in every other round. The ratio is the same in all of them.
    found = {"saturated-100": pairs(*[(1.02, 1.0), (2.04, 2.0)] * 4)}
    text, all_within = table([SATURATED], found, ("this tree", "abc1234"))
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]] == [
        "saturated-100", "CPU per delivery", "1.53 µs ±33%", "1.5 µs ±33%", "1.020", "1.020 to 1.020", "8", "within 5%",
    ]  # fmt: skip
    assert all_within


def test_a_slower_server_is_not_within_the_limit() -> None:
    text, all_within = table([SATURATED], {"saturated-100": pairs(*[(1.1, 1.0)] * 8)}, ("a", "b"))
    assert "WORSE by more than 5%" in text
    assert not all_within


def test_memory_is_compared_per_idle_client() -> None:
    both = [Pair(Run("logins", "a", 0, idle(kb=9.0)), Run("logins", "b", 0, idle(kb=10.0)))] * 8
    text, all_within = table([IDLE], {"logins": both}, ("a", "b"))
    assert "| 9.0 KB ±0% | 10.0 KB ±0% | 0.900 |" in text
    assert all_within


class Measurements:
    """Stands for `measure`: returns prepared runs and records which server each was for."""

    def __init__(self, runs: Iterator[Run]) -> None:
        self.runs = runs
        self.order: list[str] = []

    def __call__(self, planned: PlannedRun, _cores: Cores) -> Run:
        self.order.append(planned.server.key)
        return next(self.runs)


def measured(
    monkeypatch: pytest.MonkeyPatch, runs: Iterator[Run], rounds: int
) -> tuple[list[Pair], list[str], str]:
    measurements, out = Measurements(runs), io.StringIO()
    monkeypatch.setattr(against, "measure", measurements)
    found = against.measure_pairs([SATURATED], THIS, OTHER, rounds, Cores(0, 1), out)
    return found["saturated-100"], measurements.order, out.getvalue()


def test_the_server_that_runs_first_alternates(monkeypatch: pytest.MonkeyPatch) -> None:
    _, order, _ = measured(monkeypatch, iter([run(1.0)] * 4), 2)
    assert order == ["this tree", "abc1234", "abc1234", "this tree"]


def test_a_disturbed_round_is_measured_again_as_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([run(1.0), run(9.0, disturbance=0.5), run(2.0), run(4.0)])
    found, _, out = measured(monkeypatch, runs, 1)
    # The second attempt runs in the other order: the other commit cost 2, this tree 4.
    assert [(pair.this.metrics().cpu_per_delivery_us, pair.other.metrics().cpu_per_delivery_us) for pair in found] == [
        (pytest.approx(4.0), pytest.approx(2.0))
    ]  # fmt: skip
    assert "measured in attempt 2" in out


def test_a_round_that_stays_disturbed_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    found, order, out = measured(monkeypatch, iter([run(1.0, disturbance=0.5)] * 10), 1)
    assert found == []
    assert len(order) == 2 * against.ATTEMPTS
    assert "saturated-100: disturbed" in out


def test_a_workload_is_measured_until_it_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, _ = measured(monkeypatch, iter([run(1.0)] * 80), 40)
    assert len(found) == 8


def test_a_server_that_loses_messages_ends_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(against.ComparisonFailed, match="saturated-100, abc1234: gap: lost"):
        measured(monkeypatch, iter([run(1.0), run(1.0, failure="gap: lost")]), 1)


@pytest.fixture
def commit() -> str:
    try:
        with against.exported("HEAD") as (name, _):
            return name
    except against.ComparisonFailed as failed:
        pytest.skip(f"this copy of the project has no history: {failed}")


def test_the_other_commit_runs_from_its_own_files(
    commit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began: list[Server] = []

    def measure_recorded(planned: PlannedRun, cores: Cores) -> Run:
        began.append(planned.server)
        return original(planned, cores)

    original = against.measure
    load = replace(SATURATED.workload.load, clients=4, senders=2, warm_s=0.02, seconds=0.1)
    short: Comparison = replace(SATURATED, workload=replace(SATURATED.workload, load=load))
    monkeypatch.setattr(against, "COMPARISONS", (short,))
    monkeypatch.setattr(against, "measure", measure_recorded)
    monkeypatch.setattr(metrics, "DISTURBED", 1.0)
    assert command.main(["--against", "HEAD", "--rounds", "1"]) == 1
    assert "too few undisturbed rounds" in capsys.readouterr().out
    folders = {server.key: server.folder for server in began}
    assert folders.pop(commit) != ROOT
    assert list(folders.values()) == [ROOT]
    assert not [server.folder for server in began if server.folder != ROOT and server.folder.exists()]


def test_a_directory_without_the_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(against.ComparisonFailed, match="geventchat is not imported from"):
        against.server_in(tmp_path, "abc1234")


@pytest.mark.usefixtures("commit")
def test_an_unknown_commit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--against", "no-such-commit"]) == 2
    assert "bench: git rev-parse: fatal: Needed a single revision" in capsys.readouterr().err
