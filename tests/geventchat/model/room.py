"""The room: who is in it, who hears what over a line, and who is told when someone leaves. Speaks no dialect itself."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import ModuleType

from harness.language.steps import Ending, Ends, Step
from tests.geventchat.model.meanings import (
    Ask,
    Broken,
    Enter,
    Help,
    Leave,
    Line,
    Meaning,
    Name,
    Nothing,
    Ping,
    Say,
    Tell,
    Unknown,
    Wrong,
)

START_S = 1_234_567_890
US = 1_000_000


@dataclass(slots=True)
class Client:
    """One connection."""

    who: str
    dialect: ModuleType
    since_us: int
    """When its last complete line was said, or it came."""
    name: Name | None = None
    fresh: bool = True
    """Whether it has sent nothing at all."""
    rest: bytes = b""
    pending: Line | None = None
    """The line of which it has sent all but `rest`."""

    @property
    def due_us(self) -> int | None:
        """When it will have been silent for too long."""
        idle: int | None = self.dialect.IDLE_S
        return None if idle is None else self.since_us + idle * US


class Room:
    """What is heard and which connections end, until somebody collects it."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._inside: list[Client] = []
        self._now_us = 0
        self._heard: dict[str, bytes] = defaultdict(bytes)
        self._ended: list[Step] = []

    @property
    def _at(self) -> int:
        return START_S + self._now_us // US

    def _says(self, client: Client, said: Line) -> None:
        client.since_us = self._now_us
        answer = self._answer(client, said.meaning)
        if isinstance(answer, Wrong):
            self._hears(client, client.dialect.error(answer, _subject(said.meaning)))

    def _answer(self, client: Client, meaning: Meaning) -> Wrong | None:
        """Does what is meant, or says why not."""
        dialect, name = client.dialect, client.name
        match meaning:
            case Nothing():
                return None
            case Broken(why):
                return why
            case Leave():
                self._hears(client, dialect.goodbye())
                self._leaves(client, Ending.CLOSED)
                return None
            case Enter(asked):
                return self._enter(client, asked)
        if name is None:
            return Wrong.NOT_IN
        match meaning:
            case Say(text):
                if not text.shown:
                    return Wrong.NOTHING_SAID
                for other in self._inside:
                    self._hears(other, other.dialect.said(name.shown, text.shown, self._at, other is client))
            case Tell(to, text):
                return self._tell(client, name, to, text.shown)
            case Ask():
                self._hears(client, dialect.roster(self._names()))
            case Ping(token):
                self._hears(client, dialect.pong(token))
            case Help():
                self._hears(client, dialect.helped())
            case Unknown():
                return Wrong.UNKNOWN
        return None

    def _refusal(self, asked: Name) -> Wrong | None:
        if asked.wrong is not None:
            return asked.wrong
        taken = any(other.name is not None and other.name.key == asked.key for other in self._inside)
        return Wrong.NAME_TAKEN if taken else None

    def _enter(self, client: Client, asked: Name) -> Wrong | None:
        if client.name is not None:
            return Wrong.ALREADY_IN
        refusal = self._refusal(asked)
        if refusal is not None:
            return refusal
        client.name = asked
        self._inside.append(client)
        for other in self._inside:
            self._hears(other, other.dialect.joined(asked.shown, self._at, other is client))
        self._hears(client, client.dialect.entered(asked.shown, self._names(), self._at))
        return None

    def _tell(self, client: Client, name: Name, to: Name, text: str) -> Wrong | None:
        if not text:
            return Wrong.NOTHING_TOLD
        other = next((one for one in self._inside if one.name and one.name.key == (to.key or None)), None)
        if other is None or other.name is None:
            return Wrong.NOBODY
        shown = other.name.shown
        self._hears(client, client.dialect.told_to(name.shown, to.typed, shown, text, self._at))
        self._hears(other, other.dialect.told(name.shown, shown, text, self._at, other is client))
        return None

    def _leaves(self, client: Client, ending: Ending | None) -> None:
        del self._clients[client.who]
        if ending is not None:
            self._ended.append(Ends(client.who, ending))
        if client.name is not None:
            self._inside.remove(client)
            for other in self._inside:
                self._hears(other, other.dialect.left(client.name.shown, self._at))

    def _hears(self, client: Client, text: str) -> None:
        self._heard[client.who] += text.encode()

    def _names(self) -> list[str]:
        return [one.name.shown for one in self._inside if one.name is not None]


def _subject(meaning: Meaning) -> str:
    match meaning:
        case Tell(to, _):
            return to.typed
        case Unknown(verb):
            return verb
    return ""
