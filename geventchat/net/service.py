"""What serves the sockets that listeners accept: the chat in one dialect, or anything else that can be connected to.

The server accepts a client, numbers it, counts it and logs it, in the same way for every service. The service makes its
connection, and the server runs that in a greenlet, ends it when it stops, and forgets it once its socket is closed.

Knows no protocol. `Server._make_services` makes one service for each name in `settings.SERVICES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from geventchat.chat.events import NoticeReason
from geventchat.net.admission import Address
from geventchat.net.transport import Transport


@dataclass(frozen=True, slots=True)
class Accepted:
    """A client from which nothing has been read yet."""

    transport: Transport
    host: str
    # In the log, and unique in the life of the server.
    number: int
    # Holds a slot for the client, which its connection frees with `Admission.leave`. None if the client is refused: then it
    # holds a place to linger in, which its connection frees with `Admission.free_linger`.
    address: Address | None
    # To be called once, when the socket is closed.
    on_closed: Callable[[ServedConnection], None]


class ServedConnection(Protocol):
    """One client of a service, from accept to close."""

    number: int

    def run(self) -> None:
        """Serve the client until it leaves; the body of its greenlet."""

    def refuse(self, reason: NoticeReason) -> None:
        """Send the reason for the refusal, and close. Called instead of `run`."""

    def shut_down(self) -> None:
        """The server is stopping: tell the client, and close once everything pending has been sent. Does not wait."""

    def drop(self) -> None:
        """Close at once, without sending what is pending. Does not wait."""


class Service(Protocol):
    """Makes the connections of its clients."""

    def connection(self, accepted: Accepted) -> ServedConnection:
        """A connection for this client, which has yet to be run or refused."""
