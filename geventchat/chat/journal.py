"""What is told of each change that has to outlive the server, and of each act. Pure values and an interface.

Whoever keeps records implements `Journal`. It never waits, and is told of a change after it has happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from geventchat.chat.bans import Ban
from geventchat.chat.events import Action
from geventchat.chat.rooms import Room


@dataclass(frozen=True, slots=True)
class RoomRecord:
    """A room with everything that outlives the people in it. An owner without an account does not."""

    key: str
    name: str
    topic: str
    private: bool
    room_key: str
    moderated: bool
    # The key of the owner's account; empty if there is none.
    owner: str
    moderators: Mapping[str, str]
    voices: Mapping[str, str]


Record = RoomRecord | Ban


@dataclass(frozen=True, slots=True)
class Act:
    """What someone did by virtue of a role."""

    time_ms: int
    action: Action
    by: str
    # The key of the account of whoever did it; empty if there is none.
    account: str
    room: str
    subject: str
    detail: str = ""


class Journal(Protocol):
    """Keeps records."""

    def save(self, record: Record) -> None:
        """Keep this record in place of the one with the same key or label."""

    def forget(self, record: Record) -> None:
        """This record is no longer true. A room takes its bans and mutes with it."""

    def audit(self, act: Act) -> None:
        """Note an act for whoever looks into it later."""


class NoJournal:
    """Keeps nothing: what it is told of ends with the process."""

    def save(self, record: Record) -> None:
        """Nothing."""

    def forget(self, record: Record) -> None:
        """Nothing."""

    def audit(self, act: Act) -> None:
        """Nothing."""


def record_of(room: Room) -> RoomRecord:
    """The room as it is now."""
    owner = None if room.owner is None else room.owner.account
    return RoomRecord(
        room.key,
        room.name,
        room.topic,
        room.private,
        room.room_key,
        room.moderated,
        "" if owner is None else owner.key,
        dict(room.moderators),
        dict(room.voices),
    )
