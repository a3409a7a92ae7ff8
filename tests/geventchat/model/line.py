"""How the `line` dialect asks, and what it hears: from the table of that dialect."""

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
    Leave,
    Line,
    Nothing,
    Ping,
    Say,
    Tell,
    Unknown,
    Wrong,
)

NAME = "line"
IDLE_S: int | None = 60

_ERRORS = {
    Wrong.NAME_LENGTH: "invalid-username",
    Wrong.NAME_FORM: "invalid-username",
    Wrong.NAME_TAKEN: "username-taken",
    Wrong.ALREADY_IN: "already-logged-in",
    Wrong.NOT_IN: "must-login-first",
    Wrong.NOTHING_SAID: "empty-message",
    Wrong.NOTHING_TOLD: "invalid-dm-format",
    Wrong.NOBODY: "user-not-found",
    Wrong.UNKNOWN: "unknown-command",
    Wrong.TOO_LONG: "line-too-long",
    Wrong.NOT_UTF8: "invalid-utf8",
}


def asks(pick: Pick, inside: bool) -> Line:
    """A line that someone may send."""
    kind = pick(("say", "say", "enter", "tell", "ask", "ping", "leave", "blank", "unknown", "broken"))
    if not inside and pick((True, True, False)):
        kind = "enter"
    match kind:
        case "enter":
            name = pick((*NAMES, *NAMES, *NO_NAMES))
            return _line(f"{pick(('LOGIN', 'login', 'LogIn'))} {name.typed}", Enter(name))
        case "say":
            text = pick(TEXTS)
            return _line(f"{pick(('MSG', 'msg'))} {text.typed}", Say(text))
        case "tell":
            to, text = pick(NAMES + NO_NAMES[:2]), pick(TEXTS)
            return _line(f"{pick(('DM', 'dm'))} {to.typed} {text.typed}", Tell(to, text))
        case "ask":
            return _line(pick(("WHO", "who")), Ask())
        case "ping":
            token = pick(("", "x", "a b"))
            return _line(f"PING {token}".rstrip(), Ping(token))
        case "leave":
            return _line(pick(("QUIT", "EXIT", "quit", "exit")), Leave())
        case "blank":
            return _line(pick(("", "  ")), Nothing())
        case "unknown":
            return _line(pick(("HELLO", "/users", "MSGhi", "x" * LONGEST_LINE)), Unknown())
        case _:
            long = b"MSG " + b"x" * (LONGEST_LINE - 3)
            return pick((Line(long, Broken(Wrong.TOO_LONG)), Line(NOT_UTF8, Broken(Wrong.NOT_UTF8))))


def _line(text: str, meaning: object) -> Line:
    return Line(text.encode(), meaning)  # type: ignore[arg-type]


def error(why: Wrong, subject: str) -> str:
    return f"ERR {_ERRORS[why]}\n"


def entered(name: str, users: Sequence[str], now: int) -> str:
    return "OK\n"


def told_to(name: str, typed: str, shown: str, text: str, now: int) -> str:
    return ""


def roster(users: Sequence[str]) -> str:
    return "".join(f"USER {user}\n" for user in users)


def pong(token: str) -> str:
    return f"PONG {token}\n" if token else "PONG\n"


def helped() -> str:
    raise AssertionError("there is no help in this dialect")


def goodbye() -> str:
    return "Goodbye!\n"


def idle() -> str:
    return "INFO idle-timeout\n"


def joined(name: str, now: int, own: bool) -> str:
    return ""


def said(name: str, text: str, now: int, own: bool) -> str:
    return "" if own else f"MSG {name} {text}\n"


def told(name: str, to: str, text: str, now: int, own: bool) -> str:
    return f"DM {name} {text}\n"


def left(name: str, now: int) -> str:
    return f"INFO {name} disconnected\n"
