"""The problems of a script, as values, and the one place that turns them into text and an exception.

Knows no steps and no targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_WIDTH = 100


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
        if not self.line:
            return self.message
        where = f"{self.file}:{self.line}:{self.column}: {self.message}"
        # A tab would move the caret; a control character would move the reader's cursor.
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self.source_line)
        gutter = f"{self.line:>5} | "
        caret = " " * (len(gutter) - 2) + "| " + " " * (self.column - 1) + "^"
        return f"{where}\n{gutter}{shown}\n{caret}\n{_wrapped('      expected: ', self.expected)}"


class ScriptError(Exception):
    """The script cannot be read or played as it stands."""

    def __init__(self, problem: ScriptProblem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


def _wrapped(label: str, text: str) -> str:
    """Continue a long list below its beginning, breaking after commas only so that no form is split."""
    lines = [label]
    for piece in text.replace(", ", ",\0").split("\0"):
        if len(lines[-1]) + len(piece) >= _WIDTH and lines[-1].strip() and lines != [label]:
            lines.append(" " * len(label))
        lines[-1] += piece + (" " if piece.endswith(",") else "")
    return "\n".join(line.rstrip() for line in lines)
