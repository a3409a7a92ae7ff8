"""The exact fence: the server's loop has nothing left to do, its threads neither, and no byte is on its way.

Also the only way in which virtual time moves. Knows no scripts, no targets and no lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from greenlet import getcurrent

from harness.stage.connection import Connection, End
from harness.stage.fence import FenceFailed
from harness.stage.isolation import World
from harness.stage.kernel import TcpState
from harness.stage.traceback_hiding import hides_traceback
from harness.stage.virtual_time import VirtualLoop

__tracebackhide__ = hides_traceback
_IN_FLIGHT_POLL_S = 0.0001
_GIVE_UP_ON_KERNEL_S = 0.05
"""How long the kernel may leave a connection half made or half ended before that counts as how things are."""


class NeverIdle(FenceFailed):
    """The server's own loop never comes to rest: it spins, or a thread of its pool does not come back."""


class ExactFence:
    """Lets a virtual loop run until all that can happen at this instant has happened."""

    def __init__(
        self, world: World, connections: Callable[[], Iterable[Connection]], within_s: float
    ) -> None:
        self._hub = world.hub
        self._loop: VirtualLoop = world.loop
        self._connections = connections
        self._within_s = within_s

    def settle(self) -> None:
        """Return once nothing is left to do and nothing under way at the present virtual instant."""
        loop = self._loop
        current = getcurrent()
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
                seen = [_look(connection, patient) for connection in self._connections()]
                if any(moving for moving, _, _ in seen):
                    self._tick()
                    continue
                # What a server has not read though its loop was idle, and again after one more idle, it does not
                # mean to read now.
                left = [(far, near) for _, far, near in seen]
                if left == left_before or not any(map(any, left)):
                    return
                left_before = left
        finally:
            guard.close()

    def wait(self, seconds: float) -> None:
        """Let virtual time pass, one due timer after another, everything settled in between."""
        loop = self._loop
        until = loop.elapsed_us + round(seconds * 1_000_000)
        self.settle()
        while (due := loop.next_due_us) is not None and due <= until:
            loop.fire_next()
            self.settle()
        loop.move_to(until)

    def drive(self, work: Callable[[], Any]) -> Any:
        """Run something of the server's that may block, moving time for it as far as it needs."""
        outcome: list[Any] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                outcome.append(work())
            except BaseException as error:
                errors.append(error)

        running = gevent.spawn(run)
        while True:
            self.settle()
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
            "had a thread at work that did not come back"
            if self._loop.threads_at_work
            else "never became idle"
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
    """Whether anything is on its way on this connection, and what lies unread at the server and here.

    The order of the looks matters: what is no longer on its way has arrived, and what has arrived is unread or read.
    """
    outgoing = connection.unacknowledged
    far = connection.peer_state()
    listens = connection.reads and connection.end is End.OPEN
    waiting = connection.waiting if listens else 0
    if far is None:
        return outgoing > 0, 0, waiting
    match far.state:
        case TcpState.SYN_RECV | TcpState.NEW_SYN_RECV:
            moving = patient
        case TcpState.CLOSE:
            moving = patient and listens and not waiting
        case TcpState.ESTABLISHED if connection.said_end:
            moving = patient
        case _:
            # Unacknowledged by us: held back by the server's kernel, or an end of stream still on its way.
            moving = (outgoing > 0 and not far.unread and connection.in_flight) or (
                listens and far.unacknowledged > 0
            )
    return moving, far.unread, waiting
