"""Virtual time for gevent servers in this process: a separate hub and loop, whose timers fire on command.

- Every wait for time in gevent is a timer of the loop, so a loop that keeps its timers decides when they are due. Timers of
  the test's own greenlet, and the guards of the stage, are real.
- The caller's hub is put back when a world ends, whatever happened inside.

Imported only by modules for gevent servers.
"""

from __future__ import annotations

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

from harness.stage.event_loop import Reader
from harness.stage.fence import hides_traceback
from harness.stage.target import ServerError, ends_the_process
from harness.stage.virtual_time import (
    A_PROCESS,
    A_THREAD,
    IN_FLIGHT_POLL_S,
    START_TIME_S,
    US,
    ErrorLog,
    ForeignConnections,
    ForeignProcesses,
    ForeignThreads,
    TimerHeap,
    VirtualTime,
)

__tracebackhide__ = hides_traceback

_READ, _WRITE = 1, 2
_SIGNAL_CHECK_S = 0.1


# --- timers and loops -------------------------------------------------------------------------------


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
        self.ticket = 0
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


class _IgnoredSignal:
    """Takes the place of a gevent signal watcher: same methods, and never called. Signals are for the process that runs the
    test, and libev aborts it when a second loop watches the same signal."""

    def __init__(self, ref: bool) -> None:
        self.ref = ref
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] | None = None
        self.pending = False

    @property
    def active(self) -> bool:
        return self.callback is not None

    def start(self, callback: Callable[..., Any], *args: Any) -> None:
        self.callback, self.args = callback, args

    def stop(self) -> None:
        self.callback = self.args = None

    close = stop

    def __enter__(self) -> _IgnoredSignal:
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

    It also tracks what a loop does not show: tasks in thread pools, calls from other threads, which greenlets have ever run
    on it, and what its sockets are connected to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_us = 0
        self.jumped_us = 0
        self.timers: TimerHeap[VirtualTimer] = TimerHeap(lambda ticket, timer: timer.ticket == ticket)
        self._threaded: list[Any] = []
        self._virtual = True
        # The greenlet that makes the loop is the test's: its sleeps and time-outs are guards, which are real.
        # The server's code never runs in it.
        self._owner = greenlet.getcurrent()
        self.greenlets: weakref.WeakSet[greenlet.greenlet] = weakref.WeakSet()
        self.sockets = ForeignConnections()
        self.calls_from_threads = 0
        # Without one started watcher the hub raises LoopExit as soon as only virtual timers are left.
        self._keepalive = super().async_()
        self._keepalive.start(_nothing)

    # Called by gevent

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        if not self._virtual or greenlet.getcurrent() is self._owner:
            super().update_now()
            return super().timer(after, repeat, ref, priority)
        return VirtualTimer(self, _microseconds(after), _microseconds(repeat), ref, priority or 0)

    def real_timer(self, after: float, repeat: float = 0.0) -> Any:
        """A timer of real time: for the guards of the test, never for the server."""
        # The loop counts from when it last ran: what the test has computed since would count as time that has passed.
        super().update_now()
        return super().timer(after, repeat)

    def io(self, fd: int, events: int, ref: bool = True, priority: int | None = None) -> Any:
        self.sockets.watch(fd)
        return super().io(fd, events, ref, priority)

    def signal(self, signum: int, ref: bool = True, priority: int | None = None) -> Any:
        return _IgnoredSignal(ref)

    def now(self) -> float:
        return START_TIME_S + self.elapsed_us / US

    def update(self) -> None:
        """Do nothing: virtual time is always up to date."""

    update_now = update

    def run_callback(self, func: Callable[..., Any], *args: Any) -> Any:
        # Every greenlet that starts, raw ones included, comes through here as its bound `switch`.
        owner = getattr(func, "__self__", None)
        if isinstance(owner, greenlet.greenlet):
            self.greenlets.add(owner)
        return super().run_callback(func, *args)

    def run_callback_threadsafe(self, func: Callable[..., Any], *args: Any) -> Any:
        self.calls_from_threads += 1
        return super().run_callback_threadsafe(func, *args)

    def async_(self, ref: bool = True, priority: int | None = None) -> Any:
        watcher = super().async_(ref=ref, priority=priority)
        self._threaded.append(watcher)
        return watcher

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Callable[[], None]:
        """Call back after this much virtual time; the function that is returned cancels it."""
        # Not `timer`: what the test's own greenlet asks for is a real timer.
        timer = VirtualTimer(self, _microseconds(seconds), 0, True, 0)
        timer.start(callback, *args)
        return timer.close

    # Called by the stage

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
        return self.timers.next_due_us

    def fire_next(self) -> None:
        due = self.next_due_us
        if due is None:
            raise RuntimeError("no timer waits")
        self.move_to(due)
        self.timers.pop().fire()

    def move_to(self, at_us: int) -> None:
        self.elapsed_us = max(self.elapsed_us, at_us)

    # Called by the timers

    def keep(self, timer: VirtualTimer, delay_us: int) -> int:
        """Put a timer into the heap; the ticket identifies its entry."""
        return self.timers.push(self.elapsed_us + delay_us, timer, timer.priority)


def _microseconds(seconds: float) -> int:
    """Whole microseconds, and at least one for any time at all: with floats 1 + 1 + 30 + 27.999 + 0.001 missed 60."""
    return max(1, round(seconds * US)) if seconds > 0 else 0


def _nothing() -> None:
    """For watchers that exist for another reason than their callback."""


# --- a hub for one script -----------------------------------------------------------------------------------


class _Hub(Hub):
    """A hub that re-raises in the test what a signal handler raised, such as Ctrl-C or a test's time-out, in any greenlet
    or callback. A plain hub would print it and go on. It also collects the server's unhandled exceptions."""

    errors: list[ServerError]

    def handle_error(self, context: Any, type: Any, value: Any, tb: Any) -> None:
        if issubclass(type, (Exception, Timeout, GreenletExit, HubDestroyed)):
            if not issubclass(type, (*self.NOT_ERROR, HubDestroyed)) and not _tries_again(context, value):
                self.errors.append(ServerError.of(value))
            super().handle_error(context, type, value, tb)
        elif ends_the_process(value):
            # It would end the test run, which would look as if everything had passed.
            self.errors.append(ServerError.of(value))
            self.print_exception(context, type, value, tb)
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

    def take_errors(self) -> tuple[ServerError, ...]:
        """The exceptions that nothing has handled since the last call."""
        taken: tuple[ServerError, ...] = tuple(self.hub.errors)
        self.hub.errors.clear()
        return taken

    def note_error_of_thread(self, error: BaseException) -> None:
        """An exception has ended a native thread of the server."""
        self.hub.errors.append(ServerError.of(error))
        self.error_log.write("".join(traceback.format_exception(error)))

    def end_greenlets(self) -> None:
        """Kill the greenlets that the server left behind, in order: a greenlet that is only dropped runs its `finally` later,
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


class _OuterLoop:
    """The loop of the caller's hub while a world exists.

    Queues and greenlets schedule on the hub under which they were made, even if that was when the server's module was
    imported. What the server schedules there runs in its world; what the test or another thread schedules waits for the
    caller's hub.
    """

    def __init__(self, outer: Any, hub: Any) -> None:
        self._outer = outer
        self._hub = hub
        self._owner = greenlet.getcurrent()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop_of_the_caller(), name)

    def run_callback(self, func: Callable[..., Any], *args: Any) -> Any:
        loop = self._loop_of_the_caller()
        starting = getattr(func, "__self__", None)
        if loop is not self._outer and isinstance(starting, greenlet.greenlet):
            starting.parent = self._hub  # the hub that runs when it has ended
        return loop.run_callback(func, *args)

    def _loop_of_the_caller(self) -> Any:
        of_the_server = get_hub_if_exists() is self._hub and greenlet.getcurrent() is not self._owner
        return self._hub.loop if of_the_server else self._outer


@contextmanager
def _lent(outer_hub: Any, hub: Any) -> Iterator[None]:
    """Let the server use objects of the outer hub, if there is one."""
    if outer_hub is None:
        yield
        return
    loop = outer_hub.loop
    outer_hub.loop = _OuterLoop(loop, hub)
    try:
        yield
    finally:
        outer_hub.loop = loop


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
        with _lent(outer_hub, hub):
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


# --- the event loop of a stage ------------------------------------------------------------------------------

_Worker = threadpool._WorkerGreenlet  # type: ignore[attr-defined]
_POOL_CODE = {_Worker.run.__code__, _Worker._begin.__code__}


def _in_a_pool(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _POOL_CODE:
            return True
        frame = frame.f_back
    return False


class _Late(Exception):
    """Thrown by a guard into the greenlet that waits."""


class GeventTime(VirtualTime):
    """Drives the clients and the server of one stage on a virtual loop of gevent."""

    def __init__(self, world: World, within_s: float) -> None:
        super().__init__(world.loop, within_s)
        self._hub = world.hub
        self._loop: VirtualLoop = world.loop
        self._threads = ForeignThreads(_in_a_pool)
        self._arrived: Any = None
        self._processes = ForeignProcesses()
        self._calls_before = 0

    def reader(self, fileno: int) -> Reader:
        self._loop.sockets.watch_client(fileno)
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
        self._advance_until(running.ready)
        if errors:
            raise errors[0]
        return outcome[0] if outcome else None

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        current, limit = greenlet.getcurrent(), self.limits.limit(self._within_s)

        def look() -> None:
            if limit.over:
                current.throw(self._never_idle())

        guard = self._loop.real_timer(limit.pause_s, self.limits.look_s)
        guard.start(look)
        try:
            yield
        finally:
            guard.close()

    def _run_until_idle(self) -> None:
        self._calls_before = self._loop.calls_from_threads
        gevent.idle(self._loop.MINPRI)

    def _jobs_under_way(self) -> bool:
        return self._loop.threads_at_work

    def _works_unseen(self) -> str:
        if self._threads.any():
            return A_THREAD
        return A_PROCESS if self._processes.any() else self._loop.sockets.any()

    def _called_from_outside(self) -> bool:
        return self._loop.calls_from_threads != self._calls_before

    def _until_next_event(self) -> None:
        with self._loop.check() as watcher:
            self._hub.wait(watcher)

    def _tick(self) -> None:
        timer = self._loop.real_timer(IN_FLIGHT_POLL_S)
        try:
            self._hub.wait(timer)
        finally:
            timer.close()
