"""The thread that works through a queue, and what others put into the queue at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from geventchat.worker import Worker


class Growing(deque[Any]):
    """A queue to which somebody appends whenever its iteration has begun, as another thread can."""

    def __iter__(self) -> Iterator[Any]:
        begun = super().__iter__()
        self.append("later")
        return begun


def test_items_are_taken_while_others_are_put_in():
    worker: Worker[Any] = Worker("geventchat-test", 0.0)
    worker._queue = Growing("abc")
    assert worker._take(2) == ["a", "b"]
    worker._queue.append("d")
    assert worker._take(9) == ["c", "d"]
    assert worker._take(9) == []
