"""How fast clients can talk: token buckets, and gates at which they wait for each other. Knows no sockets and no lines.

Invariants of Gate:
- Clients that wait are admitted one at a time, one address after the other, so that a thousand clients of one
  address delay another address by one turn.
- Waiting clients are never overtaken: while the queue is not empty, the gate is closed to all others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from gevent.hub import Hub as Loop

from geventchat.net.waiter import closing_watcher


class TokenBucket:
    """Allows `burst` at once and `per_s` in the long run; `per_s` 0 means no limit. Pure.

    More can be charged than there is; then the next one waits. Beyond a debt of one burst nothing more is charged:
    otherwise what was charged in one moment could silence everyone who shares the bucket for hours.
    """

    __slots__ = ("_burst", "_per_s", "_since", "_tokens")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._since = now

    def take(self, wanted: int, now: float) -> int:
        """Take up to this many whole tokens; returns how many there were."""
        if not self._per_s:
            return wanted
        self._refill(now)
        # A billionth short of a token is a token; otherwise rounding could ask for a wait too short for any clock.
        granted = max(0, min(wanted, int(self._tokens + 1e-9)))
        self._tokens -= granted
        return granted

    def charge(self, cost: float, now: float) -> None:
        """Take this many tokens, even if that leaves a debt."""
        if self._per_s:
            self._refill(now)
            if self._tokens > -self._burst:
                self._tokens -= cost

    def delay_s(self, wanted: float, now: float) -> float:
        """How long until this many tokens are available."""
        if not self._per_s:
            return 0.0
        self._refill(now)
        missing = wanted - self._tokens
        return missing / self._per_s if missing > 1e-9 else 0.0

    def is_full(self, now: float) -> bool:
        """True when everything that was taken has come back."""
        if not self._per_s:
            return True
        self._refill(now)
        return self._tokens >= self._burst

    def _refill(self, now: float) -> None:
        if now > self._since:
            self._tokens = min(self._burst, self._tokens + (now - self._since) * self._per_s)
            self._since = now


class Waits(Protocol):
    """Whoever waits at a gate."""

    def until_admitted(self, watcher: Any) -> None:
        """Wait until the watcher fires."""


class Gate:
    """Admits speakers as fast as `delay_s` allows: 0 when open, infinity when something else will call `pump`."""

    __slots__ = ("_admitting", "_delay_s", "_loop", "_passing", "_timer", "_waiting")

    def __init__(self, loop: Loop, delay_s: Callable[[], float]) -> None:
        self._loop = loop
        self._delay_s = delay_s
        self._waiting: dict[str, deque[Any]] = {}
        # The one that has been woken and has not come through yet.
        self._admitting: Any = None
        self._passing = False
        self._timer: Any = None

    def is_open(self) -> bool:
        """True when something can be said now, by whoever was admitted or, with an empty queue, by anyone."""
        nobody_waits = not self._waiting and self._admitting is None
        return (self._passing or nobody_waits) and self._delay_s() <= 0

    @contextmanager
    def admission(self, waiter: Waits, address: str) -> Iterator[None]:
        """Wait for admission. What is said inside must not wait."""
        with closing_watcher(self._loop.loop.async_()) as entry:
            self._waiting.setdefault(address, deque()).append(entry)
            try:
                self.pump()
                # An event that is sent before somebody waits for it is lost.
                if self._admitting is not entry:
                    waiter.until_admitted(entry)
                self._admitting = None
                self._passing = True
                yield
            finally:
                self._passing = False
                self._forget(address, entry)
                self.pump()

    def pump(self) -> None:
        """Admit the next one if the gate is open, or see to it that somebody does when it is."""
        if not self._waiting or self._admitting is not None:
            return
        delay_s = self._delay_s()
        if delay_s <= 0:
            address, entries = next(iter(self._waiting.items()))
            self._admitting = entries.popleft()
            del self._waiting[address]
            if entries:
                self._waiting[address] = entries
            self._admitting.send()
        elif delay_s < math.inf and self._timer is None:
            self._timer = self._loop.loop.timer(delay_s)
            self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        self._timer.close()
        self._timer = None
        self.pump()

    def _forget(self, address: str, entry: Any) -> None:
        if self._admitting is entry:
            self._admitting = None
        entries = self._waiting.get(address)
        if entries is not None and entry in entries:
            entries.remove(entry)
            if not entries:
                del self._waiting[address]
