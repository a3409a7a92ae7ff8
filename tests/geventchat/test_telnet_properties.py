"""Any line without telnet sequences is unchanged, and nothing is ever added."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.dialects.telnet import wants_timing_mark, without_telnet


@given(st.binary(max_size=64))
def test_nothing_is_added_or_reordered(line: bytes):
    rest = iter(line)
    assert all(byte in rest for byte in without_telnet(line))


@given(st.binary(max_size=64).filter(lambda line: b"\xff" not in line))
def test_a_line_without_0xff_is_untouched(line: bytes):
    assert without_telnet(line) == line
    assert not wants_timing_mark(line)
