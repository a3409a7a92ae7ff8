"""asyncio protocols: one loop reads and writes, and nothing is queued.

Also a factory for the harness, which runs the server in its own process."""

from __future__ import annotations

import asyncio

from .room import Action, Chat, Person, arguments
from .tasks import LoopTimers


class Protocol(asyncio.Protocol, Person):
    transport: asyncio.Transport

    def __init__(self, chat: Chat) -> None:
        Person.__init__(self)
        self.chat = chat
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.chat.connect(self)

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.chat.line(self, line.decode())

    def connection_lost(self, error: Exception | None) -> None:
        self.chat.leave(self)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        self.transport.close()


async def server(port: int, options: dict[str, str]) -> asyncio.Server:
    timers = LoopTimers()

    def deliver(delay_s: float, action: Action) -> None:
        if delay_s:
            timers.at(delay_s, action)
        else:
            action()

    chat = Chat(options, deliver)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Protocol(chat), "127.0.0.1", port, backlog=64)


async def main() -> None:
    async with await server(*arguments()) as started:
        await started.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
