"""Made-up measurements, for tests of the arithmetic and the tables."""

from __future__ import annotations

from typing import Any

from bench.metrics import Results, Run


def traffic(cpu_us: float = 1.0, p99_us: float = 100.0, **other: Any) -> dict[str, Any]:
    """A run of one second with a million deliveries, each at this cost in CPU."""
    return {
        "clients": 100,
        "deliveries": 1_000_000,
        "messages": 10_000,
        "wall_s": 1.0,
        "server_cpu_s": cpu_us,
        "load_cpu_s": 0.5,
        "peak_rss_kb": 30_000,
        "rss_before_kb": 20_000,
        "rss_joined_kb": 21_000,
        "overloaded": False,
        "latency": {"count": 10_000, "p50_us": p99_us / 2, "p99_us": p99_us, "max_us": p99_us * 2},
        "logins": [],
        **other,
    }


def idle(
    login_us: float = 100.0, growth: float = 1.0, kb: float = 9.0, share: float = 0.0, **other: Any
) -> dict[str, Any]:
    """8,000 logins, the second half of them more expensive by this factor, then idle."""
    steps, cpu = [], 0.0
    for i in range(9):
        steps.append(
            {"connected": 1000 * i, "server_cpu_s": cpu, "wall_s": cpu, "rss_kb": 20_000 + 1000 * kb * i}
        )
        cpu += login_us * 1e-3 * (growth if i >= 4 else 1.0)
    return {
        "clients": 8000,
        "rss_before_kb": 20_000,
        "rss_joined_kb": 20_000 + 8000 * kb,
        "logins": steps,
        "idle": {"seconds": 4.0, "server_cpu_s": 4.0 * share, "rss_kb": 20_000 + 8000 * kb},
        **other,
    }


def in_pairs(cpu_us: float, beside_us: float, ratio: float) -> dict[str, Any]:
    """A round of pairs with these medians."""
    return {"cpu_per_delivery_us": cpu_us, "beside_cpu_us": beside_us, "cpu_ratio": ratio, "disturbance": 0.0}


def results(measured: dict[tuple[str, str], dict[str, Any] | list[dict[str, Any]] | str]) -> Results:
    """Results from (workload, server) to the measurements of each round. A text is a failure."""
    runs = []
    for (workload, server), rounds in measured.items():
        if isinstance(rounds, str):
            runs.append(Run(workload, server, 0, {}, rounds))
            continue
        for number, one in enumerate(rounds if isinstance(rounds, list) else [rounds]):
            runs.append(Run(workload, server, number, one))
    return Results(runs)
