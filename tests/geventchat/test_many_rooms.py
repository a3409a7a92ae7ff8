"""Clients that can be in many rooms: their logins, their lists, their keys of messages, and typing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from geventchat.chat.chat import Chat
from geventchat.chat.commands import (
    AnnounceTyping,
    Command,
    EnterRoom,
    LeaveRoom,
    Login,
    Say,
    SendDirectMessage,
    Who,
)
from geventchat.chat.events import (
    Confirmed,
    DirectMessage,
    DirectMessageSent,
    Entered,
    Event,
    Joined,
    Left,
    Rejected,
    Rejection,
    Roster,
    Said,
    Typing,
    Welcome,
)
from geventchat.chat.names import Name
from geventchat.chat.results import DONE, Busy
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.settings import Limits
from tests.geventchat.interpreter import events_of_interpreter
from tests.geventchat.recording import (
    RecordingAudiences,
    RecordingSubscriber,
    SwitchedGate,
    at_once,
    memory,
    tools,
)

NOW_S = 1_234_567_890.5
NOW_MS = 1_234_567_890_500


@dataclass
class World:
    """A chat in which each room has its own gate."""

    limits: Limits = field(default_factory=Limits)
    now_s: float = NOW_S

    def __post_init__(self) -> None:
        self.audiences = RecordingAudiences()
        self.chat = Chat(
            lambda: self.now_s,
            new_gate=lambda delay_s: SwitchedGate(),
            storage=memory(),
            in_thread=at_once,
            tools=tools(),
            announce_later=lambda room: None,
            limits=self.limits.chat,
        )

    def connect(self) -> tuple[Session, RecordingSubscriber]:
        subscriber = RecordingSubscriber(self.audiences)
        return Session(subscriber), subscriber

    def join(self, name: str, *rooms: str) -> tuple[Session, RecordingSubscriber]:
        session, subscriber = self.connect()
        login = Login(name, tuple(EnterRoom(room) for room in rooms or ("lobby",)))
        assert self.chat.handle(session, login) is DONE
        subscriber.take()
        return session, subscriber

    def room(self, key: str) -> Room:
        room = self.chat.rooms.find(key)
        assert room is not None
        return room

    def gate(self, key: str) -> SwitchedGate:
        gate = self.room(key).gate
        assert isinstance(gate, SwitchedGate)
        return gate

    def does(self, session: Session, command: Command) -> list[Event]:
        """Handle a command, and return the events that the client receives."""
        assert isinstance(session.subscriber, RecordingSubscriber)
        session.subscriber.take()
        assert self.chat.handle(session, command) is DONE
        return session.subscriber.take()


@pytest.fixture
def world() -> World:
    return World()


# --- Logins ----------------------------------------------------------------------------------------------------------


def test_a_login_names_its_rooms_and_is_in_exactly_these(world: World):
    _, alice = world.join("alice", "dev", "lobby")
    session, bob = world.connect()
    login = Login("bob", (EnterRoom("Dev", after=3), EnterRoom("#ops"), EnterRoom("dev")), "another")
    assert world.chat.handle(session, login) is DONE
    dev, ops = Entered("dev", ["alice", "bob"], "", 2, 0, 1), Entered("ops", ["bob"], "", 1, 0, 1)
    assert bob.take() == [Welcome("", "bob", (), NOW_MS, "e1", [dev, ops])]
    assert alice.take() == [Joined("dev", "bob", NOW_MS)]
    assert list(session.rooms or ()) == ["dev", "ops"]
    assert session.room is None
    assert "bob" not in world.chat.lobby.names


def test_a_login_lists_a_limited_number_of_names_in_all_its_rooms():
    world = World(Limits(listed_users=1_500))
    rooms = [f"r{number}" for number in range(3)]
    for number in range(1_600):
        world.join(f"p{number}", *rooms[number % 2 :])
    session, bob = world.connect()
    assert world.chat.handle(session, Login("bob", tuple(map(EnterRoom, ["r2", "r1", "r0"])))) is DONE
    (welcome,) = bob.take()
    assert isinstance(welcome, Welcome)
    assert [(len(one.users), one.user_count) for one in welcome.rooms] == [
        (1_500, 1_601),
        (1_000, 1_601),
        (0, 801),
    ]
    # The others can be asked for.
    (roster,) = world.does(session, Who("r0"))
    assert isinstance(roster, Roster)
    assert len(roster.users) == 801


def test_a_login_to_no_rooms_is_in_none(world: World):
    session, bob = world.connect()
    assert world.chat.handle(session, Login("bob", ())) is DONE
    assert bob.take() == [Welcome("", "bob", (), NOW_MS, "e1", [])]
    assert session.rooms == {}
    assert session.subscriber.heard == frozenset()


def test_rooms_that_refuse_follow_the_welcome(world: World):
    world = World(Limits(rooms_per_client=2, rooms=2))
    session, bob = world.connect()
    rooms = tuple(map(EnterRoom, ("a b", "one", "two", "lobby")))
    assert world.chat.handle(session, Login("bob", rooms)) is DONE
    welcome, *refused = bob.take()
    assert [entered.room for entered in welcome.rooms] == ["one"]
    assert refused == [
        Rejected(Rejection.ROOM_NAME_INVALID, "a b", "a b"),
        Rejected(Rejection.TOO_MANY_ROOMS, "lobby", "lobby"),
        # There can be two rooms in all.
        Rejected(Rejection.TOO_MANY_ROOMS, "two", "two"),
    ]


def wait_at(world: World, session: Session, result: Any, *, at: str) -> Any:
    """Pass the gate of a room, at which a login waits."""
    assert isinstance(result, Busy)
    assert result.gate is world.gate(at)
    assert session.name is None
    assert result.go_on is not None
    return result.go_on()


def test_a_login_waits_at_each_closed_gate_of_its_rooms_once(world: World):
    _, alice = world.join("alice", "a", "b", "c", "d")
    for room in ("b", "d"):
        world.gate(room).open = False
    session, bob = world.connect()
    result = world.chat.handle(session, Login("bob", tuple(map(EnterRoom, ("a", "b", "c", "d")))))
    # One that was open at first has closed meanwhile.
    world.gate("a").open = False
    result = wait_at(world, session, result, at="b")
    result = wait_at(world, session, result, at="a")
    result = wait_at(world, session, result, at="d")
    assert result is DONE
    assert len(bob.take()) == 1
    assert alice.take() == [Joined(room, "bob", NOW_MS) for room in ("a", "b", "c", "d")]


def test_a_login_that_waits_finds_its_name_taken_in_the_end(world: World):
    world.join("alice", "a")
    world.gate("a").open = False
    session, bob = world.connect()
    result = world.chat.handle(session, Login("bob", (EnterRoom("a"),)))
    world.join("bob", "b")
    assert wait_at(world, session, result, at="a") is DONE
    assert bob.take() == [Rejected(Rejection.NAME_TAKEN)]


def test_a_login_to_other_rooms_does_not_wait_for_the_lobby(world: World):
    world.gate("lobby").open = False
    world.join("alice", "dev")
    assert "alice" in world.room("dev").names


def test_a_departure_that_waits_comes_before_the_arrival_under_the_same_name(world: World):
    _, alice = world.join("alice", "a", "b")
    bob, _ = world.join("bob", "a", "b")
    alice.take()
    for room in ("a", "b"):
        world.gate(room).open = False
    world.chat.leave(bob)
    assert alice.take() == []
    for room in ("a", "b"):
        world.gate(room).open = True
    world.join("BOB", "b")
    assert alice.take() == [Left("b", "bob", NOW_MS), Joined("b", "BOB", NOW_MS)]


def test_a_room_that_is_entered_at_the_last_moment_is_kept(world: World, monkeypatch: pytest.MonkeyPatch):
    """Looking at the rooms deletes those that have been empty for too long."""
    alice, _ = world.join("alice", "old", "lobby")
    world.does(alice, LeaveRoom("old"))
    rooms, create = world.chat.rooms, world.chat.rooms.create

    def create_later(name: Name) -> Room | None:
        world.now_s = NOW_S + 600
        return create(name)

    monkeypatch.setattr(rooms, "create", create_later)
    world.now_s = NOW_S + 599
    bob, _ = world.join("bob", "old", "new")
    assert list(bob.rooms or ()) == ["old", "new"]
    assert rooms.find("old") is (bob.rooms or {})["old"]


# --- Messages --------------------------------------------------------------------------------------------------------


def test_each_of_several_texts_to_a_room_that_does_not_exist_is_refused(world: World):
    alice, _ = world.join("alice")
    refused = Rejected(Rejection.NO_SUCH_ROOM, "dev", "dev")
    assert world.does(alice, Say(["one", "two"], "dev")) == [refused, refused]


def test_a_message_is_confirmed_on_request(world: World):
    alice, _ = world.join("alice", "dev", "lobby")
    _, bob = world.join("bob")
    assert world.does(alice, Say(["one"], "DEV", confirm=True)) == [Confirmed("dev", 1)]
    assert world.does(alice, Say(["two"], "dev")) == []
    sent = DirectMessageSent(DirectMessage("alice", "bob", "psst", NOW_MS), "bob")
    assert world.does(alice, SendDirectMessage("bob", "psst", confirm=True)) == [sent, Confirmed()]
    assert bob.take() == [sent.message]


def test_a_message_with_a_key_appears_once(world: World):
    alice, _ = world.join("alice")
    _, bob = world.join("bob")
    for _ in range(2):
        assert world.does(alice, Say(["hi"], message_key="k")) == [Confirmed("lobby", 1)]
    assert bob.take() == [Said("lobby", "alice", ["hi"], 1, NOW_MS)]


def test_a_repeat_does_not_wait_at_a_closed_gate(world: World):
    alice, _ = world.join("alice")
    _, bob = world.join("bob")
    say, send = Say(["hi"], message_key="k1"), SendDirectMessage("bob", "psst", message_key="k2")
    world.does(alice, say)
    world.does(alice, send)
    world.gate("lobby").open = bob.stranger_gate.open = False
    assert world.does(alice, say) == [Confirmed("lobby", 1)]
    assert world.does(alice, send) == [Confirmed()]


def test_a_message_that_waits_at_a_gate_has_not_used_up_its_key(world: World):
    alice, _ = world.join("alice")
    world.gate("lobby").open = False
    say = Say(["hi"], message_key="k")
    assert isinstance(world.chat.handle(alice, say), Busy)
    world.gate("lobby").open = True
    assert world.does(alice, say) == [Confirmed("lobby", 1)]


# --- Lists -----------------------------------------------------------------------------------------------------------


def test_people_are_listed_by_pages():
    world = World(Limits(listed_users=3))
    sessions = [world.join(f"p{n}")[0] for n in range(7)]
    session, last = world.connect()
    world.chat.handle(session, Login("P7", (EnterRoom("lobby"),)))
    (welcome,) = last.take()
    assert welcome.rooms == [Entered("lobby", ["p0", "p1", "p2"], "", 8, 0, 1)]
    pages = []
    for after, passed in (("", 0), ("P2", 3), ("p5", 6), ("p7", 8)):
        cost = session.cost_bytes
        pages.append(world.does(session, Who("", after)))
        assert session.cost_bytes == cost + passed
    users = [("p0", "p1", "p2"), ("p3", "p4", "p5"), ("p6", "P7"), ()]
    assert pages == [[Roster(page, "lobby", 8)] for page in users]
    world.chat.leave(sessions[2])
    gone = Rejected(Rejection.USER_NOT_FOUND, "p2", "")
    assert world.does(session, Who("", "p2")) == [gone]
    assert world.does(session, Who("lobby", "p1")) == [Roster(("p3", "p4", "p5"), "lobby", 7)]
    assert world.does(session, EnterRoom("lobby")) == [Entered("lobby", ("p0", "p1", "p3"), "", 7, 0, 1)]


def test_a_client_that_is_in_one_room_at_a_time_gets_everyone():
    world = World(Limits(listed_users=3))
    for n in range(5):
        world.join(f"p{n}")
    session, line = world.connect()
    world.chat.handle(session, Login("line"))
    everyone = ("p0", "p1", "p2", "p3", "p4", "line")
    assert line.take() == [Welcome("lobby", "line", everyone, NOW_MS)]
    assert world.does(session, Who("", "p2")) == [Roster(everyone, "lobby", 6)]


# --- Typing ----------------------------------------------------------------------------------------------------------


def test_typing_is_announced_at_most_once_in_its_interval_whatever_the_room():
    world = World(Limits(typing_interval_s=3))
    alice, _ = world.join("alice", "a", "b")
    _, bob = world.join("bob", "a", "b")
    for room in ("a", "b", "a"):
        assert world.does(alice, AnnounceTyping(room)) == [Confirmed()]
    assert bob.take() == [Typing("a", "alice", NOW_MS)]
    world.now_s += 3
    world.does(alice, AnnounceTyping("b"))
    assert bob.take() == [Typing("b", "alice", NOW_MS + 3000)]
    # The time of day has been set back.
    world.now_s -= 3600
    world.does(alice, AnnounceTyping("b"))
    assert len(bob.take()) == 1


def test_typing_that_the_room_cannot_follow_is_dropped(world: World):
    alice, _ = world.join("alice")
    _, bob = world.join("bob")
    world.gate("lobby").open = False
    assert world.does(alice, AnnounceTyping()) == [Confirmed()]
    world.gate("lobby").open = True
    assert bob.take() == []
    world.does(alice, AnnounceTyping())
    assert bob.take() == [Typing("lobby", "alice", NOW_MS)]


def test_typing_in_a_room_that_the_client_is_not_in_is_refused(world: World):
    alice, _ = world.join("alice")
    world.join("bob", "dev")
    assert world.does(alice, AnnounceTyping("dev")) == [Rejected(Rejection.NOT_IN_ROOM, "dev", "dev")]


def test_entering_and_leaving_cost_the_same_however_many_rooms_there_are():
    work = []
    for rooms in (10, 1_000):
        world = World(Limits(rooms=2_000))
        world.join("keeper")
        for n in range(rooms // 10):
            # A room ends when its last member leaves it, unless it is kept for a while.
            world.join(f"p{n}", *(f"r{n}-{m}" for m in range(10)))
        session, _ = world.join("ann")

        def enter_and_leave(world: World = world, session: Session = session) -> None:
            world.chat.handle(session, EnterRoom("r0-0"))
            world.chat.handle(session, LeaveRoom("r0-0"))
            world.chat.handle(session, EnterRoom("new"))
            world.chat.handle(session, LeaveRoom("new"))

        enter_and_leave()
        work.append(events_of_interpreter(enter_and_leave))
        assert len(world.chat.rooms) >= rooms
    assert work[0] == work[1] > 100
