"""The byte stream of one client: its interface, and the options of a TCP connection. Knows no lines."""

from __future__ import annotations

import socket
import struct
from typing import Any, Protocol


class Transport(Protocol):
    """A non-blocking byte stream. `recv`, `send` and `sendmsg` raise BlockingIOError when they would have to wait.

    A plain non-blocking socket is one as it stands, so a TCP client costs no object besides its socket. A transport
    that transforms bytes keeps the plain socket inside, so that watchers and the kernel's queues work for it in the
    same way.
    """

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: Any, /) -> int: ...
    def sendmsg(self, buffers: Any, /) -> int: ...
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


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
