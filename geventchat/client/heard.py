"""What a server can be heard to say, whichever dialect it says it in.

Values only: no bytes, no terminal, no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class NameFault(Enum):
    """Why a server does not let a name in."""

    TAKEN = auto()
    INVALID = auto()
    LENGTH = auto()


class CutReason(Enum):
    """Why a server announces that it is about to close the connection."""

    IDLE = auto()
    FULL = auto()
    CROWDED = auto()
    SHUTDOWN = auto()


@dataclass(frozen=True, slots=True)
class Welcomed:
    """We are in. `name` is ours as the server shows it; `users` is who is there, if the dialect says."""

    name: str
    users: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class NameRefused:
    """The login failed on the name; another may be tried on the same connection."""

    fault: NameFault


@dataclass(frozen=True, slots=True)
class Said:
    """Someone spoke to everyone."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """Someone told us something in private."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class TellConfirmed:
    """The server says that it delivered our private message."""

    to: str
    text: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Someone came in."""

    name: str


@dataclass(frozen=True, slots=True)
class Left:
    """Someone went away."""

    name: str


@dataclass(frozen=True, slots=True)
class Roster:
    """Everyone who is there, in the order in which they came."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The server did not do what we asked; `text` says why, for a person to read."""

    text: str


@dataclass(frozen=True, slots=True)
class Cut:
    """The server is about to close the connection."""

    why: CutReason


@dataclass(frozen=True, slots=True)
class Farewell:
    """The answer to our leaving: everything that we sent before it was dealt with."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """A line that means nothing in this dialect."""

    text: str


Heard = (
    Welcomed
    | NameRefused
    | Said
    | Told
    | TellConfirmed
    | Joined
    | Left
    | Roster
    | Pong
    | Refused
    | Cut
    | Farewell
    | Unclear
)
