"""One HTTP client's greenlet: reads requests, has them answered, and writes the answers. Knows no paths and no chat.

A service passes in what answers. That can wait in the client's greenlet, with `HttpConnection.waiter`, and can change the
connection to another protocol.

Invariants:
- One request is read, answered and sent before the next is read: pipelined ones wait in the socket.
- A request has to be complete `request_s` after the connection or the last answer, however its bytes trickle in, and an
  answer has to be read within `flush_s` and as long as it takes at `_LEAST_BYTES_PER_S`.
- A connection answers at most `_MAX_REQUESTS`.
- However many clients send at the same moment, others are served in between.
- Requests and answers are charged as lines and answers of the chat are; a client above a rate is answered later.
- What completes no request is paid for before more is read, and waiting for that does not lengthen the time for the request.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import gevent

from geventchat.chat.events import NoticeReason
from geventchat.log import LogEvent
from geventchat.net.admission import origin_of
from geventchat.net.connection import ChatService, Connection, ServerContext, reason_of_hangup
from geventchat.net.listener import host_of
from geventchat.net.service import Accepted, ServedConnection
from geventchat.net.transport import abort, end_output, input_watcher, taken_bytes
from geventchat.net.waiter import CloseReason, ConnectionEnded, Waiter, at_most, closing_watcher
from geventchat.web.http import (
    CONTINUE,
    BadRequest,
    Request,
    RequestReader,
    Response,
    error_response,
    written,
)

_WRITE = 2
HEAD_BYTES = 8_192
_MAX_REQUESTS = 1_000
# A read costs at least as much as this many bytes, and a request as this many: so long do the shortest ones take.
_LEAST_READ_COST = 32
_LEAST_REQUEST_COST = 512
# A request that came together with the one before, or one that is given up, takes this much of a turn: a TLS handshake, which
# takes a whole one, is as much work as a few requests.
_REQUEST_SHARE = 1 / 8
# A client that reads an answer more slowly than this is disconnected.
_LEAST_BYTES_PER_S = 4_096
_REFUSALS = {
    NoticeReason.SERVER_FULL: (503, "the server is full"),
    NoticeReason.ADDRESS_FULL: (503, "too many connections from this address"),
    NoticeReason.BANNED: (403, "banned"),
}
# Nothing can be sent, or nothing should be.
_CLOSE_AT_ONCE = frozenset({CloseReason.RESET, CloseReason.SLOW})
_STOPPING = Response(503, b"the server is stopping\n")
_FAULT = Response(500, b"internal error\n")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The connection changes to another protocol, after this answer."""

    answer: bytes
    # Gets the client and what it has sent already.
    connection: Callable[[Accepted, bytes], ServedConnection]


# Answers one request, in the greenlet of its connection. Raises BadRequest.
Answer = Callable[[Request, "HttpConnection"], Response | Upgrade]


@dataclass(frozen=True, slots=True)
class HttpService:
    """HTTP, as what listeners pass their clients to."""

    name: str
    context: ServerContext
    answer: Answer
    # In every response.
    fields: tuple[tuple[str, str], ...]
    # What serves the clients that change to WebSocket.
    chat: ChatService

    @property
    def is_internal(self) -> bool:
        """False: anyone can connect."""
        return False

    def adopt(self, accepted: Accepted) -> Connection:
        """A connection for a client of another process, which speaks WebSocket."""
        return Connection(accepted, self.chat)

    def connection(self, accepted: Accepted) -> HttpConnection:
        """A connection for this client, which has yet to be run or refused."""
        return HttpConnection(accepted, self)


class HttpConnection:
    """One client, from accept until it is closed or speaks another protocol."""

    def __init__(self, accepted: Accepted, service: HttpService) -> None:
        context = service.context
        self.number = accepted.number
        self.host = accepted.host
        # Who has proved to be somebody in the last request that asked for it; for the log.
        self.name = ""
        self.waiter = Waiter(context.hub, context.clock, context.hangups, accepted.transport.fileno())
        self._accepted = accepted
        self._service = service
        self._context = context
        self._transport = accepted.transport
        self._address = accepted.address
        self._lingering = accepted.address is None
        self._origin = origin_of(accepted.host) if accepted.address is None else accepted.address.name
        self._costs = context.costs(accepted)
        self._reader = RequestReader(HEAD_BYTES, context.limits.line_bytes)
        turn = context.input_turns.watcher(accepted.transport.fileno())
        self._readable: Any = input_watcher(context.hub.loop, accepted.transport, turn)
        # A request has been read and its answer has not been sent.
        self._answering = False
        # There is no answer yet.
        self.is_asking = False
        # The server has begun to stop while an answer was being sent.
        self._stopping = False
        self._peer_closed = False
        # What serves the client after an Upgrade.
        self.successor: ServedConnection | None = None

    @property
    def fileno(self) -> int:
        """The descriptor of the client's socket."""
        return self._transport.fileno()

    @property
    def origin(self) -> str:
        """The unit that limits per address count."""
        return self._origin

    @property
    def local_host(self) -> str:
        """The address at which the client has reached this server; empty if it came over a Unix socket."""
        with socket.socket(fileno=socket.dup(self._transport.fileno())) as same:
            name = same.getsockname()
        return host_of(str(name[0])) if isinstance(name, tuple) else ""

    def take_turn(self, share: float) -> None:
        """Wait until an answer that can be long is paid for, and this much of a turn is left: it takes a while to make."""
        self._costs.wait_for_question(self.waiter)
        self._context.answer_turns.take(self.waiter, share)

    def charge(self, cost: int) -> None:
        """Charge the client for something besides its requests."""
        self._costs.charge(cost, self._context.clock.monotonic())

    def run(self) -> None:
        """Answer requests until the client or a limit ends it; the body of its greenlet."""
        reason = CloseReason.FAULT
        upgrade: Upgrade | None = None
        try:
            self.waiter.start(self._context.limits.request_s, 0)
            upgrade = self._serve()
            reason = CloseReason.CLOSED
        except BadRequest as error:
            reason = CloseReason.IDLE if error.status == 408 else CloseReason.PROTOCOL
            self._send_last(error_response(error))
        except ConnectionEnded as ended:
            reason = ended.reason
            if reason is CloseReason.SHUTDOWN and self._answering:
                self._send_last(_STOPPING)
        except OSError:
            reason = CloseReason.RESET
        except Exception as error:
            self._log_fault(error)
            self._send_last(_FAULT)
        if upgrade is None or not self._change(upgrade):
            self._end(reason)

    def refuse(self, reason: NoticeReason) -> None:
        """Answer with the reason for the refusal, and close. Called instead of `run`."""
        status, text = _REFUSALS[reason]
        try:
            self.waiter.start_closing()
            self._send_last(Response(status, f"{text}\n".encode()))
        finally:
            self._end(CloseReason.REFUSED)

    def shut_down(self) -> None:
        """Answer the request that is being handled, if there is one, and close."""
        if self.successor is not None:
            self.successor.shut_down()
        else:
            self.waiter.interrupt(CloseReason.SHUTDOWN)

    def drop(self) -> None:
        """Close at once."""
        if self.successor is not None:
            self.successor.drop()
        else:
            self.waiter.interrupt(CloseReason.RESET)

    def send_away(self) -> None:
        """Have a client whose request is being answered ask again, because another process serves now.

        What such a request waits for comes before it says anything, or it only reads.
        """
        with suppress(OSError):
            self._transport.send(self._written(_STOPPING, keep_alive=False))
            self._transport.shutdown(socket.SHUT_WR)

    # --- Requests ----------------------------------------------------------------------------------------------------

    def _serve(self) -> Upgrade | None:
        for left in range(_MAX_REQUESTS - 1, -1, -1):
            request = self._next_request()
            if request is None:
                return None
            self._answering = self.is_asking = True
            try:
                answer = self._service.answer(request, self)
            finally:
                self.is_asking = False
            if isinstance(answer, Upgrade):
                self._send(answer.answer)
                return answer
            keep_alive = request.keep_alive and left > 0
            self._send(self._written(answer, keep_alive=keep_alive, is_head=request.method == "HEAD"))
            self._answering = False
            if self._stopping:
                raise ConnectionEnded(CloseReason.SHUTDOWN)
            if not keep_alive:
                return None
            self.waiter.note_activity()
        return None

    def _next_request(self) -> Request | None:
        """The next request; None when the client has closed its side."""
        reader, clock, chunk_bytes = self._reader, self._context.clock, self._context.limits.login_chunk_bytes
        overdue = has_read = False
        while (request := reader.take()) is None:
            if overdue and reader.is_idle:
                raise ConnectionEnded(CloseReason.IDLE)
            if overdue:
                raise BadRequest(408, "the request took too long")
            if reader.take_continue():
                self._send(CONTINUE)
            if has_read:
                self._costs.wait_for_bytes(self.waiter, clock.monotonic())
            # In its turn, unless it has not sent anything.
            overdue = self.waiter.until_input(self._readable)
            if overdue:
                self._wait_for_turn()
            has_read = True
            taken = taken_bytes(self._transport, 0)
            try:
                chunk = self._transport.recv(chunk_bytes)
            except BlockingIOError:
                # What has arrived completes nothing that can be decrypted.
                size = taken_bytes(self._transport, 0) - taken
                self._costs.charge(max(_LEAST_READ_COST, size), clock.monotonic())
                continue
            if not chunk:
                self._peer_closed = True
                return None
            size = taken_bytes(self._transport, len(chunk)) - taken
            self._costs.charge(max(_LEAST_READ_COST, size), clock.monotonic())
            reader.feed(chunk)
        if not has_read:
            self._wait_for_turn()
        # What follows it is counted by whoever reads it.
        self._context.counts.received_bytes += len(request.head) + len(request.body)
        now = self.waiter.note_activity()
        self._costs.charge(max(0, _LEAST_REQUEST_COST - len(request.head) - len(request.body)), now)
        self._costs.wait_for_bytes(self.waiter, now)
        while not self._costs.take_lines(1, now):
            self._costs.wait_for_line(self.waiter, now)
            now = self.waiter.note_activity()
        return request

    def _wait_for_turn(self) -> None:
        self._context.handshake_turns.wait(self.waiter, _REQUEST_SHARE)

    # --- Answers -----------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        """Send all of this, even if the server is stopping meanwhile."""
        view = memoryview(data)
        most_s = self._context.limits.flush_s + len(data) / _LEAST_BYTES_PER_S
        watcher = self._context.hub.loop.io(self._transport.fileno(), _WRITE)
        with closing_watcher(watcher) as writable, at_most(most_s):
            while view:
                view = view[self._send_some(view, writable) :]
        if view:
            raise ConnectionEnded(CloseReason.SLOW)

    def _send_some(self, data: memoryview, writable: Any) -> int:
        """Send what fits, or wait until something does; returns the bytes that were sent."""
        try:
            sent = self._transport.send(data)
            self._context.delivery.sent_bytes += sent
            return sent
        except BlockingIOError:
            pass
        try:
            self.waiter.until(writable)
        except ConnectionEnded as ended:
            if ended.reason is not CloseReason.SHUTDOWN:
                raise
            self.waiter.start_closing()
            self._stopping = True
        return 0

    def _written(self, response: Response, *, keep_alive: bool, is_head: bool = False) -> bytes:
        whole = replace(response, fields=(*self._service.fields, *response.fields))
        return written(whole, self._context.clock.time(), keep_alive=keep_alive, is_head=is_head)

    def _send_last(self, response: Response) -> None:
        """Send a response after which the connection is closed."""
        try:
            self.waiter.start_closing()
            self._send(self._written(response, keep_alive=False))
        except (ConnectionEnded, OSError):
            pass  # The client is gone.

    def _change(self, upgrade: Upgrade) -> bool:
        """Let another connection go on with the client; False if it cannot."""
        try:
            self.successor = upgrade.connection(self._accepted, self._reader.rest)
            gevent.spawn_raw(self.successor.run)
            if self._stopping:
                self.successor.shut_down()
        except MemoryError as error:
            self._log_fault(error)
            return False
        # Its timer would go on.
        self.waiter.start_closing()
        self._readable.close()
        # The server keeps this object for as long as the client is connected.
        del self._reader, self._costs, self._readable
        return True

    # --- The end -----------------------------------------------------------------------------------------------------

    def _end(self, reason: CloseReason) -> None:
        """Close. The socket is closed even if this fails."""
        hung_up = reason is CloseReason.CLOSED is self.waiter.ended
        try:
            self.waiter.start_closing()
            if hung_up:
                most_bytes = self._context.limits.burst_bytes
                reason = reason_of_hangup(self._transport, self.waiter, self._readable, most_bytes)
            if not (self._peer_closed or reason in _CLOSE_AT_ONCE):
                self._linger()
        except (ConnectionEnded, OSError):
            pass  # The client is gone, which is not why it was disconnected.
        finally:
            self._close(reason)

    def _linger(self) -> None:
        """Send FIN and read what still comes: closing with unread input is a reset, which can cost the peer its answer."""
        limits = self._context.limits
        if self._address is not None:
            self._free_slot()
            self._lingering = self._context.admission.reserve_linger()
        if not self._lingering:
            end_output(self._transport)
            return
        with at_most(limits.linger_s):
            self._end_output()
            self._read_to_the_end()

    def _end_output(self) -> None:
        with closing_watcher(self._context.hub.loop.io(self._transport.fileno(), _WRITE)) as writable:
            while not end_output(self._transport):
                self.waiter.until(writable)

    def _read_to_the_end(self) -> None:
        left = self._context.limits.burst_bytes
        while left > 0:
            self.waiter.until(self._readable)
            try:
                size = len(self._transport.recv(self._context.limits.chunk_bytes))
            except BlockingIOError:
                continue
            if not size:
                return
            left -= size
        self.waiter.pause(self._context.limits.linger_s)

    def _free_slot(self) -> None:
        if self._address is not None:
            self._context.admission.leave(self._address)
            self._address = None
        if self._lingering:
            self._context.admission.free_linger()
            self._lingering = False

    def _close(self, reason: CloseReason) -> None:
        self._free_slot()
        try:
            if reason is CloseReason.SLOW:
                abort(self._transport)
        finally:
            self._readable.close()
            self._transport.close()
            self._accepted.on_closed(self)
        if reason is not CloseReason.REFUSED:
            self._context.counts.closed[reason] += 1
            self._context.log.of_address(
                self._origin,
                LogEvent.DISCONNECTED,
                conn=self.number,
                address=self.host,
                name=self.name,
                reason=reason.value,
            )

    def _log_fault(self, error: Exception) -> None:
        text = self._context.delivery.failure(error)[1]
        self._context.log.of_address(
            self._origin, LogEvent.FAULT, conn=self.number, name=self.name, error=text
        )
