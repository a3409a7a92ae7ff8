"""What the server has been asked and has not answered, the oldest first. Sans-I/O.

It knows of the dialect only what `ClientCodec` says, and not what an answer means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from types import UnionType

from geventchat.chat.commands import Command
from geventchat.client.windows import Outgoing, Window
from geventchat.dialects.codec import ClientCodec


class Why(Enum):
    """What an answer is for."""

    # Somebody has typed the command.
    TYPED = auto()
    KEEP_ALIVE = auto()
    PEOPLE = auto()
    ARRIVAL = auto()
    OLDER = auto()
    MISSED = auto()
    SEARCH = auto()
    RESUME = auto()


@dataclass(frozen=True, slots=True)
class Request:
    """A command that the server will answer."""

    command: Command
    sent_at: float
    why: Why
    window: Window
    outgoing: Outgoing | None = None


class Requests:
    """The requests of one client, on one connection after the other."""

    def __init__(self, send: Callable[[bytes], None], monotonic: Callable[[], float]) -> None:
        # None without a connection.
        self.codec: ClientCodec | None = None
        self._send = send
        self._monotonic = monotonic
        self._open: dict[str, Request] = {}
        self._refs = 0
        self._heard_at = 0.0

    def __iter__(self) -> Iterator[Request]:
        return iter([*self._open.values()])

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, command: Command, why: Why, window: Window, outgoing: Outgoing | None = None) -> None:
        """Send a command that is answered. Raises CannotEncode."""
        assert self.codec is not None
        ref = str(self._refs + 1)
        data = self.codec.encode(command, ref)
        self._refs += 1
        self._open[ref] = Request(command, self._monotonic(), why, window, outgoing)
        self._send(data)

    def answered(self, ref: str) -> Request | None:
        """The request that this answers, which is open no longer; None if there is none."""
        return self._open.pop(ref, None)

    def first(self, commands: type | UnionType) -> Request | None:
        """The oldest with one of these commands."""
        return next((request for request in self if isinstance(request.command, commands)), None)

    def has(self, why: Why) -> bool:
        """True if one of them is for this."""
        return any(request.why is why for request in self)

    def heard(self) -> None:
        """The server has sent something, or nothing could be heard from it for a reason of this side."""
        self._heard_at = self._monotonic()

    def silence(self) -> float:
        """For how many seconds an answer has been missing; 0 if none is."""
        oldest = next(iter(self), None)
        return 0.0 if oldest is None else max(self._monotonic() - max(oldest.sent_at, self._heard_at), 0.0)

    def clear(self) -> None:
        """The connection has ended."""
        self._open.clear()
