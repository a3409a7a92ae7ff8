"""Where one client's greenlet waits: for its input, for its turn, for its output to go. Must not know what comes of it.

Everything that may end a conversation from outside (the idle time-out, a dismissal, a client that takes nothing more) arrives
here and nowhere else, so it never arrives where something is half done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gevent import Timeout
from gevent.hub import Hub as Loop
from greenlet import getcurrent

from geventchat.clock import Clock
from geventchat.net.departure import Departure, Over

# Closer to the cutoff than a timer can be set.
_SLACK_S = 1e-6


class Vigil:
    """One greenlet's waiting, with one idle time-out that is moved only when it fires."""

    __slots__ = ("_clock", "_greenlet", "_idle", "_idle_s", "_last_heard", "_loop", "_over", "_waiting")

    def __init__(self, loop: Loop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._greenlet: Any = None
        self._idle: Timeout | None = None
        self._idle_s = 0.0
        self._last_heard = clock.monotonic()
        self._over: Departure | None = None
        self._waiting = False

    @property
    def over(self) -> bool:
        """Has somebody ended it from outside?"""
        return self._over is not None

    def begin(self, idle_s: float) -> None:
        """The greenlet that waits is this one; silence of so many seconds ends it (0: never)."""
        self._greenlet = getcurrent()
        self._idle_s = idle_s
        if idle_s:
            # Time may be up before this greenlet has had its first turn.
            self._start_idle(max(_SLACK_S, self._last_heard + idle_s - self._clock.monotonic()))

    def begin_to_part(self) -> None:
        """From now on only trouble ends the waiting, not silence, nor what has led here."""
        self._greenlet = getcurrent()
        self._over = None
        self._stop_idle()

    def heard(self) -> float:
        """The client has said a line: the time of it."""
        self._last_heard = now = self._clock.monotonic()
        return now

    def until(self, watcher: Any) -> None:
        """Wait until the watcher fires; raises Over where the conversation ends instead."""
        while True:
            if self._over is not None:
                raise Over(self._over)
            self._waiting = True
            try:
                self._loop.wait(watcher)
            except Timeout as fired:
                if fired is not self._idle:
                    raise
                # The first reason counts, though its wake-up be still to come.
                if self._over is None:
                    self._look_at_the_clock()
            else:
                # The loop may find input before it gets to the wake-up of an `interrupt`: what is over stays over.
                if self._over is not None:
                    raise Over(self._over)
                return
            finally:
                self._waiting = False

    def pause(self, seconds: float) -> None:
        """Wait for so long. Who waits for its turn to be heard is not silent, however long that takes."""
        self._stop_idle()
        with closing_watcher(self._loop.loop.timer(seconds)) as timer:
            self.until(timer)
        if self._idle_s:
            self._start_idle(self._idle_s)

    def interrupt(self, departure: Departure) -> None:
        """End it, the first reason counts. From the loop, since whoever calls may be in the middle of something."""
        if self._over is None:
            self._over = departure
        self._loop.loop.run_callback(self._wake)

    def _wake(self) -> None:
        if self._waiting and self._over is not None:
            self._waiting = False
            self._greenlet.throw(Over(self._over))

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _start_idle(self, seconds: float) -> None:
        self._idle = Timeout(seconds)
        self._idle.start()

    def _look_at_the_clock(self) -> None:
        # Moving a time-out with every line would cost more than reading the line; the last line says how much is left.
        assert self._idle is not None
        self._idle.close()
        left = self._last_heard + self._idle_s - self._clock.monotonic()
        if left < _SLACK_S:
            raise Over(Departure.IDLE)
        self._start_idle(left)


@contextmanager
def closing_watcher(watcher: Any) -> Iterator[Any]:
    """A watcher for one wait; it must not outlive the descriptor it watches."""
    try:
        yield watcher
    finally:
        watcher.stop()
        watcher.close()
