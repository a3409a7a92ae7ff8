"""How a conversation may not begin: found in any cut, before a line behind it could be read."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.net.opening import Opening, Stranger

LIMIT = 64
LONG = b"/" + b"x" * LIMIT

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /path?x=1 HTTP/1.0\n\nLOGIN evil\n",
    b"\r\n\r\nOPTIONS * HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"LOGIN /alice HTTP/1.1\r\n",
    b"POST " + LONG + b" HTTP/1.1\r\n\r\nLOGIN evil\n",
    b"GET http://" + LONG + b" HTTP/1.1\r\n\r\nLOGIN evil\n",
]
HELLOS = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\nLOGIN evil\n"]
PEOPLE = [
    b"LOGIN alice\nMSG GET / HTTP/1.1\n",
    b"\n\nhello\n",
    b'{"type": "join"}\n',
    b"GET /x\n",
    b"\x16\n",
    b"x" * 200 + b"\n",
]


def judged(chunks: list[bytes]) -> Stranger | bool:
    opening = Opening(LIMIT)
    verdict: Stranger | bool = False
    seen = b""
    for chunk in chunks:
        verdict = opening.judge(chunk)
        seen += chunk
        if verdict is not False:
            return verdict
        # While it is open whose line this is, no line with anything in it can have been read.
        assert not seen.lstrip(b"\r\n").count(b"\n")
    return verdict


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("data", REQUESTS)
@given(places=st.lists(st.integers(0, 500), max_size=6))
def test_a_request_is_found_in_any_cut(data: bytes, places: list[int]):
    assert judged(cut(data, places)) is Stranger.HTTP


@pytest.mark.parametrize("data", HELLOS)
@given(places=st.lists(st.integers(0, 500), max_size=6))
def test_a_hello_is_found_in_any_cut(data: bytes, places: list[int]):
    assert judged(cut(data, places)) is Stranger.TLS


@pytest.mark.parametrize("data", PEOPLE)
@given(places=st.lists(st.integers(0, 500), max_size=6))
def test_people_are_let_in_in_any_cut(data: bytes, places: list[int]):
    assert judged(cut(data, places)) is True
