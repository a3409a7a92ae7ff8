"""A real pseudo-terminal with a program in it, seen through a terminal emulator. For tests and for pictures.

Nothing here sleeps: it waits for what the screen shows, as long as the program has not given up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte

from tests.client.real_server import ROOT

WITHIN_S = 20.0

# A program gets a controlling terminal (for Ctrl-C and for resizes) by asking for it in a session of its own.
TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class NotSeen(AssertionError):
    """What should have been on the screen never was."""


class PtyProgram:
    """A program and the terminal that it believes to be in."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], *, rows: int = 24, columns: int = 80
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns, quietly=True)
        self._slave_name = os.ttyname(slave)
        self.settings_before = termios.tcgetattr(slave)
        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._hung_up = False
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", TAKE_TERMINAL, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            cwd=ROOT,
            start_new_session=True,
        )
        # Kept open, so that the last words of the program can be read after it has ended, and its settings looked at.
        self._slave = slave

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int, *, quietly: bool = False) -> None:
        """Give the window another size; the program hears of it."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if not quietly:
            self.screen.resize(rows, columns)

    def lines(self) -> list[str]:
        """What is on the screen, without trailing blanks."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def cursor_line(self) -> str:
        """The line that the cursor is in."""
        return self.screen.display[self.screen.cursor.y].rstrip()

    def wait_for(self, seen: Callable[[], bool], what: str) -> None:
        """Read what the program writes until this holds."""
        deadline = time.monotonic() + WITHIN_S
        while not seen():
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                screen = "\n".join(self.lines())
                raise NotSeen(
                    f"never saw {what}; the exit code is {self.process.poll()}; the screen is\n{screen}"
                )

    def sees(self, text: str) -> None:
        """Wait until this is on the screen."""
        self.wait_for(lambda: any(text in line for line in self.lines()), repr(text))

    def has_at_cursor(self, text: str) -> None:
        """Wait until the line with the cursor is exactly this."""
        self.wait_for(lambda: self.cursor_line() == text, f"{text!r} at the cursor")

    def wrote(self, data: bytes) -> None:
        """Wait until these bytes were written, wherever they went."""
        self.wait_for(lambda: data in self.raw, repr(data))

    def exit_code(self) -> int:
        """Wait for the end and read the last words."""
        deadline = time.monotonic() + WITHIN_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.01)
        code = self.process.poll()
        if code is None:
            raise NotSeen("the program never ended; the screen is\n" + "\n".join(self.lines()))
        while self._read(0):
            pass
        return code

    def settings_now(self) -> object:
        """The terminal's settings, to compare with `settings_before`."""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """End the program, if it has not ended, and the terminal."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    def _read(self, within_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], within_s)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError as fault:
            if fault.errno != errno.EIO:
                raise
            return False
        self.raw += data
        self._stream.feed(data)
        return True
