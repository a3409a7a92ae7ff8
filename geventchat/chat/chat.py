"""Commands in, events out. Decides which commands are allowed, and the one order of all events.

Knows no bytes, no sockets and no event loop. It never waits: work that has to wait is returned as `Pending`.

Invariants:
- `_sessions` holds every session that is logged in, by the key of its name, in login order.
- A session with a name is in `_sessions` and in the lobby; one without is in neither.
- A command that returns `Busy` has changed nothing and can be handled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from geventchat.chat.commands import (
    Command,
    Help,
    InvalidCommand,
    Login,
    ParseError,
    Ping,
    Quit,
    Say,
    SendDirectMessage,
    Who,
)
from geventchat.chat.events import (
    DirectMessage,
    DirectMessageSent,
    Goodbye,
    HelpText,
    Message,
    Pong,
    Rejected,
    Rejection,
    Roster,
    Welcome,
)
from geventchat.chat.names import RESERVED_NAMES, InvalidName, Name, key_of, parse_name
from geventchat.chat.rooms import Gate, GateFactory, Room, Subscriber
from geventchat.exhaustive import assert_never

LOBBY = "lobby"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """The command has been handled."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The client asked to leave and has left the chat; close its connection."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The recipients cannot take more now: handle the same command again in a passage of the gate."""

    gate: Gate


@dataclass(frozen=True, slots=True)
class Pending(Generic[T]):
    """Work that has to wait, to be done outside the chat.

    The client's greenlet runs `job`, which can block only that greenlet. `finish` is called with the
    result, back in the chat, and checks again what can have changed meanwhile. If the client is gone by then,
    `finish` is not called.
    """

    job: Callable[[], T]
    finish: Callable[[T], Result[Any]]


Result = Done | Leave | Busy | Pending[T]

# They hold nothing, so one of each is enough.
DONE = Done()
LEAVE = Leave()
# Parse errors that are reported before login, too.
_ALWAYS_REPORTED = frozenset({ParseError.TOO_LONG, ParseError.NOT_UTF8, ParseError.NOT_JSON})


class Session:
    """One client in the chat."""

    __slots__ = ("contacts", "name", "subscriber")

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.name: Name | None = None
        # The keys of the people this client has written to, the latest last.
        self.contacts: dict[str, None] | None = None


class Chat:
    """The lobby and everyone in it."""

    def __init__(
        self,
        time: Callable[[], float],
        *,
        new_gate: GateFactory,
        max_contacts: int,
        reserved_names: Iterable[str] = RESERVED_NAMES,
        observer: Callable[[Message], None] | None = None,
    ) -> None:
        """Take the time from `time`, in seconds since 1970, and the gates of rooms from `new_gate`.

        `max_contacts` is the number of recipients remembered per client. No client can log in with one of the
        `reserved_names`. `observer` sees every message and must not block.
        """
        self.lobby = Room(LOBBY, new_gate)
        self._sessions: dict[str, Session] = {}
        self._reserved = frozenset(map(key_of, reserved_names))
        self._time = time
        self._max_contacts = max_contacts
        self._observer = observer

    def __len__(self) -> int:
        return len(self._sessions)

    def handle(self, session: Session, command: Command) -> Result[object]:
        """Handle a command. The only entry point for commands."""
        name = session.name
        if name is None:
            return self._handle_before_login(session, command)
        match command:
            case Say(texts):
                return self._say(session, name, texts)
            case SendDirectMessage(to, text):
                return self._send_direct(session, name, to, text)
            case Ping(token):
                session.subscriber.deliver(Pong(token))
            case Who():
                session.subscriber.deliver(Roster(self.lobby.names))
            case Help():
                session.subscriber.deliver(HelpText())
            case InvalidCommand(error, subject):
                session.subscriber.deliver(Rejected(error, subject))
            case Login():
                return _reject(session, Rejection.ALREADY_LOGGED_IN)
            case Quit():
                session.subscriber.deliver(Goodbye())
                self.leave(session)
                return LEAVE
            case _:
                assert_never(command)
        return DONE

    def leave(self, session: Session) -> None:
        """Remove a client: its name is free at once, and the others are notified once.

        Thousands can leave at the same moment. Notices that the others cannot take wait for `announce_departures`.
        """
        name = session.name
        if name is not None:
            session.name = None
            del self._sessions[name.key]
            self.lobby.leave(name, session.subscriber, self._now_ms())

    def announce_departures(self) -> Gate | None:
        """Announce pending departures; returns the gate that has to admit the caller before the rest, or None."""
        return None if self.lobby.announce_departures() else self.lobby.gate

    def close(self, session: Session) -> None:
        """Remove a client without a notice: the server is stopping, and the others are about to leave too."""
        name = session.name
        if name is not None:
            session.name = None
            del self._sessions[name.key]
            self.lobby.remove(name, session.subscriber)

    def _handle_before_login(self, session: Session, command: Command) -> Result[object]:
        match command:
            case Login(typed):
                return self._login(session, typed)
            case Quit():
                session.subscriber.deliver(Goodbye())
                return LEAVE
            case InvalidCommand(error, subject) if error in _ALWAYS_REPORTED:
                return _reject(session, error, subject)
            case _:
                return _reject(session, Rejection.NOT_LOGGED_IN)

    def _login(self, session: Session, typed: str) -> Result[object]:
        try:
            name = parse_name(typed, self._reserved)
        except InvalidName as invalid:
            return _reject(session, invalid.reason)
        if name.key in self._sessions:
            return _reject(session, Rejection.NAME_TAKEN)
        if not self.lobby.gate.is_open():
            return Busy(self.lobby.gate)
        session.name = name
        self._sessions[name.key] = session
        now_ms = self._now_ms()
        self.lobby.enter(name, session.subscriber, now_ms)
        session.subscriber.deliver(Welcome(LOBBY, name.shown, self.lobby.names, now_ms))
        return DONE

    def _say(self, session: Session, name: Name, texts: Sequence[str]) -> Result[object]:
        if not all(texts):
            return _reject(session, Rejection.EMPTY_MESSAGE)
        if not self.lobby.gate.is_open():
            return Busy(self.lobby.gate)
        said = self.lobby.say(name, texts, session.subscriber, self._now_ms())
        if self._observer is not None:
            self._observer(said)
        return DONE

    def _send_direct(self, session: Session, name: Name, to: str, text: str) -> Result[object]:
        if not text:
            return _reject(session, Rejection.EMPTY_DIRECT_MESSAGE)
        if not to:
            return _reject(session, Rejection.NO_RECIPIENT)
        recipient = self._sessions.get(key_of(to))
        if recipient is None or recipient.name is None:
            return _reject(session, Rejection.USER_NOT_FOUND, to)
        stranger = recipient is not session and name.key not in (recipient.contacts or ())
        gate = recipient.subscriber.direct_gate(stranger)
        if not gate.is_open():
            return Busy(gate)
        self._remember(session, recipient.name)
        message = DirectMessage(name.shown, recipient.name.shown, text, self._now_ms())
        session.subscriber.deliver(DirectMessageSent(message, to))
        recipient.subscriber.deliver_direct(message, stranger)
        if self._observer is not None:
            self._observer(message)
        return DONE

    def _remember(self, session: Session, contact: Name) -> None:
        contacts = session.contacts = session.contacts or {}
        contacts.pop(contact.key, None)
        contacts[contact.key] = None
        if len(contacts) > self._max_contacts:
            del contacts[next(iter(contacts))]

    def _now_ms(self) -> int:
        return int(self._time() * 1000)


def _reject(session: Session, reason: Rejection | ParseError, subject: str = "") -> Done:
    session.subscriber.deliver(Rejected(reason, subject))
    return DONE
