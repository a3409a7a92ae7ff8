"""The connection: bytes out, lines in, and how it ended.

Knows no dialect and no terminal. What happens is handed to one sink, in order; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from geventchat.client.address import Address
from geventchat.client.lines import LineCutter

CONNECT_WITHIN_S = 10.0

# Lines read but not yet dealt with: past the upper mark the socket is left alone until the lower one.
PAUSE_AT_LINES = 1000
RESUME_AT_LINES = 100

# A peer that vanished without a word is noticed within about a minute and a half, without disturbing it.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 90_000}


@dataclass(frozen=True, slots=True)
class Received:
    """A whole line came; nothing stands for a line that was too long to be kept."""

    link: Link
    line: bytes | None


@dataclass(frozen=True, slots=True)
class Writable:
    """What was written has drained: more may be written."""

    link: Link


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is gone; `why` is the end of a sentence about it."""

    link: Link
    why: str


LinkEvent = Received | Writable | Closed


class CannotConnect(Exception):
    """Nobody to talk to; the message says who and why in one line."""


class Link(asyncio.Protocol):
    """One connection to a server."""

    def __init__(self, sink: Callable[[LinkEvent], None]) -> None:
        self._sink = sink
        self._cutter = LineCutter()
        self._waiting_lines = 0
        self._reading_paused = False
        self._transport: asyncio.Transport | None = None
        self.blocked = False
        self.gone = asyncio.Event()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _watch_for_silence(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        lines = self._cutter.feed(data)
        self._waiting_lines += len(lines)
        if self._waiting_lines > PAUSE_AT_LINES and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        for line in lines:
            self._sink(Received(self, line))

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self._sink(Writable(self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.gone.set()
        why = "the server closed it" if exc is None else _reason(exc)
        self._sink(Closed(self, why))

    # What the session calls.

    def send(self, data: bytes) -> None:
        """Send, or leave it to `Closed` to tell that there is nobody to send it to."""
        if self._transport is not None:
            self._transport.write(data)

    def dealt_with(self) -> None:
        """One received line is done with."""
        self._waiting_lines -= 1
        if self._reading_paused and self._waiting_lines < RESUME_AT_LINES and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    async def close(self, within_s: float) -> None:
        """Send what is waiting, as long as it takes but no longer than this, and hang up."""
        if self._transport is None:
            return
        self._transport.close()
        try:
            await asyncio.wait_for(self.gone.wait(), within_s)
        except asyncio.TimeoutError:
            self._transport.abort()


async def connect(address: Address, sink: Callable[[LinkEvent], None]) -> Link:
    """A new connection, by whichever of the host's addresses answers first."""
    loop = asyncio.get_running_loop()
    try:
        _, link = await asyncio.wait_for(
            loop.create_connection(lambda: Link(sink), address.host, address.port, happy_eyeballs_delay=0.25),
            CONNECT_WITHIN_S,
        )
    except asyncio.TimeoutError:
        raise CannotConnect(f"{address} did not answer within {CONNECT_WITHIN_S:.0f} s.") from None
    except (OSError, UnicodeError) as fault:
        raise CannotConnect(explain(address, fault)) from fault
    return link


def explain(address: Address, fault: OSError | UnicodeError) -> str:
    """Why there is no connection, in one line that says what to look at."""
    if isinstance(fault, socket.gaierror) and fault.errno == socket.EAI_AGAIN:
        return f"The name {address.host} could not be looked up just now."
    if isinstance(fault, socket.gaierror | UnicodeError):
        return f"There is no host named {address.host}."
    numbers = _error_numbers(fault)
    if numbers == {errno.ECONNREFUSED}:
        return f"Nobody listens at {address} (connection refused)."
    if len(numbers) == 1:
        return f"Cannot connect to {address}: {_reason(OSError(numbers.pop(), ''))}."
    return f"Cannot connect to {address}: {_reason(fault)}."


def _error_numbers(fault: OSError) -> set[int]:
    if fault.errno is not None:
        return {fault.errno}
    # A host with several addresses fails with one exception whose text lists theirs.
    return {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(fault))}


def _reason(fault: Exception) -> str:
    if isinstance(fault, OSError) and fault.errno is not None:
        return _lower_first(os.strerror(fault.errno))
    return _lower_first(str(fault)) or type(fault).__name__


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _watch_for_silence(its_socket: socket.socket | None) -> None:
    if its_socket is None or its_socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        # Not every system has every one of these.
        if hasattr(socket, option):
            its_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
