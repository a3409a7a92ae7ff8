"""A clock that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """Both readings are `now`."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now
