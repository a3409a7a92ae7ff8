"""What time it is: handed in, so that a test can play with it. Nothing else reads a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of one time."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, for what is due."""

    def time(self) -> float:
        """Seconds since 1970, for what people see."""


class SystemClock:
    """The machine's own time."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
