"""Virtual time for asyncio servers in this process: a selector loop that never waits, and whose timers fire on command.

- Every wait for time in asyncio goes through `time` and `call_at` of its loop. Both are virtual here.
- Timers fire in the order of their instants, which are whole microseconds, and in the order in which they were set within one.
- The loop is at rest after two iterations in a row in which nothing was called soon and the selector returned nothing.
- The loop counts the jobs that it hands to executors. It cannot see other threads at work, or processes.
- It collects the server's unhandled exceptions: of callbacks, and of tasks that were never awaited.

Needs no gevent. Uses the public interface of asyncio, except where a comment says "private".
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import math
import selectors
import socket
import time
import traceback
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

from harness.stage.connection import End
from harness.stage.event_loop import Reader
from harness.stage.fence import hides_traceback
from harness.stage.target import ServerError, ends_the_process
from harness.stage.virtual_time import (
    A_PROCESS,
    A_THREAD,
    IN_FLIGHT_POLL_S,
    START_MONOTONIC_S,
    US,
    ErrorLog,
    ForeignConnections,
    ForeignProcesses,
    ForeignThreads,
    TimerHeap,
    VirtualTime,
)

__tracebackhide__ = hides_traceback

Ready = list[tuple[selectors.SelectorKey, int]]
"""The result of a selector: which descriptors are ready, and for which events."""

_QUIET_ITERATIONS = 2
_HALF_A_MICROSECOND_S = 0.5 / US
_MOST_ERRORS = 1000
_NEVER_RETRIEVED = "exception of a task that was never retrieved"
_ROUNDS_OF_CANCELLING = 3
_LOOKS_AT_THREADS = 100
_BETWEEN_LOOKS_S = 0.001


class Program(Protocol):
    """Code that runs the loop in a separate thread, one iteration at a time."""

    over: bool

    def iterate(self, patience_s: float = 0.0) -> None:
        """Let the thread run until the loop asks its selector again, or until the program is over."""

    def park(self) -> None:
        """For the selector: wait for the next iteration, if this is the program's thread."""


class _Selector(selectors.DefaultSelector):
    """Waits as long as its loop allows, whatever the caller asks for."""

    def __init__(self, loop: AsyncioLoop) -> None:
        super().__init__()
        self._loop = loop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self._loop.sockets.watch(key.fd)
        return key

    def select(self, timeout: float | None = None) -> Ready:
        return self._loop.selected(super().select(self._loop.may_wait_s()))


class _Instant(float):
    """When a timer is due. Of two that are equal, the one that was made first comes first.

    asyncio keeps its timers in a heap by this number alone. On a real clock no two are equal.
    """

    __slots__ = ("_ticket",)
    _ticket: int

    def __new__(cls, seconds: float, ticket: int) -> _Instant:
        made = super().__new__(cls, seconds)
        made._ticket = ticket
        return made

    def __lt__(self, other: float) -> bool:
        if isinstance(other, _Instant) and self == other:
            return self._ticket < other._ticket
        return super().__lt__(other)


class AsyncioLoop(asyncio.SelectorEventLoop):
    """A loop that runs one iteration at a time, and on which no time passes unless `fire_next` or `move_to` is called."""

    def __init__(self) -> None:
        self.elapsed_us = 0
        self.jumped_us = 0
        self.activity = 0
        """Grows whenever there is something to do."""
        self._error_log = ErrorLog()
        self.servers: list[asyncio.AbstractServer] = []
        """Every server that was started on this loop, in the order of creation."""
        self.timers: TimerHeap[asyncio.TimerHandle] = TimerHeap(lambda _, timer: not timer.cancelled())
        self.program: Program | None = None
        """The program that runs this loop itself, if there is one."""
        self.main: asyncio.Future[Any] | None = None
        """The future that this program runs until it is complete."""
        self.ending = False
        """Whether the remaining tasks are being cancelled."""
        self._tickets = 0
        self._patience_s = 0.0
        self._activity_before = 0
        self._jobs: set[asyncio.Future[Any]] = set()
        self._ending_threads = False
        self._children: list[asyncio.SubprocessTransport] = []
        self._failed: list[weakref.ref[asyncio.Task[Any]]] = []
        self._errors: list[ServerError] = []
        self._interruption: BaseException | None = None
        self.sockets = ForeignConnections()
        super().__init__(_Selector(self))
        # Private: how far in the future a timer counts as due. The clock's own is lost in large floats, after half a year.
        self._clock_resolution = _HALF_A_MICROSECOND_S

    # Called by asyncio and by servers. (mypy: a variadic callback can only be spelled since Python 3.11.)

    def time(self) -> float:
        return _seconds(self.elapsed_us)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        self.activity += 1
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        # Not before: the loop could become idle in between, with this activity counted and the handle not yet there.
        self.activity += 1
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        at_us = self._due_us(when)
        if at_us is not None:
            # Whole microseconds: with floats 1 + 1 + 30 + 27.999 + 0.001 would miss 60.
            self._tickets += 1
            when = _Instant(_seconds(at_us), self._tickets)
        handle = super().call_at(when, callback, *args, context=context)
        if at_us is None:
            pass  # for ever
        elif at_us > self.elapsed_us:
            self.timers.push(at_us, handle)
        else:
            self.activity += 1
        return handle

    def _due_us(self, when: float) -> int | None:
        if when == math.inf:
            return None
        now_us = self.elapsed_us
        return max(now_us + 1, round((when - START_MONOTONIC_S) * US)) if when > self.time() else now_us

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self._ending_threads = True  # a separate thread waits for them
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._ending_threads = False

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        task.add_done_callback(self._task_ended)
        return task

    async def create_server(self, *args: Any, **options: Any) -> Any:
        made: asyncio.AbstractServer = await super().create_server(*args, **options)
        self.servers.append(made)
        return made

    async def create_unix_server(self, *args: Any, **options: Any) -> Any:
        made: asyncio.AbstractServer = await super().create_unix_server(*args, **options)
        self.servers.append(made)
        return made

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        made = await super().subprocess_exec(*args, **options)
        self._children.append(made[0])
        return made

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        made = await super().subprocess_shell(*args, **options)
        self._children.append(made[0])
        return made

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:  # type: ignore[override]
        """Do nothing: the signals of this process are for the test run."""

    def remove_signal_handler(self, sig: int) -> bool:
        return False

    def run_until_complete(self, future: Any) -> Any:
        self.main = asyncio.ensure_future(future, loop=self)
        return super().run_until_complete(self.main)

    def close(self) -> None:
        """Let a program run this loop again, as if it were a new one: clients still read on it. The stage closes it, with
        `end`."""
        # Private: before `asyncio.run` closes its loop, it shuts down the executor and the asynchronous generators for good.
        self._asyncgens_shutdown_called = False
        if getattr(self, "_executor_shutdown_called", False):
            self._executor_shutdown_called = False
            self._default_executor = None

    # Errors in the server's code

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.is_closed():
            return  # a task that could not be ended, which has been reported, is garbage now
        if ends_the_process(context.get("exception")):
            return  # `iterate` has noted it
        if self.ending and isinstance(context.get("exception"), asyncio.CancelledError):
            return  # some versions of asyncio's own streams do not expect to be cancelled
        if not self._interrupted_by(context.get("exception")):
            super().call_exception_handler(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        message = context.get("message") or "unhandled exception in the event loop"
        error = context.get("exception")
        details = (f"{key}: {context[key]!r}" for key in sorted(context.keys() - {"message", "exception"}))
        self._error_log.write(_described(message, error, *details))
        # A failure to accept is reported, too, but asyncio itself handles it.
        if error is not None and "socket" not in context and len(self._errors) < _MOST_ERRORS:
            self._errors.append(ServerError.of(error))

    def note_error(self, error: BaseException, where: str) -> None:
        """The server's code has raised this where asyncio does not look."""
        self._error_log.write(_described(where, error))
        self._errors.append(ServerError.of(error))

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and ends_the_process(_exception_of(task)):
            task._log_traceback = False  # private; `iterate` has noted it
            return
        if not task.cancelled() and _unretrieved(task) and not self._interrupted_by(_exception_of(task)):
            # Weakly: asyncio reports the exception when the server drops the task.
            self._failed = [one for one in self._failed if one() is not None]
            self._failed.append(weakref.ref(task))

    def _interrupted_by(self, exception: BaseException | None) -> bool:
        """Whether a signal handler raised this, such as a test's time-out: asyncio would keep it as the server's own."""
        if exception is None or isinstance(exception, (Exception, asyncio.CancelledError, GeneratorExit)):
            return False
        self.interrupt(exception)
        return True

    def interrupt(self, exception: BaseException) -> None:
        """Let the iteration that runs end with this exception."""
        self._interruption = exception

    def take_errors(self, kept: bool) -> tuple[ServerError, ...]:
        """The unhandled exceptions since the last call. `kept`: including those of tasks that the server still holds, for
        which it can ask until the end."""
        if kept:
            self._report_kept_tasks()
        taken = tuple(self._errors)
        self._errors.clear()
        return taken

    def report(self) -> str:
        """Everything that was reported about the server, as text."""
        return self._error_log.getvalue() + "".join(
            _described(_NEVER_RETRIEVED, _exception_of(task), f"task: {task!r}")
            for task in self._kept_tasks()
        )

    def _report_kept_tasks(self) -> None:
        for task in self._kept_tasks():
            exception = _exception_of(task)
            self.default_exception_handler(
                {"message": _NEVER_RETRIEVED, "exception": exception, "task": task}
            )
            task._log_traceback = False  # private; otherwise it would be reported again

    def _kept_tasks(self) -> list[asyncio.Task[Any]]:
        tasks = (one() for one in self._failed)
        return [task for task in tasks if task is not None and _unretrieved(task)]

    # Called by the stage

    def iterate(self, patience_s: float = 0.0) -> None:
        """Run what is ready once. Wait for something first, where nothing is ready and patience is given."""
        self._patience_s = patience_s
        if self.program is not None and not self.program.over:
            self.program.iterate(patience_s)
        else:
            self.stop()  # before it runs: then it polls once, runs what is ready, and returns
            try:
                self.run_forever()
            except SystemExit as exit:
                # It would end the test run, which would look as if everything had passed.
                if not ends_the_process(exit):
                    raise
                self.note_error(exit, "the server's code ended its process")
                self.activity += 1
        if self._interruption is not None:
            interruption, self._interruption = self._interruption, None
            raise interruption

    def may_wait_s(self) -> float:
        """For its selector: how long it can wait."""
        if self.program is not None:
            self.program.park()
        idle = self.activity == self._activity_before
        self._activity_before = self.activity
        return self._patience_s if idle else 0.0

    def selected(self, ready: Ready) -> Ready:
        """For its selector: the part of `ready` that the loop sees in this iteration."""
        self.activity += len(ready)
        return ready

    @property
    def jobs_under_way(self) -> bool:
        return self._ending_threads or any(not job.done() for job in self._jobs)

    @property
    def children_alive(self) -> bool:
        return any(child.get_returncode() is None for child in self._children)

    @property
    def next_due_us(self) -> int | None:
        return self.timers.next_due_us

    def fire_next(self) -> None:
        self.move_to(self.elapsed_us if (due := self.next_due_us) is None else due)

    def move_to(self, at_us: int) -> None:
        self.elapsed_us = max(self.elapsed_us, at_us)
        # asyncio itself calls the due timers, in the next iteration.
        while (due := self.next_due_us) is not None and due <= self.elapsed_us:
            self.timers.pop()

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Callable[[], None]:
        """Call back after this much virtual time; the function that is returned cancels it."""
        return self.call_later(seconds, callback, *args).cancel

    def listening(self) -> list[socket.socket]:
        """The sockets, TCP and Unix, on which its servers accept connections."""
        sockets = [one for server in self.servers for one in getattr(server, "sockets", ())]
        return [one for one in sockets if one.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)]

    def abandon(self) -> None:
        """Close servers, abort connections and kill subprocesses."""
        for server in self.servers:
            server.close()
        # Private: asyncio has no other way to find connections that their server has forgotten.
        for transport in list(getattr(self, "_transports", {}).values()):
            if transport.get_extra_info("socket").fileno() >= 0:
                transport.abort()
        for child in self._children:
            with suppress(ProcessLookupError):
                child.kill()

    def close_children(self) -> None:
        """Close the pipes of subprocesses, which have ended."""
        for child in self._children:
            child.close()
        self._children.clear()

    def end(self) -> None:
        """Close the loop."""
        self._report_kept_tasks()
        self.servers.clear()
        super().close()


def _seconds(at_us: int) -> float:
    return START_MONOTONIC_S + at_us / US


def _unretrieved(task: asyncio.Task[Any]) -> bool:
    # Private: asyncio itself tells only when the task is garbage, which is at no certain time.
    return bool(getattr(task, "_log_traceback", False))


def _exception_of(task: asyncio.Task[Any]) -> BaseException | None:
    # Private: to ask for it in public would count as retrieving it.
    exception: BaseException | None = getattr(task, "_exception", None)
    return exception


def _described(message: str, exception: BaseException | None, *details: str) -> str:
    lines = traceback.format_exception(exception) if exception is not None else []
    return "".join((f"{message}\n", *(f"{detail}\n" for detail in details), *lines))


# --- threads ------------------------------------------------------------------------------------------------

_WORKER = concurrent.futures.thread._worker.__code__


def _in_a_pool(frame: FrameType | None) -> bool:
    """Whether this is a thread of an executor."""
    while frame is not None and frame.f_code is not _WORKER:
        frame = frame.f_back
    return frame is not None


def _idle_in_a_pool(frame: FrameType) -> bool:
    """Whether this is a thread of an executor that has nothing to do. Jobs of the loop are counted apart, and are over by
    the time of asking, so a thread that works does it for someone else."""
    if frame.f_code is not _WORKER:
        return False
    seen = frame.f_locals
    return seen.get("work_item") is None and seen["work_queue"].empty()


# --- the event loop of a stage ------------------------------------------------------------------------------


class _LoopReader:
    """Reads a client's socket in the server's loop."""

    def __init__(self, loop: AsyncioLoop, fileno: int) -> None:
        self._loop = loop
        self._fileno = fileno

    def start(self, callback: Callable[[], None]) -> None:
        self._loop.add_reader(self._fileno, self._read, callback)

    def _read(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except BaseException as error:
            # The loop would take it for a mistake of the server.
            self._loop.interrupt(error)

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fileno)

    close = stop


class AsyncioTime(VirtualTime):
    """Drives the clients and the server of one stage on a virtual loop of asyncio."""

    def __init__(self, loop: AsyncioLoop, within_s: float) -> None:
        super().__init__(loop, within_s)
        self._loop = loop
        self._threads = ForeignThreads(_idle_in_a_pool)
        self._own_threads = ForeignThreads(_in_a_pool)
        self._limit = self.limits.limit(math.inf)
        self._woken = False
        self._processes = ForeignProcesses()
        self._activity_when_idle = 0
        self._activity_at_rest = 0

    def reader(self, fileno: int) -> Reader:
        self._loop.sockets.watch_client(fileno)
        return _LoopReader(self._loop, fileno)

    def wait_writable(self, fileno: int, seconds: float) -> bool:
        limit = self.limits.limit(seconds)
        writable: list[bool] = []
        self._loop.add_writer(fileno, writable.append, True)
        try:
            while not writable and not limit.over:
                self._loop.iterate(limit.pause_s)
        finally:
            self._loop.remove_writer(fileno)
        return bool(writable)

    def wake(self) -> None:
        self._woken = True

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._woken = False
        self._loop.iterate()
        while not self._woken and (left := until - time.monotonic()) > 0:
            self._loop.iterate(left)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the server, and advance time as far as it needs."""
        task = self._loop.create_task(work)
        self.run_until(task.done)
        return task.result()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Run the loop until this is true, and advance time as far as that needs."""
        self._advance_until(done)

    def take_errors(self) -> tuple[ServerError, ...]:
        """The unhandled exceptions since the last call; once all clients have left, those of held tasks, too."""
        over = bool(self._connections) and all(one.end is not End.OPEN for one in self._connections)
        return self._loop.take_errors(kept=over)

    def end(self) -> None:
        """Cancel the tasks that are left, as `asyncio.run` does, and close everything."""
        loop = self._loop
        loop.ending = True
        with ExitStack() as last:
            last.callback(loop.end)
            last.callback(self._end_connections)
            self._cancel_tasks()
            self.run(loop.shutdown_asyncgens())
            if not self._threads.any():
                self.run(loop.shutdown_default_executor())

    def _end_connections(self) -> None:
        self._loop.abandon()
        with self._bounded():
            while self._loop.children_alive:
                self._until_next_event()
            self._loop.close_children()
            self._run_until_idle()

    def _cancel_tasks(self) -> None:
        for _ in range(_ROUNDS_OF_CANCELLING):  # a task that ends can start another, but not for ever
            left = asyncio.all_tasks(self._loop)
            if not left:
                return
            for task in left:
                task.cancel()
            self._advance_until(lambda left=left: all(task.done() for task in left))  # type: ignore[misc]

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        self._limit = self.limits.limit(self._within_s)
        try:
            yield
        finally:
            self._limit = self.limits.limit(math.inf)

    def _run_until_idle(self) -> None:
        loop = self._loop
        quiet = 0
        while quiet < _QUIET_ITERATIONS:
            before = loop.activity
            loop.iterate()
            quiet = quiet + 1 if loop.activity == before else 0
            self._activity_when_idle = before
            if self._limit.over:
                raise self._never_idle()

    def _jobs_under_way(self) -> bool:
        return self._loop.jobs_under_way

    def _works_unseen(self) -> str:
        if self._loop.children_alive:
            return "a subprocess"
        if self._threads_work():
            return A_THREAD
        return A_PROCESS if self._processes.any() else self._loop.sockets.any()

    def _called_from_outside(self) -> bool:
        now, before = self._loop.activity, self._activity_at_rest
        if now != self._activity_when_idle:
            return True
        # A thread that is at rest now could have worked, and written to a socket itself, after that was last looked at.
        self._activity_at_rest = now
        return now != before and self._threads.exist()

    def _threads_work(self) -> bool:
        # A thread of an executor has returned its result a moment before it is idle, and has taken a job a moment before
        # it is seen to work. One that could run may do so while it is asked about that, so its frame is looked at afterwards.
        for _ in range(_LOOKS_AT_THREADS):
            if self._own_threads.any():
                return True
            if not self._threads.any_could_run() and not self._threads.any():
                return False
            time.sleep(_BETWEEN_LOOKS_S)
        return self._threads.any()

    def _until_next_event(self) -> None:
        if self._limit.over:
            raise self._never_idle()
        self._loop.iterate(self._limit.pause_s)

    def _tick(self) -> None:
        if self._limit.over:
            raise self._never_idle()
        # Not in the selector, which counts in milliseconds.
        time.sleep(IN_FLIGHT_POLL_S)
