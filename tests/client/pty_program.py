"""A program in a pseudo-terminal, seen through a terminal emulator. For tests and for pictures.

Every wait is for something on the screen, and ends when the program has ended.
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
from tests.patience import HANG_S

# Ctrl-C and resizes reach only a program whose session has taken the terminal.
_TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class NotShown(AssertionError):
    """The screen never showed what was expected."""


class PtyProgram:
    """A program and its terminal."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], *, rows: int = 24, columns: int = 80
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns, silent=True)
        self._slave_name = os.ttyname(slave)
        self.settings_before = termios.tcgetattr(slave)
        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._hung_up = False
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            cwd=ROOT,
            start_new_session=True,
        )
        # Kept open, so that the program's last output and the terminal's settings can be read after its end.
        self._slave = slave

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int, *, silent: bool = False) -> None:
        """Change the size of the window, which the program is notified of."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if not silent:
            self.screen.resize(rows, columns)

    def lines(self) -> list[str]:
        """The lines of the screen, without trailing blanks."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def cursor_line(self) -> str:
        """The line with the cursor."""
        return self.screen.display[self.screen.cursor.y].rstrip()

    def wait_for(self, condition: Callable[[], bool], description: str) -> None:
        """Read what the program writes until the condition holds."""
        deadline = time.monotonic() + HANG_S
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not self.read(left):
                screen = "\n".join(self.lines())
                raise NotShown(
                    f"never showed {description}; the exit code is {self.process.poll()}; the screen is\n{screen}"
                )

    def read(self, timeout_s: float) -> bool:
        """Read once; False when nothing was written in time, or the program has ended."""
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def expect(self, text: str) -> None:
        """Wait until this is on the screen."""
        self.wait_for(lambda: any(text in line for line in self.lines()), repr(text))

    def expect_at_cursor(self, text: str) -> None:
        """Wait until the line with the cursor is exactly this."""
        self.wait_for(lambda: self.cursor_line() == text, f"{text!r} at the cursor")

    def expect_output(self, data: bytes) -> None:
        """Wait until these bytes have been written, wherever they ended up."""
        self.wait_for(lambda: data in self.raw, repr(data))

    def exit_code(self) -> int:
        """Wait for the end and read the last output."""
        deadline = time.monotonic() + HANG_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read(0.01)
        code = self.process.poll()
        if code is None:
            raise NotShown("the program did not end; the screen is\n" + "\n".join(self.lines()))
        while self.read(0):
            pass
        return code

    def settings(self) -> object:
        """The terminal's settings now."""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """Kill the program, if it still runs, and close the terminal."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)
