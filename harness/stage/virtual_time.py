"""Virtual time and the exact fence for servers in this process: one idea, whichever loop the server runs on.

- Time moves only in `VirtualTime.advance` and `VirtualTime._advance_until`, one due timer after another, with everything
  settled in between.
- Settled means: the loop is idle, no job that it handed to a thread is unfinished, and no byte is in flight or unread
  between a client and the server. Threads that the server starts itself are not seen by any loop; `settle` says so.
- A loop must be a `SteeredLoop` for this; `gevent_loop` and `asyncio_loop` each have one.

Knows no loop, no scripts and no targets.
"""

from __future__ import annotations

import heapq
import io
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Generic, Protocol, TypeVar

from harness.stage.connection import Connection, End
from harness.stage.event_loop import EventLoop
from harness.stage.fence import NeverIdle, hides_traceback
from harness.stage.kernel import TcpState
from harness.stage.threads import is_runnable, other_threads

__tracebackhide__ = hides_traceback

START_TIME_S = 1_234_567_890
"""The instant at which virtual time begins, in seconds since 1970: a run shows the same timestamps every time."""

START_MONOTONIC_S = 1_000
"""Neither zero nor the time of day, so that a server that confuses the two clocks fails."""

SERVER_OUTPUT_CHARS = 64_000

US = 1_000_000
IN_FLIGHT_POLL_S = 0.0001
"""How often it is looked whether bytes in flight have arrived."""

_GIVE_UP_ON_KERNEL_S = 1.0
"""How long the kernel can leave a connection half open or half closed before that counts as its final state."""


# --- clocks and timers --------------------------------------------------------------------------------------


class SteeredLoop(Protocol):
    """A loop whose time moves only when its caller moves it."""

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


# --- threads of the server's own ----------------------------------------------------------------------------


class ForeignThreads:
    """Knows which native threads have appeared since a stage began, besides those that its loop accounts for."""

    def __init__(self, accounted_for: Callable[[FrameType], bool]) -> None:
        self._accounted_for = accounted_for
        self._before = frozenset(sys._current_frames())

    def any(self) -> bool:
        frames = sys._current_frames()
        return len(frames) > 1 and any(
            not self._accounted_for(frames[ident]) for ident in frames.keys() - self._before
        )

    def any_could_run(self) -> bool:
        """Whether any has appeared, and a thread of this process besides this one could run: on a busy machine it can hold
        a job that its frame does not show yet."""
        if not sys._current_frames().keys() - self._before:
            return False
        time.sleep(0)  # lets go of the interpreter, and so wakes a thread that waits for it
        return any(map(is_runnable, other_threads()))


# --- the event loop of a stage ------------------------------------------------------------------------------


class VirtualTime(EventLoop):
    """Drives the clients and the server of one stage on a loop whose time is virtual."""

    virtual = True

    def __init__(self, loop: SteeredLoop, within_s: float) -> None:
        super().__init__(VirtualClock(loop), processes=lambda: (os.getpid(),))
        self._time = loop
        self._within_s = within_s
        self._connections: list[Connection] = []

    def register(self, connection: Connection) -> None:
        self._connections.append(connection)

    def advance(self, seconds: float) -> None:
        loop = self._time
        until = loop.elapsed_us + round(seconds * US)
        self._settle()
        while (due := loop.next_due_us) is not None and due <= until:
            loop.fire_next()
            self._settle()
        loop.move_to(until)

    def settle(self) -> bool:
        self._settle()
        return not self._works_unseen()

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
                patient = not patience.over
                seen = [_look(connection, patient) for connection in self._connections]
                if any(moving for moving, _, _ in seen):
                    self._tick()
                    continue
                # Input that the server has not read although its loop was idle twice is left unread on purpose.
                left = [(peer, near) for _, peer, near in seen]
                if left == left_before or not any(map(any, left)):
                    return
                left_before = left

    def _advance_until(self, done: Callable[[], bool]) -> None:
        """Run the loop until this is true, and advance time as far as that needs."""
        while True:
            self._settle()
            if done():
                return
            if self._time.next_due_us is None:
                raise NeverIdle(
                    "", self._within_s, "waits for something that cannot come, while starting or stopping"
                )
            self._time.fire_next()

    def _never_idle(self) -> NeverIdle:
        stuck = self._jobs_under_way()
        why = "had a thread at work that did not return" if stuck else "never became idle"
        return NeverIdle("", self._within_s, why)

    # What depends on the loop

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
    def _works_unseen(self) -> bool:
        """Whether threads or processes are at work that the loop cannot see."""

    @abstractmethod
    def _until_next_event(self) -> None:
        """Wait, in real time, until the loop has something to do."""

    @abstractmethod
    def _tick(self) -> None:
        """Wait, in real time, for as long as bytes are given to arrive."""


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
