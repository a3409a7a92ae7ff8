"""Any bytes become the same lines, however they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.dialects.framing import TOO_LONG, Line, LineFraming
from tests.geventchat.test_framing import LIMIT


def by_definition(data: bytes) -> list[Line]:
    """The lines by definition, one byte at a time."""
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


@given(st.binary())
def test_a_payload_is_sent_as_it_is(payload: bytes):
    assert LineFraming.wrap(payload) == payload
