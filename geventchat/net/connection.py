"""One client's greenlet: read, frame, hand to the hub; the idle cutoff; the end, however it comes.

Must not write to its socket (the outbox does) and must not know what a line means (the dialect does). The greenlet waits
nowhere but in `_wait`, so that the idle time-out and a dismissal arrive only where nothing is half done.
"""

from __future__ import annotations

import socket
import struct
import traceback
from collections.abc import Callable
from enum import Enum
from typing import Any

from gevent import Timeout
from greenlet import getcurrent

from geventchat.chat.commands import Fault, Violation
from geventchat.chat.events import Dismissed, Parting
from geventchat.chat.hub import Session
from geventchat.dialects.framing import Framer
from geventchat.log import Happening
from geventchat.net.feed import Feed
from geventchat.net.opening import Opening, Stranger
from geventchat.net.outbox import Outbox
from geventchat.net.pace import Pace
from geventchat.net.surroundings import Surroundings

_READ, _WRITE = 1, 2
_CHUNK_BYTES = 65_536
# A client is not read while so much of its own answers waits: it asks faster than it listens, and is nobody's problem.
_OWN_BYTES = 65_536
# Closer to the cutoff than a timer can be set.
_SLACK_S = 1e-6
_TOO_LONG = Violation(Fault.TOO_LONG)
# SO_LINGER for no time at all: what is unsent is thrown away, and the peer learns of it by a reset.
_ABORT = struct.pack("ii", 1, 0)


class Departure(Enum):
    """How a conversation ended; the value is what the log says."""

    QUIT = "quit"
    CLOSED = "closed"
    RESET = "reset"
    IDLE = "idle"
    SLOW = "slow"
    SHUTDOWN = "shutdown"
    REFUSED = "refused"
    HTTP = "http"
    TLS = "tls"
    FAULT = "fault"


# These are owed nothing more, or cannot be sent it.
_AT_ONCE = frozenset({Departure.RESET, Departure.SLOW, Departure.HTTP, Departure.TLS})
_STRANGERS = {Stranger.HTTP: Departure.HTTP, Stranger.TLS: Departure.TLS}


class _Over(Exception):
    """The conversation is over, for this reason."""

    def __init__(self, departure: Departure) -> None:
        super().__init__(departure.value)
        self.departure = departure


class Connection:
    """One client, from accept to close."""

    __slots__ = (
        "_framer",
        "_greenlet",
        "_idle",
        "_idle_notice",
        "_idle_s",
        "_last_heard",
        "_on_end",
        "_over",
        "_pace",
        "_parting",
        "_read_watcher",
        "_session",
        "_sock",
        "_surroundings",
        "_waiting",
        "address",
        "name",
        "number",
        "outbox",
    )

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        number: int,
        feed: Feed,
        surroundings: Surroundings,
        idle_s: float,
        idle_notice: Dismissed | None,
        on_end: Callable[[Connection], None],
    ) -> None:
        """`idle_s` 0 is no cutoff; `on_end` is told when the socket is closed."""
        limits = surroundings.limits
        self.number = number
        self.address = address
        self.name = ""
        self.outbox = Outbox(sock, feed, surroundings.flusher, self._lost)
        self._sock = sock
        self._surroundings = surroundings
        self._session = Session(self.outbox)
        self._framer = Framer(limits.line_bytes)
        self._last_heard = now = surroundings.clock.monotonic()
        self._pace = Pace(limits.lines_per_s, limits.burst_lines, now) if limits.lines_per_s else None
        self._idle_s = idle_s
        self._idle_notice = idle_notice
        self._idle: Timeout | None = None
        self._on_end = on_end
        self._over: Departure | None = None
        self._parting = False
        self._greenlet: Any = None
        self._waiting = False
        self._read_watcher = surroundings.loop.loop.io(sock.fileno(), _READ)

    def converse(self) -> None:
        """The whole conversation; the body of the client's greenlet."""
        self._greenlet = getcurrent()
        departure = Departure.FAULT
        try:
            self._start_idle(self._idle_s)
            departure = self._listen()
        except _Over as over:
            departure = over.departure
        except OSError:
            departure = Departure.RESET
        except Exception:
            self._fault()
        finally:
            self._end(departure)

    def refuse(self, parting: Parting) -> None:
        """Say why there is no room, and go; instead of `converse`."""
        self._greenlet = getcurrent()
        self.outbox.hear(Dismissed(parting, blame=True))
        self._end(Departure.REFUSED)

    def dismiss(self) -> None:
        """The server stops: say so, and go."""
        if self._over is None and not self._parting:
            self._surroundings.hub.close(self._session)
            self.outbox.hear(Dismissed(Parting.SHUTDOWN))
            self._interrupt(Departure.SHUTDOWN)

    def drop(self) -> None:
        """The time for goodbyes is over: close at once."""
        self.outbox.close()
        self._interrupt(Departure.RESET)

    def _listen(self) -> Departure:
        framer, recv, wait = self._framer, self._sock.recv, self._wait
        opening: Opening | None = Opening(self._surroundings.limits.line_bytes)
        while True:
            # Waiting before each read, not only when there is nothing, is also how a client that never pauses lets
            # everyone else have their turn.
            wait(self._read_watcher)
            try:
                chunk = recv(_CHUNK_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                return Departure.CLOSED
            if opening is not None:
                verdict = opening.judge(chunk)
                if isinstance(verdict, Stranger):
                    return _STRANGERS[verdict]
                if verdict:
                    opening = None
            lines = framer.feed(chunk)
            if lines and not self._handle_all(lines):
                return Departure.QUIT

    def _handle_all(self, lines: list[bytes | None]) -> bool:
        clock, pace = self._surroundings.clock, self._pace
        if pace is None:
            self._last_heard = clock.monotonic()
            return self._handle(lines)
        while True:
            self._last_heard = now = clock.monotonic()
            granted = pace.take(len(lines), now)
            if not self._handle(lines if granted == len(lines) else lines[:granted]):
                return False
            del lines[:granted]
            if not lines:
                return True
            with self._surroundings.loop.loop.timer(pace.delay_s) as timer:
                self._wait(timer)

    def _handle(self, lines: list[bytes | None]) -> bool:
        session, outbox = self._session, self.outbox
        read, handle = outbox.feed.dialect.read, self._surroundings.hub.handle
        for line in lines:
            known = session.name
            command = _TOO_LONG if line is None else read(line, known is not None)
            if command is None:
                continue
            if not handle(session, command):
                return False
            if session.name is not known:
                self._entered()
            if outbox.waiting > _OWN_BYTES:
                self._wait_until_sent()
        return True

    def _entered(self) -> None:
        assert self._session.name is not None
        self.name = self._session.name.shown
        self._surroundings.log(Happening.LOGIN, conn=self.number, name=self.name)

    def _wait_until_sent(self) -> None:
        with self._surroundings.loop.loop.io(self._sock.fileno(), _WRITE) as writable:
            while not self.outbox.idle:
                self._wait(writable)

    def _wait(self, watcher: Any) -> None:
        """Until the watcher fires. The one place where this greenlet can be interrupted."""
        while True:
            if self._over is not None:
                raise _Over(self._over)
            self._waiting = True
            try:
                self._surroundings.loop.wait(watcher)
            except Timeout as fired:
                if fired is not self._idle:
                    raise
                self._look_at_the_clock()
            else:
                return
            finally:
                self._waiting = False

    def _start_idle(self, seconds: float) -> None:
        if seconds:
            self._idle = Timeout(seconds)
            self._idle.start()

    def _look_at_the_clock(self) -> None:
        # The time-out is not moved with every line; when it fires, the last line says how much is left.
        assert self._idle is not None
        self._idle.close()
        left = self._last_heard + self._idle_s - self._surroundings.clock.monotonic()
        if left < _SLACK_S:
            raise _Over(Departure.IDLE)
        self._start_idle(left)

    def _interrupt(self, departure: Departure) -> None:
        if self._over is None:
            self._over = departure
        # From the loop, because whoever calls may be in the middle of something that must not be left.
        self._surroundings.loop.loop.run_callback(self._wake)

    def _wake(self) -> None:
        if self._waiting:
            self._waiting = False
            self._greenlet.throw(_Over(self._over or Departure.FAULT))

    def _lost(self, slow: bool) -> None:
        departure = Departure.SLOW if slow else Departure.RESET
        self._leave(departure)
        self._interrupt(departure)

    def _leave(self, departure: Departure) -> None:
        if departure is not Departure.SHUTDOWN:
            self._surroundings.hub.leave(self._session)

    def _fault(self) -> None:
        self._surroundings.log(
            Happening.FAULT, conn=self.number, name=self.name, error=traceback.format_exc().rstrip()
        )

    def _end(self, departure: Departure) -> None:
        """Leave the chat, hand over what is still owed, close. Whatever happens here, the socket ends closed."""
        self._parting = True
        try:
            if self._idle is not None:
                self._idle.close()
                self._idle = None
            if departure is Departure.IDLE and self._idle_notice is not None:
                self.outbox.hear(self._idle_notice)
            self._leave(departure)
            if departure not in _AT_ONCE:
                departure = self._part(departure)
        except OSError:
            pass  # It is gone already, which is where this leads anyway.
        except _Over as over:
            departure = over.departure
        except Exception:
            self._fault()
        finally:
            self._close(departure)

    def _part(self, departure: Departure) -> Departure:
        """Send what is owed and the end of it, then wait a little for the other side to end too."""
        limits = self._surroundings.limits
        # From here on only trouble interrupts; being dismissed is what this is.
        self._over = None
        with Timeout(limits.flush_s) as flush:
            try:
                self._wait_until_sent()
            except Timeout as fired:
                if fired is not flush:
                    raise
                return Departure.SLOW
        self._sock.shutdown(socket.SHUT_WR)
        with Timeout(limits.linger_s, False):
            while True:
                self._wait(self._read_watcher)
                try:
                    if not self._sock.recv(_CHUNK_BYTES):
                        break
                except BlockingIOError:
                    continue
        return departure

    def _close(self, departure: Departure) -> None:
        self.outbox.close()
        self._read_watcher.close()
        if departure is Departure.SLOW:
            # What it will never read need not stay in the kernel's memory.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._sock.close()
        self._on_end(self)
        if departure is not Departure.REFUSED:
            self._surroundings.log(
                Happening.DISCONNECTED,
                conn=self.number,
                address=self.address,
                name=self.name,
                reason=departure.value,
            )
