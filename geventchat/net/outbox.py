"""What waits for one client, bounded. Must not know what the frames say, nor who the client is.

What a client is owed is one ordered sequence: the bytes of its feed, with its own frames between them at the places where
they were made, and with holes where the feed says what it need not hear. Such a place is called a splice. Until the turn
ends that is all that is kept; then the flusher asks for the whole (`settle`), and what the socket will not take waits in
the backlog, as shared bytes, until the socket is writable again. Nobody ever waits for it, and past the limit the client
is lost. This is the only writer of its socket.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from geventchat.chat.events import Event
from geventchat.net.feed import Feed

if TYPE_CHECKING:
    from geventchat.net.flusher import Flusher

_EVER = sys.maxsize
_WRITE = 2
# As many pieces as one call to the kernel takes at once without a list that is long to build.
_GATHER = 128


class Wire(Protocol):
    """What an outbox needs of a non-blocking socket."""

    def fileno(self) -> int: ...
    def send(self, data: bytes, /) -> int: ...
    def sendmsg(self, buffers: Any, /) -> int: ...


class Outbox:
    """One client's share of what is said, and what it alone is told."""

    __slots__ = (
        "_backlog",
        "_flusher",
        "_lost",
        "_send",
        "_sock",
        "_splices",
        "_start",
        "_stop",
        "_watcher",
        "backlog_bytes",
        "feed",
        "gone",
        "own_bytes",
    )

    def __init__(self, sock: Wire, feed: Feed, flusher: Flusher, lost: Callable[[bool], None]) -> None:
        """`lost` is told, once, when nothing more can be sent: true when the client was too slow."""
        self.feed = feed
        self.gone = False
        self._sock = sock
        self._send = sock.send
        self._flusher = flusher
        self._lost = lost
        # Which part of this turn's feed is heard: all, none, from the place where one came in, to that where one left.
        self._start = self._stop = 0
        self._splices: list[tuple[int, int, bytes]] = []
        # Made for this client alone in this turn.
        self.own_bytes = 0
        self._backlog: deque[bytes | memoryview] | None = None
        # Not taken by its socket in an earlier one.
        self.backlog_bytes = 0
        self._watcher: Any = None

    @property
    def idle(self) -> bool:
        """Is all that is owed sent?"""
        return self.gone or not (self._splices or self._backlog)

    @property
    def splices(self) -> bool:
        """Is this turn more, or less, than what the feed says?"""
        return bool(self._splices)

    def hear(self, event: Event) -> None:
        """A frame of its own, at the place that the feed has reached."""
        frame = self.feed.dialect.write(event)
        if frame:
            self.put(frame)

    def put(self, frame: bytes) -> None:
        """These bytes, at the place that the feed has reached."""
        place = min(self.feed.size, self._stop)
        self.own_bytes += len(frame)
        self._splice(place, place, frame)

    def skip(self, start: int, end: int) -> None:
        """A hole. One talker's words of one chunk lie side by side and make one hole."""
        splices = self._splices
        if splices:
            last_start, last_end, frame = splices[-1]
            if last_end == start and not frame:
                splices[-1] = (last_start, end, frame)
                return
        if end <= self._stop:
            self._splice(start, end, b"")

    def begin(self) -> None:
        """From now on the feed is heard."""
        self._start, self._stop = self.feed.size, _EVER
        if self._watcher is not None:
            # What it was told before it came in still waits, and what is said from now on waits behind that.
            self.feed.behind[self] = None
        if self.feed.size:
            self._splice(self._start, self._start, b"")
        elif not self._splices and not self._backlog:
            self.feed.flowing[self] = self._send

    def cease(self) -> None:
        """What the feed says from now on is not heard; what it said before is still owed."""
        size = self.feed.size
        self._stop = size
        self.feed.behind.pop(self, None)
        if size and self._start < size:
            self._splice(size, size, b"")
        else:
            self.feed.flowing.pop(self, None)

    def settle(self) -> None:
        """The turn has ended: send what it was for this client."""
        splices, self._splices, self.own_bytes = self._splices, [], 0
        if self.gone:
            return
        turn, cursor, stop = self.feed.turn, self._start, self._stop
        pieces: list[bytes | memoryview] = []
        for start, end, frame in splices:
            if start > cursor:
                pieces.append(turn[cursor:start])
            if frame:
                pieces.append(frame)
            if end > cursor:
                cursor = end
        if stop > cursor:
            pieces.append(turn[cursor:stop])
        hears = stop == _EVER
        self._start, self._stop = 0, _EVER if hears else 0
        self.send(b"".join(pieces))
        if hears and not self._backlog and not self.gone:
            self.feed.flowing[self] = self._send

    def send(self, data: bytes) -> None:
        """As much as the socket takes now; the rest waits."""
        if not data:
            return
        if self._backlog:
            self.owe(data)
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._flusher.losing(self, slow=False)
            return
        if sent != len(data):
            self.owe(memoryview(data)[sent:])

    def owe(self, data: bytes | memoryview) -> None:
        """The socket takes nothing now: this waits, if it is not more than may.

        One answer, or one turn, may be larger than the limit by itself: that does not make a client a slow one.
        """
        if self.gone:
            return
        if self.backlog_bytes and self.backlog_bytes + len(data) > self._flusher.queue_bytes:
            self._flusher.losing(self, slow=True)
            return
        if self._backlog is None:
            self._backlog = deque()
        if self._watcher is None:
            self._watcher = self._flusher.watch(self._sock.fileno(), _WRITE)
            self._watcher.start(self._writable)
            if self._stop == _EVER:
                self.feed.behind[self] = None
        self._backlog.append(data)
        self.backlog_bytes += len(data)

    def lose(self, slow: bool) -> None:
        """Nothing more can be sent: let everything go and tell whose outbox this is."""
        if not self.gone:
            self.close()
            self._lost(slow)

    def close(self) -> None:
        """Let go of the socket; whatever was still owed is dropped."""
        self.gone = True
        self._unwatch()
        self._backlog = None
        self.backlog_bytes = 0
        self.feed.flowing.pop(self, None)

    def _splice(self, start: int, end: int, frame: bytes) -> None:
        if not self._splices:
            self.feed.flowing.pop(self, None)
            self._flusher.divert(self)
        self._splices.append((start, end, frame))

    def _writable(self) -> None:
        backlog = self._backlog
        while backlog:
            try:
                sent = self._sock.sendmsg(list(islice(backlog, _GATHER)))
            except BlockingIOError:
                return
            except OSError:
                self.lose(slow=False)
                return
            self.backlog_bytes -= sent
            while sent:
                first = len(backlog[0])
                if sent < first:
                    backlog[0] = memoryview(backlog[0])[sent:]
                    break
                sent -= first
                backlog.popleft()
        self._backlog = None
        self._unwatch()
        if self._stop == _EVER and not self._splices:
            self.feed.flowing[self] = self._send

    def _unwatch(self) -> None:
        # Before the socket: a watcher must never outlive its descriptor.
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self.feed.behind.pop(self, None)
