"""Gates, at which clients wait for their turn: to speak, to log in, to be read. Knows no sockets and no lines.

A gate has a queue for each key that its callers pass in: an address, or a connection where all that wait have one address.

Invariants of Gate:
- Clients that wait are admitted one at a time, one queue after the other, so that a thousand clients of one address
  delay another address by one client.
- Waiting clients are never overtaken: while one waits, the gate is closed to all others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from gevent.hub import Hub

from geventchat.net.waiter import closing_watcher


class CanWait(Protocol):
    """Something that can wait at a gate."""

    def until_passed(self, watcher: Any) -> None:
        """Wait until the watcher fires."""


class Gate:
    """Lets clients pass one at a time, as soon as `delay_s` is 0. It is infinity when `pump` will be called.

    What they do then, such as saying something or logging in, makes the delay longer for those behind them.
    """

    __slots__ = ("_admitted", "_delay_s", "_hub", "_passing", "_timer", "_waiting")

    def __init__(self, hub: Hub, delay_s: Callable[[], float]) -> None:
        self._hub = hub
        self._delay_s = delay_s
        self._waiting: dict[str, deque[Any]] = {}
        # The one whose turn it is, from when it is woken until it enters.
        self._admitted: Any = None
        # True while the body of a `passage` runs.
        self._passing = False
        self._timer: Any = None

    def is_open(self) -> bool:
        """True when the caller can go on now. While others wait, that is only the one in the body of a `passage`."""
        if (self._waiting or self._admitted is not None) and not self._passing:
            return False
        return self._delay_s() <= 0

    @contextmanager
    def passage(self, waiter: CanWait, queue: str) -> Iterator[None]:
        """Wait in this queue for a turn. The body of the `with` is what passes; it must not wait."""
        with closing_watcher(self._hub.loop.async_()) as entry:
            self._waiting.setdefault(queue, deque()).append(entry)
            try:
                self.pump()
                # An event that is sent before anyone waits for it is lost.
                if self._admitted is not entry:
                    waiter.until_passed(entry)
                self._admitted = None
                self._passing = True
                yield
            finally:
                self._passing = False
                self._forget(queue, entry)
                self.pump()

    def pump(self) -> None:
        """Admit the next waiter if the gate is open; otherwise set a timer for when it opens."""
        if not self._waiting or self._admitted is not None:
            return
        delay_s = self._delay_s()
        if delay_s <= 0:
            queue, entries = next(iter(self._waiting.items()))
            self._admitted = entries.popleft()
            del self._waiting[queue]
            if entries:
                # Behind the other queues.
                self._waiting[queue] = entries
            self._admitted.send()
        elif delay_s < math.inf and self._timer is None:
            self._timer = self._hub.loop.timer(delay_s)
            self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        self._timer.close()
        self._timer = None
        self.pump()

    def _forget(self, queue: str, entry: Any) -> None:
        if self._admitted is entry:
            self._admitted = None
        entries = self._waiting.get(queue)
        if entries is not None and entry in entries:
            entries.remove(entry)
            if not entries:
                del self._waiting[queue]
