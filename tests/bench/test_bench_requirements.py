"""Each requirement is met on one side of its limit and not on the other, and is marked when it was not measured."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_results import idle, in_pairs, results, traffic

from bench.metrics import Results
from bench.requirements import Outcome, requirements
from bench.workloads import SCALE_CLIENTS, scale_key

OURS = "geventchat"
Found = dict[tuple[str, str], Any]


def outcomes(found: Results, workload: str, text: str) -> list[Outcome]:
    return [one.outcome for one in requirements(found) if one.workload == workload and text in one.text]


@pytest.mark.parametrize(
    ("peer", "times"), [("asyncio", 20), ("threads", 20), ("uvloop", 15), ("redis", 6)], ids=lambda v: str(v)
)
@pytest.mark.parametrize("workload", ["saturated-100", "saturated-1000"])
def test_saturated_workloads_are_compared_by_cpu(workload: str, peer: str, times: float) -> None:
    for factor, outcome in ((1.01, Outcome.MET), (0.99, Outcome.NOT_MET)):
        found = results({(workload, OURS): traffic(0.1), (workload, peer): traffic(0.1 * times * factor)})
        assert outcomes(found, workload, peer) == [outcome]


@pytest.mark.parametrize("peer", ["asyncio", "uvloop"])
def test_tls_is_compared_with_asyncio_over_tls(peer: str) -> None:
    for factor, outcome in ((1.01, Outcome.MET), (0.99, Outcome.NOT_MET)):
        found = results({("tls-100", OURS): traffic(1.0), ("tls-100", peer): traffic(1.5 * factor)})
        assert outcomes(found, "tls-100", f"1.5 x {peer}") == [outcome]


AT_MOST: list[tuple[str, str, str, float]] = [
    ("one-at-a-time", "CPU per delivery: at most 1.25 x uvloop", "uvloop", 1.25),
    ("json-100", "at most 2 x line", "line", 2.0),
    ("mixed-100", "at most 2 x line", "line", 2.0),
    ("slash-100", "at most 2 x line", "line", 2.0),
]


@pytest.mark.parametrize(("workload", "text", "peer", "limit"), AT_MOST)
def test_costs_have_a_limit(workload: str, text: str, peer: str, limit: float) -> None:
    for factor, outcome in ((0.99, Outcome.MET), (1.01, Outcome.NOT_MET)):
        other = ("saturated-100", OURS) if peer == "line" else (workload, peer)
        found = results({(workload, OURS): traffic(limit * factor), other: traffic(1.0)})
        assert outcomes(found, workload, text) == [outcome]


@pytest.mark.parametrize(
    ("workload", "label"), [("web-100", "line"), ("web-100", "json"), ("web-1000", "line")]
)
def test_websockets_are_compared_with_plain_connections_in_pairs(workload: str, label: str) -> None:
    for ratio, outcome in ((1.29, Outcome.MET), (1.31, Outcome.NOT_MET)):
        found = results({(f"{workload}-to-{label}", OURS): in_pairs(2.0, 1.0, ratio)})
        assert outcomes(found, workload, f"1.3 x {label}") == [outcome]
    assert outcomes(results({}), workload, f"1.3 x {label}") == [Outcome.NOT_MEASURED]


@pytest.mark.parametrize(("peer", "limit"), [("redis", 1.5), ("uvloop", 1.25)])
def test_latency_at_a_fixed_rate_is_compared_by_p99(peer: str, limit: float) -> None:
    for factor, outcome in ((0.99, Outcome.MET), (1.01, Outcome.NOT_MET)):
        found = results(
            {
                ("paced-500", OURS): traffic(p99_us=100 * limit * factor),
                ("paced-500", peer): traffic(p99_us=100),
            }
        )
        assert outcomes(found, "paced-500", peer) == [outcome]


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("memory per idle client", {"kb": 9.9}, {"kb": 10.1}),
        ("CPU when idle", {"share": 0.0009}, {"share": 0.0011}),
        ("with many clients", {"growth": 1.24}, {"growth": 1.26}),
        ("at most 3 x uvloop", {"login_us": 299.0}, {"login_us": 301.0}),
    ],
)
def test_idle_clients_and_logins(text: str, good: dict[str, float], bad: dict[str, float]) -> None:
    for ours, outcome in ((good, Outcome.MET), (bad, Outcome.NOT_MET)):
        found = results({("idle-8000", OURS): idle(**ours), ("idle-8000", "uvloop"): idle(login_us=100.0)})
        assert outcomes(found, "idle-8000", text) == [outcome]


def stalled(**other: Any) -> Results:
    return results({("saturated-100", OURS): traffic(), ("stalled-100", OURS): traffic(**other)})


def test_a_stalled_client_costs_no_more_than_noise_and_its_queue() -> None:
    calm = stalled(cpu_us=1.09, p99_us=109.0, stalled_dropped_s=7.9)
    assert outcomes(calm, "stalled-100", "") == [Outcome.MET] * 4
    assert outcomes(stalled(cpu_us=1.11), "stalled-100", "CPU") == [Outcome.NOT_MET]
    assert outcomes(stalled(p99_us=111.0), "stalled-100", "p99") == [Outcome.NOT_MET]
    assert outcomes(stalled(stalled_dropped_s=8.1), "stalled-100", "dropped") == [Outcome.NOT_MET]
    assert outcomes(stalled(stalled_dropped_s=None), "stalled-100", "dropped") == [Outcome.NOT_MET]
    assert outcomes(stalled(), "stalled-100", "dropped") == [Outcome.NOT_MEASURED]
    assert outcomes(stalled(peak_rss_kb=30_000 + 4 * 1024 + 1), "stalled-100", "memory") == [Outcome.NOT_MET]


def test_noise_is_the_spread_of_the_rounds() -> None:
    rounds = [traffic(0.8), traffic(1.0), traffic(1.1)]
    found = results({("saturated-100", OURS): rounds, ("stalled-100", OURS): traffic(1.25)})
    assert outcomes(found, "stalled-100", "CPU") == [Outcome.MET]


def test_too_much_noise_decides_nothing() -> None:
    rounds = [traffic(0.7), traffic(1.0), traffic(1.3)]
    found = results({("saturated-100", OURS): rounds, ("stalled-100", OURS): traffic(1.0)})
    assert outcomes(found, "stalled-100", "CPU") == [Outcome.NOT_MEASURED]


def test_limits_and_logs_cost_at_most_a_tenth() -> None:
    for cost, outcome in ((1.09, Outcome.MET), (1.11, Outcome.NOT_MET)):
        found = results(
            {("saturated-100", OURS): traffic(cost), ("saturated-100", "geventchat-bare"): traffic(1.0)}
        )
        assert outcomes(found, "saturated-100", "limits and logs") == [outcome]


def test_the_cost_per_delivery_may_fall_but_not_grow() -> None:
    def scale(costs: list[float]) -> Results:
        return results(
            {(scale_key(n), OURS): traffic(cost) for n, cost in zip(SCALE_CLIENTS, costs, strict=True)}
        )

    falling = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 2.9]
    growing = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.6]
    assert outcomes(scale(falling), "saturated-10…5000", "never 1.5 x") == [Outcome.MET]
    assert outcomes(scale(growing), "saturated-10…5000", "never 1.5 x") == [Outcome.NOT_MET]


def test_a_requirement_that_was_not_measured_is_neither_met_nor_violated() -> None:
    assert {one.outcome for one in requirements(results({}))} == {Outcome.NOT_MEASURED}
    only_ours = results({("saturated-100", OURS): traffic(), ("saturated-100", "redis"): "gap: lost"})
    assert outcomes(only_ours, "saturated-100", "redis") == [Outcome.NOT_MEASURED]


def test_a_requirement_shows_its_numbers() -> None:
    found = results({("one-at-a-time", OURS): traffic(2.0), ("one-at-a-time", "uvloop"): traffic(1.0)})
    (one,) = (one for one in requirements(found) if one.workload == "one-at-a-time")
    assert one.numbers == "2 x (2 and 1 us)"
