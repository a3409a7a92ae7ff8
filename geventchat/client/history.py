"""The history of the input: a private file of limited size, one line for each line of input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

KEPT_LINES = 1000
# The file is cut back to KEPT_LINES only when it has this many, so that most starts do not rewrite it.
GROWN_LINES = 2000
_SECRET = frozenset({"/login", "/register", "/password", "/token"})


def history_path(environment: Mapping[str, str], home: Path) -> Path:
    """The path that the XDG base directory specification asks for; it ignores a relative XDG_STATE_HOME."""
    named = environment.get("XDG_STATE_HOME", "")
    state = Path(named) if named.startswith("/") else home / ".local" / "state"
    return state / "geventchat" / "history"


def has_secret(line: str) -> bool:
    """True for a command of the server's that contains a password or a token, whether this client knows it or not."""
    return line.strip().partition(" ")[0].lower() in _SECRET


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
        if line == self._last or not line.strip() or has_secret(line):
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
