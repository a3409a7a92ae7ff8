"""The `line` dialect from the client's side: LOGIN, MSG, WHO, DM, PING, QUIT.

Pure: no sockets, no terminal, no time.
"""

from __future__ import annotations

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
    Told,
    Unclear,
    Welcomed,
)

# WHO is answered by a line for each person and no last one. A ping of our own follows: its answer is the end.
ROSTER_END = "end-of-users"

CUTS = {
    "idle-timeout": CutReason.IDLE,
    "server-full": CutReason.FULL,
    "too-many-connections": CutReason.CROWDED,
    "server-shutdown": CutReason.SHUTDOWN,
}

REFUSALS = {
    "already-logged-in": "You are already logged in.",
    "must-login-first": "The server wants a login first.",
    "empty-message": "There is nothing in that message.",
    "invalid-dm-format": "The server did not understand that private message.",
    "user-not-found": "Nobody of that name is here. /users lists who is.",
    "unknown-command": "The server does not know that command.",
    "line-too-long": "That was too long for the server; it was not delivered.",
    "invalid-utf8": "The server could not read that text; it was not delivered.",
}


class LineSpeech:
    """One connection to a server that speaks `line`."""

    echoes_speech = False
    confirms_tells = False

    def __init__(self) -> None:
        self._name = ""
        self._roster: list[str] = []

    def login(self, name: str) -> bytes:
        self._name = name
        return _line(f"LOGIN {name}")

    def say(self, text: str) -> bytes:
        return _line(f"MSG {text}")

    def tell(self, to: str, text: str) -> bytes:
        return _line(f"DM {to} {text}")

    def ask_users(self) -> bytes:
        return _line("WHO") + _line(f"PING {ROSTER_END}")

    def ping(self) -> bytes:
        return _line("PING")

    def leave(self) -> bytes:
        return _line("QUIT")

    def hear(self, line: bytes) -> tuple[Heard, ...]:
        text = line.decode("utf-8", "replace")
        word, _, rest = text.partition(" ")
        match word:
            case "OK" if not rest:
                return (Welcomed(self._name),)
            case "MSG":
                name, _, said = rest.partition(" ")
                return (Said(name, said),)
            case "DM":
                name, _, said = rest.partition(" ")
                return (Told(name, said),)
            case "USER":
                self._roster.append(rest)
                return ()
            case "PONG":
                return self._pong(rest)
            case "INFO":
                return (_info(rest),)
            case "ERR":
                return (_error(rest),)
            case "Goodbye!":
                return (Farewell(),)
            case _:
                return (Unclear(text),)

    def _pong(self, token: str) -> tuple[Heard, ...]:
        if token != ROSTER_END:
            return (Pong(),)
        names = tuple(self._roster)
        self._roster.clear()
        return (Roster(names),)


def _info(rest: str) -> Heard:
    if rest in CUTS:
        return Cut(CUTS[rest])
    name, _, what = rest.partition(" ")
    if what == "disconnected":
        return Left(name)
    if what in ("connected", "joined"):
        # Some relatives of this dialect announce who comes; ours does not.
        return Joined(name)
    return Unclear(rest)


def _error(code: str) -> Heard:
    if code == "username-taken":
        return NameRefused(NameFault.TAKEN)
    if code == "invalid-username":
        return NameRefused(NameFault.INVALID)
    if code in CUTS:
        return Cut(CUTS[code])
    return Refused(REFUSALS.get(code, f"The server says: {code}"))


def _line(text: str) -> bytes:
    return text.encode("utf-8", "replace") + b"\n"
