"""Virtual time on gevent and asyncio: the order of timers, and connections that the kernel leaves half-way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stage.kernel import TcpState
from harness.stage.virtual_time import TimerHeap, VirtualTime, _Look


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


def test_what_the_kernel_leaves_half_way_is_waited_for_once() -> None:
    loop: Any = SimpleNamespace(_given_up={})
    connection: Any = object()

    def is_moving(unread: int, *, over: bool) -> bool:
        look = _Look(False, (TcpState.ESTABLISHED, 10, unread), unread, 0)
        return VirtualTime._is_moving(loop, connection, look, cast(Any, SimpleNamespace(over=over)))

    assert is_moving(3, over=False)
    assert not is_moving(3, over=True)
    assert not is_moving(3, over=False)
    # Once it has changed, it is waited for again.
    assert is_moving(2, over=False)
    assert not VirtualTime._is_moving(loop, connection, _Look(False, None, 0, 0), loop)
