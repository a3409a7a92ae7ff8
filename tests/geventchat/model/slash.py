"""How the `slash` dialect asks, and what it hears: from the table of that dialect."""

from __future__ import annotations

from collections.abc import Sequence

from harness.generate import Pick
from tests.geventchat.model.meanings import (
    LONGEST_LINE,
    NAMES,
    NO_NAMES,
    NOT_UTF8,
    TEXTS,
    Ask,
    Broken,
    Enter,
    Help,
    Leave,
    Line,
    Name,
    Nothing,
    Ping,
    Say,
    Tell,
    Text,
    Unknown,
    Wrong,
)

NAME = "slash"
IDLE_S: int | None = None

_ERRORS = {
    Wrong.NAME_LENGTH: "[error] Username must be 1-20 characters.",
    Wrong.NAME_FORM: "[error] Invalid username.",
    Wrong.NAME_TAKEN: "[error] Username already taken. Try another.",
    Wrong.NOTHING_TOLD: "Usage: /dm <username> <message>",
    Wrong.NOBODY: "No user named '{}'. Use /users to see online users.",
    Wrong.UNKNOWN: "Unknown command '{}'. Type /help for commands.",
    Wrong.TOO_LONG: "[error] Line too long.",
    Wrong.NOT_UTF8: "[error] Invalid UTF-8.",
}
_HELP = """\
=== Commands ===
/help - Show this help
/users - List online users
/dm <user> <msg> - Send direct message
/ping - Test the connection
/quit - Disconnect

"""
# A line that begins with a slash is a command, and one without anything in it is nothing.
_SAYABLE = tuple(text for text in TEXTS if text.shown and not text.typed.startswith("/"))
_COMMANDS_AS_NAMES = (Name("/quit", wrong=Wrong.NAME_FORM), Name("/help", wrong=Wrong.NAME_FORM))


def asks(pick: Pick, inside: bool) -> Line:
    """A line that someone may send. Before one is in, every line is a name."""
    if not inside:
        if pick((True, True, True, False)):
            name = pick((*NAMES, *NAMES, *NO_NAMES, *_COMMANDS_AS_NAMES))
            return _line(name.typed, Enter(name))
        return _broken(pick)
    kind = pick(("say", "say", "tell", "ask", "ping", "leave", "blank", "unknown", "broken", "help"))
    match kind:
        case "say":
            text = pick((*_SAYABLE, Text("x" * LONGEST_LINE, "x" * LONGEST_LINE)))
            return _line(text.typed, Say(text))
        case "tell":
            to, text = pick(NAMES + NO_NAMES[:2]), pick(TEXTS)
            return _line(f"{pick(('/dm', '/DM'))} {to.typed} {text.typed}", Tell(to, text))
        case "ask":
            return _line(pick(("/users", "/Users")), Ask())
        case "ping":
            return _line("/ping", Ping())
        case "leave":
            return _line(pick(("/quit", "/QUIT")), Leave())
        case "blank":
            return _line(pick(("", "  ")), Nothing())
        case "unknown":
            verb = pick(("/nope", "/usersx", "/"))
            return _line(f"{verb} at all", Unknown(verb))
        case "help":
            return _line("/help", Help())
        case _:
            return _broken(pick)


def _broken(pick: Pick) -> Line:
    long = Line(b"x" * (LONGEST_LINE + 1), Broken(Wrong.TOO_LONG))
    return pick((long, Line(NOT_UTF8, Broken(Wrong.NOT_UTF8))))


def _line(text: str, meaning: object) -> Line:
    return Line(text.encode(), meaning)  # type: ignore[arg-type]


def error(why: Wrong, subject: str) -> str:
    return _ERRORS[why].replace("{}", subject) + "\n"


def entered(name: str, users: Sequence[str], now: int) -> str:
    return "Connected! Type /help for commands\n\n"


def told_to(name: str, typed: str, shown: str, text: str, now: int) -> str:
    return f"[DM to {typed}] {text}\n"


def roster(users: Sequence[str]) -> str:
    return "".join([f"=== Online Users ({len(users)}) ===\n", *(f"{user}\n" for user in users), "\n"])


def pong(token: str) -> str:
    return "pong\n"


def helped() -> str:
    return _HELP


def goodbye() -> str:
    return "Disconnecting...\n"


def idle() -> str:
    return "[error] Idle timeout.\n"


def joined(name: str, now: int, own: bool) -> str:
    return f"[join] {name} has joined the chat.\n"


def said(name: str, text: str, now: int, own: bool) -> str:
    return "" if own else f"{name}: {text}\n"


def told(name: str, to: str, text: str, now: int, own: bool) -> str:
    return f"[DM from {name}] {text}\n"


def left(name: str, now: int) -> str:
    return f"[leave] {name} has left the chat.\n"
