"""What a reader makes of bytes does not depend on how they were cut: whole, byte by byte, or anywhere."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geventchat.chat.commands import Fault, Login, Violation
from geventchat.dialects import DIALECTS
from geventchat.dialects.dialect import Dialect, Reading
from geventchat.dialects.framing import Framer
from geventchat.net.opening import Opening, Stranger
from tests.fire.garbage import piece_of_garbage
from tests.fuzz.targets import lines_of

LIMIT_BYTES = 48

WORDS = st.sampled_from(
    [
        b"LOGIN a", b"MSG hi", b"WHO", b"DM a b", b"PING", b"QUIT", b"alice", b"/users", b"/dm a b", b"/quit", b"/nope",
        b'{"type": "join", "username": "a"}', b'{"type": "chat", "message": "\xc3\xa9"}', b'{"type": "ping"}', b"{", b"[]",
        b"\xff\xfb\x01LOGIN b", b"MSG \xff\xfd\x06x", b"\xff", b"\xc3", b"GET / HTTP/1.1", b"GET /" + b"a" * 50 + b" HTTP/1.1",
        b"A b" + b"c" * 50 + b" HTTP/1.1", b"\x16\x03\x01", b"x" * 47, b"x" * 48, b"x" * 49, b"x" * 200, b"", b"\0", b"\t ",
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\n", b""])
WIRES = st.one_of(
    st.lists(st.tuples(WORDS, ENDS), max_size=8).map(lambda pairs: b"".join([a + b for a, b in pairs])),
    st.binary(max_size=200),
    st.integers(0, 2**32).map(lambda seed: piece_of_garbage(random.Random(seed))[1][:3_000]),
)
EACH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))


def pieces(wire: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    places = [0, *sorted({cut % (len(wire) + 1) for cut in cuts}), len(wire)]
    return [wire[a:b] for a, b in pairwise(places) if a < b]


def read(dialect: Dialect, chunks: list[bytes]) -> list[Reading | Stranger]:
    """All that one connection would be understood to say, as the server goes about it."""
    framer, opening = Framer(LIMIT_BYTES), Opening(LIMIT_BYTES)
    open_yet, joined = True, False
    understood: list[Reading | Stranger] = []
    for chunk in chunks:
        if open_yet:
            verdict = opening.judge(chunk)
            if isinstance(verdict, Stranger):
                return [verdict]
            open_yet = not verdict
        for line in framer.feed(chunk):
            command: Reading = Violation(Fault.TOO_LONG) if line is None else dialect.read(line, joined)
            joined = joined or isinstance(command, Login)
            understood.append(command)
    return understood


@EACH
@settings(max_examples=150, deadline=None)
@given(wire=WIRES, cuts=st.lists(st.integers(0, 4_000), max_size=8))
@example(wire=b"A b" + b"c" * 50 + b" HTTP/1.1\n", cuts=[])
def test_cuts_change_nothing(dialect: Dialect, wire: bytes, cuts: list[int]) -> None:
    whole = read(dialect, [wire])
    assert read(dialect, [wire[n : n + 1] for n in range(len(wire))]) == whole
    assert read(dialect, pieces(wire, cuts)) == whole


@settings(max_examples=200, deadline=None)
@given(wire=WIRES, cuts=st.lists(st.integers(0, 4_000), max_size=8))
def test_lines_are_those_of_the_definition_and_no_more_than_one_is_held(wire: bytes, cuts: list[int]) -> None:
    framer, found = Framer(LIMIT_BYTES), list[bytes | None]()
    for chunk in pieces(wire, cuts):
        found += framer.feed(chunk)
        assert len(framer.unfinished) <= LIMIT_BYTES + 1
    assert found == lines_of(wire, LIMIT_BYTES)
