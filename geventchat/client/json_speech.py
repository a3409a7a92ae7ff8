"""The `json` dialect from the client's side: one object per line, both ways.

Pure: no sockets, no terminal, no time.
"""

from __future__ import annotations

import json

from geventchat.client.heard import (
    Cut,
    CutReason,
    Farewell,
    Heard,
    Joined,
    Left,
    NameFault,
    NameRefused,
    Pong,
    Refused,
    Roster,
    Said,
    TellConfirmed,
    Told,
    Unclear,
    Welcomed,
)

CUTS = {
    "Idle timeout": CutReason.IDLE,
    "Server full": CutReason.FULL,
    "Too many connections": CutReason.CROWDED,
    "Server shutting down": CutReason.SHUTDOWN,
}

NAME_FAULTS = {"Username already taken": NameFault.TAKEN, "Invalid username": NameFault.INVALID}

REFUSALS = {
    "Join first": "The server wants a login first.",
    "Already joined": "You are already logged in.",
    "Empty message": "There is nothing in that message.",
    "User not found": "Nobody of that name is here. /users lists who is.",
    "Unknown message type": "The server does not know that command.",
    "Invalid JSON": "The server did not understand that.",
    "Line too long": "That was too long for the server; it was not delivered.",
    "Invalid UTF-8": "The server could not read that text; it was not delivered.",
}


class JsonSpeech:
    """One connection to a server that speaks `json`."""

    echoes_speech = True
    confirms_tells = True

    def __init__(self) -> None:
        self._name = ""

    def login(self, name: str) -> bytes:
        self._name = name
        return _line(type="join", username=name)

    def say(self, text: str) -> bytes:
        return _line(type="chat", message=text)

    def tell(self, to: str, text: str) -> bytes:
        return _line(type="dm", to=to, message=text)

    def ask_users(self) -> bytes:
        return _line(type="users")

    def ping(self) -> bytes:
        return _line(type="ping")

    def leave(self) -> bytes:
        return _line(type="quit")

    def hear(self, line: bytes) -> tuple[Heard, ...]:
        text = line.decode("utf-8", "replace")
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return (Unclear(text),)
        if not isinstance(said, dict):
            return (Unclear(text),)
        heard = self._understand(said)
        return (Unclear(text) if heard is None else heard,)

    def _understand(self, said: dict[str, object]) -> Heard | None:
        match said:
            case {"type": "welcome", "users": list(users)}:
                return self._welcome(_names(users))
            case {"type": "welcome"}:
                return Welcomed(self._name)
            case {"type": "chat", "username": str(name), "message": str(text)}:
                return Said(name, text)
            case {"type": "dm", "username": str(name), "to": str(to), "message": str(text)}:
                # Ours comes back as the object that the other one gets. One told to oneself is just heard.
                return TellConfirmed(to, text) if name == self._name != to else Told(name, text)
            case {"type": "user_joined", "username": str(name)}:
                return Joined(name)
            case {"type": "user_left", "username": str(name)}:
                return Left(name)
            case {"type": "users", "users": list(users)}:
                return Roster(_names(users))
            case {"type": "pong"}:
                return Pong()
            case {"type": "goodbye"}:
                return Farewell()
            case {"type": "error", "message": str(text)}:
                return _error(text)
            case _:
                return None

    def _welcome(self, users: tuple[str, ...]) -> Welcomed:
        # The list is in join order, so the last one is us, spelled as everyone else will see us.
        self._name = users[-1] if users else self._name
        return Welcomed(self._name, users)


def _names(users: list[object]) -> tuple[str, ...]:
    return tuple(user for user in users if isinstance(user, str))


def _error(text: str) -> Heard:
    if text in NAME_FAULTS:
        return NameRefused(NAME_FAULTS[text])
    if text in CUTS:
        return Cut(CUTS[text])
    return Refused(REFUSALS.get(text, f"The server says: {text}"))


def _line(**fields: str) -> bytes:
    return json.dumps(fields).encode("ascii") + b"\n"
