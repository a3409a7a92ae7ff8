"""A gevent loop on which time moves only when a test moves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent

from harness.stage.gevent_loop import VirtualLoop, fresh_world
from harness.stage.virtual_time import VirtualClock

_US = 1_000_000


class VirtualTime:
    """The loop, its clock, and the only ways in which time passes.

    Greenlets under test have to be spawned: timers that the test's own greenlet makes are real.
    """

    def __init__(self, hub: Any, loop: VirtualLoop) -> None:
        self.hub = hub
        self.clock = VirtualClock(loop)
        self._loop = loop

    @property
    def now_us(self) -> int:
        """Microseconds since the beginning."""
        return self._loop.elapsed_us

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return self._loop.elapsed_us / _US

    @property
    def timers(self) -> int:
        """How many timers are set."""
        return len(self._loop.timers)

    def run_until_idle(self) -> None:
        """Let everything happen that can happen at this instant."""
        gevent.idle(self._loop.MINPRI)

    def advance_to(self, at_us: int) -> None:
        """Let time pass; each timer fires at its own instant."""
        self.run_until_idle()
        while (due := self._loop.next_due_us) is not None and due <= at_us:
            # Everything due at one instant runs in one iteration of the loop, as in real time.
            while self._loop.next_due_us == due:
                self._loop.fire_next()
            self.run_until_idle()
        self._loop.move_to(at_us)

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self.advance_to(self.now_us + round(seconds * _US))

    def stand_still(self, seconds: float) -> None:
        """Let this much time pass without the loop running, as when the process is suspended.

        When the loop runs again, every timer that is due by then fires first.
        """
        self._loop.move_to(self.now_us + round(seconds * _US))
        while (due := self._loop.next_due_us) is not None and due <= self.now_us:
            self._loop.fire_next()

    def finish(self, greenlet: gevent.Greenlet[..., Any]) -> Any:
        """Let time pass until this greenlet has ended; what it returned."""
        while not greenlet.ready():
            self.run_until_idle()
            if not greenlet.ready():
                self._loop.fire_next()
        return greenlet.get(block=False)


@contextmanager
def virtual_time() -> Iterator[VirtualTime]:
    """A separate loop for one test; fails if a greenlet on it died of an error."""
    with fresh_world(VirtualLoop) as world:
        assert isinstance(world.loop, VirtualLoop)
        try:
            yield VirtualTime(world.hub, world.loop)
        finally:
            errors = world.error_log.getvalue()
        assert not errors, errors
