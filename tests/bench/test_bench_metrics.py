"""The arithmetic from measurements to metrics."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_results import idle, results, traffic

from bench.metrics import DISTURBED, DISTURBED_LATENCY, Metrics, Reason, Run, metrics, ratio


def test_traffic_has_a_cost_rates_and_latencies() -> None:
    found = metrics(traffic(cpu_us=0.25, p99_us=80.0))
    assert found.deliveries_per_s == 1_000_000
    assert found.deliveries_per_cpu_s == 4_000_000
    assert found.cpu_per_delivery_us == pytest.approx(0.25)
    assert (found.p50_us, found.p99_us, found.max_us) == (40.0, 80.0, 160.0)
    assert found.peak_growth_kb == 9_000
    assert found.load_share == 0.5
    assert found.memory_per_client_kb is None


def test_an_overloaded_server_has_a_cost_and_no_latency() -> None:
    found = metrics(traffic(overloaded=True))
    assert found.p99_us is None
    assert found.cpu_per_delivery_us == pytest.approx(1.0)


def test_idle_clients_have_memory_and_the_cost_of_a_login() -> None:
    found = metrics(idle(login_us=100.0, growth=1.5, kb=9.0, share=0.01))
    assert found.memory_per_client_kb == pytest.approx(9.0)
    assert found.cpu_per_login_us == pytest.approx(125.0)
    assert found.login_growth == pytest.approx(1.5)
    assert found.idle_cpu_share == pytest.approx(0.01)
    assert found.cpu_per_delivery_us is None


def test_each_median_is_over_the_rounds_that_have_the_metric() -> None:
    rounds = [traffic(1.0, p99_us=9.0), traffic(5.0, overloaded=True), traffic(2.0, p99_us=11.0)]
    found = results({("saturated-100", "geventchat"): rounds}).of("saturated-100", "geventchat")
    assert (found.cpu_per_delivery_us, found.p99_us) == (pytest.approx(2.0), 10.0)


def test_a_ratio_needs_both_sides() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(2.0, None) is None
    assert ratio(2.0, 0.0) is None


def test_a_failure_in_one_round_leaves_no_result() -> None:
    found = results(
        {("saturated-100", "geventchat"): traffic(), ("saturated-100", "redis"): "gap: c00003 received"}
    )
    assert found.of("saturated-100", "geventchat").p99_us == 100.0
    assert found.of("saturated-100", "redis") == Metrics()
    assert found.failures("saturated-100", "redis") == ["gap: c00003 received"]
    assert found.missing("saturated-100", "redis", "p99_us") is Reason.FAILED
    assert found.servers("saturated-100") == ["geventchat", "redis"]


def test_the_spread_is_the_range_as_a_share_of_the_median() -> None:
    found = results({("saturated-100", "geventchat"): [traffic(0.9), traffic(1.0), traffic(1.2)]})
    assert found.spread("saturated-100", "geventchat", "cpu_per_delivery_us") == pytest.approx(0.3)
    assert found.spread("saturated-100", "redis", "cpu_per_delivery_us") is None


CELL = ("saturated-100", "geventchat")


def test_a_disturbed_round_is_left_out() -> None:
    calm, disturbed = DISTURBED - 0.01, DISTURBED + 0.01
    rounds = [
        traffic(1.0, disturbance=calm),
        traffic(9.0, disturbance=disturbed),
        traffic(3.0, disturbance=calm),
    ]
    found = results({CELL: rounds})
    assert found.of(*CELL).cpu_per_delivery_us == pytest.approx(2.0)
    assert found.spread(*CELL, "cpu_per_delivery_us") == pytest.approx(1.0)
    assert found.missing(*CELL, "cpu_per_delivery_us") is None


def test_less_disturbance_spoils_a_latency_than_a_cost_and_none_spoils_memory() -> None:
    found = results({CELL: traffic(disturbance=DISTURBED_LATENCY + 0.01)})
    assert found.of(*CELL).cpu_per_delivery_us == pytest.approx(1.0)
    assert found.missing(*CELL, "p99_us") is Reason.DISTURBED
    assert results({CELL: traffic(disturbance=DISTURBED_LATENCY)}).of(*CELL).p99_us == 100.0
    assert results({CELL: idle(disturbance=0.9)}).of(*CELL).memory_per_client_kb == pytest.approx(9.0)
    assert results({CELL: idle(disturbance=0.9)}).missing(*CELL, "cpu_per_login_us") is Reason.DISTURBED


def test_a_run_is_clean_when_all_of_its_metrics_can_be_used() -> None:
    def clean(measured: dict[str, Any]) -> bool:
        return Run(*CELL, 0, measured).clean

    assert clean(traffic(disturbance=DISTURBED_LATENCY))
    assert not clean(traffic(disturbance=DISTURBED_LATENCY + 0.001))
    assert clean(idle(disturbance=DISTURBED))
    assert not clean(idle(disturbance=DISTURBED + 0.001))


@pytest.mark.parametrize("calm_rounds", [0, 1])
def test_a_cell_with_too_few_undisturbed_rounds_has_no_result(calm_rounds: int) -> None:
    rounds = [traffic(disturbance=0.0)] * calm_rounds + [traffic(disturbance=0.5)]
    found = results({CELL: rounds})
    assert found.of(*CELL).cpu_per_delivery_us is None
    assert found.missing(*CELL, "cpu_per_delivery_us") is Reason.DISTURBED


def test_a_latency_of_an_overloaded_server_is_missing_for_that_reason() -> None:
    overloaded = traffic(overloaded=True)
    assert results({CELL: [overloaded, traffic()]}).missing(*CELL, "p99_us") is Reason.OVERLOADED
    assert results({CELL: [overloaded, traffic(), traffic()]}).of(*CELL).p99_us == 100.0


def test_what_a_workload_does_not_measure_is_not_missing() -> None:
    assert results({CELL: traffic()}).missing(*CELL, "memory_per_client_kb") is None
    assert results({}).missing(*CELL, "p99_us") is None
