"""Lines in, lines out: for pipes, and for terminals without prompt_toolkit. Standard library only."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading

from geventchat.client import render
from geventchat.client.render import Line
from geventchat.client.terminal import (
    InputEnded,
    LineEntered,
    LineUnreadable,
    OutputClosed,
    SessionView,
    TerminalEvent,
    TerminalHandler,
)
from geventchat.dialects.framing import TOO_LONG, LineFraming
from geventchat.dialects.framing import Line as InputLine

MAX_INPUT_LINE_BYTES = 1024 * 1024
READ_BYTES = 64 * 1024
# Bytes that a pipe accepts when it is ready for writing.
PIPE_BYTES = 512


class PlainTerminal:
    """Standard input and output as they are."""

    def __init__(self, handle: TerminalHandler, *, interactive: bool, bell: bool, colour: bool) -> None:
        self.interactive = interactive
        self.echoes_input = interactive
        self._handle = handle
        self._bell = bell and interactive
        self._colour = colour
        self._loop = asyncio.get_running_loop()
        self._requested = threading.Semaphore(0)
        self._reader: threading.Thread | None = None
        self._output_closed = False
        self._view: SessionView

    def open(self, view: SessionView) -> None:
        self._view = view

    def ask(self) -> None:
        self._write(sys.stdout.fileno(), self._view.prompt)
        self.request_line()

    def request_line(self) -> None:
        self._requested.release()
        if self._reader is None:
            # A thread, because a regular file as standard input cannot be polled. A daemon, because a read that blocks
            # cannot be cancelled when the session ends.
            self._reader = threading.Thread(target=self._read, name="standard input", daemon=True)
            self._reader.start()

    def show(self, line: Line) -> None:
        self._write(sys.stdout.fileno(), render.paint(line, colour=self._colour) + "\n")

    def show_error(self, text: str) -> None:
        if self.interactive:
            self.show(render.error(text))
        else:
            self._write(sys.stderr.fileno(), f"geventchat: {render.safe(text)}\n")

    def ring(self) -> None:
        if self._bell:
            self._write(sys.stdout.fileno(), "\a")

    def end_input_line(self) -> None:
        if self.interactive:
            self._write(sys.stdout.fileno(), "\n")

    async def close(self) -> None:
        """Do nothing: the terminal was not changed."""

    def _write(self, target: int, text: str) -> None:
        if self._output_closed and target == sys.stdout.fileno():
            return
        data = memoryview(text.encode("utf-8", "replace"))
        try:
            while data:
                # Another program that uses the terminal can have made it non-blocking.
                select.select([], [target], [])
                data = data[os.write(target, data[:PIPE_BYTES]) :]
        except OSError:
            if target == sys.stdout.fileno():
                self._output_closed = True
                self._loop.call_soon(self._handle, OutputClosed())

    def _read(self) -> None:
        framing = LineFraming(MAX_INPUT_LINE_BYTES)
        number = 0
        more = True
        while more:
            try:
                chunk = os.read(sys.stdin.fileno(), READ_BYTES)
            except OSError:
                # The terminal is gone: the same as the end of the input.
                chunk = b""
            more = bool(chunk)
            # The last line can lack a line ending.
            for line in framing.feed(chunk or b"\n"):
                number += 1
                self._deliver(_event(line, number))
        self._deliver(InputEnded())

    def _deliver(self, event: TerminalEvent) -> None:
        # One line at a time, each only when it is requested: a long file waits on disk, not in memory.
        self._requested.acquire()
        try:
            self._loop.call_soon_threadsafe(self._emit, event)
        except RuntimeError:
            # The loop is closed: the program is ending.
            sys.exit()

    def _emit(self, event: TerminalEvent) -> None:
        if isinstance(event, InputEnded) and self._view.asking:
            self.end_input_line()
        self._handle(event)


def _event(line: InputLine, number: int) -> TerminalEvent:
    if line is TOO_LONG:
        return LineUnreadable(
            f"Line {number} of the input is longer than {MAX_INPUT_LINE_BYTES} bytes and was not sent."
        )
    try:
        return LineEntered(line.decode("utf-8"))
    except UnicodeDecodeError:
        return LineUnreadable(f"Line {number} of the input is not valid UTF-8 and was not sent.")
