"""What can be wrong with a script itself, told so that it can be put right. Knows no steps and no targets."""

from __future__ import annotations


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
        return f"{where}\n{gutter}{shown}\n{caret}\n      expected: {self.expected}"
