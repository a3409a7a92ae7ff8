"""Attacks on a real server with its default settings, in short forms: one client must not cost the others more than promised.

Every client of an attack is driven by one loop in this process; 127.0.0.0/8 provides as many addresses as an attack needs.
"""

from __future__ import annotations

import pytest

from geventchat import Limits
from tests.fire.attacks import wire
from tests.fire.attacks.bounds import worst_memory_bytes
from tests.fire.attacks.load import Client, Load, addresses, repeated
from tests.fire.attacks.target import Target

MIB = 1 << 20
MBIT_S = 125_000
LIMITS = Limits()


def logged_in(
    load: Load, target: Target, dialect: str, count: int, sources: list[str], prefix: str
) -> list[Client]:
    clients = load.connect_many(count, target.address(dialect), sources=sources)
    wire.log_in_all(load, clients, dialect, [f"{prefix}{number}" for number in range(count)])
    return clients


def test_the_memory_of_a_turn_does_not_grow_with_the_square_of_its_speakers():
    with Target() as target, Load() as load:
        clients = logged_in(load, target, "line", 300, addresses(300), "t")
        before = target.resident_bytes
        target.reset_peak()
        with target.stopped():
            for client in clients:
                client.send(wire.say("line", "x" * 4_085) * 16)
            load.run(0.5)
        load.run(5)
        # Each holds a chunk, a piece of it and an unfinished line, and has no contacts; the batches under way are shared.
        promised = worst_memory_bytes(LIMITS, 300, people=0, behind=0) + 4 * LIMITS.outgoing_bytes
        # On a busy machine the listeners are late, and what waits for them is not shared any more. The square would be
        # 300 times as much.
        assert target.peak_bytes - before < 2 * promised
        assert all(client.open for client in clients)


@pytest.mark.parametrize(
    "what", [b"\n", wire.say("line", "hello"), wire.ping("line"), wire.direct("line", "g0", "hi")]
)
def test_a_name_is_free_at_once_whatever_its_holder_has_pending(what: bytes):
    with Target() as target, Load() as load:
        ghosts = logged_in(load, target, "line", 200, addresses(20), "g")
        for ghost in ghosts:
            ghost.send(what * (65_536 // len(what)))
        load.run(1)
        for one, other in zip(ghosts[::2], ghosts[1::2], strict=True):
            one.reset()
            other.close()
        load.run(0.1)
        heirs = load.connect_many(6, target.address("line"), sources=addresses(6, first=100))
        wire.log_in_all(load, heirs, "line", ["g1", "g2", "g99", "g100", "g198", "g199"], within_s=5)
        assert all(heir.tail.startswith(b"OK\n") for heir in heirs)
        spent = target.cpu_s
        load.run(1)
        assert target.cpu_s - spent < 0.3, "the server still works for clients that have gone"


# Without the floor rate, and in the first without a limit for an address, all readers are disconnected after 1.7, 0.3, 6.8
# and 0.3 s.
@pytest.mark.parametrize(
    ("speakers", "sources", "dialect", "text", "seconds"),
    [
        (300, addresses(1), "line", "x" * 1_000, 5),
        (50, addresses(50), "line", "x" * 4_000, 3),
        (50, addresses(50), "json", "x", 9),
        (50, addresses(50), "json", wire.WIDE * 1_000, 3),
    ],
    ids=["300 of one address", "50 of 50 addresses", "tiny lines in json", "texts that grow in json"],
)
def test_speakers_do_not_disconnect_readers_that_keep_reading(
    speakers: int, sources: list[str], dialect: str, text: str, seconds: float
):
    with Target() as target, Load() as load:
        readers = logged_in(load, target, dialect, 10, addresses(10, first=300), "r")
        (stalled,) = logged_in(load, target, dialect, 1, addresses(1, first=400), "stalled")
        for reader in readers:
            reader.read_at(MBIT_S)
        stalled.read_nothing()
        for speaker in logged_in(load, target, dialect, speakers, sources, "t"):
            speaker.keep_sending(repeated(wire.say(dialect, text) * 8, 100_000))
        load.run(seconds)
        assert [reader.ended for reader in readers] == [""] * 10
        assert all(reader.received > 2 * 65_536 for reader in readers), "the room has fallen silent"
        assert target.logged("disconnected", reason="slow") <= 1


def test_a_reader_that_stops_is_dropped_at_the_limit():
    with Target() as target, Load() as load:
        (stalled,) = logged_in(load, target, "line", 1, addresses(1, first=400), "stalled")
        stalled.read_nothing()
        for speaker in logged_in(load, target, "line", 50, addresses(50), "t"):
            speaker.keep_sending(repeated(wire.say("line", "x" * 4_000) * 8, 100_000))
        load.wait(
            "the stalled reader is dropped", lambda: target.logged("disconnected", reason="slow") == 1, 60
        )


def test_readers_that_are_slow_in_two_dialects_do_not_silence_the_room():
    with Target() as target, Load() as load:
        for dialect in ("line", "slash"):
            (reader,) = logged_in(load, target, dialect, 1, addresses(1, first=500), f"slow-{dialect}-")
            reader.read_at(110_000)
        speakers = logged_in(load, target, "line", 200, addresses(40), "t")
        for speaker in speakers:
            speaker.keep_sending(repeated(wire.say("line", "x" * 100) * 40, 100_000))
        load.run(5)
        heard = speakers[0].received
        load.run(2)
        assert speakers[0].received - heard > 65_536, "no message is delivered any more"


def test_strangers_and_contacts_do_not_disconnect_whom_they_write_to():
    with Target() as target, Load() as load:
        (victim,) = logged_in(load, target, "json", 1, addresses(1, first=300), "victim")
        contacts = logged_in(load, target, "line", 8, addresses(8, first=310), "c")
        strangers = logged_in(load, target, "line", 8, addresses(8, first=320), "s")
        victim.send(b"".join(wire.direct("json", contact.name, "hello") for contact in contacts))
        load.run(0.5)
        victim.read_at(MBIT_S)
        for sender in contacts + strangers:
            sender.keep_sending(repeated(wire.direct("line", "victim0", "\x01" * 4_050), 100_000))
        # Without the floor rate, the victim is disconnected within one.
        load.run(4)
        assert victim.open
        assert victim.received > 65_536


def test_many_who_leave_at_once_do_not_disconnect_slow_readers():
    with Target() as target, Load() as load:
        readers = logged_in(load, target, "json", 3, addresses(3, first=300), "r")
        leavers = load.connect_many(500, target.address("line"), sources=addresses(1))
        wire.log_in_all(load, leavers, "line", [wire.wide_name(number) for number in range(500)])
        for reader in readers:
            reader.read_at(MBIT_S)
        for speaker in logged_in(load, target, "line", 20, addresses(20, first=310), "t"):
            speaker.keep_sending(repeated(wire.say("line", "x" * 4_000) * 4, 100_000))
        # Without the floor rate, the readers are disconnected within one.
        load.run(3)
        for leaver in leavers:
            leaver.reset()
        load.run(2)
        assert [reader.ended for reader in readers] == [""] * 3


def test_a_line_that_does_not_end_is_charged_like_any_other():
    with Target() as target, Load() as load:
        (client,) = logged_in(load, target, "json", 1, addresses(1), "t")
        client.keep_sending(repeated(b"x" * 65_536, 1 << 20))
        load.run(4)
        spent = target.cpu_s
        load.run(2)
        assert target.cpu_s - spent < 0.2
        assert client.open


def test_rosters_are_charged_to_those_who_ask():
    with Target() as target, Load() as load:
        clients = load.connect_many(300, target.address("json"), sources=addresses(1))
        wire.log_in_all(load, clients, "json", [wire.wide_name(number) for number in range(300)])
        load.run(1)
        before, received = target.resident_bytes, sum(client.received for client in clients)
        for client in clients:
            client.send(wire.who("json") * 64)
        load.run(4)
        answers = sum(client.received for client in clients) - received
        # The budget of the address, one roster more for each client that was answered, and four seconds of its rate.
        assert answers < MIB + 300 * 80_000 + 4 * 65_536
        assert target.peak_bytes - before < 64 * MIB


def test_a_client_that_is_behind_is_still_read():
    with Target("-t", "3") as target, Load() as load:
        (slow,) = logged_in(load, target, "line", 1, addresses(1, first=300), "slow")
        (listener,) = logged_in(load, target, "line", 1, addresses(1, first=301), "listener")
        slow.read_at(90_000)
        for speaker in logged_in(load, target, "line", 20, addresses(20), "t"):
            speaker.keep_sending(repeated(wire.say("line", "x" * 4_000) * 4, 100_000))
        for number in range(8):
            load.after(number, lambda: slow.send(wire.say("line", "still here")))
            load.after(number, lambda: listener.send(wire.ping("line")))
        load.run(8)
        assert slow.open, "disconnected as idle although it talks"


def test_a_server_that_stood_still_does_not_take_its_clients_for_idle():
    with Target("-t", "1") as target, Load() as load:
        clients = logged_in(load, target, "line", 5, addresses(5), "t")
        with target.stopped():
            load.run(1.5)
            for client in clients:
                client.send(wire.ping("line", "here"))
        load.run(0.5)
        assert all(client.open and b"PONG here" in client.tail for client in clients)


@pytest.mark.parametrize("dialect", ["line", "json", "slash"])
def test_a_client_has_to_log_in_in_time_whatever_it_sends(dialect: str):
    with Target("--login-timeout", "1", "-t", "0") as target, Load() as load:
        client = load.connect(target.address(dialect))
        for number in range(12):
            load.after(
                number / 10, lambda: client.open and client.send(b"/nonsense that is too long for a name\n")
            )
        load.wait("the deadline", lambda: target.logged("disconnected", reason="idle") == 1, 5)
        assert not client.open
