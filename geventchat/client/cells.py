"""Text on a grid of cells: graphemes, their widths, and lines that break between words. Pure.

Terminals disagree about the width of some emoji. Where they do, the larger width is taken: a line then breaks a little early,
and nothing of it is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from unicodedata import category, east_asian_width

_JOINER = "\u200d"
_EMOJI_STYLE = "\ufe0f"
_MODIFIERS = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
# No grapheme that people type has more code points.
_NEARBY = 64
# Jamo that form one syllable with what comes before them.
_VOWELS = (range(0x1160, 0x11A8), range(0xD7B0, 0xD7C7))
_FINALS = (range(0x11A8, 0x1200), range(0xD7CB, 0xD7FC))


class Span(NamedTuple):
    """Text in one style, and the address that a click on it opens."""

    style: str
    text: str
    link: str = ""


Row = tuple[Span, ...]


def graphemes(text: str) -> list[str]:
    """The text in pieces that a reader takes for one character each."""
    if text.isascii():
        return list(text)
    pieces: list[str] = []
    flags = 0
    for char in text:
        code = ord(char)
        is_flag = code in _FLAG_LETTERS
        if pieces and (_extends(char, code) or _joined(pieces[-1], char) or (is_flag and flags % 2)):
            pieces[-1] += char
        else:
            pieces.append(char)
        flags = flags + 1 if is_flag else 0
    return pieces


@lru_cache(maxsize=4096)
def _extends(char: str, code: int) -> bool:
    return (
        code >= 0x300
        and (category(char)[0] == "M" or char in {_JOINER, "\u200c"} or code in _MODIFIERS or code in _TAGS)
    ) or any(code in block for block in (*_VOWELS, *_FINALS))


def _joined(before: str, char: str) -> bool:
    return (
        before[-1] == _JOINER
        and len(before) > 1
        and ord(char) >= 0x2190
        and category(char) in {"So", "Cn", "Sm"}
    )


def previous(text: str, position: int) -> int:
    """Where the grapheme before this position begins."""
    return position - len(graphemes(text[max(position - _NEARBY, 0) : position])[-1]) if position else 0


def following(text: str, position: int) -> int:
    """Where the grapheme at this position ends."""
    rest = graphemes(text[position : position + _NEARBY])
    return position + len(rest[0]) if rest else position


@lru_cache(maxsize=8192)
def grapheme_width(grapheme: str) -> int:
    """The cells that a grapheme takes."""
    if ord(grapheme[0]) in _FLAG_LETTERS:
        return 2 if len(grapheme) > 1 else 1
    return sum(map(_width, grapheme)) + (_EMOJI_STYLE in grapheme and _width(grapheme[0]) == 1)


def _width(char: str) -> int:
    if char < "\x7f":
        return 1
    if category(char) in {"Mn", "Me", "Cf"} or any(ord(char) in block for block in (*_VOWELS, *_FINALS)):
        return 0
    return 2 if east_asian_width(char) in {"W", "F"} else 1


def width(text: str) -> int:
    """The cells that a text takes."""
    return len(text) if text.isascii() else sum(map(grapheme_width, graphemes(text)))


def cut(text: str, columns: int) -> str:
    """The text, or its beginning and an ellipsis if it has no room."""
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for piece in graphemes(text):
        used += grapheme_width(piece)
        if used > columns - 1:
            break
        kept.append(piece)
    return "".join(kept) + "…" * (columns > 0)


def row_width(row: Iterable[Span]) -> int:
    """The cells that a row takes."""
    return sum(width(span.text) for span in row)


class _Cell(NamedTuple):
    text: str
    width: int
    span: Span


def wrap(spans: Sequence[Span], columns: int, indent: int, *, words: bool = True) -> list[Row]:
    """The rows of a line: broken between words where there are any, and indented from the second one on."""
    if sum(len(span.text) for span in spans) * 2 <= columns or row_width(spans) <= columns:
        return [tuple(span for span in spans if span.text)]
    indent = min(indent, max(columns - 4, 0))
    pending = list(_cells(spans))
    pending.reverse()
    rows: list[Row] = []
    row: list[_Cell] = []
    used, margin, break_at = 0, 0, 0
    while pending:
        cell = pending.pop()
        if used + cell.width > columns - margin and row:
            if cell.text == " " and words:
                tail = []
            elif words and break_at:
                tail = [*row[break_at:], cell]
                del row[break_at:]
            else:
                tail = [cell]
            rows.append(_joined_spans(row, margin, trim=words))
            pending.extend(reversed(tail))
            row, used, margin, break_at = [], 0, indent, 0
            continue
        row.append(cell)
        used += cell.width
        # Not behind an indentation, which would leave a blank row.
        if cell.text == " " and any(one.text != " " for one in row):
            break_at = len(row)
    rows.append(_joined_spans(row, margin, trim=False))
    return rows


def _cells(spans: Sequence[Span]) -> Iterator[_Cell]:
    for span in spans:
        for piece in graphemes(span.text):
            yield _Cell(piece, grapheme_width(piece), span)


def _joined_spans(cells: list[_Cell], margin: int, *, trim: bool) -> Row:
    while trim and cells and cells[-1].text == " ":
        cells.pop()
    joined = [Span("", " " * margin)] if margin else []
    for cell in cells:
        if joined and joined[-1].style == cell.span.style and joined[-1].link == cell.span.link:
            joined[-1] = joined[-1]._replace(text=joined[-1].text + cell.text)
        else:
            joined.append(cell.span._replace(text=cell.text))
    return tuple(joined)
