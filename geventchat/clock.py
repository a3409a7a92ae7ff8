"""The time, passed in so that tests can replace it. Nothing else reads a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks that advance together."""

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines."""

    def time(self) -> float:
        """Seconds since 1970, for timestamps."""


class SystemClock:
    """The clocks of this machine."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
