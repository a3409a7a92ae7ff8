"""From what single runs measured to figures: per delivery, login and client; medians over rounds; ratios.

Pure arithmetic. It must not know how anything was measured or how it will be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

LOAD_LIMIT = 0.9
"""Above this share of its core the load itself may be what limits a throughput."""


@dataclass(frozen=True, slots=True)
class Figures:
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
    """One run of one server under one workload: what was found, or what was wrong."""

    workload: str
    server: str
    round: int
    found: Mapping[str, Any]
    fault: str | None = None

    def figures(self) -> Figures:
        return Figures() if self.fault else figures(self.found)


def figures(found: Mapping[str, Any]) -> Figures:
    """What one run of the load comes to."""
    values: dict[str, float | None] = {}
    if found.get("deliveries"):
        deliveries, wall_s, cpu_s = found["deliveries"], found["wall_s"], found["server_cpu_s"]
        values["deliveries_per_s"] = deliveries / wall_s
        values["deliveries_per_cpu_s"] = deliveries / cpu_s
        values["cpu_per_delivery_us"] = cpu_s / deliveries * 1e6
        values["load_share"] = found["load_cpu_s"] / wall_s
        values["peak_growth_kb"] = found["peak_rss_kb"] - found["rss_joined_kb"]
        if found["latency"] and not found["overloaded"]:
            values |= {name: found["latency"][name] for name in ("p50_us", "p99_us", "max_us")}
    if idle := found.get("idle"):
        values["memory_per_client_kb"] = (idle["rss_kb"] - found["rss_before_kb"]) / found["clients"]
        values["idle_cpu_share"] = idle["server_cpu_s"] / idle["seconds"]
        values["cpu_per_login_us"], values["login_growth"] = _logins(found["logins"])
    return Figures(**values)


def _logins(steps: list[dict[str, float]]) -> tuple[float, float]:
    """CPU of one login, and how much dearer it is in the last quarter than in the one after the first eighth.

    The first eighth is left out of the comparison: it pays for what every program does once."""

    def cost(first: int, last: int) -> float:
        spent = steps[last]["server_cpu_s"] - steps[first]["server_cpu_s"]
        return spent / (steps[last]["present"] - steps[first]["present"]) * 1e6

    last = len(steps) - 1
    return cost(0, last), cost(last - 2, last) / cost(1, 3)


def medians(runs: Iterable[Figures]) -> Figures:
    """The median of each figure over those runs that have it."""
    several = list(runs)
    values: dict[str, float] = {}
    for field in fields(Figures):
        present = [value for run in several if (value := getattr(run, field.name)) is not None]
        if present:
            values[field.name] = median(present)
    return Figures(**values)


def ratio(value: float | None, to: float | None) -> float | None:
    return None if value is None or to is None or to == 0 else value / to


class Results:
    """All runs of a benchmark, asked by workload and server."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(runs)
        self._by_place: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            self._by_place.setdefault((run.workload, run.server), []).append(run)

    def workloads(self) -> list[str]:
        return list(dict.fromkeys(run.workload for run in self.runs))

    def servers(self, workload: str) -> list[str]:
        return list(dict.fromkeys(run.server for run in self.runs if run.workload == workload))

    def of(self, workload: str, server: str) -> Figures:
        """The medians over the rounds; nothing where a round was not delivered in full and in order."""
        if self.faults(workload, server):
            return Figures()
        return medians(run.figures() for run in self._by_place.get((workload, server), ()))

    def faults(self, workload: str, server: str) -> list[str]:
        return [run.fault for run in self._by_place.get((workload, server), ()) if run.fault]

    def spread(self, workload: str, server: str, name: str) -> float:
        """How far the rounds lie apart, as a share of their median: what one may call noise."""
        values = [getattr(run.figures(), name) for run in self._by_place.get((workload, server), ())]
        present = [value for value in values if value is not None]
        return (max(present) - min(present)) / median(present) if present else 0.0
