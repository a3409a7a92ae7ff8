"""One client between accept and its service: the TLS handshake, in a greenlet, with a deadline. Knows no service.

A handshake takes the server about as long as fifty lines do, and nothing can interrupt it. So one is computed in each
iteration of the event loop, however many clients ask for it, and what others say comes in between.

Invariants:
- Before the first record of a client is complete, nothing is computed.
- A client has `handshake_s` to send that, and again as long for the rest. Waiting for its turn does not count.
- What a client sends is charged to its address, read by read, and so is the handshake.
- The slot of the client is passed on with it, or freed here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from gevent import Timeout

from geventchat.chat.events import NoticeReason
from geventchat.log import LogEvent
from geventchat.net.admission import origin_of
from geventchat.net.service import Accepted
from geventchat.net.tls import (
    ACCESS_DENIED,
    MOST_HELLO_BYTES,
    UNEXPECTED_MESSAGE,
    TlsTransport,
    is_whole_record,
    reason_of,
    speaks_tls,
)
from geventchat.net.transport import Transport
from geventchat.net.waiter import CloseReason, ConnectionEnded, Waiter, closing_watcher

if TYPE_CHECKING:
    from geventchat.net.connection import ServerContext

_READ, _WRITE = 1, 2
_READ_BYTES = 4_096
# A read costs at least as much as this many bytes, as it does later, and a handshake as much as thirty lines.
_LEAST_READ_COST = 32
_HANDSHAKE_COST = 1_024


class _NotTls(Exception):
    """The client speaks something else."""


class Opening:
    """A client that has yet to shake hands, as `service.ServedConnection`."""

    __slots__ = (
        "_accepted",
        "_charged_bytes",
        "_context",
        "_on_open",
        "_socket",
        "_tls",
        "_waiter",
        "number",
    )

    def __init__(
        self,
        accepted: Accepted,
        sock: socket.socket,
        tls: ssl.SSLContext,
        context: ServerContext,
        on_open: Callable[[Accepted, Transport], None],
    ) -> None:
        """`on_open` passes the client on, with the transport that decrypts."""
        self.number = accepted.number
        self._accepted = accepted
        self._socket = sock
        self._tls = tls
        self._context = context
        self._on_open = on_open
        self._waiter = Waiter(context.hub, context.clock, context.hangups, sock.fileno())
        self._charged_bytes = 0

    def run(self) -> None:
        """Shake hands and pass the client on; the body of its greenlet."""
        reason, error = CloseReason.FAULT, ""
        try:
            self._waiter.start(0.0, self._context.limits.handshake_s)
            transport = self._shake_hands()
            self._waiter.clear_deadline()
            if self._waiter.ended is None:
                self._on_open(self._accepted, transport)
                return
            reason = self._waiter.ended
        except ConnectionEnded as ended:
            reason = ended.reason
        except _NotTls:
            reason = CloseReason.NO_TLS
        except ssl.SSLError as failed:
            reason, error = CloseReason.HANDSHAKE, reason_of(failed)
        except OSError:
            reason = CloseReason.RESET
        except Exception as fault:
            text = self._context.delivery.failure(fault)[1]
            self._log(LogEvent.FAULT, conn=self.number, name="", error=text)
        self._close(reason, error)

    def refuse(self, reason: NoticeReason) -> None:
        """Refuse the handshake with an alert, and close. Called instead of `run`."""
        try:
            self._waiter.start_closing()
            self._socket.send(ACCESS_DENIED)
            self._socket.shutdown(socket.SHUT_WR)
            self._read_to_the_end()
        except (OSError, ConnectionEnded):
            pass  # It has gone.
        finally:
            self._context.admission.free_linger()
            self._release()

    def shut_down(self) -> None:
        """Close: there is no way yet to tell the client why."""
        self._waiter.interrupt(CloseReason.SHUTDOWN)

    def drop(self) -> None:
        """Close at once."""
        self._waiter.interrupt(CloseReason.RESET)

    # --- The handshake -----------------------------------------------------------------------------------------------

    def _shake_hands(self) -> TlsTransport:
        with closing_watcher(self._context.hub.loop.io(self._socket.fileno(), _READ)) as readable:
            hello = self._read(readable)
            while speaks_tls(hello) and not is_whole_record(hello) and len(hello) < MOST_HELLO_BYTES:
                hello += self._read(readable)
            if not speaks_tls(hello):
                self._socket.send(UNEXPECTED_MESSAGE)
                raise _NotTls
            self._charge(_HANDSHAKE_COST)
            self._wait_for_turn()
            transport = TlsTransport(self._socket, self._tls)
            complete = self._go_on(transport, hello)
            while not complete:
                complete = self._go_on(transport, self._read(readable))
        return transport

    def _wait_for_turn(self) -> None:
        self._waiter.clear_deadline()
        self._context.handshake_turns.wait(self._waiter)
        self._waiter.note_activity()
        self._waiter.start(0.0, self._context.limits.handshake_s)

    def _go_on(self, transport: TlsTransport, received: bytes) -> bool:
        """Go on with the handshake; True when it is complete."""
        try:
            complete = transport.shake_hands(received)
        except ssl.SSLError:
            transport.flush()  # The alert; a client that does not take it now does not get it.
            raise
        if not transport.flush():
            with closing_watcher(self._context.hub.loop.io(self._socket.fileno(), _WRITE)) as writable:
                while not transport.flush():
                    self._waiter.until(writable)
        return complete

    def _read(self, readable: object) -> bytes:
        while True:
            self._waiter.until(readable)
            try:
                chunk = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                raise ConnectionEnded(CloseReason.CLOSED)
            self._charge(max(len(chunk), _LEAST_READ_COST))
            return chunk

    def _charge(self, cost: int) -> None:
        """Charge this to the address. The first bytes of a connection do not wait, so that newcomers are not kept out."""
        address = self._accepted.address
        if address is None:
            return
        address.charge(cost, self._context.clock.monotonic())
        self._charged_bytes += cost
        if (
            self._charged_bytes > self._context.limits.login_chunk_bytes
            and not address.traffic_gate.is_open()
        ):
            with address.traffic_gate.passage(self._waiter, str(self.number)):
                pass

    # --- The end -----------------------------------------------------------------------------------------------------

    def _read_to_the_end(self) -> None:
        # Closing with unread input would reset the connection, which can cost the peer the alert.
        linger = Timeout(self._context.limits.linger_s)
        left = self._context.limits.burst_bytes
        try:
            with linger, closing_watcher(self._context.hub.loop.io(self._socket.fileno(), _READ)) as readable:
                while left > 0:
                    self._waiter.until(readable)
                    size = len(self._socket.recv(_READ_BYTES))
                    if not size:
                        return
                    left -= size
        except Timeout as fired:
            if fired is not linger:
                raise

    def _close(self, reason: CloseReason, error: str) -> None:
        accepted = self._accepted
        if accepted.address is not None:
            self._context.admission.leave(accepted.address)
        self._release()
        more = {"error": error} if error else {}
        self._log(
            LogEvent.DISCONNECTED,
            conn=self.number,
            address=accepted.host,
            name="",
            reason=reason.value,
            **more,
        )

    def _release(self) -> None:
        self._waiter.clear_deadline()
        self._socket.close()
        self._accepted.on_closed(self)

    def _log(self, event: LogEvent, /, **fields: object) -> None:
        self._context.log.of_address(origin_of(self._accepted.host), event, **fields)
