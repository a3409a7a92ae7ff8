"""Text whose colours are named after their meaning, rendered as plain text, for a terminal, or as HTML.

- A span is a part of one line, and holds no control characters: a server decides much of what a report shows.

Knows nothing of verdicts: reports decide what is good, bad or dim.
"""

from __future__ import annotations

import enum
import html
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from harness.language.columns import columns_of, visible, width


class Tone(enum.Enum):
    """The meaning of a piece of text; the value is its CSS class."""

    PLAIN = "plain"
    STRONG = "strong"
    DIM = "dim"
    GOOD = "good"
    BAD = "bad"
    WARNING = "warning"
    HINT = "hint"


_ANSI = {
    Tone.STRONG: "1",
    Tone.DIM: "2",
    Tone.GOOD: "32",
    Tone.BAD: "1;31",
    Tone.WARNING: "33",
    Tone.HINT: "36",
}


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    tone: Tone = Tone.PLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", visible(self.text))


Line = Sequence[Span]


def plain(lines: Iterable[Line]) -> str:
    """Render without colours; trailing white space is removed."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)


def ansi(lines: Iterable[Line]) -> str:
    """Render with the colours of a terminal."""
    return "".join("".join(_ansi(span) for span in line) + "\n" for line in lines)


def _ansi(span: Span) -> str:
    code = _ANSI.get(span.tone)
    return f"\x1b[{code}m{span.text}\x1b[0m" if code and span.text else span.text


def for_stream(lines: Iterable[Line], stream: TextIO) -> str:
    """Render with colours if the stream is a terminal and NO_COLOR is not set."""
    return ansi(lines) if stream.isatty() and not os.environ.get("NO_COLOR") else plain(lines)


def html_lines(lines: Iterable[Line]) -> str:
    """Render for a <pre> element, with a class for each tone."""
    return "".join("".join(_html(span) for span in line) + "\n" for line in lines)


def _html(span: Span) -> str:
    text = html.escape(span.text)
    return text if span.tone is Tone.PLAIN or not text else f'<span class="{span.tone.value}">{text}</span>'


def padded(text: str, columns: int) -> str:
    """The text, filled up with spaces to this many columns."""
    return text + " " * max(0, columns - width(text))


_ASIDE = " " * 6
"""Before a note beside a text; the note moves to a separate line where it does not fit."""


def wrapped(line: Line, columns: int | None) -> Iterator[Line]:
    """The line, broken at spaces where it is wider than this; what follows is aligned with its last piece of text."""
    if columns is None or width("".join(span.text for span in line)) <= columns:
        yield line
        return
    row, filled = list[Span](), 0
    indent = min(_hanging(line), columns // 2)
    for span in line:
        if span.text.startswith(_ASIDE) and filled > indent and filled + width(span.text) > columns:
            yield row
            row, filled = [Span(" " * indent)], indent
            span = Span(span.text.lstrip(" "), span.tone)
        for word in re.findall(r" *[^ ]+ *$| *[^ ]+| +$", span.text):
            while word:
                room = columns - filled
                if width(word) <= room:
                    row.append(Span(word, span.tone))
                    filled += width(word)
                    break
                if filled > indent and width(word.strip()) <= columns - indent:
                    word = word.lstrip(" ")
                else:
                    piece = _beginning(word, room)
                    row.append(Span(piece, span.tone))
                    word = word[len(piece) :]
                yield row
                row, filled = [Span(" " * indent)], indent
    yield row


def _hanging(line: Line) -> int:
    """Where the text of a labelled line begins."""
    first = "".join(span.text for span in line[:1])
    return width(first) if len(line) > 1 and first.startswith(" ") else 2


def _beginning(text: str, columns: int) -> str:
    used = 0
    for at, char in enumerate(text):
        used += columns_of(char)
        if used > columns:
            return text[: max(at, 1)]
    return text


def terminal_columns() -> int:
    """How wide a report can be: the terminal's width, or 120 where there is none."""
    return max(40, shutil.get_terminal_size((120, 24)).columns)


def listed(words: Sequence[str]) -> str:
    """`ann`, `ann and bob`, `ann, bob and carol`; of many the first, and how many more."""
    shown = [*words] if len(words) <= _LISTED else [*words[: _LISTED - 1], f"{len(words) - _LISTED + 1} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


_LISTED = 4


def count(number: int, noun: str) -> str:
    """`1 change`, `2 changes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
