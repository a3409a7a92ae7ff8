"""The `line` dialect: `LOGIN alice`, `MSG hi`, answers in capitals. Made for people with nc and for the smallest of bots."""

from __future__ import annotations

from collections.abc import Callable

from geventchat.chat.commands import Command, Fault, Login, Ping, Quit, Say, Violation, Who
from geventchat.chat.events import (
    Dismissed,
    Goodbye,
    Helped,
    Joined,
    Left,
    Parting,
    Pong,
    Reason,
    Refused,
    Relayed,
    Roster,
    Said,
    Told,
    Welcome,
)
from geventchat.dialects.dialect import Dialect, Writers, prefixed, to_one, typed, writer

_UNKNOWN = Violation(Fault.UNKNOWN_COMMAND)


# What is called with arguments it has no use for (`WHO now`, `QUIT bye`) does what it says.
_VERBS: dict[str, Callable[[str], Command]] = {
    "LOGIN": Login,
    "MSG": Say,
    "WHO": lambda _: Who(),
    "DM": to_one,
    "PING": Ping,
    "QUIT": lambda _: Quit(),
    "EXIT": lambda _: Quit(),
}


def _read(text: str, joined: bool) -> Command | None:
    verb, _, rest = text.partition(" ")
    command = _VERBS.get(verb) or _VERBS.get(verb.upper())
    if command:
        return command(rest.lstrip())
    return _UNKNOWN if verb else None


_REFUSALS: dict[Reason | Fault, str] = {
    Reason.NAME_LENGTH: "ERR invalid-username\n",
    Reason.NAME_INVALID: "ERR invalid-username\n",
    Reason.NAME_TAKEN: "ERR username-taken\n",
    Reason.ALREADY_IN: "ERR already-logged-in\n",
    Reason.NOT_IN: "ERR must-login-first\n",
    Reason.EMPTY_MESSAGE: "ERR empty-message\n",
    Reason.TELL_WHOM: "ERR invalid-dm-format\n",
    Reason.TELL_WHAT: "ERR invalid-dm-format\n",
    Reason.NOBODY: "ERR user-not-found\n",
    Fault.TOO_LONG: "ERR line-too-long\n",
    Fault.NOT_UTF8: "ERR invalid-utf8\n",
    Fault.UNKNOWN_COMMAND: "ERR unknown-command\n",
}

_PARTINGS: dict[Parting, str] = {
    Parting.IDLE: "idle-timeout\n",
    Parting.FULL: "server-full\n",
    Parting.ADDRESS_FULL: "too-many-connections\n",
    Parting.SHUTDOWN: "server-shutdown\n",
}

_WRITERS: Writers = {
    Joined: lambda joined: "",
    Said: lambda said: prefixed(f"MSG {said.name} ", said.texts),
    Left: lambda left: f"INFO {left.name} disconnected\n",
    Welcome: lambda welcome: "OK\n",
    Told: lambda told: f"DM {told.name} {told.text}\n",
    Relayed: lambda relayed: "",
    Roster: lambda roster: "".join([f"USER {name}\n" for name in roster.users]),
    Pong: lambda pong: f"PONG {pong.token}\n" if pong.token else "PONG\n",
    Helped: lambda helped: "",
    Goodbye: lambda goodbye: "Goodbye!\n",
    Refused: lambda refused: _REFUSALS[refused.why],
    Dismissed: lambda dismissed: ("ERR " if dismissed.blame else "INFO ") + _PARTINGS[dismissed.why],
}

DIALECT = Dialect("line", port=4000, idle_s=60.0, read=typed(_read), write=writer(_WRITERS))
