"""The PROXY protocol: which headers are read, which are refused, and that no byte behind them is."""

from __future__ import annotations

import struct

import pytest

from geventchat.net.proxy_header import HeaderReader, InvalidHeader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 50_000, 4_000)
V6 = bytes.fromhex("20010db8000000000000000000000007" * 2) + struct.pack("!HH", 50_000, 4_000)
MAPPED = bytes.fromhex("00000000000000000000ffffc0000207" * 2) + struct.pack("!HH", 50_000, 4_000)


def second(command: int, family: int, more: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(more)) + more


def read(data: bytes, most: int = 10_000) -> tuple[str | None, bytes]:
    """The source, and what follows the header, if at most this many bytes come at a time."""
    reader = HeaderReader()
    while reader.wanted:
        if not data:
            raise EOFError
        piece, data = data[: min(most, reader.wanted)], data[min(most, reader.wanted) :]
        reader.feed(piece)
    return reader.source, data


VALID = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 4000\r\n", "192.0.2.7"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "1.1.1.1"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 4000\r\n", "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 50000 4000\r\n", "192.0.2.7"),
    (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n", "ffff" + ":ffff" * 7),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 whatever \xff\r\n", None),
    (second(0x21, 0x11, V4), "192.0.2.7"),
    (second(0x21, 0x11, V4 + b"\x04\x00\x01x"), "192.0.2.7"),
    (second(0x21, 0x21, V6), "2001:db8::7"),
    (second(0x21, 0x21, MAPPED), "192.0.2.7"),
    (second(0x21, 0x21, V6 + bytes(2_048 - 36)), "2001:db8::7"),
    (second(0x20, 0x00, b""), None),
    (second(0x20, 0x11, V4), None),
    (second(0x20, 0x77, b"anything"), None),
    (second(0x21, 0x00, b""), None),
    (second(0x21, 0x31, bytes(216)), None),
]
IDS = [repr(header)[:40] for header, _ in VALID]


@pytest.mark.parametrize(("header", "source"), VALID, ids=IDS)
def test_a_header_is_read_to_its_end_and_no_further_however_it_arrives(header: bytes, source: str | None):
    for most in (1, 2, 7, 10_000):
        assert read(header + b"LOGIN alice\n", most) == (source, b"LOGIN alice\n")


@pytest.mark.parametrize(("header", "source"), VALID, ids=IDS)
def test_half_a_header_is_not_one(header: bytes, source: str | None):
    for end in (1, 6, 12, len(header) - 1):
        with pytest.raises(EOFError):
            read(header[:end])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"LOGIN alice\n", "it does not begin with a header of the PROXY protocol"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "it does not begin with a header of the PROXY protocol"),
        (b"PROXYTCP4 1.1.1.1", "it does not begin with a header of the PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIX\n", "it does not begin with a header of the PROXY protocol"),
        (b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", r"its header is 'PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n'"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", r"its header is 'PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n'"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "its header is"),
        (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", "its header is"),
        (b"PROXY TCP4 1.1.1.300 2.2.2.2 1 2\r\n", "its header is"),
        (b"PROXY TCP4 1.1.1.1 2.2.2 1 2\r\n", "its header is"),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", "its header is"),
        (b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", "its header is"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "its header is"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", "its header is"),
        (b"PROXY UNKNOWNX\r\n", "its header is"),
        # A newline that is not read as the last byte of two.
        (b"PROXY UNKNOW\nL", r"its header is 'PROXY UNKNOW\n'"),
        (b"PROXY \nLOGIN alice", r"its header is 'PROXY \n'"),
        # A line that ends before the shortest header could.
        (b"PROXY \n", r"its header is 'PROXY \n'"),
        (b"PROXY x\n", r"its header is 'PROXY x\n'"),
        (b"PROXY x\r\n", r"its header is 'PROXY x\r\n'"),
        (b"PROXY UNKNOWN " + b"x" * 200, "its header has more than 107 bytes"),
        (second(0x31, 0x11, V4), "its header has version and command 0x31, which is not 0x20 or 0x21"),
        (second(0x22, 0x11, V4), "its header has version and command 0x22"),
        (second(0x21, 0x12, V4), "its header has family 0x12, which is not TCP"),
        (second(0x21, 0x11, V4[:-1]), "its header has 11 bytes of addresses instead of 12"),
        (second(0x21, 0x21, V4), "its header has 12 bytes of addresses instead of 36"),
        (second(0x21, 0x11, bytes(2_049)), "its header announces 2049 bytes, which is more than 2048"),
    ],
)
def test_anything_else_is_refused(data: bytes, message: str):
    for most in (1, 10_000):
        with pytest.raises(InvalidHeader) as refused:
            read(data, most)
        assert str(refused.value).startswith(message)
