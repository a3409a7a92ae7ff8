"""All rooms: which exist, which are listed, and for how long. Pure; takes the time from a function.

A room that has been empty for too long is deleted when rooms are next looked at: until then it makes no difference.
One whose owner has an account is kept much longer.

Invariants:
- The lobby always exists, and is first.
- `_listed` holds every room that is not private.
- `_empty_since` and `_unused_since` hold every other room without people, the longest empty first; the second those whose
  owner has an account.
- The first id of a new room is above every id of the rooms that have been deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from geventchat.chat.journal import Journal, NoJournal
from geventchat.chat.limits import ChatLimits
from geventchat.chat.names import Name
from geventchat.chat.records import RoomRecord
from geventchat.chat.rooms import GateFactory, Room

LOBBY = Name("lobby", "lobby")


class Rooms:
    """The rooms of a chat."""

    def __init__(
        self,
        time: Callable[[], float],
        new_gate: GateFactory,
        limits: ChatLimits,
        journal: Journal | None = None,
        on_deleted: Callable[[Room], None] = lambda room: None,
    ) -> None:
        """`on_deleted` is called with each room that has been empty for too long."""
        self._time = time
        self.lobby = Room(LOBBY, new_gate)
        self._new_gate = new_gate
        self._limits = limits
        self._journal = journal or NoJournal()
        self._on_deleted = on_deleted
        self._rooms = {LOBBY.key: self.lobby}
        self._listed = dict(self._rooms)
        self._empty_since: dict[Room, float] = {}
        self._unused_since: dict[Room, float] = {}
        self._last_deleted_id = 0

    def __len__(self) -> int:
        self._expire()
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        self._expire()
        return iter(self._rooms.values())

    @property
    def listed(self) -> Collection[Room]:
        """The rooms that are not private, the lobby first."""
        self._expire()
        return self._listed.values()

    def find(self, key: str) -> Room | None:
        """The room with this key."""
        self._expire()
        return self._rooms.get(key)

    def can_create(self) -> bool:
        """True when one more room is allowed."""
        return len(self) < self._limits.rooms

    def create(self, name: Name) -> Room | None:
        """Create the room of this name, for someone who enters it at once; None if no more rooms are allowed."""
        if not self.can_create():
            return None
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

    def left(self, room: Room) -> None:
        """Someone has left this room. If it is empty now, it is deleted after a while."""
        if not room.names and room is not self.lobby:
            (self._unused_since if room.kept else self._empty_since)[room] = self._time()
            self.changed(room)

    def changed(self, room: Room) -> None:
        """Something of this room has changed that outlives the people in it."""
        self._journal.save(self._record(room))

    def _expire(self) -> None:
        self._delete_empty(self._empty_since, self._limits.empty_room_s)
        self._delete_empty(self._unused_since, self._limits.kept_room_s)

    def _delete_empty(self, since: dict[Room, float], lifetime_s: float) -> None:
        while since:
            room, start = next(iter(since.items()))
            if self._time() < start + lifetime_s:
                return
            self._journal.forget(self._record(room))
            del since[room], self._rooms[room.key]
            self._listed.pop(room.key, None)
            self._last_deleted_id = max(self._last_deleted_id, room.last_id)
            self._on_deleted(room)

    def _record(self, room: Room) -> RoomRecord:
        empty_since = self._empty_since.get(room) or self._unused_since.get(room)
        empty_since_ms = None if empty_since is None else int(1000 * empty_since)
        owner = None if room.owner is None else room.owner.account
        return RoomRecord(
            room.key,
            room.name,
            "" if owner is None else owner.key,
            frozenset(room.moderators),
            frozenset(room.voices),
            room.invitations.accounts(),
            room.topic,
            room.private,
            room.room_key,
            room.moderated,
            room.last_id,
            empty_since_ms,
            int(1000 * self._time()) if empty_since_ms is None else empty_since_ms,
        )
