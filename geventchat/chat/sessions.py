"""One client in the chat: who it is, where it is, and what it has asked for itself. Pure.

A session keeps; what is allowed is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from geventchat.chat.accounts import Account
from geventchat.chat.addresses import Address, parse_address
from geventchat.chat.events import Broadcast, NoticeReason, PrivateEvent, Rejection
from geventchat.chat.names import Name, key_of
from geventchat.chat.records import KeptMessage
from geventchat.chat.replay import Replay
from geventchat.chat.rooms import Gate, Owner, Room, Subscriber
from geventchat.chat.states import State, pack, pack_all, unpack, unpack_all


class Peer(Protocol):
    """The connection of a client, as far as the chat has to know it."""

    @property
    def host(self) -> str:
        """The address of the peer, as the system names it; empty if it has none."""

    def can_create_room(self) -> bool:
        """Count one more room that this client creates; False if it has created too many lately."""

    def can_register(self) -> bool:
        """Count one more account that this client registers; False if too many come from where it is."""

    def failed_to_prove(self, name: str, reason: Rejection) -> None:
        """Note that this client has not proved that the account of this name is its own."""

    def mark_input(self) -> bool:
        """Remember what has arrived from this client by now; False if all of it has been handled.

        Once the rest has been handled, the session's `meant` is None again.
        """

    def disconnect(self, reason: NoticeReason) -> None:
        """Close the connection once everything pending has been sent. The client has left the chat."""


class InProcess:
    """The peer of a client inside this process, which has no address and no connection."""

    host = ""

    def can_create_room(self) -> bool:
        """It can."""
        return True

    def can_register(self) -> bool:
        """It can."""
        return True

    def failed_to_prove(self, name: str, reason: Rejection) -> None:
        """It has no account."""

    def mark_input(self) -> bool:
        """Everything is handled at once."""
        return False

    def disconnect(self, reason: NoticeReason) -> None:
        """Nothing is left to close."""


class NoListener(Subscriber):
    """A subscriber that is in no room and hears nothing, such as the program that the chat is part of."""

    def hear(self, rooms: frozenset[Room] | None) -> None:
        """It is in no room."""

    def wrote(self, event: Broadcast) -> None:
        """It hears nothing."""

    def deliver(self, event: PrivateEvent) -> None:
        """It needs no answers."""

    def deliver_missed(self, events: Sequence[Broadcast]) -> None:
        """It hears nothing."""

    def exclude_latest(self) -> None:
        """It hears nothing."""

    def deliver_direct(self, event: PrivateEvent, stranger: bool) -> None:
        """It receives no direct messages."""

    def direct_gate(self, stranger: bool) -> Gate:
        """It receives no direct messages."""
        raise AssertionError("it receives no direct messages")


class Session:
    """One client in the chat."""

    __slots__ = (
        "_address",
        "account",
        "contacts",
        "cost_bytes",
        "ignored",
        "login_number",
        "mail",
        "meant",
        "name",
        "owner",
        "peer",
        "replays",
        "room",
        "rooms",
        "subscriber",
        "typing_at",
    )

    def __init__(self, subscriber: Subscriber, peer: Peer | None = None) -> None:
        self.subscriber = subscriber
        self.peer: Peer = peer or InProcess()
        self.name: Name | None = None
        self.account: Account | None = None
        # How many had logged in when this client had.
        self.login_number = 0
        # The default room of commands; None if the client is in no room, or in several.
        self.room: Room | None = None
        # The room that this client was removed from, until the lines that had arrived by then are handled: they are for it.
        self.meant: Room | None = None
        # All rooms of a client that can be in many; None for a client with one room at a time.
        self.rooms: dict[str, Room] | None = None
        # The replays of rooms in which the client missed events; it is subscribed to them afterwards.
        self.replays: dict[Room, Replay] | None = None
        # The rooms that it owns without an account.
        self.owner: Owner | None = None
        # Direct messages that were taken from the account's mailbox and have not been sent yet.
        self.mail: Sequence[KeptMessage] = ()
        # The keys of the people this client has written to, the latest last.
        self.contacts: dict[str, None] | None = None
        # The keys of the names that it ignores.
        self.ignored: set[str] | None = None
        # When its typing was announced last.
        self.typing_at = -math.inf
        # The cost of this client beyond its lines and answers, in bytes.
        self.cost_bytes = 0
        self._address: Address | None = None

    # The new process looks up `account` and `owner`.
    TRANSIENT = frozenset({"_address", "peer", "subscriber", "owner"})

    def to_state(self) -> State:
        """The state of the client, to be handed over."""
        owned = () if self.owner is None else self.owner.rooms
        return {
            "name": pack(self.name),
            "account": None if self.account is None else self.account.key,
            "login_number": self.login_number,
            "room": None if self.room is None else self.room.key,
            "rooms": None if self.rooms is None else list(self.rooms),
            "meant": None if self.meant is None else self.meant.key,
            "replays": {room.key: replay.to_state() for room, replay in (self.replays or {}).items()},
            "mail": pack_all(self.mail),
            "contacts": None if self.contacts is None else list(self.contacts),
            "ignored": None if self.ignored is None else sorted(self.ignored),
            "typing_at": self.typing_at,
            "cost_bytes": self.cost_bytes,
            "owned": [room.key for room in owned],
        }

    def take_state(self, state: State, rooms: Mapping[str, Room]) -> None:
        """Take over a client that is logged in, and hear its rooms."""
        self.name = unpack(state["name"])
        self.login_number = state["login_number"]
        self.mail = unpack_all(state["mail"])
        self.contacts = None if state["contacts"] is None else dict.fromkeys(state["contacts"])
        self.typing_at = state["typing_at"]
        self.cost_bytes = state["cost_bytes"]
        if state["meant"] is not None:
            # If it is gone, another that this client is not in will do.
            self.meant = rooms.get(state["meant"], self.room)
        for key, one in state["replays"].items():
            replay = Replay(rooms[key], 0)
            replay.take_state(one)
            self.replays = self.replays or {}
            self.replays[rooms[key]] = replay
            rooms[key].follow()
        if state["rooms"] is not None:
            self.go_to_all([rooms[key] for key in state["rooms"]])
        elif state["room"] is not None:
            self.go_to(rooms[state["room"]])

    @property
    def address(self) -> Address | None:
        """The address of the peer, if it has one."""
        if self._address is None:
            self._address = parse_address(self.peer.host)
        return self._address

    def is_stranger(self, other: Name) -> bool:
        """True when this client has not written to this person."""
        return other.key not in (self.contacts or ())

    def ignores(self, name: str) -> bool:
        """True when this client wants to hear nothing of the person with this name."""
        return self.ignored is not None and key_of(name) in self.ignored

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

    def hears(self, room: Room) -> bool:
        """True when the client is sent what happens in this room now."""
        return self.find_room(room.key) is room and room not in (self.replays or ())

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
