"""Text with colours that are named by what they mean; written plainly, for a terminal, or as HTML.

Knows nothing of verdicts: whoever reports decides what is good, wrong or quiet.
"""

from __future__ import annotations

import enum
import html
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO


class Tone(enum.Enum):
    PLAIN = "plain"
    STRONG = "strong"
    QUIET = "quiet"
    GOOD = "good"
    BAD = "bad"
    WANTED = "wanted"
    HINT = "hint"


_ANSI = {
    Tone.STRONG: "1",
    Tone.QUIET: "2",
    Tone.GOOD: "32",
    Tone.BAD: "1;31",
    Tone.WANTED: "33",
    Tone.HINT: "36",
}


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    tone: Tone = Tone.PLAIN


Line = Sequence[Span]


def plain(lines: Iterable[Line]) -> str:
    """Without colours; no line ends in white space."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)


def ansi(lines: Iterable[Line]) -> str:
    """For a terminal."""
    return "".join("".join(_ansi(span) for span in line) + "\n" for line in lines)


def _ansi(span: Span) -> str:
    code = _ANSI.get(span.tone)
    return f"\x1b[{code}m{span.text}\x1b[0m" if code and span.text else span.text


def painted(lines: Iterable[Line], out: TextIO) -> str:
    """With colours where a terminal shows them and nobody has asked for none."""
    return ansi(lines) if out.isatty() and not os.environ.get("NO_COLOR") else plain(lines)


def html_lines(lines: Iterable[Line]) -> str:
    """For a <pre>: spans whose class is their tone."""
    return "".join("".join(_html(span) for span in line) + "\n" for line in lines)


def _html(span: Span) -> str:
    text = html.escape(span.text)
    return text if span.tone is Tone.PLAIN or not text else f'<span class="{span.tone.value}">{text}</span>'


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def padded(text: str, columns: int) -> str:
    """The text and spaces up to so many columns."""
    return text + " " * max(0, columns - width(text))
