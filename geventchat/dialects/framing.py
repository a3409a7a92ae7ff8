"""Bytes to bounded lines. Pure; does not know what a line means.

Invariants of LineFraming:
- A line ends in a newline; one carriage return before it is dropped.
- A line over the limit is discarded up to its end and leaves TOO_LONG in its place, so that it is answered in order.
- Never holds more than the limit and one byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Literal, Protocol, final


class Marker(Enum):
    """The value in place of a line that was discarded."""

    TOO_LONG = "too long"


TOO_LONG: Final = Marker.TOO_LONG
Line = bytes | Literal[Marker.TOO_LONG]


class End(Enum):
    """How a peer has ended the connection within its framing."""

    CLOSED = auto()
    # The client has violated the framing.
    BROKEN = auto()


@final
@dataclass(frozen=True, slots=True)
class FramingAnswer:
    """An answer of the framing itself, to be sent in order with the lines. It can be empty; after an `end` nothing follows."""

    frame: bytes = b""
    end: End | None = None


Unit = Line | FramingAnswer


class Framing(Protocol):
    """Divides one connection's bytes into lines, and wraps lines for the wire."""

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a line can have, without its ending."""

    def count(self, chunk: bytes) -> int:
        """How many lines this chunk completes, as far as that is known before it is read."""

    def batches(self, chunk: bytes, size: int, lines: int) -> Iterable[Sequence[Unit]]:
        """The lines that this chunk completes and the framing's own answers, in order.

        They come in batches of at most about this many bytes and lines; each is read when it is asked for.
        """

    def close(self, reason: str) -> bytes:
        """The bytes that end the connection; `reason` is its word in the log."""

    def to_state(self) -> dict[str, Any]:
        """The bytes that no batch has returned yet, to be handed over."""

    def take_state(self, state: dict[str, Any]) -> bytes:
        """Continue where another process stopped; returns the bytes to read next."""

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """The bytes of these lines on the wire; pure, so that many clients can share the result."""


class ByNewlines:
    """The common part of all framings in which a line ends with a newline."""

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        # The chunk that is being read, and how many of its bytes have been read.
        self._ahead = b"", 0

    def feed(self, chunk: bytes) -> Sequence[Unit]:
        """The lines that this chunk completes and the framing's own answers, in order."""
        raise NotImplementedError

    def count(self, chunk: bytes) -> int:
        """How many lines this chunk completes."""
        return chunk.count(b"\n")

    def batches(self, chunk: bytes, size: int, lines: int) -> Iterable[Sequence[Unit]]:
        """The results of `feed` for pieces of at most this many bytes and lines; each piece is read when it is asked for."""
        if len(chunk) <= size and chunk.count(b"\n") <= lines:
            return (self.feed(chunk),)
        return self._batches(chunk, size, lines)

    def _batches(self, chunk: bytes, size: int, lines: int) -> Iterator[Sequence[Unit]]:
        at = 0
        for piece in _divided(chunk, size, lines):
            at += len(piece)
            batch = self.feed(piece)
            # The client can be handed over before the next batch.
            self._ahead = chunk, at
            yield batch
        self._ahead = b"", 0

    def close(self, reason: str) -> bytes:
        """Nothing: the end of the stream is enough."""
        return b""

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """Whole lines are sent as they are."""
        return payload


class LineFraming(ByNewlines):
    """Cuts one client's bytes into lines, independently of their segments."""

    __slots__ = ("_limit", "_rest", "_skipping")
    TRANSIENT = frozenset({"_limit"})

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a line can have, without its ending."""
        super().__init__()
        self._limit = limit
        self._rest = b""
        self._skipping = False

    def to_state(self) -> dict[str, Any]:
        """The unfinished line, and what has not been read of a chunk, to be handed over."""
        chunk, at = self._ahead
        return {
            "rest": self._rest.decode("latin-1"),
            "skipping": self._skipping,
            "ahead": chunk[at:].decode("latin-1"),
        }

    def take_state(self, state: dict[str, Any]) -> bytes:
        """Go on where another process was; returns the bytes that are to be read next."""
        rest: str = state["rest"]
        ahead: str = state["ahead"]
        self._rest, self._skipping = rest.encode("latin-1"), state["skipping"]
        return ahead.encode("latin-1")

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that this chunk completes."""
        lines: list[Line] = []
        if self._skipping:
            _, end, chunk = chunk.partition(b"\n")
            if not end:
                return lines
            self._skipping = False
            lines.append(TOO_LONG)
        if b"\n" not in chunk:
            self._keep(self._rest + chunk)
            return lines
        whole = self._rest + chunk if self._rest else chunk
        cut = whole.split(b"\n")
        self._keep(cut.pop())
        if b"\r" in whole:
            cut = [line[:-1] if line.endswith(b"\r") else line for line in cut]
        limit = self._limit
        if len(whole) > limit and max(map(len, cut)) > limit:
            lines.extend(line if len(line) <= limit else TOO_LONG for line in cut)
        else:
            lines.extend(cut)
        return lines

    def _keep(self, rest: bytes) -> None:
        # One byte of grace: a line of exactly the limit can still be waiting for the newline after its carriage return.
        if len(rest) > self._limit and not (len(rest) == self._limit + 1 and rest.endswith(b"\r")):
            self._rest = b""
            self._skipping = True
        else:
            self._rest = rest


def _divided(chunk: bytes, size: int, lines: int) -> Iterator[bytes]:
    """Pieces of at most this many bytes and lines."""
    at = 0
    while at < len(chunk):
        piece = chunk[at : at + size]
        if piece.count(b"\n") > lines:
            piece = piece[: len(piece) - len(piece.split(b"\n", lines)[-1])]
        at += len(piece)
        yield piece
