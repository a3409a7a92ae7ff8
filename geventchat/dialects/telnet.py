"""Removes telnet's command sequences (RFC 854) from complete lines, so that none can swallow a line ending. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from geventchat.chat.commands import Command

# IAC SB … IAC SE (or up to the end of the line), IAC WILL/WONT/DO/DONT option, IAC command, or an IAC that the end
# of the line cuts off. IAC IAC is an escaped data byte 0xFF: it stays, and makes the line invalid UTF-8.
_SEQUENCE = re.compile(rb"\xff(?:\xfa.*?(?:\xff\xf0|\Z)|[\xfb-\xfe](?:.|\Z)|[^\xff\xfa-\xfe]|\Z)", re.DOTALL)
_ESCAPED = b"\xff\xff"
# After Ctrl-C, telnet asks for a timing mark (RFC 860) and discards all output until it arrives.
_DO_TIMING_MARK = b"\xff\xfd\x06"
TIMING_MARK = b"\xff\xfb\x06"


@dataclass(frozen=True, slots=True)
class WithTimingMark:
    """A line from a terminal that waits for a timing mark. Send the mark before the line is handled."""

    reading: Command | str | None


def without_telnet(line: bytes) -> bytes:
    """The line as it was typed."""
    if b"\xff" not in line or _ESCAPED in line:
        return line
    return _SEQUENCE.sub(b"", line)


def wants_timing_mark(line: bytes) -> bool:
    """True when the terminal waits for a timing mark."""
    return _DO_TIMING_MARK in line and _ESCAPED not in line
