"""From the measurements of single runs to metrics: per delivery, login and client; medians over rounds; ratios.

Pure arithmetic. It does not know how anything was measured or how it is shown.

- A metric is the median over the rounds that measured it and were not disturbed.
- There is no result where a round failed, or where at most half of the rounds have measured the metric undisturbed.
  `Results.missing` has the reason.
- Latencies allow less disturbance than costs, because CPU time does not count while a process waits and a latency does.
  Memory allows any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from statistics import median
from typing import Any

LOAD_LIMIT = 0.9
"""Above this share of its core the load generator can limit the throughput."""
DISTURBED = 0.05
"""A run is disturbed when its server or the load generator lost more than this share of the time in which it was ready to run
to other work."""
DISTURBED_LATENCY = 0.01
"""Its latencies are disturbed above this share: more of the messages than the slowest hundredth could have waited."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """One run, or the medians of several, in the units that people compare. None: not measured."""

    deliveries_per_s: float | None = None
    deliveries_per_cpu_s: float | None = None
    cpu_per_delivery_us: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    max_us: float | None = None
    memory_per_client_kb: float | None = None
    idle_cpu_share: float | None = None
    cpu_per_login_us: float | None = None
    login_growth: float | None = None
    peak_growth_kb: float | None = None
    stalled_dropped_s: float | None = None
    load_share: float | None = None
    beside_cpu_us: float | None = None
    """CPU per delivery of the other server, where two are measured in pairs."""
    cpu_ratio: float | None = None
    """The median of the ratios of the pairs, which is not that of the medians."""


LATENCIES = frozenset({"p50_us", "p99_us", "max_us"})
MEMORY = frozenset({"memory_per_client_kb", "peak_growth_kb"})


class Reason(Enum):
    """Why a result is missing; the value is the word in a table."""

    FAILED = "failed"
    OVERLOADED = "overloaded"
    DISTURBED = "disturbed"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one server under one workload: its measurements, or why it failed."""

    workload: str
    server: str
    round: int
    measured: Mapping[str, Any]
    failure: str | None = None

    def metrics(self) -> Metrics:
        return Metrics() if self.failure else metrics(self.measured)

    @property
    def disturbance(self) -> float:
        """The share that the server or the load generator lost to other work; 0 if not measured."""
        share: float = self.measured.get("disturbance", 0.0)
        return share

    @property
    def disturbed(self) -> bool:
        """True when not even its costs can be used."""
        return self.disturbance > DISTURBED

    @property
    def clean(self) -> bool:
        """True when all of its metrics can be used."""
        return self.disturbance <= (DISTURBED_LATENCY if self.measured.get("latency") else DISTURBED)

    def undisturbed(self, name: str) -> bool:
        """True when this metric can be used."""
        if name in MEMORY:
            return True
        return self.disturbance <= (DISTURBED_LATENCY if name in LATENCIES else DISTURBED)


def metrics(measured: Mapping[str, Any]) -> Metrics:
    """The metrics of one run of the load generator."""
    values: dict[str, float | None] = {}
    if measured.get("deliveries"):
        deliveries, wall_s, cpu_s = measured["deliveries"], measured["wall_s"], measured["server_cpu_s"]
        values["deliveries_per_s"] = deliveries / wall_s
        values["deliveries_per_cpu_s"] = deliveries / cpu_s
        values["cpu_per_delivery_us"] = cpu_s / deliveries * 1e6
        values["load_share"] = measured["load_cpu_s"] / wall_s
        values["peak_growth_kb"] = measured["peak_rss_kb"] - measured["rss_joined_kb"]
        if "stalled_dropped_s" in measured:
            dropped_s = measured["stalled_dropped_s"]
            values["stalled_dropped_s"] = math.inf if dropped_s is None else dropped_s
        if measured["latency"] and not measured["overloaded"]:
            values |= {name: measured["latency"][name] for name in ("p50_us", "p99_us", "max_us")}
    if "cpu_ratio" in measured:
        names = ("cpu_per_delivery_us", "beside_cpu_us", "cpu_ratio")
        values |= {name: measured[name] for name in names}
    if idle := measured.get("idle"):
        values["memory_per_client_kb"] = (idle["rss_kb"] - measured["rss_before_kb"]) / measured["clients"]
        values["idle_cpu_share"] = idle["server_cpu_s"] / idle["seconds"]
        values["cpu_per_login_us"], values["login_growth"] = _logins(measured["logins"])
    return Metrics(**values)


def _logins(steps: list[dict[str, float]]) -> tuple[float, float]:
    """CPU of one login, and its cost in the last quarter relative to the cost in the second and third eighth.

    The first eighth is left out of the comparison, because it contains work that every program does only once."""

    def cost(first: int, last: int) -> float:
        spent = steps[last]["server_cpu_s"] - steps[first]["server_cpu_s"]
        return spent / (steps[last]["connected"] - steps[first]["connected"]) * 1e6

    last = len(steps) - 1
    return cost(0, last), cost(last - 2, last) / cost(1, 3)


def ratio(value: float | None, to: float | None) -> float | None:
    return None if value is None or to is None or to == 0 else value / to


class Results:
    """All runs of a benchmark, by workload and server."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(runs)
        self._by_cell: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            self._by_cell.setdefault((run.workload, run.server), []).append(run)

    def workloads(self) -> list[str]:
        return list(dict.fromkeys(run.workload for run in self.runs))

    def servers(self, workload: str) -> list[str]:
        return list(dict.fromkeys(run.server for run in self.runs if run.workload == workload))

    def idle_workload(self) -> str:
        """The workload with idle clients, whose number is smaller in a quick run."""
        return next((workload for workload in self.workloads() if workload.startswith("idle-")), "idle-8000")

    def of(self, workload: str, server: str) -> Metrics:
        """The medians; None for each missing result."""
        if self.failures(workload, server):
            return Metrics()
        found = {field.name: self._values(workload, server, field.name) for field in fields(Metrics)}
        rounds = len(self._rounds(workload, server))
        return Metrics(**{name: median(values) for name, values in found.items() if 2 * len(values) > rounds})

    def missing(self, workload: str, server: str, name: str) -> Reason | None:
        """Why a result is missing; None if it is not, or if it was not measured."""
        if self.failures(workload, server):
            return Reason.FAILED
        runs = self._rounds(workload, server)
        if not runs or getattr(self.of(workload, server), name) is not None:
            return None
        overloaded = sum(bool(run.measured.get("overloaded")) for run in runs)
        if name in LATENCIES and 2 * overloaded >= len(runs):
            return Reason.OVERLOADED
        return None if all(getattr(run.metrics(), name) is None for run in runs) else Reason.DISTURBED

    def failures(self, workload: str, server: str) -> list[str]:
        return [run.failure for run in self._rounds(workload, server) if run.failure]

    def spread(self, workload: str, server: str, name: str) -> float | None:
        """The range of a metric over its rounds as a share of its median; None with fewer than two."""
        values = self._values(workload, server, name)
        if len(values) < 2 or median(values) == 0:
            return None
        return (max(values) - min(values)) / median(values)

    def _rounds(self, workload: str, server: str) -> list[Run]:
        return self._by_cell.get((workload, server), [])

    def _values(self, workload: str, server: str, name: str) -> list[float]:
        """The measurements of the undisturbed rounds."""
        runs = self._rounds(workload, server)
        values = [getattr(run.metrics(), name) for run in runs if run.undisturbed(name)]
        return [value for value in values if value is not None]
