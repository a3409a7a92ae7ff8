"""A client between accept and its service: reads the proxy header, and does the TLS handshake. Knows no service.

A handshake takes as much CPU time as about fifty lines, and cannot be interrupted. So each iteration of the event loop computes
one, however many clients wait for it, and other clients are served in between. The input of waiting clients is also read a few
at a time.

Invariants:
- Nothing is computed for a client before its first record is complete.
- One ClientHello is answered per iteration of the event loop, also one in several records, or a second one that the server has
  requested.
- A client has `handshake_s` to send its first record, and as long again for the rest of the handshake. The wait for its turn
  does not count. A proxy has `handshake_s` for its header.
- Each read, and the handshake, is charged to the client's address.
- The client's slot is passed on with it, or freed here. A proxied client has no slot before its header has been read, because
  its address is not known yet.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from geventchat.chat.events import NoticeReason
from geventchat.log import LogEvent
from geventchat.net.admission import Refusal, origin_of
from geventchat.net.proxy_header import HeaderReader, InvalidHeader
from geventchat.net.service import Accepted, OpenConnection
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
from geventchat.net.waiter import CloseReason, ConnectionEnded, Waiter, at_most, closing_watcher

if TYPE_CHECKING:
    from geventchat.net.connection import ServerContext

_READ, _WRITE = 1, 2
_READ_BYTES = 4_096
# The least that a read costs, as for open connections, and the cost of a handshake, which is that of thirty lines; in bytes.
_LEAST_READ_COST = 32
_HANDSHAKE_COST = 1_024
# 0 would be no deadline.
_LEAST_S = 0.001
_NO_HEADER = {
    CloseReason.CLOSED: "it ended before its header was complete",
    CloseReason.IDLE: "its header did not come in time",
}


class _NotTls(Exception):
    """The client does not speak TLS."""


class _Early:
    """A client that has not reached its service."""

    __slots__ = ("_context", "_host", "_on_closed", "_socket", "_waiter", "number")

    def __init__(
        self,
        sock: socket.socket,
        host: str,
        number: int,
        context: ServerContext,
        on_closed: Callable[[OpenConnection], None],
    ) -> None:
        self.number = number
        self._socket = sock
        self._host = host
        self._context = context
        self._on_closed = on_closed
        self._waiter = Waiter(context.hub, context.clock, context.hangups, sock.fileno())

    def shut_down(self) -> None:
        """Close without a notice: the client's protocol is not known yet."""
        self._waiter.interrupt(CloseReason.SHUTDOWN)

    def drop(self) -> None:
        """Close at once."""
        self._waiter.interrupt(CloseReason.RESET)

    def _read(self, readable: Any, most: int) -> bytes:
        """Wait for input, and read at most this many bytes of it."""
        while True:
            self._waiter.until(readable)
            try:
                chunk = self._socket.recv(most)
            except BlockingIOError:
                continue
            if not chunk:
                raise ConnectionEnded(CloseReason.CLOSED)
            return chunk

    def _finish(self) -> None:
        """End the wait for input. Raises ConnectionEnded if the connection was ended meanwhile."""
        self._waiter.clear_deadline()
        if self._waiter.ended is not None:
            raise ConnectionEnded(self._waiter.ended)

    def _release(self) -> None:
        self._waiter.clear_deadline()
        self._socket.close()
        self._on_closed(self)

    def _fault(self, fault: Exception) -> None:
        text = self._context.delivery.failure(fault)[1]
        self._log(LogEvent.FAULT, conn=self.number, name="", error=text)

    def _log(self, event: LogEvent, /, **fields: object) -> None:
        self._context.log.of_address(origin_of(self._host), event, **fields)


class ProxiedOpening(_Early):
    """A client whose proxy has not sent its address yet."""

    __slots__ = ("_on_header",)

    def __init__(
        self,
        sock: socket.socket,
        proxy: str,
        number: int,
        context: ServerContext,
        on_closed: Callable[[OpenConnection], None],
        on_header: Callable[[str], None],
    ) -> None:
        """`on_header` passes the client on, with its address."""
        super().__init__(sock, proxy, number, context, on_closed)
        self._on_header = on_header

    def run(self) -> None:
        """Read the header and pass the client on; the body of its greenlet."""
        try:
            self._waiter.start(0.0, self._context.limits.handshake_s)
            host = self._read_header()
            self._finish()
        except ConnectionEnded as ended:
            self._refuse(_NO_HEADER.get(ended.reason, ""))
        except InvalidHeader as invalid:
            self._refuse(str(invalid))
        except OSError:
            self._refuse(_NO_HEADER[CloseReason.CLOSED])
        except Exception as fault:
            self._fault(fault)
            self._release()
        else:
            self._on_header(host)

    def _read_header(self) -> str:
        reader = HeaderReader()
        with closing_watcher(self._context.input_turns.watcher(self._socket.fileno())) as readable:
            while reader.wanted:
                self._waiter.until(readable)
                self._read_arrived(reader)
        return self._host if reader.source is None else reader.source

    def _read_arrived(self, reader: HeaderReader) -> None:
        """Read what has arrived of the header, in one turn: of version 1, that is two bytes at a time."""
        with suppress(BlockingIOError):
            while reader.wanted:
                chunk = self._socket.recv(reader.wanted)
                if not chunk:
                    raise ConnectionEnded(CloseReason.CLOSED)
                reader.feed(chunk)

    def _refuse(self, error: str) -> None:
        if error:
            self._context.note_refusal(self.number, self._host, Refusal.PROXY_HEADER, error=error)
        self._release()


class Opening(_Early):
    """A client that has yet to shake hands, as `service.ServedConnection`."""

    __slots__ = ("_accepted", "_charged_bytes", "_due", "_on_open", "_tls")

    def __init__(
        self,
        accepted: Accepted,
        sock: socket.socket,
        tls: ssl.SSLContext,
        context: ServerContext,
        on_open: Callable[[Accepted, Transport], None],
    ) -> None:
        """`on_open` passes the client on, with the transport that decrypts."""
        super().__init__(sock, accepted.host, accepted.number, context, accepted.on_closed)
        self._accepted = accepted
        self._tls = tls
        self._on_open = on_open
        self._charged_bytes = 0
        # When the handshake has to be complete; not known before its first record is.
        self._due: float | None = None

    def run(self) -> None:
        """Shake hands and pass the client on; the body of its greenlet."""
        reason, error = CloseReason.FAULT, ""
        try:
            self._waiter.start(0.0, self._context.limits.handshake_s)
            transport = self._shake_hands()
            self._finish()
            self._on_open(self._accepted, transport)
            return
        except ConnectionEnded as ended:
            reason = ended.reason
        except _NotTls:
            reason = CloseReason.NO_TLS
        except ssl.SSLError as failed:
            reason, error = CloseReason.HANDSHAKE, reason_of(failed)
        except OSError:
            reason = CloseReason.RESET
        except Exception as fault:
            self._fault(fault)
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

    # --- The handshake -----------------------------------------------------------------------------------------------

    def _shake_hands(self) -> TlsTransport:
        with closing_watcher(self._context.input_turns.watcher(self._socket.fileno())) as readable:
            hello = self._read_charged(readable)
            while speaks_tls(hello) and not is_whole_record(hello) and len(hello) < MOST_HELLO_BYTES:
                hello += self._read_charged(readable)
            if not speaks_tls(hello):
                self._socket.send(UNEXPECTED_MESSAGE)
                raise _NotTls
            self._take_turn()
            # It takes memory.
            transport = TlsTransport(self._socket, self._tls)
            complete = self._go_on(transport, hello)
            while not complete:
                received = self._read_charged(readable)
                if not transport.has_answered:
                    # This can complete the hello.
                    self._take_turn()
                complete = self._go_on(transport, received)
        return transport

    def _take_turn(self) -> None:
        """Pay for answering a hello, and wait for a turn. The client has no less time left than before."""
        self._charge(_HANDSHAKE_COST)
        limit_s, clock = self._context.limits.handshake_s, self._context.clock
        left_s = limit_s if self._due is None else self._due - clock.monotonic()
        self._waiter.clear_deadline()
        self._context.handshake_turns.wait(self._waiter)
        now = self._waiter.note_activity()
        if limit_s:
            self._due = now + left_s
            self._waiter.start(0.0, max(left_s, _LEAST_S))

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

    def _read_charged(self, readable: Any) -> bytes:
        chunk = self._read(readable, _READ_BYTES)
        self._charge(max(len(chunk), _LEAST_READ_COST))
        return chunk

    def _charge(self, cost: int) -> None:
        """Charge this to the address. The first bytes of a connection do not wait, so that newcomers are not kept out."""
        address = self._accepted.address
        if address is None:
            return
        now = self._context.clock.monotonic()
        address.charge(cost, now)
        address.network.charge(cost, now)
        self._charged_bytes += cost
        if self._charged_bytes <= self._context.limits.login_chunk_bytes:
            return
        for gate, queue in (
            (address.traffic_gate, str(self.number)),
            (address.network.traffic_gate, address.name),
        ):
            if not gate.is_open():
                with gate.passage(self._waiter, queue):
                    pass

    # --- The end -----------------------------------------------------------------------------------------------------

    def _read_to_the_end(self) -> None:
        # Closing with unread input would reset the connection, which can cost the peer the alert.
        left = self._context.limits.burst_bytes
        watcher = self._context.hub.loop.io(self._socket.fileno(), _READ)
        with closing_watcher(watcher) as readable, at_most(self._context.limits.linger_s):
            while left > 0:
                self._waiter.until(readable)
                size = len(self._socket.recv(_READ_BYTES))
                if not size:
                    return
                left -= size

    def _close(self, reason: CloseReason, error: str) -> None:
        accepted = self._accepted
        if accepted.address is None:
            # A client of an internal service is neither counted nor logged.
            self._release()
            return
        self._context.admission.leave(accepted.address)
        self._release()
        self._context.counts.closed[reason] += 1
        more = {"error": error} if error else {}
        self._log(
            LogEvent.DISCONNECTED,
            conn=self.number,
            address=accepted.host,
            name="",
            reason=reason.value,
            **more,
        )
