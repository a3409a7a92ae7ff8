"""Conversations in a room: what people may do next, to each other and to their connections. Speaks no dialect itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

from harness.generating.model import Pick
from harness.language.steps import (
    Acts,
    ConnectionAction,
    Connects,
    Ending,
    Send,
    SendBytes,
    Step,
    Wait,
    as_receive,
    is_literal,
)
from tests.geventchat.model import jsons, line, slash
from tests.geventchat.model.meanings import LONGEST_LINE, Enter, Line
from tests.geventchat.model.room import US, Client, Room

PEOPLE = ("a", "b", "c", "d")
_PAUSES_US = (1 * US, 10 * US, 30 * US, 59_999_000, 60 * US, 3600 * US)


class Chat(Room):
    """The model: clients of some dialects in one room."""

    dialects: Sequence[ModuleType] = (line, jsons, slash)

    @property
    def header(self) -> dict[str, str]:
        endpoints = " ".join(dialect.NAME for dialect in self.dialects)
        return {"server": f"{endpoints} max-line={LONGEST_LINE}"}

    def move(self, pick: Pick) -> Iterator[Step]:
        """What somebody does, then what everybody hears over it."""
        who = pick((*PEOPLE, ""))
        client = self._clients.get(who)
        if not who:
            yield from self._time_passes(pick)
        elif client is None:
            yield from self._comes(who, pick)
        else:
            yield from self._does(client, pick)
        for name, wire in self._heard.items():
            yield from (as_receive(name, row) for row in wire.splitlines(keepends=True))
        yield from self._ended
        self._heard.clear()
        self._ended.clear()

    # --- what somebody does -----------------------------------------------------------------------------------

    def _comes(self, who: str, pick: Pick) -> Iterator[Step]:
        dialect = pick(self.dialects)
        self._clients[who] = Client(who, dialect, self._now_us)
        yield Connects(who, None if dialect is self.dialects[0] else dialect.NAME)

    def _does(self, client: Client, pick: Pick) -> Iterator[Step]:
        how = pick(("line", "line", "line", "line", "cut", "crlf", "two", "part", "end"))
        if how == "end":
            yield from self._goes(client, pick)
        elif client.pending is not None:
            rest, pending = client.rest, client.pending
            client.rest, client.pending = b"", None
            yield SendBytes(client.who, rest)
            self._says(client, pending)
        elif client.fresh and pick((False,) * 9 + (True,)):
            yield Send(client.who, pick(("GET / HTTP/1.1", "POST /chat HTTP/1.0")))
            self._leaves(client, Ending.DISCONNECTED)
        else:
            yield from self._sends(client, how, pick)

    def _sends(self, client: Client, how: str, pick: Pick) -> Iterator[Step]:
        client.fresh = False
        said = self._line(client, pick)
        wire = said.wire + b"\n"
        if how == "part":
            cut = pick(range(1, len(wire) + 1)) - 1
            client.rest, client.pending = wire[cut:], said
            if cut:
                yield SendBytes(client.who, wire[:cut])
            return
        if how == "cut" and len(wire) > 1:
            cut = pick(range(1, len(wire)))
            yield SendBytes(client.who, wire[:cut])
            yield SendBytes(client.who, wire[cut:])
        elif how == "crlf":
            yield SendBytes(client.who, said.wire + b"\r\n")
        elif how == "two":
            yield from self._sends_two(client, said, pick)
            return
        else:
            yield _sent(client.who, said.wire)
        self._says(client, said)

    def _sends_two(self, client: Client, first: Line, pick: Pick) -> Iterator[Step]:
        """Two lines in one segment; what stands behind a goodbye is not read any more."""
        inside = self._would_be_in(client, first)
        second = client.dialect.asks(pick, inside)
        yield SendBytes(client.who, first.wire + b"\n" + second.wire + b"\n")
        self._says(client, first)
        if client.who in self._clients:
            self._says(client, second)

    def _would_be_in(self, client: Client, said: Line) -> bool:
        return client.name is not None or (
            isinstance(said.meaning, Enter) and self._refusal(said.meaning.name) is None
        )

    def _line(self, client: Client, pick: Pick) -> Line:
        said: Line = client.dialect.asks(pick, client.name is not None)
        return said

    def _goes(self, client: Client, pick: Pick) -> Iterator[Step]:
        action = pick((ConnectionAction.CLOSES, ConnectionAction.ABORTS, ConnectionAction.HALF_CLOSES))
        yield Acts(client.who, action)
        self._leaves(client, Ending.CLOSED if action is ConnectionAction.HALF_CLOSES else None)

    def _time_passes(self, pick: Pick) -> Iterator[Step]:
        """Everyone whose time is up meanwhile is let go at that very moment. Of two at the same moment it is open who
        hears of the other, so time stops just before that."""
        began = self._now_us
        until = began + pick(_PAUSES_US)
        while (due := self._next_due()) is not None and due[0] <= until:
            self._now_us, silent = due
            if len(silent) > 1:
                until = self._now_us - 1
                break
            self._hears(silent[0], silent[0].dialect.idle())
            self._leaves(silent[0], Ending.CLOSED)
        self._now_us = until
        if until > began:
            yield Wait(until - began)

    def _next_due(self) -> tuple[int, list[Client]] | None:
        """When the next ones have been silent for too long, and who."""
        due: dict[int, list[Client]] = {}
        for client in self._clients.values():
            if client.due_us is not None:
                due.setdefault(client.due_us, []).append(client)
        return min(due.items(), default=None, key=lambda one: one[0])


def _sent(who: str, wire: bytes) -> Send | SendBytes:
    try:
        text = wire.decode()
    except UnicodeDecodeError:
        return SendBytes(who, wire + b"\n")
    return Send(who, text) if is_literal(text) else SendBytes(who, wire + b"\n")


class LineChat(Chat):
    """Everyone speaks `line`."""

    dialects = (line,)


class JsonChat(Chat):
    """Everyone speaks `json`."""

    dialects = (jsons,)


class SlashChat(Chat):
    """Everyone speaks `slash`."""

    dialects = (slash,)


def everyone() -> Iterable[type[Chat]]:
    """Every room that there can be."""
    return (LineChat, JsonChat, SlashChat, Chat)
