"""The gate at which speakers wait admits one at a time, one address after the other, without overtaking; in virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from geventchat.net.gate import Gate
from geventchat.rate import Rate, TokenBucket
from tests.geventchat.virtual_time import VirtualTime, virtual_time


class Scene:
    """A gate whose delay the test sets, and the clients that have passed it, in order."""

    def __init__(self, time: VirtualTime, delay_s: float = math.inf) -> None:
        self.time = time
        self.delay_s = delay_s
        self.asked = 0
        self.gate = Gate(time.hub, self._delay_s)
        self.passed: list[str] = []

    def _delay_s(self) -> float:
        self.asked += 1
        return self.delay_s

    def until_passed(self, watcher: Any) -> None:
        """Wait as a connection would."""
        self.time.hub.wait(watcher)

    def wait(self, name: str, address: str = "an address") -> gevent.Greenlet[..., None]:
        """A client waits at the gate."""

        def body() -> None:
            with self.gate.passage(self, address):
                assert self.gate.is_open() == (self.delay_s <= 0)
                self.passed.append(name)

        greenlet = gevent.spawn(body)
        self.time.run_until_idle()
        return greenlet

    def open(self, delay_s: float = 0.0) -> None:
        """Change the delay and pump the gate."""
        self.delay_s = delay_s
        self.gate.pump()
        self.time.run_until_idle()

    def is_empty(self) -> bool:
        return not self.gate._waiting and self.gate._admitted is None and not self.gate._passing


class ClosingList(list):
    """Closes the gate when a client passes, like a message that fills a batch."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    def append(self, name: str) -> None:
        super().append(name)
        self._scene.delay_s = math.inf


@pytest.fixture
def scene() -> Iterator[Scene]:
    with virtual_time() as time:
        # The timers of a gate are set in the greenlets that wait and in the loop.
        yield gevent.spawn(Scene, time).get()


def test_an_open_gate_is_open_to_anyone(scene: Scene):
    scene.delay_s = 0.0
    assert scene.gate.is_open()
    scene.delay_s = 0.001
    assert not scene.gate.is_open()


def test_a_waiter_is_admitted_when_the_gate_is_pumped(scene: Scene):
    waiting = scene.wait("a")
    scene.time.advance(1_000)
    assert not waiting.ready()
    assert scene.time.timers == 0, "an infinite delay ends with a pump"
    scene.open()
    assert scene.passed == ["a"]
    assert scene.is_empty()


def test_a_finite_delay_ends_by_itself(scene: Scene):
    scene.delay_s = 5.0
    scene.wait("a")
    scene.time.advance(4.9)
    assert scene.passed == []
    scene.delay_s = 0.0
    scene.time.advance(0.1)
    assert scene.passed == ["a"]
    assert scene.time.timers == 0


def test_a_delay_that_has_grown_meanwhile_is_waited_for_again(scene: Scene):
    scene.delay_s = 5.0
    scene.wait("a")
    scene.time.advance(5)
    assert scene.passed == []
    assert scene.time.timers == 1
    scene.delay_s = 0.0
    scene.time.advance(5)
    assert scene.passed == ["a"]


def test_a_gate_sets_one_timer_however_many_wait(scene: Scene):
    scene.delay_s = 5.0
    for n in range(10):
        scene.wait(f"{n}")
        scene.gate.pump()
    assert scene.time.timers == 1


def test_clients_of_one_address_pass_in_order_of_arrival(scene: Scene):
    for n in range(5):
        scene.wait(f"{n}")
    scene.open()
    assert scene.passed == ["0", "1", "2", "3", "4"]


def test_addresses_take_turns(scene: Scene):
    for n in range(4):
        scene.wait(f"a{n}", "a")
    for n in range(2):
        scene.wait(f"b{n}", "b")
    scene.wait("c0", "c")
    scene.open()
    assert scene.passed == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_thousand_of_one_address_delay_another_address_by_one_admission(scene: Scene):
    for n in range(1_000):
        scene.wait(f"a{n}", "a")
    scene.wait("b", "b")
    scene.open()
    assert scene.passed.index("b") == 1
    assert len(scene.passed) == 1_001


def test_one_is_admitted_at_a_time(scene: Scene):
    for n in range(3):
        scene.wait(f"{n}", f"{n}")
    for n in range(3):
        scene.passed = ClosingList(scene)
        scene.open()
        assert scene.passed == [f"{n}"]


def test_waiting_clients_are_never_overtaken(scene: Scene):
    scene.wait("first")
    scene.delay_s = 0.0
    assert not scene.gate.is_open(), "a client waits"
    scene.gate.pump()
    assert not scene.gate.is_open(), "a client is admitted and has not entered"
    scene.time.run_until_idle()
    assert scene.passed == ["first"]
    assert scene.gate.is_open()


def test_a_gate_that_opens_before_the_wait_begins_admits_at_once(scene: Scene):
    scene.delay_s = 0.0
    scene.wait("a")
    scene.wait("b")
    assert scene.passed == ["a", "b"]
    assert scene.is_empty()


@pytest.mark.parametrize("admitted", [False, True], ids=["waiting", "admitted"])
def test_a_waiter_that_dies_passes_its_admission_on(scene: Scene, admitted: bool):
    dying = scene.wait("dying", "a")
    scene.wait("second", "a")
    scene.wait("third", "b")
    scene.delay_s = 0.0
    if admitted:
        scene.gate.pump()
        assert scene.gate._admitted is not None
    dying.kill(block=False)
    scene.time.run_until_idle()
    assert dying.ready()
    assert sorted(scene.passed) == ["second", "third"]
    assert scene.is_empty()
    assert scene.gate.is_open()


def test_the_last_of_an_address_that_dies_leaves_nothing(scene: Scene):
    dying = scene.wait("dying", "a")
    dying.kill(block=False)
    scene.time.run_until_idle()
    assert scene.is_empty()


def test_an_error_inside_passes_the_admission_on(scene: Scene):
    def fail() -> None:
        with pytest.raises(ZeroDivisionError), scene.gate.passage(scene, "a"):
            raise ZeroDivisionError

    failing = gevent.spawn(fail)
    scene.time.run_until_idle()
    scene.wait("b", "b")
    scene.open()
    assert failing.successful()
    assert scene.passed == ["b"]
    assert scene.is_empty()


def test_a_waiter_that_is_refused_inside_waits_again_at_the_end_of_its_address(scene: Scene):
    def twice() -> None:
        for attempt in (1, 2):
            with scene.gate.passage(scene, "a"):
                scene.passed.append(f"a{attempt}")

    gevent.spawn(twice)
    scene.time.run_until_idle()
    scene.wait("b", "b")
    scene.open()
    assert scene.passed == ["a1", "b", "a2"]


def test_the_watchers_of_admitted_clients_are_closed(scene: Scene):
    closed: list[str] = []
    async_ = scene.time.hub.loop.async_

    def watched() -> Any:
        watcher = async_()
        original = watcher.close

        class Closing:
            def __getattr__(self, name: str) -> Any:
                return getattr(watcher, name)

            def close(self) -> None:
                closed.append("closed")
                original()

        return Closing()

    scene.time.hub.loop.async_ = watched
    scene.wait("a")
    scene.open()
    scene.time.hub.loop.async_ = async_
    assert closed == ["closed"]


def test_a_token_bucket_and_a_gate_together_keep_the_rate():
    with virtual_time() as time:
        bucket = TokenBucket(Rate(10, 20))

        def play() -> list[float]:
            scene = Scene(time)
            scene.gate = Gate(time.hub, lambda: bucket.delay_s(1, time.clock.monotonic()))
            times: list[float] = []

            def speak() -> None:
                while True:
                    with scene.gate.passage(scene, "a"):
                        bucket.charge(1, time.clock.monotonic())
                        times.append(time.now_s)

            speakers = [gevent.spawn(speak) for _ in range(5)]
            time.advance(30)
            for speaker in speakers:
                speaker.kill(block=False)
            time.run_until_idle()
            return times

        times = gevent.spawn(play).get()
    assert len(times) == 20 + 30 * 10
    assert max(sum(at <= other < at + 1 for other in times) for at in times[20:]) <= 11
