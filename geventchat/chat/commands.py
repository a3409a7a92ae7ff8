"""The commands of a client, as values. Does not know how a dialect spells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class ParseError(Enum):
    """Why a line is not a command."""

    TOO_LONG = auto()
    NOT_UTF8 = auto()
    NOT_JSON = auto()
    UNKNOWN_COMMAND = auto()


@dataclass(frozen=True, slots=True)
class Login:
    """Enter the chat under this name, as typed; the chat decides whether the name is allowed."""

    name: str


@dataclass(frozen=True, slots=True)
class Say:
    """Say these texts, one after the other, to everyone in the room. The chat refuses an empty text."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class SendDirectMessage:
    """Send a text to one person. The chat refuses an empty name or text."""

    to: str
    text: str


@dataclass(frozen=True, slots=True)
class Who:
    """List the people in the room."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a Pong with the same token."""

    token: str


@dataclass(frozen=True, slots=True)
class Help:
    """List the commands."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


@dataclass(frozen=True, slots=True)
class InvalidCommand:
    """A line that is not a command. The client is sent an error and stays."""

    error: ParseError
    subject: str = ""


Command = Login | Say | SendDirectMessage | Who | Ping | Help | Quit | InvalidCommand
