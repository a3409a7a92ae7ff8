"""A stage for tests that are coroutines: the same clients, whose operations are awaited.

- The stage runs in a separate thread, so a server on the test's own event loop can answer meanwhile.
- A cancelled operation goes on in that thread until its time limit; the next one waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

from harness.stage.connection import End
from harness.stage.fence import Grade, hides_traceback
from harness.stage.stage import Client, Stage

__tracebackhide__ = hides_traceback

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class AsyncStage:
    """`async with AsyncStage(Stage(Address("127.0.0.1", port))) as stage:`"""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._thread = ThreadPoolExecutor(1, "stage")
        self._clients: dict[str, AsyncClient] = {}

    async def __aenter__(self) -> AsyncStage:
        try:
            await self.run(self.open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.run(self.close)
        finally:
            self._thread.shutdown()

    def __enter__(self) -> AsyncStage:
        try:
            self._thread.submit(self.open).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._thread.submit(self.close).result()
        finally:
            self._thread.shutdown()

    def open(self) -> None:
        self._stage.__enter__()

    def close(self) -> None:
        self._stage.__exit__()

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of this work, which is done in the thread of the stage."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "an AsyncStage, such as async_stage, needs a running event loop of asyncio; with trio, use a Stage in a thread"
            ) from None
        return await loop.run_in_executor(self._thread, work)

    def client(self, name: str) -> AsyncClient:
        """The client of this name, always the same one; its first send connects it."""
        if name not in self._clients:
            self._clients[name] = AsyncClient(self, self._stage.client(name))
        return self._clients[name]

    def clients(self, *names: str) -> tuple[AsyncClient, ...]:
        return tuple(self.client(name) for name in names)

    async def settle(self) -> None:
        """Fail if any client has received something that was not expected."""
        await self.run(self._stage.settle)

    def settle_if_needed(self) -> None:
        """The same where no event loop runs, unless nothing has been done since the last time."""
        if not self._stage.settled:
            self._thread.submit(self._stage.settle).result()

    async def wait(self, seconds: float) -> None:
        """Let time pass: instantly if it is virtual."""
        await self.run(partial(self._stage.wait, seconds))

    @property
    def grade(self) -> Grade:
        return self._stage.grade

    @property
    def captures(self) -> dict[str, str]:
        """The values of the names that patterns have bound."""
        return self._stage.captures


def _awaited(
    method: Callable[Concatenate[Client, Parameters], Result],
) -> Callable[Concatenate[AsyncClient, Parameters], Awaitable[Result]]:
    @wraps(method)
    async def awaited(
        client: AsyncClient, /, *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        return await client.stage.run(partial(method, client.client, *arguments, **named))

    return awaited


class AsyncClient:
    """One scripted client. Each method is that of a `Client`, awaited."""

    def __init__(self, stage: AsyncStage, client: Client) -> None:
        self.stage = stage
        self.client = client

    @property
    def name(self) -> str:
        return self.client.name

    @property
    def end(self) -> End:
        return self.client.end

    connect = _awaited(Client.connect)
    send = _awaited(Client.send)
    send_pattern = _awaited(Client.send_pattern)
    send_bytes = _awaited(Client.send_bytes)
    post = _awaited(Client.post)
    close = _awaited(Client.close)
    half_close = _awaited(Client.half_close)
    abort = _awaited(Client.abort)
    stop_reading = _awaited(Client.stop_reading)
    read_again = _awaited(Client.read_again)
    receive_line = _awaited(Client.receive_line)
    expect = _awaited(Client.expect)
    expect_bytes = _awaited(Client.expect_bytes)
    expect_match = _awaited(Client.expect_match)
    expect_pattern = _awaited(Client.expect_pattern)
    expect_nothing = _awaited(Client.expect_nothing)
    expect_closed = _awaited(Client.expect_closed)
    expect_reset = _awaited(Client.expect_reset)
    expect_refused = _awaited(Client.expect_refused)
    expect_disconnected = _awaited(Client.expect_disconnected)
