"""Any order of arrivals and departures at a gate is fair to every address."""

from __future__ import annotations

import math
from collections import Counter

import gevent
from hypothesis import given
from hypothesis import strategies as st

from tests.geventchat.test_gate import ClosingList, Scene
from tests.geventchat.virtual_time import VirtualTime, virtual_time

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
