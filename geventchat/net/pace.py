"""How fast one client may speak: a token bucket. Pure. It says how long to wait; it never drops a line."""

from __future__ import annotations


class Pace:
    """A client may say `burst` lines at once and `per_s` lines a second in the long run."""

    __slots__ = ("_burst", "_per_s", "_since", "_tokens")

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._since = now

    def take(self, lines: int, now: float) -> int:
        """How many of so many lines may be handled now."""
        # What is a billionth short of a line is one: else rounding could ask for a wait too short for any clock to see.
        tokens = min(self._burst, self._tokens + (now - self._since) * self._per_s + 1e-9)
        granted = min(lines, int(tokens))
        self._tokens = tokens - granted
        self._since = now
        return granted

    @property
    def delay_s(self) -> float:
        """How long until one more line may be handled."""
        return max(0.0, (1.0 - self._tokens) / self._per_s)
