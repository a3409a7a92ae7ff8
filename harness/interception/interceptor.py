"""What may be done to a server in this process from beneath: to its sockets, to its loop. Does nothing by itself.

A schedule of exploration is one such interceptor, the faults that a script asks for are another. Right servers stand both:
whatever an interceptor does, a kernel could have done. Each is made for one play of one script.
"""

from __future__ import annotations

import _socket
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from harness.stage.kernel import SocketAddress

_SO_COOKIE = 57


@dataclass(slots=True, eq=False)
class AcceptedConnection:
    """The server's side of one accepted connection."""

    number: int
    """Counted from 1, in the order in which they were accepted."""
    peer: SocketAddress
    """The scripted client's address."""
    fileno: int
    cookie: bytes
    """The kernel's own number for it; a descriptor is used again."""

    def is_at(self, fileno: int) -> bool:
        """Whether the descriptor is still this connection's."""
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


@runtime_checkable
class Interceptable(Protocol):
    """A target whose server can be intercepted."""

    def intercepted_by(self, interceptor: Interceptor) -> Any:
        """The same target, for one play, with this interceptor over its server as well."""
        ...


class Interceptor:
    """Asked before each call of the server's sockets and at each choice of its loop; this one leaves all as it is."""

    def loop_created(self, loop: Any) -> None:
        """The loop has been made; the server has not."""

    def ends(self) -> None:
        """The server has been stopped."""

    def accepting(self) -> None:
        """The server is about to accept; may raise the OSError that it shall fail with."""

    def accepted(self, connection: AcceptedConnection) -> None:
        """It has."""

    def reading(self, connection: AcceptedConnection, size: int) -> int:
        """How many of the `size` bytes that are there may be read at once. 0: none for now; or, of 0, that nothing is
        there. May raise the OSError that the call shall fail with."""
        return size

    def writing(self, connection: AcceptedConnection, size: int) -> int:
        """How many of `size` bytes may be written at once; 0: none for now. May raise, likewise."""
        return size

    def is_blocked(self, fileno: int, events: int) -> bool:
        """Whether a descriptor that is ready for these events counts as not ready."""
        return False

    def choose(self, ready: int) -> int:
        """Which of so many callbacks that are ready runs next."""
        return 0

    def delay(self) -> int:
        """For how many turns of the loop a callback is held back before it runs."""
        return 0
