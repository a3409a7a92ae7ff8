"""Where records are kept: in memory, or in a directory. What a storage promises is in chat/storage.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from geventchat.chat.storage import Storage
from geventchat.clock import Clock
from geventchat.log import Log
from geventchat.services.storage.epoch import random_epoch
from geventchat.settings import Limits


def import_storage(data: str) -> Any:
    """The module of the storage in this directory, or in memory. SQLite is imported only where it is needed."""
    if data:
        import geventchat.services.storage.sqlite as sqlite

        return sqlite
    import geventchat.services.storage.memory as memory

    return memory


def open_storage(
    data: str,
    limits: Limits,
    clock: Clock,
    log: Log,
    call_in_loop: Callable[[Callable[[], object]], object],
    new_epoch: Callable[[], str] = random_epoch,
    lock: int | None = None,
) -> Storage:
    """Open the storage in this directory, or one in memory if there is none. Blocks; raises CannotOpenStorage.

    With the `lock` of another process, which has suspended its storage, nothing is written before `begin`.

    `call_in_loop` is called from any thread and has a function called in the event loop; the log is called there alone.
    Without a directory, `new_epoch` names the epoch of message ids, which ends with the process.
    """
    module = import_storage(data)
    storage: Storage = (
        module.SqliteStorage(Path(data), limits, clock, log, call_in_loop, lock=lock)
        if data
        else module.MemoryStorage(limits, clock, new_epoch)
    )
    return storage
