"""Handles what telnet (RFC 854) adds to the typed text: its sequences, and the timing mark that it waits for. Pure.

Invariants of TelnetFraming:
- Its lines are those of LineFraming: no sequence swallows a line ending, not even an unfinished one.
- Each request for a timing mark is answered once, as soon as its last byte has arrived, in whatever pieces. The answer comes
  before the line that contains the request, because that line has not ended yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from geventchat.dialects.framing import ByNewlines, FramingAnswer, LineFraming, Unit

# IAC SB … IAC SE (or up to the end of the line), IAC WILL/WONT/DO/DONT option, IAC command, or an IAC that the end
# of the line cuts off. IAC IAC is an escaped data byte 0xFF: it stays, and makes the line invalid UTF-8.
_SEQUENCE = re.compile(rb"\xff(?:\xfa.*?(?:\xff\xf0|\Z)|[\xfb-\xfe](?:.|\Z)|[^\xff\xfa-\xfe]|\Z)", re.DOTALL)
_ESCAPED = b"\xff\xff"
# A command, possibly incomplete.
_COMMAND = re.compile(rb"\xff(?:[\xfb-\xfe].?|.)?", re.DOTALL)
_CUT_COMMAND = re.compile(rb"\xff[\xfb-\xfe]?")
# After Ctrl-C, telnet asks for a timing mark (RFC 860) and discards all output until it arrives.
_DO_TIMING_MARK = b"\xff\xfd\x06"
_TIMING_MARK = FramingAnswer(b"\xff\xfb\x06")


def without_telnet(line: bytes) -> bytes:
    """The line as it was typed."""
    if b"\xff" not in line or _ESCAPED in line:
        return line
    return _SEQUENCE.sub(b"", line)


class TelnetFraming(ByNewlines):
    """The lines of a terminal, and the timing marks that telnet asks for between them or within one."""

    __slots__ = ("_cut", "_lines")

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a line can have, without its ending."""
        super().__init__()
        self._lines = LineFraming(limit)
        # The beginning of a command whose other bytes have not arrived.
        self._cut = b""

    TRANSIENT: frozenset[str] = frozenset()

    def to_state(self) -> dict[str, Any]:
        """The bytes that no batch has returned yet, to be handed over."""
        chunk, at = self._ahead
        return {
            "lines": self._lines.to_state(),
            "cut": self._cut.decode("latin-1"),
            "ahead": chunk[at:].decode("latin-1"),
        }

    def take_state(self, state: dict[str, Any]) -> bytes:
        """Go on where another process was; returns the bytes that are to be read next."""
        self._lines.take_state(state["lines"])
        cut: str = state["cut"]
        ahead: str = state["ahead"]
        self._cut = cut.encode("latin-1")
        return ahead.encode("latin-1")

    def feed(self, chunk: bytes) -> Sequence[Unit]:
        """The lines that this chunk completes, and the timing marks that it asks for."""
        if not self._cut and b"\xff" not in chunk:
            return self._lines.feed(chunk)
        found: list[Unit] = []
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._find_marks(part, found)
            self._cut = b""
            found.extend(self._lines.feed(part + b"\n"))
        self._find_marks(rest, found)
        self._lines.feed(rest)
        return found

    def _find_marks(self, part: bytes, found: list[Unit]) -> None:
        commands = _COMMAND.findall(self._cut + part)
        found.extend([_TIMING_MARK] * commands.count(_DO_TIMING_MARK))
        self._cut = commands[-1] if commands and _CUT_COMMAND.fullmatch(commands[-1]) else b""
