"""Clients of all dialects talk, lose their connections and come back; those of version 2 of json resume where they were.

A witness that never loses its connection receives every message with its id, in the one order of all events. What every
other client receives is compared with that: a part without a gap for each connection, and for clients that resume one
sequence over all their connections.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fire.clients import Client, ClientPool, State
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess

ROOMS = ("lobby", "dev")
_SLASH_SAID = re.compile(rb"[^\s\[\]:]+: (.*)")
_TAKEN = (b"ERR username-taken", b"[error] Username already taken. Try another.")
# Loops for which a client is away at most, and for which it reads nothing before it goes.
_AWAY = 20
_STALL = 10


@dataclass(frozen=True, slots=True)
class Resumed:
    """The result of one run.

    `skipped` is what was too old to be replayed, as the server said, and `cut_off` how often it disconnected a client that
    did not follow a replay.
    """

    clients: int
    messages: int
    received: int
    disconnects: int
    resumptions: int
    replayed: int
    skipped: int
    cut_off: int


@dataclass
class Truth:
    """The messages that the witness received: all of each room, in order, beginning with the id 1."""

    by_room: dict[str, list[str]] = field(default_factory=lambda: {room: [] for room in ROOMS})

    def check_part(self, who: str, room: str, received: list[str], own: str, echoes: bool) -> None:
        """Check that the messages that a connection received of a room have no gap."""
        heard = [text for text in self.by_room[room] if echoes or text.split(" ")[1] != own]
        if received:
            assert received[0] in heard, f"{who} received {received[0]!r}, which no client sent"
            at = heard.index(received[0])
            expected = heard[at : at + len(received)]
            assert received == expected, f"{who} in {room}: {_difference(received, expected)}"


def _difference(received: list[str], expected: list[str]) -> str:
    for got, wanted in zip(received, expected, strict=False):
        if got != wanted:
            return f"received {got!r} where {wanted!r} was due"
    return f"received {len(received)}, not {len(expected)}"


class Resuming:
    """One client of version 2 over all its connections: the ids that it has seen of one room."""

    def __init__(self, who: str, room: str, most_replayed: int) -> None:
        self._who = f"{who} in {room}"
        self._most = most_replayed
        self.last_id: int | None = None
        self.received: dict[int, str] = {}
        self.replayed = 0
        self.skipped = 0
        self._replay_ends = 0

    def welcome(self, last_id: int, replay_from: int) -> None:
        """The server says what it is about to send."""
        if self.last_id is None:
            assert replay_from == last_id + 1, f"{self._who} asked for nothing and gets {replay_from}"
        else:
            missed = last_id - self.last_id
            assert missed >= 0, f"{self._who} has seen {self.last_id}, and the server only {last_id}"
            expected = self.last_id + 1 if missed <= self._most else last_id - self._most + 1
            assert replay_from == expected, f"{self._who}: replay from {replay_from}, not from {expected}"
            self.skipped += replay_from - self.last_id - 1
        self._replay_ends = last_id
        self.last_id = replay_from - 1

    def hear(self, id: int, text: str) -> None:
        """A message, replayed or live."""
        assert self.last_id is not None
        assert id == self.last_id + 1, f"{self._who} received id {id} after {self.last_id}"
        self.last_id = id
        self.received[id] = text
        self.replayed += id <= self._replay_ends

    def check(self, truth: Truth) -> None:
        """Everything is what the witness received under the same id, up to the end."""
        texts = truth.by_room[self._who.rpartition(" ")[2]]
        for id, text in self.received.items():
            assert texts[id - 1] == text, f"{self._who}: id {id} is {text!r}, not {texts[id - 1]!r}"
        assert self.last_id == len(texts), f"{self._who} ends at {self.last_id}, not at {len(texts)}"


class _Person:
    """A client with a name, over all its connections."""

    def __init__(self, name: str, dialect: str, room: str, most_replayed: int) -> None:
        self.name = name
        self.dialect = dialect
        self.room = room
        self.client: Client | None = None
        self.is_in = False
        self.pongs = 0
        self.away = 0
        self.stalled = 0
        self.received = 0
        self.cut_off = 0
        # The messages sent on each connection, and those received on each in each room.
        self.said: list[list[str]] = []
        self.heard: list[dict[str, list[str]]] = []
        self.resuming = {room: Resuming(name, room, most_replayed) for room in ROOMS}
        self._epoch = ""
        self._read = 0
        self._said = 0

    @property
    def resumes(self) -> bool:
        """True for a client that names the last ids that it has seen."""
        return self.dialect == "json2"

    def connect(self, pool: ClientPool, server: ServerProcess) -> None:
        """Connect, and log in."""
        self.client = pool.connect(server.address(self.dialect.rstrip("2")))
        self.is_in, self._read = False, 0
        self.said.append([])
        self.heard.append({room: [] for room in ROOMS})
        self._log_in()

    def disconnect(self, how: str) -> None:
        """Lose the connection, and whatever of it has not been read."""
        assert self.client is not None
        if self.client.state is State.OPEN:
            self.client.abort() if how == "reset" else self.client.close()
        self.client = None

    def _log_in(self) -> None:
        request: dict[str, Any] = {"type": "join", "username": self.name}
        if self.resumes:
            rooms = {room: one.last_id for room, one in self.resuming.items()}
            request |= {"v": 2, "rooms": rooms, "epoch": self._epoch}
        self._send(
            {"line": f"LOGIN {self.name}", "slash": self.name}.get(self.dialect) or json.dumps(request)
        )

    def _send(self, *lines: str) -> None:
        assert self.client is not None
        self.client.send_lines(*lines)

    def say(self, rng: random.Random) -> None:
        """Say something new."""
        room = rng.choice(ROOMS) if self.resumes else self.room
        text = f"{room} {self.name} {self._said}"
        self._said += 1
        self.said[-1].append(text)
        message = json.dumps({"type": "chat", "message": text, **({"room": room} if self.resumes else {})})
        self._send({"line": f"MSG {text}", "slash": text}.get(self.dialect) or message)

    def ping(self) -> None:
        """Ask for an answer that comes behind everything so far."""
        self._send({"line": "PING", "slash": "/ping"}.get(self.dialect) or '{"type": "ping"}')

    def read(self) -> None:
        """Handle the lines that have arrived."""
        if self.client is None:
            return
        end = self.client.received.rfind(b"\n") + 1
        lines = bytes(self.client.received[self._read : end]).split(b"\n")[:-1]
        self._read = max(self._read, end)
        for line in lines:
            if self.dialect.startswith("json"):
                self._read_object(json.loads(line))
            else:
                self._read_line(line)
        if self.client is not None and self.client.state is not State.OPEN:
            # Only those that resume are: when the server forgets what they are about to be sent, they have to come back.
            assert self.resumes, f"{self.name} was disconnected: {self.client.state}"
            self.client = None
            self.cut_off += 1

    def _read_line(self, line: bytes) -> None:
        said = _SLASH_SAID.fullmatch(line) if self.dialect == "slash" else None
        if line in _TAKEN:
            # The server has not noticed yet that the old connection is gone.
            self._log_in()
        elif line == b"OK" and self.room != "lobby" and not self.is_in:
            # Later messages are handled after it.
            self._send(f"JOIN {self.room}")
            self.is_in = True
        elif line == b"OK" or line.startswith(b"Connected!"):
            self.is_in = True
        elif line.lower() == b"pong":
            self.pongs += 1
        elif line.startswith(b"MSG "):
            self._hear(line.split(b" ", 2)[2].decode())
        elif said is not None:
            self._hear(said[1].decode())

    def _read_object(self, one: dict[str, Any]) -> None:
        match one:
            case {"type": "welcome"}:
                self.is_in = True
                for room, state in one.get("rooms", {}).items():
                    self.resuming[room].welcome(state["last_id"], state["replay_from"])
                self._epoch = one.get("epoch", "")
            case {"type": "chat", "room": room, "id": id, "message": text}:
                self.resuming[room].hear(id, text)
                self._hear(text)
            case {"type": "chat", "message": text}:
                self._hear(text)
            case {"type": "pong"}:
                self.pongs += 1
            case {"type": "error"}:
                assert "taken" in json.dumps(one), f"{self.name}: {one}"
                self._log_in()

    def _hear(self, text: str) -> None:
        self.heard[-1][text.partition(" ")[0]].append(text)
        self.received += 1


def resume(clients: int, loops: int, seed: int, most_replayed: int) -> Resumed:
    """Let this many clients of each dialect, and twice as many that resume, talk for this many loops."""
    rng = random.Random(seed)
    options = ("--rate=0", "--idle-timeout=0", f"--history-messages={most_replayed}", *NO_ADDRESS_RATES)
    with ServerProcess(*options, dialects=("line", "slash", "json")) as server, ClientPool() as pool:
        witness = _Person("witness", "json2", "lobby", most_replayed)
        people = [
            _Person(
                f"{dialect}{n}", dialect, "dev" if dialect == "line" and n % 2 else "lobby", most_replayed
            )
            for dialect in ("line", "slash", "json", "json2", "json2")
            for n in range(clients)
        ]
        # The second half of those that resume has separate names.
        for n, person in enumerate(people[-clients:]):
            person.name = f"again{n}"
        witness.connect(pool, server)
        pool.wait_for("the witness is in", lambda: _read_all([witness]) or witness.is_in)
        for person in people:
            person.connect(pool, server)
        pool.wait_for("everyone is in", lambda: _read_all(people) or all(one.is_in for one in people))
        disconnects = 0
        for _ in range(loops):
            for person in people:
                disconnects += _act(person, rng, pool, server)
            pool.poll(rng.choice((0.0, 0.001, 0.01)))
            _read_all([witness, *[one for one in people if not one.stalled]])
        _finish(pool, server, witness, people)
        truth = Truth({room: list(one.received.values()) for room, one in witness.resuming.items()})
        assert all(min(one.received, default=1) == 1 for one in witness.resuming.values())
        _check(truth, people)
        resuming = [one for person in people if person.resumes for one in person.resuming.values()]
        return Resumed(
            len(people),
            sum(map(len, truth.by_room.values())),
            sum(person.received for person in people),
            disconnects,
            sum(len(person.said) - 1 for person in people if person.resumes),
            sum(one.replayed for one in resuming),
            sum(one.skipped for one in resuming),
            sum(person.cut_off for person in people),
        )


def _read_all(people: list[_Person]) -> bool:
    for person in people:
        person.read()
    return False


def _act(person: _Person, rng: random.Random, pool: ClientPool, server: ServerProcess) -> int:
    """Run one client in a loop; returns 1 if it loses its connection."""
    if person.client is None:
        person.away -= 1
        if person.away <= 0:
            person.connect(pool, server)
        return 0
    chance = rng.random()
    if person.stalled:
        # Input that arrives meanwhile, perhaps even the end, is unread when the connection is lost.
        person.stalled -= 1
        if person.stalled:
            return 0
        person.disconnect(rng.choice(("reset", "close")))
        person.away = rng.randrange(_AWAY)
        return 1
    if chance < 0.01:
        person.stalled = rng.randrange(1, _STALL)
    elif chance < 0.4 and person.is_in and not person.client.unsent:
        for _ in range(rng.randrange(1, 4)):
            person.say(rng)
    return 0


def _finish(pool: ClientPool, server: ServerProcess, witness: _Person, people: list[_Person]) -> None:
    """Everyone has said everything, is back, and has received everything."""
    everyone = [witness, *people]

    def all_are_in() -> bool:
        for person in everyone:
            person.stalled = 0
            if person.client is None:
                person.connect(pool, server)
        _read_all(everyone)
        return all(person.is_in and person.client is not None for person in everyone)

    def ask_all() -> Callable[[], bool]:
        answered = [person.pongs for person in everyone]
        for person in everyone:
            person.ping()

        def all_are_answered() -> bool:
            _read_all(everyone)
            return all(
                person.pongs > before or person.client is None
                for person, before in zip(everyone, answered, strict=True)
            )

        return all_are_answered

    # All messages are handled, then the clients come back that could not follow them, then everything is received.
    pool.wait_for("everyone is back", all_are_in)
    pool.wait_for("everything is handled", ask_all())
    pool.wait_for("everyone is back", all_are_in)
    for _ in range(2):
        pool.wait_for("everyone is answered", ask_all())
    assert all(person.client is not None for person in everyone), "someone was disconnected at the end"


def _check(truth: Truth, people: list[_Person]) -> None:
    places = {text: at for texts in truth.by_room.values() for at, text in enumerate(texts)}
    assert len(places) == sum(map(len, truth.by_room.values())), "a message is there twice"
    for person in people:
        for number, said in enumerate(person.said):
            handled = [text for text in said if text in places]
            # A connection that is lost takes the end of what it said with it, and nothing from the middle.
            assert handled == said[: len(handled)], f"{person.name} was not heard in between"
            assert number < len(person.said) - 1 or handled == said, f"{person.name} was not heard at last"
        for room in ROOMS:
            said_here = [text for said in person.said for text in said if text.startswith(f"{room} ")]
            mine = [places[text] for text in said_here if text in places]
            assert mine == sorted(mine), f"{person.name} was heard in another order"
            if person.resumes:
                person.resuming[room].check(truth)
                continue
            for heard in person.heard:
                truth.check_part(person.name, room, heard[room], person.name, person.dialect == "json")
