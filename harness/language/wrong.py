"""What is wrong with one line, before it is known which line of which file it is."""

from __future__ import annotations


class Wrong(Exception):
    """`column` counts from 0 within the line's text, its indentation left out."""

    def __init__(self, column: int, message: str, expected: str) -> None:
        super().__init__(column, message, expected)
        self.column = column
        self.message = message
        self.expected = expected
