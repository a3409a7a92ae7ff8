"""What was said in this turn of the loop, in one dialect, once for all who hear it. Must not know sockets.

Frames lie one behind the other, so a place in the feed is a number of bytes. Nothing here happens per member and message:
a member with nothing of its own is one entry of `flowing` and is sent the turn's bytes as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geventchat.chat.events import Broadcast
from geventchat.chat.room import Ear
from geventchat.dialects.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from geventchat.net.flusher import Flusher
    from geventchat.net.outbox import Outbox


class Feed:
    """One dialect's side of the room."""

    __slots__ = ("_echoes", "_flusher", "_frames", "_write", "behind", "dialect", "flowing", "size", "turn")

    def __init__(self, dialect: Dialect, flusher: Flusher) -> None:
        self.dialect = dialect
        self._write = dialect.write
        self._echoes = dialect.echoes
        self._flusher = flusher
        self._frames: list[bytes] = []
        self.size = 0
        # What the last turn said, while the flusher hands it out.
        self.turn = memoryview(b"")
        # Members that take the turn's bytes as they are, each with its socket's send.
        self.flowing: dict[Outbox, Callable[[bytes], int]] = {}
        # Members whose socket would not take all of an earlier turn.
        self.behind: dict[Outbox, None] = {}

    def publish(self, event: Broadcast, author: Ear) -> None:
        """Encode once, append once; the author's own words are a hole in what it hears, unless its dialect echoes."""
        frame = self._write(event)
        if not frame:
            return
        if not self._frames:
            self._flusher.spoken(self)
        start = self.size
        self.size = end = start + len(frame)
        self._frames.append(frame)
        if author.feed is self and type(event) not in self._echoes:
            author.skip(start, end)

    def take_turn(self) -> bytes:
        """All that was said since the last time, as one; the feed begins anew at zero."""
        frames, self._frames, self.size = self._frames, [], 0
        turn = frames[0] if len(frames) == 1 else b"".join(frames)
        self.turn = memoryview(turn)
        return turn
