"""Simulated weeks: clients connect, talk, fall silent, stall and vanish at random, and every byte each receives is checked.

`_Checker` holds every client beside its double in the model and knows when the server must disconnect it. `_Week`
decides what clients do next.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from harness.stage.virtual_time import START_TIME_S
from tests.certificates import made_certificate
from tests.fire.clients import State
from tests.fire.leaks import Census, baseline, leftovers
from tests.fire.simulation import SimulatedClient, Simulation, simulate
from tests.geventchat.model.dialects import DIALECTS, Gone
from tests.geventchat.model.requests import (
    ROOMS,
    DirectMessage,
    EnterRoom,
    ListRooms,
    Login,
    Ping,
    Quit,
    Request,
    Say,
    SetTopic,
    Text,
    Who,
)
from tests.geventchat.model.rooms import Member, Rooms, name_of, text_of
from tests.geventchat.web_client import FramedClient
from tests.tls_client import EncryptedClient

_US = 1_000_000
_HOUR_S = 3_600
_IDLE_S = 1_800
_LOGIN_S = 900
_FLUSH_S = 10
_QUEUE_BYTES = 32_768
_SOCKET_BYTES = 4_096
# Mean times between what one client does.
_BETWEEN_ACTIONS_S = 600
_AWAY_S = 1_200
_STALL_S = 300
_SILENT_S = 2 * _IDLE_S
_IDLE_NOTICE_2 = '{"type": "error", "code": "idle-timeout", "message": "Idle timeout"}\n'
_WORDS = (
    "hello",
    "äöü",
    "\U0001f469\u200d\U0001f680",
    "yes no",
    "a  b",
    "{}",
    "'quoted'",
    "\u4f60\u597d",
    "-",
    "w" * 300,
)


@dataclass(frozen=True, slots=True)
class Soak:
    """The result of one run."""

    hours: float
    clients: int
    actions: dict[str, int]
    compared_bytes: int
    logged: dict[str, int]


_PLAIN: dict[str, tuple[str, type[SimulatedClient]]] = {
    dialect: (dialect, SimulatedClient) for dialect in DIALECTS
}
# What carries each dialect: the scheme of its listener, and the client's side of it.
CARRIERS: dict[str, dict[str, tuple[str, type[SimulatedClient]]]] = {
    "tcp": _PLAIN,
    "tls": {dialect: (f"{dialect}+tls", EncryptedClient) for dialect in DIALECTS},
    "websocket": {**_PLAIN, "json": ("web", FramedClient)},
}


def soak(hours: float, clients: int, seed: int, over: str = "tcp") -> Soak:
    """This many hours of virtual time over one of the `CARRIERS`."""
    limits = Limits(
        clients_per_address=clients,
        address_log_lines_per_s=0,
        queue_bytes=_QUEUE_BYTES,
        flush_s=_FLUSH_S,
        login_s=_LOGIN_S,
        # The model has no notion of speakers that wait for slow readers.
        floor_bytes_per_s=0,
    )
    cert, key = map(str, made_certificate()) if over == "tls" else ("", "")
    carriers = CARRIERS[over]
    # One in plain lines is for the baseline.
    schemes = dict.fromkeys(("line", *[scheme for scheme, _ in carriers.values()]))
    listen = tuple(Listen(scheme, "127.0.0.1", 0) for scheme in schemes)
    config = Config(listen=listen, idle_s=_IDLE_S, limits=limits, tls_cert=cert, tls_key=key)
    with simulate(config) as simulation:
        before = baseline(simulation)
        week = _Week(simulation, clients, random.Random(seed), carriers)
        week.run_until(round(hours * _HOUR_S * _US))
        week.disconnect_everyone()
        simulation.advance(limits.empty_room_s)
        assert len(simulation.context.chat.rooms) == 1, "only the lobby is left"
        assert not leftovers(simulation), leftovers(simulation)
        checker = week.checker
        result = Soak(hours, clients, dict(checker.actions), checker.compared_bytes, dict(simulation.logged))
        del week, checker
        assert not Census(simulation).growth_since(before), Census(simulation).growth_since(before)
        return result


class _Slot:
    """One of the clients, over all its connections."""

    def __init__(self, number: int, dialect: str) -> None:
        self.number = number
        self.dialect = dialect
        self.client: SimulatedClient | None = None
        self.member: Member | None = None
        self.silent = False
        self.has_sent = False
        self.connected_us = self.active_us = 0
        # When the server disconnected it while it was not reading; -1 if it was dropped as slow.
        self.ended_us: int | None = None

    @property
    def connection(self) -> tuple[SimulatedClient, Member]:
        """Its connection and its double in the model."""
        assert self.client is not None
        assert self.member is not None
        return self.client, self.member

    @property
    def due_us(self) -> int:
        """When the server disconnects it if it sends nothing more."""
        idle_us = self.active_us + _IDLE_S * _US
        _, member = self.connection
        return idle_us if member.name is not None else min(idle_us, self.connected_us + _LOGIN_S * _US)


class _Checker:
    """All clients, the model, and the server."""

    def __init__(
        self,
        simulation: Simulation,
        slots: list[_Slot],
        carriers: dict[str, tuple[str, type[SimulatedClient]]],
    ) -> None:
        self.simulation = simulation
        self._carriers = carriers
        self.rooms = Rooms()
        self.actions: Counter[str] = Counter()
        self.compared_bytes = 0
        self._slots = slots
        self._timeouts: list[tuple[int, int]] = []

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return START_TIME_S * 1000 + self.simulation.now_us // 1000

    def advance_to(self, at_us: int) -> None:
        """Let time pass; each idle client must be disconnected exactly at its deadline."""
        while self._timeouts and self._timeouts[0][0] < at_us:
            due_us, number = heapq.heappop(self._timeouts)
            self._time_out(due_us, self._slots[number])
        self.simulation.advance_to(at_us)
        self.compare()

    def connect(self, slot: _Slot) -> None:
        """It connects, and sends nothing yet."""
        scheme, make = self._carriers[slot.dialect]
        slot.client = self.simulation.connect(scheme, buffer_bytes=_SOCKET_BYTES, make=make)
        slot.member = Member(DIALECTS[slot.dialect])
        slot.silent, slot.has_sent, slot.ended_us = False, False, None
        slot.connected_us = slot.active_us = self.simulation.now_us
        self._expect_timeout(slot)
        self.simulation.run_until_idle()

    def send(self, slot: _Slot, text: str, *requests: Request) -> None:
        """It sends complete lines, which ask for this."""
        client, member = slot.connection
        now_us = self.simulation.now_us
        client.send(text.encode())
        self.simulation.run_until_idle()
        assert self.simulation.now_us == now_us, "the server did not read at once"
        slot.active_us, slot.has_sent = now_us, True
        for request in requests:
            self.rooms.handle(member, request, self.now_ms)
        self._expect_timeout(slot)

    def leave(self, slot: _Slot) -> None:
        """Its connection is ending: the others must see it leave."""
        self.rooms.leave(slot.connection[1], self.now_ms)

    def gone(self, slot: _Slot, *, ended_by_server: bool) -> None:
        """Note that this client has disconnected."""
        client, _ = slot.connection
        assert not ended_by_server or client.state in (State.FIN, State.RESET), client.state
        slot.client = slot.member = None

    def read_to_the_end(self, slot: _Slot) -> None:
        """A client that was disconnected while it was not reading finds a beginning of all it should have received."""
        client, member = slot.connection
        assert slot.ended_us is not None
        in_time = slot.ended_us >= 0 and self.simulation.now_us - slot.ended_us < _FLUSH_S * _US
        client.resume_reading()
        self.simulation.run_until_idle()
        received = bytes(client.received)
        assert member.expected.startswith(received), (
            f"{received[-99:]!r} is not a beginning of {bytes(member.expected[-199:])!r}"
        )
        assert not in_time or received == member.expected, "it read in time and has not received everything"
        self.compared_bytes += len(received)
        self.gone(slot, ended_by_server=True)

    def compare(self) -> None:
        """Check that every client that reads has received exactly what the model says; note the clients dropped as slow."""
        self._find_dropped()
        for slot in self._slots:
            client, member = slot.client, slot.member
            if client is None or member is None or not client.reads:
                continue
            if client.received != member.expected:
                raise AssertionError(
                    f"at {self.simulation.now_us / _US:.6f} s {slot.dialect} client {slot.number} ({member.shown}) "
                    f"received\n  {bytes(client.received)!r}\ninstead of\n  {bytes(member.expected)!r}"
                )
            if member.expected:
                self.compared_bytes += len(member.expected)
                client.received.clear()
                member.expected.clear()

    def _expect_timeout(self, slot: _Slot) -> None:
        heapq.heappush(self._timeouts, (slot.due_us, slot.number))

    def _time_out(self, due_us: int, slot: _Slot) -> None:
        if slot.member is None or slot.ended_us is not None or slot.due_us != due_us:
            return  # It has done something since.
        client, member = slot.connection
        self.simulation.advance_to(due_us - 1)
        self.compare()
        if slot.ended_us is not None:
            return
        assert client.state is State.OPEN, "disconnected early"
        self.simulation.advance_to(due_us)
        self.actions["be disconnected " + ("without login" if member.name is None else "as idle")] += 1
        if isinstance(client, FramedClient) and not slot.has_sent:
            # Over WebSocket, clients speak version 2 until they join in version 1.
            member.receive(_IDLE_NOTICE_2)
        else:
            member.receive(member.dialect.idle_notice())
        self.leave(slot)
        if client.reads:
            self.compare()
            self.gone(slot, ended_by_server=True)
        else:
            slot.ended_us = due_us
            self.compare()

    def _find_dropped(self) -> None:
        dropped: list[tuple[int, _Slot]] = []
        for slot in self._slots:
            client, member = slot.client, slot.member
            if client is None or member is None or client.reads or slot.ended_us is not None:
                continue
            if client.server_closed:
                assert len(member.expected) > _QUEUE_BYTES, "dropped although little was pending"
                dropped.append((self._when_seen_leaving(member), slot))
        for _, slot in sorted(dropped, key=lambda found: found[0]):
            self.actions["be dropped as slow"] += 1
            slot.ended_us = -1
            self.leave(slot)

    def _when_seen_leaving(self, member: Member) -> int:
        """The model cannot know the order of clients dropped in one batch, only that it is the same for everyone."""
        for slot in self._slots:
            client, other = slot.client, slot.member
            if client is not None and other is not None and client.reads and other.room is member.room:
                left = other.dialect.left(member.shown, Gone.DISCONNECTED, self.now_ms // 1000)
                return client.received.rfind(left.encode())
        return 0


class _Week:
    def __init__(
        self,
        simulation: Simulation,
        clients: int,
        rng: random.Random,
        carriers: dict[str, tuple[str, type[SimulatedClient]]],
    ) -> None:
        self._simulation = simulation
        self._rng = rng
        self._slots = [_Slot(n, rng.choice(list(DIALECTS))) for n in range(clients)]
        self.checker = _Checker(simulation, self._slots, carriers)
        self._plan: list[tuple[int, int]] = []
        for slot in self._slots:
            self._schedule(slot, _AWAY_S)
        self._actions: dict[str, tuple[int, Callable[[_Slot], None]]] = {
            "say": (40, self._say),
            "paste": (4, self._paste),
            "send a direct message": (10, self._send_direct),
            "who": (3, self._who),
            "change rooms": (4, self._change_rooms),
            "list the rooms": (1, self._list_rooms),
            "set the topic": (1, self._set_topic),
            "ping": (5, self._ping),
            "half a line": (4, self._half_a_line),
            "blank line": (2, self._blank_line),
            "stall": (6, self._stall),
            "fall silent": (2, self._fall_silent),
            "quit": (2, self._quit),
            "half-close": (2, self._half_close),
            "vanish": (3, self._vanish),
        }

    def run_until(self, end_us: int) -> None:
        """Everything that is planned before then."""
        while self._plan[0][0] < end_us:
            at_us, number = heapq.heappop(self._plan)
            self.checker.advance_to(at_us)
            slot = self._slots[number]
            if slot.client is None:
                self._connect(slot)
            elif not slot.client.reads:
                self._end_stall(slot)
            else:
                self._act(slot)
            self._schedule_next(slot)
            self.checker.compare()

    def disconnect_everyone(self) -> None:
        """The end of the week."""
        for slot in self._slots:
            if slot.client is not None and not slot.client.reads:
                self._end_stall(slot)
            if slot.client is not None:
                self._vanish(slot)
            self.checker.compare()
        self._simulation.advance(_FLUSH_S + 60)

    def _schedule(self, slot: _Slot, mean_s: float) -> None:
        # Whole milliseconds plus the client's number: no two actions are ever due at one instant.
        delay_ms = max(1, round(self._rng.expovariate(1 / mean_s) * 1000))
        at_us = (self._simulation.now_us // 1000 + delay_ms) * 1000 + slot.number
        heapq.heappush(self._plan, (at_us, slot.number))

    def _schedule_next(self, slot: _Slot) -> None:
        if slot.client is None:
            self._schedule(slot, _AWAY_S)
        elif slot.silent:
            self._schedule(slot, _SILENT_S)
        elif not slot.client.reads:
            self._schedule(slot, _STALL_S)
        else:
            self._schedule(slot, _BETWEEN_ACTIONS_S)

    def _count(self, action: str) -> None:
        self.checker.actions[action] += 1

    def _act(self, slot: _Slot) -> None:
        _, member = slot.connection
        if member.name is None:
            action = self._rng.choice(("log in", "log in", "vanish", "fall silent", "half-close"))
        else:
            weights = [weight for weight, _ in self._actions.values()]
            action = self._rng.choices(list(self._actions), weights)[0]
        self._count(action)
        if action == "log in":
            self._log_in(slot)
        else:
            self._actions[action][1](slot)

    def _connect(self, slot: _Slot) -> None:
        self._count("connect")
        self.checker.connect(slot)
        if self._rng.random() < 0.9:
            self._log_in(slot)

    def _log_in(self, slot: _Slot) -> None:
        typed = self._rng.choice(("anna", "BENO", "çelik", "dora-", "e.f_")) + str(self._rng.randrange(40))
        typed = typed.title() if self._rng.random() < 0.3 else typed
        self._send(slot, DIALECTS[slot.dialect].login(typed), Login(name_of(typed)))

    def _say(self, slot: _Slot) -> None:
        text = self._text()
        self._send(slot, DIALECTS[slot.dialect].say(text), Say(text_of(text)))

    def _paste(self, slot: _Slot) -> None:
        texts = [self._text() for _ in range(self._rng.randrange(2, 20))]
        lines = "".join(map(DIALECTS[slot.dialect].say, texts))
        self._send(slot, lines, *[Say(text_of(text)) for text in texts])

    def _send_direct(self, slot: _Slot) -> None:
        to = self._rng.choice([*self.checker.rooms.users, "not-here"])
        to = to.upper() if self._rng.random() < 0.3 else to
        text = self._text()
        line = DIALECTS[slot.dialect].direct_message(to, text)
        self._send(slot, line, DirectMessage(name_of(to), text_of(text)))

    def _who(self, slot: _Slot) -> None:
        self._send(slot, DIALECTS[slot.dialect].who(), Who())

    def _change_rooms(self, slot: _Slot) -> None:
        room = self._rng.choice(ROOMS)
        word = {"line": "JOIN", "slash": "/join"}.get(slot.dialect)
        if word is not None:
            self._send(slot, f"{word} {room.typed}\n", EnterRoom(room))

    def _list_rooms(self, slot: _Slot) -> None:
        word = {"line": "ROOMS", "slash": "/rooms"}.get(slot.dialect)
        if word is not None:
            self._send(slot, f"{word}\n", ListRooms())

    def _set_topic(self, slot: _Slot) -> None:
        topic = self._text()
        # A dash removes the topic.
        shown = Text("-", "") if topic == "-" else text_of(topic)
        word = {"line": "TOPIC", "slash": "/topic"}.get(slot.dialect)
        if word is not None:
            self._send(slot, f"{word} {topic}\n", SetTopic(shown))

    def _ping(self, slot: _Slot) -> None:
        self._send(slot, DIALECTS[slot.dialect].ping(), Ping())

    def _blank_line(self, slot: _Slot) -> None:
        self._send(slot, "\r\n")

    def _half_a_line(self, slot: _Slot) -> None:
        # The next line completes it, so it has to be white space. It is not activity.
        client, _ = slot.connection
        client.send(b"   ")
        self._simulation.run_until_idle()

    def _fall_silent(self, slot: _Slot) -> None:
        slot.silent = True

    def _stall(self, slot: _Slot) -> None:
        client, _ = slot.connection
        self.checker.compare()
        client.stop_reading()

    def _quit(self, slot: _Slot) -> None:
        self._send(slot, DIALECTS[slot.dialect].quit(), Quit())
        self.checker.compare()
        self.checker.gone(slot, ended_by_server=True)

    def _half_close(self, slot: _Slot) -> None:
        client, _ = slot.connection
        client.half_close()
        self._simulation.run_until_idle()
        self.checker.leave(slot)
        self.checker.compare()
        self.checker.gone(slot, ended_by_server=True)

    def _vanish(self, slot: _Slot) -> None:
        client, _ = slot.connection
        client.close()
        self._simulation.run_until_idle()
        self.checker.leave(slot)
        self.checker.gone(slot, ended_by_server=False)

    def _end_stall(self, slot: _Slot) -> None:
        client, member = slot.connection
        how = self._rng.choice(("read again", "read again", "talk without reading", "half-close", "vanish"))
        if slot.ended_us is not None:
            self._count("find out about the disconnect")
            self.checker.read_to_the_end(slot)
            return
        self._count("after a stall: " + how)
        if how == "vanish":
            self._vanish(slot)
        elif how == "talk without reading" and member.name is not None:
            self._say(slot)
        else:
            client.resume_reading()
            self._simulation.run_until_idle()
            self.checker.compare()
            if how == "half-close":
                self._half_close(slot)

    def _send(self, slot: _Slot, text: str, *requests: Request) -> None:
        self.checker.send(slot, text, *requests)

    def _text(self) -> str:
        return " ".join(self._rng.choices(_WORDS, k=self._rng.randrange(1, 5)))
