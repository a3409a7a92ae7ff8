"""Made-up findings of the load, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from bench.figures import Results, Run


def talk(cpu_us: float = 1.0, p99_us: float = 100.0, **other: Any) -> dict[str, Any]:
    """A run of a second in which each of a million deliveries cost so much."""
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


def idle(login_us: float = 100.0, growth: float = 1.0, kb: float = 9.0, share: float = 0.0) -> dict[str, Any]:
    """8,000 logins, those after the first half so much dearer, then idleness."""
    steps, cpu = [], 0.0
    for i in range(9):
        steps.append(
            {"present": 1000 * i, "server_cpu_s": cpu, "wall_s": cpu, "rss_kb": 20_000 + 1000 * kb * i}
        )
        cpu += login_us * 1e-3 * (growth if i >= 4 else 1.0)
    return {
        "clients": 8000,
        "rss_before_kb": 20_000,
        "rss_joined_kb": 20_000 + 8000 * kb,
        "logins": steps,
        "idle": {"seconds": 4.0, "server_cpu_s": 4.0 * share, "rss_kb": 20_000 + 8000 * kb},
    }


def results(found: dict[tuple[str, str], dict[str, Any] | list[dict[str, Any]] | str]) -> Results:
    """From (workload, server) to what each round found; a text is a fault."""
    runs = []
    for (workload, server), rounds in found.items():
        if isinstance(rounds, str):
            runs.append(Run(workload, server, 0, {}, rounds))
            continue
        for number, one in enumerate(rounds if isinstance(rounds, list) else [rounds]):
            runs.append(Run(workload, server, number, one))
    return Results(runs)
