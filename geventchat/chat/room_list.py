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
from geventchat.chat.records import RoomRecord, Stored
from geventchat.chat.rooms import GateFactory, Room
from geventchat.chat.storage import Storage

LOBBY = Name("lobby", "lobby")


class Rooms:
    """The rooms of a chat."""

    def __init__(
        self, time: Callable[[], float], new_gate: GateFactory, limits: ChatLimits, storage: Storage
    ) -> None:
        self._time = time
        self._storage = storage
        self._unready: set[Room] = set()
        storage.when_ready(self._storage_is_ready)
        self.history = History(limits, storage)
        self._new_gate = new_gate
        self.lobby = self._new_room(LOBBY, 0)
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
        room = self._rooms[name.key] = self._new_room(name, self._last_deleted_id)
        self.changed(room)
        return room

    def load(self, stored: Stored) -> None:
        """Have the rooms that the storage has kept. Nobody is in them."""
        self._last_deleted_id = stored.floor_id
        now_ms = int(self._time() * 1000)
        records = sorted(stored.rooms, key=lambda record: record.empty_since_ms or now_ms)
        for record in records:
            room = self.lobby
            if record.key != LOBBY.key:
                name = Name(record.name, record.key)
                room = self._rooms[record.key] = self._new_room(name, record.last_id)
                self._empty_since[room] = (record.empty_since_ms or now_ms) / 1000
            room.topic = record.topic
            room.last_id = record.last_id
            if record.last_id:
                room.log.begin_after(record.last_id)
        if all(record.key != LOBBY.key for record in records):
            self.changed(self.lobby)

    def changed(self, room: Room) -> None:
        """Keep the room's settings in the storage."""
        self._storage.save(self._record(room))

    def entered(self, room: Room) -> None:
        """Someone has entered this room."""
        if self._empty_since.pop(room, None) is not None:
            self.changed(room)

    def left(self, room: Room) -> None:
        """Someone has left this room. If it is empty now, it is deleted after a while."""
        if not room.names and room is not self.lobby:
            self._empty_since[room] = self._time()
            self.changed(room)

    def _expire(self) -> None:
        while self._empty_since:
            room, since = next(iter(self._empty_since.items()))
            if self._time() < since + self._limits.empty_room_s:
                return
            del self._empty_since[room], self._rooms[room.key]
            self.history.forget(room.log)
            self._storage.forget(self._record(room))
            self._last_deleted_id = max(self._last_deleted_id, room.last_id)

    def _new_room(self, name: Name, last_id: int) -> Room:
        return Room(name, self._new_gate, self.history, last_id + 1, self._wait_for_storage)

    def _record(self, room: Room) -> RoomRecord:
        since = self._empty_since.get(room)
        return RoomRecord(
            room.key,
            room.name,
            topic=room.topic,
            last_id=room.last_id,
            empty_since_ms=None if since is None else int(since * 1000),
            last_used_ms=int(self._time() * 1000),
        )

    def _wait_for_storage(self, room: Room) -> None:
        self._unready.add(room)

    def _storage_is_ready(self) -> None:
        unready, self._unready = self._unready, set()
        for room in unready:
            room.gate.pump()
