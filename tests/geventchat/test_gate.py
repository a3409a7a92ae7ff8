"""The gate at which speakers wait: one at a time, one address after the other, and nobody overtakes; in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.net.flow import Gate, TokenBucket
from tests.geventchat.virtual_time import VirtualTime, virtual_time


class Scene:
    """A gate whose delay the test sets, and everyone who has passed it, in order."""

    def __init__(self, time: VirtualTime, delay_s: float = math.inf) -> None:
        self.time = time
        self.delay_s = delay_s
        self.asked = 0
        self.gate = Gate(time.hub, self._delay_s)
        self.passed: list[str] = []

    def _delay_s(self) -> float:
        self.asked += 1
        return self.delay_s

    def until_admitted(self, watcher: Any) -> None:
        """Wait as a connection would."""
        self.time.hub.wait(watcher)

    def wait(self, name: str, address: str = "an address") -> gevent.Greenlet[..., None]:
        """Somebody waits at the gate."""

        def body() -> None:
            with self.gate.admission(self, address):
                assert self.gate.is_open() == (self.delay_s <= 0)
                self.passed.append(name)

        greenlet = gevent.spawn(body)
        self.time.run_until_idle()
        return greenlet

    def open(self, delay_s: float = 0.0) -> None:
        """The delay has changed, and whoever knows pumps the gate."""
        self.delay_s = delay_s
        self.gate.pump()
        self.time.run_until_idle()

    def is_empty(self) -> bool:
        return not self.gate._waiting and self.gate._admitting is None and not self.gate._passing


class ClosingList(list):
    """Closes the gate when somebody passes, as a message that fills a turn does."""

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


def test_whoever_waits_is_admitted_when_the_gate_is_pumped(scene: Scene):
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


def test_those_of_one_address_pass_in_the_order_in_which_they_came(scene: Scene):
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


def test_a_thousand_of_one_address_delay_another_address_by_one_turn(scene: Scene):
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


def test_nobody_overtakes_those_who_wait(scene: Scene):
    scene.wait("first")
    scene.delay_s = 0.0
    assert not scene.gate.is_open(), "somebody waits"
    scene.gate.pump()
    assert not scene.gate.is_open(), "somebody is admitted and has not come through"
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
def test_one_that_dies_passes_its_admission_on(scene: Scene, admitted: bool):
    dying = scene.wait("dying", "a")
    scene.wait("second", "a")
    scene.wait("third", "b")
    scene.delay_s = 0.0
    if admitted:
        scene.gate.pump()
        assert scene.gate._admitting is not None
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
        with pytest.raises(ZeroDivisionError), scene.gate.admission(scene, "a"):
            raise ZeroDivisionError

    failing = gevent.spawn(fail)
    scene.time.run_until_idle()
    scene.wait("b", "b")
    scene.open()
    assert failing.successful()
    assert scene.passed == ["b"]
    assert scene.is_empty()


def test_one_that_is_refused_inside_waits_again_at_the_end_of_its_address(scene: Scene):
    def twice() -> None:
        for attempt in (1, 2):
            with scene.gate.admission(scene, "a"):
                scene.passed.append(f"a{attempt}")

    gevent.spawn(twice)
    scene.time.run_until_idle()
    scene.wait("b", "b")
    scene.open()
    assert scene.passed == ["a1", "b", "a2"]


def test_the_watchers_of_those_who_have_passed_are_closed(scene: Scene):
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


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("die"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(EVENTS)
def test_each_address_waits_for_at_most_one_of_every_other(events: list[tuple[str, int]]):
    """Between two admissions of an address that waits all the time, every other address is admitted at most once."""

    def play(time: VirtualTime) -> None:
        scene = Scene(time)
        alive: list[tuple[str, str, gevent.Greenlet[..., None]]] = []
        came: Counter[str] = Counter()
        for event, number in events:
            if event == "wait":
                address = "abcd"[number]
                name = f"{address}{came[address]}"
                came[address] += 1
                alive.append((name, address, scene.wait(name, address)))
            elif event == "die" and alive:
                alive.pop(number % len(alive))[2].kill(block=False)
                time.run_until_idle()
            elif event == "pass":
                for _ in range(number):
                    waiting = {address for _, address, greenlet in alive if not greenlet.ready()}
                    scene.passed = ClosingList(scene)
                    scene.open()
                    assert len(scene.passed) == bool(waiting)
                    history.append((waiting, scene.passed[0][0] if waiting else ""))
                    alive[:] = [one for one in alive if not one[2].ready()]
                scene.delay_s = math.inf
        scene.passed = []
        scene.open()
        assert sorted(scene.passed) == sorted(name for name, _, _ in alive)
        assert scene.is_empty()

    history: list[tuple[set[str], str]] = []
    with virtual_time() as time:
        gevent.spawn(play, time).get()
    for address in "abcd":
        since: Counter[str] = Counter()
        for waiting, admitted in history:
            if address not in waiting or admitted == address:
                since.clear()
            else:
                since[admitted] += 1
                assert since[admitted] <= 1, f"{address} waited while {admitted} was admitted twice"


def test_a_token_bucket_and_a_gate_together_keep_the_rate():
    with virtual_time() as time:
        bucket = TokenBucket(10, 20)

        def play() -> list[float]:
            scene = Scene(time)
            scene.gate = Gate(time.hub, lambda: bucket.delay_s(1, time.clock.monotonic()))
            times: list[float] = []

            def speak() -> None:
                while True:
                    with scene.gate.admission(scene, "a"):
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
