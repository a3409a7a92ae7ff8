"""Telnet's command sequences (RFC 854), taken out of a line that is already cut, so that none can swallow its end. Pure."""

from __future__ import annotations

import re

# IAC SB … IAC SE (or to the line's end), IAC WILL/WONT/DO/DONT option, IAC command; an IAC cut off by the line's end.
# IAC IAC is an escaped data byte 0xFF: it stays, and is then no UTF-8.
_SEQUENCE = re.compile(rb"\xff(?:\xfa.*?(?:\xff\xf0|\Z)|[\xfb-\xfe](?:.|\Z)|[^\xff\xfa-\xfe]|\Z)", re.DOTALL)
_ESCAPED = b"\xff\xff"
# telnet's Ctrl-C asks for a timing mark (RFC 860) and shows nothing of what comes until it is there.
_DO_TIMING_MARK = b"\xff\xfd\x06"
TIMING_MARK = b"\xff\xfb\x06"


def without_telnet(line: bytes) -> bytes:
    """The line as it was typed."""
    if b"\xff" not in line or _ESCAPED in line:
        return line
    return _SEQUENCE.sub(b"", line)


def wants_timing_mark(line: bytes) -> bool:
    """Does the terminal wait for a mark in what it is sent?"""
    return _DO_TIMING_MARK in line and _ESCAPED not in line
