"""Time that a test can play: a gevent loop whose timers fire when told to, and the clocks read from it.

Everything in gevent that waits for time asks its loop for a timer, so a loop that keeps those timers itself decides
when they are due. Real time stays available under another name, for the guards of the test itself. This module knows
no sockets, no servers and no scripts.
"""

from __future__ import annotations

import heapq
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import gevent.core  # type: ignore[import-not-found]  # it re-exports the loop of whichever backend is configured
import greenlet
from gevent.threadpool import ThreadResult

START_TIME_S = 1_234_567_890
"""The instant at which virtual time begins, in seconds since 1970: a run shows the same timestamps every time."""

START_MONOTONIC_S = 1_000
"""Not zero and not the time of day, so that a server that mixes its two clocks up is seen to do so."""

_US = 1_000_000
_SIGNAL_LOOK_S = 0.1


class Clock(Protocol):
    """What a server needs of time; hand it in instead of calling the `time` module."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class RealClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()


class VirtualClock:
    """Reads the time of one virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return START_MONOTONIC_S + self._loop.elapsed_us / _US

    def time(self) -> float:
        return START_TIME_S + (self._loop.elapsed_us + self._loop.jumped_us) / _US


class VirtualTimer:
    """Stands where gevent expects a timer watcher: same methods, but it lies in the heap of its loop."""

    __slots__ = (
        "_after_us",
        "_queued",
        "_repeat_us",
        "args",
        "callback",
        "loop",
        "priority",
        "ref",
        "ticket",
    )

    def __init__(self, loop: VirtualLoop, after_us: int, repeat_us: int, ref: bool, priority: int) -> None:
        self.loop = loop
        self._after_us = after_us
        self._repeat_us = repeat_us
        self.ref = ref
        self.priority = priority
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] | None = None
        self.ticket = 0  # which entry of the heap is ours; 0: none
        self._queued: Any = None  # the callback handed to the loop and not yet run

    @property
    def active(self) -> bool:
        return self.ticket != 0

    @property
    def pending(self) -> bool:
        return self._queued is not None

    def start(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Fire `callback(*args)` once the time is up. `update` has no meaning: virtual time is always up to date."""
        self._arm(self._after_us, callback, args)

    def again(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Start anew, counting from now with the repeat time."""
        self._arm(self._repeat_us or self._after_us, callback, args)

    def _arm(self, delay_us: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.stop()
        self.callback, self.args = callback, args
        if delay_us:
            self.ticket = self.loop.keep(self, delay_us)
        else:
            self._queued = self.loop.run_callback(self._run)

    def stop(self) -> None:
        if self.ticket:
            self.ticket = 0
            self.loop.forget()
        if self._queued is not None:
            self._queued.stop()
            self._queued = None
        self.callback = self.args = None

    def close(self) -> None:
        self.stop()

    def fire(self) -> None:
        """The time is up: run in the loop, like any watcher's callback."""
        self.ticket = self.loop.keep(self, self._repeat_us) if self._repeat_us else 0
        self._queued = self.loop.run_callback(self._run)

    def _run(self) -> None:
        callback, args = self.callback, self.args
        self._queued = None
        if not self.ticket:
            self.callback = self.args = None
        if callback is not None:
            callback(*(args or ()))

    def __enter__(self) -> VirtualTimer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _OwnLoop(gevent.core.loop):  # type: ignore[misc]  # an extension type without stubs
    """A loop beside the default one, which belongs to whoever runs the test.

    The extension type decides in `__new__` whose loop it is, and takes the default one unless told there.
    """

    def __new__(cls) -> Any:
        return super().__new__(cls, None, False)

    def __init__(self) -> None:
        super().__init__(None, False)
        # Only gevent's default loop looks for signals by itself; without this, neither Ctrl-C nor the time-out of a
        # test would be noticed while this one waits.
        self._signal_look = gevent.core.loop.timer(self, _SIGNAL_LOOK_S, _SIGNAL_LOOK_S, ref=False)
        self._signal_look.start(_nothing)  # being Python at all, it lets their handlers run

    def destroy(self) -> Any:
        self._signal_look.stop()
        self._signal_look.close()
        return super().destroy()


class RealLoop(_OwnLoop):
    """A gevent loop as it is, for targets that live in another process."""

    def real_timer(self, after: float) -> Any:
        """A timer of real time: for the guards of the test."""
        return self.timer(after)


class VirtualLoop(_OwnLoop):
    """A gevent loop on which no time passes unless `fire_next` is called or `elapsed_us` is moved by `move_to`.

    It also sees what else is under way and would be forgotten by a look at the loop alone: work handed to a thread
    pool, and which greenlets were ever made to run on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_us = 0
        self.jumped_us = 0
        """How far the time of day was set to another one, without time having passed."""
        self._heap: list[tuple[int, int, int, VirtualTimer]] = []
        self._tickets = 0
        self._stale = 0
        self._threaded: list[Any] = []
        self._virtual = True
        # The greenlet that makes the loop is the test's: its sleeps and time-outs are guards, and those are real.
        # The server's code never runs in it.
        self._owner = greenlet.getcurrent()
        self.greenlets: weakref.WeakSet[greenlet.greenlet] = weakref.WeakSet()
        # Without one started watcher the hub raises LoopExit as soon as only virtual timers are left.
        self._keepalive = super().async_()
        self._keepalive.start(_nothing)

    # What gevent asks for

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        if not self._virtual or greenlet.getcurrent() is self._owner:
            return super().timer(after, repeat, ref, priority)
        return VirtualTimer(self, _microseconds(after), _microseconds(repeat), ref, priority or 0)

    def real_timer(self, after: float) -> Any:
        """A timer of real time: for the guards of the test, never for the server."""
        return super().timer(after)

    def now(self) -> float:
        return START_TIME_S + self.elapsed_us / _US

    def update(self) -> None:
        """Nothing to do: virtual time is always up to date."""

    update_now = update

    def run_callback(self, func: Callable[..., Any], *args: Any) -> Any:
        # Every greenlet that starts, raw ones included, comes through here as its bound `switch`.
        owner = getattr(func, "__self__", None)
        if isinstance(owner, greenlet.greenlet):
            self.greenlets.add(owner)
        return super().run_callback(func, *args)

    def async_(self, ref: bool = True, priority: int | None = None) -> Any:
        watcher = super().async_(ref=ref, priority=priority)
        self._threaded.append(watcher)
        return watcher

    # What the stage asks for

    def let_real_time_pass(self) -> None:
        """From here on timers are real: for tearing down, where gevent itself sleeps until its threads are gone."""
        self._virtual = False

    @property
    def threads_at_work(self) -> bool:
        """Whether a task given to any gevent thread pool of this hub has not yet come back."""
        if not self._threaded:
            return False
        self._threaded = [watcher for watcher in self._threaded if watcher.active]
        return any(isinstance(getattr(w.callback, "__self__", None), ThreadResult) for w in self._threaded)

    @property
    def next_due_us(self) -> int | None:
        """When the next timer is due, in microseconds since the start; None when there is none."""
        heap = self._heap
        while heap and heap[0][3].ticket != heap[0][2]:
            heapq.heappop(heap)
            self._stale -= 1
        return heap[0][0] if heap else None

    def fire_next(self) -> None:
        """Move time to the next timer that is due and fire that one."""
        due = self.next_due_us
        if due is None:
            raise RuntimeError("no timer is due at any time")
        self.move_to(due)
        heapq.heappop(self._heap)[3].fire()

    def move_to(self, at_us: int) -> None:
        """Time is now `at_us`; it never goes back."""
        self.elapsed_us = max(self.elapsed_us, at_us)

    # What the timers ask for

    def keep(self, timer: VirtualTimer, delay_us: int) -> int:
        """Put a timer into the heap; the ticket says which entry is its own."""
        self._tickets += 1
        heapq.heappush(self._heap, (self.elapsed_us + delay_us, -timer.priority, self._tickets, timer))
        return self._tickets

    def forget(self) -> None:
        """One entry of the heap has lost its timer. Once most have, they are swept out: a server that starts and
        stops a timeout around each read would otherwise fill memory."""
        self._stale += 1
        if self._stale > 64 and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[3].ticket == entry[2]]
            heapq.heapify(self._heap)
            self._stale = 0


def _microseconds(seconds: float) -> int:
    """Whole microseconds, and at least one for any time at all: with floats 1 + 1 + 30 + 27.999 + 0.001 missed 60."""
    return max(1, round(seconds * _US)) if seconds > 0 else 0


def _nothing() -> None:
    """For watchers that are there for something else than what they do."""
