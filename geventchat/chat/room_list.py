"""All rooms: which exist, which are listed, and for how long. Pure; takes the time from functions.

A room that has been empty for too long no longer counts. It is deleted when it is looked for, or with a few others when
rooms are next looked at: thousands can be due at the same moment. One whose owner has an account is kept much longer. When no
more rooms are allowed, and more than half of them are such rooms, a new one takes the place of one of these: of the account
that has the most of them, the one that has been empty longest.

How long a room has been empty is measured by the monotonic clock. If it went by the time of day, a clock that is set ahead by
mistake would delete every empty room with its history.

Invariants:
- The lobby always exists, and is first. The others are in the order in which they were made.
- `_empty_since` and `_unused_since` hold every other room without people, the longest empty first, and since when by the
  monotonic clock; the second those whose owner has an account. Records and the state of a handover have the time of day.
- The first id of a new room is above every id of the rooms that have been deleted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

from geventchat.chat.accounts import Account
from geventchat.chat.bans import Ban, BanTotal
from geventchat.chat.history import History, RoomLog
from geventchat.chat.limits import ChatLimits
from geventchat.chat.names import Name
from geventchat.chat.ownership import Owners
from geventchat.chat.records import Restriction, RestrictionKind, RoomRecord, Stored
from geventchat.chat.rooms import GateFactory, Observer, Room
from geventchat.chat.states import State
from geventchat.chat.storage import Storage

LOBBY = Name("lobby", "lobby")
# How many rooms that are due are deleted at a time.
_DELETED_AT_ONCE = 20
# How long the public rooms with the most people are the same, and the order in which rooms make way: with ten thousand
# rooms, finding either takes milliseconds.
_SELECTED_FOR_S = 1.0


class _Selection(NamedTuple):
    """The keys of the public rooms that are listed, and since when; `is_all` if these are all of them."""

    keys: Sequence[str]
    is_all: bool
    time_s: float


class Rooms:
    """The rooms of a chat."""

    def __init__(
        self,
        time: Callable[[], float],
        monotonic: Callable[[], float],
        new_gate: GateFactory,
        limits: ChatLimits,
        storage: Storage,
        owners: Owners | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._time = time
        self._monotonic = monotonic
        self._storage = storage
        self._unready: set[Room] = set()
        storage.when_ready(self._storage_is_ready)
        self.history = History(limits, storage)
        # The bans of all rooms except the lobby.
        self.ban_total = BanTotal()
        self._new_gate = new_gate
        self._observer = observer
        self.lobby = self._new_room(LOBBY, 0, BanTotal())
        self._limits = limits
        self._owners = owners or Owners(limits)
        self._rooms = {LOBBY.key: self.lobby}
        self._selection: _Selection | None = None
        # The keys of the rooms that make way for others, in order, and since when this is their order.
        self._dispensable: Iterator[str] = iter(())
        self._dispensable_s = -math.inf
        self._owners.when_full(self._make_way)
        self._empty_since: dict[Room, float] = {}
        self._unused_since: dict[Room, float] = {}
        self._last_deleted_id = 0

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def total(self) -> int:
        """How many rooms there are, with those that are due. Finding it takes no time, however many they are."""
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        self._expire()
        return iter([room for room in self._rooms.values() if not self._is_due(room)])

    def listed(self) -> list[Room]:
        """The rooms that are not private, the lobby first. If they are too many, those with the most people."""
        self._expire()
        selection, now = self._selection, self._time()
        if selection is None or not (selection.is_all or abs(now - selection.time_s) < _SELECTED_FOR_S):
            public = [room for room in self._rooms.values() if not room.private]
            rooms = most_visited(public, self._limits.listed_rooms)
            keys = [room.key for room in rooms]
            selection = self._selection = _Selection(keys, len(rooms) == len(public), now)
        selected = [self._rooms[key] for key in selection.keys if key in self._rooms]
        return [room for room in selected if not room.private and not self._is_due(room)]

    def find(self, key: str) -> Room | None:
        """The room with this key."""
        self._expire()
        room = self._rooms.get(key)
        if room is not None and self._is_due(room):
            self._delete(room)
            return None
        return room

    def can_create(self) -> bool:
        """True when one more room is allowed, perhaps in place of an empty one."""
        self._expire()
        most = self._limits.rooms
        return len(self._rooms) < most or len(self._unused_since) > most // 2

    def create(self, name: Name) -> Room | None:
        """Create the room of this name, for someone who enters it at once; None if no more rooms are allowed."""
        if not self.can_create():
            return None
        if len(self._rooms) >= self._limits.rooms:
            self._delete(self._next_dispensable())
        room = self._rooms[name.key] = self._new_room(name, self._last_deleted_id)
        self._select_again()
        self.changed(room)
        return room

    def load(self, stored: Stored, gone: Collection[str] = ()) -> None:
        """Have the rooms that the storage has kept, and the restrictions of people in them. They are empty.

        `gone` are the keys of accounts that no longer exist: the next holder of such a name inherits nothing.
        """
        self._last_deleted_id = stored.floor_id
        now_ms = int(self._time() * 1000)
        latest_ms = min(now_ms, stored.latest_ms)
        names = {account.key: account.name for account in stored.accounts}
        records = sorted(stored.rooms, key=lambda record: record.empty_since_ms or now_ms)
        for record in records:
            room = self.lobby
            if record.key != LOBBY.key:
                name = Name(record.name, record.key)
                room = self._rooms[record.key] = self._new_room(name, record.last_id)
                self._load_settings(room, record, names, gone)
                since = self._unused_since if room.kept else self._empty_since
                empty_ms = 0.0 if record.empty_since_ms is None else latest_ms - record.empty_since_ms
                since[room] = self._monotonic() - max(0.0, empty_ms) / 1000
            room.topic = record.topic
            room.moderated = record.moderated
            room.voices = set(record.voiced).difference(gone)
            room.last_id = record.last_id
            if record.last_id:
                room.log.begin_after(record.last_id)
            invited = [guest for guest, _ in record.invited]
            if not {record.owner, *record.moderators, *record.voiced, *invited}.isdisjoint(gone):
                self.changed(room)
        for restriction in stored.restrictions:
            if restriction.account and restriction.account in gone:
                self._storage.forget(restriction)
            else:
                self._load_restriction(restriction, now_ms)
        if all(record.key != LOBBY.key for record in records):
            # As for every room that the storage does not know: there can have been one that it had no time to write.
            self.lobby.last_id = stored.floor_id
            self.changed(self.lobby)

    def _load_settings(
        self, room: Room, record: RoomRecord, names: Mapping[str, str], gone: Collection[str]
    ) -> None:
        if record.owner and record.owner not in gone:
            self._owners.give(room, Account(record.owner, names.get(record.owner, record.owner)))
        room.moderators = set(record.moderators).difference(gone)
        room.room_key = record.entry_key
        for guest, until_ms in sorted(record.invited, key=itemgetter(1)):
            if guest not in gone:
                room.invitations.put(guest, until_ms, self._limits.invitations)
        self.set_private(room, record.private)

    def _load_restriction(self, restriction: Restriction, now_ms: int) -> None:
        room = self._rooms.get(restriction.room or LOBBY.key)
        ban = Ban(restriction)
        if room is None or ban.is_over(now_ms):
            self._storage.forget(restriction)
        elif restriction.kind is RestrictionKind.BAN:
            room.bans.put(ban)
        else:
            room.mutes.put(ban)

    def set_private(self, room: Room, private: bool) -> None:
        """List this room no longer, or again."""
        room.private = private
        self._select_again()

    def changed(self, room: Room) -> None:
        """Keep the room's settings in the storage."""
        self._storage.save(self._record(room))

    def adopted(self, room: Room) -> None:
        """An account owns this room from now on."""
        if self._empty_since.pop(room, None) is not None:
            self._unused_since[room] = self._monotonic()
        self.changed(room)

    def entered(self, room: Room) -> None:
        """Someone has entered this room."""
        was_empty = self._empty_since.pop(room, None), self._unused_since.pop(room, None)
        if was_empty != (None, None):
            self.changed(room)

    def left(self, room: Room) -> None:
        """Someone has left this room. If it is empty now, it is deleted after a while."""
        if not room.names and room is not self.lobby:
            (self._unused_since if room.kept else self._empty_since)[room] = self._monotonic()
            self.changed(room)

    def _select_again(self) -> None:
        # If there are too many to list all, one more or less makes no difference for a moment.
        if self._selection is not None and self._selection.is_all:
            self._selection = None

    def _is_due(self, room: Room) -> bool:
        """True when this room has been empty for too long."""
        start, lifetime_s = self._empty_since.get(room), self._limits.empty_room_s
        if start is None:
            start, lifetime_s = self._unused_since.get(room), self._limits.kept_room_s
        return start is not None and self._monotonic() >= start + lifetime_s

    def _origin_s(self) -> float:
        """The time of day at which the monotonic clock was 0; it changes when the time of day is set."""
        return self._time() - self._monotonic()

    TRANSIENT = frozenset(
        {
            "_time",
            "_monotonic",
            "_storage",
            "_unready",
            "_new_gate",
            "_observer",
            "lobby",
            "_limits",
            "_owners",
            "ban_total",
            "_selection",
            "_dispensable",
            "_dispensable_s",
        }
    )

    def ahead(self) -> Iterator[State]:
        """The logs that the storage does not have, each to be handed over before `to_state`; meanwhile others can go on."""
        rooms = [] if self._storage.keeps_messages else list(self._rooms.values())
        for room in rooms:
            yield {"room": room.key, "log": room.log.ahead()}

    def to_state(self) -> State:
        """All rooms, to be handed over. A log that the storage has, too, stays behind, unless someone reads it."""
        rooms = self._rooms.values()
        kept = self._storage.keeps_messages
        origin_s = self._origin_s()
        return {
            "rooms": [room.to_state(not kept or room.log.followers > 0) for room in rooms],
            "history": self.history.to_state((room.key, room.log) for room in rooms),
            "empty_since": [[room.key, origin_s + since] for room, since in self._empty_since.items()],
            "unused_since": [[room.key, origin_s + since] for room, since in self._unused_since.items()],
            "last_deleted_id": self._last_deleted_id,
        }

    def take_state(self, state: State, logs: Mapping[str, RoomLog]) -> Mapping[str, Room]:
        """Take over all rooms, in place of what the storage has of them, and return them by their keys. Nobody owns them yet.

        `logs` are those that have been handed over ahead.
        """
        rooms: dict[str, Room] = {}
        for one in state["rooms"]:
            key = one["key"]
            room = self._rooms.get(key) or self._new_room(Name(one["name"], key), one["last_id"])
            rooms[key] = room
            room.take_state(one, logs.get(key) or RoomLog())
        for key in self._rooms.keys() - rooms.keys():
            # Deleted meanwhile.
            self._rooms[key].bans.forget()
            self._rooms[key].mutes.forget()
        self._rooms = rooms
        origin_s = self._origin_s()
        self._empty_since = {rooms[key]: since - origin_s for key, since in state["empty_since"]}
        self._unused_since = {rooms[key]: since - origin_s for key, since in state["unused_since"]}
        self._last_deleted_id = state["last_deleted_id"]
        self.history.take_state(state["history"], {key: room.log for key, room in rooms.items()})
        return rooms

    def _expire(self) -> None:
        """Delete some of the rooms that are due."""
        for since in (self._empty_since, self._unused_since):
            left = _DELETED_AT_ONCE
            while since and left and self._is_due(room := next(iter(since))):
                self._delete(room)
                left -= 1

    def _make_way(self, rooms: Iterable[Room]) -> None:
        """Delete those of these rooms that are due, so that their owner can have others."""
        for room in rooms:
            if self._is_due(room):
                self._delete(room)

    def _next_dispensable(self) -> Room:
        """Of the account that has the most empty rooms, the one that has been empty longest. At least one account has one."""
        now = self._time()
        while True:
            if abs(now - self._dispensable_s) < _SELECTED_FOR_S:
                for key in self._dispensable:
                    room = self._rooms.get(key)
                    if room in self._unused_since:
                        return room
            self._dispensable, self._dispensable_s = iter(_making_way(self._unused_since)), now

    def _delete(self, room: Room) -> None:
        record = self._record(room)
        del self._rooms[room.key]
        self._select_again()
        self._empty_since.pop(room, None)
        self._unused_since.pop(room, None)
        self._owners.release(room)
        room.bans.forget()
        room.mutes.forget()
        self.history.forget(room.log)
        self._storage.forget(record)
        self._last_deleted_id = max(self._last_deleted_id, room.last_id)

    def _new_room(self, name: Name, last_id: int, ban_total: BanTotal | None = None) -> Room:
        return Room(
            name,
            self._new_gate,
            self.history,
            last_id + 1,
            self._wait_for_storage,
            self._observer,
            ban_total or self.ban_total,
        )

    def _record(self, room: Room) -> RoomRecord:
        empty_since = self._empty_since.get(room, self._unused_since.get(room))
        empty_since_ms = None if empty_since is None else round(1000 * (self._origin_s() + empty_since))
        owner = None if room.owner is None else room.owner.account
        return RoomRecord(
            room.key,
            room.name,
            "" if owner is None else owner.key,
            frozenset(room.moderators),
            frozenset(room.voices),
            room.invitations.of_accounts(),
            room.topic,
            room.private,
            room.room_key,
            room.moderated,
            room.last_id,
            empty_since_ms,
            int(1000 * self._time()) if empty_since_ms is None else empty_since_ms,
        )

    def _wait_for_storage(self, room: Room) -> None:
        self._unready.add(room)

    def _storage_is_ready(self) -> None:
        unready, self._unready = self._unready, set()
        for room in unready:
            room.gate.pump()


def logs_of(ahead: Iterable[State]) -> dict[str, RoomLog]:
    """The logs that have been handed over ahead, by the keys of their rooms."""
    logs: dict[str, RoomLog] = {}
    for one in ahead:
        log = logs[one["room"]] = RoomLog()
        log.take_ahead(one["log"])
    return logs


def _making_way(rooms: Collection[Room]) -> list[str]:
    """The keys of these rooms, the longest empty of which comes first, in the order in which they make way."""
    left = Counter(room.owner for room in rooms)
    ranked: list[tuple[int, str]] = []
    for room in rooms:
        # How many its owner has left when it is this one's turn.
        ranked.append((left[room.owner], room.key))
        left[room.owner] -= 1
    ranked.sort(key=itemgetter(0), reverse=True)
    return [key for _, key in ranked]


def most_visited(rooms: Sequence[Room], most: int, most_bytes: float = math.inf) -> list[Room]:
    """At most this many of these rooms, in the same order: the first one, and those with the most people.

    Together they have at most `most_bytes` in a list, unless the first one alone has more.
    """
    chosen = [rooms[0], *nlargest(most - 1, rooms[1:], key=lambda room: len(room.names))]
    ends = accumulate(map(listed_bytes, chosen))
    fitting = {room for room, end in zip(chosen, ends, strict=True) if end <= most_bytes}
    return [room for room in rooms if room in fitting or room is rooms[0]]


def listed_bytes(room: Room) -> int:
    """The size of the name and the topic of a room in UTF-8."""
    return len(room.name.encode()) + len(room.topic.encode())
