"""What a dialect is: a way to read lines as commands and to write events as bytes. Knows no sockets and no gevent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from geventchat.chat.commands import Command, Fault, Tell, Violation
from geventchat.chat.events import Event
from geventchat.chat.text import clean
from geventchat.dialects.telnet import TIMING_MARK, wants_timing_mark, without_telnet

Writers = dict[type[Event], Callable[[Any], str]]

_UTF8 = Violation(Fault.NOT_UTF8)


@dataclass(frozen=True, slots=True)
class Marked:
    """A line whose terminal is owed some bytes of its own, before what the line says is done."""

    answer: bytes
    command: Command | None


Reading = Command | Marked | None


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """One way to speak to the chat.

    `read` takes a line without its end and whether its sender has logged in; None is a line that asks for nothing.
    `write` gives the bytes of an event, none where the dialect passes over it.
    `echoes` are the broadcasts that their own author hears too.
    """

    name: str
    port: int
    idle_s: float
    read: Callable[[bytes, bool], Reading]
    write: Callable[[Event], bytes]
    echoes: frozenset[type[Event]] = frozenset()


def writer(writers: Writers) -> Callable[[Event], bytes]:
    """An event's bytes, by the table of its dialect."""

    def write(event: Event) -> bytes:
        return writers[type(event)](event).encode()

    return write


def prefixed(prefix: str, texts: Sequence[str]) -> str:
    """A line for each text, all of which begin alike."""
    return prefix + f"\n{prefix}".join(texts) + "\n"


def to_one(rest: str) -> Tell:
    """What stands behind a command to tell one person something: a name, then the text."""
    to, _, text = rest.partition(" ")
    return Tell(to, text.strip())


def typed(read: Callable[[str, bool], Command | None]) -> Callable[[bytes, bool], Reading]:
    """A reader of bytes from a reader of text, for lines that people may have typed into telnet."""

    def read_bytes(line: bytes, joined: bool) -> Reading:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            # 0xFF begins every telnet sequence and never stands in UTF-8, so only a line that fails can hold one.
            return read_telnet(line, joined)
        return read(clean(text), joined)

    def read_telnet(line: bytes, joined: bool) -> Reading:
        try:
            command = read(clean(without_telnet(line).decode()), joined)
        except UnicodeDecodeError:
            command = _UTF8
        return Marked(TIMING_MARK, command) if wants_timing_mark(line) else command

    return read_bytes
