"""The connection: bytes out, lines in, and how it ended. Knows no dialect and no terminal, and makes no decisions.

Invariants of Connection:
- Connected is its first event and Disconnected its last.
- Sending after Disconnected has no effect.
- Each line is handled before more is read, so nothing queues up here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from geventchat.client.loop import Loop, Timer
from geventchat.dialects.framing import Line, LineFraming

# How long the last connection can take to send what is left.
CLOSE_TIMEOUT_S = 1.0
READ_BYTES = 64 * 1024
# Beyond this, a script waits before it sends more.
BLOCKED_BYTES = 64 * 1024

# How an alert of TLS begins: what a server that only speaks TLS answers to anything else.
TLS_ALERT = b"\x15\x03"

# 10,000 names of 20 characters, each escaped as \uXXXX, are 1.3 MB on one line of the json dialect.
MAX_LINE_BYTES = 4 * 1024 * 1024

# A peer that has vanished is noticed within about a minute and a half.
TCP_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 90_000}


class Connected(NamedTuple):
    """The connection has been established."""

    connection: Connection


class ConnectFailed(NamedTuple):
    """The attempt failed; `reason` is a sentence. `final`: the server was found, so it must not be looked for elsewhere."""

    reason: str
    final: bool = False


class DataReceived(NamedTuple):
    """Something has arrived, perhaps a part of a line."""

    connection: Connection


class SpeaksTls(NamedTuple):
    """The server has answered as one that only speaks TLS does."""

    connection: Connection


class LineReceived(NamedTuple):
    """The server sent a line."""

    connection: Connection
    line: Line


class Writable(NamedTuple):
    """The send buffer has drained."""

    connection: Connection


class Disconnected(NamedTuple):
    """The connection is gone; `reason` completes a sentence."""

    connection: Connection
    reason: str


ConnectionEvent = (
    Connected | ConnectFailed | DataReceived | SpeaksTls | LineReceived | Writable | Disconnected
)
ConnectionHandler = Callable[[ConnectionEvent], None]


class Connection:
    """One connection to a server, over a socket that is connected and does not block."""

    def __init__(self, loop: Loop, connected: socket.socket, handle: ConnectionHandler) -> None:
        self._loop = loop
        self._socket: socket.socket | None = connected
        self._handle = handle
        self._framing = LineFraming(MAX_LINE_BYTES)
        self._unsent = bytearray()
        self._closing = False
        self._heard = False
        self._close_timer: Timer | None = None
        # True while the send buffer is full.
        self.blocked = False
        enable_keepalive(connected)
        loop.on_readable(connected.fileno(), self._read)

    def send(self, data: bytes) -> None:
        """Send, without waiting."""
        if self._socket is None or self._closing:
            return
        self._unsent += data
        self._write()
        self.blocked = self.blocked or len(self._unsent) > BLOCKED_BYTES

    def close(self) -> None:
        """Send what is left, and close."""
        if self._socket is None or self._closing:
            return
        self._closing = True
        self._close_timer = self._loop.call_at(self._loop.now() + CLOSE_TIMEOUT_S, self.abort)
        self._write()

    def abort(self) -> None:
        """Close at once."""
        if self._socket is not None:
            self._end("the connection was given up")

    @property
    def is_closed(self) -> bool:
        """True when nothing can be sent any more."""
        return self._socket is None

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(reason_of(error))
            return
        if not data:
            self._end("the server closed it")
            return
        self._arrived(data)

    def _arrived(self, data: bytes) -> None:
        if not self._heard and data.startswith(TLS_ALERT):
            self._handle(SpeaksTls(self))
        self._heard = True
        self._handle(DataReceived(self))
        for line in self._framing.feed(data):
            if self._socket is not None:
                self._handle(LineReceived(self, line))

    def _write(self) -> None:
        if self._socket is None:
            return
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            self._loop.on_writable(self._socket.fileno(), self._writable)
            return
        except OSError as error:
            # Reported later: no event arrives while the session sends.
            self._loop.call_soon(partial(self._end, reason_of(error)))
            self._unsent.clear()
            return
        if self._closing:
            self._loop.call_soon(partial(self._end, "it was closed"))

    def _writable(self) -> None:
        if self._socket is not None:
            self._loop.on_writable(self._socket.fileno(), None)
        self._write()
        if self.blocked and not self._unsent:
            self.blocked = False
            self._handle(Writable(self))

    def _end(self, reason: str) -> None:
        if self._socket is None:
            return
        if self._close_timer is not None:
            self._close_timer.cancel()
        descriptor = self._socket.fileno()
        self._loop.on_readable(descriptor, None)
        self._loop.on_writable(descriptor, None)
        self._socket.close()
        self._socket = None
        self._handle(Disconnected(self, reason))


def reason_of(error: Exception) -> str:
    """Why something failed, to complete a sentence."""
    if isinstance(error, OSError) and error.errno is not None:
        text = os.strerror(error.errno)
    else:
        text = str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


def enable_keepalive(connected: socket.socket) -> None:
    """Let the kernel notice a peer that has vanished."""
    if connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in TCP_KEEPALIVE.items():
        # Some systems lack some of these.
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
