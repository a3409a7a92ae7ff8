"""The header in which a proxy says for whom it connects: the PROXY protocol, versions 1 and 2. Pure.

Invariants of HeaderReader:
- `wanted` never goes beyond the end of the header, however it arrives: what follows belongs to the client.
- A header is bounded: version 1 by the 107 bytes that its specification allows, version 2 by `_MOST_MORE_BYTES`.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from geventchat.chat.addresses import parse_address

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_START = b"PROXY "
# Neither version has a shorter header than this, so that many bytes can be read before it is known which one it is.
_FIRST_BYTES = len(_SIGNATURE)
_MOST_LINE_BYTES = 107
_HEAD_BYTES = 16
# Addresses, and what proxies add to them, such as the name of a certificate.
_MOST_MORE_BYTES = 2_048
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
# How many bytes the addresses and ports of each family take.
_ADDRESS_BYTES = {_TCP4: (4, 12), _TCP6: (16, 36)}
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|TCP(?P<version>[46]) (?P<source>[0-9A-Fa-f:.]+) (?P<target>[0-9A-Fa-f:.]+) (?P<ports>\d{1,5} \d{1,5}))\r\n"
)


class InvalidHeader(ValueError):
    """The header is not one, or is not supported; the message says why."""


class HeaderReader:
    """Reads the header of one connection."""

    __slots__ = ("_head", "source", "wanted")

    def __init__(self) -> None:
        self._head = b""
        # How many bytes can be read next; 0 when the header is complete.
        self.wanted = _FIRST_BYTES
        # For whom the proxy connects; None if it connects for itself, or does not know.
        self.source: str | None = None

    def feed(self, data: bytes) -> None:
        """Add what has been read, at most `wanted` bytes. Raises InvalidHeader."""
        self._head += data
        head = self._head
        if head.startswith(_SIGNATURE):
            self._read_version_2(head)
        elif head.startswith(_START) and (len(head) >= _FIRST_BYTES or b"\n" in head):
            # A line that ends so early is refused at once, since nothing more has to come.
            self._read_version_1(head)
        elif _SIGNATURE.startswith(head) or (_START + head[len(_START) :])[: len(head)] == head:
            self.wanted = _FIRST_BYTES - len(head)
        else:
            raise InvalidHeader("it does not begin with a header of the PROXY protocol")

    def _read_version_1(self, head: bytes) -> None:
        line, newline, _ = head.partition(b"\n")
        if not newline:
            if len(head) >= _MOST_LINE_BYTES:
                raise InvalidHeader(f"its header has more than {_MOST_LINE_BYTES} bytes")
            # At least its end has yet to come.
            self.wanted = 1 if head.endswith(b"\r") else min(2, _MOST_LINE_BYTES - len(head))
            return
        # What follows an invalid line can have been read with it.
        found = _LINE.fullmatch(head)
        if found is None:
            raise InvalidHeader(f"its header is {_shown(line + newline)}")
        if found["version"] is not None:
            version = int(found["version"])
            ports = map(int, found["ports"].split())
            if any(port > 65_535 for port in ports):
                raise InvalidHeader(f"its header is {_shown(head)}")
            source, _ = (self._address(found[name], version, head) for name in ("source", "target"))
            self.source = source
        self.wanted = 0

    def _address(self, text: bytes, version: int, head: bytes) -> str:
        try:
            address = ip_address(text.decode())
        except ValueError:
            raise InvalidHeader(f"its header is {_shown(head)}") from None
        if address.version != version:
            raise InvalidHeader(f"its header is {_shown(head)}")
        return str(parse_address(str(address)))

    def _read_version_2(self, head: bytes) -> None:
        size = int.from_bytes(head[14:_HEAD_BYTES], "big")
        if len(head) < _HEAD_BYTES:
            self.wanted = _HEAD_BYTES - len(head)
            return
        command, family = head[12], head[13]
        if command not in {_LOCAL, _PROXY}:
            raise InvalidHeader(
                f"its header has version and command {command:#04x}, which is not 0x20 or 0x21"
            )
        if size > _MOST_MORE_BYTES:
            raise InvalidHeader(f"its header announces {size} bytes, which is more than {_MOST_MORE_BYTES}")
        self.wanted = _HEAD_BYTES + size - len(head)
        if self.wanted or command == _LOCAL or family in {_UNSPECIFIED, _UNIX_STREAM}:
            return
        if family not in _ADDRESS_BYTES:
            raise InvalidHeader(f"its header has family {family:#04x}, which is not TCP")
        address_bytes, least = _ADDRESS_BYTES[family]
        if size < least:
            raise InvalidHeader(f"its header has {size} bytes of addresses instead of {least}")
        source = ip_address(head[_HEAD_BYTES : _HEAD_BYTES + address_bytes])
        self.source = str(parse_address(str(source)))


def _shown(head: bytes) -> str:
    return repr(head.decode("latin-1"))
