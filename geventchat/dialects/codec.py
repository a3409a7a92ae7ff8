"""The client's half of a dialect: commands to bytes, and lines from a server to events. Sans-I/O.

Invariants of every ClientCodec:
- One codec serves one connection, in both directions: it learns its client's name from the login.
- `decode` never raises, whatever a server sends.
- A field that the dialect does not transmit is NO_ROOM, NO_ID, NO_TIME, or an empty list of users in a Welcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from geventchat.chat.commands import Command
from geventchat.chat.events import Event

NO_ROOM: Final = ""
NO_ID: Final = 0
NO_TIME: Final = 0


class CannotEncode(Exception):
    """The dialect cannot express this command; the message tells the user why."""


@dataclass(frozen=True, slots=True)
class UnknownError:
    """The server refused something in words that this dialect does not define."""

    text: str


@dataclass(frozen=True, slots=True)
class UnknownLine:
    """A line that this dialect does not define."""

    text: str


ServerEvent = Event | UnknownError | UnknownLine


class ClientCodec(Protocol):
    """One connection to a server, seen from the client."""

    @property
    def echoes_messages(self) -> bool:
        """True when the server sends a client its own messages."""

    @property
    def confirms_direct_messages(self) -> bool:
        """True when the server confirms each direct message to its sender."""

    def encode(self, command: Command) -> bytes:
        """The bytes of a command. Raises CannotEncode."""

    def decode(self, line: bytes) -> ServerEvent | None:
        """The event that this line completes; None when more lines follow, or when the line carries none."""


def lines(*texts: str) -> bytes:
    """Each text as one line. Raises CannotEncode for a text that would be more than one."""
    for text in texts:
        if "\n" in text:
            raise CannotEncode("A message is a single line.")
    return "".join([f"{text}\n" for text in texts]).encode("utf-8", "replace")
