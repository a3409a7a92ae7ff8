"""A chat server on asyncio's protocols (no streams, no tasks): the fastest way asyncio has.

A peer for the benchmark that speaks only the `line` dialect. It knows neither geventchat nor the benchmark.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

MAX_QUEUE_BYTES = 1 << 20
COMMANDS_BEFORE_LOGIN = {b"LOGIN", b"QUIT", b"EXIT"}


class Chat(asyncio.Protocol):
    """One connection. All of them share the dictionary of members."""

    transport: asyncio.Transport

    def __init__(self, members: dict[bytes, Chat]) -> None:
        self.members = members
        self.name: bytes | None = None
        self.unfinished = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport does not inherit from it
        self.transport.set_write_buffer_limits(high=MAX_QUEUE_BYTES)

    def pause_writing(self) -> None:
        self.transport.abort()  # it will not catch up

    def connection_lost(self, exc: Exception | None) -> None:
        if self.name is not None:
            del self.members[self.name]
            self.broadcast(b"INFO " + self.name + b" disconnected\n")

    def data_received(self, data: bytes) -> None:
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if line:
                self.handle(line)

    def broadcast(self, data: bytes) -> None:
        # A copy, because a member that is too slow leaves the dictionary during the loop.
        for member in list(self.members.values()):
            if member is not self:
                member.transport.write(data)

    def handle(self, line: bytes) -> None:
        write = self.transport.write
        word, _, rest = line.partition(b" ")
        command = word.upper()
        if self.name is None and command not in COMMANDS_BEFORE_LOGIN:
            write(b"ERR must-login-first\n")
        elif command == b"MSG":
            if text := rest.strip():
                self.broadcast(b"MSG " + (self.name or b"") + b" " + text + b"\n")
            else:
                write(b"ERR empty-message\n")
        elif command == b"LOGIN":
            write(b"ERR already-logged-in\n" if self.name else self.login(rest.strip()))
        elif command == b"PING":
            write(b"PONG " + rest + b"\n" if rest else b"PONG\n")
        elif command == b"WHO":
            write(b"".join(b"USER " + name + b"\n" for name in self.members))
        elif command == b"DM":
            to, _, text = rest.partition(b" ")
            if not text:
                write(b"ERR invalid-dm-format\n")
            elif (target := self.members.get(to)) is None:
                write(b"ERR user-not-found\n")
            else:
                target.transport.write(b"DM " + (self.name or b"") + b" " + text + b"\n")
        elif command in (b"QUIT", b"EXIT"):
            write(b"Goodbye!\n")
            self.transport.close()
        else:
            write(b"ERR unknown-command\n")

    def login(self, name: bytes) -> bytes:
        if not name or b" " in name:
            return b"ERR invalid-username\n"
        if name in self.members:
            return b"ERR username-taken\n"
        self.name = name
        self.members[name] = self
        return b"OK\n"


async def serve(port: int, *pair: str) -> None:
    """Serve; with the files of a certificate and its key, over TLS."""
    members: dict[bytes, Chat] = {}
    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
    server = await asyncio.get_running_loop().create_server(
        lambda: Chat(members), "127.0.0.1", port, backlog=4096, ssl=context
    )
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), *sys.argv[2:]))
