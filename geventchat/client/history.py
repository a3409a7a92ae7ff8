"""The history of the input: a private file of limited size, one line for each line of input."""

from __future__ import annotations

import os
from pathlib import Path

from geventchat.client.input import is_secret

KEPT_LINES = 1000
# The file is cut back to KEPT_LINES only when it has this many, so that most starts do not rewrite it.
GROWN_LINES = 2000


def history_path(state: Path) -> Path:
    """The file, in the directory for the state of programs."""
    return state / "geventchat" / "history"


class HistoryFile:
    """The history file. Raises OSError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The input contains direct messages, so only the user can read the file.
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        self._last = ""

    def lines(self) -> list[str]:
        """The lines, oldest first."""
        lines = self._path.read_text("utf-8", "replace").split("\n")[:-1]
        if len(lines) >= GROWN_LINES:
            self._cut_back(lines[-KEPT_LINES:])
        lines = lines[-KEPT_LINES:]
        self._last = lines[-1] if lines else ""
        return lines

    def append(self, line: str) -> None:
        """Add a line, unless it is blank, repeats the last one or has a password in it."""
        if line == self._last or not line.strip() or is_secret(line):
            return
        self._last = line
        # One write per line to a file opened for appending, so that lines of two clients never mix.
        descriptor = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, f"{line}\n".encode("utf-8", "replace"))
        finally:
            os.close(descriptor)

    def _cut_back(self, lines: list[str]) -> None:
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write("".join(f"{line}\n" for line in lines))
        os.replace(fresh, self._path)
