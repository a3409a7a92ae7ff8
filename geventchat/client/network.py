"""The network: looks a host up, tries its addresses, and opens connections, over TLS where an address says so."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from geventchat.client.address import Address
from geventchat.client.connection import (
    Connected,
    ConnectFailed,
    Connection,
    ConnectionEvent,
    ConnectionHandler,
    Disconnected,
    reason_of,
)
from geventchat.client.loop import Loop, Timer

# A host can have several addresses, of which some do not answer.
NEXT_ADDRESS_S = 0.25

MakeConnection = Callable[[Loop, socket.socket, ConnectionHandler], Connection]


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
