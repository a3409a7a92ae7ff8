"""A room: the people in it, its audiences, and the ids of its messages.

Audiences and subscribers are passed in as protocols; the room only tells them what happened, in order.

Invariants:
- `names` holds everyone in the room, in the order in which they entered.
- `_audiences` holds each audience that at least one member belongs to, once.
- A name in `_departures` is free: its holder has left, and the others have not been notified yet. They are notified
  before anyone else enters under that name. Each arrival announces one of them, so `_departures` never holds more names
  than the room has had members at one time.
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
    """Lets commands pass as fast as their recipients can follow.

    Each room has one, for what is said, for logins and for departures. Each recipient of direct messages has two of its
    own, one for its contacts and one for strangers.
    """

    def is_open(self) -> bool:
        """True when a command can pass now."""

    def pump(self) -> None:
        """Let the next one pass if the gate is open."""

    def passage(self, waiter: Any, queue: str) -> AbstractContextManager[None]:
        """Wait outside the chat, in this queue; inside, the command that was refused can be handled again."""


class Subscriber(Protocol):
    """One client. Its private events arrive in order with those of its audience."""

    @property
    def audience(self) -> Audience:
        """The audience this client belongs to while it is subscribed."""

    def subscribe(self) -> None:
        """Receive what the audience is sent, from now on."""

    def unsubscribe(self) -> None:
        """Stop receiving what the audience is sent; earlier events are still delivered."""

    def deliver(self, event: PrivateEvent) -> None:
        """Send an answer to this client alone."""

    def deliver_direct(self, message: DirectMessage, stranger: bool) -> None:
        """Send a message from another client; `stranger` when this client has never written to its sender."""

    def direct_gate(self, stranger: bool) -> Gate:
        """The gate that a direct message to this client has to pass."""


class Audience(Protocol):
    """Everyone who receives the same bytes."""

    def delay_s(self) -> float:
        """How long until something can be said: 0 for now, infinity until the next flush."""

    def attach(self, gate: Gate) -> None:
        """Pump this gate whenever the delay can have become shorter."""

    def detach(self, gate: Gate) -> None:
        """Stop pumping this gate."""

    def publish(self, event: Broadcast, author: Subscriber | None) -> None:
        """Deliver to everyone; the dialect decides whether the author receives it too."""


# Makes a gate that is open when the delay is 0.
GateFactory = Callable[[Callable[[], float]], Gate]


class Room:
    """One room."""

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
        """Add a member, and tell everyone."""
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
        """Remove a member; the others are notified as soon as they can follow."""
        self.remove(name, subscriber)
        self._departures[name.key] = Left(self.name, name.shown, time_ms)
        self.announce_departures()

    def announce_departures(self) -> bool:
        """Announce departures in order; False when the gate closed before all were announced."""
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
