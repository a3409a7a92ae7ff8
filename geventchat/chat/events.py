"""The events that clients receive, as values. Does not know how a dialect spells them.

`Broadcast` events go to everyone in a room and are encoded once for all who share an encoding. `PrivateEvent`s are
for one client. A `Message` is what someone wrote, to a room or to one person. Times are milliseconds since 1970. Message
ids count per room.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from geventchat.chat.commands import ParseError


@dataclass(frozen=True, slots=True)
class Joined:
    """Someone entered the room."""

    room: str
    name: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Said:
    """Someone said one text, or several in a row with nothing in between.

    The texts have consecutive ids, beginning with `first_id`.
    """

    room: str
    name: str
    texts: Sequence[str]
    first_id: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Left:
    """Someone left the room, for whatever reason."""

    room: str
    name: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """Your login succeeded. `users` is a live view: read it while encoding, never keep it."""

    room: str
    name: str
    users: Collection[str]
    time_ms: int


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """Someone sent you a message that only you receive."""

    sender: str
    recipient: str
    text: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class DirectMessageSent:
    """Your direct message was delivered. `typed` is the recipient's name as you wrote it."""

    message: DirectMessage
    typed: str


@dataclass(frozen=True, slots=True)
class Roster:
    """The people in the room, in login order. `users` is a live view: read it while encoding, never keep it."""

    users: Collection[str]


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

    token: str


@dataclass(frozen=True, slots=True)
class HelpText:
    """The list of commands."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The answer to `Quit`, and the last thing a client is sent."""


class Rejection(Enum):
    """Why the chat refuses a command."""

    NAME_LENGTH = auto()
    NAME_INVALID = auto()
    NAME_TAKEN = auto()
    ALREADY_LOGGED_IN = auto()
    NOT_LOGGED_IN = auto()
    EMPTY_MESSAGE = auto()
    NO_RECIPIENT = auto()
    EMPTY_DIRECT_MESSAGE = auto()
    USER_NOT_FOUND = auto()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command was refused or could not be parsed. `subject` is the name or word at fault, where that helps."""

    reason: Rejection | ParseError
    subject: str = ""


class NoticeReason(Enum):
    """Why the server closes a connection; the value is the word in the log."""

    IDLE = "idle"
    SERVER_FULL = "full"
    ADDRESS_FULL = "address_full"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class DisconnectNotice:
    """The server is about to close this connection. `as_error` picks the wording where a dialect has two."""

    reason: NoticeReason
    as_error: bool = False


Broadcast = Joined | Said | Left
Message = Said | DirectMessage
PrivateEvent = (
    Welcome
    | DirectMessage
    | DirectMessageSent
    | Roster
    | Pong
    | HelpText
    | Goodbye
    | Rejected
    | DisconnectNotice
)
Event = Broadcast | PrivateEvent
