"""The client's half of a dialect: commands to bytes, and lines from a server to events. Sans-I/O.

Invariants of every ClientCodec:
- One codec serves one connection, in both directions: it learns its client's name from the login, and knows which commands have
  not been answered.
- `decode` never raises, whatever a server sends.
- A command that was encoded with a reference is answered by one Answer with that reference, if the server answers at all.
- A field that the dialect does not transmit is NO_ROOM, NO_ID, NO_TIME, or an empty list of users in a Welcome.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum, auto
from typing import Final, Protocol

from geventchat.chat.commands import Command, ParseError, Ping, Say, SendDirectMessage
from geventchat.chat.events import Confirmed, Event, Pong, Rejected

# The room that everyone logs in to.
LOBBY: Final = "lobby"
NO_ROOM: Final = ""
NO_ID: Final = 0
NO_TIME: Final = 0


class CannotEncode(Exception):
    """The dialect cannot express this command; the message tells the user why."""


@dataclass(frozen=True, slots=True)
class UnknownError:
    """The server refused something in words that this dialect does not define."""

    text: str


@dataclass(frozen=True, slots=True)
class UnknownLine:
    """A line that this dialect does not define."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the command that was encoded with this reference."""

    ref: str
    event: Event | UnknownError


ServerEvent = Event | UnknownError | UnknownLine | Answer


class ClientCodec(Protocol):
    """One connection to a server, seen from the client."""

    @property
    def echoes_messages(self) -> bool:
        """True when the server sends a client its own messages."""

    @property
    def confirms_direct_messages(self) -> bool:
        """True when the server confirms each direct message to its sender."""

    @property
    def many_rooms(self) -> bool:
        """True when a client can be in many rooms, and messages have ids and keys."""

    @property
    def answers_in_prose(self) -> bool:
        """True when the server says in a sentence that it has carried out a command."""

    def encode(self, command: Command, ref: str = "") -> bytes:
        """The bytes of a command; with a reference it is answered. Raises CannotEncode."""

    def decode(self, line: bytes) -> ServerEvent | None:
        """The event that this line completes; None when more lines follow, or when the line carries none."""


def lines(*texts: str) -> bytes:
    """Each text as one line. Raises CannotEncode for a text that would be more than one."""
    for text in texts:
        if "\n" in text:
            raise CannotEncode("A message is a single line.")
    return "".join([f"{text}\n" for text in texts]).encode("utf-8", "replace")


def time_of_utc(text: str) -> int:
    """A time as `utc` writes it; NO_TIME if it is none."""
    try:
        time = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return NO_TIME
    return int(time.timestamp()) * 1000


class _Sent(Enum):
    PING = auto()
    # A command that every server of the dialect knows.
    MESSAGE = auto()
    OTHER = auto()


@dataclass(slots=True)
class _Fence:
    ref: str
    behind: _Sent
    refused: Rejected | UnknownError | None = None


class Fences:
    """Answers for dialects that say nothing about a message unless they refuse it: a ping follows each command that needs one.

    A server handles the lines of a client in order, so the answer to the ping says that the command before it has been handled,
    and a refusal that comes earlier belongs to that command. Answers to pings come in order, so they need no token.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Fence] = deque()

    def add(self, command: Command, ref: str) -> None:
        """A ping is sent behind this command, or is the command."""
        match command:
            case Ping():
                self._waiting.append(_Fence(ref, _Sent.PING))
            case Say() | SendDirectMessage():
                self._waiting.append(_Fence(ref, _Sent.MESSAGE))
            case _:
                self._waiting.append(_Fence(ref, _Sent.OTHER))

    def refusal(self, event: Rejected | UnknownError) -> ServerEvent | None:
        """The server refused something; None if the answer to the ping behind it tells."""
        head = self._waiting[0] if self._waiting else None
        if head is None:
            return event
        unknown = isinstance(event, Rejected) and event.reason is ParseError.UNKNOWN_COMMAND
        if unknown and (head.behind is not _Sent.OTHER or head.refused is not None):
            # This server does not know pings, and this is the answer to one.
            return self.pong("")
        if head.behind is _Sent.PING or head.refused is not None:
            return event
        head.refused = event
        return None

    def pong(self, token: str) -> ServerEvent:
        """A ping was answered."""
        if not self._waiting:
            return Pong(token)
        fence = self._waiting.popleft()
        if fence.behind is _Sent.PING:
            return Answer(fence.ref, Pong(token)) if fence.ref else Pong(token)
        return Answer(fence.ref, fence.refused or Confirmed())
