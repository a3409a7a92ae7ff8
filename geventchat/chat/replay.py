"""What one client has missed in one room, sent to it in parts; then it hears the room. Pure.

A part is bounded, and nothing is kept for the next one: thousands can come back together without memory for all that they
missed and without holding up anyone. While a client is being sent what it missed, it does not hear the room; what
happens there meanwhile is in the room's log, and comes with a later part. The last part and hearing the room are one
moment, so nothing is missing and nothing comes twice.

Messages that the log does not have, or has lost meanwhile, come from the storage. What else happened, such as an arrival, is
in the log alone: a client that needs more of that than the log still has cannot go on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from geventchat.chat.events import Broadcast, MessageDeleted, PastMessage, Said
from geventchat.chat.rooms import Room

# How many messages are read from the storage at a time.
READ_AT_ONCE = 64
# The characters of a part, and what an entry counts besides its texts.
_PART_CHARACTERS = 32_768
_ENTRY_CHARACTERS = 100


class Replay:
    """Goes through a room's messages from behind the last one that a client has seen."""

    __slots__ = ("_began", "_next_id", "_position", "_stored", "room")

    def __init__(
        self, room: Room, after: int, first_stored: int | None = None, *, stored: bool = False
    ) -> None:
        """`stored`: the storage has messages that the log has lost; `first_stored` is the id of the first one to be sent."""
        self.room = room
        self._stored = stored
        self._position = room.log.position_after(after)
        # Behind every message that has been sent, and not behind the next one.
        self._next_id = self._first_id_in_log(after) if first_stored is None else first_stored
        # What else happened before is part of the state that the client has been told.
        self._began = room.log.end

    @property
    def first_id(self) -> int:
        """Before the first part: the id of the first message that is sent, or of the next one to be said."""
        return self._next_id

    @property
    def is_lost(self) -> bool:
        """True when what comes next is lost: the client could not follow."""
        log = self.room.log
        if log.start > (max(self._position, self._began) if self._stored else self._position):
            return True
        return not self._stored and self._next_id < log.first_id

    @property
    def is_over(self) -> bool:
        """True when everything has been sent."""
        return not self.needs_storage and self._position >= self.room.log.end

    @property
    def needs_storage(self) -> bool:
        """True when the next part is in the storage, behind `last_id`."""
        return self._next_id < self.room.log.first_id

    @property
    def last_id(self) -> int:
        """The id behind which the next part begins."""
        return self._next_id - 1

    def stored_part(self, messages: Sequence[PastMessage]) -> list[Broadcast]:
        """What is sent next of the messages behind `last_id`, of which the storage has read READ_AT_ONCE if it has as many."""
        part: list[Broadcast] = []
        left = _PART_CHARACTERS
        first_in_log, deleted = self.room.log.first_id, self._deleted_since()
        for message in messages:
            if left <= 0 or message.id >= first_in_log:
                break
            text = "" if message.id in deleted else message.text
            left -= _ENTRY_CHARACTERS + len(text)
            self._next_id = message.id + 1
            part.append(Said(self.room.name, message.name, (text,), message.id, message.time_ms))
        if left > 0 and not len(part) == len(messages) == READ_AT_ONCE:
            # The rest is in the log.
            self._next_id = first_in_log
        return part

    def next_part(self) -> list[Broadcast]:
        """What is sent next. It must not be lost, and it must not be in the storage."""
        part: list[Broadcast] = []
        left = _PART_CHARACTERS
        log = self.room.log
        self._position = max(self._position, log.start)
        for event in log.since(self._position):
            if left <= 0:
                break
            position, self._position = self._position, self._position + 1
            if isinstance(event, Said):
                event = _from(event, self._next_id)
                left -= sum(map(len, event.texts))
                self._next_id = max(self._next_id, event.first_id + len(event.texts))
                if not event.texts:
                    continue
            elif position < self._began:
                continue
            left -= _ENTRY_CHARACTERS
            part.append(event)
        return part

    def _deleted_since(self) -> Collection[int]:
        """The messages that have been deleted since this began, perhaps after they were read from the storage."""
        log = self.room.log
        since = log.since(max(self._began, log.start))
        return {event.id for event in since if isinstance(event, MessageDeleted)}

    def _first_id_in_log(self, after: int) -> int:
        for event in self.room.log.since(self._position):
            if isinstance(event, Said):
                return max(event.first_id, after + 1)
        return self.room.last_id + 1


def _from(said: Said, id: int) -> Said:
    """The part of this event that has this id or larger ones."""
    seen = id - said.first_id
    return said if seen <= 0 else replace(said, texts=said.texts[seen:], first_id=id)
