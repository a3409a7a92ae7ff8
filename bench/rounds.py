"""The order of the runs, and their running: rounds interleaved, so that a slow minute is shared by all.

It must not know what the figures are good for.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from bench import load, servers
from bench.figures import Run
from bench.machine import Cores
from bench.servers import Running, Server
from bench.workloads import Workload

DISTURBED = 0.08
"""Of a core's time, taken by others: above this a latency says more about them than about the server."""
REPEATS = 2
LONG_S = 6.0
"""What takes longer than this is not measured again: it is long enough to bear a disturbance."""

Watch = Callable[[Running, Workload], Any]
"""Someone who looks at the server while it is loaded: called in between, must return at once."""


@dataclass(frozen=True, slots=True)
class Planned:
    workload: Workload
    server: Server
    round: int


def plan(workloads: Sequence[Workload], chosen: Sequence[Server]) -> list[Planned]:
    """Every run there will be: by round, then by workload, and in each round another server begins."""
    planned = []
    for number in range(max((workload.rounds for workload in workloads), default=0)):
        for workload in workloads:
            if number < workload.rounds:
                part = workload.servers(chosen)
                first = number % len(part) if part else 0
                planned += [Planned(workload, server, number) for server in part[first:] + part[:first]]
    return planned


class Progress:
    """One line: what is measured now, and what is left. Rewritten in place on a terminal."""

    def __init__(self, planned: Sequence[Planned], out: TextIO | None = None) -> None:
        self._expected = [run.workload.expected_s(run.server) for run in planned]
        self._out = out or sys.stderr
        self._began = time.monotonic()

    def left_s(self, index: int) -> float:
        """How long the runs from this one on will take, at the pace of those before."""
        done = sum(self._expected[:index])
        pace = self.gone_s / done if done else 1.0
        return sum(self._expected[index:]) * pace

    @property
    def gone_s(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._began

    def tell(self, index: int, run: Planned) -> None:
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


def measure(run: Planned, cores: Cores, watch: Watch | None = None) -> Run:
    """One run: start the server, load it, end it."""
    dialects = run.workload.dialects_of(run.server)
    try:
        with servers.started(run.server, dialects, core=cores.server) as running:
            if watch is not None:
                watch(running, run.workload)
            found = load.run(
                run.workload.crowd,
                running.ports,
                running.process.pid,
                core=cores.load,
                end_server=running.end,
            )
    except servers.ServerFailed as failed:
        return Run(run.workload.key, run.server.key, run.round, {}, f"not ready: {failed}")
    if isinstance(found, load.Fault):
        return Run(run.workload.key, run.server.key, run.round, {}, f"{found.kind}: {found.told}")
    return Run(run.workload.key, run.server.key, run.round, found)


def measure_all(
    planned: Sequence[Planned],
    cores: Cores,
    progress: Progress,
    *,
    budget_s: float = math.inf,
    watch: Watch | None = None,
) -> Iterator[Run]:
    """Every run in its turn. One that others disturbed is measured again, while the whole stays within its time."""
    for index, run in enumerate(planned):
        progress.tell(index, run)
        found = measure(run, cores, watch)
        repeats = REPEATS if run.workload.expected_s(run.server) < LONG_S else 0
        for _ in range(repeats):
            if disturbance(found) <= DISTURBED or progress.gone_s + progress.left_s(index) > budget_s:
                break
            found = min(found, measure(run, cores, watch), key=disturbance)
        yield found
    progress.end()


def disturbance(run: Run) -> float:
    """The share of its time that the server or the load lost to other work; 0 where it was not measured."""
    share: float = run.found.get("disturbance", 0.0)
    return share
