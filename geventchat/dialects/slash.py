"""The `slash` dialect: the first line is a name, everything after it is said, except commands, which begin with a slash."""

from __future__ import annotations

from collections.abc import Callable

from geventchat.chat.commands import Command, Help, InvalidCommand, Login, ParseError, Ping, Quit, Who
from geventchat.chat.events import (
    Broadcast,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Goodbye,
    HelpText,
    Joined,
    Left,
    NoticeReason,
    Pong,
    PrivateEvent,
    Rejected,
    Rejection,
    Roster,
    Said,
    Welcome,
)
from geventchat.dialects.dialect import Reader, TypedReader, direct_message, prefixed
from geventchat.exhaustive import assert_never

_COMMANDS: dict[str, Callable[[str], Command]] = {
    "/help": lambda _: Help(),
    "/users": lambda _: Who(),
    "/dm": direct_message,
    "/ping": lambda _: Ping(""),
    "/quit": lambda _: Quit(),
}


def _parse(text: str, logged_in: bool) -> Command | str | None:
    if not logged_in:
        return Login(text)
    if not text.startswith("/"):
        return text or None
    verb, _, rest = text.partition(" ")
    command = _COMMANDS.get(verb.lower())
    return command(rest.lstrip()) if command else InvalidCommand(ParseError.UNKNOWN_COMMAND, verb)


_HELP = """\
=== Commands ===
/help - Show this help
/users - List online users
/dm <user> <msg> - Send direct message
/ping - Test the connection
/quit - Disconnect

"""


def error_text(reason: Rejection | ParseError, subject: str) -> str:
    """The line that answers a refused command."""
    match reason:
        case Rejection.NAME_LENGTH:
            return "[error] Username must be 1-20 characters."
        case Rejection.NAME_INVALID:
            return "[error] Invalid username."
        case Rejection.NAME_TAKEN:
            return "[error] Username already taken. Try another."
        case Rejection.NO_RECIPIENT | Rejection.EMPTY_DIRECT_MESSAGE:
            return "Usage: /dm <username> <message>"
        case Rejection.USER_NOT_FOUND:
            return f"No user named '{subject}'. Use /users to see online users."
        case ParseError.TOO_LONG:
            return "[error] Line too long."
        case ParseError.NOT_UTF8:
            return "[error] Invalid UTF-8."
        case ParseError.UNKNOWN_COMMAND:
            return f"Unknown command '{subject}'. Type /help for commands."
        case (
            Rejection.ALREADY_LOGGED_IN
            | Rejection.NOT_LOGGED_IN
            | Rejection.EMPTY_MESSAGE
            | ParseError.NOT_JSON
        ):
            # The reader above never asks for anything that is refused like this.
            return "[error] Not possible."
        case _:
            assert_never(reason)


def notice_text(reason: NoticeReason) -> str:
    """The last line before the server closes a connection."""
    match reason:
        case NoticeReason.IDLE:
            return "[error] Idle timeout."
        case NoticeReason.SERVER_FULL:
            return "[error] Server full."
        case NoticeReason.ADDRESS_FULL:
            return "[error] Too many connections."
        case NoticeReason.SHUTDOWN:
            return "[info] Server is shutting down."
        case _:
            assert_never(reason)


class SlashDialect:
    """The `slash` dialect."""

    name = "slash"
    port = 5000
    idle_s = 0.0

    _reader = TypedReader(_parse)

    def reader(self) -> Reader:
        """The same reader for everyone: each line stands for itself."""
        return self._reader

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of an event for everyone who hears it."""
        match event:
            case Said():
                return prefixed(f"{event.name}: ", event.texts)
            case Joined(name=name):
                return f"[join] {name} has joined the chat.\n".encode()
            case Left(name=name):
                return f"[leave] {name} has left the chat.\n".encode()
            case _:
                assert_never(event)

    def echoes(self, event: Broadcast) -> bool:
        """Newcomers see themselves enter."""
        return isinstance(event, Joined)

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of an event for one client."""
        return _private_text(event).encode()


def _private_text(event: PrivateEvent) -> str:
    match event:
        case Welcome():
            return "Connected! Type /help for commands\n\n"
        case DirectMessage(sender=sender, text=text):
            return f"[DM from {sender}] {text}\n"
        case DirectMessageSent(message, typed):
            return f"[DM to {typed}] {message.text}\n"
        case Roster(users):
            return "\n".join([f"=== Online Users ({len(users)}) ===", *users, "", ""])
        case Pong():
            return "pong\n"
        case HelpText():
            return _HELP
        case Goodbye():
            return "Disconnecting...\n"
        case Rejected(reason, subject):
            return error_text(reason, subject) + "\n"
        case DisconnectNotice(reason=reason):
            return notice_text(reason) + "\n"
        case _:
            assert_never(event)


DIALECT = SlashDialect()
