"""What a reader gets: tables, pictures, the summary of a profile."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from bench_results import idle, results, talk

from bench import tables
from bench.bars import bars
from bench.profiling import summary
from bench.workloads import FULL, PACES, SCALE_CLIENTS, pace_key, scale_key

OURS = "geventchat"


def test_a_table_has_each_figure_with_its_ratio_to_ours() -> None:
    found = results({("saturated-100", OURS): talk(0.5, 100.0), ("saturated-100", "redis"): talk(1.0, 50.0)})
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


def test_the_headline_has_a_row_for_each_server_with_its_ratio() -> None:
    found = results(
        {
            ("saturated-100", OURS): talk(0.5),
            ("saturated-100", "geventchat-bare"): talk(0.5),
            ("saturated-100", "uvloop"): talk(50.0),
            ("paced-500", OURS): talk(p99_us=1000.0),
            ("paced-500", "uvloop"): talk(p99_us=1500.0),
            ("idle-8000", OURS): idle(kb=9.5),
        }
    )
    _, _, ours, uvloop = tables.headline(found).splitlines()
    assert [cell.strip() for cell in ours.split("|")[1:-1]] == ["geventchat", "2.00 M", "1 ms", "9.5 KB"]
    assert [cell.strip() for cell in uvloop.split("|")[1:-1]] == [
        "asyncio on uvloop", "20.0 k (1/100)", "1.5 ms (1.50 ×)", "–",
    ]  # fmt: skip


def test_a_fault_and_a_busy_load_are_marked_and_explained() -> None:
    found = results(
        {("saturated-100", OURS): talk(load_cpu_s=0.95), ("saturated-100", "redis"): "gap: c00003 heard a/2"}
    )
    page = tables.report(found, bars(found), FULL, {"date": "2020-02-02"})
    assert "| geventchat †" in page
    assert "| Redis publish/subscribe ✗" in page
    assert "† The load's own core was more than 90% busy" in page
    assert "✗ saturated-100, Redis publish/subscribe: gap: c00003 heard a/2" in page
    assert "- date: 2020-02-02" in page
    assert "| NOT MET" not in page


@pytest.fixture
def pictures() -> ModuleType:
    pytest.importorskip("matplotlib", reason="the pictures of a result need matplotlib")
    return importlib.import_module("bench.pictures")


def test_every_picture_is_drawn_from_its_figures_and_twice_alike(
    pictures: ModuleType, tmp_path: Path
) -> None:
    everything = {(scale_key(n), key): talk(1.0) for n in SCALE_CLIENTS for key in (OURS, "redis")}
    everything |= {(pace_key(rate), key): talk(1.0) for rate in PACES for key in (OURS, "redis")}
    everything |= {("idle-8000", key): idle() for key in (OURS, "redis")}
    found = results({**everything})
    once, again = tmp_path / "once", tmp_path / "again"
    once.mkdir()
    again.mkdir()
    drawn = pictures.draw(found, once)
    assert [path.name for path in drawn] == [
        "throughput.svg", "cost-by-clients.svg", "latency-by-load.svg", "memory-by-clients.svg",
    ]  # fmt: skip
    for path in drawn:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in pictures.draw(found, again):
        assert path.read_bytes() == (once / path.name).read_bytes()


def test_what_was_not_measured_is_not_drawn(pictures: ModuleType, tmp_path: Path) -> None:
    assert pictures.draw(results({("one-at-a-time", OURS): talk()}), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_profile_is_told_by_function_and_by_line() -> None:
    raw = (
        "run (hub.py:1);flush (flusher.py:7) 30\nrun (hub.py:1);flush (flusher.py:9) 10\nrun (hub.py:1) 60\n"
    )
    told = summary(raw).splitlines()
    assert told[:3] == ["   60.0%  run (hub.py)", "   40.0%  flush (flusher.py)", "  by line:"]
    assert told[3:] == [
        "   60.0%  run (hub.py:1)",
        "   30.0%  flush (flusher.py:7)",
        "   10.0%  flush (flusher.py:9)",
    ]
    assert summary("") == "  no samples"
