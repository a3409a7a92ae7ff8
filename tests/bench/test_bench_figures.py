"""The arithmetic from findings to figures."""

from __future__ import annotations

import pytest
from bench_results import idle, results, talk

from bench.figures import Figures, figures, medians, ratio


def test_a_talk_becomes_costs_rates_and_latencies() -> None:
    found = figures(talk(cpu_us=0.25, p99_us=80.0))
    assert found.deliveries_per_s == 1_000_000
    assert found.deliveries_per_cpu_s == 4_000_000
    assert found.cpu_per_delivery_us == pytest.approx(0.25)
    assert (found.p50_us, found.p99_us, found.max_us) == (40.0, 80.0, 160.0)
    assert found.peak_growth_kb == 9_000
    assert found.load_share == 0.5
    assert found.memory_per_client_kb is None


def test_a_server_that_cannot_keep_the_pace_has_a_cost_and_no_latency() -> None:
    found = figures(talk(overloaded=True))
    assert found.p99_us is None
    assert found.cpu_per_delivery_us == pytest.approx(1.0)


def test_idleness_becomes_memory_and_cost_of_a_login() -> None:
    found = figures(idle(login_us=100.0, growth=1.5, kb=9.0, share=0.01))
    assert found.memory_per_client_kb == pytest.approx(9.0)
    assert found.cpu_per_login_us == pytest.approx(125.0)
    assert found.login_growth == pytest.approx(1.5)
    assert found.idle_cpu_share == pytest.approx(0.01)
    assert found.cpu_per_delivery_us is None


def test_medians_are_taken_figure_by_figure_over_those_that_have_it() -> None:
    found = medians([Figures(p50_us=1.0, p99_us=9.0), Figures(p50_us=5.0), Figures(p50_us=2.0, p99_us=11.0)])
    assert found == Figures(p50_us=2.0, p99_us=10.0)


def test_a_ratio_needs_both_sides() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(2.0, None) is None
    assert ratio(2.0, 0.0) is None


def test_one_round_with_a_fault_leaves_no_result() -> None:
    found = results(
        {("saturated-100", "geventchat"): talk(), ("saturated-100", "redis"): "gap: c00003 heard"}
    )
    assert found.of("saturated-100", "geventchat").p99_us == 100.0
    assert found.of("saturated-100", "redis") == Figures()
    assert found.faults("saturated-100", "redis") == ["gap: c00003 heard"]
    assert found.servers("saturated-100") == ["geventchat", "redis"]


def test_the_spread_of_rounds_is_told_as_a_share_of_their_median() -> None:
    found = results({("saturated-100", "geventchat"): [talk(0.9), talk(1.0), talk(1.2)]})
    assert found.spread("saturated-100", "geventchat", "cpu_per_delivery_us") == pytest.approx(0.3)
    assert found.spread("saturated-100", "redis", "cpu_per_delivery_us") == 0.0
