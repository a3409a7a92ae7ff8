"""Services serve the sockets that listeners accept: the chat in one dialect, or anything else with connections.

For every service, the server accepts a client, numbers it, counts it and logs it. The service makes the connection; the server
runs it in a greenlet, ends it when the server stops, and forgets it once its socket is closed.

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

    # A plain socket, or one that decrypts: `transport.input_watcher` waits for input of both.
    transport: Transport
    host: str
    # In the log, and unique in the life of the server.
    number: int
    # Holds a slot for the client, which the connection frees with `Admission.leave`. None if the client is refused: then it has
    # a slot for lingering, which the connection frees with `Admission.free_linger`.
    address: Address | None
    # To be called once, when the socket is closed.
    on_closed: Callable[[OpenConnection], None]


class OpenConnection(Protocol):
    """A client as the server needs it until its socket is closed."""

    number: int

    def shut_down(self) -> None:
        """The server is stopping: tell the client, and close once everything pending has been sent. Does not wait."""

    def drop(self) -> None:
        """Close at once, without sending what is pending. Does not wait."""


class ServedConnection(OpenConnection, Protocol):
    """One client of a service, from accept to close."""

    def run(self) -> None:
        """Serve the client until it leaves; the body of its greenlet."""

    def refuse(self, reason: NoticeReason) -> None:
        """Send the reason for the refusal, and close. Called instead of `run`."""


class Service(Protocol):
    """Makes the connections of its clients."""

    @property
    def is_internal(self) -> bool:
        """True if programs of the operator connect, every few seconds perhaps, and also while the server is full.

        Then the server neither counts nor refuses nor logs the clients: the service bounds how many there are.
        """

    def connection(self, accepted: Accepted) -> ServedConnection:
        """A connection for this client, which has yet to be run or refused."""
