"""The characters that a text can contain: none that moves another reader's cursor, recolours a terminal, fakes a line, hides
words or covers the lines above and below. Pure, and linear in the length of the text.
"""

from __future__ import annotations

import re
from unicodedata import category

_REPLACEMENT = "\ufffd"
# Shown as U+FFFD: control characters, bidirectional embeddings, overrides and isolates, Unicode's line and
# paragraph separators (some readers split lines at them), and lone surrogates, which JSON can smuggle in and UTF-8
# cannot carry out.
_UNSAFE = "\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE_CHARACTER = re.compile(f"[{_UNSAFE}]")
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
_FLAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]{1,6}\U000e007f)")

_ANY_DIRECTION = re.compile(f"[{_INVISIBLE}]+")
_LEFT_TO_RIGHT = re.compile(f"[{_INVISIBLE}{_DIRECTION_MARKS}]+")

# Unicode's White_Space, which differs from what str.strip takes by default: that includes U+001C to U+001F.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)

# Characters that show nothing by themselves but belong to visible texts: joiners, jamo fillers, variation selectors and the
# rest of Unicode's Default_Ignorable_Code_Point, and two symbols that are blank.
_BLANK = re.compile(
    f"[{WHITE_SPACE}{_INVISIBLE}{_DIRECTION_MARKS}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u2800\ufe00-\ufe0f"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0080-\U000e0fff]*"
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


# Every block that has marks; looking through all of Unicode would slow the start down.
_BASIC_MARKS = _marks((0x300, 0x20F0), (0x2CEF, 0x309A), (0xA66F, 0xABED), (0xFB1E, 0xFE2F))
_ASTRAL_MARKS = _marks(
    (0x101FD, 0x11FFF),
    (0x13430, 0x1345F),
    (0x16100, 0x16FFF),
    (0x1BC9D, 0x1BC9E),
    (0x1CF00, 0x1EFFF),
    (0xE0100, 0xE01EF),
)
# The first class of both patterns is quick to look for. Within the basic plane a class is one look into a table; beyond it,
# hundreds of ranges are compared one after the other, so that is done only where there can be a mark.
_ASTRAL_MARK = re.compile(f"[\U000101fd-\U0001efff\U000e0100-\U000e01ef](?<=[{_ASTRAL_MARKS}])")
# From the fifth mark of a stack on.
_STACK = re.compile(f"[{_BASIC_MARKS}](?<=[{_BASIC_MARKS}]{{{_MAX_MARKS + 1}}})[{_BASIC_MARKS}]*")


def clean(raw: str) -> str:
    """The text as everyone can be shown it: safe, with nothing invisible and no stacked marks."""
    return visible(clean_line(raw))


def clean_line(raw: str) -> str:
    """The line as it is safe to print: stripped, tabs as spaces, unsafe characters as U+FFFD."""
    # isprintable is one pass in C and true of nearly everything people type.
    if raw.isprintable():
        return raw.strip()
    return _UNSAFE_CHARACTER.sub(_REPLACEMENT, raw.strip(WHITE_SPACE).replace("\t", " "))


def visible(line: str) -> str:
    """The visible part of a clean line, without invisible characters and stacked marks; possibly empty."""
    if line.isascii():
        return line
    # Two fillers are letters by category, and so printable.
    if not line.isprintable() or "\u3164" in line or "\uffa0" in line:
        line = _without_invisible(line)
    line = _without_stacks(line).strip(WHITE_SPACE)
    return "" if _BLANK.fullmatch(line) else line


def _without_invisible(line: str) -> str:
    dropped = _ANY_DIRECTION if _RIGHT_TO_LEFT.search(line) else _LEFT_TO_RIGHT
    if "\U0001f3f4" not in line:
        return dropped.sub("", line)
    # Around the flags, which keep their tags.
    pieces = _FLAGS.split(line)
    return "".join([piece if at % 2 else dropped.sub("", piece) for at, piece in enumerate(pieces)])


def _without_stacks(line: str) -> str:
    basic, astral_marks = _ASTRAL_MARK.subn("\u0300", line)
    if not astral_marks:
        return _STACK.sub("", line)
    # Found with a basic mark in the place of each astral one.
    kept, at = [], 0
    for stack in _STACK.finditer(basic):
        kept.append(line[at : stack.start()])
        at = stack.end()
    return "".join(kept) + line[at:]
