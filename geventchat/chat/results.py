"""The results of a command: handled, refused, to be closed, or to be continued. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from geventchat.chat.commands import ParseError
from geventchat.chat.events import Rejected, Rejection
from geventchat.chat.rooms import Gate
from geventchat.chat.sessions import Session

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """The command has been handled."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The client asked to leave and has left the chat; close its connection."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The recipients cannot take more now: go on in a passage of the gate.

    There, call `go_on`, or without one handle the same command again.
    """

    gate: Gate
    go_on: Callable[[], Result[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Pending(Generic[T]):
    """Work that has to wait, to be done outside the chat.

    The client's greenlet runs `job`, which can block only that greenlet. `finish` is called with the
    result, back in the chat, and checks again what can have changed meanwhile. If the client is gone by then,
    `finish` is not called.
    """

    job: Callable[[], T]
    finish: Callable[[T], Result[Any]]


@dataclass(frozen=True, slots=True)
class More:
    """A part of the command has been handled. Once its answers are sent and other greenlets have run, `go_on` does the next."""

    go_on: Callable[[], Result[Any]]


Result = Done | Leave | Busy | Pending[T] | More

# They hold nothing, so one of each is enough.
DONE = Done()
LEAVE = Leave()


def reject(session: Session, reason: Rejection | ParseError, subject: str = "", room: str = "") -> Done:
    """Refuse a command."""
    session.subscriber.deliver(Rejected(reason, subject, room))
    return DONE


def reject_room(session: Session, reason: Rejection, typed: str) -> Done:
    """Refuse a command because of the room that it is about."""
    meant = "" if session.meant is None else session.meant.name
    return reject(session, reason, typed or meant, typed)
