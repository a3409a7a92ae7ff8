"""The data directory: its permissions, its lock and the mark beside the database. Knows no SQL.

The mark is a small file that says whether the database can be trusted to know which ids have been used. Its content names the
run of the server that wrote it and counts how often that run has reserved ids; the database holds the same two values. Its
name says whether ids are in use that the database has not reserved, which happens while the disk is full: renaming a file
needs no space.

Invariants:
- The content is rewritten after the database has reserved ids and before one of them is used. So a database whose count is
  smaller than the mark's is an older copy, or has lost its latest transactions.
- The mark has its second name before an id is used that the database has not reserved, and fits no database then.
- A mark that is missing or damaged fits no database.
- `_mark` is an open descriptor or -1: a number that the system has given to another file must not be written to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from geventchat.settings import ConfigError

DATABASE = "chat.db"
_LOCK = "lock"
_RESERVED = "ids-reserved"
_UNRESERVED = "ids-unreserved"
_NEW = "ids-new"
_MARK_BYTES = 100


class CannotOpenStorage(ConfigError):
    """The data directory cannot be used; the message says why, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__("data", f"data: {message}")


class DataDirectory:
    """A directory that only this process uses while it is open, and only its owner can read."""

    def __init__(self, path: Path, lock: int | None = None) -> None:
        """`lock` is a descriptor of the lock of a process that this one takes over from, and that holds it, too."""
        self.path = path.absolute()
        self.database = self.path / DATABASE
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise CannotOpenStorage(self.explanation(error)) from error
        try:
            self._lock = self._take_lock() if lock is None else lock
            os.close(os.open(DATABASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._descriptor))
            # SQLite gives the files that it adds the mode of the database.
            os.chmod(DATABASE, 0o600, dir_fd=self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            raise CannotOpenStorage(self.explanation(error)) from error
        except CannotOpenStorage:
            os.close(self._descriptor)
            raise
        self._mark = -1

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock."""
        return self._lock

    def take_over(self) -> None:
        """Note that the lock is held by this process."""
        _name_holder(self._lock)

    def close(self) -> None:
        """Let others use the directory."""
        if self._mark >= 0:
            os.close(self._mark)
        os.close(self._lock)
        os.close(self._descriptor)

    # --- The mark ---

    def fits(self, run: str, reservations: int) -> bool:
        """True if the database, which holds these values, knows every id that has been used."""
        mark = self._read(_RESERVED)
        if mark is None or self._read(_UNRESERVED) is not None:
            return False
        of_run, count = mark
        # The database is one ahead if the process ended between its commit and the new mark.
        return of_run == run and count in (reservations - 1, reservations)

    def begin_run(self, reservations: int) -> str:
        """Replace the mark by one of a new run; returns the name of the run, which the database must hold as well.

        If the new mark cannot be written, the old one stays.
        """
        run = secrets.token_hex(16)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        mark = os.open(_NEW, flags, 0o600, dir_fd=self._descriptor)
        try:
            _write_mark(mark, run, reservations)
            os.rename(_NEW, _RESERVED, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            os.close(mark)
            raise
        old, self._mark, self._run = self._mark, mark, run
        if old >= 0:
            os.close(old)
        with suppress(FileNotFoundError):
            os.unlink(_UNRESERVED, dir_fd=self._descriptor)
        os.fsync(self._descriptor)
        return run

    def reserve(self, reservations: int) -> None:
        """Record that the database has reserved ids this many times."""
        _write_mark(self._mark, self._run, reservations)

    def leave_reservations(self) -> None:
        """Mark that ids are used from now on that the database has not reserved."""
        # Without a mark the effect is the same.
        with suppress(FileNotFoundError):
            self._rename(_RESERVED, _UNRESERVED)

    def keep_reservations(self) -> None:
        """Mark that the database has reserved all ids that are used."""
        self._rename(_UNRESERVED, _RESERVED)

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        os.fsync(self._descriptor)

    def _read(self, name: str) -> tuple[str, int] | None:
        """The run and the count of a mark; values that fit nothing if it is damaged, None if it is missing."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        try:
            content = os.read(descriptor, _MARK_BYTES)
        finally:
            os.close(descriptor)
        run, _, count = content.decode("ascii", "replace").strip().partition(" ")
        try:
            read = run, int(count)
        except ValueError:
            return "", 0
        return read if _mark(*read) == content else ("", 0)

    # --- Opening ---

    def _open(self) -> int:
        with suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._make_private(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make_private(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            # A volume can belong to another user, if an administrator has prepared it for this user's group.
            if found.st_mode & stat.S_IWOTH:
                raise CannotOpenStorage(f"every user can write to {self.path}; name another directory")
        elif found.st_mode & 0o077:
            others = set(os.listdir(descriptor)) - {"lost+found"}
            if others and DATABASE not in others:
                mode = stat.filemode(found.st_mode)
                raise CannotOpenStorage(
                    f"{self.path} has other files in it and is open to other users ({mode}); "
                    f"name an empty directory, or run: chmod 700 {self.path}"
                )
            os.fchmod(descriptor, 0o700)

    def _take_lock(self) -> int:
        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._descriptor)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 20).decode("ascii", "replace").strip()
            os.close(lock)
            by = f"process {holder}" if holder.isdigit() else "another process"
            raise CannotOpenStorage(
                f"{self.path} is in use by {by}; stop it first, or name another directory"
            ) from error
        try:
            _name_holder(lock)
        except OSError:
            os.close(lock)
            raise
        return lock

    def explanation(self, error: OSError) -> str:
        """Why the directory cannot be used, and what to do."""
        return f"cannot use {self.path}: {error.strerror}; {self._way_out(error)}"

    def _way_out(self, error: OSError) -> str:
        match error.errno:
            case errno.ENOENT:
                return f"create {self.path.parent} first"
            case errno.EACCES | errno.EPERM:
                return f"let user {os.geteuid()} write there, or name another directory"
            case errno.ENOSPC | errno.EDQUOT:
                return "free some space there, or name another directory"
        return "name another directory"


def _name_holder(lock: int) -> None:
    # Written before it is cut off, so that this needs no space where there is an older number.
    length = os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    os.ftruncate(lock, length)


def _write_mark(descriptor: int, run: str, reservations: int) -> None:
    os.pwrite(descriptor, _mark(run, reservations), 0)
    os.fdatasync(descriptor)


def _mark(run: str, reservations: int) -> bytes:
    # Always as long, so that rewriting it needs no space.
    return f"{run} {reservations:020d}\n".encode()
