"""Recognises a foreign protocol in the first bytes of a connection: an HTTP request or a TLS hello. Pure.

A web page can make a visitor's browser send almost anything to any port, but not without a request line in front.
Closing on that line, before anything behind it is read as a command, keeps web pages out of the chat.
"""

from __future__ import annotations

import re
from enum import Enum


class ForeignProtocol(Enum):
    """A protocol that is not ours; the value is what the log says."""

    HTTP = "http"
    TLS = "tls"


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(_TOKEN + rb" [^ ]+ +HTTP/[0-9]")
_LONG_REQUEST = re.compile(_TOKEN + rb" (?:/|\*|https?:)")


class Sniffer:
    """Looks at the first line of one connection until it is clear what it is."""

    __slots__ = ("_head", "_limit")

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a line can have."""
        self._limit = limit
        self._head = b""

    def feed(self, chunk: bytes) -> ForeignProtocol | bool:
        """The foreign protocol, True when it is none, False while that is open and no line is complete."""
        head = (self._head + chunk).lstrip(b"\r\n")
        line, end, _ = head.partition(b"\n")
        if line.startswith(b"\x16\x03"):
            return ForeignProtocol.TLS
        # Only as much as there would be to look at if the line came byte by byte; otherwise its segments would decide.
        if _REQUEST.match(line[: self._limit + 1]):
            return ForeignProtocol.HTTP
        # A request line over the limit would be discarded as too long, and its headers and body read as commands.
        if len(line) > self._limit:
            return ForeignProtocol.HTTP if _LONG_REQUEST.match(line) else True
        if end:
            return True
        self._head = head
        return False
