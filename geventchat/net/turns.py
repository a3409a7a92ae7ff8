"""Turns: what many clients ask for at the same moment is done over several iterations of the event loop, so that what others
say comes in between. Knows no commands and no sockets.

Invariants:
- Clients take their turns in the order in which they ask; those of one iteration go on in any order.
- The timer runs while clients wait, so each iteration lets someone go on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

from gevent.hub import Hub

from geventchat.net.waiter import closing_watcher


class TakesTurns(Protocol):
    """Something that can wait for its turn."""

    def until_turn(self, watcher: Any) -> None:
        """Wait until the watcher fires."""


class Turns:
    """Lets clients go on, in each iteration as many as are worth one turn together, and at least one."""

    __slots__ = ("_hub", "_timer", "_waiting")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # With the share of a turn that each takes.
        self._waiting: OrderedDict[Any, float] = OrderedDict()
        self._timer: Any = None

    def wait(self, waiter: TakesTurns, share: float = 1.0) -> None:
        """Wait for the next iteration, or a later one if others have asked before."""
        with closing_watcher(self._hub.loop.async_()) as entry:
            self._waiting[entry] = share
            if self._timer is None:
                self._start()
            try:
                waiter.until_turn(entry)
            finally:
                # One that has left does not take its turn.
                self._waiting.pop(entry, None)

    def _start(self) -> None:
        self._timer = self._hub.loop.timer(0)
        self._timer.start(self._next)

    def _next(self) -> None:
        self._timer.close()
        self._timer = None
        left = 1.0
        while self._waiting and left > 0:
            entry, share = self._waiting.popitem(last=False)
            left -= share
            entry.send()
        if self._waiting:
            self._start()
