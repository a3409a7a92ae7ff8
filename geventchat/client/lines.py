"""Bytes as they come off the wire -> whole lines, bounded.

Pure: knows no dialect. A server's line is short, but for the roster of a crowded `json` room.
"""

from __future__ import annotations

# 10,000 names of 20 characters, each escaped as \uXXXX, come to 1.3 MB in one json line.
LINE_BYTES = 4 * 1024 * 1024


class LineCutter:
    """Cuts a stream at `\\n`, drops one `\\r` before it, and throws away what is longer than the limit."""

    def __init__(self, limit_bytes: int = LINE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        self._dropping = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that are complete now; nothing in the place of a line that was too long."""
        first, *more = chunk.split(b"\n")
        lines: list[bytes | None] = []
        self._keep(first)
        for piece in more:
            lines.append(None if self._dropping else bytes(self._rest).removesuffix(b"\r"))
            self._rest.clear()
            self._dropping = False
            self._keep(piece)
        return lines

    def end(self) -> list[bytes | None]:
        """The last line, where a stream that ends without a line end still has one."""
        return self.feed(b"\n") if self._rest or self._dropping else []

    def _keep(self, piece: bytes) -> None:
        if self._dropping:
            return
        self._rest += piece
        if len(self._rest) > self._limit_bytes:
            self._rest.clear()
            self._dropping = True
