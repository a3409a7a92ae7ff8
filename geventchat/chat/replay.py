"""What one client has missed in one room, sent to it in parts; then it hears the room. Pure.

A part is bounded, so that thousands can come back together without memory for all of it and without holding up anyone. While
a client is being sent what it missed, it does not hear the room; what happens there meanwhile is in the room's log, and
comes with a later part. The last part and hearing the room are one moment, so nothing is missing and nothing comes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

from geventchat.chat.events import Broadcast, MessageDeleted, PastMessage, Said
from geventchat.chat.rooms import Room
from geventchat.chat.states import State, pack_all, unpack_all

# The characters of a part, and what an entry counts besides its texts.
_PART_CHARACTERS = 32_768
_ENTRY_CHARACTERS = 100


class Replay:
    """Reads a room's log from behind the last message that a client has seen."""

    __slots__ = ("_after", "_began", "_earlier", "_next_id", "_position", "room")

    def __init__(self, room: Room, after: int, earlier: Sequence[PastMessage] = ()) -> None:
        """`earlier` are messages from before the log began."""
        self.room = room
        self._after = after
        self._earlier = deque([message for message in earlier if message.id > after])
        self._position = room.log.position_after(self._after)
        # The id of the next message that comes from the log.
        self._next_id = self._first_id_in_log()
        # What else happened before is part of the state that the client has been told.
        self._began = room.log.end

    # It is that of the state's place.
    TRANSIENT = frozenset({"room"})

    def to_state(self) -> State:
        """Where the client is, to be handed over."""
        return {
            "after": self._after,
            "earlier": pack_all(self._earlier),
            "position": self._position,
            "next_id": self._next_id,
            "began": self._began,
        }

    def take_state(self, state: State) -> None:
        """Go on where another process was."""
        self._after = state["after"]
        self._earlier = deque(unpack_all(state["earlier"]))
        self._position = state["position"]
        self._next_id = state["next_id"]
        self._began = state["began"]

    @property
    def first_id(self) -> int:
        """The id of the first message that is sent, or of the next one to be said if there is none."""
        return self._earlier[0].id if self._earlier else self._first_id_in_log()

    @property
    def is_lost(self) -> bool:
        """True when the log has lost what comes next: the client could not follow."""
        log = self.room.log
        if self._position < log.start:
            return True
        # What is left of the first entry can begin with a later text.
        event = next(log.since(self._position), None)
        return isinstance(event, Said) and event.first_id > self._next_id

    @property
    def is_over(self) -> bool:
        """True when everything has been sent."""
        return not self._earlier and self._position >= self.room.log.end

    def next_part(self) -> list[Broadcast]:
        """What is sent next. It must not be lost."""
        part: list[Broadcast] = []
        left = _PART_CHARACTERS
        deleted = self._deleted_since() if self._earlier else ()
        while self._earlier and left > 0:
            message = self._earlier.popleft()
            text = "" if message.id in deleted else message.text
            left -= _ENTRY_CHARACTERS + len(text)
            part.append(Said(self.room.name, message.name, (text,), message.id, message.time_ms))
        for event in self.room.log.since(self._position):
            if left <= 0:
                break
            position, self._position = self._position, self._position + 1
            left -= _ENTRY_CHARACTERS
            if isinstance(event, Said):
                event = _behind(event, self._after)
                left -= sum(map(len, event.texts))
                self._next_id = event.first_id + len(event.texts)
            elif position < self._began:
                continue
            part.append(event)
        return part

    def _deleted_since(self) -> Collection[int]:
        """The messages that have been deleted since the earlier ones were read."""
        since = self.room.log.since(self._began)
        return {event.id for event in since if isinstance(event, MessageDeleted)}

    def _first_id_in_log(self) -> int:
        for event in self.room.log.since(self._position):
            if isinstance(event, Said):
                return max(event.first_id, self._after + 1)
        return self.room.last_id + 1


def _behind(said: Said, id: int) -> Said:
    """The part of this event with larger ids."""
    seen = id + 1 - said.first_id
    return said if seen <= 0 else replace(said, texts=said.texts[seen:], first_id=id + 1)
