"""Asyncio servers for faults and schedules: a correct one, under every schedule, and variants that are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from harness import ServerSpec, UnsupportedSpec

TALK = """\
alice connects
bob connects
carol connects
dave connects

alice> hello there
in any order, the same for bob carol dave:
    < hello there

bob>> one\\ntwo\\nthree\\n
alice< one
alice< two
alice< three
carol< one
carol< two
carol< three
dave< one
dave< two
dave< three

together:
    alice> left
    dave> right
in any order, the same for bob carol:
    < left
    < right
alice< right
dave< left

carol closes
in any order, the same for alice bob dave:
    < gone
"""
"""A script that the correct server passes, and each variant without perturbations."""


class Correct:
    """Each line goes to everyone else; when a connection ends, all others learn how."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self.writers: list[asyncio.StreamWriter] = []
        self.speaking = asyncio.Lock()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        if self.spec.options.get("kind") == "probing":
            # Probes silent peers after 10 s, three times, 5 s apart.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        writer.transport.set_write_buffer_limits(0)  # so that drain waits for every byte
        self.writers.append(writer)
        how = "gone"
        try:
            while line := await self.read(reader):
                await self.say(line, writer)
        except OSError as error:
            how = f"lost: {error.strerror}"
        self.writers.remove(writer)
        writer.close()
        await self.say(f"{how}\n".encode(), writer)

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.readline()

    async def say(self, line: bytes, by: asyncio.StreamWriter) -> None:
        async with self.speaking:
            await self.send(line, by)

    async def send(self, line: bytes, by: asyncio.StreamWriter) -> None:
        for other in self.listeners(by):
            if not other.is_closing():
                other.write(line)
                with contextlib.suppress(OSError):
                    await other.drain()

    def listeners(self, by: asyncio.StreamWriter) -> list[asyncio.StreamWriter]:
        return [one for one in self.writers if one is not by]


class OneReadIsOneLine(Correct):
    async def read(self, reader: asyncio.StreamReader) -> bytes:
        chunk = await reader.read(4096)
        return chunk.rstrip(b"\n") + b"\n" if chunk else b""


class ListenersDisagree(Correct):
    """Sends to the neighbours first, and while one of them is slow, another speaker overtakes at the next."""

    async def say(self, line: bytes, by: asyncio.StreamWriter) -> None:
        await self.send(line, by)

    def listeners(self, by: asyncio.StreamWriter) -> list[asyncio.StreamWriter]:
        here = self.writers.index(by) if by in self.writers else 0
        return sorted(super().listeners(by), key=lambda one: abs(self.writers.index(one) - here))


class LosesUpdates(Correct):
    """Messages that come while the last lines are being sent are forgotten together with them."""

    def __init__(self, spec: ServerSpec) -> None:
        super().__init__(spec)
        self.said: list[tuple[bytes, asyncio.StreamWriter]] = []
        self.sending: asyncio.Task[None] | None = None

    async def say(self, line: bytes, by: asyncio.StreamWriter) -> None:
        self.said.append((line, by))
        self.sending = self.sending or asyncio.ensure_future(self.send_all())

    async def send_all(self) -> None:
        for line, by in list(self.said):
            for other in self.writers:
                if other is not by:
                    other.write(line)
        await asyncio.sleep(0)
        self.said.clear()
        self.sending = None


class Careless:
    """Its own sockets, and it ignores how much a send has taken."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.addresses = {"": self.listening.getsockname()}
        self.accepting = asyncio.ensure_future(self.accept())

    async def accept(self) -> None:
        loop = asyncio.get_running_loop()
        talking = set()
        while True:
            sock, _ = await loop.sock_accept(self.listening)
            talking.add(asyncio.ensure_future(self.talk(sock)))

    async def talk(self, sock: socket.socket) -> None:
        with sock:
            while data := await asyncio.get_running_loop().sock_recv(sock, 4096):
                sock.send(data)

    def close(self) -> None:
        self.accepting.cancel()
        self.listening.close()


class ByTheWallClock(Correct):
    """Measures a minute of silence by the time of day."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        last = self.spec.clock.time()
        reading = asyncio.ensure_future(reader.readline())
        while not reading.done():
            await asyncio.wait([reading], timeout=1)
            if self.spec.clock.time() - last >= 60:
                reading.cancel()
                return b""
        return await reading


FAULTS: dict[str, type[Correct]] = {
    "": Correct,
    "reads": OneReadIsOneLine,
    "stalls": ListenersDisagree,
    "order": LosesUpdates,
    "wall-clock": ByTheWallClock,
}


async def serve(spec: ServerSpec) -> Any:
    """The server that the option `fault` names."""
    fault = spec.options.get("fault", "")
    if fault == "careless":
        return Careless()
    if fault not in FAULTS:
        raise UnsupportedSpec(f"no fault {fault!r}; known: {', '.join(FAULTS)}, careless")
    return await asyncio.start_server(FAULTS[fault](spec).converse, "127.0.0.1", 0)
