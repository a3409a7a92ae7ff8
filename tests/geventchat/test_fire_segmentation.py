"""The parsing of bytes does not depend on how they are cut: whole, byte by byte, or anywhere."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geventchat.chat.commands import InvalidCommand, Login, ParseError
from geventchat.dialects import DIALECTS
from geventchat.dialects.dialect import Dialect, Reading
from geventchat.dialects.framing import TOO_LONG, Control, Framing, Line, LineFraming
from geventchat.dialects.telnet import TelnetFraming
from geventchat.net.sniffing import ForeignProtocol, Sniffer
from tests.fire.garbage import random_garbage
from tests.fuzz.targets import lines_of

LIMIT_BYTES = 48

WORDS = st.sampled_from(
    [
        b"LOGIN a", b"MSG hi", b"WHO", b"DM a b", b"PING", b"QUIT", b"alice", b"/users", b"/dm a b", b"/quit", b"/nope",
        b'{"type": "join", "username": "a"}', b'{"type": "chat", "message": "\xc3\xa9"}', b'{"type": "ping"}', b"{", b"[]",
        b"\xff\xfb\x01LOGIN b", b"MSG \xff\xfd\x06x", b"\xff", b"\xc3", b"GET / HTTP/1.1", b"GET /" + b"a" * 50 + b" HTTP/1.1",
        b"PUT /" + b"c" * 50 + b" HTTP/1.1", b"\x16\x03\x01", b"x" * 47, b"x" * 48, b"x" * 49, b"x" * 200, b"", b"\0", b"\t ",
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\n", b""])
WIRES = st.one_of(
    st.lists(st.tuples(WORDS, ENDS), max_size=8).map(lambda pairs: b"".join([a + b for a, b in pairs])),
    st.binary(max_size=200),
    st.integers(0, 2**32).map(lambda seed: random_garbage(random.Random(seed))[1][:3_000]),
)
EACH_DIALECT = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))


def pieces(wire: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these offsets."""
    offsets = [0, *sorted({cut % (len(wire) + 1) for cut in cuts}), len(wire)]
    return [wire[a:b] for a, b in pairwise(offsets) if a < b]


def readings(dialect: Dialect, chunks: list[bytes]) -> list[Reading | Control | ForeignProtocol]:
    """Everything one connection is understood to say, in the way the server goes about it."""
    framing: Framing = TelnetFraming(LIMIT_BYTES) if dialect.telnet else LineFraming(LIMIT_BYTES)
    sniffer, reader = Sniffer(LIMIT_BYTES), dialect.interpreter()
    undecided, logged_in = True, False
    understood: list[Reading | Control | ForeignProtocol] = []
    for chunk in chunks:
        if undecided:
            verdict = sniffer.feed(chunk)
            if isinstance(verdict, ForeignProtocol):
                return [verdict]
            undecided = not verdict
        for line in framing.feed(chunk):
            if isinstance(line, Control):
                understood.append(line)
                continue
            reading: Reading = (
                InvalidCommand(ParseError.TOO_LONG) if line is TOO_LONG else reader.read(line, logged_in)
            )
            logged_in = logged_in or isinstance(reading, Login)
            understood.append(reading)
    return understood


@EACH_DIALECT
@settings(max_examples=150, deadline=None)
@given(wire=WIRES, cuts=st.lists(st.integers(0, 4_000), max_size=8))
@example(wire=b"CONNECT b" + b"c" * 50 + b" HTTP/1.1\n", cuts=[])
def test_cuts_change_nothing(dialect: Dialect, wire: bytes, cuts: list[int]) -> None:
    whole = readings(dialect, [wire])
    assert readings(dialect, [wire[n : n + 1] for n in range(len(wire))]) == whole
    assert readings(dialect, pieces(wire, cuts)) == whole


@settings(max_examples=200, deadline=None)
@given(wire=WIRES, cuts=st.lists(st.integers(0, 4_000), max_size=8))
def test_lines_follow_the_definition_and_no_more_than_one_is_held(wire: bytes, cuts: list[int]) -> None:
    framing, found = LineFraming(LIMIT_BYTES), list[Line]()
    for chunk in pieces(wire, cuts):
        found += framing.feed(chunk)
        assert len(framing._rest) <= LIMIT_BYTES + 1
    assert found == lines_of(wire, LIMIT_BYTES)
