"""The records that a storage keeps, as values. Does not know how or where they are kept.

People are written as the keys of their accounts, and rooms as the keys of their names, unless a field says otherwise. Times
are milliseconds since 1970.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from geventchat.chat.events import DirectMessage


@dataclass(frozen=True, slots=True)
class RoomRecord:
    """A room and its settings. `name` is as it is shown; each invitation has its end, in any order.

    `last_id` is the id of its latest message. For a new room it is the id above which its own ids begin.
    """

    key: str
    name: str
    owner: str = ""
    moderators: frozenset[str] = frozenset()
    voiced: frozenset[str] = frozenset()
    invited: tuple[tuple[str, int], ...] = ()
    topic: str = ""
    private: bool = False
    entry_key: str = ""
    moderated: bool = False
    last_id: int = 0
    empty_since_ms: int | None = None
    last_used_ms: int = 0


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """A reserved name. `name` is as it is shown; the hashes are text that only their maker understands.

    `ignored` are the accounts that this one ignores, in any order. `origins` are the addresses that have logged in to the
    account, as they are counted for limits, the latest last.
    """

    key: str
    name: str
    password_hash: str
    token_hashes: tuple[str, ...] = ()
    created_ms: int = 0
    last_login_ms: int = 0
    ignored: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class RestrictionKind(Enum):
    """The kind of a restriction."""

    BAN = "ban"
    MUTE = "mute"


@dataclass(frozen=True, slots=True)
class Restriction:
    """A ban or a mute in a room, or on the whole server if `room` is empty.

    It applies to the person with this name key, to this account, and to this address or CIDR range; each can be empty.
    `shown` is the person or range as lists show it. Two restrictions with the same `identity` are the same one.
    """

    kind: RestrictionKind
    room: str
    name: str
    account: str
    network: str
    shown: str
    until_ms: int | None
    reason: str
    by: str
    time_ms: int

    @property
    def identity(self) -> tuple[str, str, str, str, str]:
        """The target that it applies to."""
        return (self.kind.value, self.room, self.name, self.account, self.network)


Record = RoomRecord | AccountRecord | Restriction


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A direct message that waits in the mailbox of an account. Numbers grow and are never used twice."""

    number: int
    account: str
    message: DirectMessage


@dataclass(frozen=True, slots=True)
class Act:
    """An act of moderation or administration, for the audit log. `room` is empty if it concerns the whole server.

    `by` and `target` are as they are shown; `action` is the word of the command. The target of a deletion is the id of the
    message, and its detail the author.
    """

    time_ms: int
    by: str
    action: str
    room: str
    target: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything that the chat keeps in memory, as it was at the start.

    The epoch stays the same for as long as ids are continuous: within one epoch, no id of a room is used twice. The ids
    of a new room begin above `floor_id` and above the last id of every room that has been deleted since.

    `latest_ms` is the latest time in the storage. At the start nothing is older than it was then, whatever the clock says.
    """

    epoch: str
    floor_id: int = 0
    rooms: tuple[RoomRecord, ...] = ()
    accounts: tuple[AccountRecord, ...] = ()
    restrictions: tuple[Restriction, ...] = ()
    latest_ms: float = math.inf
