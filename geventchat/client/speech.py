"""What the client needs of a dialect: what the user does -> bytes, a line that came -> what happened.

No sockets, no terminal, no time. A `Speech` belongs to one connection: an answer may take several lines.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from geventchat.client.heard import Heard


class Dialect(Enum):
    """The wire dialects, by the names that people type."""

    LINE = "line"
    JSON = "json"
    SLASH = "slash"


DEFAULT_PORTS = {Dialect.LINE: 4000, Dialect.JSON: 12345, Dialect.SLASH: 5000}


class Unsayable(Exception):
    """The dialect has no way to say this; the message explains it to the user."""


class Speech(Protocol):
    """One connection's worth of a dialect, from the client's side."""

    @property
    def echoes_speech(self) -> bool:
        """Whether the server sends our own words back to us."""

    @property
    def confirms_tells(self) -> bool:
        """Whether the server says that a private message was delivered."""

    def login(self, name: str) -> bytes:
        """Ask to be let in under a name."""

    def say(self, text: str) -> bytes:
        """Say something to everyone."""

    def tell(self, to: str, text: str) -> bytes:
        """Tell one person something."""

    def ask_users(self) -> bytes:
        """Ask who is there; the answer is one `Roster`."""

    def ping(self) -> bytes:
        """Ask for a `Pong`."""

    def leave(self) -> bytes:
        """Say goodbye; the answer is a `Farewell`, then the server closes."""

    def hear(self, line: bytes) -> tuple[Heard, ...]:
        """Understand one line, without its line end. Most lines are one thing; some are none yet."""


def looks_like(line: bytes) -> Dialect | None:
    """The dialect in which a server most likely said this, for people who connected with the wrong one."""
    if line.startswith((b'{"', b"{ ")):
        return Dialect.JSON
    if line.startswith((b"[error] ", b"[join] ", b"[info] ")):
        return Dialect.SLASH
    if line.startswith((b"ERR ", b"INFO ")):
        return Dialect.LINE
    return None
