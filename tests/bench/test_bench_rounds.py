"""Who takes part in what, in which order, and what is told meanwhile."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import pytest

from bench import machine, rounds
from bench.figures import Run
from bench.load import Crowd
from bench.rounds import Planned, Progress, measure, plan
from bench.servers import BY_KEY, SERVERS, Server, ServerFailed, started
from bench.workloads import FULL, SATURATED_100, Takes, Workload, quick

SHORT = Workload("short", "a short one", Crowd(10, speakers=2, window=4), rounds=3)
OURS_ALONE = Workload("ours", "ours alone", Crowd(10, speakers=2, window=4), Takes.OURS, rounds=1)


def test_rounds_are_interleaved_and_each_begins_with_another_server() -> None:
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
    ("takes", "absent"),
    [
        (Takes.ALL, {"geventchat-bare"}),
        (Takes.OURS_BOTH_WAYS, set()),
        (Takes.SHEDDING, {"geventchat-bare", "threads", "gevent"}),
        (Takes.OURS, set(BY_KEY) - {"geventchat"}),
    ],
)
def test_who_takes_part(takes: Takes, absent: set[str]) -> None:
    part = Workload("w", "", Crowd(2), takes).servers(SERVERS)
    assert set(BY_KEY) - {server.key for server in part} == absent


def test_redis_speaks_its_own_protocol_and_the_others_the_room_s() -> None:
    mixed = Workload("w", "", Crowd(2), dialects=("line", "json", "slash"))
    assert mixed.dialects_of(BY_KEY["geventchat"]) == ("line", "json", "slash")
    assert SHORT.dialects_of(BY_KEY["redis"]) == ("redis",)


def test_progress_says_what_is_measured_and_what_is_left() -> None:
    planned = plan([SHORT], [BY_KEY["geventchat"], BY_KEY["redis"]])
    out = io.StringIO()
    progress = Progress(planned, out)
    progress.tell(0, planned[0])
    assert out.getvalue().startswith("[1/6] short · geventchat · round 1 of 3 · 11 s left\n")
    progress.tell(5, planned[5])
    assert out.getvalue().splitlines()[1].startswith("[6/6] short · redis · round 3 of 3 · ")


def test_the_quick_run_fits_into_a_minute_and_the_full_one_into_twenty() -> None:
    chosen = list(SERVERS)
    assert sum(run.workload.expected_s(run.server) for run in plan(quick(), chosen)) < 60
    assert sum(run.workload.expected_s(run.server) for run in plan(FULL, chosen)) < 20 * 60


def test_a_server_that_does_not_come_up_is_told_with_its_last_words() -> None:
    broken = Server("broken", "broken", ("python3", "-c", "import sys; sys.exit('no such luck')"), "ready")
    with pytest.raises(ServerFailed, match="no such luck"), started(broken, ("line",), core=None):
        raise AssertionError("it is not up")
    run = measure(plan([SHORT], [broken])[0], machine.choose_cores())
    assert run.fault is not None
    assert "no such luck" in run.fault


def test_a_server_is_ended_with_its_block() -> None:
    with started(BY_KEY["asyncio"], ("line",), core=None) as running:
        assert running.process.poll() is None
    assert running.process.poll() is not None


def test_a_child_is_pinned_and_we_are_not() -> None:
    usual = os.sched_getaffinity(0)
    with machine.pinned(min(usual)), started(BY_KEY["asyncio"], ("line",), core=None) as running:
        assert os.sched_getaffinity(running.process.pid) == {min(usual)}
    assert os.sched_getaffinity(0) == usual


def test_the_machine_is_described_by_kind() -> None:
    assert set(machine.describe()) == {"processor", "cores", "memory", "system", "python"}


def test_the_headline_workload_is_the_one_that_is_stated() -> None:
    crowd = SATURATED_100.crowd
    assert (crowd.clients, crowd.speakers, crowd.window) == (100, 4, 64)


@pytest.mark.parametrize(
    ("shares", "budget_s", "kept", "measured"),
    [
        ([0.02, 0.0], 1000.0, 0.02, 1),
        ([0.5, 0.03], 1000.0, 0.03, 2),
        ([0.5, 0.3, 0.4, 0.0], 1000.0, 0.3, 3),
        ([0.5, 0.0], 0.0, 0.5, 1),
    ],
    ids=["calm", "calm at last", "never calm", "no time left"],
)
def test_a_disturbed_run_is_measured_again(
    shares: list[float], budget_s: float, kept: float, measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = iter(shares)
    made = []

    def measure(run: Planned, _cores: object, _watch: object) -> Run:
        made.append(Run(run.workload.key, run.server.key, run.round, {"disturbance": next(coming)}))
        return made[-1]

    monkeypatch.setattr(rounds, "measure", measure)
    planned = plan([OURS_ALONE], [BY_KEY["geventchat"]])
    progress = Progress(planned, io.StringIO())
    (run,) = rounds.measure_all(planned, machine.Cores(0, 1), progress, budget_s=budget_s)
    assert rounds.disturbance(run) == kept
    assert len(made) == measured


def test_what_a_server_needs_and_is_not_there_is_named() -> None:
    here = BY_KEY["asyncio"]
    assert here.missing is None
    assert replace(here, program="no-such-program").missing == "no-such-program"
    assert replace(here, module="no_such_module").missing == "no_such_module"
