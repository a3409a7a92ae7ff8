"""What becomes of the sockets that listeners accept until a service has them; and all connections that are open.

A client gets a number. If a proxy may have connected for it, the proxy's header says so. Then the client gets a slot or is
refused, shakes hands where there is TLS, and is its service's. Knows no protocol, and never waits.

Invariants:
- `Connections.open` has a client under its number from accept to close, whatever stands for it: a header that is being read,
  a handshake, a connection of a service.
- A refused client takes a place to linger in. One that has yet to send a header, or to shake hands with an internal service, is
  accepted only while fewer are open than there are slots and such places.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

import gevent
from gevent.event import Event

from geventchat.chat.events import NoticeReason
from geventchat.log import LogEvent
from geventchat.net.admission import Refusal
from geventchat.net.connection import Connection, ServerContext
from geventchat.net.opening import Opening, ProxiedOpening
from geventchat.net.service import Accepted, OpenConnection, ServedConnection, Service
from geventchat.net.tls import Certificate
from geventchat.net.transport import Transport


class Connections:
    """All that are open."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        """`on_closed` is called whenever one has been closed: a descriptor is free."""
        # By their numbers, the oldest first.
        self.open: dict[int, OpenConnection] = {}
        self.last_number = 0
        self._on_closed = on_closed
        self._empty = Event()
        self._empty.set()

    @property
    def in_chat(self) -> list[Connection]:
        """Those of the chat, the oldest first."""
        found = (getattr(one, "successor", None) or one for one in self.open.values())
        return [one for one in found if isinstance(one, Connection)]

    def new_number(self) -> int:
        """The number of the next one."""
        self.last_number += 1
        return self.last_number

    def add(self, connection: OpenConnection) -> None:
        """Have one more, or another one in the place of the one with its number."""
        self.open[connection.number] = connection
        self._empty.clear()

    def closed(self, connection: OpenConnection) -> None:
        """Forget one whose socket is closed."""
        del self.open[connection.number]
        self._on_closed()
        self.check_empty()

    def check_empty(self) -> None:
        """Wake whoever waits for the last one to be closed, if it is."""
        if not self.open:
            self._empty.set()

    def wait_until_empty(self, within_s: float) -> bool:
        """Wait until all are closed; False if some are not within this time."""
        return bool(self._empty.wait(within_s))


@dataclass(frozen=True, slots=True)
class Acceptor:
    """The way of the clients of one listener to their service."""

    connections: Connections
    context: ServerContext
    service: Service
    scheme: str
    # What they shake hands with first; None without TLS.
    certificate: Certificate | None
    # True if a proxy connects from this address for others.
    is_proxy: Callable[[str], bool]

    def accept(self, sock: socket.socket, host: str) -> None:
        """Begin to serve a client, or to refuse it."""
        number = self.connections.new_number()
        if self.service.is_internal:
            if self.certificate is not None and self._is_full():
                # Before its handshake the service does not bound it.
                sock.close()
                return
            gevent.spawn_raw(self._add(sock, Accepted(sock, host, number, None, self.connections.closed)).run)
            return
        self.context.counts.accepted += 1
        if self.is_proxy(host):
            self._read_proxy_header(sock, host, number)
        else:
            self._admit(sock, host, number)

    def _is_full(self) -> bool:
        """True if there are as many as there can be with those that have no slot yet."""
        limits = self.context.limits
        return len(self.connections.open) >= limits.clients + limits.lingering

    def _read_proxy_header(self, sock: socket.socket, proxy: str, number: int) -> None:
        if self._is_full():
            # They have no slots yet, but descriptors.
            self.context.note_refusal(number, proxy, Refusal.SERVER_FULL)
            sock.close()
            return

        def on_header(host: str) -> None:
            del self.connections.open[number]
            self._admit(sock, host, number)
            self.connections.check_empty()

        try:
            opening = ProxiedOpening(sock, proxy, number, self.context, self.connections.closed, on_header)
            self.connections.add(opening)
            gevent.spawn_raw(opening.run)
        except MemoryError:
            self._give_up(sock, number)

    def _admit(self, sock: socket.socket, host: str, number: int) -> None:
        context = self.context
        banned = context.chat.is_banned_address(host)
        entered = NoticeReason.BANNED if banned else context.admission.enter(host)
        if isinstance(entered, NoticeReason):
            self._refuse(sock, host, number, entered)
            return
        try:
            connection = self._add(sock, Accepted(sock, host, number, entered, self.connections.closed))
            context.log.of_address(
                entered.name, LogEvent.CONNECTED, conn=number, address=host, dialect=self.scheme
            )
            gevent.spawn_raw(connection.run)
        except MemoryError:
            self._give_up(sock, number)
            context.admission.leave(entered)

    def _refuse(self, sock: socket.socket, host: str, number: int, reason: NoticeReason) -> None:
        context = self.context
        context.note_refusal(number, host, Refusal(reason.value))
        if not context.admission.reserve_linger():
            sock.close()
            return
        try:
            connection = self._add(sock, Accepted(sock, host, number, None, self.connections.closed))
            gevent.spawn_raw(connection.refuse, reason)
        except MemoryError:
            self._give_up(sock, number)
            context.admission.free_linger()

    def _add(self, sock: socket.socket, accepted: Accepted) -> ServedConnection:
        connection: ServedConnection
        if self.certificate is None:
            connection = self.service.connection(accepted)
        else:
            connection = Opening(accepted, sock, self.certificate.context, self.context, self._on_open)
        self.connections.add(connection)
        return connection

    def _on_open(self, accepted: Accepted, transport: Transport) -> None:
        connection = self.service.connection(replace(accepted, transport=transport))
        self.connections.add(connection)
        gevent.spawn_raw(connection.run)

    def _give_up(self, sock: socket.socket, number: int) -> None:
        """Close a client that the server has no memory for."""
        self.context.delivery.reserve.spend()
        sock.close()
        self.connections.open.pop(number, None)
        self.connections.check_empty()
