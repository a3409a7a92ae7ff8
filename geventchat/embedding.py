"""The events that a program which embeds the server receives, its callbacks, and how it waits for slow readers.

Knows neither the server nor its connections. Everything here belongs to the thread of the server.

Invariants of Subscription:
- The callback gets events in the order in which they happened, one at a time, in a greenlet that exists while events wait.
- At most `most_waiting` events wait. When one more arrives, it and all later ones are dropped and counted until the callback
  has handled those that wait. So a slow callback never delays a client, and its memory is bounded.
- An exception in the callback is logged; the subscription goes on.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

import gevent
from gevent.event import Event as Flag

from geventchat.chat import events as chat
from geventchat.chat.results import Busy
from geventchat.exhaustive import assert_never
from geventchat.log import LogEvent

# Where the program waits at gates: one queue beside those of the addresses.
_PROGRAM = "program"

_HOW: dict[chat.Departure, Literal["disconnected", "left", "kicked"]] = {
    chat.Departure.DISCONNECTED: "disconnected",
    chat.Departure.LEFT: "left",
    chat.Departure.KICKED: "kicked",
}


# --- Values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the chat, `time_ms` milliseconds after the beginning of 1970."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """Someone has logged in."""

    name: str


@dataclass(frozen=True, slots=True)
class LoggedOut(Event):
    """Someone has left the chat or lost the connection; the name is free."""

    name: str


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """Someone has entered a room. Most clients enter the lobby when they log in."""

    room: str
    name: str


@dataclass(frozen=True, slots=True)
class Left(Event):
    """The people in a room have been notified that someone has left it."""

    room: str
    name: str
    how: Literal["disconnected", "left", "kicked"]


@dataclass(frozen=True, slots=True)
class Message(Event):
    """Someone has said something in a room. Ids count per room."""

    room: str
    name: str
    text: str
    id: int


@dataclass(frozen=True, slots=True)
class MessageDeleted(Event):
    """The text of a message is gone from the history."""

    room: str
    id: int


@dataclass(frozen=True, slots=True)
class TopicChanged(Event):
    """Someone has changed the topic of a room; an empty one is none."""

    room: str
    name: str
    topic: str


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """A room, as it was when it was asked for. A private one is not listed for clients."""

    name: str
    people: int
    topic: str
    private: bool


def values_of(event: chat.Observed) -> Iterator[Event]:
    """The events for the program that one event of the chat becomes: none for direct messages, typing and announcements."""
    match event:
        case chat.Said(room, name, texts, first_id, time_ms):
            for id, text in enumerate(texts, first_id):
                yield Message(time_ms, room, name, text, id)
        case chat.Joined(room, name, time_ms):
            yield Joined(time_ms, room, name)
        case chat.Left(room, name, time_ms, how):
            yield Left(time_ms, room, name, _HOW[how])
        case chat.TopicChanged(room, name, topic, time_ms):
            yield TopicChanged(time_ms, room, name, topic)
        case chat.MessageDeleted(room, id, time_ms):
            yield MessageDeleted(time_ms, room, id)
        case chat.LoggedIn(name, time_ms):
            yield LoggedIn(time_ms, name)
        case chat.LoggedOut(name, time_ms):
            yield LoggedOut(time_ms, name)
        case chat.Typing() | chat.DirectMessage() | chat.Announcement():
            pass
        case _:
            assert_never(event)


# --- Callbacks -------------------------------------------------------------------------------------------------------

E = TypeVar("E", bound=Event)


class CallbackLog(Protocol):
    """Logs an event of a callback."""

    def __call__(self, event: LogEvent, /, **fields: object) -> None: ...


class Subscription(Generic[E]):
    """A callback and the events that wait for it."""

    def __init__(
        self,
        kind: type[E],
        callback: Callable[[E], object],
        most_waiting: int,
        log: CallbackLog,
        on_cancel: Callable[[Subscription[E]], None],
    ) -> None:
        self.missed = 0
        """How many events were dropped because too many waited."""
        self._kind = kind
        self._callback = callback
        self._most_waiting = most_waiting
        self._log = log
        self._on_cancel = on_cancel
        self._waiting: deque[E] = deque()
        self._dropping = False
        self._greenlet: object = None
        self._idle = Flag()
        self._idle.set()

    def cancel(self) -> None:
        """Stop calling the callback, even for events that wait."""
        self._waiting.clear()
        self._on_cancel(self)

    def put(self, event: Event) -> None:
        """Queue this event for the callback if it is of its kind; returns at once."""
        if not isinstance(event, self._kind):
            return
        if self._dropping or len(self._waiting) >= self._most_waiting:
            if not self._dropping:
                self._dropping = True
                self._log(LogEvent.CALLBACK_BEHIND, callback=self._name, waiting=len(self._waiting))
            self.missed += 1
            return
        self._waiting.append(event)
        if self._greenlet is None:
            self._idle.clear()
            # Set at once, so that the next event does not start a second greenlet.
            self._greenlet = gevent.spawn_raw(self._run)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until the callback has handled all events; returns at once when called by the callback."""
        return self._greenlet is gevent.getcurrent() or bool(self._idle.wait(seconds))

    @property
    def _name(self) -> str:
        return str(getattr(self._callback, "__qualname__", type(self._callback).__qualname__))

    def _run(self) -> None:
        waiting = self._waiting
        missed = self.missed
        try:
            while waiting:
                try:
                    self._callback(waiting.popleft())
                except (Exception, gevent.Timeout) as error:
                    trace = "".join(traceback.format_exception(error)).rstrip()
                    self._log(LogEvent.CALLBACK_FAILED, callback=self._name, error=trace)
                # Let the clients' greenlets run after each event.
                gevent.sleep(0)
        finally:
            self._dropping = False
            self._greenlet = None
            self._idle.set()
        if self.missed > missed:
            self._log(LogEvent.EVENTS_MISSED, callback=self._name, events=self.missed - missed)


# --- The program as an author ----------------------------------------------------------------------------------------

T = TypeVar("T")


class AtGates:
    """The greenlets of the program that wait until recipients can follow."""

    def __init__(self) -> None:
        self._waiting: set[Any] = set()

    def when_open(self, attempt: Callable[[], T | Busy], timeout: float | None) -> T:
        """Make an attempt, waiting at the gate that keeps it from succeeding, `timeout` seconds at most: then TimeoutError."""
        result = attempt()
        if not isinstance(result, Busy):
            return result
        error = TimeoutError("the room cannot follow")
        if timeout is not None and timeout <= 0:
            raise error
        with gevent.Timeout(timeout, error), self._here():
            while isinstance(result, Busy):
                # What has begun goes on; the rest has changed nothing yet.
                if result.go_on is not None:
                    attempt = cast(Callable[[], T | Busy], result.go_on)
                with result.gate.passage(self, _PROGRAM):
                    result = attempt()
        return result

    def until_passed(self, watcher: Any) -> None:
        """Wait until the watcher fires."""
        gevent.get_hub().wait(watcher)

    def end(self) -> None:
        """Have all of them fail: the server has stopped."""
        for waiting in list(self._waiting):
            gevent.kill(waiting, RuntimeError("the server has stopped"))

    @contextmanager
    def _here(self) -> Iterator[None]:
        waiting = gevent.getcurrent()
        self._waiting.add(waiting)
        try:
            yield
        finally:
            self._waiting.discard(waiting)
