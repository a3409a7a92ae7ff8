"""A server that runs out of memory: which clients it disconnects, and that it recovers."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from geventchat.clock import SystemClock
from geventchat.log import LogEvent, LogWriter
from geventchat.net.reserve import RESERVE_BYTES, MemoryReserve
from tests.fire.attacks import wire
from tests.fire.attacks.load import Load, addresses, repeated
from tests.fire.attacks.target import Target
from tests.fire.process import wait_for

MIB = 1 << 20
# The memory that the process can map beyond that after all logins.
ROOM_BYTES = 2 * MIB
TALKERS, READERS = 300, 50


def test_without_memory_clients_are_disconnected_one_by_one_and_with_memory_everyone_is_served_again():
    with Target() as target, Load() as load:
        unconnected = target.descriptors
        names = [wire.wide_name(number) for number in range(TALKERS)]
        talkers = load.connect_many(TALKERS, target.address("json"), sources=addresses(60))
        wire.log_in_all(load, talkers, "json", names)
        readers = load.connect_many(
            READERS, target.address("line"), sources=addresses(READERS, first=300), receive_buffer=4_096
        )
        wire.log_in_all(load, readers, "line", [f"r{number}" for number in range(READERS)])
        for reader in readers:
            reader.read_nothing()
        resource.prlimit(target.pid, resource.RLIMIT_AS, (target.mapped_bytes + ROOM_BYTES, -1))
        for number, talker in enumerate(talkers):
            if number % 3 == 0:
                talker.keep_sending(repeated(wire.say("json", "x" * 4_000) * 4, 1_000))
            elif number % 3 == 1:
                talker.keep_sending(repeated(wire.who("json") * 8, 1_000))
                talker.read_nothing()
            else:
                flood = wire.direct("json", f"r{number % READERS}", "\x01" * 600) * 4
                talker.keep_sending(repeated(flood, 1_000))
        load.run(4)
        assert target.alive
        assert target.logged("disconnected", reason="fault") > 10, "memory was never short"
        assert "MemoryError" in target.log()
        assert any(client.open for client in talkers), "the lack of one ended the connections of all"

        resource.prlimit(target.pid, resource.RLIMIT_AS, (-1, -1))
        for client in talkers + readers:
            # A client that does not read does not notice the end either.
            client.stop_sending()
            client.read_everything()
        load.wait(
            "only connections hold descriptors",
            lambda: target.descriptors - unconnected == sum(client.open for client in talkers + readers),
            within_s=30,
        )
        for client in talkers + readers:
            client.reset()
        wait_for("everyone is forgotten", lambda: target.descriptors == unconnected)
        heirs = load.connect_many(TALKERS, target.address("json"), sources=addresses(60, first=900))
        wire.log_in_all(load, heirs, "json", names)
        heirs[0].send(wire.say("json", "we are back"))
        load.wait("everyone hears it", lambda: all(b"we are back" in heir.tail for heir in heirs))
        assert target.log().count("MemoryError") < 2 * TALKERS


def test_the_reserve_is_spent_once_and_set_aside_again():
    reserve = MemoryReserve()
    assert len(reserve._held) == RESERVE_BYTES
    assert not reserve.is_spent
    reserve.spend()
    reserve.spend()
    assert reserve.is_spent
    assert reserve._held.closed
    assert reserve.refill()
    assert len(reserve._held) == RESERVE_BYTES
    assert not reserve.is_spent


def test_the_thread_that_writes_the_log_outlives_a_lack_of_memory(tmp_path: Path):
    left = [MemoryError("planted")] * 3

    class Starved(LogWriter):
        def _line(self, record):
            if left:
                raise left.pop()
            return super()._line(record)

    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Starved(file.fileno(), "text", "info", SystemClock())
        for number in range(5):
            log(LogEvent.LOGIN, conn=number)
        wait_for("the lack of memory is over", lambda: not left)
        assert log.close(20)
    assert [line.split()[-1] for line in path.read_text().splitlines()] == [f"conn={n}" for n in range(5)]


def test_an_event_lost_for_want_of_memory_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = LogWriter(file.fileno(), "text", "info", SystemClock())
        monkeypatch.setattr(log, "_append", lambda item: False)
        log(LogEvent.LOGIN, conn=1)
        monkeypatch.undo()
        log(LogEvent.LOGIN, conn=2)
        assert log.close(20)
    lines = path.read_text().splitlines()
    assert [" ".join(line.split()[2:]) for line in lines] == ["log-lost events=1", "login conn=2"]
