"""The problems of a script, as values, and the one place that turns them into text and an exception.

Knows no steps and no targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.language.columns import width, windowed

COLUMNS = 80
_LABEL = "      expected: "
_LEAST = 20
"""So much of a line is shown however narrow the terminal is."""


class LineError(ValueError):
    """One line, or a part of one, cannot be read. `column` counts from 0 within the text that was read."""

    def __init__(self, column: int, message: str, expected: str) -> None:
        super().__init__(column, message, expected)
        self.column = column
        self.message = message
        self.expected = expected

    def __str__(self) -> str:
        return self.message


@contextmanager
def columns_from(column: int) -> Iterator[None]:
    """Shift the column of errors raised inside, where a part of a longer text is parsed."""
    try:
        yield
    except LineError as error:
        raise LineError(column + error.column, error.message, error.expected) from None


@dataclass(frozen=True, slots=True)
class ScriptProblem:
    """One thing that is wrong with a script. Lines and columns count from 1; line 0 means the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    expected: str
    source_line: str = ""

    def __str__(self) -> str:
        return self.text()

    def text(self, columns: int = COLUMNS) -> str:
        """The place and the message, whatever they take, and below them within this width the line and what is right."""
        if not self.line:
            return self.message
        where = f"{self.file}:{self.line}:{self.column}: {self.message}"
        # A tab would move the caret; a control character would move the reader's cursor.
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self.source_line)
        gutter = f"{self.line:>5} | "
        shown, at = windowed(shown, self.column - 1, max(columns - len(gutter), _LEAST))
        at += max(0, self.column - 1 - len(self.source_line))
        caret = " " * (len(gutter) - 2) + "| " + " " * at + "^"
        return "\n".join([where, f"{gutter}{shown}".rstrip(), caret, *_wrapped(self.expected, columns)])


class ScriptError(Exception):
    """The script cannot be read or played as it stands."""

    def __init__(self, problem: ScriptProblem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


def _wrapped(text: str, columns: int) -> Iterator[str]:
    """Continue a list below its beginning: after a comma, or before another form, so that no form is split which fits."""
    room = max(columns - len(_LABEL), _LEAST)
    row, label = "", _LABEL
    for piece in re.split(r"(?<=,) |(?<=\S)(?=   or   )", text):
        piece = piece.lstrip(" ") if not row else piece if piece.startswith(" ") else f" {piece}"
        if row and width(row + piece) > room:
            yield label + row
            row, label, piece = "", " " * len(_LABEL), piece.lstrip(" ")
        for word in re.findall(r" *\S+", piece):
            if row and width(row + word) > room:
                yield label + row
                row, label, word = "", " " * len(_LABEL), word.lstrip(" ")
            row += word
    yield label + row
