"""A clock that stands still until a test moves it, or sets its time of day."""

from __future__ import annotations


class ManualClock:
    """Both readings are `now`, and the time of day is `ahead` of it."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.ahead = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.ahead
