"""How a conversation may not begin: as a browser's request or a TLS hello. Pure.

A web page can make its visitor's browser send almost anything to any port, but not without a request line in front. Closing
on that line, before anything behind it is read as a command, keeps pages out of the chat.
"""

from __future__ import annotations

import re
from enum import Enum


class Stranger(Enum):
    """Who speaks to us in another protocol; the value is what the log says."""

    HTTP = "http"
    TLS = "tls"


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(_TOKEN + rb" [^ ]+ +HTTP/[0-9]")
_LONG_REQUEST = re.compile(_TOKEN + rb" (?:/|\*|https?:)")


class Opening:
    """The first line of one conversation, until it is known whose it is."""

    __slots__ = ("_head", "_limit")

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a line may have."""
        self._limit = limit
        self._head = b""

    def judge(self, chunk: bytes) -> Stranger | bool:
        """The stranger it is, true when it is none, false while that is open and no line has been completed yet."""
        head = (self._head + chunk).lstrip(b"\r\n")
        line, end, _ = head.partition(b"\n")
        if line.startswith(b"\x16\x03"):
            return Stranger.TLS
        # Only what there would be to look at if the line had come byte by byte, or its cuts would decide.
        if _REQUEST.match(line[: self._limit + 1]):
            return Stranger.HTTP
        # A request whose line is over the limit would be thrown away as too long, and its headers and body read.
        if len(line) > self._limit:
            return Stranger.HTTP if _LONG_REQUEST.match(line) else True
        if end:
            return True
        self._head = head
        return False
