"""Virtual time on gevent and asyncio: the order of timers, and connections that the kernel leaves half-way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stage.connection import End
from harness.stage.kernel import GONE, PeerState, TcpState
from harness.stage.virtual_time import TimerHeap, VirtualTime, _look


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


class _HalfClosed:
    """A connection whose end of stream the server's kernel has not got."""

    sent_end = reads = True
    end = End.OPEN
    unread = 0
    in_flight = False
    unacknowledged = 0
    peer = GONE

    def peer_state(self) -> PeerState:
        return self.peer


def test_what_the_kernel_leaves_half_way_is_waited_for_once() -> None:
    loop: Any = SimpleNamespace(_given_up={})
    connection = _HalfClosed()

    def is_moving(outgoing: int, unread: int, *, over: bool) -> bool:
        connection.unacknowledged, connection.peer = outgoing, PeerState(TcpState.ESTABLISHED, unread)
        look = _look(cast(Any, connection))
        return VirtualTime._is_moving(
            loop, cast(Any, connection), look, cast(Any, SimpleNamespace(over=over))
        )

    assert is_moving(10, 3, over=False)
    assert not is_moving(10, 3, over=True)
    assert not is_moving(10, 3, over=False)
    # Once it has changed, it is waited for again: what was read makes room for what is on its way.
    assert is_moving(10, 2, over=False)
    assert is_moving(9, 3, over=False)
    assert not is_moving(9, 3, over=True)
    connection.sent_end = False
    assert not is_moving(0, 0, over=False)
