"""A room: its members in order, its audiences, its one gate, and the ids of its messages."""

from __future__ import annotations

import math

import pytest

from geventchat.chat.events import Joined, Left, Said
from geventchat.chat.names import parse_name
from geventchat.chat.rooms import Room
from tests.geventchat.recording import RecordingAudience, RecordingSubscriber, SwitchedGate


class DelayedAudience(RecordingAudience):
    """An audience that says when it can be spoken to."""

    delay = 0.0

    def delay_s(self) -> float:
        return self.delay


class Scene:
    """A room, its gate, and two audiences."""

    def __init__(self) -> None:
        self.gate = SwitchedGate()
        self.delay_s = lambda: 0.0
        self.room = Room("a room", self._new_gate)
        self.first, self.second = DelayedAudience(), DelayedAudience()

    def _new_gate(self, delay_s):
        self.delay_s = delay_s
        return self.gate

    def enter(self, name: str, audience: DelayedAudience) -> RecordingSubscriber:
        subscriber = RecordingSubscriber(audience)
        self.room.enter(parse_name(name), subscriber, 0)
        return subscriber


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_names_are_in_the_order_of_entering_and_a_live_view(scene: Scene):
    names = scene.room.names
    subscribers = {name: scene.enter(name, scene.first) for name in ("carol", "Alice", "bob")}
    assert list(names) == ["carol", "Alice", "bob"]
    scene.room.leave(parse_name("ALICE"), subscribers["Alice"], 0)
    scene.enter("alice", scene.first)
    assert list(names) == ["carol", "bob", "alice"]


def test_every_audience_hears_everything_once(scene: Scene):
    alice = scene.enter("alice", scene.first)
    bob, carol = scene.enter("bob", scene.second), scene.enter("carol", scene.second)
    for subscriber in (alice, bob, carol):
        subscriber.take()
    said = scene.room.say(parse_name("bob"), ["hi"], bob, 5)
    assert said == Said("a room", "bob", ["hi"], 1, 5)
    assert alice.take() == carol.take() == [said]
    scene.room.leave(parse_name("bob"), bob, 6)
    assert alice.take() == carol.take() == [Left("a room", "bob", 6)]
    assert bob.take() == []


def test_a_newcomer_is_subscribed_before_it_is_announced(scene: Scene):
    alice = scene.enter("alice", scene.first)
    alice.take()
    scene.enter("bob", scene.first)
    assert alice.take() == [Joined("a room", "bob", 0)]


def test_the_gate_belongs_to_an_audience_while_it_has_members(scene: Scene):
    alice, bob = scene.enter("alice", scene.first), scene.enter("bob", scene.first)
    assert scene.first.gates == [scene.gate]
    assert scene.second.gates == []
    scene.room.leave(parse_name("alice"), alice, 0)
    assert scene.first.gates == [scene.gate]
    pumped = scene.gate.pumped
    scene.room.remove(parse_name("bob"), bob)
    assert scene.first.gates == []
    assert scene.gate.pumped == pumped + 1, "an audience that has gone can have been what closed the gate"
    assert scene.room._audiences == ()


def test_the_delay_is_that_of_the_slowest_audience_with_members(scene: Scene):
    assert scene.delay_s() == 0
    scene.first.delay, scene.second.delay = 2.0, math.inf
    alice = scene.enter("alice", scene.first)
    assert scene.delay_s() == 2.0
    bob = scene.enter("bob", scene.second)
    assert scene.delay_s() == math.inf
    scene.room.remove(parse_name("bob"), bob)
    assert scene.delay_s() == 2.0
    scene.room.remove(parse_name("alice"), alice)
    assert scene.delay_s() == 0


def test_departures_are_announced_in_order_as_far_as_the_gate_allows(scene: Scene):
    subscribers = {name: scene.enter(name, scene.first) for name in ("a", "b", "c", "watcher")}
    watcher = subscribers["watcher"]
    watcher.take()
    scene.gate.open = False
    for name in ("b", "a", "c"):
        scene.room.leave(parse_name(name), subscribers[name], 0)
    assert not scene.room.announce_departures()
    assert watcher.take() == []
    scene.gate.open = True
    assert scene.room.announce_departures()
    assert watcher.take() == [Left("a room", name, 0) for name in ("b", "a", "c")]
    assert scene.room.announce_departures()
    assert watcher.take() == []


def test_a_silent_removal_is_not_announced(scene: Scene):
    alice, bob = scene.enter("alice", scene.first), scene.enter("bob", scene.first)
    alice.take()
    scene.room.remove(parse_name("bob"), bob)
    assert scene.room.announce_departures()
    assert alice.take() == []


def test_departures_that_wait_are_never_more_than_there_have_been_members(scene: Scene):
    scene.enter("alice", scene.first)
    scene.gate.open = False
    for n in range(100):
        name = parse_name(f"guest{n}")
        scene.room.leave(name, scene.enter(name.shown, scene.second), 0)
    assert len(scene.room._departures) == 1
    assert not scene.room.announce_departures()
