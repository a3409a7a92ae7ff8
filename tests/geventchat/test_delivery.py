"""Delivery: shared bytes, holes, backlogs, gates and failures, one behaviour at a time.

`test_delivery_properties.py` compares whole histories with a model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import gevent
import pytest

from geventchat.chat.chat import Chat
from geventchat.chat.commands import EnterRoom, Login, Say
from geventchat.chat.events import Invited
from geventchat.chat.names import Name
from geventchat.chat.results import DONE
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.clock import SystemClock
from geventchat.dialects import DIALECTS
from geventchat.dialects.framing import LineFraming
from geventchat.net import delivery as delivery_module
from geventchat.net.delivery import (
    _FLOOR_BURST_S,
    _PROBE_INTERVAL_S,
    _PROBE_S,
    _RETRY_S,
    Audience,
    Batch,
    Delivery,
    Encoding,
    Subscriber,
)
from geventchat.net.waiter import CloseReason
from geventchat.settings import Limits
from tests.geventchat.delivery_world import (
    LIMITS,
    PRESENCE_S_PER_MEMBER,
    Client,
    SimulatedSocket,
    World,
    in_world,
)
from tests.geventchat.recording import at_once, memory, tools

ROOMY = replace(LIMITS, queue_bytes=100_000, outgoing_bytes=100_000, floor_bytes_per_s=0)


def members(world: World, count: int, dialect: str = "line", free_bytes: int = 10**9) -> list[Client]:
    joined = [world.member(dialect, free_bytes) for _ in range(count)]
    world.flush()
    return joined


def backlog(client: Client) -> list[Any]:
    return list(client.subscriber._backlog or ())


def kept_by(clients: list[Client]) -> int:
    """How many bytes all these backlogs keep in memory together."""
    pieces = [piece for client in clients for piece in backlog(client)]
    wholes = {id(piece.obj): len(piece.obj) for piece in pieces if isinstance(piece, memoryview)}
    return sum(wholes.values()) + sum(len(piece) for piece in pieces if not isinstance(piece, memoryview))


# --- Sends -----------------------------------------------------------------------------------------------------------


def test_members_in_sync_are_sent_the_very_same_bytes():
    def body(world: World) -> None:
        sent: list[bytes] = []
        talker, *others = members(world, 4)
        for other in others:
            world.audiences["line"].in_sync[other.subscriber] = lambda data: sent.append(data) or len(data)
        world.say(talker, "one")
        world.say(talker, "two")
        world.flush()
        assert sent == [b"MSG p0 one\nMSG p0 two\n"] * 3
        assert sent[0] is sent[1] is sent[2]

    in_world(body)


def test_what_a_dialect_does_not_show_costs_its_recipient_no_send():
    def body(world: World) -> None:
        (member,) = members(world, 1, "json")
        member.subscriber.deliver_direct(Invited("dev", "alice", 0), stranger=True)
        member.subscriber.deliver(Invited("dev", "alice", 0))
        assert not member.subscriber.spliced
        world.flush()
        world.check()

    in_world(body)


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_each_member_gets_one_send_however_many_messages_a_batch_has(speakers: int):
    def body(world: World) -> None:
        everyone = members(world, 5)
        before = [client.socket.sends for client in everyone]
        for number in range(50):
            world.say(everyone[number % speakers], f"{number}")
        world.flush()
        sends = [client.socket.sends - count for client, count in zip(everyone, before, strict=True)]
        # A single speaker has nothing to receive.
        assert sends == [0 if speakers == 1 else 1, 1, 1, 1, 1]
        world.check()

    in_world(body, ROOMY)


def test_a_flood_is_held_back_for_a_bounded_number_of_polls_and_talk_is_not():
    def body(world: World) -> None:
        talker, *_ = members(world, 33)

        def polls_for(text: str) -> int:
            world.say(talker, text)
            polls, timer = 0, world.delivery._poll_timer

            class CountingTimer:
                def start(self, callback: Callable[[], None]) -> None:
                    nonlocal polls
                    polls += 1
                    timer.start(callback)

            world.delivery._poll_timer = CountingTimer()
            world.flush()
            world.delivery._poll_timer = timer
            world.check()
            return polls

        assert polls_for("x" * 5000) == 0, "the first flood has nothing to wait for"
        assert polls_for("x" * 4000) == 4, (
            "one poll for eight members, while the batch is smaller than the last"
        )
        assert polls_for("x" * 4000) == 0, "as much as before is enough"
        assert polls_for("x" * 100) == 0, "talk goes out at once"

    in_world(body, ROOMY)


def test_a_full_batch_is_sent_without_another_poll():
    def body(world: World) -> None:
        talker, *_ = members(world, 33)
        world.say(talker, "x" * 5000)
        world.flush()
        world.say(talker, "x" * 4000)
        world.delivery.outgoing_bytes = 4000
        world.delivery._poll_timer = None
        world.flush()
        world.check()

    in_world(body, ROOMY)


def test_a_batch_is_sent_by_a_real_loop_too():
    delivery = Delivery(gevent.get_hub(), SystemClock(), Limits())
    socket = SimulatedSocket(0)
    subscriber = Subscriber(
        socket, Encoding(DIALECTS["line"], LineFraming), delivery, lambda reason, error: None
    )
    chat = Chat(
        lambda: 0.0,
        new_gate=delivery.new_gate,
        storage=memory(),
        in_thread=at_once,
        tools=tools(),
        announce_later=lambda room: None,
        limits=Limits().chat,
    )
    chat.handle(Session(subscriber), Login("alice"))
    assert not socket.taken
    gevent.idle()
    assert bytes(socket.taken) == b"OK\n"


# --- The queue -------------------------------------------------------------------------------------------------------


def test_a_client_is_dropped_at_the_queue_limit_without_affecting_others():
    def body(world: World) -> None:
        talker, other = members(world, 2)
        slow = world.member(free_bytes=3)
        world.flush()
        number = 0
        while slow.lost is None:
            assert number < 200
            world.say(talker, f"{number:03d}")
            world.flush()
            number += 1
            assert other.socket.taken == other.expected
            world.check()
        assert slow.lost is CloseReason.SLOW
        assert len(slow.expected) - 3 > LIMITS.queue_bytes
        assert slow.subscriber.backlog_bytes == 0
        assert other.socket.taken.endswith(b"INFO p2 disconnected\n")
        world.check_end()

    in_world(body, replace(LIMITS, floor_bytes_per_s=0))


@pytest.mark.parametrize("free_bytes", [0, 5])
def test_the_queue_limit_holds_when_nothing_is_queued(free_bytes: int):
    def body(world: World) -> None:
        talker, slow = members(world, 2)
        slow.socket.free_bytes = free_bytes
        world.say(talker, "x" * (LIMITS.queue_bytes + free_bytes - len("MSG p0 \n")))
        world.flush()
        assert slow.lost is None
        assert slow.subscriber.backlog_bytes == LIMITS.queue_bytes
        world.free_space(slow, 10**9)
        slow.socket.free_bytes = free_bytes
        world.say(talker, "x" * (LIMITS.queue_bytes + free_bytes - len("MSG p0 \n") + 1))
        world.flush()
        assert slow.lost is CloseReason.SLOW
        world.check_end()

    in_world(body)


def test_an_answer_larger_than_the_queue_is_sent_and_leaves_the_queue_to_others():
    def body(world: World) -> None:
        requester, talker, *_ = members(world, 200)
        requester.socket.free_bytes = 10
        world.who(requester)
        world.flush()
        roster = len("".join(f"USER p{number}\n" for number in range(200)))
        assert requester.subscriber.backlog_bytes == roster - 10 > LIMITS.queue_bytes
        said = 0
        while requester.lost is None:
            world.say(talker, "x" * 93)
            said += len("MSG p1 " + "x" * 93 + "\n")
            world.flush()
            assert (requester.lost is not None) == (said > LIMITS.queue_bytes)
        assert requester.lost is CloseReason.SLOW
        world.check()

    in_world(body, replace(LIMITS, floor_bytes_per_s=0))


def test_an_answer_larger_than_the_queue_arrives_whole():
    def body(world: World) -> None:
        requester, *_ = members(world, 200)
        requester.socket.free_bytes = 10
        world.who(requester)
        world.flush()
        while not requester.subscriber.all_sent:
            assert requester.lost is None
            world.free_space(requester, 100)
            world.check()
        assert requester.socket.taken == requester.expected
        assert requester.subscriber.unsent_answer_bytes == 0

    in_world(body)


def test_what_waits_is_never_more_than_the_queue_and_the_answers():
    def body(world: World) -> None:
        requester, talker, *_ = members(world, 200)
        requester.socket.free_bytes = 10
        world.who(requester)
        world.flush()
        answer = requester.subscriber.unsent_answer_bytes
        # Nearly all of the answer has been sent; until all of it has, it leaves its place to what others say.
        world.free_space(requester, answer - 100)
        most = 0
        while requester.lost is None:
            most = max(most, requester.subscriber.backlog_bytes)
            world.say(talker, "x" * 93)
            world.flush()
        assert LIMITS.queue_bytes < most <= LIMITS.queue_bytes + answer
        world.check()

    in_world(body, replace(LIMITS, floor_bytes_per_s=0))


def test_thousands_of_tiny_answers_become_one_buffer():
    def body(world: World) -> None:
        (client,) = members(world, 1)
        client.socket.free_bytes = 0
        for _ in range(5_000):
            world.ping(client, "x")
        assert len(client.subscriber._pieces) == 1
        world.flush()
        assert len(backlog(client)) == 1
        assert kept_by([client]) == client.subscriber.backlog_bytes == 5_000 * len("PONG x\n")
        world.check_end()

    in_world(body)


def test_consecutive_messages_of_one_speaker_make_one_hole():
    def body(world: World) -> None:
        talker, other = members(world, 2)
        for number in range(100):
            world.say(talker, f"{number}")
        assert len(talker.subscriber._pieces) == 0
        world.say(other, "in between")
        world.say(talker, "again")
        assert len(talker.subscriber._pieces) == 1
        world.flush()
        assert talker.socket.taken == talker.expected
        world.check_end()

    in_world(body, ROOMY)


# --- Rooms -----------------------------------------------------------------------------------------------------------


def go(world: World, client: Client, room: str) -> None:
    """Enter a room, or the lobby again. The model knows only the lobby."""
    assert world.chat.handle(client.session, EnterRoom(room)) is DONE


def say(world: World, client: Client, text: str) -> None:
    assert world.chat.handle(client.session, Say([text])) is DONE


def taken(client: Client) -> str:
    data = bytes(client.socket.taken).decode()
    client.socket.taken.clear()
    return data


def test_a_client_that_changes_rooms_in_the_middle_of_a_batch_hears_each_room_while_it_is_there():
    def body(world: World) -> None:
        ann, bob, cid = members(world, 3)
        go(world, cid, "dev")
        world.flush()
        for client in (ann, bob, cid):
            taken(client)
        say(world, ann, "one")
        say(world, cid, "too early")
        go(world, bob, "dev")
        say(world, ann, "too late")
        say(world, cid, "two")
        say(world, bob, "three")
        say(world, cid, "four")
        go(world, bob, "lobby")
        say(world, ann, "five")
        say(world, cid, "too late")
        world.flush()
        assert taken(bob) == "MSG p0 one\nOK\nMSG p2 two\nMSG p2 four\nOK\nMSG p0 five\n"
        assert taken(ann) == "INFO p1 left\n"
        assert taken(cid) == "MSG p1 three\nINFO p1 left\n"
        assert bob.subscriber in world.audiences["line"].in_sync

    in_world(body, ROOMY)


def test_what_a_client_hears_while_it_is_behind_keeps_its_order_across_rooms():
    def body(world: World) -> None:
        ann, bob, cid = members(world, 3)
        go(world, cid, "dev")
        world.flush()
        taken(bob)
        bob.socket.free_bytes = 0
        for round_ in range(5):
            say(world, ann, f"lobby {round_}")
            world.flush()
            go(world, bob, "dev")
            say(world, cid, f"dev {round_}")
            world.flush()
            go(world, bob, "lobby")
        world.flush()
        assert taken(bob) == ""
        world.free_space(bob, 10**9)
        expected = "".join(f"MSG p0 lobby {n}\nOK\nMSG p2 dev {n}\nOK\n" for n in range(5))
        assert taken(bob) == expected
        assert not bob.subscriber.backlog_bytes

    in_world(body, ROOMY)


def test_an_audience_exists_while_it_has_members():
    def body(world: World) -> None:
        ann, _bob = members(world, 2)
        assert len(world.delivery._audiences) == 1
        go(world, ann, "dev")
        dev = world.chat.rooms.find("dev")
        assert dev is not None
        assert len(world.delivery._audiences) == 2
        assert len(dev._audiences) == 1
        say(world, ann, "to an empty room")
        go(world, ann, "lobby")
        assert len(world.delivery._audiences) == 1
        assert not dev._audiences
        world.flush()
        assert not world.delivery._changed

    in_world(body, ROOMY)


def test_a_slow_reader_that_changes_rooms_slows_the_room_it_is_in():
    def body(world: World) -> None:
        ann, slow, cid = members(world, 3)
        go(world, cid, "dev")
        world.flush()
        slow.socket.free_bytes = 0
        say(world, ann, "x" * 400)
        world.flush()
        lobby, dev = world.audiences["line"], cid.subscriber.audience
        assert dev is not None
        assert slow.subscriber.reads_slowly
        assert (lobby.slow_readers, dev.slow_readers) == (1, 0)
        go(world, slow, "dev")
        assert (lobby.slow_readers, dev.slow_readers) == (0, 1)
        world.free_space(slow, 10**9)
        assert (lobby.slow_readers, dev.slow_readers) == (0, 0)

    in_world(body)


def test_a_departure_from_a_full_room_waits_without_holding_up_another_room():
    def body(world: World) -> None:
        ann, bob, cid, dora = members(world, 4)
        go(world, cid, "dev")
        go(world, dora, "dev")
        world.flush()
        for client in (ann, cid):
            taken(client)
        say(world, ann, "x" * 300)
        # The lobby's batch is full, the other room's is not.
        world.chat.leave(bob.session)
        world.chat.leave(dora.session)
        assert list(world.chat.lobby._departures)
        world.flush()
        assert taken(ann) == "INFO p1 disconnected\n"
        assert taken(cid) == "INFO p3 disconnected\n"

    in_world(body)


class ManyRooms:
    """Clients in many rooms, each in all but another two, so that no two have one audience; and someone at each gate."""

    ROOMS = 20
    CLIENTS = 60

    def __init__(self, world: World) -> None:
        self.world = world
        keys = [f"r{number}" for number in range(self.ROOMS)]
        self.rooms = [room for key in keys if (room := world.chat.rooms.create(Name(key, key))) is not None]
        self.sockets = [SimulatedSocket(10_000 + number) for number in range(self.CLIENTS)]
        self.subscribers = [
            Subscriber(socket, world.encodings["line"], world.delivery, lambda reason, error: None)
            for socket in self.sockets
        ]
        for subscriber, missing in zip(self.subscribers, combinations(self.rooms, 2), strict=False):
            subscriber.hear(frozenset(self.rooms).difference(missing))
        self.waiting: list[Room] = []
        self.passed: list[Room] = []

    def say(self) -> None:
        for room in self.rooms:
            room.say(Name("ann", "ann"), [LINE], None, 0)

    def stop_reading(self, sockets: list[SimulatedSocket]) -> None:
        """Have these clients fall behind, until all speakers have to wait for them."""
        for socket in sockets:
            socket.free_bytes = 0
        for _ in range(10):
            self.say()
            self.world.flush()
        assert sum(one.reads_slowly for one in self.subscribers) == len(sockets)

    def wait_at_the_gates(self) -> None:
        self.waiting = [room for room in self.rooms if not room.gate.is_open()]
        assert len(self.waiting) >= self.ROOMS - 2
        for room in self.waiting:
            gevent.spawn(self._wait, room)
        self.world.flush()
        assert not self.passed

    def until_passed(self, watcher: Any) -> None:
        self.world.time.hub.wait(watcher)

    def asked_during(self, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
        """How often an audience is asked for its delay until everything is sent."""
        asked = 0
        delay_s = Audience.delay_s

        def counted(audience: Audience) -> float:
            nonlocal asked
            asked += 1
            return delay_s(audience)

        with monkeypatch.context() as patch:
            patch.setattr(Audience, "delay_s", counted)
            action()
            self.world.flush()
        return asked

    def leave(self) -> None:
        for subscriber in self.subscribers:
            subscriber.close()
            subscriber.hear(None)
        self.world.advance(120)
        assert sorted(map(id, self.passed)) == sorted(map(id, self.waiting))

    def _wait(self, room: Room) -> None:
        with room.gate.passage(self, "an address"):
            self.passed.append(room)


def test_an_audience_that_delays_nobody_is_not_asked_for_its_delay(monkeypatch: pytest.MonkeyPatch):
    def body(world: World) -> None:
        many = ManyRooms(world)
        many.stop_reading(many.sockets[:1])
        many.wait_at_the_gates()
        assert many.asked_during(many.say, monkeypatch) <= 5 * ManyRooms.ROOMS
        many.leave()

    in_world(body, SLOW)


@pytest.mark.parametrize("end", ["catch up", "leave"])
def test_readers_that_no_longer_delay_speakers_have_each_gate_check_its_delay_once(
    monkeypatch: pytest.MonkeyPatch, end: str
):
    def body(world: World) -> None:
        many = ManyRooms(world)
        many.stop_reading(many.sockets)
        many.wait_at_the_gates()

        def catch_up() -> None:
            for socket in many.sockets[1:]:
                socket.free_bytes = 10**9
                world.time.hub.loop.run_callback(world.writers[socket.fileno()].fire)

        def leave() -> None:
            for subscriber in many.subscribers[1:]:
                subscriber.close()
                subscriber.hear(None)

        asked = many.asked_during(catch_up if end == "catch up" else leave, monkeypatch)
        assert asked <= 5 * ManyRooms.ROOMS * ManyRooms.CLIENTS
        assert all(
            subscriber.audience is None or not subscriber.reads_slowly for subscriber in many.subscribers[1:]
        )
        many.leave()

    in_world(body, SLOW)


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_stalled_readers_share_one_batch():
    def body(world: World) -> None:
        talker, *stalled = members(world, 101)
        for client in stalled:
            client.socket.free_bytes = 7
        for number in range(50):
            world.say(talker, f"{number:02d}" + "x" * 96)
        world.flush()
        assert all(client.subscriber.backlog_bytes > 4_900 for client in stalled)
        assert kept_by(stalled) == 50 * len(f"MSG p0 00{'x' * 96}\n")
        world.check_end()

    in_world(body, ROOMY)


def test_a_stalled_speaker_shares_all_but_its_own_messages():
    def body(world: World) -> None:
        talker, other, *stalled = members(world, 5)
        for client in (talker, *stalled):
            client.socket.free_bytes = 0
        for number in range(10):
            world.say(other, f"{number}" + "x" * 100)
        world.say(talker, "mine")
        world.say(other, "y")
        world.flush()
        first, second = backlog(talker)
        (whole,) = backlog(stalled[0])
        assert first.obj is whole.obj, "most of the batch is shared"
        assert type(second) is bytearray, "little of it is copied"
        assert len(first) + len(second) == len(whole) - len("MSG p0 mine\n")
        world.check_end()

    in_world(body, ROOMY)


def test_slices_of_less_than_half_a_batch_are_copied():
    def body(world: World) -> None:
        talker, other = members(world, 2)
        talker.socket.free_bytes = 0
        for _ in range(20):
            world.say(other, "x" * 300)
            world.say(talker, "y" * 300)
        world.flush()
        assert [type(piece) for piece in backlog(talker)] == [bytes] * 20
        assert kept_by([talker]) == talker.subscriber.backlog_bytes
        world.check_end()

    in_world(body, ROOMY)


def test_the_rest_of_a_batch_is_copied_once_more_than_half_of_it_is_sent():
    def body(world: World) -> None:
        talker, slow = members(world, 2)
        slow.socket.free_bytes = 0
        world.say(talker, "x" * 1_000)
        world.flush()
        (whole,) = backlog(slow)
        for free_bytes, copied in ((400, False), (200, True)):
            world.free_space(slow, free_bytes)
            (rest,) = backlog(slow)
            assert isinstance(rest, bytes) == copied
            assert kept_by([slow]) <= 2 * slow.subscriber.backlog_bytes
        assert len(rest) == len(whole) - 600
        world.check_end()

    in_world(body, ROOMY)


@pytest.mark.parametrize("turns", [1, 1_000])
def test_tiny_pieces_do_not_cost_more_than_they_contain(turns: int):
    def body(world: World) -> None:
        talker, other = members(world, 2)
        talker.socket.free_bytes = 0
        for number in range(1_000):
            world.say(other, "x")
            world.ping(talker, "y")
            if number < turns:
                world.flush()
            world.say(talker, "z")
        world.flush()
        pieces = backlog(talker)
        kept = sum(sys.getsizeof(piece) + 8 for piece in pieces)
        assert kept < 2 * talker.subscriber.backlog_bytes
        world.free_space(talker, 10**9)
        world.check_end()

    in_world(body, replace(ROOMY, outgoing_bytes=10**6))


def test_tiny_batches_that_wait_for_one_client_do_not_cost_more_than_three_times_their_bytes():
    def body(world: World) -> None:
        talker, stalled = members(world, 2, "slash")
        stalled.socket.free_bytes = 0
        for size in (1, 25, 40):
            before = sum(sys.getsizeof(piece) + 8 for piece in backlog(stalled))
            bytes_before = stalled.subscriber.backlog_bytes
            for _ in range(500):
                world.say(talker, "z" * size)
                world.flush()
            kept = sum(sys.getsizeof(piece) + 8 for piece in backlog(stalled)) - before
            assert kept < 3 * (stalled.subscriber.backlog_bytes - bytes_before)
        world.free_space(stalled, 10**9)
        world.check_end()

    in_world(body, ROOMY)


# --- Failures --------------------------------------------------------------------------------------------------------


def chat_goes_on(world: World, clients: list[Client]) -> None:
    """Check that all remaining clients receive everything."""
    world.say(clients[0], "still here")
    world.flush()
    world.check()
    for client in clients:
        assert client.socket.taken == client.expected
    world.check_end()


@pytest.mark.parametrize("error", [MemoryError("planted"), ZeroDivisionError("planted"), OSError("planted")])
@pytest.mark.parametrize("spliced", [False, True], ids=["in sync", "spliced"])
@pytest.mark.parametrize("free_bytes", [10**9, 0], ids=["sending", "backlogged"])
def test_a_send_that_fails_ends_only_that_client(error: Exception, spliced: bool, free_bytes: int):
    def body(world: World) -> None:
        talker, failing, *others = members(world, 6)
        failing.socket.free_bytes = free_bytes
        if not free_bytes:
            world.say(talker, "first")
            world.flush()
        failing.socket.error = error
        if spliced:
            world.ping(failing)
        world.say(talker, "second")
        world.flush()
        if not free_bytes:
            failing.socket.free_bytes = 1
            world.free_space(failing, 1)
        if isinstance(error, OSError):
            assert (failing.lost, failing.lost_error) == (CloseReason.RESET, "")
        else:
            assert failing.lost is CloseReason.FAULT
            assert "planted" in failing.lost_error
            assert "Traceback" in failing.lost_error
        chat_goes_on(world, [talker, *others])

    in_world(body, ROOMY)


def test_a_lack_of_memory_for_one_clients_backlog_ends_only_that_client(monkeypatch: pytest.MonkeyPatch):
    own_or_shared = delivery_module._own_or_shared

    def body(world: World) -> None:
        talker, failing, *others = members(world, 6)
        failing.socket.free_bytes = others[0].socket.free_bytes = 100
        fail_for = len("MSG p0 " + "x" * 500 + "\n") - 100
        left = iter([MemoryError("planted")])

        def starved(data: Any) -> Any:
            if len(data) == fail_for and (error := next(left, None)):
                raise error
            return own_or_shared(data)

        monkeypatch.setattr(delivery_module, "_own_or_shared", starved)
        world.say(talker, "x" * 500)
        world.flush()
        assert failing.lost is CloseReason.FAULT
        assert others[0].lost is None
        world.free_space(others[0], 10**9)
        chat_goes_on(world, [talker, *others])

    in_world(body, ROOMY)


def test_a_lack_of_memory_for_the_whole_batch_delays_it_and_loses_nothing(monkeypatch: pytest.MonkeyPatch):
    joined = Batch.joined
    failures = [MemoryError(), MemoryError()]

    def starved(self: Batch) -> bytes:
        if self.frames[0].startswith(b"{") and failures:
            raise failures.pop()
        return joined(self)

    def body(world: World) -> None:
        everyone = [*members(world, 2), *members(world, 2, "json"), *members(world, 2, "slash")]
        monkeypatch.setattr(Batch, "joined", starved)
        before = [bytes(client.socket.taken) for client in everyone]
        world.say(everyone[0], "one")
        world.flush()
        assert [bytes(client.socket.taken) for client in everyone] == before
        assert len(failures) == 1
        world.advance(_RETRY_S)
        assert not failures
        # Messages that come meanwhile belong to the same batch.
        world.say(everyone[2], "two")
        world.ping(everyone[4])
        world.advance(_RETRY_S)
        assert all(client.socket.taken == client.expected for client in everyone)
        chat_goes_on(world, everyone)

    in_world(body, ROOMY)


def test_a_client_that_fails_is_reported_once():
    def body(world: World) -> None:
        talker, failing = members(world, 2)
        failing.socket.error = MemoryError("planted")
        world.say(talker, "one")
        world.ping(failing)
        world.say(talker, "two")
        world.flush()
        # `Client` asserts that it is lost only once.
        assert failing.lost is CloseReason.FAULT
        failing.subscriber.connection_lost(CloseReason.SLOW, "")
        failing.subscriber.close()
        assert failing.lost is CloseReason.FAULT

    in_world(body)


# --- Slow readers ----------------------------------------------------------------------------------------------------

SLOW = replace(LIMITS, queue_bytes=40_000, outgoing_bytes=5_000, floor_bytes_per_s=1_000)
LINE = "x" * 92
LINE_BYTES = len(f"MSG p0 {LINE}\n")


def fall_behind(world: World, talker: Client, slow: Client) -> None:
    """Say as much as makes a client that takes nothing fall behind."""
    while not slow.subscriber.reads_slowly:
        assert world.say(talker, LINE)
        world.flush()


def say_for(world: World, talker: Client, seconds: float) -> int:
    """Say as much as the gate admits in this time, without a pause; the bytes that were sent."""
    end_s = world.time.now_s + seconds
    said = 0
    while world.time.now_s < end_s:
        if talker.waiting is None:
            world.say(talker, LINE)
            said += LINE_BYTES
        world.flush()
        if talker.waiting is not None:
            world.advance(0.01)
        assert said < 200 * SLOW.floor_bytes_per_s
    return said


def test_speakers_are_slowed_down_to_a_slow_readers_rate_and_it_is_not_dropped():
    def body(world: World) -> None:
        talker, slow, other = members(world, 3)
        slow.socket.free_bytes = 0
        fall_behind(world, talker, slow)
        began, said, read = world.time.now_s, 0, 0
        while world.time.now_s - began < 30:
            said += say_for(world, talker, 0.1)
            # A little faster than the floor rate; exactly as fast could be measured as slower.
            world.free_space(slow, 120)
            read += 120
            world.check()
        assert slow.lost is None
        assert abs(said - read) < SLOW.floor_bytes_per_s
        assert slow.subscriber.backlog_bytes < SLOW.queue_bytes / 2
        assert other.socket.taken == other.expected
        world.check_end()

    in_world(body, SLOW)


def test_a_slow_reader_that_has_left_does_not_slow_speakers():
    def body(world: World) -> None:
        talker, slow = members(world, 2)
        slow.socket.free_bytes = 0
        fall_behind(world, talker, slow)
        for _ in range(10):
            world.say(talker, LINE)
            world.flush()
        assert talker.waiting is not None
        # Its pending bytes are still sent if it reads.
        world.leave(slow)
        world.flush()
        assert talker.waiting is None
        for _ in range(100):
            assert world.say(talker, LINE)
            world.flush()
        world.free_space(slow, 10**9)
        assert slow.socket.taken == slow.expected
        world.check_end()

    in_world(body, SLOW)


def test_a_reader_that_stands_still_slows_speakers_only_until_that_is_seen():
    def body(world: World) -> None:
        talker, stalled = members(world, 2)
        stalled.socket.free_bytes = 0
        fall_behind(world, talker, stalled)
        said = say_for(world, talker, _PROBE_S - 0.1)
        assert said <= SLOW.floor_bytes_per_s * (_PROBE_S + _FLOOR_BURST_S) + LINE_BYTES
        world.advance(_PROBE_S / 2)
        assert not stalled.subscriber.reads_slowly
        while stalled.lost is None:
            assert world.say(talker, LINE), "a reader that stands still is waited for"
            world.flush()
        assert stalled.lost is CloseReason.SLOW
        world.check_end()

    in_world(body, SLOW)


def test_what_was_on_its_way_to_a_reader_that_stands_still_is_not_progress(monkeypatch):
    def body(world: World) -> None:
        in_flight = [500]
        monkeypatch.setattr(delivery_module, "_unsent_by_kernel", lambda socket: in_flight[0])
        talker, stalled = members(world, 2)
        stalled.socket.free_bytes = 0
        fall_behind(world, talker, stalled)
        in_flight[0] = 0
        world.advance(_PROBE_S)
        assert stalled.subscriber.reads_slowly
        world.advance(_PROBE_INTERVAL_S + 0.1)
        assert not stalled.subscriber.reads_slowly
        world.leave(stalled)
        world.check_end()

    in_world(body, SLOW)


def test_a_stalled_reader_that_reads_again_is_waited_for_again():
    def body(world: World) -> None:
        talker, slow = members(world, 2)
        slow.socket.free_bytes = 0
        fall_behind(world, talker, slow)
        world.advance(2 * _PROBE_S)
        assert not slow.subscriber.reads_slowly
        fallen_behind = slow.subscriber.backlog_bytes
        while slow.subscriber.backlog_bytes < fallen_behind + 20_000:
            world.say(talker, LINE)
            world.flush()
        for _ in range(int(2 * _PROBE_S)):
            world.free_space(slow, int(SLOW.floor_bytes_per_s))
            world.advance(1)
        assert slow.subscriber.reads_slowly
        world.say(talker, LINE)
        for _ in range(10):
            world.say(talker, LINE)
            world.flush()
        assert talker.waiting is not None
        world.check_end()

    in_world(body, SLOW)


def test_direct_messages_to_a_reader_that_is_behind_get_the_floor_rate_too():
    def body(world: World) -> None:
        talker, sender, slow = members(world, 3)
        slow.socket.free_bytes = 0
        fall_behind(world, talker, slow)
        began, sent = world.time.now_s, 0
        while world.time.now_s - began < _PROBE_S - 0.1:
            if sender.waiting is None:
                world.send_direct(sender, slow, LINE)
                sent += len(f"DM p1 {LINE}\n")
            world.flush()
            world.advance(0.01)
        assert sent <= SLOW.floor_bytes_per_s * (_PROBE_S + _FLOOR_BURST_S) + 200
        assert sent >= 0.8 * SLOW.floor_bytes_per_s * _PROBE_S
        world.check_end()

    in_world(body, replace(SLOW, stranger_bytes_per_s=0))


def test_a_client_that_does_not_read_its_own_answers_slows_nobody():
    def body(world: World) -> None:
        talker, slow = members(world, 2)
        slow.socket.free_bytes = 0
        for _ in range(3):
            slow.subscriber.answer(b"a" * SLOW.queue_bytes)
            world.flush()
        quarter = SLOW.queue_bytes // 4
        while len(slow.expected) + LINE_BYTES <= quarter:
            assert world.say(talker, LINE)
            world.flush()
            assert not slow.subscriber.reads_slowly
        # What others say counts, also while answers are read.
        world.free_space(slow, SLOW.queue_bytes)
        for _ in range(2):
            assert world.say(talker, LINE)
            world.flush()
        assert slow.subscriber.reads_slowly
        world.free_space(slow, 2 * SLOW.queue_bytes + LINE_BYTES)
        assert slow.subscriber.backlog_bytes < quarter + 2 * LINE_BYTES

    in_world(body, SLOW)


@pytest.mark.parametrize("rooms", [1, 5])
def test_a_slow_reader_leaves_each_of_its_rooms_the_floor_rate(rooms: int):
    def body(world: World) -> None:
        keys = [f"r{number}" for number in range(rooms)]
        all_rooms = [room for key in keys if (room := world.chat.rooms.create(Name(key, key))) is not None]
        socket = SimulatedSocket(10_000, free_bytes=0)
        slow = Subscriber(socket, world.encodings["line"], world.delivery, lambda reason, error: None)
        slow.hear(frozenset(all_rooms))
        said = dict.fromkeys(all_rooms, 0)

        def say() -> None:
            for room in all_rooms:
                while room.gate.is_open():
                    room.say(Name("p0", "p0"), [LINE], None, 0)
                    said[room] += LINE_BYTES
                    world.flush()

        while not slow.reads_slowly:
            say()
        said = dict.fromkeys(all_rooms, 0)
        began = world.time.now_s
        while world.time.now_s - began < 5:
            say()
            world.advance(0.01)
        assert slow.reads_slowly
        together = 5 * rooms * SLOW.floor_bytes_per_s
        assert 0.8 * together <= sum(said.values()) <= 1.2 * together
        slow.close()
        slow.hear(None)

    in_world(body, SLOW)


def test_the_room_and_direct_messages_together_get_the_floor_rate():
    def body(world: World) -> None:
        talker, sender, slow = members(world, 3)
        slow.socket.free_bytes = 0
        fall_behind(world, talker, slow)
        began, before = world.time.now_s, len(slow.expected)
        while world.time.now_s - began < 60:
            # The direct message first: the room's gate does not look at it.
            world.send_direct(sender, slow, "d" * 900)
            world.say(talker, "r" * 600)
            world.flush()
            world.advance(0.1)
            world.free_space(slow, 120)
            world.check()
            assert slow.lost is None
        said = len(slow.expected) - before
        assert abs(said - 60 * 1_200) < 3 * SLOW.floor_bytes_per_s
        world.check_end()

    in_world(body, replace(SLOW, stranger_bytes_per_s=0))


def test_direct_messages_to_many_readers_that_are_behind_do_not_silence_the_room():
    def body(world: World) -> None:
        talker, *others = members(world, 41)
        senders, slow = others[:20], others[20:]
        for reader in slow:
            reader.socket.free_bytes = 0
        fall_behind(world, talker, slow[0])
        assert talker.subscriber.audience.slow_readers == len(slow)
        world.advance(_PROBE_S / 2)
        for sender, reader in zip(senders, slow, strict=True):
            assert world.send_direct(sender, reader, "d" * 900)
        world.flush()
        world.say(talker, "can you hear me?")
        # One batch and one charge, not twenty messages.
        world.advance((1_000 + 1_000) / SLOW.floor_bytes_per_s)
        world.flush()
        assert all(reader.subscriber.reads_slowly for reader in slow)
        assert talker.waiting is None, "the room has fallen silent"

    in_world(body, replace(SLOW, stranger_bytes_per_s=0, outgoing_bytes=1_000))


def test_strangers_share_one_rate_and_contacts_are_not_held_back_by_it():
    limits = replace(LIMITS, queue_bytes=1_000_000, outgoing_bytes=100_000, contacts=100)

    def body(world: World) -> None:
        reader, friend, *strangers = members(world, 12)
        world.send_direct(reader, friend, "hello")
        began, sent = world.time.now_s, 0
        while world.time.now_s - began < 60:
            for stranger in strangers:
                if stranger.waiting is None:
                    world.send_direct(stranger, reader, LINE)
                    sent += 1
            assert world.send_direct(friend, reader, "a friend"), "a contact waits for strangers"
            world.advance(0.5)
        arrived = reader.socket.taken.count(LINE.encode())
        frame = len(f"DM p11 {LINE}\n")
        most = limits.stranger_burst_bytes + 60 * limits.stranger_bytes_per_s
        assert most - 2 * frame <= arrived * frame <= most + frame
        # One address is not served at the cost of another: p2 to p11 come from three.
        by_sender = [reader.socket.taken.count(f"DM p{n} {LINE}".encode()) for n in range(2, 12)]
        by_address = [sum(by_sender[(address - 2) % 3 :: 3]) for address in range(3)]
        assert max(by_address) - min(by_address) <= 4
        world.check_end()

    in_world(body, limits)


def test_a_full_batch_closes_the_gate_until_it_is_sent():
    def body(world: World) -> None:
        talker, other, *_ = members(world, 4)
        assert world.say(talker, "x" * 300)
        assert not world.say(other, "waits"), "a batch is full"
        assert not world.login(world.connect()), "a login waits as well"
        assert world.ping(talker), "an answer does not wait"
        world.flush()
        assert other.waiting is None
        world.check_end()

    in_world(body)


def test_departures_that_do_not_fit_into_a_batch_wait_and_the_name_is_free_at_once():
    def body(world: World) -> None:
        everyone = members(world, 30)
        for client in everyone[2:]:
            world.hang_up(client)
        assert len(world.chat.lobby.names) == len(world.chat) == 2
        assert world.chat.lobby._departures
        world.flush()
        assert not world.chat.lobby._departures
        for client in everyone[:2]:
            assert client.socket.taken.count(b"disconnected\n") == 28
        world.check_end()

    in_world(body, replace(LIMITS, queue_bytes=4_096))


# --- People who come and go in a large room --------------------------------------------------------------------------


def test_arrivals_and_departures_in_a_large_room_are_announced_together():
    def body(world: World) -> None:
        everyone = members(world, 20, "slash")
        world.advance(1)
        watcher = everyone[0]
        before, began = watcher.socket.sends, world.time.now_s
        for number in range(100):
            newcomer = world.member("slash")
            world.advance(0.005)
            world.hang_up(newcomer if number % 2 else everyone[1 + number // 8])
            world.advance(0.005)
            world.check()
        sends = watcher.socket.sends - before
        elapsed_s = world.time.now_s - began
        # There are 20 members at first, and fewer than 60 at the end.
        assert sends <= elapsed_s / (20 * PRESENCE_S_PER_MEMBER) + 1
        assert sends >= elapsed_s / (60 * PRESENCE_S_PER_MEMBER) - 1
        world.advance(60 * PRESENCE_S_PER_MEMBER)
        assert watcher.socket.taken == watcher.expected
        world.check_end()

    in_world(body, ROOMY, large_room=5)


def test_messages_do_not_wait_for_arrivals_and_departures():
    def body(world: World) -> None:
        talker, other, leaver, first = members(world, 4)
        world.hang_up(first)
        world.flush()
        announced = b"OK\nINFO p3 disconnected\n"
        assert other.socket.taken == announced, "the first one is announced at once"
        world.hang_up(leaver)
        world.flush()
        assert other.socket.taken == announced
        assert world.audiences["line"].batch.size > 0
        world.say(talker, "now")
        world.flush()
        assert other.socket.taken == announced + b"INFO p2 disconnected\nMSG p0 now\n"
        world.check_end()

    in_world(body, ROOMY, large_room=2)


def test_messages_in_a_dialect_that_echoes_do_not_wait_either():
    def body(world: World) -> None:
        talker, other, leaver, first = members(world, 4, "json")
        world.hang_up(first)
        world.flush()
        world.hang_up(leaver)
        world.flush()
        assert world.audiences["json"].batch.size > 0
        world.say(talker, "now")
        world.flush()
        assert world.audiences["json"].batch.size == 0
        assert other.socket.taken == other.expected
        assert talker.socket.taken == talker.expected
        world.check_end()

    in_world(body, ROOMY, large_room=2)


def test_a_private_answer_does_not_wait_and_follows_earlier_announcements():
    def body(world: World) -> None:
        requester, other, *leavers, first = members(world, 7)
        world.hang_up(first)
        world.flush()
        for leaver in leavers[:2]:
            world.hang_up(leaver)
        world.ping(requester, "x")
        world.flush()
        announced = b"OK\nINFO p6 disconnected\nINFO p2 disconnected\nINFO p3 disconnected\n"
        assert requester.socket.taken == announced + b"PONG x\n"
        assert other.socket.taken == b"OK\nINFO p6 disconnected\n"
        world.hang_up(leavers[2])
        world.flush()
        assert requester.socket.taken == announced + b"PONG x\n"
        world.advance(7 * PRESENCE_S_PER_MEMBER)
        assert requester.socket.taken == announced + b"PONG x\nINFO p4 disconnected\n"
        assert other.socket.taken == announced + b"INFO p4 disconnected\n"
        world.check_end()

    in_world(body, ROOMY, large_room=2)


def test_a_client_that_leaves_gets_everything_at_once():
    def body(world: World) -> None:
        leaver, _, _, gone = members(world, 4)
        world.hang_up(gone)
        world.flush()
        world.quit(leaver)
        world.flush()
        assert leaver.socket.taken == b"OK\nINFO p3 disconnected\nGoodbye!\n"
        assert leaver.subscriber.all_sent
        world.check_end()

    in_world(body, ROOMY, large_room=2)


def test_a_full_batch_does_not_stay_open():
    def body(world: World) -> None:
        watcher, *leavers = members(world, 30)
        for leaver in leavers[:20]:
            world.hang_up(leaver)
        world.flush()
        assert watcher.socket.taken.count(b"disconnected") >= LIMITS.outgoing_bytes // len(
            "INFO p10 disconnected\n"
        )
        world.check_end()

    in_world(body, replace(LIMITS, queue_bytes=4_096), large_room=2)


def test_a_second_private_answer_does_not_wait_either():
    def body(world: World) -> None:
        requester, _, _, _, leaver, gone = members(world, 6)
        world.hang_up(gone)
        world.flush()
        world.hang_up(leaver)
        for token in ("1", "2", "3"):
            world.ping(requester, token)
            world.flush()
            assert requester.socket.taken.endswith(f"PONG {token}\n".encode())
        assert world.audiences["line"].batch.size > 0
        world.check_end()

    in_world(body, ROOMY, large_room=2)


def test_a_client_that_was_answered_and_leaves_gets_everything_at_once():
    def body(world: World) -> None:
        leaver, silent, _, _, other, gone = members(world, 6)
        world.hang_up(gone)
        world.flush()
        world.hang_up(other)
        for client in (leaver, silent):
            world.ping(client, "x")
        world.flush()
        assert world.audiences["line"].waiting
        for client, leave in ((silent, world.hang_up), (leaver, world.quit)):
            leave(client)
            world.flush()
            assert client.socket.taken == client.expected
            assert client.subscriber.all_sent
        world.check_end()

    in_world(body, ROOMY, large_room=2)


def test_a_lack_of_memory_while_a_batch_is_open_loses_nothing(monkeypatch: pytest.MonkeyPatch):
    stays_open_s = Audience.stays_open_s
    failures: list[MemoryError] = []

    def starved(self: Audience, now: float) -> float:
        if failures:
            raise failures.pop()
        return stays_open_s(self, now)

    def body(world: World) -> None:
        *everyone, leaver, gone = members(world, 8)
        world.hang_up(gone)
        world.flush()
        monkeypatch.setattr(Audience, "stays_open_s", starved)
        failures.append(MemoryError())
        world.ping(everyone[0])
        world.hang_up(leaver)
        world.flush()
        assert not failures
        world.advance(1)
        assert all(client.socket.taken == client.expected for client in everyone)
        chat_goes_on(world, everyone)

    in_world(body, ROOMY, large_room=2)


def test_an_answer_costs_the_same_however_many_others_wait_for_the_end_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
):
    served: list[Subscriber] = []
    deliver_batch = Delivery._deliver_batch

    def counting(self: Delivery, subscriber: Subscriber, ended: bool) -> None:
        served.append(subscriber)
        deliver_batch(self, subscriber, ended)

    def body(world: World) -> None:
        *everyone, leaver, gone = members(world, 30)
        world.hang_up(gone)
        world.flush()
        world.hang_up(leaver)
        for client in everyone:
            world.ping(client)
        world.flush()
        monkeypatch.setattr(Delivery, "_deliver_batch", counting)
        world.ping(everyone[0])
        world.flush()
        assert served == [everyone[0].subscriber]
        world.advance(1)
        assert served[1:] == [client.subscriber for client in [*everyone[1:], everyone[0]]]
        world.check_end()

    in_world(body, ROOMY, large_room=2)


def test_an_open_batch_does_not_use_up_the_floor_rate_and_wait():
    def body(world: World) -> None:
        talker, slow, *leavers = members(world, 60)
        slow.socket.free_bytes = 0
        fall_behind(world, talker, slow)
        world.advance(1)
        world.hang_up(leavers.pop())
        world.flush()
        world.advance(0.2)
        for leaver in leavers[:14]:
            world.hang_up(leaver)
            world.flush()
        # The rest of the burst is too small for one more, however long the wait.
        assert world.audiences["line"].batch.size < SLOW.floor_bytes_per_s * _FLOOR_BURST_S
        world.check_end()

    in_world(body, SLOW, large_room=2)
