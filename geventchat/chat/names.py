"""Which names of people and rooms are allowed, and when two are the same. Pure.

The profile is RFC 8265's UsernameCasePreserved (width mapping, NFC, the identifier class of RFC 8264, the bidi rule
of RFC 5893), narrowed to letters, digits, marks and `_ - .`, to four combining marks in a row, and to 20 characters
for people and 32 for rooms. Names that differ only in case or width share one key. The tests compare this with an
independent implementation of the profile.

Input is measured before it is normalised: normalising a long run of combining marks takes quadratic time.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from unicodedata import bidirectional, category, decomposition, normalize

from geventchat.chat.events import Rejection

MAX_LENGTH = 20
MAX_ROOM_LENGTH = 32
# A character of a name can be typed as a base and several marks, which normalising joins into one.
_TYPED_PER_CHARACTER = 4
_MAX_MARKS = 4

# Names that could be taken for the server, for an operator or for everyone; and every word that can follow `INFO` in the line
# dialect, where the name of a person can stand, too. A test holds this list to what that dialect sends.
RESERVED_NAMES = (
    *("you", "server", "info", "system", "all", "here", "everyone", "admin", "root"),
    *("idle-timeout", "server-full", "server-shutdown", "too-many-connections"),
    *("kicked", "banned", "logged-in-elsewhere", "announcement"),
)

_PLAIN = re.compile("[A-Za-z0-9_.-]+")
_KINDS = frozenset({"Ll", "Lu", "Lo", "Lm", "Nd", "Mn", "Mc"})
# RFC 8264, 9.6: letters that are excluded despite their category, and a letter number that is included.
_NEVER = frozenset("\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b")
_ALWAYS = frozenset("_-.\u3007")
# Old Hangul jamo (RFC 8264, 9.9) and invisible code points (9.13) that their categories would let in.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff"
    "\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]"
)


def _width(char: str) -> str:
    how, _, codes = decomposition(char).partition(" ")
    return "".join(chr(int(code, 16)) for code in codes.split()) if how in {"<wide>", "<narrow>"} else char


# All wide and narrow forms are in one block, but for the space.
_WIDTHS = {char: _width(char) for char in map(chr, (0x3000, *range(0xFF00, 0xFFF0)))}


class InvalidName(Exception):
    """The name is not allowed."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason.name)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Name:
    """A name as its owner typed it, normalised, and the key that makes it unique."""

    shown: str
    key: str


def parse_name(typed: str, reserved: Container[str] = ()) -> Name:
    """Normalise the name of a person; raise InvalidName if it is not allowed, or if its key is one of the reserved."""
    name = _parse(typed, MAX_LENGTH)
    if name.key in reserved:
        raise InvalidName(Rejection.NAME_INVALID)
    return name


def parse_room_name(typed: str) -> Name:
    """Normalise the name of a room, which can be written with a leading `#`; raise InvalidName if it is not allowed."""
    return _parse(typed.removeprefix("#"), MAX_ROOM_LENGTH)


def key_of(typed: str) -> str:
    """The key of the person whose name is spelt like this; empty if the name is impossible."""
    if len(typed) > _TYPED_PER_CHARACTER * MAX_LENGTH:
        return ""
    return _fold(normalize("NFC", _narrow(typed)))


def _parse(typed: str, max_length: int) -> Name:
    if len(typed) > _TYPED_PER_CHARACTER * max_length:
        raise InvalidName(Rejection.NAME_LENGTH)
    if len(typed) <= max_length and _PLAIN.fullmatch(typed):
        return Name(typed, typed.lower())
    shown = normalize("NFC", _narrow(typed))
    if not 1 <= len(shown) <= max_length:
        raise InvalidName(Rejection.NAME_LENGTH)
    if not _allowed(shown):
        raise InvalidName(Rejection.NAME_INVALID)
    return Name(shown, _fold(shown))


def _fold(shown: str) -> str:
    return normalize("NFC", shown.casefold())


def _narrow(typed: str) -> str:
    if typed.isascii():
        return typed
    return "".join([_WIDTHS.get(char, char) for char in typed])


def _allowed(shown: str) -> bool:
    return (
        all(_is_identifier(char) for char in shown)
        and not _INVISIBLE.search(shown)
        # A leading mark would combine with the character printed before the name.
        and category(shown[0])[0] != "M"
        and not _stacked(shown)
        and _reads_one_way(shown)
    )


def _stacked(shown: str) -> bool:
    marks = 0
    for char in shown:
        marks = marks + 1 if category(char)[0] == "M" else 0
        if marks > _MAX_MARKS:
            return True
    return False


def _is_identifier(char: str) -> bool:
    if char in _ALWAYS:
        return True
    if char < "\x80":
        return char.isalnum()
    return category(char) in _KINDS and char not in _NEVER and normalize("NFKC", char) == char


def _reads_one_way(shown: str) -> bool:
    """The bidi rule of RFC 5893, section 2: a name never changes the reading direction of its neighbours.

    It also keeps the two kinds of Arabic digits apart, as RFC 8264's contextual rule asks for: one is EN, the other AN.
    """
    kinds = [bidirectional(char) for char in shown]
    if not any(kind in {"R", "AL", "AN"} for kind in kinds):
        return True
    while kinds and kinds[-1] == "NSM":
        kinds.pop()
    if not kinds:
        return False
    present, first, last = set(kinds), kinds[0], kinds[-1]
    neutral = {"EN", "ES", "CS", "ET", "ON", "BN", "NSM"}
    if first in {"R", "AL"}:
        return (
            present <= neutral | {"R", "AL", "AN"}
            and last in {"R", "AL", "EN", "AN"}
            and not ("EN" in present and "AN" in present)
        )
    return first == "L" and present <= neutral | {"L"} and last in {"L", "EN"}
