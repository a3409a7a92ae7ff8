"""One client's greenlet: read, frame, hand to the hub, and the end of it, however it comes.

Must not write to its socket (the outbox does), must not know what a line means (the dialect does), and waits nowhere but in
its vigil.
"""

from __future__ import annotations

import socket
import struct
import traceback
from collections.abc import Callable
from typing import Any

from gevent import Timeout

from geventchat.chat.commands import Fault, Say, Violation
from geventchat.chat.events import Dismissed, Parting
from geventchat.chat.hub import Session
from geventchat.dialects.dialect import Marked
from geventchat.dialects.framing import Framer
from geventchat.log import LogEvent
from geventchat.net.departure import Departure, Over
from geventchat.net.feed import Feed
from geventchat.net.opening import Opening, Stranger
from geventchat.net.outbox import Outbox
from geventchat.net.pace import Pace
from geventchat.net.surroundings import Surroundings
from geventchat.net.vigil import Vigil, closing_watcher

_READ, _WRITE = 1, 2
_CHUNK_BYTES = 65_536
# A client is not read while so much of its own answers waits: it asks faster than it listens, and is nobody's problem.
_OWN_BYTES = 65_536
_TOO_LONG = Violation(Fault.TOO_LONG)
# SO_LINGER for no time at all: what is unsent is thrown away, and the peer learns of it by a reset.
_ABORT = struct.pack("ii", 1, 0)
# These are owed nothing more, or cannot be sent it.
_AT_ONCE = frozenset({Departure.RESET, Departure.SLOW, Departure.HTTP, Departure.TLS})
_STRANGERS = {Stranger.HTTP: Departure.HTTP, Stranger.TLS: Departure.TLS}


class Connection:
    """One client, from accept to close."""

    __slots__ = (
        "_around",
        "_framer",
        "_name",
        "_on_end",
        "_on_the_way_out",
        "_outbox",
        "_pace",
        "_parting",
        "_readable",
        "_session",
        "_sock",
        "_vigil",
        "_who",
        "address",
        "number",
    )

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        number: int,
        feed: Feed,
        around: Surroundings,
        who: str | None,
        on_end: Callable[[Connection], None],
    ) -> None:
        """`who` holds a place at the door, None is on the way out already; `on_end` is told when the socket is closed."""
        limits = around.limits
        self.number = number
        self.address = address
        self._name = ""
        self._sock = sock
        self._around = around
        self._outbox = Outbox(sock, feed, around.flusher, self._lost)
        self._session = Session(self._outbox)
        self._vigil = Vigil(around.loop, around.clock)
        self._framer = Framer(limits.line_bytes)
        self._pace = (
            Pace(limits.lines_per_s, limits.burst_lines, self._vigil.heard()) if limits.lines_per_s else None
        )
        self._who = who
        self._on_the_way_out = who is None
        self._parting = who is None
        self._on_end = on_end
        self._readable: Any = around.loop.loop.io(sock.fileno(), _READ)

    def converse(self, idle_s: float, idle_notice: Dismissed | None) -> None:
        """The whole conversation; the body of the client's greenlet. `idle_s` 0 is no cutoff."""
        departure = Departure.FAULT
        try:
            self._vigil.begin(idle_s)
            departure = self._listen()
        except Over as over:
            departure = over.departure
        except OSError:
            departure = Departure.RESET
        except Exception:
            self._fault()
        finally:
            self._end(departure, idle_notice if departure is Departure.IDLE else None)

    def refuse(self, why: Parting) -> None:
        """Say why there is no room, and go; instead of `converse`."""
        self._end(Departure.REFUSED, Dismissed(why, blame=True))

    def dismiss(self) -> None:
        """The server stops: say so, and go."""
        if not self._parting and not self._vigil.over:
            self._around.hub.close(self._session)
            self._outbox.hear(Dismissed(Parting.SHUTDOWN))
            self._vigil.interrupt(Departure.SHUTDOWN)

    def drop(self) -> None:
        """The time for goodbyes is over: close at once."""
        self._outbox.close()
        self._vigil.interrupt(Departure.RESET)

    def _listen(self) -> Departure:
        framer, readable, recv, until = self._framer, self._readable, self._sock.recv, self._vigil.until
        opening: Opening | None = Opening(self._around.limits.line_bytes)
        while True:
            # Waiting before each read, not only when there is nothing, is also how a client that never pauses lets
            # everyone else have their turn.
            until(readable)
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
            if lines and not self._handle_in_time(lines):
                return Departure.QUIT
            # Or a client that says nothing more would keep what it said last, up to a whole chunk, in memory.
            del chunk, lines

    def _handle_in_time(self, lines: list[bytes | None]) -> bool:
        vigil, pace = self._vigil, self._pace
        now = vigil.heard()
        if pace is None:
            return self._handle(lines)
        while (granted := pace.take(len(lines), now)) < len(lines):
            if not self._handle(lines[:granted]):
                return False
            del lines[:granted]
            vigil.pause(pace.delay_s)
            now = vigil.heard()
        return self._handle(lines)

    def _handle(self, lines: list[bytes | None]) -> bool:
        session, outbox = self._session, self._outbox
        if outbox.backlog_bytes > _OWN_BYTES:
            self._wait_until_sent()
        read, hub = outbox.feed.dialect.read, self._around.hub
        # What is said line after line with nothing between is one breath: one event, one frame, one place in the order.
        breath: list[str] = []
        for line in lines:
            known = session.name
            command = _TOO_LONG if line is None else read(line, known is not None)
            if type(command) is Say and command.text and known is not None:
                breath.append(command.text)
                continue
            if command is None:
                continue
            if breath:
                hub.say(session, breath)
                breath = []
            if isinstance(command, Marked):
                outbox.put(command.answer)
                command = command.command
                if command is None:
                    continue
            if not hub.handle(session, command):
                return False
            if session.name is not known:
                self._entered()
            if outbox.own_bytes > _OWN_BYTES:
                self._wait_until_sent()
        if breath:
            hub.say(session, breath)
        return True

    def _entered(self) -> None:
        assert self._session.name is not None
        self._name = self._session.name.shown
        self._around.log(LogEvent.LOGIN, conn=self.number, name=self._name)

    def _wait_until_sent(self) -> None:
        with closing_watcher(self._around.loop.loop.io(self._sock.fileno(), _WRITE)) as writable:
            while not self._outbox.idle:
                self._vigil.until(writable)

    def _lost(self, slow: bool) -> None:
        self._vigil.interrupt(Departure.SLOW if slow else Departure.RESET)

    def _fault(self) -> None:
        error = traceback.format_exc().rstrip()
        self._around.log(LogEvent.FAULT, conn=self.number, name=self._name, error=error)

    def _end(self, departure: Departure, last_word: Dismissed | None) -> None:
        """Leave the chat, hand over what is still owed, close. Whatever happens here, the socket ends closed."""
        try:
            self._parting = True
            self._vigil.begin_to_part()
            if last_word is not None:
                self._outbox.hear(last_word)
            self._around.hub.leave(self._session)
            if departure not in _AT_ONCE:
                departure = self._part(departure)
        except OSError:
            pass  # It is gone already, which is where this leads anyway.
        except Over as over:
            departure = over.departure
        except Exception:
            self._fault()
        finally:
            self._close(departure)

    def _part(self, departure: Departure) -> Departure:
        """Send what is owed and the end of it, then wait a little for the other side to end too."""
        limits = self._around.limits
        flush = Timeout(limits.flush_s)
        try:
            with flush:
                self._wait_until_sent()
        except Timeout as fired:
            if fired is not flush:
                raise
            return Departure.SLOW
        if self._outbox.gone:
            return Departure.RESET
        if self._who is not None:
            self._give_up_place()
            self._on_the_way_out = self._around.door.part()
            if not self._on_the_way_out:
                return departure
        self._sock.shutdown(socket.SHUT_WR)
        linger = Timeout(limits.linger_s)
        try:
            with linger:
                self._read_to_the_end()
        except Timeout as fired:
            if fired is not linger:
                raise
        return departure

    def _read_to_the_end(self) -> None:
        while True:
            self._vigil.until(self._readable)
            try:
                if not self._sock.recv(_CHUNK_BYTES):
                    return
            except BlockingIOError:
                continue

    def _give_up_place(self) -> None:
        if self._who is not None:
            self._around.door.leave(self._who)
            self._who = None
        if self._on_the_way_out:
            self._around.door.parted()
            self._on_the_way_out = False

    def _close(self, departure: Departure) -> None:
        self._give_up_place()
        self._outbox.close()
        self._readable.close()
        if departure is Departure.SLOW:
            # What it will never read need not stay in the kernel's memory.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._sock.close()
        self._on_end(self)
        if departure is not Departure.REFUSED:
            self._around.log(
                LogEvent.DISCONNECTED,
                conn=self.number,
                address=self.address,
                name=self._name,
                reason=departure.value,
            )
