"""All rooms: which exist, and for how long. Pure; takes the time from a function.

A room that has been empty for too long is deleted when rooms are next looked at: until then nobody can tell the difference.

Invariants:
- The lobby always exists, and is first.
- `_empty_since` holds every other room without people, the longest empty first.
- The first id of a new room is above every id of the rooms that have been deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from geventchat.chat.history import History
from geventchat.chat.limits import ChatLimits
from geventchat.chat.names import Name
from geventchat.chat.rooms import GateFactory, Room

LOBBY = Name("lobby", "lobby")


class Rooms:
    """The rooms of a chat."""

    def __init__(self, time: Callable[[], float], new_gate: GateFactory, limits: ChatLimits) -> None:
        self._time = time
        self.history = History(limits)
        self.lobby = Room(LOBBY, new_gate, self.history)
        self._new_gate = new_gate
        self._limits = limits
        self._rooms = {LOBBY.key: self.lobby}
        self._empty_since: dict[Room, float] = {}
        self._last_deleted_id = 0

    def __len__(self) -> int:
        self._expire()
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        self._expire()
        return iter(self._rooms.values())

    def find(self, key: str) -> Room | None:
        """The room with this key."""
        self._expire()
        return self._rooms.get(key)

    def create(self, name: Name) -> Room | None:
        """Create the room of this name, for someone who enters it at once; None if no more rooms are allowed."""
        if len(self) >= self._limits.rooms:
            return None
        room = self._rooms[name.key] = Room(name, self._new_gate, self.history, self._last_deleted_id + 1)
        return room

    def entered(self, room: Room) -> None:
        """Someone has entered this room."""
        self._empty_since.pop(room, None)

    def left(self, room: Room) -> None:
        """Someone has left this room. If it is empty now, it is deleted after a while."""
        if not room.names and room is not self.lobby:
            self._empty_since[room] = self._time()

    def _expire(self) -> None:
        while self._empty_since:
            room, since = next(iter(self._empty_since.items()))
            if self._time() < since + self._limits.empty_room_s:
                return
            del self._empty_since[room], self._rooms[room.key]
            self.history.forget(room.log)
            self._last_deleted_id = max(self._last_deleted_id, room.last_id)
