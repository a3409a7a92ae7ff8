"""What a person typed -> what they wish.

Pure: knows no dialect and no terminal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HELP = (
    ("/help", "this list"),
    ("/users", "who is here"),
    ("/dm NAME TEXT", "tell one person something in private"),
    ("/ping", "how far away the server is"),
    ("/quit", "leave (also /exit, /q, Ctrl-D, Ctrl-C)"),
    ("//TEXT", "say a text that begins with a slash (a slash server has no way to)"),
)

COMMANDS = ("/dm", "/exit", "/help", "/ping", "/q", "/quit", "/users")


@dataclass(frozen=True, slots=True)
class Say:
    """Say it to everyone."""

    text: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell it to one person."""

    to: str
    text: str


@dataclass(frozen=True, slots=True)
class AskUsers:
    """Who is here?"""


@dataclass(frozen=True, slots=True)
class AskPing:
    """How far is the server?"""


@dataclass(frozen=True, slots=True)
class AskHelp:
    """What can be typed?"""


@dataclass(frozen=True, slots=True)
class Leave:
    """Out of here."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What was typed is no command; `text` says what would be right."""

    text: str


Wish = Say | Tell | AskUsers | AskPing | AskHelp | Leave | Mistake

WITHOUT_ARGUMENTS: dict[str, Wish] = {
    "/help": AskHelp(),
    "/users": AskUsers(),
    "/ping": AskPing(),
    "/quit": Leave(),
    "/exit": Leave(),
    "/q": Leave(),
}


def split_lines(typed: str) -> list[str]:
    """The lines of what was typed; a paste can bring several."""
    return re.split(r"\r\n|\r|\n", typed)


def wish_of(line: str) -> Wish | None:
    """The wish in one typed line, or nothing if the line is blank."""
    line = line.strip()
    if not line:
        return None
    if line.startswith("//"):
        return Say(line[1:])
    if not line.startswith("/"):
        return Say(line)
    command, *rest = line.split(maxsplit=1)
    if command.lower() == "/dm":
        return _tell(rest[0] if rest else "")
    wish = WITHOUT_ARGUMENTS.get(command.lower())
    if wish is None:
        return Mistake(f"There is no command {command}. /help lists them all.")
    if rest:
        return Mistake(f"{command} stands alone: nothing comes after it.")
    return wish


def _tell(rest: str) -> Wish:
    match rest.split(maxsplit=1):
        case [to, text]:
            return Tell(to, text)
        case _:
            return Mistake("Usage: /dm NAME TEXT")
