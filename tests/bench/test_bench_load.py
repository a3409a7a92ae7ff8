"""The load generator accepts every compared server, and detects each kind of error in a wrong one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import compiler, load
from bench.load import Failure, Load
from bench.machine import choose_cores, pinned
from bench.servers import BY_KEY, OURS_BARE, READY, SERVERS, Server, started

SMALL = Load(8, senders=2, window=8, warm_s=0.02, seconds=0.1)
WRONG = Path(__file__).parent / "wrong_server.py"


def loaded(
    server: Server, options: Load, dialects: tuple[str, ...] | None = None
) -> dict[str, Any] | Failure:
    with started(server, dialects or server.dialects[:1], core=None) as running:
        return load.run(options, running.ports, running.process.pid, core=None, stop_server=running.stop)


def wrong(error: str, dialect: str = "line") -> Server:
    command = (sys.executable, str(WRONG), error, dialect)
    return Server("wrong", "a wrong server", command, READY, dialects=(dialect,))


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.key)
def test_each_server_delivers_in_full_and_in_order(server: Server) -> None:
    if server.missing:
        pytest.skip(f"{server.missing} is not installed")
    found = loaded(server, SMALL)
    assert isinstance(found, dict), found
    assert found["deliveries"] > 0
    assert found["verified"] >= found["deliveries"] >= found["messages"]
    assert found["server_cpu_s"] > 0
    assert found["latency"]["p50_us"] <= found["latency"]["p99_us"] <= found["latency"]["max_us"]


@pytest.mark.parametrize(
    "dialects", [("json",), ("slash",), ("line", "json", "slash"), ("web",), ("line", "web")], ids="+".join
)
def test_every_dialect_and_a_mix_of_them_is_verified(dialects: tuple[str, ...]) -> None:
    found = loaded(BY_KEY["geventchat"], SMALL, dialects)
    assert isinstance(found, dict), found
    # In json a sender receives its own messages: then more than the seven others.
    receivers = {("json",): 8, ("web",): 8, ("slash",): 7}.get(dialects, 7.5)
    assert found["verified"] > 0
    assert found["verified"] >= receivers * found["messages"]


@pytest.mark.parametrize("key", [server.key for server in SERVERS if server.tls and server.key != OURS_BARE])
def test_a_server_is_verified_over_tls(key: str) -> None:
    if not load.can_build_tls():
        pytest.skip("OpenSSL's headers are not installed")
    if BY_KEY[key].missing:
        pytest.skip(f"{BY_KEY[key].missing} is not installed")
    found = loaded(BY_KEY[key], SMALL, ("line+tls",))
    assert isinstance(found, dict), found
    assert found["verified"] / found["messages"] >= 7


def test_messages_are_expected_in_the_rooms_of_their_senders_alone() -> None:
    found = loaded(BY_KEY["geventchat"], replace(SMALL, clients=12, senders=4, rooms=3))
    assert isinstance(found, dict), found
    assert found["verified"] / found["messages"] >= 3


def test_a_message_in_another_room_is_detected() -> None:
    found = loaded(wrong("rooms"), replace(SMALL, clients=12, senders=4, rooms=3))
    assert isinstance(found, Failure)
    assert found.kind in ("gap", "duplicate", "corrupt")


def test_a_paced_run_sends_the_requested_rate() -> None:
    found = loaded(BY_KEY["asyncio"], Load(5, senders=2, rate=200, warm_s=0.05, seconds=0.5))
    assert isinstance(found, dict), found
    assert found["messages"] / found["wall_s"] == pytest.approx(200, rel=0.25)
    assert found["deliveries"] == pytest.approx(4 * found["messages"], abs=8)


def test_memory_of_idle_clients_and_the_cost_of_logins_are_measured() -> None:
    found = loaded(BY_KEY["asyncio"], Load(80, idle_s=0.1))
    assert isinstance(found, dict), found
    assert [step["connected"] for step in found["logins"]] == [10 * i for i in range(9)]
    assert found["logins"][-1]["server_cpu_s"] > found["logins"][1]["server_cpu_s"] > 0
    assert found["idle"]["rss_kb"] >= found["rss_before_kb"] > 0


def test_a_client_that_does_not_read_is_dropped_before_anything_is_measured() -> None:
    small_queue = (*BY_KEY["geventchat"].command, "--max-queue", "65536")
    server = replace(BY_KEY["geventchat"], command=small_queue)
    # The server looks for several seconds whether the client reads after all.
    found = loaded(server, Load(8, senders=4, window=64, warm_s=60, seconds=0.5, stalled=1))
    assert isinstance(found, dict), found
    assert 0 < found["stalled_dropped_s"] < 60
    assert 0.5 <= found["wall_s"] < 10


def test_a_client_that_is_not_dropped_during_the_warm_up_is_measured_as_such() -> None:
    found = loaded(BY_KEY["geventchat"], Load(8, senders=1, window=1, warm_s=0.02, seconds=0.1, stalled=1))
    assert isinstance(found, dict), found
    assert found["stalled_dropped_s"] is None


def test_other_work_on_the_core_of_the_server_is_measured() -> None:
    cores = choose_cores()
    if not cores.separate:
        pytest.skip("needs two cores")
    with pinned(cores.server):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with started(BY_KEY["asyncio"], ("line",), core=cores.server) as running:
            options = Load(8, senders=2, window=8, warm_s=0.02, seconds=0.3)
            pid = running.process.pid
            found = load.run(options, running.ports, pid, core=cores.load, stop_server=running.stop)
    finally:
        busy.kill()
        busy.wait()
    assert isinstance(found, dict), found
    # The two processes share the core, so the server waits for about half of the time.
    assert found["disturbance"] > 0.2


def test_without_cores_of_their_own_no_disturbance_is_reported() -> None:
    found = loaded(BY_KEY["asyncio"], SMALL)
    assert isinstance(found, dict), found
    assert "disturbance" not in found


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("right", None),
        ("drop", "gap"),
        ("reorder", "gap"),
        ("double", "duplicate"),
        ("garble", "corrupt"),
        ("cut", "corrupt"),
        ("crossed", "corrupt"),
        ("rename", "corrupt"),
        ("mute", "missing"),
        ("surplus", "unexpected"),
        ("close", "closed"),
        ("refuse", "refused"),
    ],
)
def test_a_wrong_server_has_no_result(error: str, kind: str | None) -> None:
    # Where nothing arrives, the run ends by its timeout.
    timeout_s = 0.4 if kind == "missing" else 5.0
    options = Load(8, senders=2, window=8, warm_s=0.02, seconds=0.1, timeout_s=timeout_s)
    found = loaded(wrong(error), options)
    assert (found.kind if isinstance(found, Failure) else None) == kind, found
    if isinstance(found, Failure) and kind not in ("missing", "refused"):
        assert "c00003" in found.detail


@pytest.mark.parametrize("error", ["right", "garble", "stamp", "tail"])
def test_every_byte_of_an_object_but_the_time_is_verified(error: str) -> None:
    options = Load(8, senders=2, window=8, warm_s=0.02, seconds=0.1)
    found = loaded(wrong(error, "json"), options)
    assert (found.kind if isinstance(found, Failure) else None) == (
        None if error == "right" else "corrupt"
    ), found


def test_the_load_generator_is_compiled_once_and_a_failure_to_compile_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load.build() == load.build()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(compiler.CompilationFailed, match="does not compile"):
        load.build()
    assert list((tmp_path / "geventchat-bench").iterdir()) == []
