"""What Tab can make of a half-typed word.

Pure: knows what was typed and who is here.
"""

from __future__ import annotations

from collections.abc import Iterable

from geventchat.client.words import COMMANDS


def candidates(before_cursor: str, people: Iterable[str]) -> tuple[str, list[str]]:
    """The word that is being typed, and what it could become, each with what belongs after it."""
    head, _, word = before_cursor.rpartition(" ")
    words = head.split()
    if not words and word.startswith("/"):
        return word, [_with_blank(command) for command in COMMANDS if command.startswith(word.lower())]
    if not word and words != ["/dm"]:
        # Tab on nothing would offer everyone, which nobody asked for; after /dm it is the question.
        return word, []
    names = sorted((name for name in people if _begins(name, word)), key=str.casefold)
    if not words:
        # A name that opens a line addresses that person.
        return word, [f"{name}: " for name in names]
    return word, [f"{name} " for name in names]


def _with_blank(command: str) -> str:
    return f"{command} " if command == "/dm" else command


def _begins(name: str, word: str) -> bool:
    return name.casefold().startswith(word.casefold())
