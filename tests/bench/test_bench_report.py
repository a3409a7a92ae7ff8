"""The output: tables, charts, the summary of a profile."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from made_up_results import idle, results, traffic

from bench import tables
from bench.profiling import summary
from bench.requirements import requirements
from bench.workloads import FULL, PACES, SCALE_CLIENTS, pace_key, scale_key

OURS = "geventchat"


def test_a_table_shows_each_metric_with_its_ratio_to_ours() -> None:
    found = results(
        {("saturated-100", OURS): traffic(0.5, 100.0), ("saturated-100", "redis"): traffic(1.0, 50.0)}
    )
    head, rule, ours, redis = tables.workload_table(found, "saturated-100").splitlines()
    assert [cell.strip() for cell in head.split("|")[1:4]] == ["server", "deliveries/s", "per CPU second"]
    assert set(rule) == set("|-:")
    assert [cell.strip() for cell in ours.split("|")[1:-1]] == [
        "geventchat", "1.00 M", "2.00 M", "0.5 µs", "50 µs", "100 µs", "200 µs",
    ]  # fmt: skip
    assert [cell.strip() for cell in redis.split("|")[1:-1]] == [
        "Redis publish/subscribe", "1.00 M (1.00 ×)", "1.00 M (0.50 ×)", "1 µs (2.00 ×)", "25 µs (0.50 ×)", "50 µs (0.50 ×)",
        "100 µs (0.50 ×)",
    ]  # fmt: skip


def test_the_headline_has_a_row_for_each_server() -> None:
    found = results(
        {
            ("saturated-100", OURS): traffic(0.5),
            ("saturated-100", "geventchat-bare"): traffic(0.5),
            ("saturated-100", "uvloop"): traffic(50.0),
            ("paced-500", OURS): traffic(p99_us=1000.0),
            ("paced-500", "uvloop"): traffic(p99_us=1500.0),
            ("idle-8000", OURS): idle(kb=9.5),
        }
    )
    _, _, ours, uvloop = tables.headline(found).splitlines()
    assert [cell.strip() for cell in ours.split("|")[1:-1]] == ["geventchat", "2.00 M", "1 ms", "9.5 KB"]
    assert [cell.strip() for cell in uvloop.split("|")[1:-1]] == [
        "asyncio on uvloop", "20.0 k (1/100)", "1.5 ms (1.50 ×)", "–",
    ]  # fmt: skip


def test_a_median_is_shown_with_half_of_the_range_of_its_rounds() -> None:
    found = results({("one-at-a-time", OURS): [traffic(0.9), traffic(1.0), traffic(1.2)]})
    row = tables.workload_table(found, "one-at-a-time").splitlines()[2]
    assert [cell.strip() for cell in row.split("|")][3:5] == ["1.00 M ±14%", "1 µs ±15%"]


def test_a_cell_that_was_not_measured_cleanly_has_no_number() -> None:
    disturbed = traffic(1.0, disturbance=0.5)
    found = results(
        {("saturated-100", OURS): traffic(0.5), ("saturated-100", "redis"): [disturbed, disturbed]}
    )
    row = tables.workload_table(found, "saturated-100").splitlines()[-1]
    assert {cell.strip() for cell in row.split("|")[2:-1]} == {"– disturbed"}
    page = tables.report(found, requirements(found), FULL, {})
    assert (
        "disturbed: in at least half of the rounds, also when they were repeated, other work took more than 5%"
        in page
    )
    assert "overloaded:" not in page


def test_a_failure_and_a_busy_load_are_marked_and_explained() -> None:
    found = results(
        {
            ("saturated-100", OURS): traffic(load_cpu_s=0.95),
            ("saturated-100", "redis"): "gap: c00003 received a/2",
        }
    )
    page = tables.report(found, requirements(found), FULL, {"date": "2020-02-02"})
    assert "| geventchat †" in page
    assert "| Redis publish/subscribe ✗" in page
    assert "† The load generator used more than 90% of its core" in page
    assert "✗ saturated-100, Redis publish/subscribe: gap: c00003 received a/2" in page
    assert "- date: 2020-02-02" in page
    assert "| NOT MET" not in page


@pytest.fixture
def charts() -> ModuleType:
    pytest.importorskip("matplotlib", reason="the charts need matplotlib")
    return importlib.import_module("bench.charts")


def test_every_chart_is_drawn_and_equal_results_give_equal_files(charts: ModuleType, tmp_path: Path) -> None:
    everything = {(scale_key(n), key): traffic(1.0) for n in SCALE_CLIENTS for key in (OURS, "redis")}
    everything |= {(pace_key(rate), key): traffic(1.0) for rate in PACES for key in (OURS, "redis")}
    everything |= {("idle-8000", key): idle() for key in (OURS, "redis")}
    found = results({**everything})
    once, again = tmp_path / "once", tmp_path / "again"
    once.mkdir()
    again.mkdir()
    drawn = charts.draw(found, once)
    assert [path.name for path in drawn] == [
        "throughput.svg", "cost-by-clients.svg", "latency-by-load.svg", "memory-per-client.svg",
    ]  # fmt: skip
    for path in drawn:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in charts.draw(found, again):
        assert path.read_bytes() == (once / path.name).read_bytes()


def test_bars_are_labelled_as_in_the_tables_and_an_empty_one_with_its_reason(charts: ModuleType) -> None:
    # The rounds differ, and in the first the memory falls once all have logged in: neither may change only one of them.
    falling = {**idle(kb=9.0), "idle": {"seconds": 4.0, "server_cpu_s": 0.0, "rss_kb": 20_000 + 8000 * 8.1}}
    found = results(
        {
            ("idle-8000", OURS): [idle(kb=9.4), idle(kb=9.5), idle(kb=9.6)],
            ("idle-8000", "redis"): [falling, falling, idle(kb=9.9)],
            ("idle-8000", "threads"): "missing: 5471 of 8000 clients had no answer",
        }
    )
    figure = charts.memory(found)
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert labels == {"9.5 KB", "8.1 KB", "no result: failed"}
    table = tables.workload_table(found, "idle-8000")
    assert all(label.replace("no result:", "–") in table for label in labels)


def test_a_chart_without_results_is_not_drawn(charts: ModuleType, tmp_path: Path) -> None:
    assert charts.draw(results({("one-at-a-time", OURS): traffic()}), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_profile_is_summarised_by_function_and_by_line() -> None:
    raw = (
        "run (hub.py:1);flush (flusher.py:7) 30\nrun (hub.py:1);flush (flusher.py:9) 10\nrun (hub.py:1) 60\n"
    )
    lines = summary(raw).splitlines()
    assert lines[:3] == ["   60.0%  run (hub.py)", "   40.0%  flush (flusher.py)", "  by line:"]
    assert lines[3:] == [
        "   60.0%  run (hub.py:1)",
        "   30.0%  flush (flusher.py:7)",
        "   10.0%  flush (flusher.py:9)",
    ]
    assert summary("") == "  no samples"
