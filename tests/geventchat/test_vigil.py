"""Where a client's greenlet waits, and which of two reasons to end it counts."""

from __future__ import annotations

import gevent

from geventchat.net.departure import Departure, Over
from geventchat.net.vigil import Vigil


class Clock:
    """A time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Drowsy(Vigil):
    """Its wake-up comes late, as where thousands are: the loop runs only so many callbacks before it looks at its timers."""

    def _wake(self) -> None:
        pass


def departure_of(vigil: Vigil, idle_s: float) -> gevent.Greenlet:
    """Wait for what never comes, and return what ended it."""

    def wait() -> Departure | None:
        vigil.begin(idle_s)
        with gevent.get_hub().loop.async_() as never:
            try:
                vigil.until(never)
            except Over as over:
                return over.departure
        return None

    return gevent.spawn(wait)


def test_silence_that_was_too_long_before_the_greenlet_began_is_too_long():
    clock = Clock()
    vigil = Vigil(gevent.get_hub(), clock)
    clock.now += 61
    with gevent.Timeout(5):
        assert departure_of(vigil, 60.0).get() is Departure.IDLE


def test_who_is_dismissed_in_the_moment_that_the_time_is_up_is_dismissed():
    clock = Clock()
    vigil = Drowsy(gevent.get_hub(), clock)
    waiting = departure_of(vigil, 0.01)
    gevent.sleep(0)
    clock.now += 1
    vigil.interrupt(Departure.SHUTDOWN)
    with gevent.Timeout(5):
        assert waiting.get() is Departure.SHUTDOWN
