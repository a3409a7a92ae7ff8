"""The byte stream of one client: its interface, and the options of a TCP connection. Knows no lines."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard


class Transport(Protocol):
    """A non-blocking byte stream. `recv`, `send` and `sendmsg` raise BlockingIOError when they would have to wait.

    A plain non-blocking socket is one as it stands, so a TCP client costs no object besides its socket. A transport
    that transforms bytes keeps the plain socket inside, so that watchers and the kernel's queues work for it in the
    same way, with two exceptions: it can hold input that the socket no longer has, for which `input_watcher` exists, and
    `shutdown` can raise BlockingIOError too, until the socket has taken what ends the stream.

    What `send` has not taken is passed to it again, before any other bytes.
    """

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: Any, /) -> int: ...
    def sendmsg(self, buffers: Any, /) -> int: ...
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class _Buffering(Transport, Protocol):
    """A transport that can hold input."""

    # Bytes that it has ever taken from its socket.
    taken_bytes: int

    def has_input(self) -> bool:
        """True if `recv` can have something to return although nothing more arrives."""


class _InputWatcher:
    """Fires when a transport that can hold input has any. Used in place of the loop's own watcher."""

    __slots__ = ("_arrives", "_held", "_loop", "_transport")

    def __init__(self, loop: Any, transport: _Buffering, arrives: Any) -> None:
        self._loop = loop
        self._transport = transport
        self._arrives = arrives
        self._held: Any = None

    def start(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call this once there is input, in a later iteration of the loop."""
        if self._transport.has_input():
            self._held = self._loop.timer(0)
            self._held.start(callback, *arguments)
        else:
            self._arrives.start(callback, *arguments)

    def stop(self) -> None:
        """Do not fire any more."""
        self._arrives.stop()
        if self._held is not None:
            self._held.close()
            self._held = None

    def close(self) -> None:
        """Release the watcher. Comes before the end of its descriptor."""
        self.stop()
        self._arrives.close()


_READ = 1


def input_watcher(loop: Any, transport: Transport, arrives: Any = None) -> Any:
    """A watcher that fires when `recv` has something to return, or an error to raise.

    `arrives` fires when the socket has something, in place of the loop's own watcher for that.
    """
    arrives = arrives or loop.io(transport.fileno(), _READ)
    return _InputWatcher(loop, transport, arrives) if _is_buffering(transport) else arrives


def holds_input(transport: Transport) -> bool:
    """True if a transport holds input that its socket no longer has."""
    return _is_buffering(transport) and transport.has_input()


def taken_bytes(transport: Transport, received: int) -> int:
    """How many bytes a transport has ever taken from its socket, if `recv` has returned this many."""
    return transport.taken_bytes if _is_buffering(transport) else received


def plain_socket(transport: object) -> socket.socket | None:
    """The transport, if it is a socket, which sends bytes as they are."""
    return transport if isinstance(transport, socket.socket) else None


def end_output(transport: Transport) -> bool:
    """End the output; False while the socket does not take what the transport ends it with."""
    try:
        transport.shutdown(socket.SHUT_WR)
    except BlockingIOError:
        return False
    return True


def _is_buffering(transport: Transport) -> TypeGuard[_Buffering]:
    return hasattr(transport, "has_input")


# The socket module has no name for it.
_TCP_NOTSENT_LOWAT = 25
# The kernel probes a silent peer after a minute, four times, 15 s apart, and gives up on a peer that has acknowledged
# nothing for two minutes. A live peer answers the probes without its user noticing.
TCP_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),
    # Output is already sent in batches; waiting for more would only delay it.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # The kernel accepts only what it can send soon. Otherwise it would buffer megabytes for each client that does not
    # read, and a slow reader would seem to stand still for seconds while they drain.
    (socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, 131_072),
    # telnet's Ctrl-C sends a byte out of band. In line, it is removed with the rest of its sequence.
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
)

# SO_LINGER with no time at all: unsent data is dropped, and the peer gets a reset.
_ABORT = struct.pack("ii", 1, 0)


def abort(transport: Transport) -> None:
    """Make the next `close` a reset, so that data that will never be read does not stay in the kernel."""
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
