"""The order of the runs, and their execution. Rounds are interleaved, so that all servers share a slow minute.

It does not know what the measurements are used for.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from bench import load, servers
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
        self._expected = [run.workload.expected_s(run.server) for run in planned]
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

    def show(self, index: int, run: PlannedRun) -> None:
        text = (
            f"[{index + 1}/{len(self._expected)}] {run.workload.key} · {run.server.key} · "
            f"round {run.round + 1} of {run.workload.rounds} · {_span(self.left_s(index))} left"
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


def measure_all(
    planned: Sequence[PlannedRun],
    cores: Cores,
    progress: Progress,
    *,
    budget_s: float = math.inf,
    watch: Watch | None = None,
    calm_s: float = 0.0,
) -> Iterator[Run]:
    """Every run, one after another. While time is left, a run that is not clean is repeated; the least disturbed one counts.

    Before a repetition the machine has up to `calm_s` to become calm."""
    for index, planned_run in enumerate(planned):
        progress.show(index, planned_run)
        run = measure(planned_run, cores, watch)
        for _ in range(REPEATS):
            if run.failure or run.clean or progress.elapsed_s + progress.left_s(index) > budget_s:
                break
            wait_until_calm(cores, calm_s)
            run = min(run, measure(planned_run, cores, watch), key=lambda one: one.disturbance)
        yield run
    progress.end()
