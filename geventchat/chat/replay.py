"""Sends one client, in parts, the events that it missed in one room; then the client is subscribed to the room. Pure.

A part is bounded, and nothing is buffered for the next one: thousands of clients can come back together, and take neither
memory for all that they missed nor much time at once. Until the last part, a client is not subscribed to the room: new events
go to the room's log and come with a later part. The client is subscribed in the same step as it gets the last part, so no event
is lost or sent twice.

Messages that the log does not have, or has lost meanwhile, come from the storage. Other events, such as arrivals, are only in
the log: a client that needs older ones than the log still has cannot continue.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from geventchat.chat.events import Broadcast, MessageDeleted, PastMessage, Said
from geventchat.chat.rooms import Room
from geventchat.chat.states import State

# How many messages are read from the storage at a time.
READ_AT_ONCE = 64
# The most characters in a part, and the overhead that each entry adds to its texts.
_PART_CHARACTERS = 32_768
_ENTRY_CHARACTERS = 100


class Replay:
    """Walks through a room's messages, from the one after the last that a client has seen."""

    __slots__ = ("_began", "_next_id", "_position", "_stored", "room")

    def __init__(
        self, room: Room, after: int, first_stored: int | None = None, *, stored: bool = False
    ) -> None:
        """`stored`: the storage has messages that the log has lost; `first_stored` is the id of the first one to be sent."""
        self.room = room
        self._stored = stored
        self._position = room.log.position_after(after)
        # Larger than the id of every message that was sent, and not larger than that of the next one.
        self._next_id = self._first_id_in_log(after) if first_stored is None else first_stored
        # Earlier events other than messages are part of the state that the client has received.
        self._began = room.log.end

    # The room that holds the state.
    TRANSIENT = frozenset({"room"})

    def to_state(self) -> State:
        """The position of the client, to be handed over."""
        return {
            "stored": self._stored,
            "position": self._position,
            "next_id": self._next_id,
            "began": self._began,
        }

    def take_state(self, state: State) -> None:
        """Continue where another process stopped."""
        self._stored = state["stored"]
        self._position = state["position"]
        self._next_id = state["next_id"]
        self._began = state["began"]

    @property
    def first_id(self) -> int:
        """Before the first part: the id of the first message that is sent, or of the next one in the room."""
        return self._next_id

    @property
    def is_lost(self) -> bool:
        """True when the next events are lost, because the client was too slow."""
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
        """True when the next part is in the storage, after `last_id`."""
        return self._next_id < self.room.log.first_id

    @property
    def last_id(self) -> int:
        """The next part begins after this id."""
        return self._next_id - 1

    def stored_part(self, messages: Sequence[PastMessage], log_began: int) -> list[Broadcast]:
        """The next part, from the messages that the storage read after `last_id`: READ_AT_ONCE, unless there are fewer.

        `log_began` is the id with which the log began when they were asked for.
        """
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
            # There are no others before the log as it was. What it has lost since then is in the storage.
            self._next_id = max(self._next_id, log_began)
        return part

    def next_part(self) -> list[Broadcast]:
        """The next part, from the log. Not for use when `is_lost` or `needs_storage`."""
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
        """The ids deleted since this began: perhaps after the messages were read from the storage."""
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
