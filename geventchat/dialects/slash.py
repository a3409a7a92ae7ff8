"""The `slash` dialect: the first line is a name, then everything is said, but for commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable

from geventchat.chat.commands import Command, Fault, Help, Login, Ping, Quit, Say, Violation, Who
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

_COMMANDS: dict[str, Callable[[str], Command]] = {
    "/help": lambda _: Help(),
    "/users": lambda _: Who(),
    "/dm": to_one,
    "/ping": lambda _: Ping(""),
    "/quit": lambda _: Quit(),
}


def _read(text: str, joined: bool) -> Command | None:
    if not joined:
        return Login(text)
    if not text.startswith("/"):
        return Say(text) if text else None
    verb, _, rest = text.partition(" ")
    command = _COMMANDS.get(verb.lower())
    return command(rest.lstrip()) if command else Violation(Fault.UNKNOWN_COMMAND, verb)


_HELP = """\
=== Commands ===
/help - Show this help
/users - List online users
/dm <user> <msg> - Send direct message
/ping - Test the connection
/quit - Disconnect

"""

_REFUSALS: dict[Reason | Fault, str] = {
    Reason.NAME_LENGTH: "[error] Username must be 1-20 characters.\n",
    Reason.NAME_INVALID: "[error] Invalid username.\n",
    Reason.NAME_TAKEN: "[error] Username already taken. Try another.\n",
    Reason.TELL_WHOM: "Usage: /dm <username> <message>\n",
    Reason.TELL_WHAT: "Usage: /dm <username> <message>\n",
    Reason.NOBODY: "No user named '{}'. Use /users to see online users.\n",
    Fault.TOO_LONG: "[error] Line too long.\n",
    Fault.NOT_UTF8: "[error] Invalid UTF-8.\n",
    Fault.UNKNOWN_COMMAND: "Unknown command '{}'. Type /help for commands.\n",
}

_PARTINGS: dict[Parting, str] = {
    Parting.IDLE: "[error] Idle timeout.\n",
    Parting.FULL: "[error] Server full.\n",
    Parting.ADDRESS_FULL: "[error] Too many connections.\n",
    Parting.SHUTDOWN: "[info] Server is shutting down.\n",
}

_WRITERS: Writers = {
    Joined: lambda joined: f"[join] {joined.name} has joined the chat.\n",
    Said: lambda said: prefixed(f"{said.name}: ", said.texts),
    Left: lambda left: f"[leave] {left.name} has left the chat.\n",
    Welcome: lambda welcome: "Connected! Type /help for commands\n\n",
    Told: lambda told: f"[DM from {told.name}] {told.text}\n",
    Relayed: lambda relayed: f"[DM to {relayed.typed}] {relayed.told.text}\n",
    Roster: lambda roster: "\n".join([f"=== Online Users ({len(roster.users)}) ===", *roster.users, "", ""]),
    Pong: lambda pong: "pong\n",
    Helped: lambda helped: _HELP,
    Goodbye: lambda goodbye: "Disconnecting...\n",
    Refused: lambda refused: _REFUSALS[refused.why].replace("{}", refused.subject),
    Dismissed: lambda dismissed: _PARTINGS[dismissed.why],
}

DIALECT = Dialect(
    "slash", port=5000, idle_s=0.0, read=typed(_read), write=writer(_WRITERS), echoes=frozenset({Joined})
)
