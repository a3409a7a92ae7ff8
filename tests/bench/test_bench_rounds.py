"""Which servers take part in a workload, the order of the runs, and the progress."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import Any

import pytest

from bench import machine, pairs, rounds
from bench.load import Load, RequestFailed
from bench.metrics import Run
from bench.rounds import PlannedRun, Progress, least_disturbed, measure, plan
from bench.servers import BY_KEY, SERVERS, Server, ServerFailed, started
from bench.workloads import FULL, SATURATED_100, Participants, Workload, quick
from tests.patience import HANG_S

SHORT = Workload("short", "a short one", Load(10, senders=2, window=4), rounds=3)
OURS_ALONE = Workload("ours", "ours alone", Load(10, senders=2, window=4), Participants.OURS, rounds=1)


def test_rounds_are_interleaved_and_each_starts_with_another_server() -> None:
    planned = plan([SHORT, OURS_ALONE], [BY_KEY["geventchat"], BY_KEY["redis"]])
    assert [(run.round, run.workload.key, run.server.key) for run in planned] == [
        (0, "short", "geventchat"),
        (0, "short", "redis"),
        (0, "ours", "geventchat"),
        (1, "short", "redis"),
        (1, "short", "geventchat"),
        (2, "short", "geventchat"),
        (2, "short", "redis"),
    ]


@pytest.mark.parametrize(
    ("participants", "absent"),
    [
        (Participants.ALL, {"geventchat-bare", "websockets"}),
        (Participants.ALL_AND_BARE, {"websockets"}),
        (Participants.SHEDDING, {"geventchat-bare", "threads", "gevent", "websockets"}),
        (Participants.OURS, set(BY_KEY) - {"geventchat"}),
    ],
)
def test_the_participants_of_a_workload(participants: Participants, absent: set[str]) -> None:
    part = Workload("w", "", Load(2), participants).servers(SERVERS)
    assert set(BY_KEY) - {server.key for server in part} == absent


def test_redis_uses_its_own_protocol_and_the_others_the_dialects_of_the_workload() -> None:
    mixed = Workload("w", "", Load(2), dialects=("line", "json", "slash"))
    assert mixed.dialects_of(BY_KEY["geventchat"]) == ("line", "json", "slash")
    assert SHORT.dialects_of(BY_KEY["redis"]) == ("redis",)


def test_progress_shows_the_current_run_and_the_time_left() -> None:
    planned = plan([SHORT], [BY_KEY["geventchat"], BY_KEY["redis"]])
    out = io.StringIO()
    progress = Progress(planned, out)
    progress.show(0, planned[0])
    assert out.getvalue().startswith("[1/6] short · geventchat · round 1 of 3 · 11 s left\n")
    progress.show(5, planned[5])
    assert out.getvalue().splitlines()[1].startswith("[6/6] short · redis · round 3 of 3 · ")


def test_the_quick_run_takes_about_a_minute_and_the_full_one_about_forty() -> None:
    chosen = list(SERVERS)
    assert sum(run.workload.expected_s(run.server) for run in plan(quick(), chosen)) < 60
    assert sum(run.workload.expected_s(run.server) for run in plan(FULL, chosen)) < 40 * 60


def test_a_server_that_does_not_start_is_reported_with_its_errors() -> None:
    broken = Server(
        "broken", "broken", ("python3", "-c", "import sys; sys.exit('broken on purpose')"), "ready"
    )
    with pytest.raises(ServerFailed, match="broken on purpose"), started(broken, ("line",), core=None):
        raise AssertionError("it started")
    run = measure(plan([SHORT], [broken])[0], machine.choose_cores())
    assert run.failure is not None
    assert "broken on purpose" in run.failure


IN_PAIRS = Workload(
    "web-8-to-line",
    "in pairs",
    Load(8, senders=2, window=8, warm_s=0.02, seconds=0.05),
    Participants.OURS,
    ("web",),
    rounds=1,
    in_pairs=pairs.Traffic(Load(8, senders=2, window=8, warm_s=0.02, seconds=0.05), pairs=2),
    beside="line",
)


def test_two_dialects_of_a_server_are_measured_in_pairs() -> None:
    run = measure(PlannedRun(IN_PAIRS, BY_KEY["geventchat"], 0), machine.choose_cores())
    found = run.metrics()
    assert run.failure is None
    assert found.cpu_per_delivery_us is not None
    assert found.beside_cpu_us is not None
    assert found.cpu_ratio is not None
    assert 0 < found.beside_cpu_us < 1000
    assert 0 < found.cpu_per_delivery_us < 1000
    # Two pairs: the median of two ratios is near that of the medians.
    assert found.cpu_ratio == pytest.approx(found.cpu_per_delivery_us / found.beside_cpu_us, rel=0.5)


@pytest.mark.parametrize(
    ("found", "failure", "ratio", "disturbed"),
    [
        (pairs.Round(3.0, 2.0, 1.4), None, 1.4, False),
        (pairs.Round(3.0, 2.0, 1.4, disturbed=True), None, 1.4, True),
        (pairs.TooBusy("no period"), None, None, True),
        (RequestFailed("gap: c00003 received"), "gap: c00003 received", None, False),
        (ServerFailed("no port"), "not started: no port", None, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_round_of_pairs_becomes_a_run(
    found: pairs.Round | Exception,
    failure: str | None,
    ratio: float | None,
    disturbed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure_round(experiment: object, this: pairs.Side, other: pairs.Side, cores: object) -> Any:
        assert (this.dialect, other.dialect) == ("web", "line")
        if isinstance(found, Exception):
            raise found
        return {"cpu": found}

    monkeypatch.setattr(pairs, "measure_round", measure_round)
    run = measure(PlannedRun(IN_PAIRS, BY_KEY["geventchat"], 0), machine.choose_cores())
    assert (run.failure, run.metrics().cpu_ratio, run.disturbed) == (failure, ratio, disturbed)


def test_a_server_is_stopped_at_the_end_of_its_block() -> None:
    with started(BY_KEY["asyncio"], ("line",), core=None) as running:
        assert running.process.poll() is None
    assert running.process.poll() is not None


def test_only_the_child_process_is_pinned() -> None:
    before = os.sched_getaffinity(0)
    with machine.pinned(min(before)), started(BY_KEY["asyncio"], ("line",), core=None) as running:
        assert os.sched_getaffinity(running.process.pid) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_the_description_of_the_machine_does_not_identify_it() -> None:
    assert set(machine.describe()) == {"processor", "cores", "memory", "system", "python"}


def test_the_headline_workload_is_the_documented_one() -> None:
    load = SATURATED_100.load
    assert (load.clients, load.senders, load.window) == (100, 4, 64)


@pytest.mark.parametrize(
    ("shares", "budget_s", "kept", "measured"),
    [
        ([0.01, 0.0], 1000.0, 0.01, 1),
        ([0.5, 0.01], 1000.0, 0.01, 2),
        ([0.5, 0.3, 0.4, 0.6, 0.7, 0.0], 1000.0, 0.3, 5),
        ([0.5, 0.0], 0.0, 0.5, 1),
    ],
    ids=["calm", "calm at last", "never calm", "no time left"],
)
def test_a_disturbed_run_is_repeated(
    shares: list[float], budget_s: float, kept: float, measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = iter(shares)
    made = []

    def measure(run: PlannedRun, _cores: object, _watch: object) -> Run:
        measured = {"disturbance": next(coming), "latency": {"p99_us": 1.0}}
        made.append(Run(run.workload.key, run.server.key, run.round, measured))
        return made[-1]

    monkeypatch.setattr(rounds, "measure", measure)
    planned = plan([OURS_ALONE], [BY_KEY["geventchat"]])
    progress = Progress(planned, io.StringIO())
    waits: list[float] = []
    monkeypatch.setattr(rounds, "wait_until_calm", lambda _, limit_s: waits.append(limit_s))
    measured_all = rounds.measure_all(planned, machine.Cores(0, 1), progress, budget_s=budget_s, calm_s=7.0)
    (run,) = least_disturbed(measured_all)
    assert run.disturbance == kept
    assert len(made) == measured
    assert waits == [7.0] * (measured - 1)


def test_disturbed_runs_come_again_after_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan([replace(OURS_ALONE, rounds=3)], [BY_KEY["geventchat"]])
    # By round: the first is disturbed once, the second never, the third fails.
    coming = {0: [0.5, 0.0], 1: [0.0], 2: [0.0]}
    order = []

    def measure(run: PlannedRun, _cores: object, _watch: object) -> Run:
        order.append(run.round)
        measured = {"disturbance": coming[run.round].pop(0)}
        return Run(run.workload.key, run.server.key, run.round, measured, "lost" if run.round == 2 else None)

    monkeypatch.setattr(rounds, "measure", measure)
    out = io.StringIO()
    found = least_disturbed(rounds.measure_all(planned, machine.Cores(0, 1), Progress(planned, out)))
    assert order == [0, 1, 2, 0]
    assert [(run.round, run.disturbance, run.failure) for run in found] == [
        (0, 0.0, None),
        (1, 0.0, None),
        (2, 0.0, "lost"),
    ]
    assert out.getvalue().endswith("round 1 of 3 · again, because it was disturbed\n")


def test_how_busy_the_two_cores_are_comes_from_the_kernels_counters() -> None:
    before = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 50 800 50 0 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0 0 0\nctxt 5\n"
    after = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 102 0 50 895 52 0 0 1 0 0\ncpu1 10 5 5 160 0 5 5 10 0 0\nctxt 6\n"
    times = [machine.core_times(text) for text in (before, after)]
    # Stolen time is busy, waiting for a disk is not.
    assert machine.busy_share(*times, machine.Cores(0, 0)) == pytest.approx(0.03)
    assert machine.busy_share(*times, machine.Cores(0, 1)) == pytest.approx(0.40)
    assert machine.busy_share(times[0], times[0], machine.Cores(0, 1)) == 0.0


def test_waiting_for_a_calm_machine_ends_with_the_work_or_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.06, 0.04, 0.9])
    monkeypatch.setattr(machine, "other_work", lambda _: next(shares))
    machine.wait_until_calm(machine.Cores(0, 1), HANG_S)
    assert next(shares) == 0.9
    machine.wait_until_calm(machine.Cores(0, 1), 0.0)


def test_a_server_names_the_missing_program() -> None:
    here = BY_KEY["asyncio"]
    assert here.missing is None
    assert replace(here, program="no-such-program").missing == "no-such-program"
    assert replace(here, module="no_such_module").missing == "no_such_module"
