"""Memory set aside for the moment when there is none left: with it, those who asked for too much can be disconnected.

Without it, the next allocation that fails can be one that gevent does not survive: it cannot switch to another greenlet,
and the process ends. While it is spent, no client is read. Costs address space only: the pages are never written to, which
an object of Python does not promise, since memory that has been used before is cleared.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

RESERVE_BYTES = 8 * 1_048_576


class MemoryReserve:
    """Spent at the first lack of memory, and set aside again as soon as that is possible."""

    __slots__ = ("_held", "is_spent")

    def __init__(self) -> None:
        self._held = _set_aside()
        # True after a lack of memory, until there is enough again. Read before each read of a client.
        self.is_spent = False

    def spend(self) -> None:
        """Something could not be allocated."""
        self._held.close()
        self.is_spent = True

    def refill(self) -> bool:
        """Set it aside again; False if that is not possible yet."""
        try:
            self._held = _set_aside()
        except (MemoryError, OSError):
            return False
        self.is_spent = False
        return True


def _set_aside() -> mmap:
    return mmap(-1, RESERVE_BYTES, MAP_PRIVATE | MAP_ANONYMOUS)
