"""One TCP connection of a scripted client: bytes out, bytes in, and how it ended.

Plain non-blocking sockets driven by watchers of the stage's loop, so that reading costs no greenlet and happens as
soon as the loop turns. Knows no scripts and no fences.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from typing import Any, Protocol

from greenlet import getcurrent

from harness.stage.isolation import World
from harness.stage.kernel import (
    GONE,
    PeerProbe,
    PeerState,
    RealSocket,
    SocketAddress,
    SocketDiagnostics,
    unacknowledged,
    unread,
)

_READ, _WRITE = 1, 2
_CHUNK_BYTES = 65536
_CHUNKS_PER_EVENT = 64  # a server that never stops talking must not keep the loop from turning
_ABORT = struct.pack("ii", 1, 0)
_TCP_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_TCP_WINDOW_CLAMP = getattr(socket, "TCP_WINDOW_CLAMP", None)
_WIDE_OPEN = 1 << 30


class End(enum.Enum):
    """How a connection stands or ended."""

    NEVER = "never connected"
    OPEN = "open"
    CLOSED = "closed"
    RESET = "reset"
    REFUSED = "refused"


class Listener(Protocol):
    """Who is told what happens on a connection."""

    def received(self, data: bytes) -> None: ...

    def ended(self, end: End) -> None: ...


class SocketTimeout(Exception):
    """The other side did not take what was to be sent, or did not answer a connect, within the time allowed."""


class Connection:
    def __init__(self, world: World, kernel: SocketDiagnostics, listener: Listener, within_s: float) -> None:
        self._world = world
        self._kernel = kernel
        self._listener = listener
        self._within_s = within_s
        self._socket: Any = None
        self._reader: Any = None
        self._buffer_bytes = 0
        self._sight: PeerProbe | None = None
        self._sent_bytes = 0
        self.end = End.NEVER
        self.reads = False
        self.writes = False
        self.said_end = False
        """Whether this side has told the other that it will write no more."""

    # What a client does

    def open(self, address: SocketAddress) -> None:
        """Connect; a refusal is not an error but an end."""
        family, *_, where = socket.getaddrinfo(address[0], address[1], type=socket.SOCK_STREAM)[0]
        self._socket = RealSocket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self._socket.connect_ex(where)
        if code == errno.EINPROGRESS:
            try:
                self._wait_until_writable()
            except SocketTimeout:
                self._dispose()
                raise
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            self._established()
        elif code in (errno.ECONNREFUSED, errno.ECONNRESET):
            self._finish(End.REFUSED)
            self._dispose()
        else:
            self._dispose()
            raise OSError(code, f"connect to {address[0]}:{address[1]}: {errno.errorcode.get(code, code)}")

    def _established(self) -> None:
        try:
            self._sight = PeerProbe(self._kernel, self._socket.getsockname(), self._socket.getpeername())
        except OSError as gone:
            # The server reset the connection before it could be looked at; reading will tell.
            if gone.errno != errno.ENOTCONN:
                raise
        self.end, self.reads, self.writes = End.OPEN, True, True
        self._acknowledge_at_once()
        self._reader = self._world.loop.io(self._socket.fileno(), _READ)
        self._reader.start(self._on_readable)

    def write(self, data: bytes) -> None:
        """Send all of it; what cannot be sent because the connection is gone is told by how it ended."""
        view = memoryview(data)
        while view and self.writes:
            view = view[self._send(view) :]

    def _send(self, view: memoryview) -> int:
        try:
            sent = int(self._socket.send(view))
        except BlockingIOError:
            self._wait_until_writable()
        except (BrokenPipeError, ConnectionResetError):
            self.writes = False
        else:
            self._sent_bytes += sent
            return sent
        return 0

    def half_close(self) -> None:
        if self.writes:
            self.writes = False
            self.said_end = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as gone:
                if gone.errno != errno.ENOTCONN:
                    raise

    def close(self) -> None:
        """An orderly close: what has come is read first, or the kernel would reset instead."""
        if self._socket is not None:
            if self.reads:
                self._on_readable()
            self._finish(End.CLOSED)
            self._dispose()

    def abort(self) -> None:
        """Close with a reset."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._finish(End.CLOSED)
            self._dispose()

    def vanish(self) -> Any:
        """Be gone without a word to the server. The socket is for the caller to keep as it is: closing it would tell."""
        if self._reader is not None:
            self._reader.stop()
            self._reader.close()
            self._reader = None
        kept, self._socket = self._socket, None
        self._finish(End.CLOSED)
        self.reads = self.writes = False
        self._sight = None
        return kept

    def stop_reading(self) -> None:
        """Read no more, and make the receive buffer as small as it gets, so that the server feels it soon."""
        if self._reader is not None and self.reads:
            self.reads = False
            self._reader.stop()
            self._buffer_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            if _TCP_WINDOW_CLAMP is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_WINDOW_CLAMP, 1)

    def read_again(self) -> None:
        if self._reader is not None and not self.reads and self.end is End.OPEN:
            self.reads = True
            # The kernel doubles what it is given, to leave room for its own bookkeeping.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes // 2)
            if _TCP_WINDOW_CLAMP is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_WINDOW_CLAMP, _WIDE_OPEN)
            self._reader.start(self._on_readable)

    # What a fence asks

    @property
    def near(self) -> SocketAddress:
        """This side's address, as the server sees it; nothing where there is no connection."""
        return tuple(self._socket.getsockname()) if self._socket is not None else ()

    @property
    def unacknowledged(self) -> int:
        """Bytes written here that the server's kernel has not yet confirmed; they may have arrived all the same."""
        return unacknowledged(self._socket.fileno()) if self._socket is not None else 0

    @property
    def in_flight(self) -> bool:
        """Whether bytes written here have not yet arrived at the server's kernel, as far as can be known."""
        if self.unacknowledged == 0 or self._sight is None:
            return False
        # A kernel may take 40 ms to confirm what it has long had.
        deserialized = self._sight.received()
        return deserialized < self._sent_bytes

    @property
    def waiting(self) -> int:
        """Bytes that have come here and were not yet read."""
        return unread(self._socket.fileno()) if self._socket is not None and self.end is End.OPEN else 0

    def peer_state(self) -> PeerState | None:
        """The server's side, also after this side was closed; None when nothing can be known of it."""
        return self._sight.peer_state() if self._sight is not None else GONE

    # What happens

    def _on_readable(self) -> None:
        for _ in range(_CHUNKS_PER_EVENT):
            try:
                data = self._socket.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._finish(End.RESET)
                return
            if not data:
                self._finish(End.CLOSED)
                return
            self._listener.received(data)
            self._acknowledge_at_once()

    def _acknowledge_at_once(self) -> None:
        # A server without TCP_NODELAY holds its next bytes until the last ones are acknowledged, which the kernel
        # likes to delay by 40 ms. The option wears off, so it is set anew after each read.
        if _TCP_QUICKACK is not None:
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
            self._listener.ended(end)
        if end is End.RESET:
            self.writes = False

    def _dispose(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader.close()
            self._reader = None
        self.reads = self.writes = False
        self.said_end = True
        self._socket.close()
        self._socket = None

    def _wait_until_writable(self) -> None:
        hub, loop = self._world.hub, self._world.loop
        late = SocketTimeout(f"not within {self._within_s:g} s")
        guard = loop.real_timer(self._within_s)
        watcher = loop.io(self._socket.fileno(), _WRITE)
        try:
            guard.start(_throw_into(late))
            hub.wait(watcher)
        finally:
            guard.close()
            watcher.close()


def _throw_into(error: Exception) -> Any:
    current = getcurrent()
    return lambda: current.throw(error)
