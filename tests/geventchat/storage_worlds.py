"""Storages as tests open them: each implementation with a separate place, a log and an event loop that the test runs."""

from __future__ import annotations

import queue
import shutil
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from geventchat.chat.events import Said
from geventchat.chat.records import AccountRecord, Act, Restriction, RestrictionKind, RoomRecord
from geventchat.chat.storage import Storage
from geventchat.log import LogEvent
from geventchat.services.storage.memory import MemoryStorage
from geventchat.services.storage.sqlite import SqliteStorage
from geventchat.settings import Limits
from tests.geventchat.manual_clock import ManualClock

TIMEOUT_S = 20
LOBBY = RoomRecord("lobby", "lobby")


class World(ABC):
    """One implementation. `survives`: what was kept is there after a restart. `keeps_messages`: so are messages."""

    survives = False
    keeps_messages = False

    def __init__(self, path: Path) -> None:
        self.path = path / "data"
        self.clock = ManualClock(now=1_000_000_000.0)
        self.log: list[tuple[LogEvent, dict[str, Any]]] = []
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._open: list[Storage] = []

    @abstractmethod
    def make(self, limits: Limits) -> Storage:
        """A new storage in the place of this world."""

    def open(self, limits: Limits | None = None) -> Storage:
        storage = self.make(limits or Limits())
        self._open.append(storage)
        return storage

    def close(self, storage: Storage) -> None:
        assert storage.close(TIMEOUT_S)
        self._open.remove(storage)

    def reopened(self, storage: Storage, limits: Limits | None = None) -> Storage:
        """The storage after an orderly restart."""
        self.close(storage)
        return self.open(limits)

    def end(self) -> None:
        for storage in self._open:
            storage.close(TIMEOUT_S)

    def now_ms(self) -> int:
        return int(self.clock.time() * 1000)

    def run_loop(self) -> None:
        """Do what has been passed to the event loop by now."""
        while not self._calls.empty():
            self._calls.get()()

    def await_call(self) -> None:
        """Wait for something that is passed to the event loop, and do it."""
        self._calls.get(timeout=TIMEOUT_S)()

    def logged(self, *events: LogEvent) -> list[LogEvent]:
        """Which of these events were logged, in order."""
        self.run_loop()
        return [event for event, _ in self.log if event in events]

    def _record(self, event: LogEvent, /, **fields: object) -> None:
        self.log.append((event, fields))


class MemoryWorld(World):
    def make(self, limits: Limits) -> Storage:
        return MemoryStorage(limits, self.clock)


class SqliteWorld(World):
    survives = True
    keeps_messages = True

    def make(self, limits: Limits) -> SqliteStorage:
        return SqliteStorage(self.path, limits, self.clock, self._record, self._calls.put, gather_s=0.0)


class Disk(SqliteWorld):
    """A storage whose disk can fill up, and whose process can be killed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # Held while the writer does something.
        self._at_work = threading.Lock()

    def open(self, limits: Limits | None = None) -> SqliteStorage:
        storage = super().open(limits)
        assert isinstance(storage, SqliteStorage)
        handle_queue = storage._writer._handle_queue

        def alone(closing: bool) -> None:
            with self._at_work:
                handle_queue(closing)

        storage._writer._handle_queue = alone  # type: ignore[method-assign]
        # Wait for what it has begun without the lock.
        storage._writer.ask(lambda connection: None)
        return storage

    @property
    def database(self) -> Path:
        return self.path / "chat.db"

    def killed(self, storage: SqliteStorage) -> None:
        """Leave the directory as it is now, as a kill does between two transactions."""
        storage.acts(1)
        self.killed_at_rest(storage)

    def killed_at_rest(self, storage: SqliteStorage) -> None:
        """The same for a storage that has been suspended."""
        left = self.path.with_name(f"{self.path.name}-killed")
        with self._at_work:
            shutil.copytree(self.path, left)
        storage.close(TIMEOUT_S)
        self._open.remove(storage)
        self.path = left

    def fill(self, storage: SqliteStorage) -> None:
        """Let the database grow no further. What fits into its pages can still be written."""
        storage.acts(1)
        self.connection(storage).execute("PRAGMA max_page_count = 1")

    def free(self, storage: SqliteStorage) -> None:
        """Let it grow again, and the time of the next attempt come."""
        self.connection(storage).execute("PRAGMA query_only = OFF")
        self.connection(storage).execute("PRAGMA max_page_count = 1000000")
        self.clock.now += 61

    def connection(self, storage: SqliteStorage) -> sqlite3.Connection:
        connection = storage._writer._connection
        assert connection is not None
        return connection

    def stopped(self) -> tuple[SqliteStorage, str]:
        """A storage whose disk is full, with 100 messages from before; and its epoch."""
        storage = self.open()
        epoch = storage.load().epoch
        storage.save(LOBBY)
        say(storage, 1, *map(str, range(1, 101)))
        self.fill(storage)
        say(storage, 101, *["x" * 1_000] * 100)
        storage.acts(1)
        assert self.logged(LogEvent.HISTORY_STOPPED)
        # Not even what fits.
        self.connection(storage).execute("PRAGMA query_only = ON")
        return storage, epoch


WORLDS: dict[str, type[World]] = {"memory": MemoryWorld, "sqlite": SqliteWorld}


def say(storage: Storage, first_id: int, *texts: str, room: str = "lobby", name: str = "alice") -> None:
    """Append messages as the chat does."""
    storage.append(room, Said(room, name, texts, first_id, 1_000 * first_id))


def texts(storage: Storage, room: str = "lobby", limit: int = 1_000) -> list[tuple[int, str]]:
    """The ids and texts of a room's history from its beginning; the text of a deleted message is empty."""
    return [(message.id, message.text) for message in storage.after(room, 0, limit)]


def account(key: str, **more: Any) -> AccountRecord:
    return replace(AccountRecord(key, key.title(), "hash"), **more)


def ban(room: str = "", name: str = "bob", **more: Any) -> Restriction:
    whole = Restriction(RestrictionKind.BAN, room, name, "", "", name.title(), None, "spam", "Alice", 5)
    return replace(whole, **more)


def act(number: int, room: str = "") -> Act:
    return Act(number, "Alice", "kick", room, "Bob", f"reason {number}")
