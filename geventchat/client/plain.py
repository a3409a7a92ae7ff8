"""The plain mode: lines in, lines out. For pipes, and for terminals without prompt_toolkit.

Standard library only. Knows no dialect and no connection.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from dataclasses import dataclass

from geventchat.client.cleaning import clean
from geventchat.client.lines import LineCutter
from geventchat.client.notes import Note, Offline, Problem
from geventchat.client.rendering import Look, render
from geventchat.client.terminal import Deaf, InputEnded, NotText, Scene, Sink, TerminalEvent, Typed, WalkedOut

INPUT_LINE_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
# What a pipe that is ready for writing takes at once.
PIPE_BYTES = 512


@dataclass(frozen=True, slots=True)
class Manners:
    """How a plain terminal behaves."""

    has_person: bool
    bell: bool
    look: Look


class PlainTerminal:
    """Standard input and output as they are."""

    def __init__(self, sink: Sink, manners: Manners) -> None:
        self._sink = sink
        self._manners = manners
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Semaphore(0)
        self._answer: asyncio.Future[str] | None = None
        self._reader: threading.Thread | None = None
        self._deaf = False

    @property
    def has_person(self) -> bool:
        return self._manners.has_person

    @property
    def keeps_typed_lines(self) -> bool:
        return self._manners.has_person

    async def ask(self, question: str) -> str:
        self._write(sys.stdout.fileno(), question)
        self._answer = self._loop.create_future()
        self._read_on()
        try:
            return await self._answer
        finally:
            self._answer = None

    def open(self, scene: Scene) -> None:
        self._read_on()

    def next_line(self) -> None:
        self._wanted.release()

    def show(self, note: Note) -> None:
        if not self.has_person and isinstance(note, Problem | Offline):
            self._write(sys.stderr.fileno(), f"geventchat: {clean(note.text)}\n")
        else:
            self._write(sys.stdout.fileno(), render(note, self._manners.look) + "\n")

    def ring(self) -> None:
        if self._manners.bell and self.has_person:
            self._write(sys.stdout.fileno(), "\a")

    def interrupted(self) -> None:
        """Ctrl-C was pressed: the terminal has left a `^C` behind what was typed or asked."""
        if self.has_person:
            self._end_line()

    async def close(self) -> None:
        """Nothing was changed, so there is nothing to give back."""

    def _end_line(self) -> None:
        self._write(sys.stdout.fileno(), "\n")

    def _write(self, target: int, text: str) -> None:
        if self._deaf and target == sys.stdout.fileno():
            return
        data = memoryview(text.encode("utf-8", "replace"))
        try:
            while data:
                # Someone we share the terminal with may have made it non-blocking.
                select.select([], [target], [])
                data = data[os.write(target, data[:PIPE_BYTES]) :]
        except OSError:
            # Nobody reads this any more; the session is told once, and leaves.
            if target == sys.stdout.fileno():
                self._deaf = True
                self._sink(Deaf())

    def _read_on(self) -> None:
        self._wanted.release()
        if self._reader is None:
            # A thread, because a regular file as standard input cannot be polled; a daemon, because a read
            # that blocks cannot be taken back when the server is gone and nothing is left to do.
            self._reader = threading.Thread(target=self._read, name="standard input", daemon=True)
            self._reader.start()

    def _read(self) -> None:
        cutter = LineCutter(INPUT_LINE_BYTES)
        number = 0
        chunk = b"at first"
        while chunk:
            try:
                chunk = os.read(sys.stdin.fileno(), CHUNK_BYTES)
            except OSError:
                # The terminal went away under us; that is an end like any other.
                chunk = b""
            for line in cutter.feed(chunk) if chunk else cutter.end():
                number += 1
                self._hand_over(_event_of(line, number))
        self._hand_over(InputEnded())

    def _hand_over(self, event: TerminalEvent) -> None:
        # One line at a time, each only when it is wanted: a long file waits on disk, not in memory.
        self._wanted.acquire()
        try:
            self._loop.call_soon_threadsafe(self._take, event)
        except RuntimeError:
            # The loop is closed: the program is on its way out, and nobody wants this line any more.
            sys.exit()

    def _take(self, event: TerminalEvent) -> None:
        if self._answer is None or self._answer.done():
            self._sink(event)
        elif isinstance(event, Typed):
            self._answer.set_result(event.line)
        else:
            self._end_line()
            self._answer.set_exception(WalkedOut(interrupted=False))


def _event_of(line: bytes | None, number: int) -> TerminalEvent:
    if line is None:
        return NotText(f"Line {number} of the input is over {INPUT_LINE_BYTES} bytes long; it was not sent.")
    try:
        return Typed(line.decode("utf-8"))
    except UnicodeDecodeError:
        return NotText(f"Line {number} of the input is not UTF-8; it was not sent.")
