"""One connection of a scripted client, over TCP or a Unix socket: bytes out, bytes in, and how it ended.

What lies between the socket and the inbox is a `Plain` or another transport.

- Sockets are non-blocking and are read as soon as the loop runs.
- The inbox belongs to the client and outlives its connections: nothing received is ever lost with one.
- Once either side has ended its part of the conversation, nothing more is said. A transport's own replies are still sent.
- `end` changes once, from NEVER to OPEN or REFUSED, and from OPEN to CLOSED or RESET.

Knows no scripts and no fences.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from harness.stage.event_loop import EventLoop, Reader
from harness.stage.kernel import (
    GONE,
    PeerProbe,
    PeerState,
    RealSocket,
    SocketAddress,
    SocketDiagnostics,
    UnixProbe,
    is_unix,
    original,
    unacknowledged,
    unread,
)
from harness.stage.rules import FindHeard, Sift
from harness.stage.translation import Translation
from harness.stage.transport import HandshakeFailed, Plain

_CHUNK_BYTES = 65536
_CHUNKS_PER_EVENT = 64  # a server that never stops sending must not keep the loop from running
_BACKLOG_POLL_S = 0.001
_FAREWELL_S = 1.0
"""How long to wait for the server to answer a Close frame."""
_NOT_ACCEPTED = "the connection was not accepted"
_ABORT = struct.pack("ii", 1, 0)
_TCP_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_TCP_WINDOW_CLAMP = getattr(socket, "TCP_WINDOW_CLAMP", None)
_WIDE_OPEN = 1 << 30
_getaddrinfo: Any = original("socket", "getaddrinfo")


class End(enum.Enum):
    """The state of a connection, or how it ended."""

    NEVER = "never connected"
    OPEN = "open"
    CLOSED = "closed"
    RESET = "reset"
    REFUSED = "refused"


ConnectionState = tuple[int, int, End]


class SocketTimeout(Exception):
    """The server did not accept a connection, or did not take what was sent, within the time allowed."""


class UnsupportedAction(Exception):
    """This cannot be done to a connection of this kind, or in this state; the text says why."""


class Mark:
    """A place in an inbox, which moves with what is taken out before it."""

    def __init__(self, at: int) -> None:
        self.at = at


class Inbox(bytearray):
    """Data that one client has received and not yet claimed, in order, without the answers to fence lines, without fence
    lines of others, and without the lines that a rule takes."""

    def __init__(self, sift: Sift | None = None, find_heard: FindHeard | None = None) -> None:
        super().__init__()
        self.arrivals: list[tuple[float, int]] = []
        """Pairs of stage time and the offset, counted over everything ever received, that arrived then."""
        self._claimed = 0
        self._rules = sift
        self._find_heard = find_heard
        self.replies = bytearray()
        """The answers of rules that have not been sent."""
        self._sifted = 0
        """How many of its bytes are known to remain."""
        self._marks: WeakSet[Mark] = WeakSet()
        self._continues = False
        """Whether its first byte continues a line that has been claimed in part."""

    def receive(self, data: bytes, now_s: float) -> None:
        offset = self._claimed + len(self)
        if self.arrivals and self.arrivals[-1][1] == offset:
            self.arrivals.pop()  # what arrived then has been taken
        self.arrivals.append((now_s, offset))
        self.extend(data)
        self._sift()

    def sift_again(self) -> None:
        """Apply the rules to everything that is here, which was changed from outside; nothing more is answered."""
        self._sifted, answered = 0, len(self.replies)
        self._sift()
        del self.replies[answered:]

    def _sift(self) -> None:
        if self._rules is None and self._find_heard is None:
            return
        while (end := self.find(b"\n", self._sifted) + 1) > 0:
            start = self._sifted
            whole = start > 0 or not self._continues
            self._sifted = end
            line = bytes(self[start:end])
            heard = self._find_heard(line) if self._find_heard is not None else None
            if heard is not None:
                self.discard(start + heard, len(line) - heard)
                self._sifted = start
                continue
            answer = self._rules(line) if whole and self._rules is not None else None
            if answer is not None:
                self.replies += answer
                self.discard(start, end - start)

    def take(self, size: int) -> bytes:
        """Claim the first bytes."""
        taken = bytes(self[:size])
        del self[:size]
        self._claimed += len(taken)
        if taken:
            # A line can also begin where an answer to a fence line ended.
            self._continues = not taken.endswith(b"\n") and len(taken) != self._sifted
        self._sifted = max(0, self._sifted - len(taken))
        return taken

    def begin_anew(self) -> None:
        """Begin a new connection, whose input does not continue a line of the last one."""
        self._continues = False
        self._sifted = len(self)
        self.replies.clear()

    def mark(self) -> Mark:
        """The place after everything that has come so far."""
        mark = Mark(len(self))
        self._marks.add(mark)
        return mark

    def discard(self, start: int, size: int) -> None:
        """Remove the answer to a fence line, or a line that is not to be kept."""
        del self[start : start + size]
        self._sifted -= max(0, min(size, self._sifted - start))
        for mark in self._marks:
            mark.at -= max(0, min(size, mark.at - start))
        begin = self._claimed + start
        self.arrivals = [
            (when, offset if offset <= begin else max(begin, offset - size)) for when, offset in self.arrivals
        ]

    def arrived_at(self, offset: int) -> float:
        """When the byte at this offset arrived, in stage time."""
        at = bisect_right(self.arrivals, self._claimed + offset, key=lambda arrival: arrival[1])
        return self.arrivals[at - 1][0] if at else 0.0


class Connection:
    def __init__(
        self,
        name: str,
        inbox: Inbox,
        loop: EventLoop,
        kernel: SocketDiagnostics,
        within_s: float,
        introduction: bytes = b"",
        eol: bytes = b"\n",
        translation: Translation | None = None,
    ) -> None:
        self.name = name
        """The client's name."""
        self.inbox = inbox
        self.end = End.NEVER
        self.end_detail = ""
        """Details of the end: a WebSocket's code, the status of a refused handshake, or the violated rule."""
        self.reads = False
        self.writes = False
        self.sent_end = False
        """Whether this side has sent its FIN."""
        self.mid_line = False
        """Whether the last byte sent did not end a line."""
        self.expects_close = False
        """Whether the server is expected to end the connection now: a fence then waits for that and asks nothing."""
        self.may_close = False
        """Whether the server may end the connection now, or not: a fence then asks nothing, for a question that reaches a
        server which has just closed resets the connection."""
        self.introduced = False
        """Whether this client has sent a whole line that begins with its introduction."""
        self.lookalikes = 0
        """How many of the lines that are expected could look like an answer to the fence line."""
        self.expected_lines = 0
        """How many lines are expected in all, besides those answers."""
        self.has_all: Callable[[bytes], bool] | None = None
        """Whether these bytes are all that is expected, where the number of lookalikes is not known."""
        self.unended: tuple[bytes, ...] = ()
        """The expected bytes that no line end follows: an answer to the fence line can follow them."""
        self._loop = loop
        self._kernel = kernel
        self._within_s = within_s
        self._socket: Any = None
        self._reader: Reader | None = None
        self._buffer_bytes = 0
        self._probe: PeerProbe | UnixProbe | None = None
        self._is_tcp = True
        self._sent_bytes = 0
        self._introduction = introduction
        self._translation = translation
        self._line_so_far = b""
        self.replied_bytes = 0
        """How much rules have made this client send."""
        self._writing = False
        self._reset = False
        self._eol = eol
        self._transport = Plain()
        self._came_s = 0.0
        """When input came last."""
        self._unsent = bytearray()
        """Replies of the transport that the socket has not taken yet."""
        self._handshake_failed: HandshakeFailed | None = None
        loop.register(self)

    # Called by clients

    def open(self, address: SocketAddress, transport: Plain | None = None) -> None:
        """Connect. A refusal is an `end`, not an error; a handshake in which something else came is HandshakeFailed."""
        self._transport = transport or Plain()
        self._is_tcp = not is_unix(address)
        try:
            code = self._connect_tcp(address) if self._is_tcp else self._connect_unix(address)
        except SocketTimeout:
            self._dispose()
            raise
        if code == 0:
            self._established()
        elif code in (errno.ECONNREFUSED, errno.ECONNRESET) or (code == errno.ENOENT and not self._is_tcp):
            self._finish(End.REFUSED)
            self._dispose()
        else:
            self._dispose()
            raise OSError(code, os.strerror(code))

    def _connect_tcp(self, address: SocketAddress) -> int:
        code = errno.EADDRNOTAVAIL
        # A name can have several addresses, and the server need not listen at all of them.
        for family, *_, where in _getaddrinfo(address[0], address[1], type=socket.SOCK_STREAM):
            if self._socket is not None:
                self._socket.close()
            code = self._connect_to(family, where)
            if code == 0:
                break
        return code

    def _connect_to(self, family: int, where: SocketAddress) -> int:
        self._socket = RealSocket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = int(self._socket.connect_ex(where))
        if code == errno.EINPROGRESS:
            self._wait_until_writable(_NOT_ACCEPTED, self._within_s)
            code = int(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return code

    def _connect_unix(self, address: SocketAddress) -> int:
        self._socket = RealSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        limit = self._loop.limits.limit(self._within_s)
        # A full backlog is an error at once, and no event says when there is room.
        while (code := int(self._socket.connect_ex(address[0]))) == errno.EAGAIN:
            if limit.over:
                raise SocketTimeout(f"{_NOT_ACCEPTED} within {self._within_s:g} s")
            self._loop.pause(_BACKLOG_POLL_S)
        return code

    def _established(self) -> None:
        try:
            self._probe = (
                PeerProbe(self._kernel, self._socket.getsockname(), self._socket.getpeername())
                if self._is_tcp
                else UnixProbe(self._kernel, self._socket)
            )
        except OSError as gone:
            # The server has already reset the connection; reading will tell.
            if gone.errno != errno.ENOTCONN:
                raise
        self.end, self.reads, self.writes = End.OPEN, True, True
        self._acknowledge_at_once()
        self._reader = self._loop.reader(self._socket.fileno())
        self._reader.start(self._on_readable)
        if not self._transport.ready:
            self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            self._write_wire(self._transport.begin())
            if not self._loop.wait_until(
                lambda: self._transport.ready or self.end is not End.OPEN, self._within_s
            ):
                raise SocketTimeout(f"the handshake was not over within {self._within_s:g} s")
            if self._handshake_failed is not None:
                raise self._handshake_failed
            if self.end is End.RESET and not self._transport.ready:
                raise HandshakeFailed("the server reset the connection during the handshake")
        except (HandshakeFailed, SocketTimeout) as wrong:
            self._finish(End.CLOSED)
            self._dispose()
            if not isinstance(wrong, HandshakeFailed) or not wrong.status:
                raise
            self.end, self.end_detail = End.REFUSED, wrong.status

    def write(self, data: bytes) -> None:
        """Send all of it. If the connection is lost meanwhile, `end` says so."""
        self._write_wire(self._transport.send(data, self._eol) if self._speaks else b"")
        if self.writes:
            self._reply()

    @property
    def _speaks(self) -> bool:
        """Whether more of the client's words can be sent: a transport answers the other side's end with its own."""
        return self.writes and not self._transport.ended

    def _write_wire(self, data: bytes, within_s: float | None = None) -> None:
        view = memoryview(bytes(self._unsent) + data)
        self._unsent.clear()
        self._writing = True
        try:
            while view and self.writes:
                view = view[self._send(view, self._within_s if within_s is None else within_s) :]
        finally:
            self._writing = False

    def say(self, data: bytes, unchanged: bool = False) -> None:
        """Send what the client itself says, in the words of an adapter unless it is to be sent unchanged. A fence also writes,
        and that is not the client's words."""
        if data:
            if self.writes:
                self._reply()  # what waited precedes it
            if self._translation is not None and not unchanged:
                data = self._translation.outgoing(data, self.mid_line)
            self.mid_line = not data.endswith(b"\n") and not self._transport.messages
            if not self.introduced:
                *lines, rest = (self._line_so_far + data).split(b"\n")
                self.introduced = any(line.startswith(self._introduction) for line in lines)
                self._line_so_far = rest[: len(self._introduction)]
            self.write(data)

    @property
    def _replies_wait(self) -> bool:
        """Whether something can be answered now: not in the middle of a line."""
        return bool(self.inbox.replies) and not self.mid_line

    def _take_replies(self) -> bytes:
        replies = bytes(self.inbox.replies)
        self.inbox.replies.clear()
        self.replied_bytes += len(replies)
        return self._translation.outgoing(replies, False) if self._translation is not None else replies

    def _send(self, view: memoryview, within_s: float) -> int:
        try:
            sent = int(self._socket.send(view))
        except BlockingIOError:
            self._wait_until_writable(f"{self.name} sent more than the server read", within_s)
        except (BrokenPipeError, ConnectionResetError) as gone:
            self.writes = False
            # The kernel reports a reset once: reading would then find an orderly end.
            self._reset = self._reset or isinstance(gone, ConnectionResetError)
        else:
            self._sent_bytes += sent
            return sent
        return 0

    def half_close(self) -> None:
        if self.writes:
            self._write_wire(self._transport.end())
            self.writes = False
            if self._transport.messages:
                return  # the server closes the connection once it has answered
            self.sent_end = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as gone:
                if gone.errno != errno.ENOTCONN:
                    raise

    def close(self) -> None:
        """Close with a FIN. Reads what has arrived first, because otherwise the kernel would send a reset."""
        if self._socket is not None:
            if self.reads and self.end is End.OPEN:
                self._on_readable()
            self._say_farewell()
            self._finish(End.CLOSED)
            if self._socket is not None:  # what came meanwhile can have broken the protocol
                self._dispose()

    def _say_farewell(self) -> None:
        """Say that nothing more comes, and where the server has to answer that, let it. One that reads nothing any more does
        not get to know."""
        limit = self._loop.limits.limit(_FAREWELL_S)
        if self.end is End.OPEN and self.writes:
            try:
                self._write_wire(self._transport.end(), _FAREWELL_S)
            except SocketTimeout:
                return
            self.writes = False
        while self._transport.messages and self.reads and self.end is End.OPEN and not limit.over:
            self._loop.pause(limit.pause_s)

    def abort(self) -> None:
        """Close with a reset; UnsupportedAction on a Unix socket."""
        if not self._is_tcp:
            raise UnsupportedAction("a Unix socket cannot be reset")
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._finish(End.CLOSED)
            self._dispose()

    def vanish(self) -> Any:
        """Disappear without a FIN or a reset. The caller keeps the socket open, because closing it would send one."""
        self._close_reader()
        kept, self._socket = self._socket, None
        self._finish(End.CLOSED)
        self.reads = self.writes = False
        self._probe = None
        return kept

    def stop_reading(self) -> None:
        """Stop reading, with the smallest receive buffer, so that the server soon notices."""
        if self._reader is not None and self.reads:
            self.reads = False
            self._reader.stop()
            self._buffer_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            if _TCP_WINDOW_CLAMP is not None and self._is_tcp:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_WINDOW_CLAMP, 1)

    def read_again(self) -> None:
        if self._reader is not None and not self.reads and self.end is End.OPEN:
            self.reads = True
            # The kernel doubles this value, to leave room for its bookkeeping.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes // 2)
            if _TCP_WINDOW_CLAMP is not None and self._is_tcp:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_WINDOW_CLAMP, _WIDE_OPEN)
            self._reader.start(self._on_readable)

    @property
    def held(self) -> bytes:
        """Received bytes that are not in the inbox: an unfinished line or message."""
        translated = self._translation.unfinished if self._translation is not None else b""
        return translated + self._transport.unfinished

    @property
    def state(self) -> ConnectionState:
        """How much has been received and not claimed, how much has been replied to what rules took, and how the connection
        ended: differs as soon as anything has come that matters."""
        return len(self.inbox) + len(self.held), self.replied_bytes, self.end

    def release(self) -> bool:
        """Move what is held back into the inbox, because the turn in which it came is over; True if anything was."""
        if message := self._transport.release():
            self._receive(message, self._came_s)
        line = self._translation.release() if self._translation is not None else []
        for piece, when_s in line:
            self.inbox.receive(piece, when_s)
        return bool(message or line)

    @property
    def can_be_reset(self) -> bool:
        """Whether `abort` is possible."""
        return self._is_tcp

    @property
    def sends_messages(self) -> bool:
        """Whether each line is sent as one message, so that half a line would be another message."""
        return self._transport.messages

    # Called by fences

    @property
    def local_address(self) -> SocketAddress:
        """This side's address, as the server sees it; empty without a connection."""
        return tuple(self._socket.getsockname()) if self._socket is not None and self._is_tcp else ()

    @property
    def answers(self) -> bool:
        """Whether a fence line can be sent here: in the middle of a line it would become part of it."""
        return (
            self.end is End.OPEN and self._speaks and self.reads and not self.mid_line and not self.may_close
        )

    @property
    def nothing_sent(self) -> bool:
        """Whether this is a fresh connection."""
        return self.end is End.OPEN and self.writes and self._sent_bytes == 0

    @property
    def unacknowledged(self) -> int:
        """Bytes written here that the server's kernel has not acknowledged, though they can have arrived."""
        return unacknowledged(self._socket.fileno()) if self._socket is not None else 0

    @property
    def in_flight(self) -> bool:
        """Whether bytes written here have not yet arrived at the server's kernel, as far as can be known."""
        if self.unacknowledged == 0 or self._probe is None:
            return False
        # A kernel can take 40 ms to acknowledge what it has received.
        return self._probe.received() < self._sent_bytes

    @property
    def unread(self) -> int:
        """Bytes that have arrived here and have not been read."""
        return unread(self._socket.fileno()) if self._socket is not None and self.end is End.OPEN else 0

    @property
    def read_by_server(self) -> bool:
        """Whether the server has read everything sent here, as far as this machine's kernel can tell."""
        if self.in_flight:
            return False
        peer = self.peer_state()
        return peer is None or peer.unread == 0

    def peer_state(self) -> PeerState | None:
        """The server's side, even after this side was closed; None if it is unknown."""
        return self._probe.peer_state() if self._probe is not None else GONE

    # Events

    def _on_readable(self) -> None:
        try:
            self._read()
        except HandshakeFailed as failed:
            self._handshake_failed = failed
            self._finish(End.CLOSED)

    def _read(self) -> None:
        for _ in range(_CHUNKS_PER_EVENT):
            try:
                data = self._socket.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._reset, data = True, b""
            if not data:
                self._lost()
                return
            received = self._transport.receive(data, self._eol)
            self._came_s = self._loop.now()
            self._receive(received, self._came_s)
            if self._transport.violation:
                self.end_detail = f"violation: {self._transport.violation}"
                self._finish(End.CLOSED)
                self._dispose()
                return
            self._loop.wake()
            self._reply()
            if self._transport.over:
                self.writes = False
                self._lost()
                return
            self._acknowledge_at_once()

    def _receive(self, data: bytes, now_s: float) -> None:
        if self._translation is not None:
            data = self._translation.incoming(data, now_s)
        if data:
            self.inbox.receive(data, now_s)

    def _lost(self) -> None:
        """The server has closed the connection, or reset it."""
        reset = self._reset and not self._transport.ended
        if not reset:
            self._transport.closed()
            self.end_detail = self._transport.end_detail
        self._finish(End.RESET if reset else End.CLOSED)

    def _reply(self) -> None:
        """Send what the transport and the rules have to answer, as far as the socket takes it: this must not wait. What is
        left precedes what is sent next."""
        self._unsent += self._transport.take_reply()
        if self._writing:
            return
        if self._replies_wait and self._speaks:
            self._unsent += self._transport.send(self._take_replies(), self._eol)
        while self._unsent:
            try:
                sent = int(self._socket.send(self._unsent))
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError) as gone:
                self.writes = False
                self._reset = self._reset or isinstance(gone, ConnectionResetError)
                return
            del self._unsent[:sent]
            self._sent_bytes += sent

    def _acknowledge_at_once(self) -> None:
        # A server without TCP_NODELAY holds its next bytes until the last ones are acknowledged, which the kernel
        # likes to delay by 40 ms. The option wears off, so it is set again after each read.
        if _TCP_QUICKACK is not None and self._is_tcp:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
            except OSError as gone:
                if gone.errno not in (errno.EINVAL, errno.ENOTCONN):
                    raise

    def _finish(self, end: End) -> None:
        if self._reader is not None:
            self._reader.stop()
        if self.end in (End.NEVER, End.OPEN):
            self.end = end
            self.release()
            self._loop.wake()
        if end is End.RESET:
            self.writes = False

    def _dispose(self) -> None:
        self._close_reader()
        self.reads = self.writes = False
        self.sent_end = True
        if isinstance(self._probe, UnixProbe):
            self._probe.before_close()
        self._socket.close()
        self._socket = None

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader.close()
            self._reader = None

    def _wait_until_writable(self, otherwise: str, within_s: float) -> None:
        if not self._loop.wait_writable(self._socket.fileno(), within_s):
            raise SocketTimeout(f"{otherwise} within {within_s:g} s")
