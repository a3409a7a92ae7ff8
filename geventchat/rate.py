"""Rates, and the token buckets that keep to them. Pure: the time is passed in."""

from __future__ import annotations

import math


class Rate:
    """How much is allowed: `burst` at once and `per_s` in the long run; `per_s` 0 means no limit. Shared by many buckets.

    Once a bucket is in debt by `debt`, which is a burst by default, nothing more is charged: otherwise one moment could
    silence everyone who shares it for hours.
    """

    __slots__ = ("burst", "longest_until_full_s", "per_s", "token_s")

    def __init__(self, per_s: float, burst: float, debt: float | None = None) -> None:
        self.change(per_s, burst, debt)

    def change(self, per_s: float, burst: float, debt: float | None = None) -> None:
        """Allow this much from now on, to all buckets."""
        self.per_s = per_s
        self.burst = burst if per_s else math.inf
        self.token_s = 1 / per_s if per_s else 0.0
        # How long a bucket takes to be full again from the largest debt: the debt to pay back, and a burst to fill up.
        self.longest_until_full_s = (burst + (burst if debt is None else debt)) / per_s if per_s else math.inf


class TokenBucket:
    """Tokens that are taken from a rate.

    Its only state is the time at which it will be full again: each token taken postpones that by the time that one token
    takes to return. Charging more tokens than there are leaves a debt, which the next caller waits for.
    """

    __slots__ = ("_full_at", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._full_at = 0.0

    TRANSIENT = frozenset({"_rate"})

    def to_state(self) -> dict[str, float]:
        """The debt, to be handed over to a process with the same clock."""
        return {"full_at": self._full_at}

    def take_state(self, state: dict[str, float]) -> None:
        """Take over a debt."""
        self._full_at = state["full_at"]

    def take(self, wanted: int, now: float) -> int:
        """Take up to this many whole tokens; returns how many there were."""
        rate, full_at, there = self._rate, self._full_at, self._rate.burst
        if full_at <= now:
            if wanted <= there:
                self._full_at = now + wanted * rate.token_s
                return wanted
            full_at = now
        else:
            there -= (full_at - now) * rate.per_s
        # A millionth short of a token is a token; otherwise rounding could ask for a wait too short for any clock.
        granted = wanted if wanted <= there else max(0, int(there + 1e-6))
        self._full_at = full_at + granted * rate.token_s
        return granted

    def charge(self, cost: float, now: float) -> bool:
        """Take this many tokens, even if that leaves a debt; False if there is too much debt to take any."""
        rate, full_at = self._rate, self._full_at
        if full_at < now:
            full_at = now
        if full_at - now >= rate.longest_until_full_s:
            return False
        self._full_at = full_at + cost * rate.token_s
        return True

    def delay_s(self, wanted: float, now: float) -> float:
        """How long until this many tokens are available."""
        rate, full_at = self._rate, self._full_at
        if full_at <= now and wanted <= rate.burst:
            return 0.0
        delay_s = max(full_at - now, 0.0) + (wanted - rate.burst) * rate.token_s
        return delay_s if delay_s > 1e-9 else 0.0

    def is_full(self, now: float) -> bool:
        """True when everything that was taken has come back."""
        return self._full_at <= now
