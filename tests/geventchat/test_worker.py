"""The thread that works through a queue, and what others put into the queue at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from geventchat.worker import Worker


class Growing(deque[Any]):
    """A queue to which somebody appends whenever its iteration has begun, as another thread can."""

    def __iter__(self) -> Iterator[Any]:
        begun = super().__iter__()
        self.append("later")
        return begun


class Idle(Worker[Any]):
    """A thread that waits to be closed."""

    def _run(self) -> None:
        while not self._wait():
            pass
        self._complete = True


@pytest.mark.parametrize("within_s", [1e10, 1e300])
def test_it_can_be_closed_within_more_time_than_a_thread_can_wait(within_s: float):
    worker = Idle("geventchat-test", 0.0)
    worker._thread.start()
    assert worker.close(within_s)


def test_items_are_taken_while_others_are_put_in():
    worker: Worker[Any] = Worker("geventchat-test", 0.0)
    worker._queue = Growing("abc")
    assert worker._take(2) == ["a", "b"]
    worker._queue.append("d")
    assert worker._take(9) == ["c", "d"]
    assert worker._take(9) == []
