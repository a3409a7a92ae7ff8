"""Conversations: what clients can do next, to each other and to their connections. Spells nothing itself.

`python -m harness generate --model tests.geventchat.model.chat:Chat` plays them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.generate import Pick
from harness.language.steps import (
    Acts,
    ConnectionAction,
    Connects,
    Ending,
    Ends,
    Send,
    SendBytes,
    Step,
    Wait,
    as_receive,
    is_literal,
)
from tests.geventchat.model.accounts import AccountRooms
from tests.geventchat.model.dialects import (
    HOLDERS,
    JSON,
    LINE,
    NEIGHBOURS,
    SLASH,
    Dialect,
    LineDialect,
    SlashDialect,
)
from tests.geventchat.model.moderation import ModeratedRooms
from tests.geventchat.model.requests import (
    MAX_LINE,
    MAX_OWNED,
    MAX_ROOMS,
    PASSWORDS,
    EnterRoom,
    Line,
    Login,
    Register,
    Request,
)
from tests.geventchat.model.rooms import Member

CLIENTS = ("a", "b", "c", "d")
START_S = 1_234_567_890
LOGIN_S = 60
_US = 1_000_000


class Client(Member):
    """One connection, and the part of its next line that it has sent."""

    def __init__(self, label: str, dialect: Dialect, now_us: int) -> None:
        super().__init__(dialect)
        self.label = label
        self.connected_us = self.active_us = now_us
        self.untouched = True
        """It has sent nothing at all."""
        self.rest = b""
        self.unfinished: Line | None = None
        """The line of which everything but `rest` has been sent."""

    @property
    def due_us(self) -> int | None:
        """When the server disconnects it if it completes no line."""
        due = [] if self.dialect.idle_s is None else [self.active_us + self.dialect.idle_s * _US]
        if self.name is None:
            due.append(self.connected_us + LOGIN_S * _US)
        return min(due, default=None)


class Chat:
    """The model: clients of some dialects."""

    dialects: Sequence[Dialect] = (LINE, JSON, SLASH)
    labels: Sequence[str] = (*CLIENTS, "")
    """The client that acts next; None when time passes."""
    ways: Sequence[str] = ("line", "line", "line", "line", "cut", "crlf", "two", "part", "end")
    """How a client sends its next line, if it does not hang up."""
    pauses_us: Sequence[int] = (1 * _US, 10 * _US, 30 * _US, 59_999_000, 60 * _US, 3600 * _US)

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._gone: list[Client] = []
        self._rooms = self._new_rooms()
        self._now_us = 0
        self._ended: list[Step] = []

    def _new_rooms(self) -> ModeratedRooms:
        return ModeratedRooms(MAX_ROOMS, MAX_OWNED)

    @property
    def header(self) -> dict[str, str]:
        endpoints = " ".join(dialect.name for dialect in self.dialects)
        limits = f"max-line={MAX_LINE} max-rooms={MAX_ROOMS} max-rooms-per-client={MAX_OWNED}"
        return {"server": f"{endpoints} {limits}"}

    def move(self, pick: Pick) -> Iterator[Step]:
        """One action of one client, then everything that every client receives because of it."""
        label = pick(self.labels)
        client = self._clients.get(label)
        if not label:
            yield from self._pass_time(pick)
        elif client is None:
            yield from self._connect(label, pick)
        else:
            yield from self._act(client, pick)
        yield from self._received()

    def _received(self) -> Iterator[Step]:
        for receiver in (*self._clients.values(), *self._gone):
            rows = receiver.expected.splitlines(keepends=True)
            yield from (as_receive(receiver.label, bytes(row)) for row in rows)
            receiver.expected.clear()
        yield from self._ended
        self._gone.clear()
        self._ended.clear()

    @property
    def _now_ms(self) -> int:
        return START_S * 1000 + self._now_us // 1000

    def _connect(self, label: str, pick: Pick) -> Iterator[Step]:
        dialect = pick(self.dialects)
        self._clients[label] = Client(label, dialect, self._now_us)
        yield Connects(label, None if dialect is self.dialects[0] else dialect.name)

    def _act(self, client: Client, pick: Pick) -> Iterator[Step]:
        how = pick(self.ways)
        if how == "end":
            yield from self._hang_up(client, pick)
        elif client.unfinished is not None:
            rest, line = client.rest, client.unfinished
            client.rest, client.unfinished = b"", None
            yield SendBytes(client.label, rest)
            self._handle(client, line)
        elif client.untouched and pick((False,) * 9 + (True,)):
            yield Send(client.label, pick(("GET / HTTP/1.1", "POST /chat HTTP/1.0")))
            self._disconnect(client, Ending.DISCONNECTED)
        else:
            yield from self._send(client, how, pick)

    def _send(self, client: Client, how: str, pick: Pick) -> Iterator[Step]:
        client.untouched = False
        line = client.dialect.random_line(pick, client.name is not None)
        wire = line.wire + b"\n"
        if how == "part":
            cut = pick(range(1, len(wire) + 1)) - 1
            client.rest, client.unfinished = wire[cut:], line
            if cut:
                yield SendBytes(client.label, wire[:cut])
            return
        if how == "cut" and len(wire) > 1:
            cut = pick(range(1, len(wire)))
            yield SendBytes(client.label, wire[:cut])
            yield SendBytes(client.label, wire[cut:])
        elif how == "crlf":
            yield SendBytes(client.label, line.wire + b"\r\n")
        elif how == "two":
            yield from self._send_two(client, line, pick)
            return
        else:
            yield _sent(client.label, line.wire)
        self._handle(client, line)

    def _send_two(self, client: Client, first: Line, pick: Pick) -> Iterator[Step]:
        """Two lines in one segment; what follows a QUIT is not read."""
        logs_in = isinstance(first.request, Login) and self._rooms.login_refusal(first.request.name) is None
        second = client.dialect.random_line(pick, client.name is not None or logs_in)
        yield SendBytes(client.label, first.wire + b"\n" + second.wire + b"\n")
        self._handle(client, first)
        if client.label in self._clients:
            self._handle(client, second)

    def _request(self, label: str, request: Request, text: str) -> Iterator[Step]:
        client = self._clients[label]
        client.untouched = False
        yield Send(label, text.rstrip())
        self._handle(client, Line(text.encode(), request))

    def _handle(self, client: Client, line: Line) -> None:
        client.active_us = self._now_us
        if self._rooms.handle(client, line.request, self._now_ms):
            self._disconnect(client, Ending.CLOSED)

    def _hang_up(self, client: Client, pick: Pick) -> Iterator[Step]:
        action = pick((ConnectionAction.CLOSES, ConnectionAction.ABORTS, ConnectionAction.HALF_CLOSES))
        yield Acts(client.label, action)
        self._disconnect(client, Ending.CLOSED if action is ConnectionAction.HALF_CLOSES else None)

    def _disconnect(self, client: Client, ending: Ending | None) -> None:
        """`ending` is the end that the client sees; None if it does not read."""
        del self._clients[client.label]
        self._gone.append(client)
        if ending is not None:
            self._ended.append(Ends(client.label, ending))
        self._rooms.leave(client, self._now_ms)

    def _pass_time(self, pick: Pick) -> Iterator[Step]:
        """Clients are disconnected at the very moment they have been idle too long.

        Which of two at the same moment sees the other leave is undefined, so time stops just before such a moment.
        """
        began = self._now_us
        until = began + pick(self.pauses_us)
        while (due := self._next_due()) is not None and due[0] <= until:
            self._now_us, idle = due
            if len(idle) > 1:
                until = self._now_us - 1
                break
            idle[0].receive(idle[0].dialect.idle_notice())
            self._disconnect(idle[0], Ending.CLOSED)
        self._now_us = until
        if until > began:
            yield Wait(until - began)

    def _next_due(self) -> tuple[int, list[Client]] | None:
        due: dict[int, list[Client]] = {}
        for client in self._clients.values():
            if client.due_us is not None:
                due.setdefault(client.due_us, []).append(client)
        return min(due.items(), default=None, key=lambda one: one[0])


def _sent(label: str, wire: bytes) -> Send | SendBytes:
    try:
        text = wire.decode()
    except UnicodeDecodeError:
        return SendBytes(label, wire + b"\n")
    return Send(label, text) if is_literal(text) else SendBytes(label, wire + b"\n")


class LineChat(Chat):
    """Everyone speaks `line`."""

    dialects = (LINE,)


class JsonChat(Chat):
    """Everyone speaks `json`."""

    dialects = (JSON,)


class SlashChat(Chat):
    """Everyone speaks `slash`."""

    dialects = (SLASH,)


class ModeratedChat(Chat):
    """A few people are in one room, which the first of them owns, and moderate it."""

    dialects = (LineDialect(NEIGHBOURS, idle_s=None), SlashDialect(NEIGHBOURS))
    labels = ("a", "b", "c") * 6 + ("d", "")
    ways = ("line",) * 60 + ("two", "end")

    @property
    def header(self) -> dict[str, str]:
        return {"server": f"{super().header['server']} idle=0"}

    def move(self, pick: Pick) -> Iterator[Step]:
        if not self._clients and not self._now_us:
            for label, name in zip(CLIENTS[:3], NEIGHBOURS.names, strict=False):
                yield from self._connect(label, pick)
                yield from self._request(label, Login(name), self._clients[label].dialect.login(name.typed))
                yield from self._received()
                yield from self._come(label)
                yield from self._received()
        yield from super().move(pick)

    def _act(self, client: Client, pick: Pick) -> Iterator[Step]:
        if client.room is self._rooms.lobby and pick((True, True, True, False)):
            yield from self._come(client.label)
        else:
            yield from super()._act(client, pick)

    def _come(self, label: str) -> Iterator[Step]:
        room = NEIGHBOURS.rooms[0]
        yield from self._request(label, EnterRoom(room), self._clients[label].dialect.enter(room.typed))


class AccountChat(Chat):
    """A few people register, come back, take over their names and write to each other while they are away."""

    dialects = (LineDialect(HOLDERS, idle_s=None), SlashDialect(HOLDERS))
    labels = CLIENTS * 4 + ("",)
    ways = ("line",) * 20 + ("cut", "crlf", "end")
    # Behind wrong passwords one waits for 2, 4, 8 … seconds, and at most for a quarter of an hour.
    pauses_us = (1 * _US, 2 * _US, 3_999_000, 10 * _US, 60 * _US, 900 * _US)

    @property
    def header(self) -> dict[str, str]:
        return {"server": f"{super().header['server']} idle=0"}

    def move(self, pick: Pick) -> Iterator[Step]:
        if not self._accounts.accounts:
            for label, name in zip(CLIENTS, HOLDERS.names[:2], strict=False):
                yield from self._connect(label, pick)
                yield from self._request(label, Login(name), self._clients[label].dialect.login(name.typed))
                yield from self._received()
                words = self._clients[label].dialect.register(PASSWORDS[0].typed)
                yield from self._request(label, Register(PASSWORDS[0]), words)
                yield from self._received()
        yield from super().move(pick)

    def _new_rooms(self) -> AccountRooms:
        self._accounts = AccountRooms()
        return self._accounts

    def _handle(self, client: Client, line: Line) -> None:
        super()._handle(client, line)
        replaced, self._accounts.replaced = self._accounts.replaced, []
        for holder in replaced:
            assert isinstance(holder, Client)
            self._disconnect(holder, Ending.CLOSED)
