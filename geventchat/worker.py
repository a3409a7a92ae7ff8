"""A thread that works through a queue, so that putting something in never waits. Knows nothing of the items.

It works in a program that runs gevent without patching the standard library: the thread, the queue and the events are the
system's own, and the event loop only appends.

Invariants:
- Items are taken in the order in which they were put in.
- Nothing that was put in before `wake` or `close` is missed: the events are cleared before the queue is read.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Worker(Generic[_Item]):
    """The thread, its queue, and where it waits. A subclass has the `_run` that does the work, and starts the thread."""

    def __init__(self, name: str, gather_s: float, hurried_s: float = 0.0) -> None:
        # Waking the thread for each item would take the interpreter from the event loop each time, so it waits for more,
        # also if it has been hurried.
        self._gather_s = gather_s
        self._hurried_s = hurried_s
        # Never replaced: the thread takes items out while the event loop appends.
        self._queue: deque[_Item] = deque()
        self._news = threading.Event()
        # Set to gather for the shorter time.
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._abandoned = False
        self._complete = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        """Have the thread look at the queue. Costs little while it is going to do so anyway."""
        if not self._news.is_set():
            self._news.set()

    def hurry(self) -> None:
        """Have the thread look at the queue soon, without waiting much longer for more items."""
        self._hurry.set()
        self._news.set()

    def close(self, within_s: float) -> bool:
        """Finish what is queued and end the thread; False if that was not possible within this time."""
        self._closing.set()
        if self._thread.ident is None:
            # It was never started, so there is nothing to finish.
            return True
        self.hurry()
        self._thread.join(min(within_s, threading.TIMEOUT_MAX))
        self._abandoned = True
        return self._complete

    @property
    def is_running(self) -> bool:
        """True until the thread has ended, which can be later than `close`."""
        return self._thread.is_alive()

    def _run(self) -> None:
        """Work until closed, in the thread; set `_complete` if everything was done."""
        raise NotImplementedError

    def _wait(self, most_s: float | None = None) -> bool:
        """Wait for news, at most this long, and then for more of it. True when the worker is being closed."""
        self._news.wait(most_s)
        self._closing.wait(self._hurried_s)
        self._hurry.wait(self._gather_s - self._hurried_s)
        self._news.clear()
        self._hurry.clear()
        # Read after clearing and before the queue, so that neither the close nor an item before it is missed.
        return self._closing.is_set()

    def _take(self, most: int) -> list[_Item]:
        """Take items out of the queue. Nothing is lost if memory is lacking."""
        queue = self._queue
        # By their places, which do not change: others only append. An iterator would fail when they do.
        items = [queue[place] for place in range(min(most, len(queue)))]
        for _ in items:
            queue.popleft()
        return items
