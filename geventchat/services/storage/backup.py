"""Copies the database to a file while the server writes to it, with SQLite's online backup. Blocks; knows no event loop.

Invariants:
- The copy is the database at one moment. The writer is not blocked; its write-ahead log grows until the copy is complete.
- The file appears under its name when it is complete, verified and on the disk; a file that exists is never touched.
- A failed backup leaves at most a file whose name ends in `.partial`.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from geventchat.chat.storage import CannotBackUp, StorageUnavailable
from geventchat.services.storage import schema

# The pages to copy before the next check whether the server is closing.
_PAGES_AT_ONCE = 2_000


def back_up(database: Path, target: Path, is_closing: Callable[[], bool]) -> int:
    """Copy the database to this file; returns its size in bytes. Raises CannotBackUp, or StorageUnavailable on closing."""
    if os.path.lexists(target):
        raise CannotBackUp(f"{target} exists; name another file")
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CannotBackUp(f"cannot create {target}: {error.strerror}") from error
    try:
        _copy(database, partial, is_closing)
        _verify(partial)
        _sync(partial, os.O_RDWR)
        size = partial.stat().st_size
        # Not a rename, which would replace a file that has appeared meanwhile.
        os.link(partial, target)
    except FileExistsError as error:
        raise CannotBackUp(f"{target} exists; name another file") from error
    except OSError as error:
        raise CannotBackUp(f"cannot write {target}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise CannotBackUp(f"cannot write {target}: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    return size


def _copy(database: Path, partial: Path, is_closing: Callable[[], bool]) -> None:
    def go_on(*_: int) -> None:
        if is_closing():
            raise StorageUnavailable("the server is stopping")

    source = schema.connect(database, query_only=True)
    with closing(source), closing(sqlite3.connect(partial)) as copy:
        # From here on the copy reads one snapshot; otherwise each write would restart it.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM state").fetchall()
        source.backup(copy, pages=_PAGES_AT_ONCE, progress=go_on)
        # A single file: without this, opening the copy would add a write-ahead log beside it.
        copy.execute("PRAGMA journal_mode = DELETE")


def _verify(partial: Path) -> None:
    with closing(sqlite3.connect(f"{partial.absolute().as_uri()}?mode=ro", uri=True)) as copy:
        found = [str(row[0]) for row in copy.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise CannotBackUp(f"the copy is damaged: {found[0]}")
        try:
            schema.read_state(copy)
        except schema.Damaged as error:
            raise CannotBackUp(f"the copy is damaged: {error}") from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
