"""The connection: bytes out, lines in, and how it ended. Knows no dialect and no terminal, and makes no decisions.

Invariants of Connection:
- Connected is its first event and Disconnected its last.
- Sending after Disconnected has no effect.
- Each line is handled before more is read, so nothing queues up here.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from geventchat.client.address import Address
from geventchat.client.loop import Loop, Timer
from geventchat.dialects.framing import Line, LineFraming

# How long the last connection can take to send what is left.
CLOSE_TIMEOUT_S = 1.0
# A host can have several addresses, of which some do not answer.
NEXT_ADDRESS_S = 0.25
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
MakeConnection = Callable[[Loop, socket.socket, ConnectionHandler], "Connection"]


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


class Attempt:
    """One attempt to connect: looks the host up, then tries its addresses, the next one soon after the one before.

    The first that answers is taken, and over TLS, shaking hands with it is a part of the attempt.
    """

    def __init__(
        self,
        loop: Loop,
        address: Address,
        timeout_s: float,
        handle: ConnectionHandler,
        make: MakeConnection | None = None,
    ) -> None:
        """`make` makes a connection that emits Connected or ConnectFailed itself."""
        self._loop = loop
        self._address = address
        self._handle = handle
        self._make = make
        self._shaking_hands: Connection | None = None
        self._over = False
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._trying: list[socket.socket] = []
        self._errors: list[OSError] = []
        self._next_timer: Timer | None = None
        failed = f"{address} did not answer within {timeout_s:.0f} s."
        self._deadline = loop.call_at(loop.now() + timeout_s, partial(self._fail, failed))
        # A thread, because looking up a name blocks. A daemon, because it cannot be cancelled.
        threading.Thread(target=self._look_up, name="look-up", daemon=True).start()

    def cancel(self) -> None:
        """Give up, without an event."""
        self._over = True
        self._deadline.cancel()
        self._stop_trying()
        if self._shaking_hands is not None:
            self._shaking_hands.abort()

    def _stop_trying(self) -> None:
        if self._next_timer is not None:
            self._next_timer.cancel()
        for trying in self._trying:
            self._loop.on_writable(trying.fileno(), None)
            trying.close()
        self._trying.clear()

    def _look_up(self) -> None:
        try:
            found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._loop.call_from_thread(partial(self._fail, explain(self._address, error)))
        else:
            self._loop.call_from_thread(partial(self._found, found))

    def _found(self, addresses: list[tuple[Any, ...]]) -> None:
        if not self._over:
            self._waiting.extend(addresses)
            self._try_next()

    def _try_next(self) -> None:
        if self._next_timer is not None:
            self._next_timer.cancel()
        if not self._waiting:
            if not self._trying:
                self._fail(explain(self._address, *self._errors))
            return
        family, kind, protocol, _, place = self._waiting.popleft()
        try:
            trying = socket.socket(family, kind, protocol)
        except OSError as error:
            self._errors.append(error)
            self._try_next()
            return
        trying.setblocking(False)
        self._trying.append(trying)
        self._next_timer = self._loop.call_at(self._loop.now() + NEXT_ADDRESS_S, self._try_another)
        code = trying.connect_ex(place)
        if code in {0, errno.EINPROGRESS}:
            self._loop.on_writable(trying.fileno(), partial(self._decided, trying))
        else:
            self._failed_one(trying, code)

    def _try_another(self) -> None:
        if self._waiting:
            self._try_next()

    def _decided(self, trying: socket.socket) -> None:
        code = trying.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._loop.on_writable(trying.fileno(), None)
        if code:
            self._failed_one(trying, code)
            return
        self._trying.remove(trying)
        if self._make is None:
            self.cancel()
            self._handle(Connected(Connection(self._loop, trying, self._handle)))
        else:
            self._stop_trying()
            self._waiting.clear()
            self._shaking_hands = self._make(self._loop, trying, self._shaken)

    def _shaken(self, event: ConnectionEvent) -> None:
        if isinstance(event, Connected | ConnectFailed):
            if self._over:
                return
            self._shaking_hands = None
            self.cancel()
        self._handle(event)

    def _failed_one(self, trying: socket.socket, code: int) -> None:
        self._errors.append(OSError(code, os.strerror(code)))
        self._trying.remove(trying)
        trying.close()
        self._try_next()

    def _fail(self, reason: str) -> None:
        if not self._over:
            self.cancel()
            self._handle(ConnectFailed(reason))


class Network:
    """Opens connections, one at a time."""

    def __init__(self, loop: Loop, handle: ConnectionHandler, authorities: str = "") -> None:
        """`authorities` is a file of certificates that are trusted in place of those of the system."""
        self._loop = loop
        self._handle = handle
        self._authorities = authorities
        self._attempt: Attempt | None = None
        self._connections: list[Connection] = []

    def connect(self, address: Address, timeout_s: float) -> None:
        """Try to connect; the outcome is Connected or ConnectFailed."""
        if self._attempt is not None:
            self._attempt.cancel()
        make = None
        if address.tls:
            from geventchat.client.tls import InvalidAuthorities, TlsConnection, client_context

            try:
                context = client_context(self._authorities)
            except InvalidAuthorities as error:
                failed = ConnectFailed(str(error), final=True)
                self._loop.call_soon(lambda: self._handle(failed))
                return
            make = partial(TlsConnection, context=context, address=address)
        self._attempt = Attempt(self._loop, address, timeout_s, self._handled, make)

    def close(self) -> None:
        """Cancel the current attempt, and close all connections."""
        if self._attempt is not None:
            self._attempt.cancel()
        for connection in self._connections:
            connection.close()

    @property
    def is_closed(self) -> bool:
        """True when every connection is closed."""
        return all(connection.is_closed for connection in self._connections)

    def _handled(self, event: ConnectionEvent) -> None:
        match event:
            case Connected(connection):
                self._connections.append(connection)
            case Disconnected(connection):
                self._connections.remove(connection)
        self._handle(event)


def explain(address: Address, *errors: OSError | UnicodeError) -> str:
    """Why connecting failed, in a sentence."""
    error = errors[-1]
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return f"Cannot look up {address.host} at the moment."
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"Unknown host {address.host}."
    codes = {one.errno for one in errors if isinstance(one, OSError)}
    if codes == {errno.ECONNREFUSED}:
        return f"Connection refused by {address}."
    reasons = dict.fromkeys(reason_of(one) for one in errors)
    return f"Cannot connect to {address}: {', '.join(reasons)}."


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
