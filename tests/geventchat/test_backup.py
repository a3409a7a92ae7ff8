"""Copies of the database of a running server: complete, verified, and never over a file that exists."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from geventchat.chat.events import Said
from geventchat.chat.records import RoomRecord
from geventchat.chat.storage import CannotBackUp, StorageUnavailable
from geventchat.clock import SystemClock
from geventchat.services.storage import backup
from geventchat.services.storage.memory import MemoryStorage
from geventchat.services.storage.sqlite import SqliteStorage
from geventchat.settings import Limits
from tests.patience import HANG_S


def opened(path: Path) -> SqliteStorage:
    storage = SqliteStorage(
        path, Limits(), SystemClock(), lambda event, **fields: None, lambda call: call(), 0.01
    )
    storage.load()
    return storage


def say(storage: SqliteStorage, id: int) -> None:
    storage.append("lobby", Said("lobby", "alice", (f"text {id}",), id, id))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SqliteStorage]:
    storage = opened(tmp_path / "data")
    storage.save(RoomRecord("lobby", "lobby"))
    yield storage
    assert storage.close(HANG_S)


def test_a_copy_has_everything_that_was_said_before_it_and_opens_as_a_data_directory(
    storage: SqliteStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for id in range(1, 300):
        say(storage, id)
    storage.settle()
    monkeypatch.setattr(backup, "_PAGES_AT_ONCE", 1)
    looks = iter(range(10**9))

    def says_more() -> bool:
        # The writer commits while the copy is made, after each of its pages.
        if next(looks) < 5:
            say(storage, 300 + next(looks))
            storage.settle()
        return False

    target = tmp_path / "copy" / "chat.db"
    target.parent.mkdir(0o700)
    size = backup.back_up(storage._directory.database, target, says_more)
    assert next(looks) < 100, "each write has begun the copy anew"
    assert target.stat().st_size == size
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(target.parent) == ["chat.db"]
    copy = opened(target.parent)
    assert [message.id for message in copy.before("lobby", 10**6, 1000)] == list(range(1, 300))
    assert copy.close(HANG_S)


def test_what_is_queued_is_in_the_copy(storage: SqliteStorage, tmp_path: Path):
    say(storage, 1)
    storage.back_up(tmp_path / "x.db")
    with sqlite3.connect(tmp_path / "x.db") as copy:
        assert copy.execute("SELECT text FROM messages").fetchall() == [("text 1",)]
    copy.close()


def test_a_file_that_exists_is_not_touched(storage: SqliteStorage, tmp_path: Path):
    target = tmp_path / "mine"
    target.write_text("mine")
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nowhere")
    for existing in (target, dangling, tmp_path):
        with pytest.raises(CannotBackUp, match="exists; name another file"):
            storage.back_up(existing)
    assert target.read_text() == "mine"
    with pytest.raises(CannotBackUp, match=r"cannot create .*: No such file"):
        storage.back_up(tmp_path / "no" / "x")


def test_a_file_that_appears_meanwhile_is_not_touched_and_nothing_is_left(
    storage: SqliteStorage, tmp_path: Path
):
    target = tmp_path / "mine"

    def appears() -> bool:
        target.write_text("mine")
        return False

    with pytest.raises(CannotBackUp, match="exists; name another file"):
        backup.back_up(storage._directory.database, target, appears)
    assert target.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["data", "mine"]


@pytest.mark.parametrize("what", ["copy", "closing"])
def test_a_copy_that_is_damaged_or_comes_too_late_is_removed(
    storage: SqliteStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    target = tmp_path / "x.db"
    if what == "closing":
        with pytest.raises(StorageUnavailable, match="the server is stopping"):
            backup.back_up(storage._directory.database, target, lambda: True)
    else:
        copy = backup._copy

        def damage(database: Path, partial: Path, is_closing: object) -> None:
            copy(database, partial, lambda: False)
            with partial.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * 4096)

        monkeypatch.setattr(backup, "_copy", damage)
        with pytest.raises(CannotBackUp, match=r"the copy is damaged|malformed"):
            storage.back_up(target)
    assert os.listdir(tmp_path) == ["data"]


def test_a_server_without_a_data_directory_refuses_a_backup(tmp_path: Path):
    with pytest.raises(CannotBackUp, match="no data directory"):
        MemoryStorage(Limits(), SystemClock()).back_up(tmp_path / "x")
