"""How late the event loop is: a timer that notes by how much. Knows nothing of what the loop does."""

from __future__ import annotations

import math
from typing import Any

from gevent.hub import Hub

from geventchat.clock import Clock

INTERVAL_S = 0.5
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf)


class LoopDelay:
    """A histogram of delays, one every half second. What waits in the loop waits about as long."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock
        # How many delays were up to each bound and above the one before.
        self.counts = [0] * len(BOUNDS_S)
        self.total_s = 0.0
        self._due = 0.0
        self._timer: Any = None
        self._start()

    def close(self) -> None:
        """Measure no more."""
        self._timer.close()

    def _start(self) -> None:
        # A new one each time: the loop's timers cannot be restarted.
        self._due = self._clock.monotonic() + INTERVAL_S
        self._timer = self._hub.loop.timer(INTERVAL_S)
        self._timer.start(self._note)

    def _note(self) -> None:
        delay_s = max(0.0, self._clock.monotonic() - self._due)
        self.total_s += delay_s
        self.counts[next(at for at, bound_s in enumerate(BOUNDS_S) if delay_s <= bound_s)] += 1
        self._timer.close()
        self._start()
