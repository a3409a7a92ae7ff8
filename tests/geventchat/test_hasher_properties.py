"""Any sequence of clients that ask for a hash and hang up: the bounds hold, and no place is lost."""

from __future__ import annotations

from typing import Any

import gevent
from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.passwords import HasherFull, Password
from geventchat.services.passwords import Cost, Hasher
from tests.geventchat.virtual_time import VirtualTime, virtual_time

CHEAP = Cost(4, 1, 1)
AT_ONCE, WAITING = 2, 4
# A client at this address asks; the client with this number hangs up; time passes.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("aaabc")),
        st.tuples(st.just("hang up"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 1.0])),
    ),
    max_size=40,
)


class HungUp(BaseException):
    """The exception that ends the greenlet of a client."""


class World:
    """A hasher whose hashes take a second each, and its clients."""

    def __init__(self, time: VirtualTime) -> None:
        self.time = time
        self.hasher = Hasher(CHEAP, at_once=AT_ONCE, waiting=WAITING, derive=self._derive)
        self.running: list[str] = []
        self.waiting: dict[int, str] = {}
        self.clients: list[gevent.Greenlet[..., Any]] = []
        self.refused: list[int] = []

    def _derive(self, password: bytes, salt: bytes, cost: Cost) -> bytes:
        number, origin = password.decode().split()
        self.waiting.pop(int(number))
        self.running.append(origin)
        assert len(self.running) <= AT_ONCE
        gevent.sleep(1)
        self.running.remove(origin)
        return bytes(32)

    def ask(self, origin: str) -> None:
        number = len(self.clients)
        places = list(self.waiting.values())
        most = max([places.count(other) for other in "abc"], default=0)
        full = self.hasher.is_full(origin)
        assert full == (len(places) == WAITING and most < places.count(origin) + 2)
        refused = len(self.refused)

        def body() -> None:
            self.waiting[number] = origin
            try:
                self.hasher.hash(Password(f"{number} {origin}"), origin)
            except HasherFull:
                self.refused.append(number)
                del self.waiting[number]
            except HungUp:
                self.waiting.pop(number, None)

        self.clients.append(gevent.spawn(body))
        self.time.run_until_idle()
        assert (number in self.refused) == full
        if not full and len(places) == WAITING:
            # One of those with the most places has lost its last one.
            assert len(self.refused) == refused + 1
            assert list(self.waiting.values()).count(origin) == places.count(origin) + 1
            assert max(list(self.waiting.values()).count(other) for other in "abc") <= most
        else:
            assert len(self.refused) == refused + full
        assert len(self.waiting) <= WAITING


@given(STEPS)
def test_the_bounds_hold_and_no_place_is_lost(steps):
    with virtual_time() as time:
        world = World(time)
        for step, value in steps:
            if step == "ask":
                world.ask(value)
            elif step == "wait":
                time.advance(value)
            elif value < len(world.clients):
                gevent.kill(world.clients[value], HungUp)
                time.run_until_idle()
            # Nothing waits while a place is free.
            assert not world.waiting or len(world.running) == AT_ONCE
        time.advance(len(steps) + 1)
        assert all(client.ready() for client in world.clients)
        assert not world.waiting
        assert not world.running
        # All places are free again.
        for _ in range(AT_ONCE + WAITING):
            assert not world.hasher.is_full("a")
            world.ask("a")
        assert world.hasher.is_full("a")
        time.advance(AT_ONCE + WAITING)


@given(st.integers(1, 12), st.integers(1, 4))
def test_an_address_waits_for_one_hash_of_each_other_address_at_most(many, others):
    with virtual_time() as time:
        hasher = Hasher(CHEAP, at_once=1, derive=lambda *_: gevent.sleep(1) or bytes(32))
        for other in range(others):
            for _ in range(many):
                gevent.spawn(hasher.hash, Password("somebody"), f"address{other}")
        time.run_until_idle()
        asking = gevent.spawn(hasher.hash, Password("me"), "mine")
        time.run_until_idle()
        # The one at work, one of each other address, and its own.
        time.advance(1 + others + 1)
        assert asking.ready()
        time.advance(many * others)
