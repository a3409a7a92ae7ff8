"""Test doubles for the chat: an audience, subscribers and gates that record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Generic, TypeVar

from geventchat.chat.chat import DONE, Chat, More, Pending, Session
from geventchat.chat.commands import Say
from geventchat.chat.credentials import Tools
from geventchat.chat.events import (
    Broadcast,
    DirectMessage,
    Entered,
    Event,
    Missed,
    PrivateEvent,
    Roster,
    Welcome,
)
from geventchat.chat.passwords import HasherFull, Password, Verified
from geventchat.chat.rooms import Audience, Room
from geventchat.dialects.dialect import OtherDialect, Reading, Request, TextInRoom
from geventchat.services.storage.memory import MemoryStorage
from geventchat.settings import Limits
from tests.geventchat.manual_clock import ManualClock


class SwitchedGate:
    """A gate that the test opens and closes."""

    def __init__(self) -> None:
        self.open = True
        self.pumped = 0
        # The delay that it has to respect, too.
        self.delay_s: Callable[[], float] = lambda: 0.0

    def is_open(self) -> bool:
        return self.open and self.delay_s() <= 0

    def pump(self) -> None:
        self.pumped += 1

    def passage(self, waiter: Any, queue: str) -> AbstractContextManager[None]:
        raise AssertionError("the chat never waits")


class RecordingAudience:
    """Hands every broadcast to its members as the event it is."""

    delay = 0.0

    def __init__(self) -> None:
        self.members: list[RecordingSubscriber] = []

    def delay_s(self) -> float:
        return self.delay

    def publish(self, event: Broadcast) -> None:
        for member in self.members:
            member.received.append(event)


A = TypeVar("A", bound=Audience)
T = TypeVar("T")


class Audiences(Generic[A]):
    """An audience for each label and set of rooms, while it has members; as delivery has for each encoding."""

    def __init__(self, new: Callable[[str], A]) -> None:
        self._new = new
        self.audiences: dict[tuple[str, frozenset[Room]], A] = {}
        self._members: Counter[A] = Counter()

    def enter(self, label: str, rooms: frozenset[Room]) -> A:
        """The audience of these rooms, with one more member."""
        audience = self.audiences.get((label, rooms))
        if audience is None:
            audience = self.audiences[label, rooms] = self._new(label)
            for room in rooms:
                room.add_audience(audience)
        self._members[audience] += 1
        return audience

    def leave(self, label: str, rooms: frozenset[Room]) -> A:
        """The audience of these rooms, with one member less."""
        audience = self.audiences[label, rooms]
        self._members[audience] -= 1
        if not self._members[audience]:
            del self._members[audience], self.audiences[label, rooms]
            for room in rooms:
                room.remove_audience(audience)
        return audience

    def move(self, label: str, left: frozenset[Room] | None, entered: frozenset[Room] | None) -> None:
        """One client hears other rooms from now on."""
        if entered is not None:
            self.enter(label, entered)
        if left is not None:
            self.leave(label, left)


class RecordingAudiences(Audiences[RecordingAudience]):
    """Audiences that record."""

    def __init__(self) -> None:
        super().__init__(lambda label: RecordingAudience())


@dataclass(eq=False)
class RecordingSubscriber:
    """One client, and every event it has received. It does not hear what it says."""

    audiences: RecordingAudiences
    label: str = "all"
    heard: frozenset[Room] | None = None
    received: list[Event] = field(default_factory=list)
    strangers: list[bool] = field(default_factory=list)
    contact_gate: SwitchedGate = field(default_factory=SwitchedGate)
    stranger_gate: SwitchedGate = field(default_factory=SwitchedGate)

    def hear(self, rooms: frozenset[Room] | None) -> None:
        left, self.heard = self.heard, rooms
        if rooms is not None:
            self.audiences.enter(self.label, rooms).members.append(self)
        if left is not None:
            self.audiences.leave(self.label, left).members.remove(self)

    def wrote(self, event: Broadcast) -> None:
        self.exclude_latest()

    def exclude_latest(self) -> None:
        self.received.pop()

    def deliver(self, event: PrivateEvent) -> None:
        # A roster is a live view, to be read at once.
        match event:
            case Welcome() | Roster() | Entered():
                event = replace(event, users=tuple(event.users))
        self.received.append(event)

    def deliver_missed(self, events: Sequence[Broadcast]) -> None:
        self.deliver(Missed(events))

    def deliver_direct(self, message: DirectMessage, stranger: bool) -> None:
        self.received.append(message)
        self.strangers.append(stranger)

    def direct_gate(self, stranger: bool) -> SwitchedGate:
        return self.stranger_gate if stranger else self.contact_gate

    def take(self) -> list[Event]:
        """The events received since the last call."""
        taken, self.received = self.received, []
        return taken


class PlainHasher:
    """A hasher that takes no time: what it makes of a password is the password behind `plain:`."""

    def __init__(self) -> None:
        # Raised in place of an answer.
        self.error: Exception | None = None
        self.verified = 0
        # Whether the address that asked last is known to the account.
        self.known = False

    def is_full(self, origin: str, known: bool = False) -> bool:
        return isinstance(self.error, HasherFull)

    def hash(self, password: Password, origin: str, known: bool = False) -> str:
        if self.error is not None:
            raise self.error
        return f"plain:{password.reveal()}"

    def verify(self, password: Password, stored: str, origin: str, known: bool = False) -> Verified:
        self.verified += 1
        self.known = known
        return Verified(self.hash(password, origin) == stored)


def tools(
    hasher: PlainHasher | None = None,
    monotonic: Callable[[], float] = lambda: 0.0,
    report: Callable[[str, Exception], None] = lambda origin, error: None,
) -> Tools:
    """The tools for passwords; nothing is random, and nothing takes time."""
    numbers = count(1)
    return Tools(hasher or PlainHasher(), monotonic, lambda most: bytes([next(numbers)]) * most, report)


def memory(epoch: str = "e1") -> MemoryStorage:
    """A storage that keeps nothing of what the chat's logs hold."""
    return MemoryStorage(Limits(), ManualClock(), lambda: epoch)


def at_once(read: Callable[[], T]) -> T:
    """Nothing here blocks, so no thread is needed."""
    return read()


def perform(chat: Chat, session: Session, reading: Reading, times: int = 1) -> Any:
    """Handle a line as a connection does, where nothing has to wait; a text is sent this many times at once."""
    match reading:
        case None:
            return DONE
        case str(text):
            return chat.handle(session, Say([text] * times))
        case TextInRoom(room, text):
            return chat.handle(session, Say([text] * times, room))
        case Request(command, ref, answer_to):
            answer_to(ref)
            result = perform(chat, session, command)
            answer_to(None)
            return result
        case OtherDialect():
            raise AssertionError("the line has to be read again")
        case _:
            result = chat.handle(session, reading)
            while isinstance(result, More | Pending):
                result = result.go_on() if isinstance(result, More) else result.finish(result.job())
            return result
