"""A room: its members in order, its audiences, its one gate, and the ids of its messages."""

from __future__ import annotations

import math

import pytest

from geventchat.chat.events import Departure, Joined, Left, Said, TopicChanged
from geventchat.chat.history import History
from geventchat.chat.names import parse_name, parse_room_name
from geventchat.chat.rooms import Room
from geventchat.settings import Limits
from tests.geventchat.recording import RecordingAudiences, RecordingSubscriber, SwitchedGate, memory


class Scene:
    """A room, its gate, and two kinds of clients."""

    def __init__(self) -> None:
        self.gate = SwitchedGate()
        self.delay_s = lambda: 0.0
        self.room = Room(parse_room_name("room"), self._new_gate, History(Limits().chat, memory()))
        self.audiences = RecordingAudiences()

    def _new_gate(self, delay_s):
        self.delay_s = delay_s
        return self.gate

    def enter(self, name: str, label: str = "first") -> RecordingSubscriber:
        subscriber = RecordingSubscriber(self.audiences, label)
        entrant = parse_name(name)
        self.room.make_way(entrant)
        self.room.add(entrant)
        subscriber.hear(self.room.alone)
        self.room.joined(entrant, subscriber, 0)
        return subscriber

    def leave(self, name: str, subscriber: RecordingSubscriber) -> bool:
        self.remove(name, subscriber)
        return self.room.departed(parse_name(name), Departure.LEFT, 0)

    def remove(self, name: str, subscriber: RecordingSubscriber) -> None:
        self.room.remove(parse_name(name))
        subscriber.hear(None)

    def delay(self, label: str, seconds: float) -> None:
        audience = self.audiences.audiences[label, self.room.alone]
        audience.delay = seconds
        self.room.add_delaying(audience)


def left(name: str) -> Left:
    return Left("room", name, 0, Departure.LEFT)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_names_are_in_the_order_of_entering_and_a_live_view(scene: Scene):
    names = scene.room.names
    subscribers = {name: scene.enter(name) for name in ("carol", "Alice", "bob")}
    assert list(names) == ["carol", "Alice", "bob"]
    scene.leave("ALICE", subscribers["Alice"])
    scene.enter("alice")
    assert list(names) == ["carol", "bob", "alice"]
    assert parse_name("ALICE") in scene.room
    assert parse_name("dora") not in scene.room


def test_every_audience_hears_everything_once(scene: Scene):
    alice = scene.enter("alice")
    bob, carol = scene.enter("bob", "second"), scene.enter("carol", "second")
    for subscriber in (alice, bob, carol):
        subscriber.take()
    said = scene.room.say(parse_name("bob"), ["hi"], bob, 5)
    assert said == Said("room", "bob", ["hi"], 1, 5)
    assert alice.take() == carol.take() == [said]
    changed = TopicChanged("room", "carol", "tea", 6)
    scene.room.publish(changed)
    assert alice.take() == bob.take() == carol.take() == [changed]
    assert scene.leave("bob", bob)
    assert alice.take() == carol.take() == [left("bob")]
    assert bob.take() == []


def test_a_newcomer_is_subscribed_before_it_is_announced(scene: Scene):
    alice = scene.enter("alice")
    alice.take()
    bob = scene.enter("bob")
    assert alice.take() == [Joined("room", "bob", 0)]
    assert bob.take() == []


def test_an_audience_that_has_gone_delays_nobody(scene: Scene):
    alice, bob = scene.enter("alice"), scene.enter("bob")
    scene.remove("alice", alice)
    scene.delay("first", math.inf)
    scene.remove("bob", bob)
    assert scene.delay_s() == 0
    assert not scene.room._audiences


def test_an_audience_is_asked_for_its_delay_while_it_can_have_one(scene: Scene):
    scene.enter("alice")
    scene.delay("first", 2.0)
    assert scene.delay_s() == 2.0
    scene.room.remove_delaying(scene.audiences.audiences["first", scene.room.alone])
    assert scene.delay_s() == 0


def test_the_delay_is_that_of_the_slowest_audience_with_members(scene: Scene):
    assert scene.delay_s() == 0
    alice = scene.enter("alice")
    scene.delay("first", 2.0)
    assert scene.delay_s() == 2.0
    bob = scene.enter("bob", "second")
    scene.delay("second", math.inf)
    assert scene.delay_s() == math.inf
    scene.remove("bob", bob)
    assert scene.delay_s() == 2.0
    scene.remove("alice", alice)
    assert scene.delay_s() == 0


def test_departures_are_announced_in_order_as_far_as_the_gate_allows(scene: Scene):
    subscribers = {name: scene.enter(name) for name in ("a", "b", "c", "watcher")}
    watcher = subscribers["watcher"]
    watcher.take()
    scene.gate.open = False
    for name in ("b", "a", "c"):
        assert not scene.leave(name, subscribers[name])
    assert not scene.room.announce_departures()
    assert watcher.take() == []
    scene.gate.open = True
    assert scene.room.announce_departures()
    assert watcher.take() == [left(name) for name in ("b", "a", "c")]
    assert scene.room.announce_departures()
    assert watcher.take() == []


def test_a_silent_removal_is_not_announced(scene: Scene):
    alice, bob = scene.enter("alice"), scene.enter("bob")
    alice.take()
    scene.remove("bob", bob)
    assert scene.room.announce_departures()
    assert alice.take() == []


def test_departures_that_wait_are_never_more_than_there_have_been_members(scene: Scene):
    scene.enter("alice")
    scene.gate.open = False
    for n in range(100):
        scene.leave(f"guest{n}", scene.enter(f"guest{n}", "second"))
    assert len(scene.room._departures) == 1
    assert not scene.room.announce_departures()


def test_the_first_id_can_be_given(scene: Scene):
    room = Room(
        parse_room_name("again"),
        lambda delay_s: SwitchedGate(),
        History(Limits().chat, memory()),
        first_id=20,
    )
    alice = RecordingSubscriber(scene.audiences)
    alice.hear(room.alone)
    assert room.say(parse_name("alice"), ["a", "b"], alice, 0).first_id == 20
    assert room.last_id == 21
