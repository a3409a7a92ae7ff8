"""A terminal, a transport and a runtime that record what the session asks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from geventchat.client import render
from geventchat.client.address import Address
from geventchat.client.connection import Connection, ConnectionEvent
from geventchat.client.conversation import Clock
from geventchat.client.render import Line
from geventchat.client.session import ExitCode
from geventchat.client.terminal import SessionView

NOON = datetime(2024, 1, 15, 12, 0, 0)


class RecordingTerminal:
    """Remembers what it shows, without colour and in order. An error begins with `!`, a ring is `*`."""

    def __init__(self, *, interactive: bool = True, echoes_input: bool = False) -> None:
        self.interactive = interactive
        self.echoes_input = echoes_input
        self.view: SessionView | None = None
        self.questions: list[str] = []
        self.requested_lines = 0
        self._shown: list[str] = []

    def shown(self) -> list[str]:
        """The lines shown since the last call."""
        shown, self._shown = self._shown, []
        return shown

    def open(self, view: SessionView) -> None:
        self.view = view

    def ask(self) -> None:
        assert self.view is not None
        assert self.view.asking
        self.questions.append(self.view.prompt)

    def request_line(self) -> None:
        self.requested_lines += 1

    def show(self, line: Line) -> None:
        self._shown.append(render.paint(line, colour=False))

    def show_error(self, text: str) -> None:
        self._shown.append(f"! {render.safe(text)}")

    def ring(self) -> None:
        self._shown.append("*")

    def end_input_line(self) -> None:
        raise AssertionError("nothing has been interrupted")

    async def close(self) -> None:
        raise AssertionError("the session does not close the terminal")


class RecordingTransport(asyncio.Transport):
    """A connection's other side: remembers what was sent and asked."""

    def __init__(self, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(extra)
        self.closed = False
        self._sent = b""

    def sent(self) -> bytes:
        """The bytes sent since the last call."""
        sent, self._sent = self._sent, b""
        return sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


@dataclass
class RecordedTimer:
    """A timer that expires when the test says so."""

    seconds: float
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class RecordingRuntime:
    """Remembers addresses, timers and the exit code."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.timers: list[RecordedTimer] = []
        self.exit_code: ExitCode | None = None

    @property
    def running_timers(self) -> list[RecordedTimer]:
        """The timers that have neither been cancelled nor expired."""
        return [timer for timer in self.timers if not timer.cancelled]

    def connect(self, address: Address) -> None:
        self.addresses.append(address)

    def start_timer(self, seconds: float) -> RecordedTimer:
        self.timers.append(RecordedTimer(seconds))
        return self.timers[-1]

    def end(self, code: ExitCode) -> None:
        assert self.exit_code is None
        self.exit_code = code


def connected(handle: Callable[[ConnectionEvent], None]) -> tuple[Connection, RecordingTransport]:
    """A connection whose events go to `handle`."""
    connection, transport = Connection(handle), RecordingTransport()
    connection.connection_made(transport)
    return connection, transport


class TickingClock:
    """Noon, and seconds that the test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> Clock:
        """The clock of a session."""
        return Clock(lambda: NOON, lambda: self.seconds)
