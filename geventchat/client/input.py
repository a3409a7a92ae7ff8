"""Parses what was typed or pasted, and completes it. Pure: knows no dialect and no terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from geventchat.chat.commands import (
    AskHistory,
    AskTopic,
    Command,
    EnterRoom,
    LeaveRoom,
    ListRooms,
    Ping,
    Quit,
    Register,
    SetTopic,
    Who,
)
from geventchat.chat.passwords import Secret
from geventchat.chat.text import clean
from geventchat.client import markup
from geventchat.client.emoji import EMOJI, with_emoji
from geventchat.client.options import KEYS
from geventchat.dialects.verbs import VERBS

# A longer text would not fit into a line of the server's limit, 4,096 bytes by default, with everything around it.
MAX_MESSAGE_BYTES = 3500
DEFAULT_HISTORY = 100


class Message(NamedTuple):
    """Texts for the current room or person, each a message."""

    texts: tuple[str, ...]


class Act(NamedTuple):
    """An action, such as `* alice waves`."""

    text: str


class Direct(NamedTuple):
    """Direct messages to one person; without a text, talk to that person from now on."""

    to: str
    texts: tuple[str, ...] = ()


class Reply(NamedTuple):
    """Answer whoever wrote the last direct message."""

    texts: tuple[str, ...]


class ChangeName(NamedTuple):
    """Log in anew under this name."""

    name: str


class HidePerson(NamedTuple):
    """Hide the messages of a user, or show them again; without a name, list the hidden users."""

    name: str
    on: bool


class GoAway(NamedTuple):
    """Answer direct messages with this text; without one, stop that."""

    text: str


class Search(NamedTuple):
    """Look for a text in the room's messages."""

    text: str


class Quote(NamedTuple):
    """Quote the last message, of this person if one is named, and say something about it."""

    name: str
    text: str


class ShowSettings(NamedTuple):
    """List the settings, or one."""

    key: str


class ChangeSetting(NamedTuple):
    """Change a setting until the end of the session."""

    key: str
    value: str


class AskSecret(NamedTuple):
    """A command that asks for passwords before it is sent: `register` or `password`."""

    command: str


class ClearWindow(NamedTuple):
    """Remove what is shown from the screen."""


class SendAgain(NamedTuple):
    """Send again what was perhaps not said before the connection was lost; or drop it."""

    drop: bool


class HelpFor(NamedTuple):
    """The help, or that of one command."""

    command: str = ""


class InvalidInput(NamedTuple):
    """What was typed is not a command; `message` says what to type instead."""

    message: str


Local = (
    Message
    | Act
    | Direct
    | Reply
    | ChangeName
    | HidePerson
    | GoAway
    | Search
    | Quote
    | ShowSettings
    | ChangeSetting
    | AskSecret
    | ClearWindow
    | SendAgain
    | HelpFor
)
Parsed = Command | Local | InvalidInput | None


class Usage(NamedTuple):
    """A command: its usage, what it does, and how its arguments are read; None if they make no sense."""

    usage: str
    meaning: str
    read: Callable[[str], Parsed]

    @property
    def verb(self) -> str:
        """The command itself."""
        return self.usage.partition(" ")[0]


def _words(rest: str) -> tuple[str, str]:
    """The first word and the rest, which can have several lines."""
    match rest.split(maxsplit=1):
        case [word, text]:
            return word, text
        case [word]:
            return word, ""
        case _:
            return "", ""


def _alone(made: Callable[[], Parsed]) -> Callable[[str], Parsed]:
    return lambda rest: None if rest else made()


def _join(rest: str) -> Parsed:
    room, key = _words(rest)
    return EnterRoom(room, key) if room else None


def _direct(rest: str) -> Parsed:
    to, text = _words(rest)
    return Direct(to.removeprefix("@"), lines_of(text)) if to else None


def _topic(rest: str) -> Parsed:
    return SetTopic("" if rest == "-" else rest) if rest else AskTopic()


def _history(rest: str) -> Parsed:
    if not rest:
        return AskHistory(DEFAULT_HISTORY)
    return AskHistory(int(rest)) if re.fullmatch("[1-9][0-9]{0,3}", rest) else None


def _quote(rest: str) -> Parsed:
    name, text = _words(rest)
    return Quote(name.removeprefix("@").rstrip(":"), text)


def _name_of(rest: str, make: Callable[[str], Parsed]) -> Parsed:
    word, more = _words(rest)
    return None if more or not word else make(word.removeprefix("@"))


def _setting(rest: str) -> Parsed:
    key, value = _words(rest)
    return ChangeSetting(key, value.strip('"')) if value else ShowSettings(key)


def _secret(command: str) -> Callable[[str], Parsed]:
    def read(rest: str) -> Parsed:
        if not rest:
            return AskSecret(command)
        return Register(Secret(rest)) if command == "register" else VERBS[command].read(rest)

    return read


def _moderation(verb: str) -> Callable[[str], Parsed]:
    return lambda rest: VERBS[verb].read(rest)


COMMANDS = (
    Usage("/join ROOM [KEY]", "enter a room, or make it", _join),
    Usage(
        "/leave [ROOM]", "leave this room or another one; also /part, /close", lambda rest: LeaveRoom(rest)
    ),
    Usage("/rooms", "list the rooms", _alone(ListRooms)),
    Usage("/topic [TEXT]", "show the topic of the room, or change it; - for none", _topic),
    Usage("/who [ROOM]", "list the people in the room; also /users", lambda rest: Who(rest)),
    Usage("/me TEXT", "say what you do: * alice TEXT", lambda rest: Act(rest) if rest else None),
    Usage(
        "/msg NAME [TEXT]", "send a direct message, or go on to talk to one person; also /dm, /query", _direct
    ),
    Usage(
        "/reply TEXT",
        "answer the last direct message; also /r",
        lambda rest: Reply(lines_of(rest)) if rest else None,
    ),
    Usage("/quote [NAME] [TEXT]", "quote the last message, of one person if named", _quote),
    Usage("/history [N]", "load N older messages", _history),
    Usage(
        "/search TEXT", "look for a text in the room's messages", lambda rest: Search(rest) if rest else None
    ),
    Usage("/nick NAME", "log in anew under another name", lambda rest: _name_of(rest, ChangeName)),
    Usage(
        "/away [TEXT]",
        "answer direct messages with TEXT; without TEXT, be back; also /back",
        lambda rest: GoAway(rest),
    ),
    Usage(
        "/ignore [NAME]",
        "hide a user's messages; without NAME, list the ignored users",
        lambda rest: (
            _name_of(rest, lambda name: HidePerson(name, on=True)) if rest else HidePerson("", on=True)
        ),
    ),
    Usage(
        "/unignore NAME",
        "show them again",
        lambda rest: _name_of(rest, lambda name: HidePerson(name, on=False)),
    ),
    Usage(
        "/resend [drop]",
        "send again what was perhaps not said, or drop it",
        lambda rest: SendAgain(rest == "drop") if rest in {"", "drop"} else None,
    ),
    Usage("/set [KEY [VALUE]]", "show or change settings until the end of the session", _setting),
    Usage("/clear", "clear the screen", _alone(ClearWindow)),
    Usage("/ping", "measure how long the server takes to answer", _alone(lambda: Ping(""))),
    Usage("/register", "reserve your name: asks for a password", _secret("register")),
    Usage("/password", "change it: asks for both", _secret("password")),
    Usage("/token [revoke]", "get a token that works like the password, or revoke all", _moderation("token")),
    Usage("/invite NAME", "invite someone to the room", _moderation("invite")),
    Usage("/kick NAME [REASON]", "send someone out of the room", _moderation("kick")),
    Usage("/ban NAME [10m] [REASON]", "keep someone out of the room", _moderation("ban")),
    Usage("/unban NAME", "let someone in again", _moderation("unban")),
    Usage("/bans", "list the bans", _alone(lambda: VERBS["bans"].read(""))),
    Usage("/mute NAME [10m] [REASON]", "let someone only listen", _moderation("mute")),
    Usage("/unmute NAME", "let someone speak again", _moderation("unmute")),
    Usage("/voice NAME", "let someone speak where it is moderated", _moderation("voice")),
    Usage("/unvoice NAME", "take that back", _moderation("unvoice")),
    Usage("/mod NAME", "make someone a moderator", _moderation("mod")),
    Usage("/unmod NAME", "take that back", _moderation("unmod")),
    Usage("/owner NAME", "give the room to someone", _moderation("owner")),
    Usage("/private on|off", "who can enter the room", _moderation("private")),
    Usage("/moderated on|off", "who can speak in the room", _moderation("moderated")),
    Usage("/key TEXT", "ask everyone who enters for a key; - for none", _moderation("key")),
    Usage("/delete ID", "remove the text of a message", _moderation("delete")),
    Usage("/help [COMMAND]", "show this list, or one command", lambda rest: HelpFor(rest.removeprefix("/"))),
    Usage("/quit", "leave; also /exit, /q, Ctrl-D, twice Ctrl-C", _alone(Quit)),
)
_ALIASES = {
    "/dm": "/msg",
    "/query": "/msg",
    "/r": "/reply",
    "/users": "/who",
    "/names": "/who",
    "/part": "/leave",
    "/close": "/leave",
    "/back": "/away",
    "/exit": "/quit",
    "/q": "/quit",
}
_TABLE = {command.verb: command for command in COMMANDS}
# Their texts can have several lines.
_SEVERAL_LINES = {"/msg", "/reply"}
_SECRET = frozenset({"/login", "/register", "/password", "/token"})
SLASHES = ("//TEXT", "send a message that begins with a slash")


def is_secret(text: str) -> bool:
    """True for a command of the server's that contains a password or a token, whether this client knows it or not."""
    return text.lstrip().partition(" ")[0].lower() in _SECRET


def split_lines(text: str) -> list[str]:
    """The lines of what was typed or pasted."""
    return re.split(r"\r\n|\r|\n", text)


def parse_input(text: str, *, literal: bool = False) -> Parsed:
    """What was typed, as a command; None when it is blank. A literal text is a message, whatever it begins with."""
    if not text.strip():
        return None
    typed = text.lstrip()
    if literal or not typed.startswith("/") or typed.startswith("//"):
        if not literal and typed.startswith("//"):
            text = typed[1:]
        return Message(lines_of(text))
    verb, *rest = typed.split(maxsplit=1)
    name = _ALIASES.get(verb.lower(), verb.lower())
    entry = _TABLE.get(name)
    if entry is None:
        return InvalidInput(f"Unknown command {verb}.{_suggestion(verb)} /help lists the commands.")
    arguments = "".join(rest).rstrip()
    if "\n" in typed.rstrip() and name not in _SEVERAL_LINES:
        return InvalidInput(f"{verb} takes one line.")
    command = entry.read(arguments)
    if command is not None:
        return command
    if " " not in entry.usage:
        return InvalidInput(f"{verb} takes no arguments.")
    return InvalidInput(f"Usage: {entry.usage.replace(entry.verb, verb.lower(), 1)}")


def _suggestion(verb: str) -> str:
    import difflib

    close = difflib.get_close_matches(verb.lower(), [*_TABLE, *_ALIASES], 1, cutoff=0.7)
    return f" Did you mean {close[0]}?" if close else ""


def lines_of(text: str) -> tuple[str, ...]:
    """The messages of a text: its lines, behind a bar if white space at their beginning or a blank line would be lost."""
    lines = [line.rstrip() for line in split_lines(text)]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        del lines[0]
    if len(lines) > 1 and any(not line or line[0].isspace() for line in lines):
        return tuple(markup.block(lines))
    return tuple([line.strip() for line in lines])


def sendable(texts: Sequence[str], *, emoji: bool) -> list[str]:
    """The texts as they are sent: with emoji in place of their codes, and in pieces that a server takes."""
    sent: list[str] = []
    for text in texts:
        # What somebody else wrote stays as it was.
        if emoji and markup.code_line(text) is None and not text.startswith("> "):
            text = with_emoji(text)
        sent += _in_pieces(text)
    return sent


def _in_pieces(text: str) -> list[str]:
    pieces = []
    while _size(text) > MAX_MESSAGE_BYTES:
        # The most characters that have room, then back to a blank if there is one in reach.
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _size(text[:middle]) <= MAX_MESSAGE_BYTES else (low, middle - 1)
        blank = text.rfind(" ", low // 2, low + 1)
        end = blank if blank > 0 else low
        pieces.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*pieces, text]


def _size(text: str) -> int:
    """The bytes of a text in the dialect in which it is longest."""
    return len(text.encode("utf-8", "replace")) + text.count('"') + text.count("\\")


class Known(NamedTuple):
    """What can be completed, besides commands."""

    people: Iterable[str] = ()
    rooms: Iterable[str] = ()


_ROOM_COMMANDS = {"/join", "/leave", "/part", "/close", "/who", "/users"}
_NAME_COMMANDS = {
    *(
        "/msg",
        "/dm",
        "/query",
        "/quote",
        "/ignore",
        "/unignore",
        "/invite",
        "/kick",
        "/ban",
        "/mute",
        "/unmute",
    ),
    *("/voice", "/unvoice", "/mod", "/unmod", "/owner"),
}


def completions(before_cursor: str, known: Known) -> tuple[str, list[str]]:
    """The word before the cursor and its completions, each with the text that follows it."""
    head, _, word = before_cursor.rpartition(" ")
    words = head.split()
    verb = words[0].lower() if words and words[0].startswith("/") else ""
    match len(words), verb:
        case 0, _ if word.startswith("/"):
            verbs = sorted([*_TABLE, *_ALIASES])
            return word, [_followed(one) for one in verbs if one.startswith(word.lower())]
        case 1, _ if verb in _ROOM_COMMANDS:
            return word, _beginning(
                word.removeprefix("#"), known.rooms, before="#" * word.startswith("#"), behind=" "
            )
        case 1, _ if verb in _NAME_COMMANDS:
            return word, _beginning(
                word.removeprefix("@"), known.people, before="@" * word.startswith("@"), behind=" "
            )
        case 1, "/set":
            return word, _beginning(word, KEYS, behind=" ")
        case 1, "/help":
            return word, _beginning(word.removeprefix("/"), [verb[1:] for verb in _TABLE], behind="")
    if word.startswith(":") and len(word) > 2:
        return word, [f"{EMOJI[code]} " for code in sorted(EMOJI) if code.startswith(word[1:].lower())]
    if word.startswith("#"):
        return word, _beginning(word[1:], known.rooms, before="#", behind=" ")
    if word.startswith("@"):
        return word, _beginning(word[1:], known.people, before="@", behind=" ")
    if not word:
        # Tab on an empty word would offer every name.
        return word, []
    # A name at the beginning of a message addresses that person.
    return word, _beginning(word, known.people, behind=" " if words else ": ")


def _followed(verb: str) -> str:
    entry = _TABLE[_ALIASES.get(verb, verb)]
    return f"{verb} " if " " in entry.usage else verb


def _beginning(word: str, names: Iterable[str], *, before: str = "", behind: str) -> list[str]:
    found = [name for name in names if name.casefold().startswith(word.casefold())]
    return [f"{before}{name}{behind}" for name in sorted(found, key=str.casefold)]


def waits_for_people(before_cursor: str) -> bool:
    """True if Tab here completes the name of a person."""
    head, _, word = before_cursor.rpartition(" ")
    words = head.split()
    if words and words[0].startswith("/") and len(words) == 1:
        return words[0].lower() in _NAME_COMMANDS
    return bool(word) and word[0] not in "/#:"


def is_action(name: str, text: str) -> str | None:
    """What someone does, if the text says that, such as `* alice waves`; None otherwise."""
    prefix = f"* {name} "
    return text.removeprefix(prefix) if text.startswith(prefix) else None


def action(name: str, text: str) -> str:
    """An action as a text that everyone can read."""
    return f"* {name} {clean(text)}"


def help_lines() -> list[tuple[str, str]]:
    """The commands and what each does."""
    return [*[(entry.usage, entry.meaning) for entry in COMMANDS], SLASHES]


def help_for(command: str) -> tuple[str, str] | None:
    """The usage of a command and what it does; None if it is unknown."""
    verb = f"/{command.lower()}"
    entry = _TABLE.get(_ALIASES.get(verb, verb))
    return (entry.usage, entry.meaning) if entry else None
