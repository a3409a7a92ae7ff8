"""Where a client's greenlet waits, and what can end the wait. Knows nothing of the protocol.

Invariants of Waiter:
- The greenlet waits only here, so an idle time-out, a shutdown notice or a lost connection never interrupts a
  command that is being handled.
- The first reason to end the connection wins.
- Idle time counts from the later of the last complete line's arrival and the handling of the last pending line.
  Bytes of an unfinished line are not activity, and input that has not been read yet is not silence.
- A client that is not being read is still watched: its hang-up or reset is noticed at once.
"""

from __future__ import annotations

import math
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from fcntl import ioctl
from termios import FIONREAD
from typing import Any, TypeVar

from gevent import Timeout, monkey
from gevent.hub import Hub
from greenlet import getcurrent

from geventchat.clock import Clock

T = TypeVar("T")

_READ = 1
# The resolution of a timer.
_SLACK_S = 1e-6
# The original, even if an embedding program has patched the standard library.
_epoll: Callable[[], select.epoll] = monkey.get_original("select", "epoll")


class CloseReason(Enum):
    """Why a connection ended; the value is the word in the log."""

    QUIT = "quit"
    CLOSED = "closed"
    RESET = "reset"
    IDLE = "idle"
    SLOW = "slow"
    SHUTDOWN = "shutdown"
    KICKED = "kicked"
    BANNED = "banned"
    REPLACED = "replaced"
    REFUSED = "refused"
    HTTP = "http"
    TLS = "tls"
    NO_TLS = "no_tls"
    HANDSHAKE = "handshake"
    PROTOCOL = "protocol"
    FAULT = "fault"


class ConnectionEnded(Exception):
    """The connection is over."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class HangupWatch:
    """Notices that a peer hung up while its socket is not being read.

    To the loop's own watchers a hang-up is readable input, and they would spin on input that is left unread on purpose.
    """

    def __init__(self, hub: Hub) -> None:
        self._epoll = _epoll()
        self._callbacks: dict[int, Callable[[bool], None]] = {}
        self._watcher: Any = hub.loop.io(self._epoll.fileno(), _READ)
        self._watcher.start(self._look)

    @contextmanager
    def watching(self, fileno: int, callback: Callable[[bool], None]) -> Iterator[None]:
        """Call `callback` from the loop when the peer ends its side: with True after a reset, False otherwise."""
        self._callbacks[fileno] = callback
        self._epoll.register(fileno, select.EPOLLRDHUP | select.EPOLLET)
        try:
            yield
        finally:
            del self._callbacks[fileno]
            self._epoll.unregister(fileno)

    def close(self) -> None:
        """Stop watching everything."""
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()

    def _look(self) -> None:
        for fileno, events in self._epoll.poll(0):
            callback = self._callbacks.get(fileno)
            if callback is not None:
                callback(bool(events & (select.EPOLLERR | select.EPOLLHUP)))


class Waiter:
    """The waits of one greenlet, with one timer, which activity does not restart."""

    __slots__ = (
        "_clock",
        "_ended",
        "_fileno",
        "_greenlet",
        "_hangups",
        "_hub",
        "_idle_s",
        "_last_active",
        "_login_due",
        "_timer",
        "_waiting",
    )

    def __init__(self, hub: Hub, clock: Clock, hangups: HangupWatch, fileno: int) -> None:
        self._hub = hub
        self._clock = clock
        self._hangups = hangups
        self._fileno = fileno
        self._greenlet: Any = None
        self._timer: Timeout | None = None
        self._idle_s = 0.0
        self._last_active = clock.monotonic()
        self._login_due = math.inf
        self._ended: CloseReason | None = None
        self._waiting = False

    @property
    def ended(self) -> CloseReason | None:
        """The reason after `interrupt`."""
        return self._ended

    @property
    def idle_s(self) -> float:
        """How long ago the last complete line arrived, or was handled."""
        return self._clock.monotonic() - self._last_active

    TRANSIENT = frozenset(
        {"_clock", "_ended", "_fileno", "_greenlet", "_hangups", "_hub", "_idle_s", "_timer", "_waiting"}
    )

    def to_state(self) -> dict[str, Any]:
        """The deadlines of a client, to be handed over to a process with the same clock."""
        return {"last_active": self._last_active, "login_due": self._login_due}

    def take_state(self, state: dict[str, Any], idle_s: float) -> None:
        """Have the deadlines that another process has set."""
        self._idle_s = idle_s
        self._last_active = state["last_active"]
        self._login_due = state["login_due"]

    def resume(self) -> None:
        """Wait in the current greenlet from now on, until the deadlines that there are.

        The connection ends if it has been interrupted before.
        """
        self._greenlet = getcurrent()
        self._check()

    def start(self, idle_s: float, login_s: float) -> None:
        """Wait in the current greenlet from now on, with `login_s` to log in, unless it has been interrupted.

        0 means no limit, for both.
        """
        self._greenlet = getcurrent()
        self._idle_s = idle_s
        if login_s:
            self._login_due = self._last_active + login_s
        self._check()

    def clear_deadline(self) -> None:
        """The deadline for logging in no longer applies."""
        self._login_due = math.inf
        # It can have been started for a deadline that comes after the one of silence.
        self._stop_timer()

    @property
    def unread_bytes(self) -> int:
        """How much has arrived and has not been read."""
        return int.from_bytes(ioctl(self._fileno, FIONREAD, bytes(4)), sys.byteorder)

    def start_closing(self) -> None:
        """Forget why the connection ended, so that the current greenlet can wait until the rest is sent.

        From now on neither silence nor the deadline for logging in ends a wait; another `interrupt` does.
        """
        self._greenlet = getcurrent()
        self._ended = None
        self._idle_s = 0.0
        self._login_due = math.inf
        self._stop_timer()

    def note_activity(self) -> float:
        """Note a complete line, and return the time."""
        self._last_active = now = self._clock.monotonic()
        return now

    def until_input(self, watcher: Any) -> bool:
        """Wait until the client can be read.

        True when the deadline has passed. Input that has arrived must still be read, because this process can have
        stood still; the connection ends if it does not complete a line.
        """
        while True:
            self._check()
            if self._timer is None and (due := self._due()) < math.inf:
                left = due - self._clock.monotonic()
                if left < _SLACK_S:
                    return True
                self._start_timer(left)
            try:
                self._switch(watcher)
            except Timeout as fired:
                self._reraise_unless_own(fired)
            else:
                return False

    def until(self, watcher: Any) -> None:
        """Wait until the watcher fires. Idle time does not count, but the deadline for logging in does."""
        self._check()
        self._start_login_timer()
        try:
            self._switch(watcher)
        except Timeout as fired:
            self._reraise_unless_own(fired)
            raise ConnectionEnded(CloseReason.IDLE) from None

    def until_output(self, watcher: Any, pending: bool) -> None:
        """Wait until the client takes output. It counts as idle if it has no `pending` lines and no unread input."""
        while True:
            self._check()
            if self._timer is None and (due := self._due()) < math.inf:
                self._start_timer(max(_SLACK_S, due - self._clock.monotonic()))
            try:
                self._switch(watcher)
            except Timeout as fired:
                self._reraise_unless_own(fired)
                now = self._clock.monotonic()
                if self._due() - now < _SLACK_S:
                    if self._login_due - now < _SLACK_S or not (pending or self.unread_bytes):
                        raise ConnectionEnded(CloseReason.IDLE) from None
                    self._last_active = now
            else:
                return

    def until_passed(self, watcher: Any) -> None:
        """Wait like `until`, for a client that is being delayed; a peer that hangs up ends the connection."""
        with self._hangups.watching(self._fileno, self._hang_up):
            self.until(watcher)

    def until_turn(self, watcher: Any) -> None:
        """Wait like `until` while others are served; a peer that has ended its side is still served, unless by a reset."""
        with self._hangups.watching(self._fileno, self._reset):
            self.until(watcher)

    def pause(self, seconds: float) -> None:
        """Delay the client by this long; a peer that hangs up ends the connection."""
        with closing_watcher(self._hub.loop.timer(seconds)) as timer:
            self.until_passed(timer)

    def run(self, job: Callable[[], T]) -> T:
        """Run a job that can block this greenlet. A reset abandons it, and so do a shutdown and the deadline for logging in."""
        self._check()
        self._start_login_timer()
        with self._hangups.watching(self._fileno, self._reset):
            self._waiting = True
            try:
                result = job()
            except Timeout as fired:
                self._reraise_unless_own(fired)
                raise ConnectionEnded(CloseReason.IDLE) from None
            finally:
                self._waiting = False
        self._check()
        return result

    def interrupt(self, reason: CloseReason) -> None:
        """End the connection, from the loop, since the caller can be in the middle of something."""
        if self._ended is None:
            self._ended = reason
        self._hub.loop.run_callback(self._wake)

    def _switch(self, watcher: Any) -> None:
        self._waiting = True
        # `hub.wait` would do the same with 650 bytes more for each client that waits. Nothing else switches to this greenlet.
        watcher.start(self._greenlet.switch)
        try:
            self._hub.switch()
        finally:
            watcher.stop()
            self._waiting = False
        # The loop can find input before it runs the callback of an `interrupt`.
        self._check()

    def _check(self) -> None:
        if self._ended is not None:
            raise ConnectionEnded(self._ended)

    def _wake(self) -> None:
        if self._waiting and self._ended is not None:
            self._waiting = False
            self._greenlet.throw(ConnectionEnded(self._ended))

    def _hang_up(self, reset: bool) -> None:
        self.interrupt(CloseReason.RESET if reset else CloseReason.CLOSED)

    def _reset(self, reset: bool) -> None:
        if reset:
            self.interrupt(CloseReason.RESET)

    def _due(self) -> float:
        idle_due = self._last_active + self._idle_s if self._idle_s else math.inf
        return min(idle_due, self._login_due)

    def _reraise_unless_own(self, fired: Timeout) -> None:
        if fired is not self._timer:
            raise fired
        self._stop_timer()
        # The first reason wins, even if its callback has not run yet.
        self._check()

    def _start_login_timer(self) -> None:
        self._stop_timer()
        if self._login_due < math.inf:
            self._start_timer(max(_SLACK_S, self._login_due - self._clock.monotonic()))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _start_timer(self, seconds: float) -> None:
        self._timer = Timeout(seconds)
        self._timer.start()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Give up the body after this long, without an error."""
    deadline = Timeout(seconds)
    try:
        with deadline:
            yield
    except Timeout as fired:
        if fired is not deadline:
            raise
        # It leads to the frames that were given up, and this one to it: a cycle.
        fired.__traceback__ = None


@contextmanager
def closing_watcher(watcher: Any) -> Iterator[Any]:
    """Close the watcher after one wait: it must not outlive its descriptor."""
    try:
        yield watcher
    finally:
        watcher.stop()
        watcher.close()
