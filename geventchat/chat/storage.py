"""The interface of a storage, as the chat needs it. Knows no database and no threads.

A storage has two sides. The methods of the first are called in the event loop; they queue something or look something up
in memory, and never wait. The methods of the second are work that has to wait: the chat returns them as `Pending.job`, which
calls them in a thread, several at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from geventchat.chat.events import DirectMessage, PastMessage, Said
from geventchat.chat.records import Act, KeptMessage, Record, Stored

# The cost of a lookup in the storage, in bytes, for each room: the answer alone can be much shorter.
LOOKUP_BYTES = 1_024


class StorageUnavailable(Exception):
    """The storage cannot answer now, because its disk is full, broken or far too slow, or because it has been closed."""


class CannotBackUp(Exception):
    """There is no copy. The message says why."""


class Storage(Protocol):
    """Keeps the records of one chat.

    Everything that is queued is kept in the order in which it was queued, within a fraction of a second; a crash loses
    at most what was queued since. A text, a name or a key is any string that UTF-8 can encode.

    A storage that cannot write stops keeping messages, logs that once, and tries again until it can. Meanwhile the chat
    goes on: ids count on, and everything but messages is held in memory and kept afterwards.
    """

    # --- In the event loop: these never wait, and raise nothing but MemoryError; `append` not even that ---

    def load(self) -> Stored:
        """Everything that was kept. Called once, before anything else."""

    def append(self, room: str, said: Said) -> None:
        """Keep a room's next messages. The room has been saved, and `is_ready` was asked for their last id."""

    def save(self, record: Record) -> None:
        """Keep a record, in place of the one with the same key or identity.

        Of a room that is saved already, `last_id` is ignored: the storage knows it from the messages.
        """

    def forget(self, record: Record) -> None:
        """Delete a record: with a room its history, its bans and its mutes; with an account its mailbox.

        A room or an account that is saved later under the same key is a new one and inherits nothing.
        """

    def delete(self, room: str, id: int) -> None:
        """Remove the text of a message, also from the storage's files; its place stays, marked as deleted."""

    def audit(self, act: Act) -> None:
        """Add an act to the audit log."""

    @property
    def keeps_messages(self) -> bool:
        """False when messages are in the chat's own logs and nowhere else, so that there is nothing to read."""

    def is_ready(self, room: str = "", last_id: int = 0) -> bool:
        """True when messages up to `last_id` can be given their ids in this room, and the storage is not too far behind.

        Without a room: True when the storage is not too far behind. While it is False, commands that would queue
        something wait. After False, `when_ready`'s function is called as soon as the answer can have changed.
        """

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Call this in the event loop when `is_ready` was False and can have become True."""

    @property
    def behind_bytes(self) -> int:
        """How much memory is held by what is queued and has not been kept yet."""

    @property
    def lag_s(self) -> float:
        """For how long what is being written has not been written; infinity when nothing is written any more."""

    @property
    def is_stopped(self) -> bool:
        """True while messages are not kept, because they cannot be written."""

    @property
    def lost_messages(self) -> int:
        """How many messages could not be kept."""

    def has_mail(self, account: str) -> bool:
        """False when the mailbox is certainly empty, so that a login need not wait for `mailbox`."""

    def take(self, messages: Sequence[KeptMessage]) -> list[KeptMessage]:
        """Remove messages from their mailboxes; returns those that no other call has taken.

        Of two logins that read the same mailbox only one delivers them.
        """

    def put_back(self, messages: Sequence[KeptMessage]) -> None:
        """Put messages that were taken, and not delivered, back into their mailboxes."""

    # --- In a thread: these can block. Each raises StorageUnavailable when it cannot answer ---

    def before(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """The last messages of a room with smaller ids than this, at most this many, oldest first.

        This and `after` see everything that was queued before the call. Messages that a limit has removed, or that could
        not be kept, are missing.
        """

    def after(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """The first messages of a room with larger ids than this, at most this many, oldest first."""

    def first_between(self, wanted: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
        """Of each room the id of the first of the last messages with ids between two, at most so many.

        `wanted` has the two ids and the number by the key of the room. A room with no such message is left out.
        """

    def mailbox(self, account: str, after: int, limit: int) -> list[KeptMessage]:
        """The first messages that wait for an account and have larger numbers than this, at most this many, oldest first.

        They stay until they are taken or too old.
        """

    def keep(self, account: str, sender: str, message: DirectMessage) -> KeptMessage | None:
        """Put a direct message from one account into the mailbox of another; None if the mailbox is full.

        It has been kept when this returns. After StorageUnavailable it is unknown whether it is.
        """

    def limits_changed(self) -> None:
        """The limits have other values now. What is kept beyond them is deleted soon."""

    def settle(self) -> None:
        """Wait until everything that was queued before the call has been kept."""

    def acts(self, limit: int) -> list[Act]:
        """The latest acts of the audit log, at most this many, oldest first."""

    def back_up(self, target: Path) -> int:
        """Copy everything that is kept to a new file, verified and on the disk; returns its size in bytes.

        Raises CannotBackUp, and never touches a file that exists.
        """

    # --- When another process takes over: each blocks the event loop, on purpose ---

    def suspend(self) -> None:
        """Keep everything that is queued, and then nothing more. Raises StorageUnavailable; then nothing has changed.

        What is kept is then as after an orderly end, so that another process can `begin`.
        """

    def resume(self) -> None:
        """Go on after `suspend`, whether it raised or not: no other process has begun. Raises nothing."""

    def begin(self) -> None:
        """Begin to keep things, in a process that takes over. Nothing has been written before."""

    @property
    def lock(self) -> int | None:
        """A descriptor that keeps others away, to be handed over; None if there is none."""

    def to_state(self) -> dict[str, Any]:
        """The state that exists only in this process, to be handed over."""

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over what another process has kept."""

    def close(self, within_s: float) -> bool:
        """Keep everything that is queued and release what is open; False if that took too long. Called once, as the last."""
