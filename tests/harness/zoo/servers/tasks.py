"""asyncio streams: a task reads from each client, another drains its queue of messages. With `early` answers do not go
through that queue.

Also a factory for the harness, which runs the server in its own process."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from .room import Action, Chat, Person, arguments


class LoopTimers:
    """Timers of the running loop. Those that are due at the same time fire in the order in which they came."""

    def __init__(self) -> None:
        self.due: list[tuple[float, int, Action]] = []
        self.numbers = count()

    def at(self, delay_s: float, action: Action) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        heapq.heappush(self.due, (due, next(self.numbers), action))
        loop.call_at(due, self.fire)

    def fire(self) -> None:
        # One call for each timer: whichever it was made for, the one that comes first is due.
        heapq.heappop(self.due)[2]()


class QueuePerson(Person):
    def __init__(self, writer: asyncio.StreamWriter, early: bool) -> None:
        super().__init__()
        self.writer = writer
        self.early = early
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.task = asyncio.get_running_loop().create_task(self.drain())

    def send(self, data: bytes) -> None:
        self.queue.put_nowait(data)

    def answer(self, data: bytes) -> None:
        if self.early:
            self.writer.write(data)
        else:
            self.send(data)

    def close(self) -> None:
        self.queue.put_nowait(b"")

    async def drain(self) -> None:
        while data := await self.queue.get():
            self.writer.write(data)
            try:
                await self.writer.drain()
            except OSError:
                break  # it has left; reading tells
        self.writer.close()


class Tasks:
    def __init__(self, options: dict[str, str]) -> None:
        self.early = "early" in options
        self.chat = Chat(options, self.deliver)
        self.timers = LoopTimers()

    def deliver(self, delay_s: float, action: Action) -> None:
        if delay_s:
            self.timers.at(delay_s, action)
        else:
            action()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        person = QueuePerson(writer, self.early)
        self.chat.connect(person)
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self.chat.line(person, line.decode())
        except OSError:
            pass  # it was reset
        self.chat.leave(person)
        person.close()


async def server(port: int, options: dict[str, str]) -> asyncio.Server:
    return await asyncio.start_server(Tasks(options).converse, "127.0.0.1", port, backlog=64)


async def main() -> None:
    async with await server(*arguments()) as started:
        await started.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
