"""A room: the people in it, its audiences, its settings, its log, and the ids of its messages.

Audiences and subscribers are passed in as protocols; the room only tells them what happened, in order. Permissions are
decided elsewhere.

A room knows its owner, its moderators, the people with voice, invitations, bans and mutes. Moderators and people
with voice are listed by account; someone without an account has voice until leaving the room.

Invariants:
- `names` holds everyone in the room, in the order in which they entered.
- `_audiences` holds each audience that hears this room, and `_delaying` those of them whose delay can be more than 0.
- A name in `_departures` is free: its holder has left, and the others have not been notified yet. They are notified
  before anyone else enters under that name. Each arrival announces one of them, so `_departures` never holds more names
  than the room has had members at one time.
- ids grow by one per text.
- A room has at most one owner, and is among the `rooms` of that one alone.
- Everyone in `guest_voices` is in the room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Protocol

from geventchat.chat.accounts import Account
from geventchat.chat.bans import Bans, BanTotal
from geventchat.chat.events import (
    Broadcast,
    Departure,
    Joined,
    Left,
    MessageDeleted,
    Observed,
    PrivateEvent,
    Said,
)
from geventchat.chat.history import History, RoomLog
from geventchat.chat.names import Name, key_of
from geventchat.chat.states import State, pack, unpack_all


class Gate(Protocol):
    """Lets commands pass as fast as their recipients can follow.

    Each room has one, for messages, arrivals and departures. Each recipient of direct messages has two, one for its contacts
    and one for strangers.
    """

    def is_open(self) -> bool:
        """True when a command can pass now."""

    def pump(self) -> None:
        """Let the next one pass if the gate is open."""

    def passage(self, waiter: Any, queue: str) -> AbstractContextManager[None]:
        """Wait outside the chat, in this queue; inside, the command that was refused can be handled again."""


class Subscriber(Protocol):
    """One client. Its private events arrive in order with what its rooms publish."""

    def hear(self, rooms: frozenset[Room] | None) -> None:
        """Receive what these rooms publish, from now on; None for a client that has left. Earlier events still arrive."""

    def wrote(self, event: Broadcast) -> None:
        """This client is the author of the event that was published last: whether it receives it depends on its dialect."""

    def deliver(self, event: PrivateEvent) -> None:
        """Send an answer to this client alone."""

    def deliver_missed(self, events: Sequence[Broadcast]) -> None:
        """Send this client what happened before it heard a room."""

    def exclude_latest(self) -> None:
        """Leave out the event that was published last to a room that this client is in."""

    def deliver_direct(self, event: PrivateEvent, stranger: bool) -> None:
        """Send what another client has caused; `stranger` when this client has never written to that one."""

    def direct_gate(self, stranger: bool) -> Gate:
        """The gate that a direct message to this client has to pass."""


class Audience(Protocol):
    """Everyone who receives the same bytes."""

    def delay_s(self) -> float:
        """How long until a message can be sent: 0 for now, infinity until the next flush."""

    def publish(self, event: Broadcast) -> None:
        """Deliver to everyone."""


class Invitations:
    """The invitations to a room, each with its end: the oldest first.

    Someone with an account is invited under the key of the account, anyone else under the number of the login.
    """

    __slots__ = ("_until_ms",)

    def __init__(self) -> None:
        self._until_ms: dict[str | int, int] = {}

    def __len__(self) -> int:
        return len(self._until_ms)

    def put(self, guest: str | int, until_ms: int, most: int) -> None:
        """Invite someone, in place of the oldest invitation if there are `most` already."""
        self.withdraw(guest)
        while len(self._until_ms) >= most:
            del self._until_ms[next(iter(self._until_ms))]
        self._until_ms[guest] = until_ms

    def withdraw(self, guest: str | int) -> bool:
        """Take an invitation back; False if there is none."""
        return self._until_ms.pop(guest, None) is not None

    def of_accounts(self) -> tuple[tuple[str, int], ...]:
        """The accounts that are invited, and until when."""
        if not self._until_ms:
            return ()
        return tuple([(guest, until) for guest, until in self._until_ms.items() if isinstance(guest, str)])

    def to_state(self) -> list[Any]:
        """The invitations, to be handed over."""
        return [[guest, until_ms] for guest, until_ms in self._until_ms.items()]

    def take_state(self, state: list[Any]) -> None:
        """Take over invitations."""
        self._until_ms = dict(state)

    def holds(self, guest: str | int, now_ms: int) -> bool:
        """True when this one is invited now."""
        return self._until_ms.get(guest, 0) > now_ms


# Makes a gate that is open when the delay is 0.
GateFactory = Callable[[Callable[[], float]], Gate]
# Learns what happens, in order. It cannot block, and changes nothing in the chat before it returns.
Observer = Callable[[Observed], None]


class Owner:
    """Someone who owns rooms: an account, or a client without one for as long as it is logged in."""

    __slots__ = ("account", "rooms")

    def __init__(self, account: Account | None) -> None:
        self.account = account
        self.rooms: dict[Room, None] = {}


# As many ids as one command can need.
_IDS_AHEAD = 1_000


class Room:
    """One room."""

    # `owner` is in the state of the owners.
    TRANSIENT = frozenset(
        {"alone", "gate", "owner", "_history", "_waits_for_storage", "_observer", "_audiences", "_delaying"}
    )

    def __init__(
        self,
        name: Name,
        new_gate: GateFactory,
        history: History,
        first_id: int = 1,
        waits_for_storage: Callable[[Room], None] = lambda room: None,
        observer: Observer | None = None,
        ban_total: BanTotal | None = None,
    ) -> None:
        """`waits_for_storage` gets the room when its gate has to be pumped once the storage is ready.

        `observer` gets everything that is published here. `ban_total` counts the bans and mutes.
        """
        self.name = name.shown
        self.key = name.key
        # The set of rooms of a client that is in this room alone.
        self.alone = frozenset((self,))
        self.gate = new_gate(self._delay_s)
        self.topic = ""
        # Not listed, and entered by invitation or with the key.
        self.private = False
        # Required for entering without an invitation; empty for none.
        self.room_key = ""
        # Only people with voice can speak.
        self.moderated = False
        self.owner: Owner | None = None
        # The keys of the accounts that moderate the room, and of those with voice.
        self.moderators: set[str] = set()
        self.voices: set[str] = set()
        # The keys of the names of others with voice.
        self.guest_voices: set[str] = set()
        self.invitations = Invitations()
        self.bans = Bans(ban_total)
        self.mutes = Bans(ban_total)
        self.last_id = first_id - 1
        self.log = RoomLog()
        self._history = history
        self._waits_for_storage = waits_for_storage
        self._observer = observer
        self._names: dict[str, str] = {}
        self._audiences: dict[Audience, None] = {}
        self._delaying: dict[Audience, None] = {}
        self._departures: dict[str, Left] = {}

    def __contains__(self, name: Name) -> bool:
        return name.key in self._names

    @property
    def names(self) -> Collection[str]:
        """The names of everyone here, in the order in which they entered: a live view."""
        return self._names.values()

    @property
    def keys(self) -> Collection[str]:
        """The keys of everyone's names here, in the same order: a live view."""
        return self._names.keys()

    @property
    def kept(self) -> bool:
        """True when the owner has an account, so that the room outlives its people by months and not by minutes."""
        return self.owner is not None and self.owner.account is not None

    def has(self, key: str) -> bool:
        """True when someone whose name has this key is here."""
        return key in self._names

    def page(self, after: str, most: int) -> tuple[list[str], int]:
        """At most this many names, behind the one with this key or from the first one on, and how many come before them."""
        keys = iter(self._names)
        before = 0
        if after:
            for key in keys:
                before += 1
                if key == after:
                    break
        return [self._names[key] for key in islice(keys, most)], before

    # --- Audiences ---------------------------------------------------------------------------------------------------

    def add_audience(self, audience: Audience) -> None:
        """Publish to this audience, too: it has its first member."""
        self._audiences[audience] = None

    def remove_audience(self, audience: Audience) -> None:
        """Stop publishing to this audience: its last member has left."""
        del self._audiences[audience]
        self._delaying.pop(audience, None)

    def add_delaying(self, audience: Audience) -> None:
        """Ask this audience for its delay from now on."""
        self._delaying[audience] = None

    def remove_delaying(self, audience: Audience) -> None:
        """Its delay is 0 until it is added again."""
        self._delaying.pop(audience, None)

    def publish(self, event: Broadcast, author: Subscriber | None = None) -> None:
        """Tell everyone here. `author` is a member."""
        for audience in self._audiences:
            audience.publish(event)
        if author is not None:
            author.wrote(event)
        if self.log.followers or isinstance(event, Said):
            self._history.add(self.key, self.log, event)
        if self._observer is not None:
            self._observer(event)

    def follow(self) -> None:
        """Keep what happens here in the log, for one more client that reads it and does not hear the room yet."""
        self.log.follow()

    def unfollow(self) -> None:
        """One client less needs it."""
        self._history.unfollow(self.log)

    # --- People ------------------------------------------------------------------------------------------------------

    def make_way(self, name: Name) -> None:
        """Announce a departure that has to come before the arrival of this name, or else the longest-waiting one."""
        departures = self._departures
        if departures:
            self.publish(departures.pop(name.key if name.key in departures else next(iter(departures))))

    def add(self, name: Name) -> None:
        """Add a member, silently."""
        self._names[name.key] = name.shown

    def remove(self, name: Name) -> None:
        """Remove a member, silently."""
        del self._names[name.key]
        self.guest_voices.discard(name.key)

    def joined(self, name: Name, subscriber: Subscriber | None, time_ms: int) -> None:
        """Announce that a member has entered; without a subscriber, a member that does not hear the room yet."""
        self.publish(Joined(self.name, name.shown, time_ms), subscriber)

    def departed(self, name: Name, how: Departure, time_ms: int) -> bool:
        """Tell the others that someone has left; False when they cannot follow now."""
        self._departures[name.key] = Left(self.name, name.shown, time_ms, how)
        return self.announce_departures()

    def announce_departures(self) -> bool:
        """Announce departures in order; False when the gate closed before all were announced."""
        departures = self._departures
        while departures and self.gate.is_open():
            self.publish(departures.pop(next(iter(departures))))
        return not departures

    # --- Messages ----------------------------------------------------------------------------------------------------

    def say(self, name: Name, texts: Sequence[str], subscriber: Subscriber | None, time_ms: int) -> Said:
        """Publish texts and give them their ids. Their author is a member, or the program: then without a subscriber."""
        said = Said(self.name, name.shown, texts, self.last_id + 1, time_ms)
        self.last_id += len(texts)
        history = self._history
        history.said += len(texts)
        history.heard += len(texts) * (len(self._names) - (subscriber is not None))
        self.publish(said, subscriber)
        return said

    def delete(self, id: int, time_ms: int) -> None:
        """Remove the text of a message, and tell everyone."""
        self._history.delete(self.key, self.log, id)
        self.publish(MessageDeleted(self.name, id, time_ms))

    # --- Handing over ------------------------------------------------------------------------------------------------

    def to_state(self, with_log: bool) -> State:
        """The room, to be handed over."""
        return {
            "name": self.name,
            "key": self.key,
            "topic": self.topic,
            "private": self.private,
            "room_key": self.room_key,
            "moderated": self.moderated,
            "moderators": sorted(self.moderators),
            "voices": sorted(self.voices),
            "guest_voices": sorted(self.guest_voices),
            "invitations": self.invitations.to_state(),
            "bans": self.bans.to_state(),
            "mutes": self.mutes.to_state(),
            "last_id": self.last_id,
            "log": self.log.to_state() if with_log else None,
            "names": list(self._names.items()),
            "departures": [pack(left) for left in self._departures.values()],
        }

    def take_state(self, state: State, log: RoomLog) -> None:
        """Take over a room, and its log with what was handed over of it ahead. No client is in it yet."""
        self.topic = state["topic"]
        self.private = state["private"]
        self.room_key = state["room_key"]
        self.moderated = state["moderated"]
        self.moderators = set(state["moderators"])
        self.voices = set(state["voices"])
        self.guest_voices = set(state["guest_voices"])
        self.invitations.take_state(state["invitations"])
        self.bans.take_state(state["bans"])
        self.mutes.take_state(state["mutes"])
        self.last_id = state["last_id"]
        self.log = log
        if state["log"] is not None:
            log.take_state(state["log"])
        elif self.last_id:
            log.begin_after(self.last_id)
        self._names = dict(state["names"])
        departures: list[Left] = unpack_all(state["departures"])
        self._departures = {key_of(left.name): left for left in departures}

    def _delay_s(self) -> float:
        if not self._history.storage.is_ready(self.key, self.last_id + _IDS_AHEAD):
            self._waits_for_storage(self)
            return math.inf
        delay_s = 0.0
        for audience in self._delaying:
            delay_s = max(delay_s, audience.delay_s())
        return delay_s
