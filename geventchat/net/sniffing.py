"""Recognises a foreign protocol in the first bytes of a connection: an HTTP request or a TLS hello. Pure.

A web page can make a visitor's browser send almost anything to any port, but a request line always comes first. Closing on
that line, before anything behind it is read as a command, keeps web pages out of the chat.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any


class ForeignProtocol(Enum):
    """A foreign protocol; the value is the word in the log."""

    HTTP = "http"
    TLS = "tls"


# The method can be any token: a page whose name was rebound to this host can choose it. The target cannot be chosen as
# freely, and a name or a text seldom begins like one.
_METHOD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TARGET = _METHOD + rb" (?:/|\*|https?:)"
_REQUEST = re.compile(_TARGET + rb"[^ ]* +HTTP/[0-9]|CONNECT [^ ]+ +HTTP/[0-9]")
_LONG_REQUEST = re.compile(_TARGET + rb"|CONNECT ")
# What can become one: the method can be longer than any line, too.
_LONG_START = re.compile(_METHOD + rb"(?: (?:h|ht|htt|https?)?)?")
# What is kept of it: longer than anything that the end of a method, and what is behind it, could be taken for.
_KEPT_BYTES = len(b"xCONNECT https")


class Sniffer:
    """Inspects the first line of one connection until the protocol is clear."""

    __slots__ = ("_head", "_limit", "_too_long")

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a line can have."""
        self._limit = limit
        self._head = b""
        # The line is over the limit already, and `_head` is only its end.
        self._too_long = False

    TRANSIENT = frozenset({"_limit"})

    def to_state(self) -> dict[str, Any]:
        """What has been seen of the first line, to be handed over."""
        return {"head": self._head.decode("latin-1"), "too_long": self._too_long}

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over what has been seen of the first line."""
        self._head = state["head"].encode("latin-1")
        self._too_long = state["too_long"]

    def feed(self, chunk: bytes) -> ForeignProtocol | bool:
        """The foreign protocol; True when it is none; False while undecided and no line is complete."""
        head = (self._head + chunk).lstrip(b"\r\n")
        line, end, _ = head.partition(b"\n")
        if line.startswith(b"\x16\x03"):
            return ForeignProtocol.TLS
        # No more than if the line had come byte by byte; otherwise the result would depend on its segments.
        if _REQUEST.match(line[: self._limit + 1]):
            return ForeignProtocol.HTTP
        # A request line over the limit would be discarded as too long, and its headers and body read as commands.
        if self._too_long or len(line) > self._limit:
            if _LONG_REQUEST.match(line):
                return ForeignProtocol.HTTP
            if end or not _LONG_START.fullmatch(line):
                return True
            # Keep only its end: otherwise each byte that arrives alone would have the whole line searched again.
            self._too_long, self._head = True, line[-_KEPT_BYTES:]
            return False
        if end:
            return True
        self._head = head
        return False
