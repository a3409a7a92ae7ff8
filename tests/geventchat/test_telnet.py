"""Telnet's command sequences in complete lines."""

from __future__ import annotations

import pytest

from geventchat.dialects.telnet import wants_timing_mark, without_telnet


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


def test_a_timing_mark_is_wanted_where_it_is_asked_for():
    assert wants_timing_mark(b"a\xff\xfd\x06")
    assert not wants_timing_mark(b"a\xff\xfb\x06")
    assert not wants_timing_mark(b"a\xff\xff\xfd\x06")
