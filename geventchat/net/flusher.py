"""Writes what is owed, once per turn of the loop. Must not know clients, dialects or the chat.

Contract: never waits, never reorders what one client is owed, and lets no client's trouble touch another. It runs as a
callback of the loop, after everything that was readable in this turn has been read and handled, so all that a turn said
goes to each member in one send: the kernel's send costs the same for one message as for fifty.

Where several speak without a pause, what one turn finds readable is only what had come by then; the rest would cost everyone
another send a moment later. So a turn that says much is held back for a few looks at the loop, each of them without waiting,
until it says as much as the one before: never longer than a fraction of what handing it out takes.
"""

from __future__ import annotations

from typing import Any

from gevent.hub import Hub

from geventchat.net.feed import Feed
from geventchat.net.outbox import Outbox

# A turn of fewer bytes is nobody's flood: it goes at once.
_FLOOD_BYTES = 1_024
# One look for so many members: a look costs the loop about what two sends do.
_MEMBERS_PER_LOOK = 8


class Flusher:
    """Hands out each turn."""

    __slots__ = (
        "_again",
        "_diverted",
        "_due",
        "_last_said",
        "_looks",
        "_loop",
        "_losing",
        "_spoken",
        "queue_bytes",
    )

    def __init__(self, hub: Hub, queue_bytes: int) -> None:
        """`queue_bytes` is the most that may wait for one client."""
        self.queue_bytes = queue_bytes
        self._loop = hub.loop
        self._again: Any = hub.loop.timer(0)
        self._looks = 0
        self._last_said = 0
        self._due = False
        self._spoken: list[Feed] = []
        self._diverted: list[Outbox] = []
        self._losing: list[tuple[Outbox, bool]] = []

    def spoken(self, feed: Feed) -> None:
        """This feed has something new."""
        self._spoken.append(feed)
        self._arm()

    def divert(self, outbox: Outbox) -> None:
        """This client's turn is not what its feed says."""
        self._diverted.append(outbox)
        self._arm()

    def losing(self, outbox: Outbox, slow: bool) -> None:
        """This client takes no more; it is let go when the turn has been handed to everybody else."""
        self._losing.append((outbox, slow))
        self._arm()

    def watch(self, fileno: int, events: int) -> Any:
        """A watcher of the loop, not started."""
        return self._loop.io(fileno, events)

    def _arm(self) -> None:
        if not self._due:
            self._due = True
            self._loop.run_callback(self._flush)

    def _flush(self) -> None:
        if self._worth_another_look():
            # Not another callback: the loop runs those before it looks at its sockets.
            self._again.start(self._flush)
            return
        self._due = False
        spoken, self._spoken = self._spoken, []
        diverted, self._diverted = self._diverted, []
        for feed in spoken:
            self._hand_out(feed)
        for outbox in diverted:
            outbox.settle()
        for feed in spoken:
            feed.turn = memoryview(b"")
        losing, self._losing = self._losing, []
        for outbox, slow in losing:
            outbox.lose(slow)

    def _worth_another_look(self) -> bool:
        said = members = 0
        for feed in self._spoken:
            said += feed.size
            members += len(feed.flowing)
        if _FLOOD_BYTES <= said < self._last_said and self._looks < members // _MEMBERS_PER_LOOK:
            self._looks += 1
            return True
        self._looks = 0
        self._last_said = said
        return False

    def _hand_out(self, feed: Feed) -> None:
        turn = feed.take_turn()
        whole = len(turn)
        short: list[tuple[Outbox, int]] = []
        for outbox in feed.behind:
            if not outbox.splices:
                outbox.owe(turn)
        for outbox, send in feed.flowing.items():
            try:
                sent = send(turn)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._losing.append((outbox, False))
                continue
            if sent != whole:
                short.append((outbox, sent))
        for outbox, sent in short:
            del feed.flowing[outbox]
            outbox.owe(feed.turn[sent:])
