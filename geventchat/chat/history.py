"""The latest messages of each room, in order, within limits on messages and memory. Pure; passes messages on to the storage.

A text that has been deleted is empty; other texts never are. So a message keeps its place and its id, and its text is gone.

While someone is being sent what was missed, the log also notes what else happens in the room, such as arrivals: a client
that reads a log to its end and then hears the room has missed nothing. Meanwhile it can be twice as long, because otherwise
the next message would push out the oldest unsent one.

Invariants:
- The entries of a log are in the order in which the chat made them, and ids grow. Without followers all are messages.
- `messages` and `bytes` are the sums over its entries, without the first `_skipped` texts of the first one in `messages`.
- `_spoken` of a History holds each log that is not empty, the one that has been quiet for longest first; `bytes` is
  the sum over them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from sys import getsizeof

from geventchat.chat.events import Broadcast, PastMessage, Said
from geventchat.chat.limits import ChatLimits
from geventchat.chat.states import State, pack_all, unpack_all
from geventchat.chat.storage import Storage

# The overhead in bytes of an entry, and of each of its texts.
_ENTRY_BYTES = 300
_TEXT_BYTES = 60
# The most UTF-8 bytes of texts in one page, and the overhead of each message. In JSON they take up to three times as much.
_PAGE_BYTES = 262_144
_MESSAGE_BYTES = 100


class RoomLog:
    """The log of one room."""

    __slots__ = (
        "_ahead",
        "_entries",
        "_skipped",
        "bytes",
        "deletions",
        "first_id",
        "followers",
        "messages",
        "start",
    )

    def __init__(self) -> None:
        self._entries: deque[Broadcast] = deque()
        # How many texts of the first entry have been dropped. They are left out when it is read: making a shorter entry
        # each time would cost more than all the rest, since with every message the oldest one is dropped.
        self._skipped = 0
        # How many entries have ever been dropped: the position of the first remaining one.
        self.start = 0
        self.messages = 0
        self.bytes = 0
        # Every message with this id or a later one is here; 0 while there are no earlier ones.
        self.first_id = 0
        # How many messages have been deleted so far, including dropped ones.
        self.deletions = 0
        # How many clients read this log and are not subscribed to the room yet.
        self.followers = 0
        # The number of deletions at the last `ahead`, and the position after the last entry then.
        self._ahead: tuple[int, int] | None = None

    # Followers are counted again.
    TRANSIENT = frozenset({"followers"})

    def ahead(self) -> State:
        """The entries, to be handed over ahead; `to_state` then has only those that were added since."""
        self._ahead = self.deletions, self.end
        return {"start": self.start, "entries": pack_all(self._entries)}

    def take_ahead(self, state: State) -> None:
        """Have these entries already when `take_state` is called."""
        self._entries = deque(unpack_all(state["entries"]))
        self.start = state["start"]

    def to_state(self) -> State:
        """The log, to be handed over."""
        new, known = self._entries, False
        if self._ahead is not None:
            deletions, end = self._ahead
            # Otherwise entries have changed that the successor knows.
            known = deletions == self.deletions and end >= self.start
            if known:
                new = deque(islice(new, end - self.start, None))
        return {
            "entries": pack_all(new),
            "ahead": known,
            "start": self.start,
            "messages": self.messages,
            "bytes": self.bytes,
            "first_id": self.first_id,
            "deletions": self.deletions,
            "skipped": self._skipped,
        }

    def take_state(self, state: State) -> None:
        """Take over a log."""
        if state["ahead"]:
            for _ in range(state["start"] - self.start):
                self._entries.popleft()
        else:
            self._entries.clear()
        self._entries.extend(unpack_all(state["entries"]))
        self.start = state["start"]
        self.messages = state["messages"]
        self.bytes = state["bytes"]
        self.first_id = state["first_id"]
        self.deletions = state["deletions"]
        self._skipped = state["skipped"]

    def begin_after(self, id: int) -> None:
        """The messages up to this one were sent before the log began."""
        self.first_id = id + 1

    @property
    def end(self) -> int:
        """The position behind the last entry."""
        return self.start + len(self._entries)

    def add(self, event: Broadcast) -> int:
        """Append an entry; returns its bytes."""
        size = _size(event)
        self._entries.append(event)
        self.bytes += size
        if isinstance(event, Said):
            self.messages += len(event.texts)
        return size

    def trim(self, most_messages: int, most_bytes: int) -> int:
        """Drop the oldest messages beyond the limits, and what happened before them; returns their bytes."""
        before = self.bytes
        while self._entries and self.bytes > most_bytes:
            self._drop_first()
        while self.messages > most_messages:
            first, excess = self._entries[0], self.messages - most_messages
            if isinstance(first, Said) and len(first.texts) - self._skipped > excess:
                self._skipped += excess
                self.messages -= excess
                self.first_id = first.first_id + self._skipped
            else:
                self._drop_first()
        return before - self.bytes

    def follow(self) -> None:
        """One more client reads this log."""
        self.followers += 1

    def unfollow(self) -> int:
        """One client less reads this log; returns by how many bytes it is smaller."""
        self.followers -= 1
        if self.followers or all(isinstance(event, Said) for event in self._entries):
            return 0
        before = self.bytes
        self._ahead = None
        self._entries = deque([event for event in self._entries if isinstance(event, Said)])
        self.bytes = sum(map(_size, self._entries))
        return before - self.bytes

    def _drop_first(self) -> None:
        event = self._entries.popleft()
        self.start += 1
        self.bytes -= _size(event)
        if isinstance(event, Said):
            self.messages -= len(event.texts) - self._skipped
            self._skipped = 0
            self.first_id = event.first_id + len(event.texts)

    def _first_left(self) -> Said:
        """The rest of the first entry."""
        said, skipped = self._entries[0], self._skipped
        assert isinstance(said, Said)
        return replace(said, texts=said.texts[skipped:], first_id=said.first_id + skipped)

    def before(self, id: int, limit: int) -> list[PastMessage]:
        """The last messages with smaller ids, at most this many, oldest first."""
        found: list[PastMessage] = []
        for event in reversed(self._entries):
            if len(found) >= limit:
                break
            if isinstance(event, Said) and event.first_id < id:
                found.extend(
                    [message for message in reversed(past(event)) if self.first_id <= message.id < id]
                )
        return found[limit - 1 :: -1] if limit else []

    def after(self, id: int, limit: int) -> list[PastMessage]:
        """The first messages with larger ids, at most this many, oldest first."""
        found: list[PastMessage] = []
        for event in self.since(self.position_after(id)):
            if len(found) >= limit:
                break
            if isinstance(event, Said):
                found.extend([message for message in past(event) if message.id > id])
        return found[:limit]

    def position_after(self, id: int) -> int:
        """The position of the entry that holds the message after this one; the end if there is none."""
        position = self.end
        for event in reversed(self._entries):
            if isinstance(event, Said) and event.first_id + len(event.texts) - 1 <= id:
                break
            position -= 1
        return position

    def id_before_latest(self, messages: int) -> int:
        """The id of the message before this many latest ones; 0 if there is none."""
        excess = self.messages - messages
        if excess <= 0:
            return 0
        excess += self._skipped
        for event in self._entries:
            if isinstance(event, Said):
                if excess <= len(event.texts):
                    return event.first_id + excess - 1
                excess -= len(event.texts)
        raise AssertionError("the log has fewer messages than it counts")

    def since(self, position: int) -> Iterator[Broadcast]:
        """The entries from this position on. It must not be before the start."""
        if position > self.start or not self._skipped:
            return islice(self._entries, position - self.start, None)
        return chain([self._first_left()], islice(self._entries, 1, None))

    def find(self, id: int) -> PastMessage | None:
        """The message with this id, if it is here."""
        latest = self.before(id + 1, 1)
        return latest[0] if latest and latest[0].id == id else None

    def delete(self, id: int) -> int:
        """Remove the text of a message if it is here; returns by how many bytes the log is smaller."""
        self.deletions += 1
        for at in range(len(self._entries) - 1, -1, -1):
            event = self._entries[at]
            if isinstance(event, Said) and event.first_id <= id:
                # An id that was never used, between two entries, is behind the texts of this one.
                index = id - event.first_id
                texts = [text if n != index else "" for n, text in enumerate(event.texts)]
                self._entries[at] = emptied = replace(event, texts=texts)
                smaller = _size(event) - _size(emptied)
                self.bytes -= smaller
                return smaller
        return 0


class History:
    """The logs of all rooms, within one limit on their memory."""

    def __init__(self, limits: ChatLimits, storage: Storage) -> None:
        self.storage = storage
        self._limits = limits
        self._spoken: dict[RoomLog, None] = {}
        self.bytes = 0
        # How many messages have been said, and how many people have received them in all.
        self.said = 0
        self.heard = 0

    # The logs are handed over with their rooms.
    TRANSIENT = frozenset({"storage", "_limits", "bytes"})

    def to_state(self, rooms: Iterable[tuple[str, RoomLog]]) -> State:
        """In which of these rooms something was said, the quietest first, and how much in all; to be handed over."""
        keys = {log: key for key, log in rooms}
        return {
            "spoken": [keys[log] for log in self._spoken if log in keys],
            "said": self.said,
            "heard": self.heard,
        }

    def take_state(self, state: State, logs: Mapping[str, RoomLog]) -> None:
        """Take over these logs, by the keys of their rooms."""
        found = [logs[key] for key in state["spoken"] if key in logs]
        self._spoken = dict.fromkeys(log for log in found if log.end > log.start)
        self.bytes = sum(log.bytes for log in self._spoken)
        self.said, self.heard = state["said"], state["heard"]

    def add(self, room: str, log: RoomLog, event: Broadcast) -> None:
        """Append an entry, and drop the oldest ones that are too many: of this room first, then of the quietest rooms."""
        if isinstance(event, Said):
            self.storage.append(room, event)
        limits, spoken = self._limits, self._spoken
        self.bytes += log.add(event)
        self._trim(log)
        spoken.pop(log, None)
        if log.end > log.start:
            spoken[log] = None
        while self.bytes > limits.history_total_bytes:
            quietest = next(iter(spoken))
            self.bytes -= quietest.trim(quietest.messages // 2, quietest.bytes // 2)
            if quietest.end == quietest.start:
                del spoken[quietest]

    def delete(self, room: str, log: RoomLog, id: int) -> None:
        """Remove the text of a message, wherever it is."""
        self.storage.delete(room, id)
        self.bytes -= log.delete(id)

    def unfollow(self, log: RoomLog) -> None:
        """One client less reads this log."""
        self.bytes -= log.unfollow()
        self._trim(log)
        if log.end == log.start:
            self._spoken.pop(log, None)

    def _trim(self, log: RoomLog) -> None:
        times = 2 if log.followers else 1
        self.bytes -= log.trim(times * self._limits.history_messages, times * self._limits.history_bytes)

    def forget(self, log: RoomLog) -> None:
        """Drop the log of a room that is deleted."""
        self.bytes -= log.trim(0, -1)
        self._spoken.pop(log, None)


def fitting(messages: Iterable[PastMessage], most: int) -> int:
    """How many of these messages, from the first one on, are one page: at most this many, and at least one if possible."""
    count, left = 0, _PAGE_BYTES
    for message in islice(messages, most):
        left -= _MESSAGE_BYTES + len(message.text.encode())
        if left < 0 and count:
            break
        count += 1
    return count


def past(said: Said) -> list[PastMessage]:
    """The messages of this event, one by one."""
    return [
        PastMessage(said.first_id + n, said.name, text, said.time_ms, deleted=not text)
        for n, text in enumerate(said.texts)
    ]


def _size(event: Broadcast) -> int:
    if isinstance(event, Said):
        # Joined, they are measured at once, all as if they were as wide as the widest.
        return _ENTRY_BYTES + _TEXT_BYTES * len(event.texts) + getsizeof("".join(event.texts))
    return _ENTRY_BYTES
