"""A room: the people in it, the audiences that hear it, and the ids of its messages.

Does not know what an audience or a subscriber is made of; both are handed in, and the room only says what happened
and in which order.

Invariants:
- `names` holds everyone in the room, in the order in which they entered.
- `_audiences` holds each audience that at least one member belongs to, once.
- A name in `_departures` is free: its holder has left, and the others have yet to hear of it. They hear of it before
  anyone else enters under that name. Everyone who enters announces one of them, so that there are never more of them
  than there have been members at one time.
- ids grow by one per text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from geventchat.chat.events import Broadcast, DirectMessage, Joined, Left, PrivateEvent, Said
from geventchat.chat.names import Name


class Gate(Protocol):
    """Admits speakers as fast as those who listen can follow: one gate for each room, one queue at each gate."""

    def is_open(self) -> bool:
        """True when something can be said now."""

    def pump(self) -> None:
        """Look whether somebody can be admitted now."""

    def admission(self, waiter: Any, address: str) -> AbstractContextManager[None]:
        """Wait for admission, outside the chat; what was refused can be said inside."""


class Subscriber(Protocol):
    """One client. What it is sent alone arrives in order with what it hears in its audience."""

    @property
    def audience(self) -> Audience:
        """The audience this client belongs to while it is subscribed."""

    def subscribe(self) -> None:
        """Hear the audience from now on."""

    def unsubscribe(self) -> None:
        """Stop hearing the audience; what was said before is still delivered."""

    def deliver(self, event: PrivateEvent) -> None:
        """Send an answer to this client alone."""

    def deliver_direct(self, message: DirectMessage, stranger: bool) -> None:
        """Send a message from another client; `stranger` says that this client has never written to its sender."""

    def direct_gate(self, stranger: bool) -> Gate:
        """The gate that a direct message to this client has to pass."""


class Audience(Protocol):
    """Everyone who hears the same bytes."""

    def delay_s(self) -> float:
        """How long until something can be said: 0 for now, infinity for as long as the turn takes."""

    def attach(self, gate: Gate) -> None:
        """Pump this gate whenever the delay may have become shorter."""

    def detach(self, gate: Gate) -> None:
        """Stop pumping this gate."""

    def publish(self, event: Broadcast, author: Subscriber | None) -> None:
        """Deliver to everyone; whether a present author hears it too is up to the dialect."""


# Makes a gate that is open when the delay is 0.
GateFactory = Callable[[Callable[[], float]], Gate]


class Room:
    """The people who hear each other."""

    def __init__(self, name: str, new_gate: GateFactory) -> None:
        self.name = name
        self.gate = new_gate(self._delay_s)
        self.last_id = 0
        self._names: dict[str, str] = {}
        self._members: Counter[Audience] = Counter()
        self._audiences: tuple[Audience, ...] = ()
        self._departures: dict[str, Left] = {}

    @property
    def names(self) -> Collection[str]:
        """The names of everyone here, in the order in which they entered: a live view."""
        return self._names.values()

    def enter(self, name: Name, subscriber: Subscriber, time_ms: int) -> None:
        """Add a member, who hears what is said from now on; the others hear of it."""
        departures = self._departures
        if departures:
            key = name.key if name.key in departures else next(iter(departures))
            self._publish(departures.pop(key), None)
        self._names[name.key] = name.shown
        audience = subscriber.audience
        self._members[audience] += 1
        if self._members[audience] == 1:
            self._audiences = tuple(self._members)
            audience.attach(self.gate)
        subscriber.subscribe()
        self._publish(Joined(self.name, name.shown, time_ms), subscriber)

    def say(self, name: Name, texts: Sequence[str], subscriber: Subscriber, time_ms: int) -> Said:
        """Publish a member's texts and give them their ids."""
        said = Said(self.name, name.shown, texts, self.last_id + 1, time_ms)
        self.last_id += len(texts)
        self._publish(said, subscriber)
        return said

    def leave(self, name: Name, subscriber: Subscriber, time_ms: int) -> None:
        """Remove a member; the others hear of it as soon as they can follow."""
        self.remove(name, subscriber)
        self._departures[name.key] = Left(self.name, name.shown, time_ms)
        self.announce_departures()

    def announce_departures(self) -> bool:
        """Tell the others who has left, in order; False when the gate closed before all were announced."""
        departures = self._departures
        while departures and self.gate.is_open():
            self._publish(departures.pop(next(iter(departures))), None)
        return not departures

    def remove(self, name: Name, subscriber: Subscriber) -> None:
        """Remove a member silently."""
        del self._names[name.key]
        subscriber.unsubscribe()
        audience = subscriber.audience
        self._members[audience] -= 1
        if not self._members[audience]:
            del self._members[audience]
            self._audiences = tuple(self._members)
            audience.detach(self.gate)
            self.gate.pump()

    def _delay_s(self) -> float:
        delay_s = 0.0
        for audience in self._audiences:
            delay_s = max(delay_s, audience.delay_s())
        return delay_s

    def _publish(self, event: Broadcast, author: Subscriber | None) -> None:
        for audience in self._audiences:
            audience.publish(event, author)
