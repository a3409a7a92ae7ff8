"""One client in the chat: who it is, where it is, and what it has asked for itself. Pure.

A session keeps; what is allowed is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from geventchat.chat.names import Name
from geventchat.chat.replay import Replay
from geventchat.chat.rooms import Room, Subscriber


class Session:
    """One client in the chat."""

    __slots__ = ("contacts", "name", "replays", "room", "rooms", "subscriber", "typing_at")

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.name: Name | None = None
        # The room that is meant where none is named; None if the client is in no room, or in several.
        self.room: Room | None = None
        # All of them, for a client that can be in many; None for one that can be in one at a time.
        self.rooms: dict[str, Room] | None = None
        # What it has missed in some of them, which it hears afterwards.
        self.replays: dict[Room, Replay] | None = None
        # The keys of the people this client has written to, the latest last.
        self.contacts: dict[str, None] | None = None
        # When its typing was announced last.
        self.typing_at = -math.inf

    def all_rooms(self) -> Collection[Room]:
        """The rooms that this client is in."""
        if self.rooms is not None:
            return self.rooms.values()
        return () if self.room is None else (self.room,)

    def find_room(self, key: str) -> Room | None:
        """The room with this key, if the client is in it."""
        if self.rooms is not None:
            return self.rooms.get(key)
        return self.room if self.room is not None and self.room.key == key else None

    def go_to(self, room: Room) -> None:
        """Be in this room, too; or in this room instead, for a client that can be in one at a time."""
        if self.rooms is None:
            self.room = room
            self.subscriber.hear(room.alone)
        else:
            self.rooms[room.key] = room
            self._hear_all(self.rooms)

    def go_to_all(self, rooms: Collection[Room]) -> None:
        """Be in these rooms, and be a client that can be in many from now on."""
        self.rooms = {room.key: room for room in rooms}
        self._hear_all(self.rooms)

    def catch_up(self, replay: Replay) -> None:
        """Do not hear this room before everything that was missed there has been sent."""
        assert self.rooms is not None
        self.replays = self.replays or {}
        self.replays[replay.room] = replay
        replay.room.follow()
        self._hear_all(self.rooms)

    def caught_up(self, room: Room) -> None:
        """Hear this room."""
        assert self.rooms is not None
        self._end_replay(room)
        self._hear_all(self.rooms)

    def go_out_of(self, room: Room) -> None:
        """Be in this room no longer. Only for a client that can be in many."""
        assert self.rooms is not None
        del self.rooms[room.key]
        self._end_replay(room)
        self._hear_all(self.rooms)

    def go(self) -> None:
        """Be in no room, and hear nothing more."""
        self.name = self.room = None
        for room in list(self.replays or ()):
            self._end_replay(room)
        if self.rooms is not None:
            self.rooms.clear()
        self.subscriber.hear(None)

    def _hear_all(self, rooms: dict[str, Room]) -> None:
        self.room = next(iter(rooms.values())) if len(rooms) == 1 else None
        self.subscriber.hear(frozenset(rooms.values()).difference(self.replays or ()))

    def _end_replay(self, room: Room) -> None:
        if self.replays is not None and self.replays.pop(room, None) is not None:
            room.unfollow()
