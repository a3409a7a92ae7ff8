"""Programs that replace each other while thousands chat: no connection is lost, and no line is lost, doubled or reordered.

In each room the first person speaks and the second notes when it hears what. One person over WebSocket is in each room, and
in every fifth one over TLS, who has to connect again, and resumes. One person reads nothing, and another is in the middle
of a line the whole time. One of the new programs fails when it has taken everything over.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from geventchat.admin.protocol import encode
from tests.certificates import made_certificate
from tests.fire.clients import Client, ClientPool, State, log_in
from tests.fire.process import ServerProcess
from tests.patience import HANG_S
from tests.tls_client import MemoryClient, client_context

# People in a room: all but one of them receive each message.
_ROOM = 20
_SECURE_EVERY = 5
# More than the kernel takes for someone who reads nothing, and less than what counts as being behind.
_UNREAD = 80, 3_900
_SECURE = "json+tls"
_END = "the end"
# The failure of a program that takes over, after the other one has stopped serving.
_BROKEN = "import geventchat.server as one; one.Server.go_on = lambda self: 1 / 0; "
_START = "from geventchat.cli import main; raise SystemExit(main())"
_HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The result of one run. A latency is the time from the sending of a message to its arrival at one of the others."""

    clients: int
    websockets: int
    tls: int
    upgrades: int
    messages: int
    received: int
    # How often someone over TLS came back.
    resumed: int
    latency_ms: float
    # As the server measures them, from its rest until the new program serves.
    pauses_ms: list[int]
    # The longest latency around each upgrade, without the usual one.
    felt_ms: list[float]
    # The same around the upgrade that failed.
    failed_ms: float

    @property
    def longest_ms(self) -> float:
        """The longest pause, however it was measured."""
        return max(*self.pauses_ms, *self.felt_ms)


class Page:
    """A client over WebSocket, in version 2 of json."""

    def __init__(self, pool: ClientPool, server: ServerProcess, name: str, room: str) -> None:
        address = server.address("web")
        self.wire = pool.connect(address)
        self.wire.send((_HANDSHAKE % address[1]).encode())
        join = _join(name, room, None)
        assert len(join) < 126
        # A mask of zeroes changes nothing.
        self.wire.send(bytes((0x81, 0x80 | len(join))) + bytes(4) + join)

    @property
    def is_here(self) -> bool:
        """True when it is in the room."""
        return b'"welcome"' in self.wire.received

    @property
    def has_ended(self) -> bool:
        """True when it has received the last message."""
        return _END.encode() in self.wire.received

    def texts(self, speaker: str) -> list[str]:
        """The messages that it received from this person."""
        head, _, data = bytes(self.wire.received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        objects, at = [], 0
        while at < len(data):
            size, begin = data[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(data[begin : begin + 2], "big"), begin + 2
            assert data[at] == 0x81, f"a frame that is no text: {data[at : at + 20]!r}"
            at = begin + size
            objects.append(json.loads(data[begin:at]))
        return [text for _, text in _said(objects, speaker)]


class Secure:
    """A client over TLS, in version 2 of json, which reconnects when the server ends the connection."""

    def __init__(self, pool: ClientPool, server: ServerProcess, name: str, room: str) -> None:
        self._pool = pool
        self._address = server.address(_SECURE)
        self._name = name
        self._room = room
        self._context = client_context()
        self._objects: list[dict[str, Any]] = []
        self.times = -1
        self._connect()

    def _connect(self) -> None:
        self.times += 1
        self.wire = self._pool.connect(self._address)
        self._memory = MemoryClient(self._context)
        self._joined = False

    def go_on(self) -> None:
        """Decrypt the input, send the pending bytes, and reconnect after the end."""
        memory, wire = self._memory, self.wire
        if wire.received:
            came = bytes(wire.received)
            wire.received.clear()
            memory.feed(came)
        if out := memory.take():
            wire.send(out)
        if memory.secure and not self._joined:
            self._joined = True
            last = max((one["id"] for one in self._objects if one["type"] == "chat"), default=0)
            wire.send(memory.send(_join(self._name, self._room, last) + b"\n"))
        *lines, rest = bytes(memory.received).split(b"\n")
        memory.received[:] = rest
        self._objects += map(json.loads, lines)
        if memory.ended or wire.state is not State.OPEN:
            last_word = self._objects[-1]
            assert (last_word["type"], last_word["code"]) == ("error", "server-shutdown"), last_word
            wire.close()
            self._connect()

    @property
    def is_here(self) -> bool:
        """True when it is in the room, or has been."""
        return bool(self._objects)

    @property
    def has_ended(self) -> bool:
        """True when it has received the last message."""
        return any(one.get("message") == _END for one in self._objects[-3:])

    def texts(self, speaker: str) -> list[str]:
        """The messages that it received from this person, over all its connections."""
        said = _said(self._objects, speaker)
        assert [id for id, _ in said] == list(range(1, len(said) + 1))
        return [text for _, text in said]


def _join(name: str, room: str, after: int | None) -> bytes:
    return json.dumps({"type": "join", "v": 2, "username": name, "rooms": {room: after}}).encode()


def _said(objects: list[dict[str, Any]], speaker: str) -> list[tuple[int, str]]:
    return [
        (one["id"], one["message"]) for one in objects if one["type"] == "chat" and one["username"] == speaker
    ]


@dataclass
class Room:
    """The people in a room; the first of those with lines speaks."""

    name: str
    lines: list[Client]
    others: list[Page | Secure]
    sent: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    heard: int = 0

    @property
    def speaker(self) -> str:
        """The name of the one who speaks."""
        return f"{self.name}-0"

    def say(self, text: str) -> None:
        """Have the speaker say something."""
        self.lines[0].send_lines(f"MSG {text}")
        self.said.append(text)


class Chat:
    """All rooms, and what is said and heard there."""

    def __init__(self, pool: ClientPool, server: ServerProcess, clients: int, per_s: float) -> None:
        self._pool = pool
        self._per_s = per_s
        self.rooms = [self._room(server, at, min(_ROOM, clients - at)) for at in range(0, clients, _ROOM)]
        self.pages = [one for room in self.rooms for one in room.others if isinstance(one, Page)]
        self.secure = [one for room in self.rooms for one in room.others if isinstance(one, Secure)]
        self.latencies: list[float] = []
        self._turn = 0
        first = self.rooms[0]
        self._sleeper, self._typist = first.lines[2], first.lines[3]
        self._sleeper.stop_reading()
        for number in range(_UNREAD[0]):
            first.say(f"{number} {'x' * _UNREAD[1]}")
        pool.wait_until_found(first.lines[1:2], b" %d x" % (_UNREAD[0] - 1))
        first.sent = [0.0] * len(first.said)
        first.heard = len(first.said)
        self._typist.send(b"MSG half of a line")
        self._due = time.monotonic()

    def _room(self, server: ServerProcess, at: int, people: int) -> Room:
        number = at // _ROOM
        name = f"r{number}"
        is_secure = number % _SECURE_EVERY == _SECURE_EVERY - 1 or people < _ROOM or at == 2 * _ROOM
        lines = people - 1 - is_secure
        few = 2_304 if number == 0 else 0
        clients = log_in(self._pool, server.address(), [f"{name}-{one}" for one in range(lines)], few)
        for client in clients:
            client.send_lines(f"JOIN {name}")
        self._pool.wait_until_found(clients, b"\nOK\n")
        others: list[Page | Secure] = [Page(self._pool, server, f"{name}-page", name)]
        if is_secure:
            others.append(Secure(self._pool, server, f"{name}-tls", name))

        def all_are_here() -> bool:
            self._pump(others)
            return all(one.is_here for one in others)

        self._pool.wait_for("those over WebSocket and TLS are there", all_are_here)
        return Room(name, clients, others)

    @staticmethod
    def _pump(others: list[Page | Secure]) -> None:
        for one in others:
            if isinstance(one, Secure):
                one.go_on()

    def go_on(self) -> None:
        """Say what is due, and hear what has come."""
        now = time.monotonic()
        if now >= self._due:
            self._due = max(self._due + 1 / self._per_s, now - 1)
            self._turn = (self._turn + 1) % len(self.rooms)
            room = self.rooms[self._turn]
            room.say(str(len(room.said)))
            room.sent.append(now)
        self._pool.poll(min(0.01, max(0.0, self._due - time.monotonic())))
        for room in self.rooms:
            while room.heard < len(room.said) and room.lines[1].find_next(
                f" {room.speaker} {room.said[room.heard]}\n".encode()
            ):
                self.latencies.append(time.monotonic() - room.sent[room.heard])
                room.heard += 1
        # One at a time, because handshakes of many would delay what is measured.
        self.secure.append(self.secure.pop(0))
        self.secure[0].go_on()

    def go_on_for(self, seconds: float) -> None:
        """Chat for this long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.go_on()

    def take_latencies(self) -> list[float]:
        """The latencies since the last call, in ms."""
        found, self.latencies = self.latencies, []
        return [1000 * one for one in found]

    def check(self) -> int:
        """Everyone has received everything that was said, once and in order. Returns how many lines that is."""
        self._typist.send(b" and the rest\n")
        received = 0
        for room in self.rooms:
            room.say(_END)
            ending = f"MSG {room.speaker} {_END}\n".encode()
            for one in room.lines[1:]:
                if one is self._sleeper:
                    _read_up_to(one, ending)
                self._pool.wait_for("all is heard", lambda one=one, ending=ending: ending in one.received)  # type: ignore[misc]
        self._pool.wait_for("all is heard over WebSocket and TLS", self._others_have_ended)
        for room in self.rooms:
            for client in (*room.lines, *(one.wire for one in room.others)):
                assert client.state is State.OPEN, f"a client of {room.name} has lost its connection"
            said = [f"MSG {room.speaker} {text}".encode() for text in room.said]
            for client in room.lines[1:]:
                found = [line for line in client.lines if line.startswith(said[-1][: -len(_END)])]
                assert found == said, f"{room.name}: {_difference(found, said)}"
                received += len(found)
            for one in room.others:
                texts = one.texts(room.speaker)
                assert texts == room.said, (
                    f"{room.name}, {type(one).__name__}: {_difference(texts, room.said)}"
                )
                received += len(texts)
        assert (
            f"MSG {self.rooms[0].name}-3 half of a line and the rest".encode() in self.rooms[0].lines[1].lines
        )
        return received

    def _others_have_ended(self) -> bool:
        self._pump([*self.secure])
        return all(one.has_ended for one in (*self.pages, *self.secure))


def _read_up_to(client: Client, ending: bytes) -> None:
    """Read all that waits for a client that has read nothing."""
    client.sock.settimeout(HANG_S)
    while ending not in client.received:
        data = client.sock.recv(65_536)
        assert data, "the one who reads nothing has lost its connection"
        client.received += data


def _difference(found: list[Any], said: list[Any]) -> str:
    for at, (got, wanted) in enumerate(zip(found, said, strict=False)):
        if got != wanted:
            return f"{got!r:.100} where {wanted!r:.100} was due, line {at}"
    return f"{len(found)} lines, not {len(said)}"


# --- The server ------------------------------------------------------------------------------------------------------


@contextmanager
def _server(clients: int, folder: Path, stored: bool) -> Iterator[tuple[ServerProcess, str]]:
    path = str(folder / "admin")
    cert, key = made_certificate()
    options = [
        *(f"--max-clients={clients}", f"--max-per-address={clients}", "--rate=0", "--idle-timeout=0"),
        *(f"--tls-cert={cert}", f"--tls-key={key}", f"--admin-socket={path}"),
        *([f"--data={folder / 'data'}"] if stored else []),
    ]
    with ServerProcess(*options, dialects=("web", _SECURE)) as server:
        try:
            yield server, path
            assert "fault" not in server.log(), server.log()[-4_000:]
        finally:
            with suppress(AssertionError, OSError):
                os.kill(_ask(path, "status")[0]["pid"], signal.SIGKILL)


def _ask(path: str, act: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The answer to an act of an operator, with its rows."""
    rows: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(HANG_S)
        asking.connect(path)
        asking.sendall(encode({"act": act}))
        with asking.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                rows += answer.get("rows", ())
                if "done" in answer:
                    return answer["done"], rows
    raise AssertionError(f"{act} has no answer")


def _upgrade(path: str, chat: Chat, python: str = "") -> dict[str, Any]:
    """The last line of the answer; everyone chats until it comes."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        asking.sendall(encode({"act": "upgrade", **({"python": python} if python else {})}))
        asking.setblocking(False)
        answer = b""
        while b"done" not in answer and b"error" not in answer:
            chat.go_on()
            with suppress(BlockingIOError):
                some = asking.recv(65_536)
                assert some, f"the server has answered no more than {answer!r}"
                answer += some
    last: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return last


def _broken_program(folder: Path) -> str:
    path = folder / "broken-python"
    path.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} -c {shlex.quote(_BROKEN + _START)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def upgrades(clients: int, per_s: float, times: int, stored: bool, between_s: float = 1.0) -> Upgraded:
    """`clients` chat in rooms and say `per_s` messages each second, while the program is replaced this many times.

    Between two upgrades they chat for `between_s`, so that each is felt by itself.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(clients, Path(folder), stored) as (server, path),
        ClientPool() as pool,
    ):
        chat = Chat(pool, server, clients, per_s)
        waiting = {one["name"]: one["waiting_bytes"] for one in _ask(path, "who")[1]}
        assert waiting["r0-2"], "nothing waits for the one who reads nothing"
        chat.go_on_for(between_s)
        usual_ms = median(chat.take_latencies())
        pauses, felt, failed_ms = [], [], 0.0
        for number in range(times):
            is_broken = number == times // 2
            answer = _upgrade(path, chat, _broken_program(Path(folder)) if is_broken else "")
            chat.go_on_for(between_s)
            felt_ms = round(max(chat.take_latencies()) - usual_ms, 1)
            if is_broken:
                assert "division by zero" in answer["error"]["message"], answer
                failed_ms = felt_ms
            else:
                pauses.append(round(1000 * answer["done"]["pause_s"]))
                felt.append(felt_ms)
        received = chat.check()
        assert _ask(path, "status")[0]["connections"] == clients
        return Upgraded(
            clients,
            len(chat.pages),
            len(chat.secure),
            times,
            sum(len(room.said) for room in chat.rooms),
            received,
            sum(one.times for one in chat.secure),
            round(usual_ms, 1),
            pauses,
            felt,
            failed_ms,
        )
