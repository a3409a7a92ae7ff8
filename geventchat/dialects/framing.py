"""Bytes to bounded lines. Pure; must not know what a line means.

A line ends in a newline, one carriage return before it is dropped. A line over the limit is thrown away up to its end and
leaves `None` in its place, so that it is answered in its turn. Never holds more than the limit.
"""

from __future__ import annotations


class Framer:
    """Cuts one client's bytes into lines, however they were cut into segments."""

    __slots__ = ("_limit", "_rest", "_skipping")

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a line may have, its end not counted."""
        self._limit = limit
        self._rest = b""
        self._skipping = False

    @property
    def unfinished(self) -> bytes:
        """What has come of a line that has not ended; empty while a line is being thrown away."""
        return self._rest

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that this chunk completes, `None` for one that was too long."""
        lines: list[bytes | None] = []
        if self._skipping:
            _, end, chunk = chunk.partition(b"\n")
            if not end:
                return lines
            self._skipping = False
            lines.append(None)
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
            lines.extend(line if len(line) <= limit else None for line in cut)
        else:
            lines.extend(cut)
        return lines

    def _keep(self, rest: bytes) -> None:
        # One byte of grace: a line of exactly the limit may still be waiting for the newline after its carriage return.
        if len(rest) > self._limit and not (len(rest) == self._limit + 1 and rest.endswith(b"\r")):
            self._rest = b""
            self._skipping = True
        else:
            self._rest = rest
