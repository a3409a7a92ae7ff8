"""The load lets each of the compared servers pass, and finds out a wrong one by what is wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import load
from bench.load import Crowd, Fault
from bench.servers import BY_KEY, READY, SERVERS, Server, started

SMALL = Crowd(8, speakers=2, window=8, warm_s=0.02, seconds=0.1)
WRONG = Path(__file__).parent / "wrong_server.py"


def loaded(server: Server, crowd: Crowd, dialects: tuple[str, ...] | None = None) -> dict[str, Any] | Fault:
    with started(server, dialects or server.dialects[:1], core=None) as running:
        return load.run(crowd, running.ports, running.process.pid, core=None, end_server=running.end)


def wrong(way: str) -> Server:
    return Server("wrong", "a wrong server", (sys.executable, str(WRONG), way), READY)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.key)
def test_each_server_delivers_in_full_and_in_order(server: Server) -> None:
    if server.missing:
        pytest.skip(f"{server.missing} is not installed")
    found = loaded(server, SMALL)
    assert isinstance(found, dict), found
    assert found["deliveries"] > 0
    assert found["checked"] >= found["deliveries"] >= found["messages"]
    assert found["server_cpu_s"] > 0
    assert found["latency"]["p50_us"] <= found["latency"]["p99_us"] <= found["latency"]["max_us"]


@pytest.mark.parametrize("dialects", [("json",), ("slash",), ("line", "json", "slash")], ids="+".join)
def test_every_dialect_and_a_mixed_room_are_checked(dialects: tuple[str, ...]) -> None:
    found = loaded(BY_KEY["geventchat"], SMALL, dialects)
    assert isinstance(found, dict), found
    # In json a speaker hears its own words: then more than the seven others.
    listeners = {("json",): 8, ("slash",): 7, ("line", "json", "slash"): 7.5}[dialects]
    assert found["checked"] / found["messages"] >= listeners


def test_at_a_pace_what_is_said_is_what_was_asked_for() -> None:
    found = loaded(BY_KEY["asyncio"], Crowd(5, speakers=2, rate=200, warm_s=0.05, seconds=0.5))
    assert isinstance(found, dict), found
    assert found["messages"] / found["wall_s"] == pytest.approx(200, rel=0.25)
    assert found["deliveries"] == pytest.approx(4 * found["messages"], abs=8)


def test_idle_clients_are_weighed_and_logins_counted() -> None:
    found = loaded(BY_KEY["asyncio"], Crowd(80, idle_s=0.1))
    assert isinstance(found, dict), found
    assert [step["present"] for step in found["logins"]] == [10 * i for i in range(9)]
    assert found["logins"][-1]["server_cpu_s"] > found["logins"][1]["server_cpu_s"] > 0
    assert found["idle"]["rss_kb"] >= found["rss_before_kb"] > 0


def test_one_that_does_not_read_is_not_waited_for_and_seen_to_be_dropped() -> None:
    small_queue = (*BY_KEY["geventchat"].command, "--max-queue", "65536")
    server = replace(BY_KEY["geventchat"], command=small_queue)
    # The kernel keeps some megabytes for a socket before the server has anything to keep: say more than that, however
    # slow the machine is just now.
    for seconds in (0.5, 1.0, 2.0, 4.0, 8.0):
        crowd = Crowd(8, speakers=4, window=64, warm_s=0.02, seconds=seconds, stalled=1)
        found = loaded(server, crowd)
        assert isinstance(found, dict), found
        if found["messages"] * 60 > 6_000_000:
            break
    assert found["stalled_dropped"] is True


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("right", None),
        ("drop", "gap"),
        ("reorder", "gap"),
        ("double", "again"),
        ("garble", "garbled"),
        ("cut", "garbled"),
        ("crossed", "garbled"),
        ("rename", "garbled"),
        ("mute", "missing"),
        ("surplus", "surplus"),
        ("close", "closed"),
        ("refuse", "refused"),
    ],
)
def test_a_wrong_server_has_no_result(way: str, kind: str | None) -> None:
    # Only where nothing comes is its patience what ends it.
    patience_s = 0.4 if kind == "missing" else 5.0
    crowd = Crowd(8, speakers=2, window=8, warm_s=0.02, seconds=0.1, patience_s=patience_s)
    found = loaded(wrong(way), crowd)
    assert (found.kind if isinstance(found, Fault) else None) == kind, found
    if isinstance(found, Fault) and kind not in ("missing", "refused"):
        assert "c00003" in found.told


def test_the_load_is_compiled_once_and_says_why_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load.build() == load.build()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(load.LoadFailed, match="does not compile"):
        load.build()
    assert list((tmp_path / "geventchat-bench").iterdir()) == []
