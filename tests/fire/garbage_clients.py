"""Garbage sent to the server in every dialect while others chat: they notice nothing, and nothing is left behind."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from tests.fire.clients import State
from tests.fire.garbage import random_cuts, random_garbage
from tests.fire.leaks import Census, baseline, leftovers
from tests.fire.simulation import SimulatedClient, Simulation, simulate
from tests.geventchat.model.dialects import DIALECTS

# The listener that a client of each dialect connects to.
LISTENERS = {**{dialect: dialect for dialect in DIALECTS}, "json2": "json"}
_RECEIVED = {
    "line": "MSG {} {}",
    "json": '{{"type": "chat", "username": "{}", "message": "{}", ',
    "json2": ', "username": "{}", "message": "{}", "timestamp_ms": ',
    "slash": "{}: {}",
}
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_BATCH = 50
# How long a batch can take to leave: a flood is read at the rate allowed, an answer waits for its flush.
_LEAVING_S = 60


@dataclass(frozen=True, slots=True)
class Garbage:
    """The result of one run."""

    strings: int
    bytes_sent: int
    kinds: dict[str, int]
    reasons: dict[str, int]


def send_garbage(strings: int, seed: int, dialect: str) -> Garbage:
    """Send this many strings to one dialect's listener, beside a chat in all of them."""
    config = Config(
        listen=tuple(Listen(each, "127.0.0.1", 0) for each in DIALECTS),
        idle_s=0,
        limits=Limits(
            clients_per_address=10_000,
            address_bytes_per_s=0,
            address_log_lines_per_s=0,
            empty_room_s=_LEAVING_S / 2,
            # Nothing is left when everybody has gone.
            kept_rooms=0,
        ),
    )
    rng = random.Random(seed)
    sent, kinds = 0, Counter[str]()
    with simulate(config) as simulation:
        before = baseline(simulation)
        members = _Members(simulation)
        batch: list[SimulatedClient] = []
        for n in range(strings):
            kind, data = random_garbage(rng)
            kinds[kind] += 1
            sent += len(data)
            batch.append(_send(simulation, rng, dialect, data, n))
            if len(batch) == _BATCH:
                members.chat()
                _disconnect(simulation, rng, batch)
        _disconnect(simulation, rng, batch)
        members.chat()
        assert simulation.server.clients == len(LISTENERS), f"{simulation.server.clients} are still connected"
        members.check_and_close()
        assert not leftovers(simulation), leftovers(simulation)
        rooms = simulation.context.chat.rooms
        assert len(rooms) == 1, "only the lobby is left"
        # Each look deletes some of the others.
        for _ in range(200):
            rooms.find("lobby")
        del members, rooms
        assert not Census(simulation).growth_since(before), Census(simulation).growth_since(before)
        reasons = ("quit", "closed", "reset", "slow", "http", "tls")
        return Garbage(strings, sent, dict(kinds), {reason: simulation.logged[reason] for reason in reasons})


def _send(simulation: Simulation, rng: random.Random, dialect: str, data: bytes, n: int) -> SimulatedClient:
    client = simulation.connect(LISTENERS[dialect])
    if rng.random() < 0.5:
        client.send(_login(dialect, f"garbage{n}"))
        simulation.run_until_idle()
    for piece in random_cuts(rng, data):
        client.send(piece)
        simulation.run_until_idle()
    way = rng.randrange(4)
    if way == 0:
        client.half_close()
    elif way == 1:
        client.close()
    elif way == 2 and client.state is State.OPEN:
        client.stop_reading()
    return client


def _login(dialect: str, name: str) -> bytes:
    if dialect == "json2":
        return json.dumps({"type": "join", "v": 2, "username": name}).encode() + b"\n"
    return DIALECTS[dialect].login(name).encode()


def _disconnect(simulation: Simulation, rng: random.Random, batch: list[SimulatedClient]) -> None:
    for client in batch:
        if client.state is State.OPEN and client.reads and rng.random() < 0.5:
            client.half_close()
        else:
            client.close()
    simulation.advance(_LEAVING_S)
    for client in batch:
        assert client.state is not State.OPEN
        check_well_formed(bytes(client.received))
    batch.clear()


def check_well_formed(wire: bytes) -> None:
    """Check that every answer is complete lines of text without control characters."""
    # Only clients that asked for telnet's timing mark are sent it.
    text = wire.replace(b"\xff\xfb\x06", b"").decode()
    assert not text or text.endswith("\n"), text[-200:]
    found = _UNSAFE.search(text)
    assert found is None, f"{found!r} in {text[max(0, found.start() - 80) : found.end() + 20]!r}"


class _Members:
    """One member for each dialect, who must notice nothing except joins and departures."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._rounds = 0
        self._clients = {dialect: simulation.connect(listener) for dialect, listener in LISTENERS.items()}
        for dialect, client in self._clients.items():
            client.send(_login(dialect, f"member-{dialect}"))
            simulation.run_until_idle()

    def chat(self) -> None:
        """Every member says something, and every other one receives it at once."""
        self._rounds += 1
        for speaker, client in self._clients.items():
            marks = {dialect: len(other.received) for dialect, other in self._clients.items()}
            words = f"round {self._rounds}"
            client.send(DIALECTS[LISTENERS[speaker]].say(words).encode())
            self._simulation.run_until_idle()
            for dialect, other in self._clients.items():
                new = bytes(other.received[marks[dialect] :]).decode()
                wanted = _RECEIVED[dialect].format(f"member-{speaker}", words)
                times = sum(wanted in line for line in new.split("\n"))
                hears_itself = LISTENERS[dialect] == "json"
                assert times == (0 if dialect == speaker and not hears_itself else 1), (dialect, new[-300:])

    def check_and_close(self) -> None:
        """Check that all output was well formed, and that every join has one departure."""
        for client in self._clients.values():
            assert client.state is State.OPEN
            check_well_formed(bytes(client.received))
        joined, left = Counter[str](), Counter[str]()
        for line in bytes(self._clients["json"].received).decode("ascii").splitlines():
            event = json.loads(line)
            if event["type"] == "user_joined":
                joined[event["username"]] += 1
            if event["type"] == "user_left":
                left[event["username"]] += 1
        assert joined - Counter({"member-slash": 1, "member-json2": 1}) == left
        for client in self._clients.values():
            client.close()
        self._simulation.advance(_LEAVING_S)
