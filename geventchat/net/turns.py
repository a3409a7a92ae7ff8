"""Turns: work that many clients request at the same moment is spread over several iterations of the event loop, so that other
clients are served in between. Knows no commands and no protocol.

Invariants of Turns:
- Clients take their turns in the order in which they ask; within one iteration they run in any order.
- The timer runs while clients wait, so each iteration lets someone go on.
- A client that takes a turn while no other waits goes on at once, if something is left of the iteration's.

Invariants of InputTurns:
- A client that waits for its turn costs nothing: its input waits in the kernel, in the order of arrival.
- A descriptor is in the epoll instance from the first wait until its watcher is closed. Its events are ignored while the
  watcher does not wait, and reported again when it does.
"""

from __future__ import annotations

import select
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from gevent import monkey
from gevent.hub import Hub

from geventchat.net.waiter import closing_watcher

_READ = 1
# How many clients of InputTurns go on in one iteration.
_INPUTS_AT_ONCE = 8
_ARMED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
# The original, even if an embedding program has patched the standard library.
_epoll: Callable[[], select.epoll] = monkey.get_original("select", "epoll")


class TakesTurns(Protocol):
    """Something that can wait for its turn."""

    def until_turn(self, watcher: Any) -> None:
        """Wait until the watcher fires."""


class Turns:
    """Lets clients go on, in each iteration those that are worth one turn together, and at least one."""

    __slots__ = ("_hub", "_left", "_timer", "_waiting")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # With the share of a turn that each takes.
        self._waiting: OrderedDict[Any, float] = OrderedDict()
        self._timer: Any = None
        # What is left of the turn of this iteration, for those who take one.
        self._left = 1.0

    def take(self, waiter: TakesTurns, share: float) -> None:
        """Go on at once if no client waits and something is left of this iteration's turn; otherwise wait for a later one."""
        if self._waiting or self._left <= 0:
            self.wait(waiter, share)
            return
        self._left -= share
        if self._timer is None:
            self._start()

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
        self._left = left
        if self._waiting or left < 1:
            self._start()


class InputTurns:
    """Waits for the input of many clients, and lets a few of them go on in each iteration.

    The loop's own watchers would run everyone whose input has arrived in one iteration.
    """

    __slots__ = ("_epoll", "_waiting", "_watcher")

    def __init__(self, hub: Hub) -> None:
        self._epoll = _epoll()
        self._waiting: dict[int, _Input] = {}
        self._watcher: Any = hub.loop.io(self._epoll.fileno(), _READ)
        self._watcher.start(self._next)

    def watcher(self, fileno: int) -> Any:
        """A watcher for the input of this descriptor, in place of the loop's."""
        return _Input(self._epoll, self._waiting, fileno)

    def close(self) -> None:
        """Let no one continue."""
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()

    def _next(self) -> None:
        for fileno, _ in self._epoll.poll(0, _INPUTS_AT_ONCE):
            # A turn can have ended a later one.
            if (turn := self._waiting.get(fileno)) is not None:
                turn.fire()


class _Input:
    """The watcher of one descriptor."""

    __slots__ = ("_callback", "_epoll", "_fileno", "_is_registered", "_waiting")

    def __init__(self, epoll: select.epoll, waiting: dict[int, _Input], fileno: int) -> None:
        self._epoll = epoll
        self._waiting = waiting
        self._fileno = fileno
        self._is_registered = False
        self._callback: tuple[Callable[..., object], tuple[object, ...]] | None = None

    def start(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call this once, when there is input and its turn has come."""
        self._callback = callback, arguments
        self._waiting[self._fileno] = self
        if self._is_registered:
            self._epoll.modify(self._fileno, _ARMED)
        else:
            self._epoll.register(self._fileno, _ARMED)
            self._is_registered = True

    def fire(self) -> None:
        """There is input, and the kernel says so no more."""
        del self._waiting[self._fileno]
        assert self._callback is not None
        callback, arguments = self._callback
        self._callback = None
        callback(*arguments)

    def stop(self) -> None:
        """Do not call any more."""
        if self._callback is not None:
            self._callback = None
            del self._waiting[self._fileno]

    def close(self) -> None:
        """Release the descriptor, before it is closed."""
        self.stop()
        if self._is_registered:
            self._is_registered = False
            self._epoll.unregister(self._fileno)
