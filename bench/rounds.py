"""The order of the runs, and their execution. Rounds are interleaved, so that all servers share a slow minute.

It does not know what the measurements are used for.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from bench import load, pairs, servers
from bench.machine import Cores, wait_until_calm
from bench.metrics import Run
from bench.servers import RunningServer, Server
from bench.workloads import Workload

REPEATS = 4
"""How often a disturbed run is repeated at most."""

Watch = Callable[[RunningServer, Workload], Any]
"""Called when a server is ready and about to be loaded. Must return at once."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    workload: Workload
    server: Server
    round: int

    @property
    def expected_s(self) -> float:
        """About how long it takes."""
        return self.workload.expected_s(self.server)


def plan(workloads: Sequence[Workload], chosen: Sequence[Server]) -> list[PlannedRun]:
    """Every run: by round, then by workload, and each round starts with a different server."""
    planned = []
    for number in range(max((workload.rounds for workload in workloads), default=0)):
        for workload in workloads:
            if number < workload.rounds:
                participants = workload.servers(chosen)
                first = number % len(participants) if participants else 0
                order = participants[first:] + participants[:first]
                planned += [PlannedRun(workload, server, number) for server in order]
    return planned


class Progress:
    """One line with the current run and the time left. On a terminal it is rewritten in place."""

    def __init__(self, planned: Sequence[PlannedRun], out: TextIO | None = None) -> None:
        self._expected = [run.expected_s for run in planned]
        self._out = out or sys.stderr
        self._began = time.monotonic()

    def left_s(self, index: int) -> float:
        """How long the runs from this one on will take, judging by the runs before it."""
        done = sum(self._expected[:index])
        pace = self.elapsed_s / done if done else 1.0
        return sum(self._expected[index:]) * pace

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def show(self, index: int, run: PlannedRun, repeat: int = 0) -> None:
        left = "again, because it was disturbed" if repeat else f"{_span(self.left_s(index))} left"
        text = (
            f"[{index + 1}/{len(self._expected)}] {run.workload.key} · {run.server.key} · "
            f"round {run.round + 1} of {run.workload.rounds} · {left}"
        )
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{text}")
        else:
            self._out.write(f"{text}\n")
        self._out.flush()

    def end(self) -> None:
        if self._out.isatty():
            self._out.write("\r\x1b[K")
            self._out.flush()


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def measure(run: PlannedRun, cores: Cores, watch: Watch | None = None) -> Run:
    """One run: start the server, load it, stop it."""
    if run.workload.in_pairs is not None:
        return _measure_pairs(run, run.workload.in_pairs, cores)
    dialects = run.workload.dialects_of(run.server)
    place = (run.workload.key, run.server.key, run.round)
    try:
        with servers.started(run.server, dialects, core=cores.server) as running:
            if watch is not None:
                watch(running, run.workload)
            measured = load.run(
                run.workload.load,
                running.ports,
                running.process.pid,
                core=cores.load,
                stop_server=running.stop,
            )
    except servers.ServerFailed as failed:
        return Run(*place, {}, f"not started: {failed}")
    if isinstance(measured, load.Failure):
        return Run(*place, {}, f"{measured.kind}: {measured.detail}")
    return Run(*place, measured)


def _measure_pairs(run: PlannedRun, experiment: pairs.Traffic, cores: Cores) -> Run:
    place = (run.workload.key, run.server.key, run.round)
    this, other = (
        pairs.Side(run.server, dialect) for dialect in (run.workload.dialects[0], run.workload.beside)
    )
    try:
        found = pairs.measure_round(experiment, this, other, cores)["cpu"]
    except servers.ServerFailed as failed:
        return Run(*place, {}, f"not started: {failed}")
    except load.RequestFailed as failed:
        return Run(*place, {}, str(failed))
    except pairs.TooBusy:
        return Run(*place, {"disturbance": 1.0})
    measured = {
        "cpu_per_delivery_us": found.this,
        "beside_cpu_us": found.other,
        "cpu_ratio": found.ratio,
        # Most of its pairs are undisturbed, or it has to be repeated.
        "disturbance": 1.0 if found.disturbed else 0.0,
    }
    return Run(*place, measured)


def measure_all(
    planned: Sequence[PlannedRun],
    cores: Cores,
    progress: Progress,
    *,
    budget_s: float = math.inf,
    watch: Watch | None = None,
    calm_s: float = 0.0,
) -> Iterator[Run]:
    """Every run, one after another, and then those again that other work disturbed, while time is left.

    They come again at the end and not at once, because other work lasts longer than a run. Before each of them the machine
    has up to `calm_s` to become calm."""
    left = list(enumerate(planned))
    for repeat in range(REPEATS + 1):
        disturbed = []
        for index, planned_run in left:
            if repeat and progress.elapsed_s + planned_run.expected_s > budget_s:
                continue
            progress.show(index, planned_run, repeat)
            if repeat:
                wait_until_calm(cores, calm_s)
            run = measure(planned_run, cores, watch)
            if not run.failure and not run.clean:
                disturbed.append((index, planned_run))
            yield run
        left = disturbed
    progress.end()


def least_disturbed(runs: Iterable[Run]) -> list[Run]:
    """The best of the runs of each server in each round of a workload, in the order of the first ones."""
    best: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        place = (run.workload, run.server, run.round)
        if place not in best or run.disturbance < best[place].disturbance:
            best[place] = run
    return list(best.values())
