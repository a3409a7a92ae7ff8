"""Requests of foreign protocols are recognised however they are cut, before a line behind them can be read."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.net.sniffing import ForeignProtocol, Sniffer

LIMIT = 64
LONG = b"/" + b"x" * LIMIT

HTTP = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /path?x=1 HTTP/1.0\n\nLOGIN evil\n",
    b"\r\n\r\nOPTIONS * HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"LOGIN /alice HTTP/1.1\r\n",
    b"POST " + LONG + b" HTTP/1.1\r\n\r\nLOGIN evil\n",
    b"GET http://" + LONG + b" HTTP/1.1\r\n\r\nLOGIN evil\n",
]
TLS = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\nLOGIN evil\n"]
CHAT = [
    b"LOGIN alice\nMSG GET / HTTP/1.1\n",
    b"\n\nhello\n",
    b'{"type": "join"}\n',
    b"GET /x\n",
    b"\x16\n",
    b"x" * 200 + b"\n",
]
CUTS = st.lists(st.integers(0, 500), max_size=6)


def verdict_on(chunks: list[bytes]) -> ForeignProtocol | bool:
    sniffer = Sniffer(LIMIT)
    verdict: ForeignProtocol | bool = False
    seen = b""
    for chunk in chunks:
        verdict = sniffer.feed(chunk)
        seen += chunk
        if verdict is not False:
            return verdict
        # Until the verdict no line with anything in it can have been read.
        assert not seen.lstrip(b"\r\n").count(b"\n")
    return verdict


def cut(data: bytes, offsets: list[int]) -> list[bytes]:
    edges = [0, *sorted(offset % (len(data) + 1) for offset in offsets), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("data", HTTP)
@given(cuts=CUTS)
def test_an_http_request_is_recognised_however_it_is_cut(data: bytes, cuts: list[int]):
    assert verdict_on(cut(data, cuts)) is ForeignProtocol.HTTP


@pytest.mark.parametrize("data", TLS)
@given(cuts=CUTS)
def test_a_tls_hello_is_recognised_however_it_is_cut(data: bytes, cuts: list[int]):
    assert verdict_on(cut(data, cuts)) is ForeignProtocol.TLS


@pytest.mark.parametrize("data", CHAT)
@given(cuts=CUTS)
def test_chat_is_let_through_however_it_is_cut(data: bytes, cuts: list[int]):
    assert verdict_on(cut(data, cuts)) is True
