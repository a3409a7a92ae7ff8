"""The interface of a dialect: it parses lines into commands and encodes events as bytes. Knows no sockets and no gevent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from geventchat.chat.commands import Command, InvalidCommand, Login, ParseError, SendDirectMessage
from geventchat.chat.events import Broadcast, PrivateEvent
from geventchat.chat.passwords import Secret
from geventchat.chat.text import clean_line, visible
from geventchat.dialects.codec import ClientCodec
from geventchat.dialects.framing import Unit
from geventchat.dialects.telnet import without_telnet

_NOT_UTF8 = InvalidCommand(ParseError.NOT_UTF8)


@dataclass(slots=True)  # Creating a frozen one would take twice as long.
class TextInRoom:
    """A plain message to a room, as typed. Consecutive ones to the same room are joined into one `Say`."""

    room: str
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """A command whose answers refer to it: its interpreter has to know the reference while the command is handled."""

    command: Command
    ref: str
    answer_to: Callable[[str | None], None]


@dataclass(frozen=True, slots=True)
class OtherDialect:
    """Switch the client to another dialect, which reads this line again. Only before the login."""

    name: str


Reading = Command | str | TextInRoom | Request | OtherDialect | None


class Interpreter(Protocol):
    """One connection's half of a dialect: reads its lines, and encodes what is for its client alone.

    A dialect in which a command can take several lines, or in which an answer refers to its request, keeps its state here.
    """

    def read(self, line: bytes, logged_in: bool) -> Reading:
        """Parse a line without its ending; None when it holds no command.

        A plain message to the room that the client is in is returned as its text: the connection joins the texts of
        consecutive lines into one `Say`, and creating a command for each first would cost as much as parsing it.
        """

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of a private event; empty if the dialect does not show it."""


class Dialect(Protocol):
    """One protocol of the chat."""

    @property
    def name(self) -> str:
        """The name on the command line and in scripts."""

    @property
    def port(self) -> int:
        """The default port."""

    @property
    def idle_s(self) -> float:
        """The default idle time-out in seconds; 0 for none."""

    @property
    def telnet(self) -> bool:
        """True when people can type it into telnet, whose commands then occur between and within the lines."""

    @property
    def signatures(self) -> tuple[bytes, ...]:
        """How the first answer of such a server begins; unique to this dialect."""

    @property
    def read_texts(self) -> Callable[[Sequence[Unit]], list[str] | None] | None:
        """Where that is quicker: reads lines of a client that has logged in together, if all of them are plain messages.

        It returns what `read` returns for each. None means that they have to be read one by one.
        """

    def interpreter(self) -> Interpreter:
        """An interpreter for one connection; a dialect without state is its own."""

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of a broadcast event; empty if the dialect does not show it."""

    def echoes(self, event: Broadcast) -> bool:
        """True when the author of an event receives it, too."""

    def client(self) -> ClientCodec:
        """The client half of the dialect, for one connection."""


def prefixed(prefix: str, texts: Sequence[str]) -> bytes:
    """One line for each text, each with the same beginning."""
    return (prefix + f"\n{prefix}".join(texts) + "\n").encode()


def greeting_text(text: str, first_steps: str) -> str:
    """The operator's greeting, with what a newcomer types first in this dialect in place of {help}."""
    return text.replace("{help}", first_steps).strip()


# How many messages HISTORY lists where none are asked for.
DEFAULT_HISTORY = 20


def is_count(text: str) -> bool:
    """True for a whole number of at most six digits."""
    return text.isascii() and text.isdigit() and len(text) <= 6


def utc(time_ms: int) -> str:
    """A time as RFC 3339 writes it, in whole seconds."""
    return datetime.fromtimestamp(time_ms // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def direct_message(rest: str) -> SendDirectMessage:
    """The arguments of a direct message: a name, then the text."""
    to, _, text = rest.partition(" ")
    return SendDirectMessage(to, visible(text.strip()))


def login(rest: str) -> Login:
    """The arguments of a login: a name, then perhaps a password."""
    name, _, password = rest.partition(" ")
    return Login(name, password=Secret(password.strip()) if password.strip() else None)


class TerminalReader:
    """Reads lines that a person can have typed into nc or telnet."""

    def __init__(self, parse: Callable[[str, bool], Command | str | None]) -> None:
        """`parse` takes the cleaned text of a line and whether its sender is logged in."""
        self._parse = parse

    def read(self, line: bytes, logged_in: bool) -> Reading:
        """Parse a line."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            # 0xFF begins every telnet sequence and never occurs in UTF-8, so only a line that fails can contain one.
            try:
                text = without_telnet(line).decode()
            except UnicodeDecodeError:
                return _NOT_UTF8
        return self._parse(clean_line(text), logged_in)


__all__ = [
    "Dialect",
    "Interpreter",
    "OtherDialect",
    "Reading",
    "Request",
    "TerminalReader",
    "TextInRoom",
    "direct_message",
    "greeting_text",
    "login",
    "prefixed",
]
