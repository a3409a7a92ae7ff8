"""What a line may mean, whatever the dialect spells it like, and the words that people here use. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Wrong(Enum):
    """Why a client is refused, where the dialects have a word of their own for it."""

    NAME_LENGTH = auto()
    NAME_FORM = auto()
    NAME_TAKEN = auto()
    ALREADY_IN = auto()
    NOT_IN = auto()
    NOTHING_SAID = auto()
    NOTHING_TOLD = auto()
    NOBODY = auto()
    UNKNOWN = auto()
    TOO_LONG = auto()
    NOT_UTF8 = auto()
    NO_OBJECT = auto()


@dataclass(frozen=True, slots=True)
class Name:
    """A name as someone types it, as it is shown, and what it is compared by; or why it may not be."""

    typed: str
    shown: str = ""
    key: str = ""
    wrong: Wrong | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text as someone types it, and as the others see it; nothing, if there is nothing to say in it."""

    typed: str
    shown: str


@dataclass(frozen=True, slots=True)
class Enter:
    name: Name


@dataclass(frozen=True, slots=True)
class Say:
    text: Text


@dataclass(frozen=True, slots=True)
class Tell:
    to: Name
    text: Text


@dataclass(frozen=True, slots=True)
class Ask:
    """Who is here?"""


@dataclass(frozen=True, slots=True)
class Ping:
    token: str = ""


@dataclass(frozen=True, slots=True)
class Help:
    pass


@dataclass(frozen=True, slots=True)
class Leave:
    pass


@dataclass(frozen=True, slots=True)
class Nothing:
    """A blank line."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that there is not; it is told as that only to someone who is in."""

    verb: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """No line at all; told in any case."""

    why: Wrong


Meaning = Enter | Say | Tell | Ask | Ping | Help | Leave | Nothing | Unknown | Broken


@dataclass(frozen=True, slots=True)
class Line:
    """What goes over the wire, without its end, and what it means."""

    wire: bytes
    meaning: Meaning


LONGEST_LINE = 200
"""What the server is asked for: `server: … max-line=200`."""

NAMES = (
    Name("ann", "ann", "ann"),
    Name("bob", "bob", "bob"),
    Name("Ann", "Ann", "ann"),
    Name("BOB", "BOB", "bob"),
    Name("zoë", "zoë", "zoë"),
    Name("ZOE\u0308", "ZOË", "zoë"),
    Name("ａｎｎ", "ann", "ann"),
    Name("a.b-c_1", "a.b-c_1", "a.b-c_1"),
    Name("twenty-letters-long.", "twenty-letters-long.", "twenty-letters-long."),
    Name("Straße", "Straße", "strasse"),
    Name("STRASSE", "STRASSE", "strasse"),
)
NO_NAMES = (
    Name("a/b", wrong=Wrong.NAME_FORM),
    Name("ann!", wrong=Wrong.NAME_FORM),
    Name("", wrong=Wrong.NAME_LENGTH),
    Name("twenty-one-letters-it", wrong=Wrong.NAME_LENGTH),
    Name("a\u202eb", wrong=Wrong.NAME_FORM),
    Name("a b", wrong=Wrong.NAME_FORM),
)
TEXTS = (
    Text("hi", "hi"),
    Text("", ""),
    Text("two  words", "two  words"),
    Text("/quit", "/quit"),
    Text("a\tb", "a b"),
    Text("bell \x07 rings", "bell \ufffd rings"),
    Text("\u202eevil", "\ufffdevil"),
    Text("\U0001f469\u200d\U0001f680 flies", "\U0001f469\u200d\U0001f680 flies"),
    Text("  padded ", "padded"),
    Text('"quoted" \\ {}', '"quoted" \\ {}'),
    Text("nel \x85 here", "nel \ufffd here"),
)
NOT_UTF8 = b"caf\xe9"
