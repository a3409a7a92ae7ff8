"""The commands that `line` and `slash` spell alike, each with its arguments, how they are read, and a line of help.

`line` writes them in capitals, `slash` in small letters behind a slash. What a dialect reads and what its help lists come
from this one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from geventchat.chat.commands import (
    AskHistory,
    AskToken,
    AskTopic,
    ChangePassword,
    Command,
    Delete,
    EnterRoom,
    Ignore,
    Impose,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListBans,
    ListRooms,
    PassOwnership,
    Register,
    RevokeTokens,
    Sanction,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
)
from geventchat.chat.passwords import Secret
from geventchat.chat.text import visible
from geventchat.dialects.dialect import DEFAULT_HISTORY, is_count

# A longer number is not a duration but the first word of a reason.
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd]?)", re.IGNORECASE)
# No message has a longer one.
_ID = re.compile(r"[0-9]{1,16}", re.ASCII)
# In place of a topic or a key.
_NOTHING = "-"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Verb:
    """A command: its name, in small letters, what follows it, and how that is read; None if it makes no sense."""

    name: str
    arguments: str
    read: Callable[[str], Command | None]


@dataclass(frozen=True, slots=True)
class HelpLine:
    """Commands that belong together, and what they do."""

    verbs: tuple[Verb, ...]
    meaning: str


def _split(rest: str) -> tuple[str, str]:
    first, _, after = rest.partition(" ")
    return first, after.strip()


def _enter(rest: str) -> Command:
    return EnterRoom(*_split(rest))


def _topic(rest: str) -> Command:
    topic = visible(rest)
    return SetTopic("" if topic == _NOTHING else topic) if topic else AskTopic()


def _history(rest: str) -> Command | None:
    count, _ = _split(rest)
    if not count:
        return AskHistory(DEFAULT_HISTORY)
    return AskHistory(int(count)) if is_count(count) else None


def _kick(rest: str) -> Command | None:
    who, reason = _split(rest)
    return Kick(who, visible(reason)) if who else None


def _impose(sanction: Sanction) -> Callable[[str], Command | None]:
    def read(rest: str) -> Command | None:
        who, after = _split(rest)
        seconds, reason = _duration(after)
        return Impose(sanction, who, seconds, visible(reason)) if who else None

    return read


def _duration(after: str) -> tuple[int | None, str]:
    first, reason = _split(after)
    match = _DURATION.fullmatch(first)
    if match is None:
        return None, after
    return int(match[1]) * _SECONDS[match[2].lower()], reason


def _of_person(command: Callable[[str], Command]) -> Callable[[str], Command | None]:
    def read(rest: str) -> Command | None:
        who, _ = _split(rest)
        return command(who) if who else None

    return read


def _on_or_off(command: Callable[[bool], Command]) -> Callable[[str], Command | None]:
    def read(rest: str) -> Command | None:
        word, _ = _split(rest)
        return command(word.lower() == "on") if word.lower() in {"on", "off"} else None

    return read


def _key(rest: str) -> Command | None:
    room_key = visible(rest)
    return SetKey("" if room_key == _NOTHING else room_key) if room_key else None


def _register(rest: str) -> Command | None:
    return Register(Secret(rest)) if rest else None


def _password(rest: str) -> Command | None:
    old, new = _split(rest)
    return ChangePassword(Secret(old), Secret(new)) if new and " " not in new else None


def _token(rest: str) -> Command | None:
    word, _ = _split(rest)
    if not word:
        return AskToken()
    return RevokeTokens() if word.lower() == "revoke" else None


def _delete(rest: str) -> Command | None:
    id, _ = _split(rest)
    return Delete(int(id)) if _ID.fullmatch(id) else None


def _alone(command: Callable[[], Command]) -> Callable[[str], Command]:
    # Arguments that a command has no use for are ignored.
    return lambda _: command()


HELP = (
    HelpLine(
        (Verb("join", "room [key]", _enter), Verb("leave", "", _alone(LeaveRoom))),
        "enter or create a room, go back to the lobby",
    ),
    HelpLine((Verb("rooms", "", _alone(ListRooms)),), "list the rooms"),
    HelpLine((Verb("topic", "[text]", _topic),), "show the topic of the room, or change it; - for none"),
    HelpLine((Verb("history", "[20]", _history),), "list the last messages of the room"),
    HelpLine(
        (Verb("register", "password", _register), Verb("password", "old new", _password)),
        "reserve your name, change password",
    ),
    HelpLine(
        (Verb("token", "[revoke]", _token),), "get a token, which works like the password, or revoke all"
    ),
    HelpLine(
        (
            Verb("ignore", "name", _of_person(lambda who: Ignore(who, on=True))),
            Verb("unignore", "name", _of_person(lambda who: Ignore(who, on=False))),
        ),
        "hear nothing from someone",
    ),
    HelpLine((Verb("invite", "name", _of_person(Invite)),), "invite someone to the room"),
    HelpLine((Verb("kick", "name [reason]", _kick),), "send someone out of the room"),
    HelpLine(
        (
            Verb("ban", "name [10m] [reason]", _impose(Sanction.BAN)),
            Verb("unban", "name", _of_person(lambda who: Lift(Sanction.BAN, who))),
            Verb("bans", "", _alone(ListBans)),
        ),
        "keep someone out",
    ),
    HelpLine(
        (
            Verb("mute", "name [10m] [reason]", _impose(Sanction.MUTE)),
            Verb("unmute", "name", _of_person(lambda who: Lift(Sanction.MUTE, who))),
        ),
        "let someone only listen",
    ),
    HelpLine(
        (
            Verb("voice", "name", _of_person(lambda who: SetVoice(who, on=True))),
            Verb("unvoice", "name", _of_person(lambda who: SetVoice(who, on=False))),
        ),
        "let someone speak where it is moderated",
    ),
    HelpLine(
        (
            Verb("private", "on|off", _on_or_off(SetPrivate)),
            Verb("moderated", "on|off", _on_or_off(SetModerated)),
        ),
        "who enters, who speaks",
    ),
    HelpLine((Verb("key", "text", _key),), "ask everyone who enters for a key; - for none"),
    HelpLine(
        (
            Verb("mod", "name", _of_person(lambda who: SetModerator(who, on=True))),
            Verb("unmod", "name", _of_person(lambda who: SetModerator(who, on=False))),
            Verb("owner", "name", _of_person(PassOwnership)),
        ),
        "who moderates, who owns the room",
    ),
    HelpLine((Verb("delete", "id", _delete),), "remove the text of a message"),
)
VERBS = {verb.name: verb for line in HELP for verb in line.verbs}


def spelled(command: Command) -> tuple[str, str] | None:
    """The verb of a command and what follows it, the opposite of `read`; None if it is not one of these."""
    match command:
        case EnterRoom(room, key):
            return "join", f"{room} {key}"
        case LeaveRoom():
            return "leave", ""
        case ListRooms():
            return "rooms", ""
        case AskTopic():
            return "topic", ""
        case SetTopic(topic):
            return "topic", topic or _NOTHING
        case AskHistory(limit):
            return "history", str(limit)
        case Register(password):
            return "register", password.reveal()
        case ChangePassword(old, new):
            return "password", f"{old.reveal()} {new.reveal()}"
        case AskToken():
            return "token", ""
        case RevokeTokens():
            return "token", "revoke"
        case Ignore(who, on):
            return "ignore" if on else "unignore", who
        case Invite(who):
            return "invite", who
        case Kick(who, reason):
            return "kick", f"{who} {reason}"
        case Impose(sanction, who, seconds, reason):
            return sanction.value, " ".join([who, *[str(seconds)] * (seconds is not None), reason])
        case Lift(sanction, who):
            return f"un{sanction.value}", who
        case ListBans():
            return "bans", ""
        case SetVoice(who, on):
            return "voice" if on else "unvoice", who
        case SetPrivate(on):
            return "private", _on_off(on)
        case SetModerated(on):
            return "moderated", _on_off(on)
        case SetKey(key):
            return "key", key or _NOTHING
        case SetModerator(who, on):
            return "mod" if on else "unmod", who
        case PassOwnership(who):
            return "owner", who
        case Delete(id):
            return "delete", str(id)
        case _:
            return None


def _on_off(on: bool) -> str:
    return "on" if on else "off"
