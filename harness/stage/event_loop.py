"""The interface of a stage's event loop, and the loop for servers outside this process.

- Everything runs in the thread of the test: sockets are read while a loop pauses, advances or waits to write.
- `pause` returns when anything was received or ended, or when its time is up.
- The loop for servers inside this process is in `virtual_time`; nothing here needs gevent.
"""

from __future__ import annotations

import math
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from harness.stage.kernel import original
from harness.stage.limits import LimitClock, Processes

_poll: Any = original("select", "poll")


class Clock(Protocol):
    """The clock of a server; pass it in instead of calling the `time` module."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class RealClock:
    """The clocks of this machine, or of a server whose time passes `factor` times faster."""

    def __init__(self, factor: int = 1) -> None:
        self._factor = factor

    def monotonic(self) -> float:
        return time.monotonic() * self._factor

    def time(self) -> float:
        return time.time()


class Reader(Protocol):
    """While started, calls back when a socket is readable."""

    def start(self, callback: Callable[[], None], /) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class EventLoop(ABC):
    """Drives the sockets of one stage."""

    virtual = False
    """True if time is virtual, so that silence is proven without waiting."""
    unseen = ""
    """In virtual time: the work that the loop did not see; empty if there was none."""
    moment_s = 0.005
    """The real time without input after which virtual time moves although unseen work is under way."""

    def __init__(self, clock: Clock, factor: int = 1, processes: Processes = tuple) -> None:
        self.clock = clock
        self.limits = LimitClock(processes)
        """The clock of everything that is only allowed to take so long; `processes` are those of the server."""
        self.factor = factor
        """How many seconds of the server's time pass in one second of real time, where time is not virtual."""
        self._started_s = clock.monotonic()

    def now(self) -> float:
        """Seconds since the stage was ready, in the server's time."""
        return self.clock.monotonic() - self._started_s

    def restart_time(self) -> None:
        """Count `now` from this moment."""
        self._started_s = self.clock.monotonic()

    @abstractmethod
    def register(self, connection: Any) -> None:
        """Register a connection, which can have bytes in flight until the stage ends."""

    @abstractmethod
    def reader(self, fileno: int) -> Reader:
        """A reader for this socket."""

    @abstractmethod
    def wait_writable(self, fileno: int, seconds: float) -> bool:
        """Wait until the socket can be written to; False when the time is up. Others are read meanwhile."""

    @abstractmethod
    def wake(self) -> None:
        """Let `pause` return: something was received or ended."""

    @abstractmethod
    def pause(self, seconds: float) -> None:
        """Read sockets until something arrives, for at most this long in real time."""

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Let this much of the server's time pass."""

    @abstractmethod
    def wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let as much of the server's time pass as this needs, at most so many seconds by either clock; False if it is not
        done then, or cannot be."""

    @abstractmethod
    def settle(self) -> bool:
        """Run until nothing more can happen at this instant; False if only waiting can tell."""


LONGEST_POLL_S = 3600
"""The kernel takes milliseconds in 32 bits."""


class _PolledReader:
    def __init__(self, loop: RealTime, fileno: int) -> None:
        self._loop = loop
        self._fileno = fileno

    def start(self, callback: Callable[[], None]) -> None:
        self._loop.set_reader(self._fileno, callback)

    def stop(self) -> None:
        self._loop.set_reader(self._fileno, None)

    close = stop


class RealTime(EventLoop):
    """Plain sockets and a poll, for servers in other processes or on other machines."""

    def __init__(self, factor: int = 1, processes: Processes = tuple) -> None:
        super().__init__(RealClock(factor), factor, processes)
        self._poll = _poll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._watched: set[int] = set()
        self._writing: int | None = None
        self._woken = False

    def register(self, connection: Any) -> None:
        """Do nothing: the kernel says what is in flight on each connection."""

    def reader(self, fileno: int) -> Reader:
        return _PolledReader(self, fileno)

    def set_reader(self, fileno: int, callback: Callable[[], None] | None) -> None:
        """Call back when the socket is readable, or no longer."""
        if callback is not None:
            self._callbacks[fileno] = callback
        else:
            self._callbacks.pop(fileno, None)
        self._watch(fileno)

    def _watch(self, fileno: int) -> None:
        events = (select.POLLIN if fileno in self._callbacks else 0) | (
            select.POLLOUT if fileno == self._writing else 0
        )
        if events:
            self._poll.register(fileno, events)
            self._watched.add(fileno)
        elif fileno in self._watched:
            self._poll.unregister(fileno)
            self._watched.discard(fileno)

    def wait_writable(self, fileno: int, seconds: float) -> bool:
        limit = self.limits.limit(seconds)
        self._writing = fileno
        self._watch(fileno)
        try:
            while not limit.over:
                # A connect that fails shows as an error and never as writable.
                if self._turn(limit.pause_s).get(fileno, 0) & ~select.POLLIN:
                    return True
            return False
        finally:
            self._writing = None
            self._watch(fileno)

    def wake(self) -> None:
        self._woken = True

    def pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._woken = False
        self._turn(max(seconds, 0.0))
        while not self._woken and (left := deadline - time.monotonic()) > 0:
            self._turn(left)

    def advance(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds / self.factor
        while (left := deadline - time.monotonic()) > 0:
            self._turn(left)

    def wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        limit = self.limits.limit(seconds)
        while not (done() or limit.over):
            self.pause(limit.pause_s)
        return done()

    def settle(self) -> bool:
        return False

    def _turn(self, seconds: float) -> dict[int, int]:
        """Wait for events once and read what can be read."""
        ready: dict[int, int] = dict(self._poll.poll(math.ceil(min(seconds, LONGEST_POLL_S) * 1000)))
        for fileno, events in ready.items():
            callback = self._callbacks.get(fileno)  # an earlier callback can have stopped this one
            if callback is not None and events & ~select.POLLOUT:
                callback()
        return ready
