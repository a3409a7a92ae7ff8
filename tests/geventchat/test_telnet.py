"""Telnet's command sequences in complete lines."""

from __future__ import annotations

import pytest

from geventchat.dialects.framing import TOO_LONG, FramingAnswer, Unit
from geventchat.dialects.telnet import TelnetFraming, without_telnet


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        (b"LOGIN alice", b"LOGIN alice"),
        (b"\xff\xfb\x01LOGIN \xff\xfd\x03alice", b"LOGIN alice"),
        (b"\xff\xf4\xff\xfd\x06MSG hi", b"MSG hi"),
        (b"a\xff\xfa\x18\x00VT100\xff\xf0b", b"ab"),
        (b"a\xff\xfa\x18 no end", b"a"),
        (b"a\xff", b"a"),
        (b"a\xff\xfb", b"a"),
        (b"a\xff\xf1b", b"ab"),
        # An escaped 0xFF is data, and never UTF-8: the whole line is left for the reader to refuse.
        (b"a\xff\xffb", b"a\xff\xffb"),
    ],
)
def test_sequences_are_removed(line: bytes, typed: bytes):
    assert without_telnet(line) == typed


MARK = FramingAnswer(b"\xff\xfb\x06")


@pytest.mark.parametrize(
    ("chunks", "found"),
    [
        # Debian's telnet sends this for Ctrl-C: IAC IP, IAC DO TM.
        ([b"\xff\xf4\xff\xfd\x06"], [MARK]),
        ([b"\xff\xf4\xff\xfd\x06", b"hi\n"], [MARK, b"\xff\xf4\xff\xfd\x06hi"]),
        ([b"\xff", b"\xfd", b"\x06"], [MARK]),
        ([b"a\n\xff\xfd\x06b\n"], [b"a", MARK, b"\xff\xfd\x06b"]),
        ([b"\xff\xfd\x06\xff\xfd\x06"], [MARK, MARK]),
        ([b"123456789\xff\xfd\x06\n"], [MARK, TOO_LONG]),
        # Another option, an answer to a request, an escaped 0xFF, a command that the end of the line cuts off.
        ([b"\xff\xfd\x01"], []),
        ([b"\xff\xfb\x06"], []),
        ([b"\xff\xff\xfd\x06"], []),
        ([b"\xff\xfd\n\x06\n"], [b"\xff\xfd", b"\x06"]),
    ],
)
def test_a_timing_mark_is_sent_as_soon_as_it_is_asked_for(chunks: list[bytes], found: list[Unit]):
    framing = TelnetFraming(8)
    assert [one for chunk in chunks for one in framing.feed(chunk)] == found
