"""From the measurements of single runs to metrics: per delivery, login and client; medians over rounds; ratios.

Pure arithmetic. It does not know how anything was measured or how it is shown.

- A metric is the median over the undisturbed rounds.
- A server has no metrics for a workload in which a round failed, or in which most rounds were disturbed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

LOAD_LIMIT = 0.9
"""Above this share of its core the load generator can limit the throughput."""
DISTURBED = 0.05
"""A run is disturbed when its server or the load generator lost more than this share of its time to other work."""


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
    load_share: float | None = None


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
        """The share of its time that the server or the load generator lost to other work; 0 if not measured."""
        share: float = self.measured.get("disturbance", 0.0)
        return share

    @property
    def disturbed(self) -> bool:
        return self.disturbance > DISTURBED


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
        if measured["latency"] and not measured["overloaded"]:
            values |= {name: measured["latency"][name] for name in ("p50_us", "p99_us", "max_us")}
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


def medians(runs: Iterable[Metrics]) -> Metrics:
    """The median of each metric over the runs that have it."""
    several = list(runs)
    values: dict[str, float] = {}
    for field in fields(Metrics):
        present = [value for run in several if (value := getattr(run, field.name)) is not None]
        if present:
            values[field.name] = median(present)
    return Metrics(**values)


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

    def of(self, workload: str, server: str) -> Metrics:
        """The medians over the undisturbed rounds; no metrics if a round failed or most rounds were disturbed."""
        if self.failures(workload, server) or self.disturbed(workload, server):
            return Metrics()
        return medians(run.metrics() for run in self.undisturbed(workload, server))

    def undisturbed(self, workload: str, server: str) -> list[Run]:
        runs = self._by_cell.get((workload, server), [])
        return [run for run in runs if not run.failure and not run.disturbed]

    def failures(self, workload: str, server: str) -> list[str]:
        return [run.failure for run in self._by_cell.get((workload, server), ()) if run.failure]

    def disturbed(self, workload: str, server: str) -> bool:
        """True when other work disturbed at least half of the rounds."""
        runs = self._by_cell.get((workload, server), [])
        return 2 * sum(run.disturbed for run in runs) >= len(runs) > 0

    def spread(self, workload: str, server: str, name: str) -> float | None:
        """The range of a metric over the undisturbed rounds as a share of its median; None with fewer than two."""
        values = [getattr(run.metrics(), name) for run in self.undisturbed(workload, server)]
        present = [value for value in values if value is not None]
        if len(present) < 2 or median(present) == 0:
            return None
        return float((max(present) - min(present)) / median(present))
