"""What can be wrong with a script itself, told so that it can be put right. Knows no steps and no targets."""

from __future__ import annotations

WIDTH = 100


class ScriptError(Exception):
    """The script breaks the language: where, what stands there, and what was expected instead."""

    def __init__(self, file: str, line: int, column: int, text: str, message: str, expected: str) -> None:
        super().__init__(file, line, column, text, message, expected)
        self.file = file
        self.line = line
        self.column = column
        self.text = text
        self.message = message
        self.expected = expected

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: {self.message}"
        # Tabs would move the caret; a control character would move the reader's cursor.
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self.text)
        gutter = f"{self.line:>5} | "
        caret = " " * (len(gutter) - 2) + "| " + " " * (self.column - 1) + "^"
        return f"{where}\n{gutter}{shown}\n{caret}\n{_wrapped('      expected: ', self.expected)}"


def _wrapped(label: str, text: str) -> str:
    """A long list goes on below itself; it breaks behind a comma, so that no form is torn in two."""
    lines = [label]
    for piece in text.replace(", ", ",\0").split("\0"):
        if len(lines[-1]) + len(piece) >= WIDTH and lines[-1].strip() and lines != [label]:
            lines.append(" " * len(label))
        lines[-1] += piece + (" " if piece.endswith(",") else "")
    return "\n".join(line.rstrip() for line in lines)


class LineError(Exception):
    """`column` counts from 0 within the line's text, its indentation left out."""

    def __init__(self, column: int, message: str, expected: str) -> None:
        super().__init__(column, message, expected)
        self.column = column
        self.message = message
        self.expected = expected
