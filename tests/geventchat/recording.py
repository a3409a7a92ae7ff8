"""Test doubles for the chat: an audience, subscribers and gates that record."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from geventchat.chat.events import Broadcast, DirectMessage, Event, PrivateEvent, Roster, Welcome


class SwitchedGate:
    """A gate that the test opens and closes."""

    def __init__(self) -> None:
        self.open = True
        self.pumped = 0

    def is_open(self) -> bool:
        return self.open

    def pump(self) -> None:
        self.pumped += 1

    def passage(self, waiter: Any, queue: str) -> AbstractContextManager[None]:
        raise AssertionError("the chat never waits")


class RecordingAudience:
    """Hands every broadcast to its members as the event it is."""

    def __init__(self) -> None:
        self.members: list[RecordingSubscriber] = []
        self.gates: list[object] = []

    def delay_s(self) -> float:
        return 0.0

    def attach(self, gate: object) -> None:
        self.gates.append(gate)

    def detach(self, gate: object) -> None:
        self.gates.remove(gate)

    def publish(self, event: Broadcast, author: object) -> None:
        for member in self.members:
            if member is not author:
                member.received.append(event)


@dataclass(eq=False)
class RecordingSubscriber:
    """One client, and every event it has received."""

    audience: Any
    received: list[Event] = field(default_factory=list)
    strangers: list[bool] = field(default_factory=list)
    contact_gate: SwitchedGate = field(default_factory=SwitchedGate)
    stranger_gate: SwitchedGate = field(default_factory=SwitchedGate)

    def subscribe(self) -> None:
        self.audience.members.append(self)

    def unsubscribe(self) -> None:
        self.audience.members.remove(self)

    def deliver(self, event: PrivateEvent) -> None:
        # A roster is a live view, to be read at once.
        match event:
            case Welcome(room, name, users, time_ms):
                event = Welcome(room, name, tuple(users), time_ms)
            case Roster(users):
                event = Roster(tuple(users))
        self.received.append(event)

    def deliver_direct(self, message: DirectMessage, stranger: bool) -> None:
        self.received.append(message)
        self.strangers.append(stranger)

    def direct_gate(self, stranger: bool) -> SwitchedGate:
        return self.stranger_gate if stranger else self.contact_gate

    def take(self) -> list[Event]:
        """The events received since the last call."""
        taken, self.received = self.received, []
        return taken
