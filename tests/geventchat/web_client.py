"""HTTP and WebSockets over a simulated client."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from websockets.frames import Close, Opcode

from geventchat import Config, Limits, Listen
from tests.fire.clients import State, receive
from tests.fire.simulation import SimulatedClient, Simulation, simulate

HANDSHAKE = (
    "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
    "Sec-WebSocket-Version: 13\n"
)


_MASK = b"\x01\x02\x03\x04"


def masked(first: int, data: bytes) -> bytes:
    """A masked frame with this first byte, valid or not."""
    if len(data) < 126:
        size = bytes((0x80 | len(data),))
    elif len(data) < 65_536:
        size = b"\xfe" + len(data).to_bytes(2, "big")
    else:
        size = b"\xff" + len(data).to_bytes(8, "big")
    return bytes((first,)) + size + _MASK + bytes(byte ^ _MASK[at % 4] for at, byte in enumerate(data))


def frame(data: str | bytes, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> bytes:
    """A masked frame, as a client sends it."""
    return masked(0x80 * fin | opcode, data.encode() if isinstance(data, str) else data)


@dataclass
class Answer:
    """A response that has arrived."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def object(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@contextmanager
def web(idle_s: float | None = None, **more: Any) -> Iterator[Simulation]:
    """A server with a chat page, and a listener for lines."""
    limits = {key: more.pop(key) for key in list(more) if key in Limits.__dataclass_fields__}
    listen = (Listen("web", "127.0.0.1", 0), Listen("line", "127.0.0.1", 0))
    with simulate(Config(listen=listen, idle_s=idle_s, limits=Limits(**limits), **more)) as simulation:
        yield simulation


def request(
    target: str = "/", fields: str = "", method: str = "GET", body: bytes = b"", host: str = "localhost"
) -> bytes:
    length = f"Content-Length: {len(body)}\n" if body or method == "POST" else ""
    head = f"{method} {target} HTTP/1.1\nHost: {host}\n{length}{fields}\n"
    return head.replace("\n", "\r\n").encode() + body


def answers(client: SimulatedClient, without_bodies: bool = False) -> list[Answer]:
    """The responses that this client has received."""
    found = []
    while client.received:
        head, end, rest = bytes(client.received).partition(b"\r\n\r\n")
        assert end, client.received
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = 0 if without_bodies else int(fields.get("content-length", 0))
        found.append(Answer(int(first.split(" ")[1]), fields, rest[:size]))
        client.received[:] = rest[size:]
    return found


def ask(simulation: Simulation, *args: Any, client: SimulatedClient | None = None, **more: Any) -> Answer:
    """The answer to one request."""
    client = client or simulation.connect("web")
    client.send(request(*args, **more))
    simulation.run_until_idle()
    (answer,) = answers(client, without_bodies=more.get("method") == "HEAD")
    return answer


class FramedClient(SimulatedClient):
    """A client of a simulation that speaks over a WebSocket and is used like one that does not: it has lines on both sides.

    A part of a line is a fragment of a message.
    """

    __slots__ = ("_data", "_is_begun", "_is_open")

    def __init__(self, simulation: Simulation, sock: socket.socket) -> None:
        super().__init__(simulation, sock)
        # What has arrived of a frame that is not complete.
        self._data = bytearray()
        self._is_open = self._is_begun = False
        super().send(request("/ws", HANDSHAKE))

    def send(self, data: bytes) -> None:
        """Send all of it, in frames."""
        *lines, rest = data.split(b"\n")
        frames = [self._frame(line, True) for line in lines]
        if rest:
            frames.append(self._frame(rest, False))
        super().send(b"".join(frames))

    def read(self) -> None:
        """Read what has arrived, and take the lines out of their frames."""
        state = receive(self._sock, self._data)
        if not self._is_open:
            head, end, rest = bytes(self._data).partition(b"\r\n\r\n")
            self._is_open = bool(end)
            assert not end or head.startswith(b"HTTP/1.1 101 "), head
            self._data[:] = rest if end else head
        if self._is_open:
            for opcode, data in frames_of(self._data):
                assert opcode in {Opcode.TEXT, Opcode.CLOSE}, (opcode, data)
                if opcode is Opcode.TEXT:
                    self.received += data + b"\n"
        if state is not State.OPEN:
            self._end(state)

    def _frame(self, data: bytes, fin: bool) -> bytes:
        opcode = Opcode.CONT if self._is_begun else Opcode.TEXT
        self._is_begun = not fin
        return frame(data, opcode, fin)


def frames_of(data: bytearray) -> list[tuple[Opcode, bytes]]:
    """Take the complete frames of a server out of this."""
    found = []
    while len(data) >= 2:
        size, at = data[1], 2
        if size > 125:
            at = {126: 4, 127: 10}[size]
            if len(data) < at:
                break
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            break
        found.append((Opcode(data[0] & 0x0F), bytes(data[at : at + size])))
        del data[: at + size]
    return found


class Socket:
    """A WebSocket of a simulated client."""

    def __init__(
        self,
        simulation: Simulation,
        fields: str = "",
        host: str = "127.0.0.1",
        client: SimulatedClient | None = None,
    ) -> None:
        self.simulation = simulation
        self.client = client or simulation.connect("web", host)
        self.client.send(request("/ws", HANDSHAKE + fields))
        simulation.run_until_idle()
        head, _, rest = bytes(self.client.received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self.client.received[:] = rest

    def frames(self) -> list[tuple[Opcode, bytes]]:
        """The frames that have arrived since the last call."""
        self.simulation.run_until_idle()
        found = frames_of(self.client.received)
        assert not self.client.received, "a frame is not complete"
        return found

    def objects(self) -> list[dict[str, Any]]:
        """The objects that have arrived; fails on any other frame."""
        frames = self.frames()
        assert all(opcode is Opcode.TEXT for opcode, _ in frames), frames
        return [json.loads(data) for _, data in frames]

    def close_code(self) -> int:
        """The code of the Close frame, which must be the last frame."""
        *_, (opcode, data) = self.frames()
        assert opcode is Opcode.CLOSE
        return Close.parse(data).code

    def say(self, **fields: object) -> list[dict[str, Any]]:
        """Send an object, and return the objects that have arrived."""
        self.send(json.dumps(fields))
        return self.objects()

    def send(self, data: str | bytes, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> None:
        """Send a frame."""
        self.client.send(frame(data, opcode, fin))

    def join(self, name: str, **more: object) -> dict[str, Any]:
        (welcome,) = self.say(type="join", v=2, username=name, **more)
        assert welcome["type"] == "welcome"
        return welcome

    def quit(self) -> None:
        """Leave."""
        self.send('{"type": "quit"}')
        assert self.close_code() == 1000
