"""Lines in, lines out: for pipes, for terminals that can do no more, and for screen readers. Standard library only."""

from __future__ import annotations

import os
import select
import sys
import termios
from collections import deque
from collections.abc import Mapping

from geventchat.client.loop import Loop, Timer
from geventchat.client.options import Options
from geventchat.client.render import Look, bare, look_of, plain_line, safe
from geventchat.client.terminal import (
    InputEnded,
    LineEntered,
    LineUnreadable,
    OutputClosed,
    SessionView,
    TerminalEvent,
    TerminalHandler,
)
from geventchat.client.windows import Entry, Window
from geventchat.dialects.framing import TOO_LONG, LineFraming
from geventchat.dialects.framing import Line as InputLine

MAX_INPUT_LINE_BYTES = 1024 * 1024
READ_BYTES = 64 * 1024
# Bytes that a pipe accepts when it is ready for writing.
PIPE_BYTES = 512
# Lines that follow each other faster than this are a paste: no one types that fast.
PASTE_GAP_S = 0.01


class PlainTerminal:
    """Standard input and output as they are."""

    linear = True

    def __init__(
        self,
        loop: Loop,
        handle: TerminalHandler,
        options: Options,
        colours: Mapping[str, str],
        *,
        interactive: bool,
        colour: bool,
    ) -> None:
        self.interactive = interactive
        self.echoes_input = interactive
        self._loop = loop
        self._handle = handle
        self._colours = colours
        self._colour = colour
        self._look = self._new_look(options)
        self._in = sys.stdin.fileno()
        self._framing = LineFraming(MAX_INPUT_LINE_BYTES)
        self._lines: deque[TerminalEvent] = deque()
        self._number = 0
        self._requested = 0
        self._at_end = False
        self._paste_timer: Timer | None = None
        self._pasted: list[str] = []
        self._output_closed = False
        self._settings = termios.tcgetattr(self._in) if interactive else None
        self._view: SessionView

    def open(self, view: SessionView) -> None:
        self._view = view

    def ask(self) -> None:
        # Before the question: its answer can follow at once.
        self._echo(on=not self._view.hidden)
        self._write(sys.stdout.fileno(), self._view.prompt)
        self.request_line()

    def request_line(self) -> None:
        self._echo(on=not self._view.hidden)
        self._requested += 1
        self._loop.call_soon(self._go_on)

    def show(self, window: Window, entry: Entry) -> None:
        elsewhere = window is not self._view.conversation.current and not window.is_person
        self._write(
            sys.stdout.fileno(), plain_line(entry, self._look, window.name if elsewhere else "") + "\n"
        )

    def show_error(self, text: str) -> None:
        self._write(sys.stderr.fileno(), f"geventchat: {safe(text)}\n")

    def refresh(self) -> None:
        """Do nothing: lines do not change."""

    def configure(self, options: Options) -> None:
        self._look = self._new_look(options)

    def _new_look(self, options: Options) -> Look:
        look = look_of(options, self._colours, colour=self._colour)
        return look if self._colour else bare(look)

    def ring(self) -> None:
        if self.interactive:
            self._write(sys.stdout.fileno(), "\a")

    def notify(self, title: str, text: str) -> None:
        """Do nothing: this terminal does not know how."""

    def end_input_line(self) -> None:
        """Begin a new line after the `^C` that Ctrl-C leaves on the screen."""
        if self.interactive:
            self._write(sys.stdout.fileno(), "\n")

    def leave_screen(self) -> None:
        """Do nothing: this is the ordinary screen."""

    def close(self) -> None:
        self._loop.on_readable(self._in, None)
        self._echo(on=True)

    def _echo(self, *, on: bool) -> None:
        """Show what is typed, or hide it: a password."""
        if self._settings is None:
            return
        settings = termios.tcgetattr(self._in)
        before = settings[3]
        settings[3] = before & ~termios.ECHO if not on else before | (self._settings[3] & termios.ECHO)
        if settings[3] != before:
            termios.tcsetattr(self._in, termios.TCSANOW, settings)

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
                self._loop.call_soon(lambda: self._handle(OutputClosed()))

    # Input: one line at a time, each only when it is requested: a long file waits on disk, not in memory.

    def _go_on(self) -> None:
        while self._requested and self._lines:
            self._requested -= 1
            self._deliver(self._lines.popleft())
        wanted = self._requested and not self._at_end
        self._loop.on_readable(self._in, self._read if wanted or self._pasted else None)

    def _read(self) -> None:
        try:
            chunk = os.read(self._in, READ_BYTES)
        except OSError:
            # The terminal is gone: the same as the end of the input.
            chunk = b""
        # The last line can lack a line ending.
        for line in self._framing.feed(chunk or b"\n"):
            self._number += 1
            event = _event(line, self._number)
            last = not chunk and event == LineEntered("")
            if not last:
                self._received(event)
        if not chunk:
            self._at_end = True
            self._end_paste()
            self._lines.append(InputEnded())
        self._go_on()

    def _received(self, event: TerminalEvent) -> None:
        if not self.interactive or self._view.asking or not isinstance(event, LineEntered):
            self._end_paste()
            self._lines.append(event)
            return
        self._pasted.append(event.text)
        if self._paste_timer is not None:
            self._paste_timer.cancel()
        self._paste_timer = self._loop.call_at(self._loop.now() + PASTE_GAP_S, self._paste_is_over)

    def _paste_is_over(self) -> None:
        self._end_paste()
        self._go_on()

    def _end_paste(self) -> None:
        """What was typed is a line; lines in one burst are a paste."""
        if self._paste_timer is not None:
            self._paste_timer.cancel()
            self._paste_timer = None
        lines, self._pasted = self._pasted, []
        if len(lines) == 1:
            self._lines.append(LineEntered(lines[0]))
        elif lines:
            self._lines.append(LineEntered("\n".join(lines), literal=True))

    def _deliver(self, event: TerminalEvent) -> None:
        if self._view.hidden:
            # The line end was not shown, either.
            self._echo(on=True)
            self.end_input_line()
        elif isinstance(event, InputEnded) and self._view.asking:
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
