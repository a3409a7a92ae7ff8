"""Everything that can happen to a session, in the order in which it happens.

Knows what may be in it and nothing of what follows from that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from geventchat.client.link import LinkEvent
from geventchat.client.terminal import TerminalEvent

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terminated:
    """The system wants us to go (SIGTERM)."""


Happening = LinkEvent | TerminalEvent | Terminated


class Inbox:
    """A queue of what happened. What fills it is bounded where it comes from: links pause, pipes wait."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Happening] = asyncio.Queue()

    def put(self, happening: Happening) -> None:
        """Something happened."""
        self._queue.put_nowait(happening)

    async def next(self, within_s: float | None = None) -> Happening | None:
        """What happened next, or nothing when the time is up."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            return await asyncio.wait_for(self._queue.get(), within_s)
        except asyncio.TimeoutError:
            return None

    async def meanwhile(self, work: Awaitable[T], deal_with: Callable[[Happening], None]) -> T:
        """The result of the work; what happens until then is dealt with, and may end it by raising."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                getter = asyncio.ensure_future(self._queue.get())
                await asyncio.wait({task, getter}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    deal_with(getter.result())
                else:
                    getter.cancel()
                if task.done():
                    return await task
        finally:
            task.cancel()
