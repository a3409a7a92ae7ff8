"""Bytes to bounded lines, independent of how they are cut; no more than the limit is held."""

from __future__ import annotations

import pytest

from geventchat.dialects.framing import TOO_LONG, Line, LineFraming

LIMIT = 8


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"12345678\n"], [b"12345678"]),
        ([b"12345678\r\n"], [b"12345678"]),
        ([b"12345678\r", b"\n"], [b"12345678"]),
        ([b"123456789\n"], [TOO_LONG]),
        ([b"12345678\r\r\n"], [TOO_LONG]),
        ([b"123456789", b"0" * 100, b"\nok\n"], [TOO_LONG, b"ok"]),
        ([b"a\n123456789\nb\n"], [b"a", TOO_LONG, b"b"]),
        ([b"a\rb\n"], [b"a\rb"]),
        ([b"\n\n"], [b"", b""]),
        ([b"never ended"], []),
        ([b""], []),
    ],
)
def test_lines(chunks: list[bytes], lines: list[Line]):
    framing = LineFraming(LIMIT)
    assert [line for chunk in chunks for line in framing.feed(chunk)] == lines


def test_a_line_over_the_limit_is_not_kept():
    framing = LineFraming(LIMIT)
    for _ in range(1000):
        assert framing.feed(b"x" * 1000) == []
        assert framing._rest == b""
