"""Any line without telnet sequences is unchanged, nothing is ever added, and telnet's lines are cut like all others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.dialects.framing import FramingAnswer, Line, LineFraming, Unit
from geventchat.dialects.telnet import TelnetFraming, without_telnet
from tests.geventchat.test_framing import LIMIT

WORDS = st.sampled_from(
    [b"a", b"\r", b"\n", b"\xff", b"\xfd", b"\x06", b"\xff\xfd\x06", b"\xfa", b"12345678"]
)
CHUNKS = st.lists(st.lists(WORDS, max_size=12).map(b"".join))


@given(st.binary(max_size=64))
def test_nothing_is_added_or_reordered(line: bytes):
    rest = iter(line)
    assert all(byte in rest for byte in without_telnet(line))


@given(st.binary(max_size=64).filter(lambda line: b"\xff" not in line))
def test_a_line_without_0xff_is_untouched(line: bytes):
    assert without_telnet(line) == line


@given(CHUNKS)
def test_lines_and_timing_marks_do_not_depend_on_how_the_bytes_are_cut(chunks: list[bytes]):
    framing, plain = TelnetFraming(LIMIT), LineFraming(LIMIT)
    found: list[Unit] = []
    lines: list[Line] = []
    for chunk in chunks:
        found += framing.feed(chunk)
        lines += plain.feed(chunk)
    assert [one for one in found if not isinstance(one, FramingAnswer)] == lines
    assert list(TelnetFraming(LIMIT).feed(b"".join(chunks))) == found
