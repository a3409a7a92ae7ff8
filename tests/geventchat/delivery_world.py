"""Clients of one chat over simulated sockets, compared with a model that writes everything to every client at once.

The sockets and the kernel are simulated; the chat, the audiences, the subscribers, the gates, the waiters and the loop are
real, in virtual time. Several requests are handled in one batch. If the chat is busy, the client waits at the gate in a
greenlet, as its connection would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest

from geventchat.chat import commands
from geventchat.chat.chat import Chat
from geventchat.chat.results import DONE, Busy, Leave
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.dialects import DIALECTS
from geventchat.dialects.framing import LineFraming
from geventchat.net import delivery as delivery_module
from geventchat.net.announcer import Announcer
from geventchat.net.delivery import Audience, Delivery, Encoding, Subscriber
from geventchat.net.waiter import CloseReason, ConnectionEnded, Waiter
from geventchat.settings import Limits
from harness.stage.gevent_loop import VirtualLoop, fresh_world
from harness.stage.virtual_time import START_TIME_S
from tests.geventchat.model.dialects import DIALECTS as SPELLINGS
from tests.geventchat.model.dialects import Gone
from tests.geventchat.model.requests import (
    DirectMessage,
    EnterRoom,
    LeaveRoom,
    ListRooms,
    Login,
    Name,
    Ping,
    Quit,
    Refusal,
    Request,
    Say,
    SetTopic,
    Who,
)
from tests.geventchat.model.rooms import Member, Rooms, name_of, text_of
from tests.geventchat.model.rooms import Room as RoomModel
from tests.geventchat.recording import at_once, memory, tools
from tests.geventchat.virtual_time import VirtualTime

_FIRST_FILENO = 1_000_000
_UNLIMITED = 10**9
LIMITS = Limits(
    queue_bytes=1_024,
    outgoing_bytes=200,
    floor_bytes_per_s=400,
    stranger_bytes_per_s=50,
    stranger_burst_bytes=100,
    contacts=2,
)


class _Loop(VirtualLoop):
    """A loop on which a simulated socket becomes writable when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: dict[int, _Watcher] = {}

    def io(self, fileno: int, events: int, *more: Any) -> Any:
        if fileno < _FIRST_FILENO:
            return super().io(fileno, events, *more)
        return _Watcher(self, fileno)


@dataclass(eq=False)
class _Watcher:
    loop: _Loop
    fileno: int

    def start(self, callback: Callable[[], None]) -> None:
        assert self.fileno not in self.loop.writers, "two watchers for one socket"
        self.callback = callback
        self.loop.writers[self.fileno] = self

    def stop(self) -> None:
        self.loop.writers.pop(self.fileno, None)

    def close(self) -> None:
        assert self.fileno not in self.loop.writers, "closed without being stopped"

    def fire(self) -> None:
        """Call the callback because the socket is writable, unless the watcher was stopped meanwhile."""
        if self.loop.writers.get(self.fileno) is self:
            self.callback()


@dataclass(eq=False)
class SimulatedSocket:
    """Accepts as many bytes as it has free space for."""

    number: int
    free_bytes: int = _UNLIMITED
    error: BaseException | None = None
    taken: bytearray = field(default_factory=bytearray)
    sends: int = 0

    def fileno(self) -> int:
        return _FIRST_FILENO + self.number

    def send(self, data: Any) -> int:
        return self.sendmsg([data])

    def sendmsg(self, buffers: Any) -> int:
        assert all(buffers), "an empty buffer"
        self.sends += 1
        if self.error is not None:
            raise self.error
        if not self.free_bytes:
            raise BlockingIOError
        data = b"".join(buffers)[: self.free_bytes]
        self.free_bytes -= len(data)
        self.taken += data
        return len(data)


class _Hangups:
    """Notifies a waiter when the test hangs up its client; at once if that happened before."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._callbacks: dict[int, Callable[[bool], None]] = {}
        self.seen: dict[int, bool] = {}

    @contextmanager
    def watching(self, fileno: int, callback: Callable[[bool], None]) -> Iterator[None]:
        self._callbacks[fileno] = callback
        self._look(fileno)
        try:
            yield
        finally:
            del self._callbacks[fileno]

    def hang_up(self, fileno: int, reset: bool) -> None:
        self.seen[fileno] = reset
        self._look(fileno)

    def _look(self, fileno: int) -> None:
        if fileno in self.seen and fileno in self._callbacks:
            self._hub.loop.run_callback(self._tell, fileno)

    def _tell(self, fileno: int) -> None:
        if fileno in self._callbacks:
            self._callbacks[fileno](self.seen[fileno])


class Client(Member):
    """A client in the chat and in the model."""

    def __init__(self, number: int, dialect: str, free_bytes: int, encoding: Encoding, world: World) -> None:
        super().__init__(SPELLINGS[dialect])
        self.number = number
        self.socket = SimulatedSocket(number, free_bytes)
        self.subscriber = Subscriber(self.socket, encoding, world.delivery, self._on_lost)
        self.session = Session(self.subscriber)
        self.waiter = Waiter(world.time.hub, world.time.clock, world.hangups, self.socket.fileno())  # type: ignore[arg-type]
        self.waiting: gevent.Greenlet[..., None] | None = None
        self.left = False
        self.lost: CloseReason | None = None
        self.lost_error = ""
        # Bytes of answers to the client's own requests since nothing was pending.
        self.answer_bytes = 0
        # How many of the next texts that it receives are answers.
        self.answers_due = 0
        self._world = world

    def receive(self, text: str) -> None:
        if self._world.acting is self:
            return
        if self.lost is None:
            super().receive(text)
            if self.answers_due:
                self.answer_bytes += len(text.encode())
        self.answers_due = max(0, self.answers_due - 1)

    def check_queue(self, queue_bytes: int) -> None:
        """Check that at most `queue_bytes` are pending, plus the answers since nothing was pending."""
        pending = self.subscriber.backlog_bytes
        assert pending <= queue_bytes + self.answer_bytes, "more than the queue is pending"
        if not pending:
            self.answer_bytes = 0

    def _on_lost(self, reason: CloseReason, error: str) -> None:
        assert self.lost is None, "lost twice"
        self.lost, self.lost_error = reason, error
        if self.waiting is not None:
            self.waiter.interrupt(reason)
        else:
            self._world.time.hub.loop.run_callback(self._world.leave, self)


class ModelRooms(Rooms):
    """The model. It announces a departure once the chat has announced it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def went(self, left: RoomModel, name: Name, now_ms: int) -> None:
        self._world.departs(left, name, Gone.LEFT, now_ms)


class World:
    """The chat, its clients and the model. All methods run in a spawned greenlet, so that all timers are virtual."""

    def __init__(self, time: VirtualTime, limits: Limits = LIMITS) -> None:
        self.time = time
        self.hangups = _Hangups(time.hub)
        self.delivery = Delivery(time.hub, time.clock, limits)
        self.chat = Chat(
            time.clock.time,
            new_gate=self.delivery.new_gate,
            storage=memory(),
            in_thread=at_once,
            tools=tools(monotonic=time.clock.monotonic),
            announce_later=Announcer(time.hub).announce,
            limits=limits.chat,
        )
        self._watch_departures(self.chat.lobby)
        create = self.chat.rooms.create
        self.chat.rooms.create = lambda name: self._watch_departures(create(name))  # type: ignore[method-assign]
        self.encodings = {name: Encoding(dialect, LineFraming) for name, dialect in DIALECTS.items()}
        self.clients: list[Client] = []
        self.rooms = ModelRooms(self)
        # Departures that have not been announced yet, by the keys of the room and of the name.
        self._departures: dict[tuple[str, str], tuple[RoomModel, str, Gone, int]] = {}
        # Whose command the chat handles at this moment. It receives no departure that its own makes possible.
        self.acting: Client | None = None

    @property
    def audiences(self) -> dict[str, Audience]:
        """The audiences of the lobby, by the names of their dialects."""
        return {
            encoding.dialect.name: audience
            for (encoding, rooms), audience in self.delivery._audiences.items()
            if rooms == self.chat.lobby.alone
        }

    @property
    def writers(self) -> dict[int, _Watcher]:
        writers: dict[int, _Watcher] = self.time.hub.loop.writers
        return writers

    # --- What clients do. Each returns True when the chat has done it at once. --------------------------------------

    def connect(self, dialect: str = "line", free_bytes: int = _UNLIMITED) -> Client:
        client = Client(len(self.clients), dialect, free_bytes, self.encodings[dialect], self)
        self.clients.append(client)
        return client

    def member(self, dialect: str = "line", free_bytes: int = _UNLIMITED) -> Client:
        client = self.connect(dialect, free_bytes)
        assert self.login(client)
        return client

    def login(self, client: Client) -> bool:
        name = f"p{client.number}"
        return client.name is not None or self._request(client, commands.Login(name), Login(name_of(name)))

    def login_invalid(self, client: Client) -> bool:
        """Send an invalid login, so that a client which is not logged in gets an answer."""
        if client.name is not None:
            return True
        invalid = Name("", refusal=Refusal.NAME_LENGTH)
        return self._request(client, commands.Login(""), Login(invalid))

    def say(self, client: Client, *texts: str) -> bool:
        return client.name is None or self._request(
            client, commands.Say(list(texts)), *[Say(text_of(text)) for text in texts]
        )

    def send_direct(self, client: Client, to: Client, text: str) -> bool:
        if client.name is None or to.name is None:
            return True
        typed = to.name.typed
        return self._request(
            client, commands.SendDirectMessage(typed, text), DirectMessage(to.name, text_of(text))
        )

    def ping(self, client: Client, token: str = "x") -> bool:
        return client.name is None or self._request(client, commands.Ping(token), Ping(token))

    def who(self, client: Client) -> bool:
        return client.name is None or self._request(client, commands.Who(), Who())

    def enter(self, client: Client, room: str) -> bool:
        name = name_of(room)
        return client.name is None or self._request(client, commands.EnterRoom(name.typed), EnterRoom(name))

    def leave_room(self, client: Client) -> bool:
        return client.name is None or self._request(client, commands.LeaveRoom(), LeaveRoom())

    def list_rooms(self, client: Client) -> bool:
        return client.name is None or self._request(client, commands.ListRooms(), ListRooms())

    def set_topic(self, client: Client, topic: str) -> bool:
        request = SetTopic(text_of(topic))
        return client.name is None or self._request(client, commands.SetTopic(topic), request)

    def quit(self, client: Client) -> bool:
        return self._request(client, commands.Quit(), Quit())

    def hang_up(self, client: Client, reset: bool = False) -> None:
        if client.waiting is not None:
            self.hangups.hang_up(client.socket.fileno(), reset)
        else:
            self.leave(client)

    def leave(self, client: Client) -> None:
        """End the connection."""
        if not client.left:
            client.left = True
            self._forget(client)
            self.chat.leave(client.session)
            self.announce_in_model()

    def free_space(self, client: Client, free_bytes: int) -> None:
        """Let the socket accept more bytes."""
        client.socket.free_bytes += free_bytes
        writer = self.writers.get(client.socket.fileno())
        if writer is not None and client.socket.free_bytes:
            self.time.hub.loop.run_callback(writer.fire)
            self.flush()

    def flush(self) -> None:
        """Run until the loop is idle, so that the batch ends and is sent."""
        self.time.run_until_idle()

    def advance(self, seconds: float) -> None:
        self.time.advance(seconds)

    def announce_in_model(self) -> None:
        """Announce in the model the departures that the chat has announced."""
        for room_key, key in list(self._departures):
            room = self.chat.rooms.find(room_key)
            if room is None or key not in room._departures:
                self.rooms.announce_departure(*self._departures.pop((room_key, key)))

    def departs(self, room: RoomModel, name: Name, how: Gone, now_ms: int) -> None:
        """Record a departure in the model, to be announced when the chat announces it."""
        key = next(key for key, one in self.rooms.rooms.items() if one is room)
        self._departures[key, name.key] = (room, name.shown, how, now_ms)

    @property
    def _now_ms(self) -> int:
        return START_TIME_S * 1000 + self.time.now_us // 1000

    def _watch_departures(self, room: Room | None) -> Room | None:
        """Update the model whenever departures are announced in this room."""
        if room is not None:
            announce = room.announce_departures
            room.announce_departures = lambda: (announce(), self.announce_in_model())[0]  # type: ignore[method-assign]
        return room

    def _forget(self, client: Client) -> None:
        name = client.name
        if name is not None:
            self.departs(self.rooms.remove(client, self._now_ms), name, Gone.DISCONNECTED, self._now_ms)

    def _request(self, client: Client, command: commands.Command, *requests: Request) -> bool:
        if client.left or client.lost is not None or client.waiting is not None:
            return True
        before = self.snapshot()
        result = self._handle(client, command)
        if isinstance(result, Busy):
            assert self.snapshot() == before, "a command that was refused as busy has changed something"
            client.waiting = gevent.spawn(self._wait, client, result, command, requests)
            return False
        self._apply(client, command, result, requests)
        return True

    def _wait(
        self, client: Client, result: object, command: commands.Command, requests: tuple[Request, ...]
    ) -> None:
        try:
            client.waiter.start(0, 0)
            while isinstance(result, Busy):
                with result.gate.passage(client.waiter, f"address {client.number % 3}"):
                    result = self._handle(client, command)
                    if not isinstance(result, Busy):
                        self._apply(client, command, result, requests)
        except ConnectionEnded:
            self.leave(client)
        finally:
            client.waiting = None
        if client.socket.fileno() in self.hangups.seen:
            self.leave(client)

    def _handle(self, client: Client, command: commands.Command) -> object:
        self.acting = client
        try:
            return self.chat.handle(client.session, command)
        finally:
            self.acting = None

    def _apply(
        self, client: Client, command: commands.Command, result: object, requests: tuple[Request, ...]
    ) -> None:
        assert result is DONE or isinstance(result, Leave)
        if isinstance(command, commands.Login | commands.EnterRoom | commands.LeaveRoom):
            # The departure of the name's previous holder is announced first.
            self.announce_in_model()
        for request in requests:
            client.answers_due = _answers_to(request)
            if isinstance(request, Quit):
                client.receive(client.dialect.goodbye())
                self._forget(client)
            else:
                self.rooms.handle(client, request, self._now_ms)
            client.answers_due = 0
        self.announce_in_model()
        if isinstance(result, Leave):
            client.left = True

    # --- What must hold ---------------------------------------------------------------------------------------------

    def snapshot(self) -> object:
        """Everything that a command can change."""
        return (
            [
                (room.key, room.topic, room.last_id, list(room.names))
                for room in self.chat.rooms._rooms.values()
            ],
            [(dict(client.session.contacts or {}), client.session.name) for client in self.clients],
            [list(room._departures) for room in self.chat.rooms._rooms.values()],
            [
                (list(s._pieces), s.answered_bytes, s.private_bytes, s.backlog_bytes, s._cursor, s.audience)
                for s in (client.subscriber for client in self.clients)
            ],
            [(a.batch.size, len(a.in_sync), len(a.backlogged)) for a in self.delivery._audiences.values()],
        )

    def check(self) -> None:
        """Check the invariants of delivery.py, and that every client received what it does in the model."""
        delivery = self.delivery
        for client in self.clients:
            self._check_received(client)
            _check_state(client.subscriber, delivery)
            _check_memory(client.subscriber)
            if not delivery._due and client.lost is None:
                client.check_queue(delivery.limits.queue_bytes)
        subscribers = [client.subscriber for client in self.clients]
        audiences = list(delivery._audiences.values())
        assert set(delivery._changed) <= set(audiences) or delivery._due, (
            "a batch of an audience without members waits"
        )
        for audience in audiences:
            assert audience.batch.size == sum(map(len, audience.batch.frames))
            assert (audience in delivery._changed) == (audience.batch.size > 0)
            assert len(audience.outgoing) == len(audience.batch.view) == 0
            assert audience.members > 0
            assert all(audience in room._audiences for room in audience.rooms)
            assert audience.members == sum(s.subscribed for s in subscribers if s.audience is audience)
            assert audience.slow_readers == sum(s.reads_slowly for s in subscribers if s.audience is audience)
            if audience.batch.size and not delivery._due:
                # Only joins and departures in a large room can wait, and a timer ends their wait.
                assert not audience.urgent
                assert audience.batch.size < delivery.outgoing_bytes
                assert delivery._flush_timer is not None
        if not delivery._due:
            assert not delivery._spliced
        assert all(s.can_wait or s.closed for audience in audiences for s in audience.waiting)
        assert all(audience.batch.size for audience in audiences if audience.waiting)
        for audience in audiences:
            assert audience.is_full == (audience.batch.size >= delivery.outgoing_bytes)
            assert audience.can_delay == (audience.is_full or audience.slow_readers > 0)
        for room in self.chat.rooms:
            assert all(delivery._audiences[a.encoding, a.rooms] is a for a in room._audiences)
            assert set(room._delaying) == {audience for audience in room._audiences if audience.can_delay}
        assert set(delivery._behind) == {s for s in subscribers if s._lag is not None}
        assert not delivery._abandoned

    def _check_received(self, client: Client) -> None:
        taken = bytes(client.socket.taken)
        audience = client.subscriber.audience
        batch_ended = not self.delivery._due and (audience is None or not audience.batch.size)
        assert client.expected.startswith(taken), (
            f"p{client.number} received {taken[-80:]!r}, expected {bytes(client.expected[: len(taken)])[-80:]!r}"
        )
        if client.lost is not None:
            assert client.subscriber.all_sent
        elif batch_ended and client.subscriber.all_sent:
            assert taken == client.expected, f"nothing is pending, and p{client.number} misses something"

    def check_end(self) -> None:
        """Let all clients read until nothing waits, then let all leave, and check that nothing is left."""
        for client in self.clients:
            self.free_space(client, _UNLIMITED)
        for _ in range(100):
            self.check()
            self.advance(10)
            if not any(client.waiting for client in self.clients):
                break
        assert not any(client.waiting for client in self.clients), "a client waits for ever"
        self.check()
        for client in self.clients:
            assert client.subscriber.all_sent
            assert client.lost is not None or client.socket.taken == client.expected
        for client in self.clients:
            self.leave(client)
        self.advance(1)
        self.check()
        for client in self.clients:
            client.subscriber.close()
        # Let the timers of gates without waiters run out.
        self.advance(120)
        self.check()
        assert not self.delivery._audiences
        assert not self.delivery._changed
        for room in self.chat.rooms._rooms.values():
            assert not room.names
            assert not room.gate._waiting  # type: ignore[attr-defined]
        assert not self._departures
        assert not self.writers
        assert not self.delivery._behind
        assert self.time.timers == 0, "a timer is left"
        assert len(self.chat) == len(self.rooms.members) == 0


def _answers_to(request: Request) -> int:
    """How many of the texts that a client receives for its own request are answers; it receives the rest like other clients."""
    match request:
        case Say():
            return 0
        case DirectMessage():
            # A message to oneself arrives twice; the second is the message itself.
            return 1
        case Login():
            return 2
    return 1


def _check_state(s: Subscriber, delivery: Delivery) -> None:
    """Check the conditions of a Subscriber."""
    audiences = list(delivery._audiences.values())
    audience = s.audience
    subscribed = audience is not None and not s.closed
    in_sync = subscribed and not s.spliced and not s._backlog
    assert [a for a in audiences if s in a.in_sync] == [audience] * in_sync, (
        "in sync exactly when it has no other pending bytes"
    )
    waits = [a for a in audiences if s in a.waiting]
    assert waits in ([], [audience])
    # A client that could not be sent its part of the batch is in neither, and closed.
    assert delivery._spliced.count(s) + len(waits) == s.spliced or s.closed, "spliced exactly once"
    assert s.spliced or s.closed or not (s._pieces or s._cursor), "pieces, and not spliced"
    backlogged = subscribed and bool(s._backlog)
    assert [a for a in audiences if s in a.backlogged] == [audience] * backlogged, (
        "backlogged exactly when it is"
    )
    assert audience is None or s._cursor <= audience.batch.size
    assert (s._watcher is not None) == bool(s._backlog), "a watcher exactly while there is a backlog"
    backlog = list(s._backlog or ())
    assert s.backlog_bytes == sum(map(len, backlog))
    assert all(backlog), "an empty piece"
    assert s.closed or s._queued - s._sent == s.backlog_bytes
    assert s.unsent_answer_bytes == 0 or not s.all_sent or s.closed
    assert 0 <= s._others_bytes <= s.backlog_bytes
    assert s._lag is None or (subscribed and s.backlog_bytes > delivery.behind_bytes)
    if s.closed:
        assert not backlog


def _check_memory(s: Subscriber) -> None:
    """Check that a client's backlog holds at most twice the memory that it is charged for."""
    kept = {id(_whole(piece)): len(_whole(piece)) for piece in s._backlog or ()}
    assert sum(kept.values()) <= 2 * s.backlog_bytes, (sum(kept.values()), s.backlog_bytes)


def _whole(piece: Any) -> Any:
    return piece.obj if isinstance(piece, memoryview) else piece


PRESENCE_S_PER_MEMBER = 0.005
"""The value for the large rooms of tests, which have few members."""


def in_world(
    body: Callable[[World], None], limits: Limits = LIMITS, *, large_room: int | None = None
) -> None:
    """Run a test in its own world. `large_room` is how many members make a room a large one."""
    with pytest.MonkeyPatch.context() as patch:
        # Bytes that a simulated socket has accepted count as sent by the kernel.
        patch.setattr(delivery_module, "_unsent_by_kernel", lambda socket: 0)
        if large_room is not None:
            patch.setattr(delivery_module, "_PRESENCE_MEMBERS", large_room)
            patch.setattr(delivery_module, "_PRESENCE_S_PER_MEMBER", PRESENCE_S_PER_MEMBER)
        with fresh_world(_Loop) as fresh:
            time = VirtualTime(fresh.hub, fresh.loop)
            gevent.spawn(lambda: body(World(time, limits))).get()
            errors = fresh.error_log.getvalue()
            assert not errors, errors
