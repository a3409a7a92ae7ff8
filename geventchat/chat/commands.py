"""What a client may ask, as values. Must not know how any dialect spells it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from geventchat.chat.hot import hot_dataclass


class Fault(Enum):
    """Why a line is no command: whose bytes they were is never in doubt."""

    TOO_LONG = auto()
    NOT_UTF8 = auto()
    NOT_JSON = auto()
    UNKNOWN_COMMAND = auto()


@dataclass(frozen=True, slots=True)
class Login:
    """Let me in under this name (as typed; the chat decides whether it may be)."""

    name: str


@hot_dataclass(frozen=True, slots=True)
class Say:
    """Tell everyone. An empty text is for the chat to refuse."""

    text: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell one person. An empty name or text is for the chat to refuse."""

    to: str
    text: str


@dataclass(frozen=True, slots=True)
class Who:
    """Who is here?"""


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? The token comes back."""

    token: str


@dataclass(frozen=True, slots=True)
class Help:
    """What can I ask?"""


@dataclass(frozen=True, slots=True)
class Quit:
    """I am leaving."""


@dataclass(frozen=True, slots=True)
class Violation:
    """The bytes were no command. The client hears why and stays."""

    fault: Fault
    subject: str = ""


Command = Login | Say | Tell | Who | Ping | Help | Quit | Violation
