"""Virtual time for gevent servers in this process: a separate hub and loop, whose timers fire on command.

- Every wait for time in gevent is a timer of the loop, so a loop that keeps its timers decides when they are due. Timers of
  the test's own greenlet, and the guards of the stage, are real.
- Time moves only in `VirtualTime.advance` and `VirtualTime.run`, one due timer after another, with everything settled in
  between.
- Settled means: the loop is idle, no task of a gevent thread pool is unfinished, and no byte is in flight or unread
  between a client and the server. Threads that the server starts itself are not seen by any loop; `settle` says so.
- The caller's hub is put back when a world ends, whatever happened inside.

Knows no scripts and no targets. Imported only by modules for such targets, because it needs gevent.
"""

from __future__ import annotations

import heapq
import io
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import gevent
import gevent.core  # type: ignore[import-not-found]  # it re-exports the loop of whichever backend is configured
import greenlet
from gevent import threadpool
from gevent._hub_local import get_hub_if_exists, get_loop, set_hub, set_loop
from gevent.baseserver import BaseServer
from gevent.event import Event
from gevent.exceptions import HubDestroyed
from gevent.hub import Hub
from gevent.threadpool import ThreadResult
from gevent.timeout import Timeout
from greenlet import GreenletExit

from harness.stage.connection import Connection, End
from harness.stage.event_loop import EventLoop, Reader
from harness.stage.fence import NeverIdle, hides_traceback
from harness.stage.kernel import TcpState
from harness.stage.target import ServerError

__tracebackhide__ = hides_traceback

START_TIME_S = 1_234_567_890
"""The instant at which virtual time begins, in seconds since 1970: a run shows the same timestamps every time."""

START_MONOTONIC_S = 1_000
"""Neither zero nor the time of day, so that a server that confuses the two clocks fails."""

SERVER_OUTPUT_CHARS = 64_000

_US = 1_000_000
_READ, _WRITE = 1, 2
_SIGNAL_CHECK_S = 0.1
_IN_FLIGHT_POLL_S = 0.0001
_GIVE_UP_ON_KERNEL_S = 1.0
"""How long the kernel can leave a connection half open or half closed before that counts as its final state."""


# --- clocks, timers and loops -------------------------------------------------------------------------------


class VirtualClock:
    """Reads the time of one virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return START_MONOTONIC_S + self._loop.elapsed_us / _US

    def time(self) -> float:
        return START_TIME_S + (self._loop.elapsed_us + self._loop.jumped_us) / _US


class VirtualTimer:
    """Takes the place of a gevent timer watcher: same methods, but it waits in the heap of its loop."""

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
        self.ticket = 0  # which entry of the heap is this timer's; 0: none
        self._queued: Any = None  # the callback handed to the loop and not yet run

    @property
    def active(self) -> bool:
        return self.ticket != 0

    @property
    def pending(self) -> bool:
        return self._queued is not None

    def start(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Call `callback(*args)` once the time is up. Virtual time is always up to date, so `update` has no effect."""
        self._arm(self._after_us, callback, args)

    def again(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Start again, counting from now with the repeat time."""
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


class OwnLoop(gevent.core.loop):  # type: ignore[misc]  # an extension type without stubs
    """A gevent loop besides the default one, which belongs to the test run.

    The extension type selects its loop in `__new__`, and takes the default one without an argument there.
    """

    def __new__(cls) -> Any:
        return super().__new__(cls, None, False)

    def __init__(self) -> None:
        super().__init__(None, False)
        # Only gevent's default loop checks for signals itself; without this, neither Ctrl-C nor the time-out of a test
        # would be noticed while this one waits.
        self._signal_check = gevent.core.loop.timer(self, _SIGNAL_CHECK_S, _SIGNAL_CHECK_S, ref=False)
        self._signal_check.start(_nothing)  # any Python code lets their handlers run

    def destroy(self) -> Any:
        self._signal_check.stop()
        self._signal_check.close()
        return super().destroy()


class VirtualLoop(OwnLoop):
    """A gevent loop on which no time passes unless `fire_next` or `move_to` is called.

    It also tracks what a loop does not show: tasks in thread pools, and which greenlets have ever run on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_us = 0
        self.jumped_us = 0
        """How far the time of day was set forward or back."""
        self._heap: list[tuple[int, int, int, VirtualTimer]] = []
        self._tickets = 0
        self._stale = 0
        self._threaded: list[Any] = []
        self._virtual = True
        # The greenlet that makes the loop is the test's: its sleeps and time-outs are guards, which are real.
        # The server's code never runs in it.
        self._owner = greenlet.getcurrent()
        self.greenlets: weakref.WeakSet[greenlet.greenlet] = weakref.WeakSet()
        # Without one started watcher the hub raises LoopExit as soon as only virtual timers are left.
        self._keepalive = super().async_()
        self._keepalive.start(_nothing)

    # Called by gevent

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
        """Do nothing: virtual time is always up to date."""

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

    # Called by VirtualTime

    def let_real_time_pass(self) -> None:
        """Make all further timers real: for tearing down, where gevent itself sleeps until its threads are gone."""
        self._virtual = False

    @property
    def threads_at_work(self) -> bool:
        """Whether a task given to any gevent thread pool of this hub has not yet returned."""
        if not self._threaded:
            return False
        self._threaded = [watcher for watcher in self._threaded if watcher.active]
        return any(isinstance(getattr(w.callback, "__self__", None), ThreadResult) for w in self._threaded)

    @property
    def next_due_us(self) -> int | None:
        """When the next timer is due, in microseconds since the start; None where no timer waits."""
        heap = self._heap
        while heap and heap[0][3].ticket != heap[0][2]:
            heapq.heappop(heap)
            self._stale -= 1
        return heap[0][0] if heap else None

    def fire_next(self) -> None:
        """Move time to the next timer that is due and fire it."""
        due = self.next_due_us
        if due is None:
            raise RuntimeError("no timer waits")
        self.move_to(due)
        heapq.heappop(self._heap)[3].fire()

    def move_to(self, at_us: int) -> None:
        """Set the time to `at_us`; it never goes back."""
        self.elapsed_us = max(self.elapsed_us, at_us)

    # Called by the timers

    def keep(self, timer: VirtualTimer, delay_us: int) -> int:
        """Put a timer into the heap; the ticket identifies its entry."""
        self._tickets += 1
        heapq.heappush(self._heap, (self.elapsed_us + delay_us, -timer.priority, self._tickets, timer))
        return self._tickets

    def forget(self) -> None:
        """Count an entry of the heap whose timer was stopped. Once most are, they are removed: otherwise a server with a
        time-out around each read would fill memory."""
        self._stale += 1
        if self._stale > 64 and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[3].ticket == entry[2]]
            heapq.heapify(self._heap)
            self._stale = 0


def _microseconds(seconds: float) -> int:
    """Whole microseconds, and at least one for any time at all: with floats 1 + 1 + 30 + 27.999 + 0.001 missed 60."""
    return max(1, round(seconds * _US)) if seconds > 0 else 0


def _nothing() -> None:
    """For watchers that exist for another reason than their callback."""


# --- a hub for one script -----------------------------------------------------------------------------------


class ErrorLog(io.StringIO):
    """Collects the tracebacks of failed greenlets: the first ones, up to a limit."""

    def write(self, text: str) -> int:
        if self.tell() < SERVER_OUTPUT_CHARS:
            super().write(text)
        return len(text)


class _Hub(Hub):
    """A hub that re-raises in the test what a signal handler raised, such as Ctrl-C or a test's time-out, in any greenlet
    or callback. A plain hub would print it and go on. It also collects the server's unhandled exceptions."""

    errors: list[ServerError]

    def handle_error(self, context: Any, type: Any, value: Any, tb: Any) -> None:
        if issubclass(type, (Exception, Timeout, GreenletExit, HubDestroyed)):
            if not issubclass(type, (*self.NOT_ERROR, HubDestroyed)) and not _tries_again(context, value):
                text = traceback.format_exception_only(type, value)[-1].strip()
                self.errors.append(ServerError(type.__name__, text, issubclass(type, OSError)))
            super().handle_error(context, type, value, tb)
        else:
            # Not at once: the hub would be left in the middle of this, and could not be destroyed quietly.
            assert self.parent is not None
            self.loop.run_callback(self.parent.throw, type, value, tb)


def _tries_again(context: Any, error: object) -> bool:
    """Whether this is gevent's own server, which reports that it could not accept a connection and tries again."""
    return (
        isinstance(context, BaseServer) and isinstance(error, OSError) and not context.is_fatal_error(error)
    )


@dataclass(frozen=True, slots=True)
class World:
    """One script's hub and loop, and the tracebacks of greenlets that died in it."""

    hub: Any
    loop: Any
    error_log: ErrorLog = field(default_factory=ErrorLog)

    def end_greenlets(self) -> None:
        """Kill the greenlets that the server left behind, in order: one that is only dropped runs its `finally` later,
        in the middle of another script."""
        current = gevent.getcurrent()
        for _ in range(3):  # a greenlet that ends can start another, but not for ever
            left = [
                g for g in list(self.loop.greenlets) if not g.dead and g is not current and g is not self.hub
            ]
            if not left:
                return
            for one in left:
                gevent.kill(one)
            gevent.idle(self.loop.MINPRI)


@contextmanager
def fresh_world(make_loop: Callable[[], OwnLoop] = VirtualLoop) -> Iterator[World]:
    """Replace gevent's hub of this thread by a new one while inside. It costs some 50 us."""
    outer_hub, outer_loop = get_hub_if_exists(), get_loop()
    _install(None, None)
    loop = make_loop()
    hub = _Hub(loop)
    world = World(hub, loop)
    hub.errors = []
    hub.exception_stream = world.error_log
    _install(hub, None)
    try:
        yield world
    finally:
        if isinstance(loop, VirtualLoop):
            loop.let_real_time_pass()
        try:
            hub.destroy(True)
            _end(hub)
        finally:
            _install(outer_hub, outer_loop)


def _end(hub: Any) -> None:
    """Free the stack of a destroyed hub, which is still suspended where it last switched away and holds references to
    its script."""
    if hub and not hub.dead:
        hub.parent = greenlet.getcurrent()
        hub.throw(GreenletExit)


def _install(hub: Any, spare_loop: Any) -> None:
    """Make this the thread's hub; the spare loop is one that a destroyed hub has left for the next."""
    set_hub(hub)
    set_loop(spare_loop)


# --- threads of the server's own ----------------------------------------------------------------------------

_Worker = threadpool._WorkerGreenlet  # type: ignore[attr-defined]
_POOL_CODE = {_Worker.run.__code__, _Worker._begin.__code__}


class ForeignThreads:
    """Knows which native threads have appeared since a stage began, besides those of gevent's own pools."""

    def __init__(self) -> None:
        self._before = frozenset(sys._current_frames())

    def any(self) -> bool:
        frames = sys._current_frames()
        return len(frames) > 1 and any(
            not _in_a_pool(frames[ident]) for ident in frames.keys() - self._before
        )


def _in_a_pool(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _POOL_CODE:
            return True
        frame = frame.f_back
    return False


# --- the event loop of a stage ------------------------------------------------------------------------------


class _Late(Exception):
    """Thrown by a guard into the greenlet that waits."""


class VirtualTime(EventLoop):
    """Drives the clients and the server of one stage on a virtual loop."""

    virtual = True

    def __init__(self, world: World, within_s: float) -> None:
        super().__init__(VirtualClock(world.loop))
        self._hub = world.hub
        self._loop: VirtualLoop = world.loop
        self._within_s = within_s
        self._connections: list[Connection] = []
        self._threads = ForeignThreads()
        self._arrived: Any = None

    def register(self, connection: Connection) -> None:
        self._connections.append(connection)

    def reader(self, fileno: int) -> Reader:
        watcher: Reader = self._loop.io(fileno, _READ)
        return watcher

    def wait_writable(self, fileno: int, seconds: float) -> bool:
        guard = self._loop.real_timer(seconds)
        watcher = self._loop.io(fileno, _WRITE)
        try:
            guard.start(greenlet.getcurrent().throw, _Late)
            self._hub.wait(watcher)
        except _Late:
            return False
        finally:
            guard.close()
            watcher.close()
        return True

    def wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()

    def pause(self, seconds: float) -> None:
        self._arrived = Event()
        timer = self._loop.real_timer(max(seconds, 0.0))
        try:
            timer.start(self._arrived.set)
            self._arrived.wait()
        finally:
            self._arrived = None
            timer.close()

    def advance(self, seconds: float) -> None:
        loop = self._loop
        until = loop.elapsed_us + round(seconds * _US)
        self._settle()
        while (due := loop.next_due_us) is not None and due <= until:
            loop.fire_next()
            self._settle()
        loop.move_to(until)

    def settle(self) -> bool:
        self._settle()
        return not self._threads.any()

    def _settle(self) -> None:
        """Run until the loop is idle and nothing is in flight at this virtual instant."""
        loop = self._loop
        current = greenlet.getcurrent()
        guard = loop.real_timer(self._within_s)
        guard.start(lambda: current.throw(NeverIdle("", self._within_s, self._why())))
        began = time.monotonic()
        left_before: list[tuple[int, int]] | None = None
        try:
            while True:
                gevent.idle(loop.MINPRI)
                if loop.threads_at_work:
                    self._until_next_event()
                    continue
                patient = time.monotonic() - began < _GIVE_UP_ON_KERNEL_S
                seen = [_look(connection, patient) for connection in self._connections]
                if any(moving for moving, _, _ in seen):
                    self._tick()
                    continue
                # Input that the server has not read although its loop was idle twice is left unread on purpose.
                left = [(peer, near) for _, peer, near in seen]
                if left == left_before or not any(map(any, left)):
                    return
                left_before = left
        finally:
            guard.close()

    def run(self, work: Callable[[], Any]) -> Any:
        """Run a function of the server that can block, and advance time as far as it needs."""
        outcome: list[Any] = []
        errors: list[BaseException] = []

        def attempt() -> None:
            try:
                outcome.append(work())
            except BaseException as error:
                errors.append(error)

        running = gevent.spawn(attempt)
        while True:
            self._settle()
            if running.ready():
                break
            if self._loop.next_due_us is None:
                raise NeverIdle(
                    "", self._within_s, "waits for something that cannot come, while starting or stopping"
                )
            self._loop.fire_next()
        if errors:
            raise errors[0]
        return outcome[0] if outcome else None

    def _why(self) -> str:
        return (
            "had a thread at work that did not return" if self._loop.threads_at_work else "never became idle"
        )

    def _until_next_event(self) -> None:
        with self._loop.check() as watcher:
            self._hub.wait(watcher)

    def _tick(self) -> None:
        timer = self._loop.real_timer(_IN_FLIGHT_POLL_S)
        try:
            self._hub.wait(timer)
        finally:
            timer.close()


def _look(connection: Connection, patient: bool) -> tuple[bool, int, int]:
    """Whether anything is in flight on this connection, and what lies unread at the server and here.

    The order of the checks matters: what is no longer in flight has arrived, and what has arrived is unread or read.
    """
    outgoing = connection.unacknowledged
    peer = connection.peer_state()
    listens = connection.reads and connection.end is End.OPEN
    waiting = connection.unread if listens else 0
    if peer is None:
        return outgoing > 0, 0, waiting
    match peer.state:
        case TcpState.SYN_RECV | TcpState.NEW_SYN_RECV:
            moving = patient
        case TcpState.CLOSE:
            moving = patient and listens and not waiting
        case TcpState.ESTABLISHED if connection.sent_end:
            moving = patient
        case _:
            # Unacknowledged by us: held back by the server's kernel, or an end of stream still in flight.
            moving = (outgoing > 0 and not peer.unread and connection.in_flight) or (
                listens and peer.unacknowledged > 0
            )
    return moving, peer.unread, waiting
