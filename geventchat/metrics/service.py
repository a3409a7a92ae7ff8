"""Answers GET /metrics, /healthz and /readyz. Knows HTTP and sockets, and no metric.

Invariants:
- At most `MOST_CLIENTS` are connected; one more is closed at once.
- A client that sends no complete request, or does not read the answer, is closed after a while.
- In each iteration of the event loop, one client is read or one request answered, however many come together: what others say
  comes in between. No rate bounds what these clients send, and 4 KB of TLS that changes its keys all the time take 4 ms.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from geventchat.chat.events import NoticeReason
from geventchat.metrics.collector import ServerCollector, Watched
from geventchat.net.loop_delay import LoopDelay
from geventchat.net.service import Accepted
from geventchat.net.transport import end_output, input_watcher
from geventchat.net.turns import Turns
from geventchat.net.waiter import CloseReason, ConnectionEnded, Waiter, closing_watcher
from geventchat.web.http import BadRequest, Request, RequestReader, Response, error_response, written

MOST_CLIENTS = 16
IDLE_S = 60.0
REQUEST_S = 10.0
HEAD_BYTES = 8_192
_CHUNK_BYTES = 8_192
_PAGE = "text/plain; version=0.0.4; charset=utf-8"
_WRITE = 2


class MetricsService:
    """The service `metrics`."""

    is_internal = True

    def __init__(self, server: Watched, delay: LoopDelay) -> None:
        self._server = server
        self._collector = ServerCollector(server, delay)
        self.clients = 0
        self._turns: Turns | None = None

    @property
    def turns(self) -> Turns:
        """Whose turn it is to be read or answered."""
        if self._turns is None:
            self._turns = Turns(self._server.context.hub)
        return self._turns

    def connection(self, accepted: Accepted) -> MetricsConnection:
        """A connection for this client."""
        return MetricsConnection(accepted, self, self._server)

    def respond(self, request: Request) -> Response:
        """The answer to a request."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"only GET and HEAD\n", fields=(("Allow", "GET, HEAD"),))
        match request.path:
            case ("metrics",):
                return Response(200, self._collector.page(), _PAGE)
            case ("healthz",):
                # The answer itself proves that the event loop runs.
                return Response(200, b"ok\n")
            case ("readyz",):
                reason = self._server.unready
                return Response(503, f"{reason}\n".encode()) if reason else Response(200, b"ok\n")
        return Response(404, b"not found; try /metrics, /healthz or /readyz\n")


class MetricsConnection:
    """One client, from accept to close."""

    def __init__(self, accepted: Accepted, service: MetricsService, server: Watched) -> None:
        context = server.context
        self.number = accepted.number
        self._transport = accepted.transport
        self._on_closed = accepted.on_closed
        self._service = service
        self._context = context
        self._waiter = Waiter(context.hub, context.clock, context.hangups, accepted.transport.fileno())
        service.clients += 1

    def run(self) -> None:
        """Answer requests until the client leaves; the body of its greenlet."""
        try:
            # The first request has a deadline, as a login has.
            self._waiter.start(IDLE_S, REQUEST_S)
            if self._service.clients <= MOST_CLIENTS:
                self._serve()
        except (ConnectionEnded, OSError):
            pass
        finally:
            self._service.clients -= 1
            # Its timer would go on.
            self._waiter.start_closing()
            self._transport.close()
            self._on_closed(self)

    def refuse(self, reason: NoticeReason) -> None:
        """Never called: the server never refuses a metrics client."""
        raise AssertionError("metrics clients are never refused")

    def shut_down(self) -> None:
        """Close: a scraper asks again later."""
        self._waiter.interrupt(CloseReason.SHUTDOWN)

    def drop(self) -> None:
        """Close."""
        self._waiter.interrupt(CloseReason.RESET)

    def _serve(self) -> None:
        reader = RequestReader(HEAD_BYTES, 0)
        keep_alive = True
        with closing_watcher(input_watcher(self._context.hub.loop, self._transport)) as readable:
            while keep_alive:
                try:
                    request = reader.take()
                except BadRequest as bad:
                    self._send(written(error_response(bad), self._context.clock.time(), keep_alive=False))
                    break
                if request is None:
                    chunk = self._receive(readable)
                    if not chunk:
                        return
                    reader.feed(chunk)
                    continue
                self._waiter.clear_deadline()
                self._service.turns.wait(self._waiter)
                self._waiter.note_activity()
                keep_alive = request.keep_alive
                response = self._service.respond(request)
                is_head = request.method == "HEAD"
                now = self._context.clock.time()
                self._send(written(response, now, keep_alive=keep_alive, is_head=is_head))
        with suppress(OSError):
            end_output(self._transport)

    def _receive(self, readable: Any) -> bytes:
        """The next bytes; empty when the client has closed its side or been idle for too long."""
        while True:
            overdue = self._waiter.until_input(readable)
            self._service.turns.wait(self._waiter)
            try:
                return self._transport.recv(_CHUNK_BYTES)
            except BlockingIOError:
                if overdue:
                    return b""

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        # In a bounded time, also for a client that goes on sending, which is not idle.
        self._waiter.note_activity()
        self._waiter.start(IDLE_S, IDLE_S)
        with closing_watcher(self._context.hub.loop.io(self._transport.fileno(), _WRITE)) as writable:
            while view := view[self._sent(view) :]:
                self._waiter.until(writable)
        self._waiter.clear_deadline()

    def _sent(self, view: memoryview) -> int:
        try:
            return self._transport.send(view)
        except BlockingIOError:
            return 0
