"""What a text can contain: nothing that moves another reader's cursor, recolours a terminal, fakes a line, hides words or
covers the lines above and below. Pure, and linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import category

_REPLACEMENT = "\ufffd"
# Shown as U+FFFD: control characters, bidirectional embeddings, overrides and isolates, Unicode's line and
# paragraph separators (some readers split lines at them), and lone surrogates, which JSON can smuggle in and UTF-8
# cannot carry out.
_UNSAFE = "\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
# Dropped: invisible characters that text does not need. Joiners stay, since emoji and several scripts need them.
_INVISIBLE = (
    "\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f"
)
# Dropped where nothing is written from right to left.
_DIRECTION_MARKS = "\u061c\u200e\u200f"
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
# The flags of England, Scotland and Wales are spelt with tag characters: a black flag, tags, a cancel tag.
_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]{1,6}\U000e007f"

_SUSPECT = re.compile(f"[\t{_UNSAFE}{_INVISIBLE}{_DIRECTION_MARKS}]")


def _codes(char_class: str) -> Iterator[int]:
    for first, last, single in re.findall("(.)-(.)|(.)", char_class, re.DOTALL):
        yield from range(ord(first or single), ord(last or single) + 1)


def _translation(dropped: str) -> dict[int, str | None]:
    # str.translate is several times as fast as re.sub where every second character changes.
    table: dict[int, str | None] = dict.fromkeys(_codes(_UNSAFE), _REPLACEMENT)
    table.update(dict.fromkeys(_codes(dropped)))
    table[ord("\t")] = " "
    return table


_ANY_DIRECTION = _translation(_INVISIBLE)
_LEFT_TO_RIGHT = _translation(_INVISIBLE + _DIRECTION_MARKS)
_FLAGS = re.compile(f"({_FLAG})")

# Unicode's White_Space, which differs from what str.strip takes by default: that includes U+001C to U+001F.
_WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)

# More combining marks than this on one character would be drawn over other lines; no living script stacks as many.
_MAX_MARKS = 4


def _marks(*blocks: tuple[int, int]) -> str:
    """The combining marks in these blocks, as the inside of a character class."""
    ranges: list[list[int]] = []
    for first, last in blocks:
        for code in range(first, last + 1):
            if category(chr(code))[0] == "M":
                if ranges and ranges[-1][1] == code - 1:
                    ranges[-1][1] = code
                else:
                    ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


# Every block of the Basic Multilingual Plane that has marks; looking through all of Unicode would slow the start down.
_BASIC_MARKS = _marks((0x300, 0x20F0), (0x2CEF, 0x309A), (0xA66F, 0xABED), (0xFB1E, 0xFE2F))
_ASTRAL_MARKS = _marks(
    (0x101FD, 0x11FFF), (0x16AF0, 0x16FFF), (0x1BC9D, 0x1BC9E), (0x1CF00, 0x1EFFF), (0xE0100, 0xE01EF)
)
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
# A character class within the basic plane is one look into a table; with astral characters it is a search.
_STACK = re.compile(f"([{_BASIC_MARKS}]{{{_MAX_MARKS}}})[{_BASIC_MARKS}]+")
_ASTRAL_STACK = re.compile(
    f"([{_BASIC_MARKS}{_ASTRAL_MARKS}]{{{_MAX_MARKS}}})[{_BASIC_MARKS}{_ASTRAL_MARKS}]+"
)


def clean(raw: str) -> str:
    """The text as it is safe to show: stripped, tabs as spaces, unsafe characters as U+FFFD, invisible ones dropped."""
    # isprintable is one pass in C and true of nearly everything people type in ASCII.
    if raw.isascii():
        return raw.strip() if raw.isprintable() else raw.strip(_WHITE).translate(_LEFT_TO_RIGHT)
    text = raw
    # Two fillers are letters by category, and so printable.
    if (not text.isprintable() or "\u3164" in text or "\uffa0" in text) and _SUSPECT.search(text):
        text = _translate(
            text.strip(_WHITE), _ANY_DIRECTION if _RIGHT_TO_LEFT.search(text) else _LEFT_TO_RIGHT
        )
    stack = _ASTRAL_STACK if _ASTRAL.search(text) else _STACK
    return stack.sub(r"\1", text).strip(_WHITE)


def _translate(text: str, table: dict[int, str | None]) -> str:
    if "\U0001f3f4" not in text:
        return text.translate(table)
    # Around the flags, which keep their tags.
    pieces = _FLAGS.split(text)
    return "".join([piece if at % 2 else piece.translate(table) for at, piece in enumerate(pieces)])
