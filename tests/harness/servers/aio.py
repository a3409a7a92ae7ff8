"""Asyncio servers: one that answers late in many ways, and the forms in which a server can be handed to the harness.

Knows no gevent, so that it can be played where gevent is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import ServerSpec, UnsupportedSpec
from tests.patience import HANG_S

REAL_DELAY_S = 0.03
IDLE_S = 60


class Lingering(ThreadPoolExecutor):
    """Its threads are busy for a moment after their result has arrived."""

    def submit(self, *_: Any, **__: Any) -> Any:
        future = super().submit(time.sleep, 0.01)
        # After asyncio's callback.
        asyncio.get_running_loop().call_soon(future.add_done_callback, lambda _: time.sleep(0.003))
        return future


class Late:
    """Each command sends `done` in one way; any other line is sent to all others unchanged. What works unseen does so until
    END: it must still work when the fence looks, however busy the machine is."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.may_end = threading.Event()
        self.work: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self.tasks: set[asyncio.Task[None]] = set()
        self.pool: ThreadPoolExecutor | None = None
        self.server: asyncio.Server

    async def __aenter__(self) -> asyncio.Server:
        self.server = await asyncio.start_server(self.converse, "127.0.0.1", 0)
        self.start(self.work_off())
        return self.server

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.may_end.set()
        if self.pool is not None:
            self.pool.shutdown()

    def start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while line := await reader.readline():
                await self.handle_line(writer, line)
        finally:
            self.writers.remove(writer)
            writer.close()

    async def handle_line(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        def done() -> None:
            writer.write(b"done\n")

        loop = asyncio.get_running_loop()
        match line.decode("latin-1").split():
            case ["SLEEP", seconds]:
                await asyncio.sleep(float(seconds))
                done()
            case ["TIMEOUT", seconds]:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), float(seconds))
                done()
            case ["LATER", seconds]:
                loop.call_later(float(seconds), done)
            case ["JOB"]:
                await asyncio.to_thread(time.sleep, REAL_DELAY_S)
                done()
            case ["LINGER"]:
                self.pool = self.pool or Lingering(1)
                await loop.run_in_executor(self.pool, int)
                done()
            case ["QUICK-JOB"]:
                await asyncio.to_thread(int)
                done()
            case ["OWN-POOL"]:
                self.pool = self.pool or ThreadPoolExecutor(1)
                await loop.run_in_executor(self.pool, time.sleep, REAL_DELAY_S)
                done()
            case ["JOB-THEN-SLEEP", seconds]:
                await asyncio.to_thread(time.sleep, REAL_DELAY_S)
                await asyncio.sleep(float(seconds))
                done()
            case ["SPAWN", depth]:
                self.start(self.descend(int(depth), done))
            case ["QUEUE"]:
                self.work.put_nowait(done)
            case ["PIECES"]:
                for piece in (b"do", b"n", b"e", b"\n"):
                    writer.write(piece)
                    await writer.drain()
            case ["THREAD"]:
                self.in_a_thread(lambda: loop.call_soon_threadsafe(done))
            case ["END"]:
                self.may_end.set()
            case ["SUBMIT"]:
                self.pool = self.pool or ThreadPoolExecutor(1)
                job = self.pool.submit(self.may_end.wait, HANG_S)
                job.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
            case ["PROCESS"]:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-S", "-c", "print('done')", stdout=asyncio.subprocess.PIPE
                )
                output, _ = await process.communicate()
                writer.write(output)
            case ["SLOW-PROCESS"]:
                code = "import time; time.sleep(0.4); print('done')"
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-S", "-c", code, stdout=asyncio.subprocess.PIPE
                )
                output, _ = await process.communicate()
                writer.write(output)
            case ["CHILD"]:
                await asyncio.create_subprocess_exec("sleep", "1000")
                done()
            case ["STUCK"]:
                await asyncio.to_thread(time.sleep, 1.0)
            case ["BLOCK"]:
                time.sleep(1.0)
            case ["SPIN"]:
                while True:
                    await asyncio.sleep(0)
            case ["CRASH"]:
                raise RuntimeError("this server crashes when asked to")
            case ["TASK-CRASH"]:
                self.start(self.crash())
                done()
            case ["CALLBACK-CRASH"]:
                loop.call_soon(int, "not a number")
                done()
            case ["KEEP"]:
                self.kept = asyncio.ensure_future(self.crash())
                done()
            case ["ASK"]:
                writer.write(f"{self.kept.exception()}\n".encode())
            case ["HANDLED"]:
                with contextlib.suppress(RuntimeError):
                    await asyncio.ensure_future(self.crash())
                done()
            case ["EXIT"]:
                sys.exit(3)
            case _:
                for other in self.writers:
                    if other is not writer:
                        other.write(line)

    async def crash(self) -> None:
        raise RuntimeError("this task crashes when asked to")

    async def descend(self, depth: int, done: Callable[[], None]) -> None:
        if depth:
            self.start(self.descend(depth - 1, done))
        else:
            done()

    async def work_off(self) -> None:
        while True:
            (await self.work.get())()

    def in_a_thread(self, done: Callable[[], Any]) -> None:
        def work() -> None:
            self.may_end.wait(HANG_S)
            done()

        threading.Thread(target=work, daemon=True).start()


def late(spec: ServerSpec) -> Late:
    """A plain factory of an async context manager."""
    return Late()


# --- a chat --------------------------------------------------------------------------------------------------


class Chat(asyncio.Protocol):
    """LOGIN name, MSG text, PING; on protocols and transports."""

    def __init__(self, people: dict[str, Chat], clock: Any = None) -> None:
        self.people = people
        self.clock = clock
        self.name = ""
        self.partial = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            self.line_received(line.decode())

    def line_received(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        match command:
            case "LOGIN" if rest in self.people:
                self.send("ERR taken")
            case "LOGIN":
                self.name = rest
                self.people[rest] = self
                self.send("OK")
            case "PING":
                self.send("PONG")
            case "TIME":
                self.send(f"{self.clock.time():.3f}")
            case "MSG":
                self.say(rest)
            case "BYE":
                self.transport.close()
            case _:
                raise ValueError(f"unknown command {command!r}")

    def say(self, text: str) -> None:
        for name, other in self.people.items():
            if name != self.name:
                other.send(f"MSG {self.name} {text}")

    def send(self, line: str) -> None:
        self.transport.write(f"{line}\n".encode())

    def connection_lost(self, error: Exception | None) -> None:
        if self.people.get(self.name) is self:
            del self.people[self.name]


class Echoes(Chat):
    """A wrong server: the speaker hears it, too."""

    def say(self, text: str) -> None:
        for other in self.people.values():
            other.send(f"MSG {self.name} {text}")


class ForgetsTheLast(Chat):
    """A wrong server: the latest client hears nothing."""

    def say(self, text: str) -> None:
        for other in list(self.people.values())[:-1]:
            if other is not self:
                other.send(f"MSG {self.name} {text}")


class AnswersLate(Chat):
    """A wrong server: messages arrive half a second late."""

    def say(self, text: str) -> None:
        asyncio.get_running_loop().call_later(0.5, super().say, text)


WRONG: dict[str, type[Chat]] = {"": Chat, "echoes": Echoes, "forgets": ForgetsTheLast, "late": AnswersLate}


async def chat(spec: ServerSpec) -> asyncio.Server:
    """A coroutine function that returns an asyncio.Server; the option `fault` chooses a wrong one."""
    if unknown := set(spec.options) - {"fault"}:
        raise UnsupportedSpec(f"no option {min(unknown)!r}; known: fault")
    kind = WRONG[spec.options.get("fault", "")]
    people: dict[str, Chat] = {}
    return await asyncio.get_running_loop().create_server(lambda: kind(people, spec.clock), "127.0.0.1", 0)


# --- other forms ---------------------------------------------------------------------------------------------


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echoes lines, and closes after a minute without one."""
    try:
        while line := await asyncio.wait_for(reader.readline(), IDLE_S):
            writer.write(line)
    except asyncio.TimeoutError:
        writer.write(b"idle\n")
    finally:
        writer.close()


async def main_coroutine() -> None:
    """The coroutine that a program hands to asyncio.run."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        await server.serve_forever()


def program() -> None:
    asyncio.run(main_coroutine())


def old_program() -> None:
    """As programs were written before asyncio.run."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
    try:
        loop.run_forever()
    finally:
        server.close()
        loop.close()


@contextlib.asynccontextmanager
async def managed(spec: ServerSpec) -> AsyncIterator[asyncio.Server]:
    """With a start and a stop that take time, and a clock that ticks."""
    await asyncio.sleep(0.5)
    server = await asyncio.start_server(echo, "127.0.0.1", 0)

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)

    ticking = asyncio.ensure_future(tick())
    try:
        yield server
    finally:
        ticking.cancel()
        server.close()
        await asyncio.sleep(30)


class TwoEndpoints:
    """Something with addresses and an asynchronous close()."""

    closed = 0

    def __init__(self, servers: dict[str, asyncio.Server]) -> None:
        self.servers = servers

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        return {name: server.sockets[0].getsockname() for name, server in self.servers.items()}

    async def close(self) -> None:
        await asyncio.sleep(5)
        TwoEndpoints.closed += 1
        for server in self.servers.values():
            server.close()


async def two_endpoints(spec: ServerSpec) -> TwoEndpoints:
    def greeting(name: str) -> Any:
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{name} at {spec.clock.time():.1f}\n".encode())
            writer.close()

        return greet

    return TwoEndpoints(
        {name: await asyncio.start_server(greeting(name), "127.0.0.1", 0) for name in ("front", "back")}
    )
