"""How the `json` dialect asks, and what it hears: from the table of that dialect."""

from __future__ import annotations

import json
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

NAME = "json"
IDLE_S: int | None = None

_ERRORS = {
    Wrong.NAME_LENGTH: "Invalid username",
    Wrong.NAME_FORM: "Invalid username",
    Wrong.NAME_TAKEN: "Username already taken",
    Wrong.ALREADY_IN: "Already joined",
    Wrong.NOT_IN: "Join first",
    Wrong.NOTHING_SAID: "Empty message",
    Wrong.NOTHING_TOLD: "Empty message",
    Wrong.NOBODY: "User not found",
    Wrong.UNKNOWN: "Unknown message type",
    Wrong.TOO_LONG: "Line too long",
    Wrong.NOT_UTF8: "Invalid UTF-8",
    Wrong.NO_OBJECT: "Invalid JSON",
}
_NO_OBJECTS = ("{", "[]", "1", "null", '{"type": 5}', '{"type": "chat", "message": 7}', "hello", "{} {}")


def asks(pick: Pick, inside: bool) -> Line:
    """A line that someone may send."""
    kind = pick(("say", "say", "enter", "tell", "ask", "ping", "leave", "blank", "unknown", "broken"))
    if not inside and pick((True, True, False)):
        kind = "enter"
    match kind:
        case "enter":
            name = pick((*NAMES, *NAMES, *NO_NAMES))
            return _line({"type": "join", "username": name.typed}, Enter(name))
        case "say":
            text = pick(TEXTS)
            return _line({"type": "chat", "message": text.typed}, Say(text))
        case "tell":
            to, text = pick(NAMES), pick(TEXTS)
            return _line({"type": "dm", "to": to.typed, "message": text.typed}, Tell(to, text))
        case "ask":
            return _line({"type": "users"}, Ask())
        case "ping":
            token = pick(("", "x", "a b"))
            return _line({"type": "ping", **({"token": token} if token else {})}, Ping(token))
        case "leave":
            return _line({"type": "quit"}, Leave())
        case "blank":
            return Line(pick((b"", b"  ")), Nothing())
        case "unknown":
            return _line({"type": pick(("nope", "JOIN", ""))}, Unknown())
        case _:
            broken = [Line(text.encode(), Broken(Wrong.NO_OBJECT)) for text in _NO_OBJECTS]
            broken.append(Line(b"x" * LONGEST_LINE, Broken(Wrong.NO_OBJECT)))
            broken.append(Line(b"x" * (LONGEST_LINE + 1), Broken(Wrong.TOO_LONG)))
            broken.append(Line(b'{"type": "chat", "message": "' + NOT_UTF8 + b'"}', Broken(Wrong.NOT_UTF8)))
            return pick(broken)


def _line(said: dict[str, object], meaning: object) -> Line:
    return Line(json.dumps(said).encode(), meaning)  # type: ignore[arg-type]


def _object(**fields: object) -> str:
    return json.dumps(fields) + "\n"


def error(why: Wrong, subject: str) -> str:
    return _object(type="error", message=_ERRORS[why])


def entered(name: str, users: Sequence[str], now: int) -> str:
    return _object(type="welcome", message=f"Welcome to the chat, {name}!", users=list(users), timestamp=now)


def told_to(name: str, typed: str, shown: str, text: str, now: int) -> str:
    """The same object that the other gets; to oneself it comes once."""
    return "" if name == shown else told(name, shown, text, now, own=True)


def roster(users: Sequence[str]) -> str:
    return _object(type="users", users=list(users))


def pong(token: str) -> str:
    return _object(type="pong", **({"token": token} if token else {}))


def helped() -> str:
    raise AssertionError("there is no help in this dialect")


def goodbye() -> str:
    return _object(type="goodbye")


def idle() -> str:
    return _object(type="error", message="Idle timeout")


def joined(name: str, now: int, own: bool) -> str:
    if own:
        return ""
    return _object(type="user_joined", username=name, message=f"{name} joined the chat", timestamp=now)


def said(name: str, text: str, now: int, own: bool) -> str:
    return _object(type="chat", username=name, message=text, timestamp=now)


def told(name: str, to: str, text: str, now: int, own: bool) -> str:
    return _object(type="dm", username=name, to=to, message=text, timestamp=now)


def left(name: str, now: int) -> str:
    return _object(type="user_left", username=name, message=f"{name} left the chat", timestamp=now)
