"""The tables of the database, how they have changed, and records as their rows. Knows no threads.

Messages are in the order in which they were sent, whatever their room. So pages are filled one after the other and never
split: splitting moves rows to another page, and leaves copies of their texts behind that no later deletion finds.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from geventchat.chat.records import AccountRecord, Restriction, RestrictionKind, RoomRecord

# Each entry is the step from the version before to the next one. Entries are never changed, only added. `:now_ms` is the time.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # One row. `run` and `reservations` have to fit the mark in the directory.
        """
        CREATE TABLE state (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            epoch TEXT NOT NULL,
            run TEXT NOT NULL,
            reservations INTEGER NOT NULL,
            clean INTEGER NOT NULL,
            floor_id INTEGER NOT NULL,
            floor_reserved_id INTEGER NOT NULL
        )
        """,
        "INSERT INTO state VALUES (1, '', '', 0, 1, 0, 0)",
        """
        CREATE TABLE rooms (
            number INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            owner TEXT NOT NULL,
            moderators TEXT NOT NULL,
            voiced TEXT NOT NULL,
            invited TEXT NOT NULL,
            topic TEXT NOT NULL,
            private INTEGER NOT NULL,
            entry_key TEXT NOT NULL,
            moderated INTEGER NOT NULL,
            empty_since_ms INTEGER,
            last_used_ms INTEGER NOT NULL
        )
        """,
        # One row per room; `bytes` is about the memory that its messages take.
        """
        CREATE TABLE counters (
            room INTEGER PRIMARY KEY,
            last_id INTEGER NOT NULL,
            reserved_id INTEGER NOT NULL,
            messages INTEGER NOT NULL,
            bytes INTEGER NOT NULL
        )
        """,
        # Rooms that are gone, and whose messages are being removed.
        "CREATE TABLE removed (room INTEGER PRIMARY KEY)",
        """
        CREATE TABLE messages (
            number INTEGER PRIMARY KEY,
            room INTEGER NOT NULL,
            id INTEGER NOT NULL,
            name TEXT NOT NULL,
            text TEXT NOT NULL,
            time_ms INTEGER NOT NULL,
            deleted INTEGER NOT NULL DEFAULT 0
        )
        """,
        "CREATE UNIQUE INDEX messages_of_room ON messages (room, id)",
        """
        CREATE TABLE accounts (
            key TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            password_hash TEXT NOT NULL,
            token_hashes TEXT NOT NULL,
            created_ms INTEGER NOT NULL,
            last_login_ms INTEGER NOT NULL,
            ignored TEXT NOT NULL,
            origins TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE restrictions (
            kind TEXT NOT NULL,
            room TEXT NOT NULL,
            name TEXT NOT NULL,
            account TEXT NOT NULL,
            network TEXT NOT NULL,
            shown TEXT NOT NULL,
            until_ms INTEGER,
            reason TEXT NOT NULL,
            by TEXT NOT NULL,
            time_ms INTEGER NOT NULL,
            PRIMARY KEY (kind, room, name, account, network)
        )
        """,
        "CREATE INDEX restrictions_of_room ON restrictions (room)",
        # AUTOINCREMENT: a number is never used twice.
        """
        CREATE TABLE mail (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            account TEXT NOT NULL,
            sender TEXT NOT NULL,
            sender_name TEXT NOT NULL,
            recipient_name TEXT NOT NULL,
            text TEXT NOT NULL,
            time_ms INTEGER NOT NULL
        )
        """,
        "CREATE INDEX mail_of_account ON mail (account)",
        "CREATE INDEX mail_by_time ON mail (time_ms)",
        """
        CREATE TABLE audit (
            number INTEGER PRIMARY KEY,
            time_ms INTEGER NOT NULL,
            by TEXT NOT NULL,
            action TEXT NOT NULL,
            room TEXT NOT NULL,
            target TEXT NOT NULL,
            detail TEXT NOT NULL
        )
        """,
        "CREATE INDEX audit_of_rooms ON audit (number) WHERE room <> ''",
    ),
    ("CREATE INDEX mail_of_sender ON mail (sender)",),
    (
        # Invitations have got an end: those that had none are good for seven days from now on.
        """
        UPDATE rooms SET invited = (
            SELECT json_group_array(json_array(value, :now_ms + 604800000)) FROM json_each(rooms.invited)
        )
        """,
    ),
)

_VERSION = "CREATE TABLE migrations (version INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL)"

# The write-ahead log is cut to this after it has grown, by a large transaction or while a reader was slow.
_WAL_BYTES = 16_777_216
BUSY_S = 5.0
# Rows in one statement, largest first. The interpreter is free for the event loop while a statement runs, and has to be won
# back after each, which can take milliseconds in a busy server. So many rows are inserted by few statements.
_ROWS_AT_ONCE = (512, 128, 32, 8, 2, 1)

_LATEST = "SELECT time_ms FROM {table} ORDER BY number DESC LIMIT 1"

# How many ids are reserved ahead of those in use.
AHEAD_IDS = 65_536
# The size of a kept message, with its overhead.
MAIL_ITEM_BYTES = 200
MAIL_BYTES = f"length(CAST(text AS BLOB)) + {MAIL_ITEM_BYTES}"


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of the run that wrote the database last."""

    epoch: str
    run: str
    reservations: int
    clean: bool
    floor_id: int
    floor_reserved_id: int


@dataclass(slots=True, eq=False)
class Room:
    """A room as the thread knows it. `bytes` is about the memory of its messages, and decides which room is the largest."""

    number: int
    key: str
    last_id: int
    reserved_id: int = 0
    messages: int = 0
    bytes: int = 0
    in_database: bool = True


class Damaged(Exception):
    """The database contains values that this program would not have written."""


class ForeignDatabase(Exception):
    """The database was written by a newer version or by another program. The text says which."""


def connect(database: Path, *, query_only: bool = False) -> sqlite3.Connection:
    """Open a database that exists."""
    connection = sqlite3.connect(
        f"{database.as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_S,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        # Each commit reaches the disk, so that a reservation of ids survives a power failure too.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.execute(f"PRAGMA query_only = {int(query_only)}")
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, now_ms: int) -> None:
    """Bring the database to the present version, each step in a transaction, or raise ForeignDatabase."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        connection.execute(_VERSION)
    elif "migrations" not in tables:
        raise ForeignDatabase("was not written by geventchat")
    [(version,)] = connection.execute("SELECT coalesce(max(version), 0) FROM migrations")
    if version > len(MIGRATIONS):
        raise ForeignDatabase(
            f"was written by a newer geventchat (its schema has version {version}, this one knows {len(MIGRATIONS)})"
        )
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement, {"now_ms": now_ms})
        connection.execute("INSERT INTO migrations VALUES (?, ?)", (number, now_ms))
        connection.execute("COMMIT")


def insert(connection: sqlite3.Connection, into: str, columns: int, values: list[Any]) -> int:
    """Insert rows, given as one flat list, by few statements; returns how many were inserted.

    `into` is the statement up to its values, as in `INSERT INTO table`.
    """
    inserted = at = 0
    for rows in _ROWS_AT_ONCE:
        width = rows * columns
        while len(values) - at >= width:
            inserted += connection.execute(_insertion(into, columns, rows), values[at : at + width]).rowcount
            at += width
    return inserted


@cache
def _insertion(into: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{into} VALUES {', '.join([row] * rows)}"


def rows(
    connection: sqlite3.Connection, columns: Sequence[str], query: str, values: Sequence[Any]
) -> list[Any]:
    """The rows of a query, as lists, read by one statement for the same reason."""
    [(found,)] = connection.execute(
        f"SELECT json_group_array(json_array({', '.join(columns)})) FROM ({query})", values
    )
    return list(json.loads(found))


# --- Records as rows -------------------------------------------------------------------------------------------------

SAVE_ROOM = "REPLACE INTO rooms"
SAVE_ACCOUNT = "REPLACE INTO accounts"
SAVE_RESTRICTION = "REPLACE INTO restrictions"
_KINDS = {kind.value: kind for kind in RestrictionKind}
ROOM_COLUMNS, ACCOUNT_COLUMNS, RESTRICTION_COLUMNS = 13, 8, 10


def room_row(number: int, room: RoomRecord) -> list[Any]:
    """A room as its row."""
    return [
        number,
        room.key,
        room.name,
        room.owner,
        _json(sorted(room.moderators)),
        _json(sorted(room.voiced)),
        _json(room.invited),
        room.topic,
        int(room.private),
        room.entry_key,
        int(room.moderated),
        room.empty_since_ms,
        room.last_used_ms,
    ]


def read_rooms(connection: sqlite3.Connection, clean: bool) -> tuple[list[Room], list[RoomRecord]]:
    """All rooms. After an unclean end, all ids that were reserved count as used."""
    query = "SELECT counters.*, rooms.* FROM rooms LEFT JOIN counters ON counters.room = rooms.number"
    rooms, records = [], []
    for _, last_id, reserved_id, messages, size, number, *row in connection.execute(query):
        last_id = _integer(last_id if clean else reserved_id)
        record = _read_room(row, last_id)
        room = Room(number, record.key, last_id, last_id + AHEAD_IDS, _integer(messages), _integer(size))
        rooms.append(room)
        records.append(record)
    return rooms, records


def _read_room(row: Sequence[Any], last_id: int) -> RoomRecord:
    key, name, owner, moderators, voiced, invited, topic, private, entry_key, moderated, empty, used = row
    return RoomRecord(
        _text(key),
        _text(name),
        _text(owner),
        frozenset(_texts(moderators)),
        frozenset(_texts(voiced)),
        tuple(map(_invitation, _values(invited))),
        _text(topic),
        bool(_integer(private)),
        _text(entry_key),
        bool(_integer(moderated)),
        last_id,
        None if empty is None else _integer(empty),
        _integer(used),
    )


def account_row(account: AccountRecord) -> list[Any]:
    """An account as its row."""
    return [
        account.key,
        account.name,
        account.password_hash,
        _json(account.token_hashes),
        account.created_ms,
        account.last_login_ms,
        _json(account.ignored),
        _json(account.origins),
    ]


def read_accounts(connection: sqlite3.Connection) -> Iterator[AccountRecord]:
    """All accounts."""
    for row in connection.execute("SELECT * FROM accounts"):
        key, name, password_hash, token_hashes, created, last_login, ignored, origins = row
        yield AccountRecord(
            _text(key),
            _text(name),
            _text(password_hash),
            tuple(_texts(token_hashes)),
            _integer(created),
            _integer(last_login),
            tuple(_texts(ignored)),
            tuple(_texts(origins)),
        )


def restriction_row(restriction: Restriction) -> list[Any]:
    """A restriction as its row."""
    return [
        *restriction.identity,
        restriction.shown,
        restriction.until_ms,
        restriction.reason,
        restriction.by,
        restriction.time_ms,
    ]


def read_restrictions(connection: sqlite3.Connection) -> Iterator[Restriction]:
    """All bans and mutes."""
    for kind, *identity, shown, until, reason, by, time in connection.execute("SELECT * FROM restrictions"):
        if kind not in _KINDS:
            raise Damaged("a restriction of an unknown kind")
        room, name, account, network = map(_text, identity)
        yield Restriction(
            _KINDS[kind],
            room,
            name,
            account,
            network,
            _text(shown),
            None if until is None else _integer(until),
            _text(reason),
            _text(by),
            _integer(time),
        )


def read_state(connection: sqlite3.Connection) -> RunState:
    """Read the state of the last run."""
    query = "SELECT epoch, run, reservations, clean, floor_id, floor_reserved_id FROM state"
    rows = connection.execute(query).fetchall()
    if len(rows) != 1:
        raise Damaged("no single state")
    [(epoch, run, reservations, clean, floor_id, floor_reserved_id)] = rows
    return RunState(
        _text(epoch),
        _text(run),
        _integer(reservations),
        bool(_integer(clean)),
        _integer(floor_id),
        _integer(floor_reserved_id),
    )


def latest_ms(
    connection: sqlite3.Connection, rooms: Iterable[RoomRecord], accounts: Iterable[AccountRecord]
) -> float:
    """The latest time in the database, which holds these rooms and accounts; infinity if there is none."""
    times = [max(room.last_used_ms, room.empty_since_ms or 0) for room in rooms]
    times += [account.last_login_ms for account in accounts]
    for table in ("messages", "mail", "audit"):
        times += [_integer(time) for (time,) in connection.execute(_LATEST.format(table=table))]
    return max(times, default=0) or math.inf


def read_mail(connection: sqlite3.Connection) -> tuple[dict[str, int], dict[str, int]]:
    """How many messages each account has in its mailbox, and how many bytes of all mail each sender has sent."""
    mailboxes = connection.execute("SELECT account, count(*) FROM mail GROUP BY account")
    senders = connection.execute(f"SELECT sender, sum({MAIL_BYTES}) FROM mail GROUP BY sender")
    return (
        {_text(account): messages for account, messages in mailboxes},
        {_text(sender): _integer(size) for sender, size in senders},
    )


def _json(values: Iterable[Any]) -> str:
    return json.dumps(list(values), ensure_ascii=False)


def _values(value: Any) -> list[Any]:
    try:
        found = json.loads(_text(value))
    except ValueError:
        raise Damaged("a list that is not one") from None
    if not isinstance(found, list):
        raise Damaged("a list that is not one")
    return found


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in _values(value)]


def _invitation(value: Any) -> tuple[str, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise Damaged("an invitation that is not one")
    guest, until_ms = value
    return _text(guest), _integer(until_ms)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Damaged("a text that is not one")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise Damaged("a number that is not one")
    return value
