"""The storage in a directory, in an SQLite database. Knows no event loop: functions are passed in that reach it.

The event loop's half queues what the writer writes. Jobs read in threads, each with its own connection, and see a
consistent state of the database while the writer writes.

Invariants:
- Everything that opening needs has been written before `load` returns: the database is marked as in use, and its ids fit the
  mark in the directory or a new epoch has begun.
- After an unclean end the ids of each room continue above those that were reserved.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from sys import getsizeof
from typing import Any, TypeVar

from geventchat.chat.events import DirectMessage, PastMessage, Said
from geventchat.chat.records import Act, KeptMessage, Record, Stored
from geventchat.chat.storage import StorageUnavailable
from geventchat.clock import Clock
from geventchat.log import Log, LogEvent
from geventchat.services.storage import schema
from geventchat.services.storage.backup import back_up
from geventchat.services.storage.directory import CannotOpenStorage, DataDirectory
from geventchat.services.storage.taken import Taken
from geventchat.services.storage.writer import (
    CHANGE_BYTES,
    ITEM_BYTES,
    Change,
    Delete,
    Forget,
    PutBack,
    State,
    Take,
    Writer,
)
from geventchat.settings import Limits

# A crash loses at most what was queued this long before it, and while one transaction was written.
GATHER_S = 0.1
_MESSAGE = ("id", "name", "text", "time_ms", "deleted")
_SELECT = f"SELECT {', '.join(_MESSAGE)} FROM messages WHERE room = ?"
_BEFORE = f"{_SELECT} AND id < ? ORDER BY id DESC LIMIT ?"
_AFTER = f"{_SELECT} AND id > ? ORDER BY id LIMIT ?"
_FIRST_BETWEEN = """
    SELECT min(id) AS first FROM (SELECT id FROM messages WHERE room = ? AND id > ? AND id < ? ORDER BY id DESC LIMIT ?)
"""
_MAIL = ("number", "sender_name", "recipient_name", "text", "time_ms")
_MAILBOX = f"""
    SELECT {", ".join(_MAIL)} FROM mail WHERE account = ? AND time_ms >= ? AND number > ? ORDER BY number LIMIT ?
"""
_ACT = ("number", "time_ms", "by", "action", "room", "target", "detail")
_ACTS = f"SELECT {', '.join(_ACT)} FROM audit ORDER BY number DESC LIMIT ?"

_BEGIN_RUN = "UPDATE state SET epoch = ?, run = ?, clean = 0, floor_id = ?, floor_reserved_id = ?"
# Errors of SQLite whose cause is not what the file contains.
_AROUND = ("disk is full", "disk I/O", "locked", "readonly", "unable to open", "no such function")

_Found = TypeVar("_Found")


class SqliteStorage:
    """The storage in a directory. chat/storage.py says what each method promises."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        clock: Clock,
        log: Log,
        call_in_loop: Callable[[Callable[[], object]], object],
        gather_s: float = GATHER_S,
        lock: int | None = None,
    ) -> None:
        """Open the directory, or raise CannotOpenStorage. `call_in_loop` can be called from any thread.

        With the `lock` of a process that this one takes over from, nothing is written before `begin`.
        """
        self._log = log
        self._call_in_loop = call_in_loop
        self._limits = limits
        self._clock = clock
        self._waiting = False
        self._when_ready: Callable[[], None] = _nothing
        self._taken = Taken()
        # Accounts with mail that has been put back and perhaps not been written yet.
        self._returned: set[str] = set()
        self._closed = False
        self._directory = DataDirectory(path, lock)
        try:
            connection, state, self._stored = self._open(taking_over=lock is not None)
        except BaseException as error:
            self._directory.close()
            refusal = self._refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        self._readers = _Readers(self._directory.database)
        self._writer = Writer(
            self._directory,
            connection,
            state,
            limits,
            clock,
            self._report,
            self._on_progress,
            gather_s,
        )
        self._put = self._writer.put
        if lock is None:
            self._writer.start()

    # --- In the event loop ---

    def load(self) -> Stored:
        """Everything that was kept."""
        stored, self._stored = self._stored, Stored("")
        return stored

    def append(self, room: str, said: Said) -> None:
        """Keep a room's next messages."""
        try:
            self._put(ITEM_BYTES + sum(map(getsizeof, said.texts)), room, said)
        except MemoryError:
            self._writer.unqueued += len(said.texts)

    def save(self, record: Record) -> None:
        """Keep a record, in place of the one with the same key or identity."""
        self._queue(record)

    def forget(self, record: Record) -> None:
        """Delete a record and what belongs to it."""
        self._queue(Forget(record))

    def delete(self, room: str, id: int) -> None:
        """Remove the text of a message."""
        self._queue(Delete(room, id))

    def audit(self, act: Act) -> None:
        """Add an act to the audit log."""
        self._queue(act)

    def _queue(self, change: Change) -> None:
        self._put(CHANGE_BYTES, None, change)

    @property
    def keeps_messages(self) -> bool:
        """True: more than the chat's logs hold."""
        return True

    def is_ready(self, room: str = "", last_id: int = 0) -> bool:
        """True when ids up to this one can be used in the room, and not too much waits to be written."""
        writer = self._writer
        if writer.behind_bytes < self._limits.behind_bytes and (
            writer.unbounded
            or last_id <= writer.reserved_ids.get(room, writer.floor_reserved_id)
            or not last_id
        ):
            return True
        self._waiting = True
        # Even if everything has been written by now, the writer then says so.
        writer.wake()
        return False

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Call this when `is_ready` was False and can have become True."""
        self._when_ready = callback

    @property
    def behind_bytes(self) -> int:
        """How much memory is held by what waits to be written."""
        return self._writer.behind_bytes

    @property
    def lag_s(self) -> float:
        """For how long what is being written has not been written; infinity when nothing is written any more."""
        return self._writer.lag_s

    @property
    def is_stopped(self) -> bool:
        """True while messages are not kept, because they cannot be written."""
        return self._writer.is_stopped

    @property
    def lost_messages(self) -> int:
        """How many messages could not be kept."""
        return self._writer.lost_messages

    def has_mail(self, account: str) -> bool:
        """False when the mailbox is certainly empty."""
        return account in self._writer.mail or account in self._returned

    def take(self, messages: Sequence[KeptMessage]) -> list[KeptMessage]:
        """Remove messages from their mailboxes; returns those that no other call has taken."""
        fresh = self._taken.add(messages)
        if fresh:
            self._queue(Take(tuple(fresh)))
            self._returned.difference_update(kept.account for kept in fresh)
        return fresh

    def put_back(self, messages: Sequence[KeptMessage]) -> None:
        """Put messages that were taken back into their mailboxes."""
        self._taken.remove(messages)
        self._returned.update(kept.account for kept in messages)
        self._queue(PutBack(tuple(messages)))

    # --- In a thread ---

    def before(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """The last messages with smaller ids, oldest first."""
        return self._messages(_BEFORE, room, id, limit)

    def after(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """The first messages with larger ids, oldest first."""
        return self._messages(_AFTER, room, id, limit)

    def _messages(self, query: str, room: str, id: int, limit: int) -> list[PastMessage]:
        number = self._number_of(room)
        if number is None:
            return []
        rows = self._read(_MESSAGE, query, (number, id, limit))
        return [
            PastMessage(id, name, "" if deleted else text, time_ms, bool(deleted))
            for id, name, text, time_ms, deleted in sorted(rows)
        ]

    def first_between(self, wanted: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
        """Of each room the id of the first of the last messages with ids between two, at most so many."""
        # Once for all of them: each time can take a commit.
        self._catch_up()
        found: dict[str, int] = {}
        for room, (after, before, limit) in wanted.items():
            number = self._writer.number_of(room)
            if number is not None:
                [[first]] = self._read(("first",), _FIRST_BETWEEN, (number, after, before, limit))
                if first is not None:
                    found[room] = int(first)
        return found

    def mailbox(self, account: str, after: int, limit: int) -> list[KeptMessage]:
        """The first messages that wait for an account and have larger numbers than this, oldest first."""
        self._catch_up()
        rows = self._read(_MAIL, _MAILBOX, (account, self._writer.oldest_ms(), after, limit))
        return [KeptMessage(number, account, DirectMessage(*message)) for number, *message in sorted(rows)]

    def keep(self, account: str, sender: str, message: DirectMessage) -> KeptMessage | None:
        """Put a direct message into a mailbox; None if it is full."""
        return self._writer.keep(account, sender, message)

    def acts(self, limit: int) -> list[Act]:
        """The latest acts of the audit log, oldest first."""
        self._catch_up()
        return [Act(*act) for _, *act in sorted(self._read(_ACT, _ACTS, (limit,)))]

    def back_up(self, target: Path) -> int:
        """Copy everything that is kept to a new file."""
        self._catch_up()
        return back_up(self._directory.database, target, lambda: self._closed)

    # --- When another process takes over ---

    @property
    def lock(self) -> int | None:
        """The descriptor of the lock, for the process that takes over."""
        return self._directory.lock

    def suspend(self) -> None:
        """Write everything that is queued, as at an orderly end, and then nothing more."""
        self._writer.suspend()

    def resume(self) -> None:
        """Go on writing. No id is used before the database says that it is in use, or that cannot be written."""
        # Its only reader is the message of a second server.
        with suppress(OSError):
            self._directory.take_over()
        self._writer.resume()

    def begin(self) -> None:
        """Begin a run of this process, and write."""
        self._directory.take_over()
        self._write_run()
        self._writer.start()

    def to_state(self) -> dict[str, Any]:
        """Nothing: the database has it."""
        return {}

    def take_state(self, state: dict[str, Any]) -> None:
        """Nothing: the database has it."""

    def close(self, within_s: float) -> bool:
        """Write everything that is queued and release the directory; False if that took too long."""
        self._closed = True
        complete = self._writer.close(within_s)
        self._readers.close()
        if not self._writer.is_running:
            self._directory.close()
        return complete

    def _number_of(self, room: str) -> int | None:
        """The number of a room, once everything that was queued has been written; None if the database has none of it."""
        self._catch_up()
        return self._writer.number_of(room)

    def limits_changed(self) -> None:
        """Have the thread apply the limits, which have other values now, to what is there."""
        self._writer.wake()

    def settle(self) -> None:
        """Wait until what was queued has been written, or dropped."""
        self._catch_up()

    def _catch_up(self) -> None:
        if self._closed:
            raise StorageUnavailable("the storage is closed")
        self._writer.catch_up()

    def _read(self, columns: Sequence[str], query: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._readers.read(lambda connection: schema.rows(connection, columns, query, values))
        except sqlite3.Error as error:
            if not self._closed:
                self._report(LogEvent.FAULT, error=f"reading {self._directory.database}: {error}")
            raise StorageUnavailable(f"the database cannot be read: {error}") from error

    # --- In the writer's thread ---

    def _report(self, event: LogEvent, /, **fields: object) -> None:
        self._call_in_loop(partial(self._log, event, **fields))

    def _on_progress(self) -> None:
        if self._waiting:
            self._waiting = False
            self._call_in_loop(self._call_when_ready)

    def _call_when_ready(self) -> None:
        self._when_ready()

    # --- Opening ---

    def _open(self, taking_over: bool) -> tuple[sqlite3.Connection, State, Stored]:
        connection = schema.connect(self._directory.database)
        try:
            [(mode,)] = connection.execute("PRAGMA journal_mode = WAL")
            if mode != "wal":
                raise CannotOpenStorage(
                    f"the file system of {self._directory.path} cannot hold a write-ahead log; "
                    "name a directory on a local disk"
                )
            schema.migrate(connection, int(self._clock.time() * 1000))
            if not taking_over:
                # Reads the whole database. The process that hands it over has used it until now.
                [(found,)] = connection.execute("PRAGMA quick_check(1)")
                if found != "ok":
                    raise schema.Damaged(str(found))
            state, stored, self._write_run = self._begin_run(connection)
            if not taking_over:
                self._write_run()
            return connection, state, stored
        except BaseException:
            connection.close()
            raise

    def _begin_run(self, connection: sqlite3.Connection) -> tuple[State, Stored, Callable[[], None]]:
        """Read everything; the last value reserves ids. Before that is on the disk, no id is used."""
        was = schema.read_state(connection)
        continuous = bool(was.epoch) and self._directory.fits(was.run, was.reservations)
        epoch = was.epoch if continuous else secrets.token_hex(8)
        floor_id = was.floor_id if was.clean else was.floor_reserved_id
        rooms, records = schema.read_rooms(connection, was.clean)
        mail, mail_of_senders = schema.read_mail(connection)
        [(room_acts,)] = connection.execute("SELECT count(*) FROM audit WHERE room <> ''")
        removed = [number for (number,) in connection.execute("SELECT room FROM removed")]
        accounts = tuple(schema.read_accounts(connection))
        latest_ms = schema.latest_ms(connection, records, accounts)
        restrictions = tuple(schema.read_restrictions(connection))
        stored = Stored(epoch, floor_id, tuple(records), accounts, restrictions, latest_ms)

        def write_run() -> None:
            run = self._directory.begin_run(was.reservations)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_BEGIN_RUN, (epoch, run, floor_id, floor_id + schema.AHEAD_IDS))
            if not was.clean:
                connection.execute("UPDATE counters SET last_id = reserved_id")
            connection.execute("UPDATE counters SET reserved_id = last_id + ?", (schema.AHEAD_IDS,))
            connection.execute("COMMIT")
            self._log(
                LogEvent.STORAGE_OPENED,
                directory=self._directory.path,
                rooms=len(rooms),
                accounts=len(stored.accounts),
                end="clean" if was.clean else "unclean",
                epoch="kept" if continuous else "new",
            )

        return (
            State(
                reservations=was.reservations,
                floor_id=floor_id,
                floor_reserved_id=floor_id + schema.AHEAD_IDS,
                rooms={room.key: room for room in rooms},
                next_number=max([0, *removed, *(room.number for room in rooms)]) + 1,
                removed=removed,
                mail=mail,
                mail_of_senders=mail_of_senders,
                room_acts=room_acts,
                latest_ms=latest_ms,
            ),
            stored,
            write_run,
        )

    def _refusal(self, error: BaseException) -> CannotOpenStorage | None:
        """The error that the operator is shown; None if this one is to be shown as it is."""
        database = self._directory.database
        match error:
            case CannotOpenStorage():
                return None
            case OSError():
                return CannotOpenStorage(self._directory.explanation(error))
            case schema.ForeignDatabase():
                return CannotOpenStorage(
                    f"{database} {error}; start the program that wrote it, or name another directory"
                )
            case sqlite3.Error() if any(text in str(error) for text in _AROUND):
                return CannotOpenStorage(
                    f"cannot use {database}: {error}; make sure that it can be written and that there is space, "
                    "or name another directory"
                )
            case sqlite3.Error() | schema.Damaged():
                return CannotOpenStorage(
                    f"{database} is damaged ({error}); put a copy of it into an empty directory and name that one, "
                    f"save what can be read with: sqlite3 {database} .recover, or move it away to start with nothing"
                )
        return None


class _Readers:
    """Connections for reading, one for each reader at the same time."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False

    def read(self, work: Callable[[sqlite3.Connection], _Found]) -> _Found:
        """Do this with a connection that no other thread uses."""
        if self._closed:
            raise StorageUnavailable("the storage is closed")
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = schema.connect(self._database, query_only=True)
        try:
            found = work(connection)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if self._closed:
            self.close()
        return found

    def close(self) -> None:
        """Close those that are idle; one that reads is closed when it has finished."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def _nothing() -> None:
    pass
