"""Virtual time on gevent and asyncio: the order of timers, and connections that the kernel leaves half-way."""

from __future__ import annotations

from dataclasses import dataclass
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


IDLE = PeerState(TcpState.ESTABLISHED)
UNREAD = PeerState(TcpState.ESTABLISHED, unread=2)
UNACKNOWLEDGED = PeerState(TcpState.ESTABLISHED, unacknowledged=2)


@dataclass(eq=False)
class _Connection:
    """As `_look` sees one: it reads all that has come, and nothing is on its way."""

    peer: PeerState | None = IDLE
    unacknowledged: int = 0
    in_flight: bool = False
    sent_end: bool = False
    reads: bool = True
    end: End = End.OPEN
    unread: int = 0

    def peer_state(self) -> PeerState | None:
        return self.peer


def looked(connection: _Connection) -> tuple[bool, bool]:
    """Whether bytes are in flight, and whether the kernel has left something half-way."""
    look = _look(cast(Any, connection))
    return look.in_flight, look.half_way is not None


@pytest.mark.parametrize(
    ("connection", "in_flight", "half_way"),
    [
        (_Connection(), False, False),
        (_Connection(unacknowledged=2, in_flight=True), True, False),
        (_Connection(unacknowledged=2), False, False),  # it has arrived
        (_Connection(UNREAD, 2, in_flight=True), False, False),  # the server has to read first
        (_Connection(UNACKNOWLEDGED), True, False),
        (_Connection(UNACKNOWLEDGED, reads=False), False, False),
        (_Connection(UNACKNOWLEDGED, end=End.CLOSED), False, False),
        (_Connection(sent_end=True), False, True),
        (_Connection(PeerState(TcpState.CLOSE_WAIT), sent_end=True), False, False),
        (_Connection(PeerState(TcpState.SYN_RECV)), False, True),
        (_Connection(PeerState(TcpState.NEW_SYN_RECV)), False, True),
        (_Connection(GONE), False, True),  # its end has not been read
        (_Connection(GONE, unread=2), False, False),  # what comes before that has not been read
        (_Connection(GONE, reads=False), False, False),
        (_Connection(GONE, end=End.CLOSED), False, False),
        (_Connection(None, 2), True, False),  # on another machine
        (_Connection(None), False, False),
    ],
)
def test_what_is_on_its_way_on_a_connection_is_seen(
    connection: _Connection, in_flight: bool, half_way: bool
) -> None:
    assert looked(connection) == (in_flight, half_way)


def test_what_the_kernel_leaves_half_way_is_waited_for_once() -> None:
    loop: Any = SimpleNamespace(_given_up={})
    connection = _Connection(sent_end=True)

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


@pytest.mark.parametrize(("comes_until", "ends_at"), [(0, 3), (10, 13), (1000, 100)])
def test_time_stands_still_as_long_as_something_comes_but_not_for_ever(
    comes_until: int, ends_at: int
) -> None:
    now = 0

    class Limit:
        pause_s = 2.0

        def __init__(self, seconds: int) -> None:
            self.until = now + seconds

        @property
        def over(self) -> bool:
            return now >= self.until

    def pause(seconds: float) -> None:
        nonlocal now
        now += 1

    loop: Any = SimpleNamespace(limits=SimpleNamespace(limit=Limit), _within_s=100, moment_s=3, pause=pause)
    loop.settle = lambda: False  # a thread is at work
    loop._came = lambda: min(now, comes_until)
    VirtualTime._let_come(loop)
    assert now == ends_at
