"""Bytes to bounded lines: however they were cut, the lines are the same and no more is held than the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.dialects.framing import Framer

LIMIT = 8


def naive(data: bytes) -> list[bytes | None]:
    """What the rule says, a byte at a time."""
    lines: list[bytes | None] = []
    line = b""
    for byte in data:
        if byte != 0x0A:
            line += bytes([byte])
            continue
        if line.endswith(b"\r"):
            line = line[:-1]
        lines.append(line if len(line) <= LIMIT else None)
        line = b""
    return lines


CHUNKS = st.lists(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\xff", b"bcd"]), max_size=12).map(b"".join))


@given(CHUNKS)
def test_the_cut_does_not_matter(chunks: list[bytes]):
    framer = Framer(LIMIT)
    found: list[bytes | None] = []
    for chunk in chunks:
        found += framer.feed(chunk)
        assert len(framer.unfinished) <= LIMIT + 1
    data = b"".join(chunks)
    assert found == naive(data)
    assert Framer(LIMIT).feed(data) == naive(data)
    bytewise = Framer(LIMIT)
    assert [line for byte in data for line in bytewise.feed(bytes([byte]))] == naive(data)


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"12345678\n"], [b"12345678"]),
        ([b"12345678\r\n"], [b"12345678"]),
        ([b"12345678\r", b"\n"], [b"12345678"]),
        ([b"123456789\n"], [None]),
        ([b"12345678\r\r\n"], [None]),
        ([b"123456789", b"0" * 100, b"\nok\n"], [None, b"ok"]),
        ([b"a\n123456789\nb\n"], [b"a", None, b"b"]),
        ([b"a\rb\n"], [b"a\rb"]),
        ([b"\n\n"], [b"", b""]),
        ([b"never ended"], []),
    ],
)
def test_lines(chunks: list[bytes], lines: list[bytes | None]):
    framer = Framer(LIMIT)
    assert [line for chunk in chunks for line in framer.feed(chunk)] == lines


def test_an_endless_line_is_not_kept():
    framer = Framer(LIMIT)
    for _ in range(1000):
        assert framer.feed(b"x" * 1000) == []
        assert framer.unfinished == b""
