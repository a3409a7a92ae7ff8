"""All rooms: which exist, which are listed, and for how long. Pure; the time is passed in.

An empty room is kept for a while, and much longer if its owner has an account.

Invariants:
- The lobby always exists, and is first.
- `_listed` holds every room that is not private.
- `_empty_since` and `_unused_since` hold every other room without people, the longest empty first; the second those whose
  owner has an account.
- The first id of a new room is above every id of the rooms that have been deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from geventchat.chat.limits import ChatLimits
from geventchat.chat.names import Name
from geventchat.chat.rooms import GateFactory, Room

LOBBY = Name("lobby", "lobby")


class Rooms:
    """The rooms of a chat."""

    def __init__(self, new_gate: GateFactory, limits: ChatLimits, on_deleted: Callable[[Room], None]) -> None:
        """`on_deleted` is called with each room that has been empty for too long."""
        self.lobby = Room(LOBBY, new_gate)
        self._new_gate = new_gate
        self._limits = limits
        self._on_deleted = on_deleted
        self._rooms = {LOBBY.key: self.lobby}
        self._listed = dict(self._rooms)
        self._empty_since: dict[Room, float] = {}
        self._unused_since: dict[Room, float] = {}
        self._last_deleted_id = 0

    def __len__(self) -> int:
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        return iter(self._rooms.values())

    @property
    def listed(self) -> Collection[Room]:
        """The rooms that are not private, the lobby first."""
        return self._listed.values()

    def find(self, key: str) -> Room | None:
        """The room with this key."""
        return self._rooms.get(key)

    def can_create(self) -> bool:
        """True when one more room is allowed."""
        return len(self._rooms) < self._limits.rooms

    def create(self, name: Name) -> Room:
        """Create the room of this name, for someone who enters it at once."""
        room = self._rooms[name.key] = Room(name, self._new_gate, self._last_deleted_id + 1)
        self._listed[name.key] = room
        return room

    def set_private(self, room: Room, private: bool) -> None:
        """List this room no longer, or again."""
        room.private = private
        self._listed.pop(room.key, None)
        if not private:
            self._listed[room.key] = room

    def entered(self, room: Room) -> None:
        """Someone has entered this room."""
        self._empty_since.pop(room, None)
        self._unused_since.pop(room, None)

    def left(self, room: Room, now: float) -> None:
        """Someone has left this room. If it is empty now, it is deleted after a while."""
        if not room.names and room is not self.lobby:
            (self._unused_since if room.kept else self._empty_since)[room] = now

    def expire(self, now: float) -> float | None:
        """Delete the rooms that have been empty for too long; returns the seconds until the next one, None if there is none."""
        limits = self._limits
        left_s = [
            self._delete_empty(self._empty_since, limits.empty_room_s, now),
            self._delete_empty(self._unused_since, limits.kept_room_s, now),
        ]
        return min((seconds for seconds in left_s if seconds is not None), default=None)

    def _delete_empty(self, since: dict[Room, float], lifetime_s: float, now: float) -> float | None:
        while since:
            room, start = next(iter(since.items()))
            left_s = start + lifetime_s - now
            if left_s > 0:
                return left_s
            del since[room], self._rooms[room.key]
            self._listed.pop(room.key, None)
            self._last_deleted_id = max(self._last_deleted_id, room.last_id)
            self._on_deleted(room)
        return None
