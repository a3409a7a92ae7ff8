"""Telnet's sequences in a line that is already cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.dialects.telnet import without_telnet


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
        # an escaped 0xFF is data, and then no UTF-8: the whole line is left for the reader to refuse
        (b"a\xff\xffb", b"a\xff\xffb"),
    ],
)
def test_sequences(line: bytes, typed: bytes):
    assert without_telnet(line) == typed


@given(st.binary(max_size=64))
def test_what_is_left_was_there_in_that_order(line: bytes):
    rest = iter(line)
    assert all(byte in rest for byte in without_telnet(line))
