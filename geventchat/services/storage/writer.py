"""The thread that writes to the database: it takes what the chat has queued, and writes it in few large transactions.

Knows no files but the mark, which the data directory keeps.

Invariants:
- Nothing waits for the thread but threads that ask it something. The event loop only appends to the queue.
- What is queued is written in order and completely, or not at all: a transaction holds whole items.
- An id is used only after it has been reserved, either by a transaction that is on the disk and then by the mark, or by the
  mark alone, which says that ids go on without reservations. `reserved_ids` and `floor_reserved_id` say how far that is;
  rooms that are not in the first share the second, and `unbounded` overrides both.
- `behind_bytes` is what has been queued and neither written nor dropped. It returns to 0.
- While nothing can be written, everything stays in `_changes` for the next attempt, but for messages and other changes beyond
  a bound: those are dropped and counted. No error is final, and none ends the thread.
"""

from __future__ import annotations

import json
import math
import select
import sqlite3
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar, cast

from geventchat.chat.events import DirectMessage, Said
from geventchat.chat.names import key_of
from geventchat.chat.records import AccountRecord, Act, KeptMessage, Record, Restriction, RoomRecord
from geventchat.chat.storage import StorageUnavailable
from geventchat.clock import Clock, SteadyTime
from geventchat.exhaustive import assert_never
from geventchat.log import LogEvent
from geventchat.services.storage import schema
from geventchat.services.storage.directory import DataDirectory
from geventchat.services.storage.mail_space import MailSpace
from geventchat.services.storage.schema import AHEAD_IDS, MAIL_BYTES, MAIL_ITEM_BYTES, Room
from geventchat.settings import Limits
from geventchat.worker import Worker

# With fewer reserved ids left, more are reserved.
_LEAST_IDS = AHEAD_IDS // 2
# Bytes of one item of the queue beside its texts, and of an item that is not a message.
ITEM_BYTES = 250
CHANGE_BYTES = 1_000
_MOST_ITEMS = 4_096
# How many it turns into rows before it lets the event loop have the interpreter.
_PIECE_ITEMS = 256
# The part of the time for gathering that is left when a job waits: jobs that ask all the time must not cost a commit each.
_HURRIED = 0.2
# Messages that one transaction removes, for each reason to remove some.
_MOST_REMOVED = 1_000
# Between attempts while nothing can be written; doubled each time that an attempt succeeds and the next write fails.
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0
_ANSWER_S = 10.0
_POLL_S = 0.25
_EXPIRY_S = 3_600.0
# Deleted text stays in the write-ahead log until that is truncated.
_SCRUB_S = 1.0
_SCRUB_BUSY_MS = 100
# The most that is held while nothing can be written: messages, and each kind of change without another bound.
_MOST_HELD_BYTES = 1_048_576
_MOST_HELD = 10_000
_MESSAGE_COLUMNS, _COUNTER_COLUMNS, _ACT_COLUMNS = 5, 5, 6

_AMONG = "IN (SELECT value FROM json_each(?))"
_ADD_MESSAGES = "INSERT OR IGNORE INTO messages (room, id, name, text, time_ms)"
_COUNT_MESSAGES = "SELECT count(*) FROM messages WHERE room = ?"
_SAVE_COUNTERS = "REPLACE INTO counters"
_SAVE_STATE = "UPDATE state SET reservations = ?, clean = ?, floor_id = ?, floor_reserved_id = ?"
_DELETE_TEXTS = """
    UPDATE messages SET text = '', deleted = 1
    WHERE (room, id) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""
_REMOVE_OLDEST = """
    DELETE FROM messages WHERE room = ? AND id <= coalesce(
        (SELECT id FROM messages WHERE room = ? ORDER BY id LIMIT 1 OFFSET ?), 9223372036854775807)
"""
_USED_BYTES = """
    SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""
_END_RESTRICTION = """
    DELETE FROM restrictions WHERE kind = ? AND room = ? AND name = ? AND account = ? AND network = ?
"""
_COUNT_MAIL = "SELECT count(*), coalesce(sum(sender = ?), 0) FROM mail WHERE account = ? AND time_ms >= ?"
_OLDEST_OF_SENDER = "number = (SELECT min(number) FROM mail WHERE sender = ?)"
_ADD_MAIL = """
    INSERT INTO mail (account, sender, sender_name, recipient_name, text, time_ms) VALUES (?, ?, ?, ?, ?, ?)
"""
_PUT_BACK = """
    INSERT OR IGNORE INTO mail (number, account, sender, sender_name, recipient_name, text, time_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_ADD_ACTS = "INSERT INTO audit (time_ms, by, action, room, target, detail)"
# First acts of deleted rooms, the oldest first; then acts that are followed by the most acts in the same room.
_REMOVE_ACTS = """
    DELETE FROM audit WHERE number IN (
        SELECT number FROM (
            SELECT number, room IN (SELECT key FROM rooms) AS stands,
                row_number() OVER (PARTITION BY room ORDER BY number DESC) AS place
            FROM audit WHERE room <> ''
        ) ORDER BY stands, stands * -place, number LIMIT ?)
"""

_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class State:
    """The state of all rooms and all mail in the database."""

    reservations: int
    floor_id: int
    floor_reserved_id: int
    rooms: dict[str, Room]
    next_number: int
    removed: list[int]
    mail: dict[str, int]
    mail_of_senders: dict[str, int]
    room_acts: int
    # The latest time in the database.
    latest_ms: float


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete a record."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the text of a message."""

    room: str
    id: int


@dataclass(frozen=True, slots=True)
class Take:
    """Remove messages from mailboxes."""

    messages: tuple[KeptMessage, ...]


@dataclass(frozen=True, slots=True)
class PutBack:
    """Put messages that were taken back into their mailboxes."""

    messages: tuple[KeptMessage, ...]


Change = Record | Forget | Delete | Take | PutBack | Act
# How much memory it holds; the room of a message, None for a change; the message or the change.
Item = tuple[int, str | None, Said | Change]


@dataclass(slots=True)
class _Changes:
    """The items that were taken from the queue and are not in the database yet."""

    messages: list[Any] = field(default_factory=list)
    # Rooms whose counters change, with the counters that the database has.
    counted: dict[Room, tuple[int, int]] = field(default_factory=dict)
    rooms: dict[Room, RoomRecord] = field(default_factory=dict)
    removed_rooms: set[Room] = field(default_factory=set)
    floor_id: int = 0
    floor_reserved_id: int = 0
    # Forgotten rooms and accounts, whose restrictions and mail go before new ones come.
    room_keys: set[str] = field(default_factory=set)
    account_keys: set[str] = field(default_factory=set)
    accounts: dict[str, AccountRecord | None] = field(default_factory=dict)
    restrictions: dict[tuple[str, ...], Restriction | None] = field(default_factory=dict)
    deleted: dict[tuple[int, int], None] = field(default_factory=dict)
    # Numbers of messages that have been taken, and messages that have been put back.
    taken: dict[int, None] = field(default_factory=dict)
    returned: dict[int, KeptMessage] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.counted
            or self.rooms
            or self.floor_id
            or self.room_keys
            or self.account_keys
            or self.accounts
            or self.restrictions
            or self.deleted
            or self.taken
            or self.returned
            or self.acts
        )

    def count(self, room: Room) -> None:
        """Note the counters of a room before they change for the first time."""
        if room not in self.counted:
            self.counted[room] = (room.messages, room.bytes)

    def drop_messages(self) -> int:
        """Drop the messages, and undo what they changed; returns how many there were."""
        dropped = len(self.messages) // _MESSAGE_COLUMNS
        self.messages.clear()
        for room, (messages, size) in self.counted.items():
            room.messages, room.bytes = messages, size
        return dropped

    def bound(self) -> int:
        """Drop the oldest of each kind of change that has no other bound; returns how many."""
        dropped = max(0, len(self.acts) - _MOST_HELD)
        del self.acts[:dropped]
        held: tuple[dict[Any, Any], ...] = (self.restrictions, self.deleted)
        for changes in held:
            for oldest in list(changes)[: max(0, len(changes) - _MOST_HELD)]:
                del changes[oldest]
                dropped += 1
        return dropped


@dataclass(frozen=True, slots=True)
class _Reserved:
    """The ids that a transaction reserves."""

    rooms: dict[Room, int]
    reservations: int
    floor_id: int
    floor_reserved_id: int


class _Question(Generic[_Answer]):
    """Something that another thread waits for. Without `work` it is answered when everything before it has been handled.

    The error is there until the work has been committed.
    """

    __slots__ = ("answer", "answered", "error", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], _Answer] | None) -> None:
        self.work = work
        self.answer: _Answer | None = None
        self.error = None if work is None else StorageUnavailable("the storage cannot write now")
        self.answered = threading.Event()


class Writer(Worker[Item]):
    """The thread and its queue. The module's docstring lists what it guarantees."""

    def __init__(
        self,
        directory: DataDirectory,
        connection: sqlite3.Connection,
        state: State,
        limits: Limits,
        clock: Clock,
        report: Callable[..., object],
        on_progress: Callable[[], object],
        gather_s: float,
    ) -> None:
        """`report` logs an event and `on_progress` says that something has been written; the thread calls both."""
        super().__init__("geventchat-storage", gather_s, gather_s * _HURRIED)
        self._directory = directory
        self._connection: sqlite3.Connection | None = connection
        self._limits = limits
        self._clock = clock
        self._steady_time = SteadyTime(clock, state.latest_ms / 1000)
        self._report = report
        self._on_progress = on_progress
        # `_queued_bytes` is changed only by the event loop, the others only by the thread.
        self._queued_bytes = 0
        self._handled_bytes = 0
        self.reserved_ids = {key: room.reserved_id for key, room in state.rooms.items()}
        self.floor_reserved_id = state.floor_reserved_id
        self.unbounded = False
        # Accounts with mail, and how much.
        self.mail = state.mail
        # Messages that the event loop could not queue for lack of memory, and how many of them have been reported.
        self.unqueued = self._reported_unqueued = 0
        self._questions: deque[_Question[Any]] = deque()
        self._items: list[Item] = []
        self._collected_bytes = 0
        self._held_bytes = 0
        self._changes = _Changes()
        self._rooms = state.rooms
        self._next_number = state.next_number
        # The values in the database; the mark follows them.
        self._reservations = self._marked = state.reservations
        self._floor_id = state.floor_id
        self._floor_reserved_id = state.floor_reserved_id
        self._unpublished: set[str] = set()
        # Work that is left for later transactions.
        self._removed = state.removed
        self._too_long: dict[Room, None] = {}
        self._check_size = True
        # The limits that were last compared with all rooms.
        self._compared: tuple[int, int] | None = None
        self._expire_at = clock.monotonic()
        self._room_acts = state.room_acts
        self._scrub = False
        self._scrub_at = clock.monotonic()
        # Includes the changes of the present transaction.
        self._mail_space = MailSpace(limits.mail_bytes, state.mail_of_senders)
        # Recipient, sender, messages and bytes that the present transaction adds or removes, and what else is noted once it
        # has been committed.
        self._mail_changes: list[tuple[str, str, int, int]] = []
        self._then: list[Callable[[], object]] = []
        # The counters that rooms have if it is not committed.
        self._untrimmed: dict[Room, tuple[int, int]] = {}
        self._stopped = False
        self._stopped_at = float("-inf")
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = 0.0
        self._left_reservations = False
        self._lost_messages = 0
        self._lost_changes = 0
        # All lost messages that were reported so far.
        self.lost_messages = 0
        # When the thread began its present work; None while it waits.
        self._busy_since: float | None = None
        # `_suspension`: the event loop has asked the thread to stop for a handover; changed by the event loop alone.
        # `_rests_for`: the one for which the thread has written everything; changed by the thread alone. Each is another
        # object, so that the thread stops for none that has failed or was given up.
        self._suspension: object = None
        self._rests_for: object = None
        # The database says that no ids are in use. A transaction that changes this begins a run.
        self._is_clean = False

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    # --- In the event loop ---

    def put(self, size: int, room: str | None, what: Said | Change) -> None:
        """Queue something that holds this much memory."""
        self._queue.append((size, room, what))
        self._queued_bytes += size
        self.wake()

    @property
    def behind_bytes(self) -> int:
        """How much memory is held by what is queued and has neither been written nor dropped."""
        return max(0, self._queued_bytes - self._handled_bytes)

    @property
    def lag_s(self) -> float:
        """For how long the thread has been writing what it writes now; infinity when it has ended."""
        if not self._thread.is_alive():
            # It has not been started, or has ended.
            return 0.0 if self._thread.ident is None else math.inf
        since = self._busy_since
        return 0.0 if since is None else max(0.0, self._clock.monotonic() - since)

    @property
    def is_stopped(self) -> bool:
        """True while nothing can be written."""
        return self._stopped

    def suspend(self) -> None:
        """Wait until everything is written, as at an orderly end, and stop the thread. Raises StorageUnavailable."""
        self._suspension = suspension = object()
        try:
            self._ask(_Question(partial(self._rest, suspension)))
        except StorageUnavailable:
            self._suspension = None
            raise

    def resume(self) -> None:
        """Let the thread continue, and wait until the database says that it is in use, or that cannot be written."""
        self._suspension = None
        # If it fails, each of the thread's attempts to write begins with it.
        with suppress(StorageUnavailable):
            self._ask(_Question(_nothing))

    def _rest(self, suspension: object, connection: sqlite3.Connection) -> None:
        # Takes effect at the end of this transaction, which is the last.
        self._rests_for = suspension

    @property
    def _rests(self) -> bool:
        return self._suspension is not None and self._rests_for is self._suspension

    # --- In other threads ---

    def number_of(self, key: str) -> int | None:
        """The number of a room in the database; None if it has none yet."""
        room = self._rooms.get(key)
        return room.number if room is not None and room.in_database else None

    def oldest_ms(self) -> int:
        """When the oldest mail was sent that is still delivered."""
        return int((self._steady_time() - self._limits.mail_s) * 1000)

    def keep(self, account: str, sender: str, message: DirectMessage) -> KeptMessage | None:
        """Put a message into a mailbox, and wait until it is there; None if the mailbox is full."""
        return self.ask(lambda connection: self._keep(connection, account, sender, message))

    def ask(self, work: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Do this in the next transaction, and wait until that has been committed."""
        return cast(_Answer, self._ask(_Question(work)))

    def catch_up(self) -> None:
        """Wait until everything that has been queued by now has been written or dropped."""
        if self.behind_bytes:
            self._ask(_Question(None))

    def _ask(self, question: _Question[Any]) -> Any:
        self._questions.append(question)
        self.hurry()
        left_s = _ANSWER_S
        while not question.answered.wait(_POLL_S):
            left_s -= _POLL_S
            if left_s <= 0:
                raise StorageUnavailable(f"the storage has not answered for {_ANSWER_S:g} seconds")
            if not self._thread.is_alive():
                raise StorageUnavailable("the storage is closed")
        if question.error is not None:
            raise question.error
        return question.answer

    # --- The thread ---

    def _run(self) -> None:
        starved = False
        while not self._abandoned:
            try:
                if starved:
                    # An event that is waited for would take more memory.
                    select.select((), (), (), _POLL_S)
                closing = self._wait(0 if starved else self._pause_s())
                starved = True
                self._busy_since = self._clock.monotonic()
                self._handle_queue(closing)
                self._busy_since = None
                starved = False
                if closing:
                    break
            except MemoryError:
                continue  # Its position is in `_items` and `_changes`.
            except Exception:
                # The item at fault must not stop those behind it.
                self._report(LogEvent.FAULT, error=traceback.format_exc())
                del self._items[:1]
        self._release()

    def _pause_s(self) -> float | None:
        """How long the thread can sleep without news; None for as long as there is none."""
        if self._stopped:
            return self._retry_s
        if self._scrub or self._left_reservations:
            return _SCRUB_S
        if self._removed or self._too_long or self._check_size:
            return 0
        return _EXPIRY_S if self.mail else None

    def _handle_queue(self, closing: bool) -> None:
        if self._rests:
            return
        # Before the queue, so that everything that was queued before a question has been handled when it is answered.
        questions = list(self._questions)
        if self._stopped and (closing or self._clock.monotonic() >= self._retry_at):
            self._collect()
            self._write([], clean=False)
        # Counted after an attempt that succeeded: the ids in the queue have been used without reservations. What comes in
        # from now on waits for the next time, so that this one ends.
        left = len(self._items) + len(self._queue)
        while left > 0:
            left -= self._collect()
            if left > 0:
                self._write_or_hold([], clean=False)
        self._write_or_hold(questions, clean=closing)
        self._report_lost()
        if self._left_reservations and not self._stopped:
            self._return_to_reservations()
        if self._scrub and not self._stopped:
            self._empty_log()
        for question in questions:
            self._questions.popleft()
            question.answered.set()
        if self._queue:
            self.wake()
        self._on_progress()

    def _release(self) -> None:
        for question in self._questions:
            question.error = StorageUnavailable("the storage is closed")
            question.answered.set()
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    # --- From the queue to `_changes` ---

    def _collect(self) -> int:
        """Take a bounded number of items out of the queue; returns how many."""
        if not self._items:
            self._items = self._take(_MOST_ITEMS)
        taken = len(self._items)
        while self._items:
            self._collect_piece()
            # Let the event loop have the interpreter, which it would otherwise get back after 5 ms.
            select.select((), (), (), 0)
        return taken

    def _collect_piece(self) -> None:
        changes, rooms = self._changes, self._rooms
        messages = changes.messages
        done = size = length = 0
        try:
            for held, key, what in self._items[:_PIECE_ITEMS]:
                length = len(messages)
                if key is None:
                    self._collect_change(cast(Change, what))
                elif (room := rooms.get(key)) is None:
                    self._lost_messages += len(cast(Said, what).texts)
                else:
                    said = cast(Said, what)
                    number, id, name, time_ms = room.number, said.first_id, said.name, said.time_ms
                    for text in said.texts:
                        messages += (number, id, name, text, time_ms)
                        id += 1
                    if room not in changes.counted:
                        changes.count(room)
                    room.last_id = id - 1
                    room.messages += len(said.texts)
                    room.bytes += held
                done += 1
                size += held
        except BaseException:
            del messages[length:]
            raise
        finally:
            del self._items[:done]
            self._collected_bytes += size

    def _collect_change(self, change: Change) -> None:
        changes = self._changes
        match change:
            case RoomRecord():
                self._save_room(change)
            case AccountRecord():
                changes.accounts[change.key] = change
            case Restriction():
                changes.restrictions[change.identity] = change
            case Forget(record):
                self._forget(record)
            case Delete(room, id):
                if room in self._rooms:
                    changes.deleted[self._rooms[room].number, id] = None
            case Take(messages):
                for message in messages:
                    if changes.returned.pop(message.number, None) is None:
                        changes.taken[message.number] = None
            case PutBack(messages):
                for message in messages:
                    if message.number in changes.taken:
                        del changes.taken[message.number]
                    else:
                        changes.returned[message.number] = message
            case Act():
                changes.acts.append(change)
            case _:
                assert_never(change)

    def _save_room(self, record: RoomRecord) -> None:
        room = self._rooms.get(record.key)
        if room is None:
            room = Room(self._next_number, record.key, record.last_id, in_database=False)
            self._next_number += 1
            self._rooms[record.key] = room
        self._changes.count(room)
        self._changes.rooms[room] = record

    def _forget(self, record: Record) -> None:
        changes = self._changes
        match record:
            case RoomRecord():
                self._forget_room(record)
            case AccountRecord():
                changes.accounts[record.key] = None
                changes.account_keys.add(record.key)
            case Restriction():
                changes.restrictions[record.identity] = None

    def _forget_room(self, record: RoomRecord) -> None:
        changes = self._changes
        for identity in [one for one in changes.restrictions if one[1] == record.key]:
            del changes.restrictions[identity]
        changes.room_keys.add(record.key)
        room = self._rooms.pop(record.key, None)
        if room is None:
            return
        self._unpublished.add(record.key)
        self._too_long.pop(room, None)
        changes.floor_id = max(changes.floor_id, room.last_id)
        changes.floor_reserved_id = max(changes.floor_reserved_id, room.reserved_id)
        changes.rooms.pop(room, None)
        changes.counted.pop(room, None)
        if room.in_database or room.messages:
            changes.removed_rooms.add(room)

    # --- From `_changes` to the database ---

    def _write_or_hold(self, questions: Sequence[_Question[Any]], clean: bool) -> None:
        if not self._stopped:
            self._write(questions, clean)
        if self._stopped:
            self._hold()
        self._handled_bytes += self._collected_bytes
        self._collected_bytes = 0

    def _write(self, questions: Sequence[_Question[Any]], clean: bool) -> None:
        """Write everything that has been collected in one transaction, or stop."""
        asked = [question for question in questions if question.work is not None]
        try:
            if self._connection is None:
                self._connection = schema.connect(self._directory.database)
            if self._changes or asked or clean or self._stopped or self._is_maintenance_due():
                self._transact(self._connection, asked, clean)
            self._publish()
        except Exception as error:
            self._roll_back()
            self._stop(error)
            if not isinstance(error, (sqlite3.OperationalError, OSError)):
                # One of the messages can be the cause.
                self._drop()
        else:
            for question in asked:
                question.error = None
            if self._stopped:
                self._resume()
            self._complete = clean

    def _transact(
        self, connection: sqlite3.Connection, questions: Sequence[_Question[Any]], clean: bool
    ) -> None:
        changes = self._changes
        connection.execute("BEGIN IMMEDIATE")
        self._write_removed_rooms(connection)
        rooms = [schema.room_row(room.number, record) for room, record in changes.rooms.items()]
        schema.insert(connection, schema.SAVE_ROOM, schema.ROOM_COLUMNS, _flat(rooms))
        self._write_messages(connection)
        self._write_accounts(connection)
        self._write_restrictions(connection)
        self._write_mail(connection)
        self._write_acts(connection)
        for question in questions:
            assert question.work is not None
            question.answer = question.work(connection)
        self._remove_beyond_limits(connection)
        clean = clean or self._rests
        if self._is_clean and not clean:
            self._begin_run(connection)
        reserved = self._reserve(connection, clean)
        connection.execute("COMMIT")
        self._is_clean = clean
        self._committed(reserved)

    def _begin_run(self, connection: sqlite3.Connection) -> None:
        # The process that failed to take over can have begun one.
        run = self._directory.begin_run(self._reservations)
        self._marked = self._reservations
        self._left_reservations = False
        connection.execute("UPDATE state SET run = ?", (run,))

    def _write_removed_rooms(self, connection: sqlite3.Connection) -> None:
        changes = self._changes
        if changes.removed_rooms:
            numbers = (json.dumps([room.number for room in changes.removed_rooms]),)
            connection.execute(f"DELETE FROM rooms WHERE number {_AMONG}", numbers)
            connection.execute(f"DELETE FROM counters WHERE room {_AMONG}", numbers)
            connection.execute("INSERT INTO removed SELECT value FROM json_each(?)", numbers)
        if changes.room_keys:
            keys = (json.dumps(list(changes.room_keys)),)
            connection.execute(f"DELETE FROM restrictions WHERE room {_AMONG}", keys)

    def _write_messages(self, connection: sqlite3.Connection) -> None:
        changes = self._changes
        kept = schema.insert(connection, _ADD_MESSAGES, _MESSAGE_COLUMNS, changes.messages)
        twice = len(changes.messages) // _MESSAGE_COLUMNS - kept
        if twice:
            # An id that was used twice must not cost the other messages of the transaction.
            self._then.append(partial(self._note_lost, twice))
            for room in changes.counted:
                self._untrimmed.setdefault(room, (room.messages, room.bytes))
                [(room.messages,)] = connection.execute(_COUNT_MESSAGES, (room.number,))
        if changes.deleted:
            connection.execute(_DELETE_TEXTS, (json.dumps(list(changes.deleted)),))

    def _write_accounts(self, connection: sqlite3.Connection) -> None:
        changes = self._changes
        if changes.account_keys:
            keys = (json.dumps(list(changes.account_keys)),)
            connection.execute(f"DELETE FROM accounts WHERE key {_AMONG}", keys)
            self._remove_mail(connection, f"account {_AMONG}", keys)
        rows = [schema.account_row(record) for record in changes.accounts.values() if record is not None]
        schema.insert(connection, schema.SAVE_ACCOUNT, schema.ACCOUNT_COLUMNS, _flat(rows))

    def _write_restrictions(self, connection: sqlite3.Connection) -> None:
        changes = self._changes.restrictions
        ended = [identity for identity, record in changes.items() if record is None]
        if ended:
            connection.executemany(_END_RESTRICTION, ended)
        rows = [schema.restriction_row(record) for record in changes.values() if record is not None]
        schema.insert(connection, schema.SAVE_RESTRICTION, schema.RESTRICTION_COLUMNS, _flat(rows))

    def _write_acts(self, connection: sqlite3.Connection) -> None:
        rows = [
            [act.time_ms, act.by, act.action, act.room, act.target, act.detail] for act in self._changes.acts
        ]
        schema.insert(connection, _ADD_ACTS, _ACT_COLUMNS, _flat(rows))

    def _reserve(self, connection: sqlite3.Connection, clean: bool) -> _Reserved:
        """Write the counters, with ids reserved ahead where too few are left; returns what is reserved then."""
        changes = self._changes
        floor_id = max(self._floor_id, changes.floor_id)
        floor_reserved_id = max(self._floor_reserved_id, changes.floor_reserved_id)
        if floor_reserved_id - floor_id < _LEAST_IDS:
            floor_reserved_id = floor_id + AHEAD_IDS
        reserved: dict[Room, int] = {}
        for room in changes.counted:
            # A new room, for which nothing is reserved, has used ids under the floor's reservation, or under that of its
            # predecessor: both end before this, since it begins above the floor.
            if room.reserved_id - room.last_id < _LEAST_IDS:
                reserved[room] = room.last_id + AHEAD_IDS
        counters = [
            [room.number, room.last_id, reserved.get(room, room.reserved_id), room.messages, room.bytes]
            for room in changes.counted
        ]
        schema.insert(connection, _SAVE_COUNTERS, _COUNTER_COLUMNS, _flat(counters))
        floors = (floor_id, floor_reserved_id)
        reservations = self._reservations
        if reserved or self._stopped or floors != (self._floor_id, self._floor_reserved_id):
            reservations = self._marked + 1
        if clean or self._is_clean or reservations != self._reservations:
            connection.execute(_SAVE_STATE, (reservations, clean, *floors))
        return _Reserved(reserved, reservations, *floors)

    def _committed(self, now: _Reserved) -> None:
        """Note what the database holds after a transaction."""
        changes, self._changes = self._changes, _Changes()
        self._held_bytes = 0
        self._untrimmed.clear()
        for room in changes.rooms:
            room.in_database = True
        for room, until in now.rooms.items():
            room.reserved_id = until
            self._unpublished.add(room.key)
        self._reservations = now.reservations
        self._floor_id, self._floor_reserved_id = now.floor_id, now.floor_reserved_id
        self._removed += [room.number for room in changes.removed_rooms]
        self._room_acts += sum(bool(act.room) for act in changes.acts)
        self._scrub = self._scrub or bool(changes.deleted)
        for account, _, messages, _ in self._mail_changes:
            self.mail[account] = self.mail.get(account, 0) + messages
            if not self.mail[account]:
                del self.mail[account]
        self._mail_changes.clear()
        for note in self._then:
            note()
        self._then.clear()

    def _publish(self) -> None:
        """Let the event loop use the ids that are reserved."""
        if self._marked != self._reservations:
            self._directory.reserve(self._reservations)
            self._marked = self._reservations
        for key in self._unpublished:
            room = self._rooms.get(key)
            if room is not None and room.in_database:
                self.reserved_ids[key] = room.reserved_id
            else:
                self.reserved_ids.pop(key, None)
        self._unpublished.clear()
        self.floor_reserved_id = self._floor_reserved_id

    # --- Mail ---

    def _keep(
        self, connection: sqlite3.Connection, account: str, sender: str, message: DirectMessage
    ) -> KeptMessage | None:
        limits = self._limits
        [(kept, from_sender)] = connection.execute(_COUNT_MAIL, (sender, account, self.oldest_ms()))
        size = _mail_size(message)
        if (
            kept >= limits.mail_per_account
            or from_sender >= limits.mail_per_sender
            or not self._make_way(connection, sender, size)
        ):
            return None
        row = (account, sender, message.sender, message.recipient, message.text, message.time_ms)
        number = connection.execute(_ADD_MAIL, row).lastrowid
        assert number is not None
        self._change_mail(account, sender, 1, size)
        return KeptMessage(number, account, message)

    def _make_way(self, connection: sqlite3.Connection, sender: str, size: int) -> bool:
        """Make room for a message of this sender; False if no other sender has to make way."""
        while not self._mail_space.has_room(size):
            largest = self._mail_space.makes_way(sender, size)
            if largest is None or not self._remove_mail(connection, _OLDEST_OF_SENDER, (largest,)):
                return False
        return True

    def _change_mail(self, account: str, sender: str, messages: int, size: int) -> None:
        self._mail_changes.append((account, sender, messages, size))
        self._mail_space.change(sender, size)

    def _write_mail(self, connection: sqlite3.Connection) -> None:
        if self._changes.taken:
            self._remove_mail(connection, f"number {_AMONG}", (json.dumps(list(self._changes.taken)),))
        for number, kept in self._changes.returned.items():
            message = kept.message
            sender = key_of(message.sender)
            row = (kept.account, sender, message.sender, message.recipient)
            added = connection.execute(_PUT_BACK, (number, *row, message.text, message.time_ms)).rowcount
            self._change_mail(kept.account, sender, added, added * _mail_size(message))
        if self._clock.monotonic() >= self._expire_at:
            expired = "number IN (SELECT number FROM mail WHERE time_ms < ? LIMIT ?)"
            removed = self._remove_mail(connection, expired, (self.oldest_ms(), _MOST_REMOVED))
            self._expire_at = self._clock.monotonic() + (_EXPIRY_S if removed < _MOST_REMOVED else 0)

    def _remove_mail(self, connection: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> int:
        query = f"SELECT number, account, sender, text FROM mail WHERE {where}"
        found = schema.rows(connection, ("number", "account", "sender", MAIL_BYTES), query, values)
        numbers = json.dumps([number for number, *_ in found])
        connection.execute(f"DELETE FROM mail WHERE number {_AMONG}", (numbers,))
        for _, account, sender, size in found:
            self._change_mail(account, sender, -1, -size)
        return len(found)

    # --- Limits ---

    def _is_maintenance_due(self) -> bool:
        return bool(
            self._removed
            or self._too_long
            or self._check_size
            or self._compared != self._limits_of_rooms
            or self._room_acts > self._limits.room_acts
            or (self.mail and self._clock.monotonic() >= self._expire_at)
        )

    @property
    def _limits_of_rooms(self) -> tuple[int, int]:
        return self._limits.stored_messages, self._limits.stored_bytes

    def _remove_beyond_limits(self, connection: sqlite3.Connection) -> None:
        """Remove some of the rows beyond each limit; the rest waits for the next transaction."""
        written = len(self._changes.messages) // _MESSAGE_COLUMNS
        most = max(_MOST_REMOVED, 2 * written)
        most_messages, most_bytes = limits = self._limits_of_rooms
        if self._removed:
            number = self._removed[0]
            if connection.execute(_REMOVE_OLDEST, (number, number, most - 1)).rowcount < most:
                connection.execute("DELETE FROM removed WHERE room = ?", (number,))
                self._then.append(partial(self._note_removed, number))
        compared: Iterable[Room] = self._changes.counted
        if limits != self._compared:
            # They are new, so that rooms without new messages can be beyond them too.
            compared, self._compared, self._check_size = self._rooms.values(), limits, True
        for room in compared:
            if room.messages > most_messages:
                self._too_long[room] = None
        left = most
        for room in list(self._too_long):
            excess = room.messages - most_messages
            if excess > 0 and left > 0:
                # Some more, so that this is not done again for each message.
                left -= self._remove_oldest(connection, room, min(left, excess + most_messages // 100))
            if room.messages <= most_messages:
                del self._too_long[room]
        if self._check_size or written:
            [(used,)] = connection.execute(_USED_BYTES)
            self._check_size = used > most_bytes and self._remove_of_largest(connection, most)
        late = self._room_acts - self._limits.room_acts
        if late > 0:
            # Some more, as above.
            removed = connection.execute(_REMOVE_ACTS, (late + self._limits.room_acts // 20,)).rowcount
            self._then.append(partial(self._note_acts, removed))

    def _note_removed(self, number: int) -> None:
        self._removed.remove(number)
        self._scrub = True

    def _note_lost(self, messages: int) -> None:
        self._lost_messages += messages

    def _note_acts(self, removed: int) -> None:
        self._room_acts -= removed

    def _remove_of_largest(self, connection: sqlite3.Connection, most: int) -> bool:
        """Remove the oldest messages of the largest room; False if there are none in any room."""
        largest = max(self._rooms.values(), key=lambda room: room.bytes, default=None)
        return largest is not None and self._remove_oldest(connection, largest, most) > 0

    def _remove_oldest(self, connection: sqlite3.Connection, room: Room, most: int) -> int:
        self._changes.count(room)
        self._untrimmed.setdefault(room, (room.messages, room.bytes))
        number = room.number
        removed = connection.execute(_REMOVE_OLDEST, (number, number, most - 1)).rowcount
        # With fewer than that, none is left, whatever the counter says.
        left = max(0, room.messages - removed) if removed == most else 0
        room.bytes = room.bytes * left // max(1, room.messages)
        room.messages = left
        return removed

    def _empty_log(self) -> None:
        """Move what is in the write-ahead log into the database, and cut the log to nothing."""
        if self._connection is None or self._clock.monotonic() < self._scrub_at:
            return
        self._scrub_at = self._clock.monotonic() + _SCRUB_S
        # After an error, or while something reads, it is done again.
        with suppress(sqlite3.Error):
            self._connection.execute(f"PRAGMA busy_timeout = {_SCRUB_BUSY_MS}")
            [(busy, _, _)] = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._scrub = bool(busy)
            self._connection.execute(f"PRAGMA busy_timeout = {int(schema.BUSY_S * 1000)}")

    # --- When nothing can be written ---

    def _stop(self, error: Exception) -> None:
        now = self._clock.monotonic()
        unmarked: dict[str, object] = {}
        if not self._left_reservations:
            try:
                self._directory.leave_reservations()
                self._left_reservations = True
            except OSError as failed:
                # Each room goes on until the ids that it has reserved are used up.
                unmarked = {"mark": failed.strerror}
        self.unbounded = self._left_reservations
        if not self._stopped:
            self._stopped = True
            soon = now - self._stopped_at < _LAST_RETRY_S
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S) if soon else _FIRST_RETRY_S
            self._report(
                LogEvent.HISTORY_STOPPED, directory=self._directory.path, error=str(error), **unmarked
            )
        self._stopped_at = now
        self._retry_at = now + self._retry_s

    def _resume(self) -> None:
        self._stopped = False
        # The next transaction reserves ids beyond those that have been used by now.
        self.unbounded = False
        self._report(LogEvent.HISTORY_RESUMED, directory=self._directory.path)

    def _return_to_reservations(self) -> None:
        # Until this succeeds, a crash begins a new epoch.
        with suppress(OSError):
            self._directory.keep_reservations()
            self._left_reservations = False

    def _hold(self) -> None:
        """Keep what has been collected for the next attempt, within bounds."""
        self._held_bytes += self._collected_bytes
        if self._held_bytes > _MOST_HELD_BYTES:
            self._drop()
        self._lost_changes += self._changes.bound()

    def _drop(self) -> None:
        self._lost_messages += self._changes.drop_messages()
        self._held_bytes = 0

    def _report_lost(self) -> None:
        unqueued = self.unqueued - self._reported_unqueued
        if self._stopped or not (self._lost_messages or self._lost_changes or unqueued):
            return
        self._reported_unqueued += unqueued
        self._lost_messages += unqueued
        self.lost_messages += self._lost_messages
        self._report(LogEvent.HISTORY_LOST, messages=self._lost_messages, changes=self._lost_changes)
        self._lost_messages = self._lost_changes = 0

    def _roll_back(self) -> None:
        self._rests_for = None
        for _, sender, _, size in self._mail_changes:
            self._mail_space.change(sender, -size)
        self._mail_changes.clear()
        self._then.clear()
        for room, (messages, size) in self._untrimmed.items():
            room.messages, room.bytes = messages, size
        self._untrimmed.clear()
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection = None
            connection.close()


def _nothing(connection: sqlite3.Connection) -> None:
    pass


def _mail_size(message: DirectMessage) -> int:
    return len(message.text.encode()) + MAIL_ITEM_BYTES


def _flat(rows: Iterable[list[Any]]) -> list[Any]:
    return [value for row in rows for value in row]
