"""Bytes to bounded lines: however they are cut, the lines are the same, and no more is held than the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.dialects.framing import TOO_LONG, Line, LineFraming

LIMIT = 8


def by_definition(data: bytes) -> list[Line]:
    """What the rule says, a byte at a time."""
    lines: list[Line] = []
    line = b""
    for byte in data:
        if byte != 0x0A:
            line += bytes([byte])
            continue
        if line.endswith(b"\r"):
            line = line[:-1]
        lines.append(line if len(line) <= LIMIT else TOO_LONG)
        line = b""
    return lines


CHUNKS = st.lists(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\xff", b"bcd"]), max_size=12).map(b"".join))


@given(CHUNKS)
def test_lines_do_not_depend_on_how_the_bytes_are_cut(chunks: list[bytes]):
    framing = LineFraming(LIMIT)
    found: list[Line] = []
    for chunk in chunks:
        found += framing.feed(chunk)
        assert len(framing._rest) <= LIMIT + 1
    data = b"".join(chunks)
    assert found == by_definition(data)
    assert LineFraming(LIMIT).feed(data) == by_definition(data)
    bytewise = LineFraming(LIMIT)
    assert [line for byte in data for line in bytewise.feed(bytes([byte]))] == by_definition(data)


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


@given(st.binary())
def test_a_payload_is_sent_as_it_is(payload: bytes):
    assert LineFraming.wrap(payload) == payload
