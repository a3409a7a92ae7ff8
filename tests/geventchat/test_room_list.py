"""All rooms: how many there are, how long they are kept, and their ids."""

from __future__ import annotations

import pytest

from geventchat.chat.commands import EnterRoom, LeaveRoom, ListRooms, Login, Say, SetTopic
from geventchat.chat.events import Entered, Rejected, Rejection, RoomList
from geventchat.chat.names import parse_room_name
from geventchat.chat.results import DONE
from geventchat.chat.room_list import Rooms
from geventchat.settings import Limits
from tests.geventchat.manual_clock import ManualClock
from tests.geventchat.recording import SwitchedGate, memory
from tests.geventchat.test_chat import Scene


def rooms_of(limits: Limits) -> tuple[Rooms, ManualClock]:
    clock = ManualClock()
    return Rooms(clock.time, clock.monotonic, lambda delay_s: SwitchedGate(), limits.chat, memory()), clock


def test_the_lobby_is_first_and_stays():
    rooms, clock = rooms_of(Limits(empty_room_s=10))
    rooms.left(rooms.lobby)
    clock.now += 100
    assert list(rooms) == [rooms.lobby]


def test_no_more_rooms_are_made_than_the_limit_allows():
    rooms, _ = rooms_of(Limits(rooms=3))
    for name in ("a", "b"):
        assert rooms.create(parse_room_name(name)) is not None
    assert rooms.create(parse_room_name("c")) is None
    assert len(rooms) == 3


def test_an_empty_room_is_deleted_after_a_while():
    rooms, clock = rooms_of(Limits(empty_room_s=10))
    first, second = [rooms.create(parse_room_name(name)) for name in ("first", "second")]
    assert first is not None
    assert second is not None
    rooms.left(first)
    clock.now += 4
    rooms.left(second)
    clock.now += 5.999
    assert rooms.find("first") is first
    clock.now += 0.001
    assert rooms.find("first") is None
    assert rooms.find("second") is second
    rooms.entered(second)
    clock.now += 100
    assert list(rooms) == [rooms.lobby, second]


@pytest.mark.parametrize("ahead_s", [91 * 86_400, -91 * 86_400])
def test_a_clock_that_is_set_makes_no_room_due_and_none_last_longer(ahead_s: int):
    rooms, clock = rooms_of(Limits(empty_room_s=10))
    room = rooms.create(parse_room_name("dev"))
    assert room is not None
    rooms.left(room)
    clock.now += 4
    clock.ahead = ahead_s
    assert rooms.find("dev") is room
    clock.now += 5.999
    assert rooms.find("dev") is room
    clock.now += 0.001
    assert rooms.find("dev") is None


def test_rooms_that_are_due_together_no_longer_count_and_are_deleted_a_few_at_a_time():
    rooms, clock = rooms_of(Limits(empty_room_s=10, rooms=1_001))
    for number in range(1_000):
        room = rooms.create(parse_room_name(f"r{number}"))
        assert room is not None
        rooms.left(room)
    clock.now += 10
    assert rooms.find("r999") is None
    assert rooms.can_create()
    assert rooms.listed() == list(rooms) == [rooms.lobby]
    assert len(rooms._rooms) > 800
    for _ in range(50):
        rooms.find("nowhere")
    assert len(rooms._rooms) == 1


def test_the_rooms_with_the_most_people_are_listed_in_the_order_in_which_they_were_made():
    scene = Scene(listed_rooms=4)
    for number, people in enumerate([1, 3, 0, 2, 1, 2]):
        for n in range(max(1, people)):
            session, _ = scene.login(f"p{number}-{n}")
            assert scene.chat.handle(session, EnterRoom(f"r{number}")) is DONE
        if not people:
            assert scene.chat.handle(session, LeaveRoom()) is DONE
    rooms = scene.chat.rooms
    assert [room.key for room in rooms.listed()] == ["lobby", "r1", "r3", "r5"]
    # A room that fills up takes its place a moment later, and one that is gone leaves its own at once.
    for n in range(3):
        session, _ = scene.login(f"more{n}")
        assert scene.chat.handle(session, EnterRoom("r0")) is DONE
    assert [room.key for room in rooms.listed()] == ["lobby", "r1", "r3", "r5"]
    rooms.set_private(rooms.listed()[1], private=True)
    assert [room.key for room in rooms.listed()] == ["lobby", "r3", "r5"]
    scene.now_s += 1
    assert [room.key for room in rooms.listed()] == ["lobby", "r0", "r3", "r5"]


def test_a_list_of_rooms_has_a_limited_number_of_bytes():
    scene = Scene(rooms_per_client=1_000)
    session, _ = scene.connect()
    rooms = [f"r{number:03}" for number in range(300)]
    assert scene.chat.handle(session, Login("ann", tuple(map(EnterRoom, rooms)))) is DONE
    for room in rooms:
        assert scene.chat.handle(session, SetTopic("水" * 300, room)) is DONE
    assert scene.chat.handle(session, LeaveRoom("r000")) is DONE
    other, subscriber = scene.connect()
    assert scene.chat.handle(other, Login("bob", (EnterRoom("r299"),))) is DONE

    def listed() -> list[str]:
        subscriber.take()
        assert scene.chat.handle(other, ListRooms()) is DONE
        (answer,) = subscriber.take()
        assert isinstance(answer, RoomList)
        return [one.room for one in answer.rooms]

    # The lobby, and those with the most people; this letter has three bytes.
    most = (196_608 - len("lobby")) // (3 * 300 + len("r000"))
    assert listed() == ["lobby", *rooms[1:most], "r299"]
    # The client's own private rooms come before all others.
    own = scene.chat.rooms.find("r298")
    assert own is not None
    assert scene.chat.handle(other, EnterRoom("r298")) is DONE
    scene.chat.rooms.set_private(own, private=True)
    assert listed() == ["lobby", *rooms[1 : most - 1], "r299", "r298"]


def test_five_hundred_rooms_with_the_longest_topics_in_ascii_are_listed():
    scene = Scene(rooms_per_client=1_000)
    session, subscriber = scene.connect()
    rooms = [f"{number:032}" for number in range(499)]
    assert scene.chat.handle(session, Login("ann", tuple(map(EnterRoom, rooms)))) is DONE
    for room in rooms:
        assert scene.chat.handle(session, SetTopic("x" * 300, room)) is DONE
    subscriber.take()
    assert scene.chat.handle(session, ListRooms()) is DONE
    (answer,) = subscriber.take()
    assert isinstance(answer, RoomList)
    assert len(answer.rooms) == 500


def test_the_ids_of_a_new_room_are_above_those_of_deleted_rooms():
    scene = Scene()
    session, subscriber = scene.login("ann")
    for room in ("a", "b"):
        assert scene.chat.handle(session, EnterRoom(room)) is DONE
        assert scene.chat.handle(session, Say(["one", "two"])) is DONE
    assert scene.chat.handle(session, EnterRoom("c")) is DONE
    assert [room.last_id for room in scene.chat.rooms] == [0, 2, 2, 0]
    scene.now_s += 600
    assert scene.chat.handle(session, EnterRoom("d")) is DONE
    assert [(room.name, room.last_id) for room in scene.chat.rooms] == [("lobby", 0), ("c", 0), ("d", 2)]
    subscriber.take()


def test_a_deleted_room_leaves_no_messages_behind():
    scene = Scene()
    session, _ = scene.login("ann")
    assert scene.chat.handle(session, EnterRoom("a")) is DONE
    assert scene.chat.handle(session, Say(["one", "two"])) is DONE
    assert scene.chat.handle(session, LeaveRoom()) is DONE
    assert scene.chat.rooms.history.bytes > 0
    scene.now_s += 600
    assert scene.chat.rooms.find("a") is None
    assert scene.chat.rooms.history.bytes == 0


def test_a_client_can_be_in_a_limited_number_of_rooms():
    scene = Scene(rooms_per_client=3)
    session, subscriber = scene.connect()
    assert scene.chat.handle(session, Login("ann", (EnterRoom("lobby"),))) is DONE
    for room in ("a", "b"):
        assert scene.chat.handle(session, EnterRoom(room)) is DONE
    subscriber.take()
    assert scene.chat.handle(session, EnterRoom("c")) is DONE
    assert subscriber.take() == [Rejected(Rejection.TOO_MANY_ROOMS, "c", "c")]
    assert scene.chat.rooms.find("c") is None
    # One that it is in can be entered again.
    assert scene.chat.handle(session, EnterRoom("a")) is DONE
    assert subscriber.take() == [Entered("a", ("ann",), "", 1, 0, 1)]
