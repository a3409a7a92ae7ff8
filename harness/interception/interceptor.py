"""The interface of interceptors: called before each call of the server's sockets and at each choice of its loop.

Schedules of `explore` and faults of a script are interceptors. A kernel could have done whatever an interceptor does, so a
correct server withstands it. Each interceptor is made for one play of one script.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from harness.stage.kernel import SocketAddress

_SO_COOKIE = 57


@dataclass(slots=True, eq=False)
class AcceptedConnection:
    """The server's side of one connection."""

    number: int
    """Counted from 1, in the order in which they were accepted."""
    peer: SocketAddress
    """The scripted client's address."""
    fileno: int
    cookie: bytes
    """The kernel's own number for it; descriptors are reused, cookies are not."""
    bypassed: bool = False
    """Whether OpenSSL reads and writes the descriptor itself, which no interceptor notices."""

    def is_at(self, fileno: int) -> bool:
        """Whether the descriptor still belongs to this connection."""
        try:
            probe = _socket.socket(fileno=fileno)
        except OSError:
            return False
        try:
            return cookie_of(probe) == self.cookie
        finally:
            probe.detach()


def cookie_of(sock: Any) -> bytes:
    """The kernel's number for a socket, never used again while the machine runs."""
    return bytes(_socket.socket.getsockopt(sock, _socket.SOL_SOCKET, _SO_COOKIE, 8))


class InterceptedLoop(Protocol):
    """The interface of the server's loop for an interceptor."""

    elapsed_us: int
    """How much virtual time has passed."""
    jumped_us: int
    """How far the time of day was set forward or back."""

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> Callable[[], None]:
        """Call back after this much virtual time; the function that is returned cancels it."""

    def recheck_blocked(self) -> None:
        """Sockets that counted as not ready can be ready now."""


class Interceptor:
    """Changes nothing; subclasses override the methods they need."""

    def loop_created(self, loop: InterceptedLoop) -> None:
        """The loop has been made; the server has not."""

    def server_stopped(self) -> None:
        """The server has stopped, and its sockets are no longer intercepted."""

    def before_accept(self) -> bool:
        """Whether the server accepts a connection; False: it would block. Can raise the OSError that the call fails with."""
        return True

    def accepted(self, connection: AcceptedConnection) -> None:
        """The server has accepted a connection."""

    def before_read(self, connection: AcceptedConnection, size: int) -> int:
        """How many of the `size` bytes that have arrived the server reads at once; 0: it would block. `size` is 0 when
        nothing has arrived. Can raise the OSError that the call fails with."""
        return size

    def before_write(self, connection: AcceptedConnection, size: int) -> int:
        """How many of `size` bytes the server writes at once; 0: it would block. Can raise an OSError likewise."""
        return size

    def is_blocked(self, fileno: int, events: int) -> bool:
        """Whether a descriptor that is ready for these events counts as not ready."""
        return False

    def choose(self, ready: int) -> int:
        """The index of the callback that runs next, out of this many that are ready."""
        return 0

    def delay(self) -> int:
        """For how many iterations of the loop a callback is held back before it runs."""
        return 0
