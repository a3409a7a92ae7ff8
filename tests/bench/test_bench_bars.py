"""Each bar is met on one side of its number and not on the other, and says so when it was not measured."""

from __future__ import annotations

from typing import Any

import pytest
from bench_results import idle, results, talk

from bench.bars import Outcome, bars
from bench.figures import Results
from bench.workloads import SCALE_CLIENTS, scale_key

OURS = "geventchat"
Found = dict[tuple[str, str], Any]


def outcomes(found: Results, workload: str, words: str) -> list[Outcome]:
    return [bar.outcome for bar in bars(found) if bar.workload == workload and words in bar.must]


@pytest.mark.parametrize(
    ("peer", "times"), [("asyncio", 20), ("threads", 20), ("uvloop", 15), ("redis", 6)], ids=lambda v: str(v)
)
@pytest.mark.parametrize("workload", ["saturated-100", "saturated-1000"])
def test_saturated_rooms_are_compared_by_cpu(workload: str, peer: str, times: float) -> None:
    for factor, outcome in ((1.01, Outcome.MET), (0.99, Outcome.NOT_MET)):
        found = results({(workload, OURS): talk(0.1), (workload, peer): talk(0.1 * times * factor)})
        assert outcomes(found, workload, peer) == [outcome]


AT_MOST: list[tuple[str, str, str, float]] = [
    ("one-at-a-time", "CPU per delivery at most 1.25 x uvloop", "uvloop", 1.25),
    ("json-100", "at most 2 x line", "line", 2.0),
    ("mixed-100", "at most 2 x line", "line", 2.0),
    ("slash-100", "at most 2 x line", "line", 2.0),
]


@pytest.mark.parametrize(("workload", "words", "peer", "limit"), AT_MOST)
def test_costs_are_compared_with_a_limit(workload: str, words: str, peer: str, limit: float) -> None:
    for factor, outcome in ((0.99, Outcome.MET), (1.01, Outcome.NOT_MET)):
        other = ("saturated-100", OURS) if peer == "line" else (workload, peer)
        found = results({(workload, OURS): talk(limit * factor), other: talk(1.0)})
        assert outcomes(found, workload, words) == [outcome]


@pytest.mark.parametrize(("peer", "limit"), [("redis", 1.5), ("uvloop", 1.25)])
def test_latency_at_a_pace_is_compared_by_p99(peer: str, limit: float) -> None:
    for factor, outcome in ((0.99, Outcome.MET), (1.01, Outcome.NOT_MET)):
        found = results(
            {("paced-500", OURS): talk(p99_us=100 * limit * factor), ("paced-500", peer): talk(p99_us=100)}
        )
        assert outcomes(found, "paced-500", peer) == [outcome]


@pytest.mark.parametrize(
    ("words", "good", "bad"),
    [
        ("an idle client", {"kb": 9.9}, {"kb": 10.1}),
        ("no measurable CPU", {"share": 0.0009}, {"share": 0.0011}),
        ("does not grow", {"growth": 1.24}, {"growth": 1.26}),
        ("at most 3 x uvloop", {"login_us": 299.0}, {"login_us": 301.0}),
    ],
)
def test_idle_clients_and_logins(words: str, good: dict[str, float], bad: dict[str, float]) -> None:
    for ours, outcome in ((good, Outcome.MET), (bad, Outcome.NOT_MET)):
        found = results({("idle-8000", OURS): idle(**ours), ("idle-8000", "uvloop"): idle(login_us=100.0)})
        assert outcomes(found, "idle-8000", words) == [outcome]


def stalled(**other: Any) -> Results:
    return results({("saturated-100", OURS): talk(), ("stalled-100", OURS): talk(**other)})


def test_a_stalled_client_may_cost_noise_and_its_queue() -> None:
    assert outcomes(stalled(cpu_us=1.09, p99_us=109.0), "stalled-100", "") == [Outcome.MET] * 3
    assert outcomes(stalled(cpu_us=1.11), "stalled-100", "CPU") == [Outcome.NOT_MET]
    assert outcomes(stalled(p99_us=111.0), "stalled-100", "p99") == [Outcome.NOT_MET]
    assert outcomes(stalled(peak_rss_kb=30_000 + 4 * 1024 + 1), "stalled-100", "memory") == [Outcome.NOT_MET]


def test_noise_is_what_the_rounds_themselves_showed() -> None:
    rounds = [talk(0.8), talk(1.0), talk(1.1)]
    found = results({("saturated-100", OURS): rounds, ("stalled-100", OURS): talk(1.25)})
    assert outcomes(found, "stalled-100", "CPU") == [Outcome.MET]


def test_limits_and_logs_may_cost_a_tenth() -> None:
    for cost, outcome in ((1.09, Outcome.MET), (1.11, Outcome.NOT_MET)):
        found = results(
            {("saturated-100", OURS): talk(cost), ("saturated-100", "geventchat-bare"): talk(1.0)}
        )
        assert outcomes(found, "saturated-100", "limits") == [outcome]


def test_a_falling_cost_is_flat_and_a_growing_one_is_not() -> None:
    def scale(costs: list[float]) -> Results:
        return results(
            {(scale_key(n), OURS): talk(cost) for n, cost in zip(SCALE_CLIENTS, costs, strict=True)}
        )

    falling = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 2.9]
    growing = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.6]
    assert outcomes(scale(falling), "saturated-10…5000", "flat") == [Outcome.MET]
    assert outcomes(scale(growing), "saturated-10…5000", "flat") == [Outcome.NOT_MET]


def test_what_was_not_measured_is_neither_met_nor_failed() -> None:
    assert {bar.outcome for bar in bars(results({}))} == {Outcome.NOT_MEASURED}
    only_ours = results({("saturated-100", OURS): talk(), ("saturated-100", "redis"): "gap: lost"})
    assert outcomes(only_ours, "saturated-100", "redis") == [Outcome.NOT_MEASURED]


def test_a_bar_tells_its_numbers() -> None:
    found = results({("one-at-a-time", OURS): talk(2.0), ("one-at-a-time", "uvloop"): talk(1.0)})
    (bar,) = (bar for bar in bars(found) if bar.workload == "one-at-a-time")
    assert bar.numbers == "2 x (2 us against 1 us)"
