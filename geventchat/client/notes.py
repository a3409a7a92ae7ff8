"""What a person gets to see: one value for each kind of line.

Values only: how they look is `rendering`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Words:
    """Someone said something to everyone."""

    at: datetime
    name: str
    text: str
    own: bool = False
    mentions_me: bool = False


@dataclass(frozen=True, slots=True)
class PrivateWords:
    """Someone told us something."""

    at: datetime
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class OwnPrivateWords:
    """We told someone something."""

    at: datetime
    to: str
    text: str


@dataclass(frozen=True, slots=True)
class CameIn:
    """Someone came in."""

    name: str


@dataclass(frozen=True, slots=True)
class WentAway:
    """Someone went away."""

    name: str


@dataclass(frozen=True, slots=True)
class People:
    """Who is here; `more` is how many there are besides those named."""

    names: tuple[str, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class PingTook:
    """How long a ping was under way."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Greeting:
    """Good news about our own being here."""

    text: str


@dataclass(frozen=True, slots=True)
class Parting:
    """We have left, as we wished."""

    name: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Something worth knowing."""

    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was asked for did not happen."""

    text: str


@dataclass(frozen=True, slots=True)
class Offline:
    """News of a connection that is not there."""

    text: str


@dataclass(frozen=True, slots=True)
class Commands:
    """What can be typed: each command and what it does."""

    rows: tuple[tuple[str, str], ...]


Note = (
    Words
    | PrivateWords
    | OwnPrivateWords
    | CameIn
    | WentAway
    | People
    | PingTook
    | Greeting
    | Parting
    | Remark
    | Problem
    | Offline
    | Commands
)
