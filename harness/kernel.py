"""What the kernel knows about a connection: how much is on its way, and how much the other side has not read.

This is how a split write is proven split, and how a fence knows that no byte lies between two sockets. It asks the
kernel's sock_diag interface, which also answers for sockets of other processes and for sockets already closed, as
long as both ends are on this machine and in this network namespace. Linux only; elsewhere `far_end` tells None.
"""

from __future__ import annotations

import enum
import fcntl
import socket
import struct
import termios
from dataclasses import dataclass
from typing import Any

from gevent.monkey import get_original

RealSocket: Any = get_original("socket", "socket")
"""The socket class of the standard library, also where gevent has patched it."""

_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_ANY_COOKIE = b"\xff" * 8

SocketAddress = tuple[Any, ...]


class TcpState(enum.IntEnum):
    """As in the kernel's tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12
    BOUND_INACTIVE = 13


@dataclass(frozen=True, slots=True)
class FarEnd:
    """The server's side of one connection. An end of stream counts as one byte in both figures."""

    state: TcpState
    unread: int
    unacknowledged: int


GONE = FarEnd(TcpState.CLOSE, 0, 0)


class Kernel:
    """Asks about connections. `sees` is False where the kernel does not answer such questions."""

    def __init__(self) -> None:
        self._netlink: Any = None
        try:
            self._netlink = RealSocket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG)
            self._netlink.settimeout(1.0)
        except (AttributeError, OSError):
            self._netlink = None

    @property
    def sees(self) -> bool:
        return self._netlink is not None

    def far_end(self, near: SocketAddress, far: SocketAddress) -> FarEnd | None:
        """The server's side of the connection from `near` to `far`: GONE when there is none here any more, None when
        nothing can be known."""
        found = self._find(far, near)
        # The kernel answers with a listening socket where there is no connection, only one that would take it.
        return GONE if found is not None and found.state is TcpState.LISTEN else found

    def listens(self, address: SocketAddress) -> bool:
        """Whether somebody on this machine listens there."""
        found = self._find(address, ("::" if ":" in address[0] else "0.0.0.0", 0))
        return found is not None and found.state is TcpState.LISTEN

    def _find(self, here: SocketAddress, there: SocketAddress) -> FarEnd | None:
        if self._netlink is None:
            return None
        family = socket.AF_INET6 if ":" in here[0] else socket.AF_INET
        identity = (
            struct.pack("!HH", here[1], there[1])
            + socket.inet_pton(family, here[0].partition("%")[0]).ljust(16, b"\0")
            + socket.inet_pton(family, there[0].partition("%")[0]).ljust(16, b"\0")
            + struct.pack("=I", 0)
            + _ANY_COOKIE
        )
        request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + identity
        header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
        try:
            self._netlink.send(header + request)
            answer = self._netlink.recv(8192)
        except OSError:
            self.close()
            return None
        if struct.unpack_from("=H", answer, 4)[0] == _NLMSG_ERROR:
            return GONE
        _, unread, unacknowledged = struct.unpack_from("=III", answer, 68)
        return FarEnd(TcpState(answer[17]), unread, unacknowledged)

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None


def unacknowledged(fileno: int) -> int:
    """How many bytes written to this socket the other side's kernel has not confirmed."""
    return _ask(fileno, termios.TIOCOUTQ)


def unread(fileno: int) -> int:
    """How many bytes wait to be read from this socket."""
    return _ask(fileno, termios.FIONREAD)


def _ask(fileno: int, request: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(fileno, request, b"\0\0\0\0"))[0])
