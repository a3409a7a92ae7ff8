"""The connection: bytes out, lines in, and how it ended. Knows no dialect and no terminal, and makes no decisions.

Invariants of Connection:
- Connected is its first event and Disconnected its last.
- Sending after Disconnected has no effect.
- Each line is handled before more is read, so nothing queues up here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from geventchat.client.address import Address
from geventchat.dialects.framing import Line, LineFraming

CONNECT_TIMEOUT_S = 10.0
# How long the last connection can take to send what is left.
CLOSE_TIMEOUT_S = 1.0

# 10,000 names of 20 characters, each escaped as \uXXXX, are 1.3 MB on one line of the json dialect.
MAX_LINE_BYTES = 4 * 1024 * 1024

# A peer that has vanished is noticed within about a minute and a half.
TCP_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 90_000}


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection has been established."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """The attempt failed; `reason` is a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class LineReceived:
    """The server sent a line."""

    connection: Connection
    line: Line


@dataclass(frozen=True, slots=True)
class Writable:
    """The send buffer has drained."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; `reason` completes a sentence."""

    connection: Connection
    reason: str


ConnectionEvent = Connected | ConnectFailed | LineReceived | Writable | Disconnected
ConnectionHandler = Callable[[ConnectionEvent], None]


class Connection(asyncio.Protocol):
    """One connection to a server."""

    def __init__(self, handle: ConnectionHandler) -> None:
        self._handle = handle
        self._framing = LineFraming(MAX_LINE_BYTES)
        self._transport: asyncio.Transport | None = None
        # True while the send buffer is full.
        self.blocked = False
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _enable_keepalive(transport.get_extra_info("socket"))
        self._handle(Connected(self))

    def data_received(self, data: bytes) -> None:
        for line in self._framing.feed(data):
            self._handle(LineReceived(self, line))

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self._handle(Writable(self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()
        self._handle(Disconnected(self, "the server closed it" if exc is None else _reason(exc)))

    def send(self, data: bytes) -> None:
        """Send, without waiting."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is left, and close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


class Network:
    """Opens connections, one at a time."""

    def __init__(self, handle: ConnectionHandler) -> None:
        self._handle = handle
        self._attempt: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    def connect(self, address: Address) -> None:
        """Try to connect; the outcome is Connected or ConnectFailed."""
        self._attempt = asyncio.get_running_loop().create_task(self._connect(address))

    async def close(self) -> None:
        """Cancel the current attempt, and close the last connection."""
        if self._attempt is not None:
            self._attempt.cancel()
        if self._connection is not None:
            self._connection.close()
            try:
                await asyncio.wait_for(self._connection.closed.wait(), CLOSE_TIMEOUT_S)
            except asyncio.TimeoutError:
                self._connection.abort()

    def _new_connection(self) -> Connection:
        self._connection = Connection(self._handle)
        return self._connection

    async def _connect(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(
            self._new_connection, address.host, address.port, happy_eyeballs_delay=0.25
        )
        try:
            await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
        except asyncio.TimeoutError:
            self._handle(ConnectFailed(f"{address} did not answer within {CONNECT_TIMEOUT_S:.0f} s."))
        except (OSError, UnicodeError) as error:
            self._handle(ConnectFailed(explain(address, error)))


def explain(address: Address, error: OSError | UnicodeError) -> str:
    """Why connecting failed, in a sentence."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return f"Cannot look up {address.host} at the moment."
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"Unknown host {address.host}."
    codes = _error_codes(error)
    if codes == {errno.ECONNREFUSED}:
        return f"Connection refused by {address}."
    if len(codes) == 1:
        error = OSError(codes.pop(), "")
    return f"Cannot connect to {address}: {_reason(error)}."


def _error_codes(error: OSError) -> set[int]:
    if error.errno is not None:
        return {error.errno}
    # A host with several addresses fails with one exception, whose text lists theirs.
    return {int(code) for code in re.findall(r"\[Errno (\d+)\]", str(error))}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        text = os.strerror(error.errno)
    else:
        text = str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


def _enable_keepalive(connected: socket.socket | None) -> None:
    if connected is None or connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in TCP_KEEPALIVE.items():
        # Some systems lack some of these.
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
