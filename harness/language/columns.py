"""How many columns of a terminal a text takes, and what a terminal would obey instead of showing it. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """The text with a replacement character for each that would move the cursor or change the colours."""
    return text if text.isprintable() else _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def width(text: str) -> int:
    """The number of terminal columns that the text occupies."""
    if text.isascii():
        return len(text)
    return sum(columns_of(char) for char in text)


def columns_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def cut(text: str, columns: int) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    used = before_ellipsis = 0
    for at, char in enumerate(text):  # never further than fits: a line can have millions of characters
        used += columns_of(char)
        if used > columns:
            return text[:before_ellipsis] + ELLIPSIS
        if used < columns:
            before_ellipsis = at + 1
    return text


def windowed(text: str, at: int, columns: int) -> tuple[str, int]:
    """As much of the text around this character as fits, with an ellipsis where something is left out, and the column of
    that character in it."""
    shown, column = windowed_alike((text,), at, columns)
    return shown[0], column


def windowed_alike(texts: Sequence[str], at: int, columns: int) -> tuple[list[str], int]:
    """The same for texts that are shown one above the other and are the same up to this character."""
    longest, start = max(texts, key=width), 0
    if width(longest) > columns and width(longest[:at]) >= columns * 2 // 3:
        start, before = at, 0
        while start > 0 and (before := before + columns_of(longest[start - 1])) < columns // 3:
            start -= 1
    shown = [cut(f"{ELLIPSIS}{text[start:]}" if start else text, columns) for text in texts]
    return shown, width(longest[start:at]) + (1 if start else 0)
