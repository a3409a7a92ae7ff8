"""Virtual time and the exact fence for servers in this process: one idea, whichever loop the server runs on.

- Time moves only in `VirtualTime.advance`, `VirtualTime.wait_until` and `VirtualTime._advance_until`, one due timer after
  another, with everything settled in between.
- Settled means: the loop is idle, no job that it handed to a thread is unfinished, and no byte is in flight or unread
  between a client and the server, or between two TCP sockets of the server. Threads and processes that the server starts
  itself are not seen by any loop, nor what another process is about to send to it; `settle` says so, and time then moves
  only when nothing has come for a moment.
- A loop must be a `SteeredLoop` for this; `gevent_loop` and `asyncio_loop` each have one.

Knows no loop, no scripts and no targets.
"""

from __future__ import annotations

import heapq
import io
import os
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Generic, Protocol, TypeVar

from harness.stage.connection import Connection, ConnectionState, End
from harness.stage.event_loop import EventLoop
from harness.stage.fence import NeverIdle, hides_traceback
from harness.stage.kernel import (
    Ends,
    TcpState,
    are_drained,
    ends_of,
    is_held_here,
    source_of,
    unread,
    written_and_arrived,
)
from harness.stage.limits import Limit
from harness.stage.threads import (
    has_children,
    is_halted,
    is_runnable,
    main_thread_of,
    other_threads,
    own_children,
)

__tracebackhide__ = hides_traceback

START_TIME_S = 1_234_567_890
"""The instant at which virtual time begins, in seconds since 1970: a run shows the same timestamps every time."""

START_MONOTONIC_S = 1_000
"""Neither zero nor the time of day, so that a server that confuses the two clocks fails."""

SERVER_OUTPUT_CHARS = 64_000

US = 1_000_000
IN_FLIGHT_POLL_S = 0.0001
"""How often it is looked whether bytes in flight have arrived."""

_PATIENT_MOMENTS = 20
"""How many moments to wait while a server starts that waits for something outside its loop, before time moves on."""

_GIVE_UP_ON_KERNEL_S = 1.0
"""How long the kernel can leave a connection half open or half closed before that counts as its final state."""


# --- clocks and timers --------------------------------------------------------------------------------------


class SteeredLoop(Protocol):
    """A loop whose time moves only when its caller moves it."""

    sockets: ForeignConnections
    elapsed_us: int
    jumped_us: int
    """How far the time of day was set forward or back."""

    @property
    def next_due_us(self) -> int | None:
        """When the next timer is due, in microseconds since the start; None where no timer waits."""

    def fire_next(self) -> None:
        """Move time to the next timer that is due and fire it."""

    def move_to(self, at_us: int) -> None:
        """Set the time to `at_us`; it never goes back."""


class VirtualClock:
    """Reads the time of one virtual loop."""

    def __init__(self, loop: SteeredLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return START_MONOTONIC_S + self._loop.elapsed_us / US

    def time(self) -> float:
        return START_TIME_S + (self._loop.elapsed_us + self._loop.jumped_us) / US


_Timer = TypeVar("_Timer")


class TimerHeap(Generic[_Timer]):
    """Timers by the time at which they are due. Whether an entry still waits is asked when it matters."""

    def __init__(self, waits: Callable[[int, _Timer], bool]) -> None:
        self._waits = waits
        self._entries: list[tuple[int, int, int, _Timer]] = []
        self._tickets = 0
        self._most = 128

    def __len__(self) -> int:
        """How many timers wait."""
        return sum(self._waits(ticket, timer) for _, _, ticket, timer in self._entries)

    def push(self, at_us: int, timer: _Timer, priority: int = 0) -> int:
        """Put a timer into the heap; the ticket identifies its entry."""
        if len(self._entries) >= self._most:
            self._drop_stale()
        self._tickets += 1
        heapq.heappush(self._entries, (at_us, -priority, self._tickets, timer))
        return self._tickets

    def _drop_stale(self) -> None:
        # A server that starts and stops a time-out around each read would otherwise fill memory.
        self._entries = [entry for entry in self._entries if self._waits(entry[2], entry[3])]
        heapq.heapify(self._entries)
        self._most = max(128, 2 * len(self._entries))

    @property
    def next_due_us(self) -> int | None:
        """When the first timer that waits is due."""
        entries = self._entries
        while entries and not self._waits(entries[0][2], entries[0][3]):
            heapq.heappop(entries)
        return entries[0][0] if entries else None

    def pop(self) -> _Timer:
        """Remove the first timer that waits."""
        if self.next_due_us is None:
            raise RuntimeError("no timer waits")
        return heapq.heappop(self._entries)[3]


class ErrorLog(io.StringIO):
    """Collects what a loop reports about the server's code that failed: the first reports, up to a limit."""

    def write(self, text: str) -> int:
        if self.tell() < SERVER_OUTPUT_CHARS:
            super().write(text)
        return len(text)


# --- threads and processes of the server's own --------------------------------------------------------------


A_THREAD, A_PROCESS = "a thread", "a process that the server started"

_left_threads: dict[int, threading.Thread | None] = {}
"""The threads that servers have started and that still ran when their stage ended, by identifier."""

_left_processes: set[int] = set()
"""The same for processes."""


@contextmanager
def started_by_a_server() -> Iterator[None]:
    """Threads and processes that appear while inside are a server's until they end, also for all later stages: a worker that
    the first play has started can answer in the third."""
    threads, processes = _threads(), _children()
    try:
        yield
    finally:
        now = _threads()
        for ident in [one for one, thread in _left_threads.items() if not _is_among(now, one, thread)]:
            del _left_threads[ident]
        _left_threads.update(
            (ident, thread) for ident, thread in now.items() if not _is_among(threads, ident, thread)
        )
        _left_processes.intersection_update(children := _children())
        _left_processes.update(children - processes)


def _threads() -> dict[int, threading.Thread | None]:
    """The native threads that run Python; None for one that the module `threading` does not know."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    return {ident: known.get(ident) for ident in sys._current_frames()}


def _is_among(
    threads: Mapping[int, threading.Thread | None], ident: int, thread: threading.Thread | None
) -> bool:
    """Whether this thread is one of these. An identifier is reused once its thread has ended."""
    if ident not in threads:
        return False
    other = threads[ident]
    # A thread that `threading` does not know gets a stand-in when it asks for itself.
    return other is thread or all(
        one is None or isinstance(one, threading._DummyThread) for one in (other, thread)
    )


def _children() -> set[int]:
    return set(own_children()) if has_children() else set()


class ForeignThreads:
    """Knows which native threads are the work of a server, besides those that its loop accounts for: those that have appeared
    since the stage began, and those that the servers of earlier stages have left."""

    def __init__(self, accounted_for: Callable[[FrameType], bool]) -> None:
        self._accounted_for = accounted_for
        self._before = {
            ident: thread
            for ident, thread in _threads().items()
            if not _is_among(_left_threads, ident, thread)
        }

    def any(self) -> bool:
        frames = sys._current_frames()
        return len(frames) > 1 and any(
            not self._accounted_for(frames[ident]) for ident in self._of_servers(frames.keys())
        )

    def _of_servers(self, idents: Iterable[int]) -> list[int]:
        """Those of these threads that are the work of a server. An identifier is reused once its thread has ended."""
        for ident in [one for one, thread in self._before.items() if thread and not thread.is_alive()]:
            del self._before[ident]
        return [ident for ident in idents if ident not in self._before]

    def exist(self) -> bool:
        """Whether there is any, also one that is accounted for."""
        frames = sys._current_frames()
        return len(frames) > 1 and bool(self._of_servers(frames))

    def any_could_run(self) -> bool:
        """Whether there is any, and a thread of this process besides this one could run: on a busy machine it can hold a job
        that its frame does not show yet."""
        if not self.exist():
            return False
        time.sleep(0)  # lets go of the interpreter, and so wakes a thread that waits for it
        return any(map(is_runnable, other_threads()))


class ForeignProcesses:
    """Knows which processes servers have started from this one and that still run. What one of them says can come through a
    file or its exit status, which no loop sees."""

    def __init__(self) -> None:
        self._before = _children() - _left_processes

    def any(self) -> bool:
        return has_children() and any(
            child not in self._before and not is_halted(main_thread_of(child)) for child in own_children()
        )


@contextmanager
def errors_of_threads(note: Callable[[BaseException], None]) -> Iterator[None]:
    """Hand on the exceptions that end threads which are started while inside."""
    before, outer = frozenset(threading.enumerate()), threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread in before or args.exc_value is None:
            outer(args)
        elif not isinstance(args.exc_value, SystemExit):
            note(args.exc_value)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = outer


# --- connections to other processes -------------------------------------------------------------------------


class ForeignConnections:
    """Knows which of the descriptors that a loop watches lead out of this process: nothing tells when something will come
    from there. Of TCP connections that the server has with itself, it knows what is on its way."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        """Descriptors to look at. A socket without a connection remains here: it can get one without being watched anew."""
        self._listening: set[object] = set()
        """The ports and paths at which the loop listens."""
        self._clients: set[object] = set()
        """The ports of the stage's own clients, also of those that have closed."""
        self._out: dict[int, Ends | str] = {}
        """Those that lead out: the ends of connections, and where others lead, in words."""
        self._inside: set[int] = set()
        """Sockets that can be ends of TCP connections of the server with itself."""

    def watch(self, fileno: int) -> None:
        """Note that the loop watches this descriptor, which can be a new one under an old number."""
        self._new.add(fileno)

    def watch_client(self, fileno: int) -> None:
        """Note that this is a socket of one of the stage's own clients."""
        ends = ends_of(fileno)
        if ends is not None:
            self._clients.add(ends.near)

    def any(self) -> str:
        """One of them, in words; empty where there is none."""
        for fileno, ends in [*self._out.items()]:
            if (ends_of(fileno) or source_of(fileno)) != ends:
                del self._out[fileno]
                self._new.add(fileno)
        if self._new:
            self._sort_new()
        return next(map(self._in_words, self._out.values()), "")

    def looks_inside(self) -> list[_Look]:
        """What is on its way, and what lies unread, on each connection of the server with itself."""
        if self._new:
            self._sort_new()
        if not self._inside or are_drained(self._inside):
            return []
        found = {fileno: ends for fileno in self._inside if (ends := ends_of(fileno)) and ends.far}
        self._inside = {fileno for fileno, ends in found.items() if not self._is_clients(ends)}
        by_ends = {found[fileno].both: fileno for fileno in self._inside}
        pairs = ((fileno, by_ends.get(found[fileno].both_from_there)) for fileno in sorted(self._inside))
        return [_look_inside(one, other) for one, other in pairs if other is not None and one < other]

    def _sort_new(self) -> None:
        found = {fileno: ends_of(fileno) for fileno in self._new}
        self._new = {fileno for fileno, ends in found.items() if ends and ends.is_unconnected}
        self._listening.update(ends.near for ends in found.values() if ends and ends.listens)
        for fileno, ends in found.items():
            if ends is None:
                if source := source_of(fileno):
                    self._out[fileno] = source
            elif self._leads_out(ends):
                self._out[fileno] = ends
            elif isinstance(ends.far, int) and not self._is_clients(ends):
                self._inside.add(fileno)

    def _is_clients(self, ends: Ends) -> bool:
        """Whether this is an end of a connection of one of the stage's own clients."""
        return ends.near in self._clients or ends.far in self._clients

    def _leads_out(self, ends: Ends) -> bool:
        if not ends.is_open:
            return False
        if ends.far is None:
            return True
        if ends.of_another is not None:
            return ends.of_another and ends.far not in self._listening
        if ends.near in self._listening:
            return ends.far not in self._clients and not is_held_here(ends)
        return not (ends.here and ends.far in self._listening)

    def _in_words(self, ends: Ends | str) -> str:
        if isinstance(ends, str):
            return ends
        if ends.far is None:
            return "a connection that is being made"
        if ends.near in self._listening:
            return f"a connection from another process to {_place(ends.near)}"
        return f"a connection to {_place(ends.far)}"


def _place(end: object) -> str:
    return f"port {end}" if isinstance(end, int) else str(end)


# --- the event loop of a stage ------------------------------------------------------------------------------


class VirtualTime(EventLoop):
    """Drives the clients and the server of one stage on a loop whose time is virtual."""

    virtual = True

    def __init__(self, loop: SteeredLoop, within_s: float) -> None:
        super().__init__(VirtualClock(loop), processes=lambda: (os.getpid(),))
        self._time = loop
        self._within_s = within_s
        self._connections: list[Connection] = []
        self._given_up: dict[Connection, _HalfWay] = {}
        """Connections that the kernel has left half open or half closed for too long."""

    def register(self, connection: Connection) -> None:
        self._connections.append(connection)

    def advance(self, seconds: float) -> None:
        loop = self._time
        until = loop.elapsed_us + round(seconds * US)
        self._let_come()
        while (due := loop.next_due_us) is not None and due <= until:
            loop.fire_next()
            self._let_come()
        loop.move_to(until)

    def wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        loop, limit = self._time, self.limits.limit(seconds)
        until = loop.elapsed_us + round(seconds * US)
        while not (done() or limit.over):
            settled = self._let_come(done)
            if done():
                break
            if (due := loop.next_due_us) is not None and due <= until:
                loop.fire_next()
            elif settled:
                break  # nothing can come any more
            else:
                self.pause(limit.pause_s)
        return done()

    def _let_come(self, enough: Callable[[], bool] = lambda: False) -> bool:
        """Settle; True if that is proven. Where something is at work that the loop does not see, wait until nothing has come
        for a moment, or enough has."""
        limit, moment = self.limits.limit(self._within_s), self.limits.limit(self.moment_s)
        before = self._came()
        while not (settled := self.settle()) and not (enough() or moment.over or limit.over):
            self.pause(moment.pause_s)
            if (now := self._came()) != before:
                before, moment = now, self.limits.limit(self.moment_s)
        return settled

    def _came(self) -> list[ConnectionState]:
        return [one.state for one in self._connections]

    def settle(self) -> bool:
        while True:
            self._settle()
            works = self._works_unseen()
            if works:
                self.unseen = works
                return False
            if not self._called_from_outside():
                return True

    def _settle(self) -> None:
        """Run until the loop is idle and nothing is in flight at this virtual instant."""
        patience = self.limits.limit(_GIVE_UP_ON_KERNEL_S)
        left_before: list[tuple[int, int]] | None = None
        with self._bounded():
            while True:
                self._run_until_idle()
                if self._jobs_under_way():
                    self._until_next_event()
                    continue
                seen = [(connection, _look(connection)) for connection in self._connections]
                inside = self._time.sockets.looks_inside()
                if any(self._is_moving(connection, look, patience) for connection, look in seen) or (
                    inside and any(look.in_flight for look in inside)
                ):
                    self._tick()
                    continue
                # Input that the server has not read although its loop was idle twice is left unread on purpose.
                left = [(look.unread_there, look.unread_here) for _, look in seen]
                left += [(look.unread_there, look.unread_here) for look in inside]
                if left == left_before or not any(map(any, left)):
                    return
                left_before = left

    def _is_moving(self, connection: Connection, look: _Look, patience: Limit) -> bool:
        """Whether something is on its way on this connection. The kernel's part of it is waited for once."""
        if look.in_flight or look.half_way is None:
            return look.in_flight
        if patience.over:
            self._given_up[connection] = look.half_way
        return self._given_up.get(connection) != look.half_way

    def _advance_until(self, done: Callable[[], bool]) -> None:
        """Run the loop until this is true, and advance time as far as that needs, which can take `within_s` of real time."""
        limit = self.limits.limit(self._within_s)
        while True:
            unseen = not self.settle()
            if not unseen and self._time.next_due_us is None and not done():
                raise NeverIdle(
                    "", self._within_s, "waits for something that cannot come, while starting or stopping"
                )
            quiet = self.limits.limit(_PATIENT_MOMENTS * self.moment_s)
            while unseen and not done() and not quiet.over:
                self.pause(self.moment_s)
                self._settle()
            if done():
                return
            if limit.over:
                waits_for = self.unseen if unseen else "something that does not come"
                raise NeverIdle("", self._within_s, f"waits for {waits_for}, while starting or stopping")
            if self._time.next_due_us is not None:
                self._time.fire_next()

    def _never_idle(self) -> NeverIdle:
        stuck = self._jobs_under_way()
        why = "had a thread at work that did not return" if stuck else "never became idle"
        return NeverIdle("", self._within_s, why)

    # Implemented for each kind of loop

    @abstractmethod
    def _bounded(self) -> AbstractContextManager[object]:
        """Inside, waiting ends with `_never_idle` after `within_s` of real time."""

    @abstractmethod
    def _run_until_idle(self) -> None:
        """Let the loop do all that it can do now."""

    @abstractmethod
    def _jobs_under_way(self) -> bool:
        """Whether a job that the loop handed to a thread has not yet returned."""

    @abstractmethod
    def _works_unseen(self) -> str:
        """The work that the loop cannot see, such as a thread; empty if there is none."""

    @abstractmethod
    def _called_from_outside(self) -> bool:
        """Whether a thread, which can have ended since, could have done something after the loop was last idle that was not
        looked at. Asked when no thread is at work."""

    @abstractmethod
    def _until_next_event(self) -> None:
        """Wait, in real time, until the loop has something to do."""

    @abstractmethod
    def _tick(self) -> None:
        """Wait, in real time, for as long as bytes are given to arrive."""


_HalfWay = tuple[TcpState, int, int]
"""The state of the server's end of a half-open or half-closed connection, and its unacknowledged and unread bytes."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Whether bytes are in flight on a connection, what the kernel has left half-way, and what lies unread at both ends."""

    in_flight: bool
    half_way: _HalfWay | None
    unread_there: int
    unread_here: int


def _look_inside(one: int, other: int) -> _Look:
    """Look at both ends of a TCP connection of the server with itself.

    First at what was written and what has arrived, then at what is unread: what was read makes room for what is on its way.
    """
    (written, arrived), (written_there, arrived_there) = map(written_and_arrived, (one, other))
    unread_here, unread_there = unread(one), unread(other)
    in_flight = (written > arrived_there and not unread_there) or (
        written_there > arrived and not unread_here
    )
    return _Look(in_flight, None, unread_there, unread_here)


def _look(connection: Connection) -> _Look:
    """Look at both ends.

    The order of the checks matters: what is no longer in flight has arrived, and what has arrived is unread or read.
    """
    outgoing = connection.unacknowledged
    peer = connection.peer_state()
    listens = connection.reads and connection.end is End.OPEN
    waiting = connection.unread if listens else 0
    if peer is None:
        return _Look(outgoing > 0, None, 0, waiting)
    in_flight = is_half_way = False
    match peer.state:
        case TcpState.SYN_RECV | TcpState.NEW_SYN_RECV:
            is_half_way = True
        case TcpState.CLOSE:
            is_half_way = listens and not waiting
        case TcpState.ESTABLISHED if connection.sent_end:
            is_half_way = True
        case _:
            # Unacknowledged by us: held back by the server's kernel, or an end of stream still in flight.
            in_flight = (outgoing > 0 and not peer.unread and connection.in_flight) or (
                listens and peer.unacknowledged > 0
            )
    half_way = (peer.state, outgoing, peer.unread) if is_half_way else None
    return _Look(in_flight, half_way, peer.unread, waiting)
