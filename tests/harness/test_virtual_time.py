"""The timers that gevent and asyncio share: their order, and what becomes of those that were stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stage.virtual_time import TimerHeap


class _Timer:
    def __init__(self) -> None:
        self.stopped = False


def _heap() -> TimerHeap[_Timer]:
    return TimerHeap(lambda _, timer: not timer.stopped)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 2), st.booleans()), max_size=400))
def test_timers_are_due_by_time_then_priority_then_age(wanted: list[tuple[int, int, bool]]) -> None:
    heap = _heap()
    waiting = []
    for age, (at_us, priority, stopped) in enumerate(wanted):
        timer = _Timer()
        heap.push(at_us, timer, priority)
        timer.stopped = stopped
        if not stopped:
            waiting.append((at_us, -priority, age, timer))
    assert len(heap) == len(waiting)
    for at_us, _, _, timer in sorted(waiting, key=lambda entry: entry[:3]):
        assert heap.next_due_us == at_us
        assert heap.pop() is timer
    assert heap.next_due_us is None
    with pytest.raises(RuntimeError, match="no timer waits"):
        heap.pop()


def test_stopped_timers_do_not_fill_memory() -> None:
    heap = _heap()
    kept = [_Timer() for _ in range(100)]
    for timer in kept:
        heap.push(1_000_000, timer)
    for _ in range(10_000):
        timer = _Timer()
        heap.push(60, timer)
        timer.stopped = True
    assert len(heap) == 100
    assert len(heap._entries) < 300
