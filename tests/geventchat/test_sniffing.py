"""Requests of foreign protocols are recognised before a line behind them can be read."""

from __future__ import annotations

import pytest

from geventchat.net.sniffing import ForeignProtocol, Sniffer

LIMIT = 64
LONG = b"/" + b"x" * LIMIT

HTTP = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /path?x=1 HTTP/1.0\n\nLOGIN evil\n",
    b"\r\n\r\nOPTIONS * HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"LOGIN /alice HTTP/1.1\r\n",
    b"msg /hi HTTP/1.1\r\n",
    b"GET https://x/ HTTP/1.1\r\n",
    b"CONNECT localhost:4000 HTTP/1.1\r\n",
    b"POST " + LONG + b" HTTP/1.1\r\n\r\nLOGIN evil\n",
    b"GET http://" + LONG + b" HTTP/1.1\r\n\r\nLOGIN evil\n",
    b"CONNECT " + LONG + b" HTTP/1.1\r\n\r\nLOGIN evil\n",
    b"M" * 10 * LIMIT + b" / HTTP/1.1\r\n\r\nLOGIN evil\n",
    b"M" * (LIMIT - 2) + b" https://x HTTP/1.1\r\n\r\nLOGIN evil\n",
]
TLS = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\nLOGIN evil\n"]
CHAT = [
    b"LOGIN alice\nMSG GET / HTTP/1.1\n",
    b"\n\nhello\n",
    b'{"type": "join"}\n',
    b"GET /x\n",
    b"LOGIN a HTTP/1.1\n",
    b"MSG see GET / HTTP/1.1\n",
    b"I use HTTP/2\n",
    b"get / http/1.1\n",
    b"\x16\n",
    b"x" * 200 + b"\n",
    b"x" * 200 + b" hello\n",
    b"x" * 200 + b"CONNECT https\n",
    b"x" * (LIMIT - 2) + b" htt\n",
    b"x" * (LIMIT - 2) + b" httpd\n",
]


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


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


EXPECTED = [
    *[(data, ForeignProtocol.HTTP) for data in HTTP],
    *[(data, ForeignProtocol.TLS) for data in TLS],
    *[(data, True) for data in CHAT],
]


@pytest.mark.parametrize(("data", "verdict"), EXPECTED)
def test_a_protocol_is_recognised_in_one_segment_and_byte_by_byte(
    data: bytes, verdict: ForeignProtocol | bool
):
    assert verdict_on([data]) is verdict
    assert verdict_on(bytewise(data)) is verdict
