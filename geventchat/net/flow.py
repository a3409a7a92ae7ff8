"""How fast clients can talk: token buckets, and gates at which they wait for each other. Knows no sockets and no lines.

Invariants of Gate:
- Clients that wait are admitted one at a time, one address after the other, so that a thousand clients of one
  address delay another address by one admission.
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


class Rate:
    """How much is allowed: `burst` at once and `per_s` in the long run; `per_s` 0 means no limit. Shared by many buckets."""

    __slots__ = ("burst", "most_owed_s", "per_s", "token_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self.per_s = per_s
        self.burst = burst if per_s else math.inf
        self.token_s = 1 / per_s if per_s else 0.0
        # Once a bucket is in debt by a burst, nothing more is charged: otherwise one moment could silence everyone who
        # shares it for hours.
        self.most_owed_s = 2 * burst / per_s if per_s else math.inf


class TokenBucket:
    """Tokens that are taken from a rate. Pure.

    Its only state is the time at which it will be full again: each token taken postpones that by the time that one token
    takes to return. Charging more tokens than there are leaves a debt, which the next caller waits for.
    """

    __slots__ = ("_full_at", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._full_at = 0.0

    def take(self, wanted: int, now: float) -> int:
        """Take up to this many whole tokens; returns how many there were."""
        rate, full_at = self._rate, self._full_at
        if full_at <= now:
            full_at, there = now, rate.burst
        else:
            there = rate.burst - (full_at - now) * rate.per_s
        # A millionth short of a token is a token; otherwise rounding could ask for a wait too short for any clock.
        granted = wanted if wanted <= there else max(0, int(there + 1e-6))
        self._full_at = full_at + granted * rate.token_s
        return granted

    def charge(self, cost: float, now: float) -> bool:
        """Take this many tokens, even if that leaves a debt; False if there is too much debt to take any."""
        rate, full_at = self._rate, self._full_at
        if full_at < now:
            full_at = now
        if full_at - now >= rate.most_owed_s:
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


class Waits(Protocol):
    """Something that can wait at a gate."""

    def until_admitted(self, watcher: Any) -> None:
        """Wait until the watcher fires."""


class Gate:
    """Admits speakers as fast as `delay_s` allows: 0 when open; infinity when `pump` will be called."""

    __slots__ = ("_admitting", "_delay_s", "_loop", "_passing", "_timer", "_waiting")

    def __init__(self, loop: Loop, delay_s: Callable[[], float]) -> None:
        self._loop = loop
        self._delay_s = delay_s
        self._waiting: dict[str, deque[Any]] = {}
        # The waiter that has been woken and has not entered yet.
        self._admitting: Any = None
        self._passing = False
        self._timer: Any = None

    def is_open(self) -> bool:
        """True when the admitted waiter, or, with an empty queue, anyone, can speak now."""
        if (self._waiting or self._admitting is not None) and not self._passing:
            return False
        return self._delay_s() <= 0

    @contextmanager
    def admission(self, waiter: Waits, address: str) -> Iterator[None]:
        """Wait for admission. The body of the `with` must not wait."""
        with closing_watcher(self._loop.loop.async_()) as entry:
            self._waiting.setdefault(address, deque()).append(entry)
            try:
                self.pump()
                # An event that is sent before anyone waits for it is lost.
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
        """Admit the next waiter if the gate is open; otherwise set a timer for when it opens."""
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
