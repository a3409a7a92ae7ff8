"""The `slash` dialect from the client's side: the first line is the name, then come messages and commands.

Pure: no sockets, no terminal, no time. A name holds no space and no bracket, so what the server says
itself and what people say (`name: text`) cannot be mistaken for each other.
"""

from __future__ import annotations

import re

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
from geventchat.client.speech import Unsayable

CUTS = {
    "[error] Idle timeout.": CutReason.IDLE,
    "[error] Server full.": CutReason.FULL,
    "[error] Too many connections.": CutReason.CROWDED,
    "[info] Server is shutting down.": CutReason.SHUTDOWN,
}

NAME_FAULTS = {
    "[error] Username already taken. Try another.": NameFault.TAKEN,
    "[error] Invalid username.": NameFault.INVALID,
    "[error] Username must be 1-20 characters.": NameFault.LENGTH,
}

REFUSALS = {
    "[error] Line too long.": "That was too long for the server; it was not delivered.",
    "[error] Invalid UTF-8.": "The server could not read that text; it was not delivered.",
    "Usage: /dm <username> <message>": "The server did not understand that private message.",
}

JOINED = re.compile(r"\[join\] (\S+) has joined the chat\.")
LEFT = re.compile(r"\[leave\] (\S+) has left the chat\.")
TOLD = re.compile(r"\[DM from (\S+)\] (.*)", re.DOTALL)
CONFIRMED = re.compile(r"\[DM to (\S+)\] (.*)", re.DOTALL)
ROSTER = re.compile(r"=== Online Users \(\d+\) ===")
SAID = re.compile(r"([^\s\[\]:]+): (.*)", re.DOTALL)
NOT_HERE = re.compile(r"No user named '.*'\. Use /users to see online users\.")


class SlashSpeech:
    """One connection to a server that speaks `slash`."""

    echoes_speech = False
    confirms_tells = True

    def __init__(self) -> None:
        self._name = ""
        self._inside = False
        self._roster: list[str] | None = None

    def login(self, name: str) -> bytes:
        self._name = name
        return _line(name)

    def say(self, text: str) -> bytes:
        if text.startswith("/"):
            raise Unsayable(
                "On a slash server every line that begins with / is a command, so this cannot be sent "
                "as it is. Put something before it."
            )
        return _line(text)

    def tell(self, to: str, text: str) -> bytes:
        return _line(f"/dm {to} {text}")

    def ask_users(self) -> bytes:
        return _line("/users")

    def ping(self) -> bytes:
        return _line("/ping")

    def leave(self) -> bytes:
        return _line("/quit")

    def hear(self, line: bytes) -> tuple[Heard, ...]:
        text = line.decode("utf-8", "replace")
        if self._roster is not None:
            return self._list(self._roster, text)
        if not self._inside:
            return self._at_the_door(text)
        if not text:
            return ()
        if ROSTER.fullmatch(text):
            self._roster = []
            return ()
        return (self._understand(text),)

    def _list(self, roster: list[str], text: str) -> tuple[Heard, ...]:
        if text:
            roster.append(text)
            return ()
        self._roster = None
        return (Roster(tuple(roster)),)

    def _at_the_door(self, text: str) -> tuple[Heard, ...]:
        if text in NAME_FAULTS:
            return (NameRefused(NAME_FAULTS[text]),)
        if (joined := JOINED.fullmatch(text)) is not None:
            # Nobody else can be heard before we are in: this is us, spelled as everyone else will see us.
            self._name = joined[1]
            return ()
        if text.startswith("Connected!"):
            self._inside = True
            return (Welcomed(self._name),)
        if not text:
            return ()
        return (_answer(text),)

    def _understand(self, text: str) -> Heard:
        if (said := SAID.fullmatch(text)) is not None and text not in REFUSALS:
            return Said(said[1], said[2])
        if (told := TOLD.fullmatch(text)) is not None:
            return Told(told[1], told[2])
        if (confirmed := CONFIRMED.fullmatch(text)) is not None:
            return TellConfirmed(confirmed[1], confirmed[2])
        if (joined := JOINED.fullmatch(text)) is not None:
            return Joined(joined[1])
        if (left := LEFT.fullmatch(text)) is not None:
            return Left(left[1])
        return _answer(text)


def _answer(text: str) -> Heard:
    if text == "pong":
        return Pong()
    if text == "Disconnecting...":
        return Farewell()
    if text in CUTS:
        return Cut(CUTS[text])
    if text in REFUSALS:
        return Refused(REFUSALS[text])
    if NOT_HERE.fullmatch(text):
        return Refused("Nobody of that name is here. /users lists who is.")
    if text.startswith("[error] "):
        return Refused(f"The server says: {text.removeprefix('[error] ')}")
    return Unclear(text)


def _line(text: str) -> bytes:
    return text.encode("utf-8", "replace") + b"\n"
