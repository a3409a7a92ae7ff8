"""The time, passed in so that tests can replace it. Nothing else reads a clock."""

from __future__ import annotations

import math
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks that advance together."""

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines."""

    def time(self) -> float:
        """Seconds since 1970, for timestamps."""


class SteadyTime:
    """The time of day, but never later than an earlier reading and the time that has passed since then.

    For what is deleted when it is old: a clock that is set ahead makes nothing old. The first reading is `latest_s` if the
    clock is later. It can be called from any thread.
    """

    def __init__(self, clock: Clock, latest_s: float = math.inf) -> None:
        self._clock = clock
        self._offset_s = latest_s - clock.monotonic()
        self()

    def __call__(self) -> float:
        monotonic_s = self._clock.monotonic()
        self._offset_s = min(self._offset_s, self._clock.time() - monotonic_s)
        return self._offset_s + monotonic_s


class SystemClock:
    """The clocks of this machine."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
