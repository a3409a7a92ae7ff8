"""Parses and completes lines of input. Pure: knows no dialect and no terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from geventchat.chat.commands import Command, Help, Ping, Quit, Say, SendDirectMessage, Who

HELP = (
    ("/help", "show this list"),
    ("/users", "list everyone online"),
    ("/dm NAME TEXT", "send a direct message"),
    ("/ping", "measure how long the server takes to answer"),
    ("/quit", "leave (also /exit, /q, Ctrl-D, Ctrl-C)"),
    ("//TEXT", "send a message that begins with a slash (not to a slash server)"),
)

_COMMANDS: dict[str, Callable[[], Command]] = {
    "/exit": Quit,
    "/help": Help,
    "/ping": lambda: Ping(""),
    "/q": Quit,
    "/quit": Quit,
    "/users": Who,
}
_DIRECT_MESSAGE = "/dm"


@dataclass(frozen=True, slots=True)
class InvalidInput:
    """The line is not a command; `message` says what to type instead."""

    message: str


def split_lines(text: str) -> list[str]:
    """The lines of what was typed or pasted."""
    return re.split(r"\r\n|\r|\n", text)


def parse_input(line: str) -> Command | InvalidInput | None:
    """The command on one line of input; None when the line is blank."""
    line = line.strip()
    if not line:
        return None
    if line.startswith("//"):
        return Say((line[1:],))
    if not line.startswith("/"):
        return Say((line,))
    verb, *rest = line.split(maxsplit=1)
    if verb.lower() == _DIRECT_MESSAGE:
        match "".join(rest).split(maxsplit=1):
            case [to, text]:
                return SendDirectMessage(to, text)
            case _:
                return InvalidInput("Usage: /dm NAME TEXT")
    command = _COMMANDS.get(verb.lower())
    if command is None:
        return InvalidInput(f"Unknown command {verb}. /help lists the commands.")
    return InvalidInput(f"{verb} takes no arguments.") if rest else command()


def completions(before_cursor: str, users: Iterable[str]) -> tuple[str, list[str]]:
    """The word before the cursor and its completions, each with the text that follows it."""
    head, _, word = before_cursor.rpartition(" ")
    words = head.split()
    if not words and word.startswith("/"):
        verbs = sorted([*_COMMANDS, f"{_DIRECT_MESSAGE} "])
        return word, [verb for verb in verbs if verb.startswith(word.lower())]
    if not word and words != [_DIRECT_MESSAGE]:
        # Tab on an empty word would offer every name, which only helps after /dm.
        return word, []
    names = [name for name in users if name.casefold().startswith(word.casefold())]
    # A name at the beginning of a message addresses that person.
    behind = " " if words else ": "
    return word, [name + behind for name in sorted(names, key=str.casefold)]
