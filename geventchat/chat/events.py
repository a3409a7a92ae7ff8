"""What a client may hear, as values. Must not know how any dialect spells it.

`Broadcast` events go into the room's feeds, once for everybody; the others are for one client's ears. `at` is whole seconds
since 1970.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from geventchat.chat.commands import Fault


@dataclass(frozen=True, slots=True)
class Joined:
    """Someone came in."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Said:
    """Someone spoke to everyone: one text, or several in one breath, with nothing of anyone else's between them."""

    name: str
    texts: Sequence[str]
    at: int


@dataclass(frozen=True, slots=True)
class Left:
    """Someone is gone, however they went."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """You are in. `users` is a live view: read it while encoding, do not keep it."""

    name: str
    users: Collection[str]
    at: int


@dataclass(frozen=True, slots=True)
class Told:
    """Someone spoke to you alone."""

    name: str
    to: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Relayed:
    """What you said to one person has reached them. `typed` is their name as you wrote it."""

    told: Told
    typed: str


@dataclass(frozen=True, slots=True)
class Roster:
    """Who is here, in login order. `users` is a live view: read it while encoding, do not keep it."""

    users: Collection[str]


@dataclass(frozen=True, slots=True)
class Pong:
    """I am here."""

    token: str


@dataclass(frozen=True, slots=True)
class Helped:
    """What you can ask."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """You asked to leave; this is the last you hear."""


class Reason(Enum):
    """Why the chat says no."""

    NAME_LENGTH = auto()
    NAME_INVALID = auto()
    NAME_TAKEN = auto()
    ALREADY_IN = auto()
    NOT_IN = auto()
    EMPTY_MESSAGE = auto()
    TELL_WHOM = auto()
    TELL_WHAT = auto()
    NOBODY = auto()


@dataclass(frozen=True, slots=True)
class Refused:
    """The chat says no, or could not read the line. `subject` is what it was about, where that helps."""

    why: Reason | Fault
    subject: str = ""


class Parting(Enum):
    """Why the server ends a conversation that its client did not end."""

    IDLE = auto()
    FULL = auto()
    ADDRESS_FULL = auto()
    SHUTDOWN = auto()


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The server ends this. `blame` is whether it is put as the client's mistake, where a dialect has two ways."""

    why: Parting
    blame: bool = False


Broadcast = Joined | Said | Left
Event = Broadcast | Welcome | Told | Relayed | Roster | Pong | Helped | Goodbye | Refused | Dismissed
