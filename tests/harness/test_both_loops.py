"""What holds for servers in this process, whichever loop they run on: the exact fence, virtual time and schedules."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness import Grade, InProcess, InProcessAsyncio, Outcome, Stage, parse, play
from harness.explore import explore, report
from harness.interception.interceptor import AcceptedConnection
from harness.interception.schedule import Schedule
from harness.report.styled_text import plain
from harness.report.text import report as verdict_report
from tests.harness.servers import aio, aio_fragile, fragile, late


@dataclass(frozen=True)
class Loop:
    """The servers of one loop, and the ways in which they answer at once or in a minute."""

    late: InProcess | InProcessAsyncio
    fragile: InProcess | InProcessAsyncio
    talk: str
    at_once: tuple[str, ...]
    in_a_minute: tuple[str, ...]


LOOPS = {
    "gevent": Loop(
        InProcess(late.serve),
        InProcess(fragile.serve),
        fragile.TALK,
        ("POOL", "OWN-POOL", "SPAWN 0", "SPAWN 7", "QUEUE", "PIECES"),
        ("SLEEP 60", "TIMEOUT 60", "POOL-THEN-SLEEP 60"),
    ),
    "asyncio": Loop(
        InProcessAsyncio(aio.late),
        InProcessAsyncio(aio_fragile.serve),
        aio_fragile.TALK,
        ("JOB", "OWN-POOL", "SPAWN 0", "SPAWN 7", "QUEUE", "PIECES", "LATER 0", "LINGER"),
        ("SLEEP 60", "TIMEOUT 60", "LATER 60", "JOB-THEN-SLEEP 60"),
    ),
}


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Loop:
    return LOOPS[request.param]


@pytest.fixture
def stage(loop: Loop) -> Iterator[Stage]:
    with Stage(loop.late) as made:
        yield made


# --- the fence and time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "way"),
    [(loop, way) for loop in LOOPS.values() for way in loop.at_once],
    ids=[f"{name}-{way}" for name, loop in LOOPS.items() for way in loop.at_once],
)
def test_what_takes_no_time_has_arrived_when_the_fence_returns(stage: Stage, way: str) -> None:
    alice = stage.client("alice")
    alice.send(way)
    assert bytes(alice.inbox) == b"done\n"
    assert stage.now() == 0
    assert stage.grade is Grade.EXACT


@pytest.mark.parametrize(
    ("loop", "way"),
    [(loop, way) for loop in LOOPS.values() for way in loop.in_a_minute],
    ids=[f"{name}-{way}" for name, loop in LOOPS.items() for way in loop.in_a_minute],
)
def test_what_is_due_at_60_s_has_not_arrived_a_microsecond_before(stage: Stage, way: str) -> None:
    alice = stage.client("alice")
    alice.send(way)
    stage.wait(59.999)
    alice.expect_nothing()
    stage.wait(0.000_999)
    alice.expect_nothing()
    stage.wait(0.000_001)
    assert alice.inbox == b"done\n"
    assert alice.arrived_at(0) == 60.0
    alice.take(5)


def test_waiting_60_s_takes_no_real_time(stage: Stage) -> None:
    for client in stage.clients("alice", "bob", "carol"):
        client.connect()
    stage.fence()
    before, began = stage.now(), time.monotonic()
    stage.wait(60)
    assert stage.now() - before == 60
    assert time.monotonic() - began < 30


# --- schedules ----------------------------------------------------------------------------------------------


class RecordedSchedule(Schedule):
    """A schedule that records what it decided."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.decided: list[tuple[str, int, int]] = []
        """What it was asked, what was asked for, and what it answered."""

    def before_accept(self) -> None:
        self.decided.append(("accepting", 0, 0))
        super().before_accept()

    def before_read(self, connection: AcceptedConnection, size: int) -> int:
        allowed = super().before_read(connection, size)
        self.decided.append((f"reading from {connection.number}", size, allowed))
        return allowed

    def before_write(self, connection: AcceptedConnection, size: int) -> int:
        allowed = super().before_write(connection, size)
        self.decided.append((f"writing to {connection.number}", size, allowed))
        return allowed

    def choose(self, ready: int) -> int:
        chosen = super().choose(ready)
        self.decided.append(("choosing", ready, chosen))
        return chosen

    def delay(self) -> int:
        turns = super().delay()
        self.decided.append(("delaying", 0, turns))
        return turns


def decided(loop: Loop, seed: int) -> list[tuple[str, int, int]]:
    recorded = RecordedSchedule(seed)
    verdict = play(parse(loop.talk, "talk.chat"), loop.fragile.intercepted_by(recorded))
    assert verdict.passed, plain(verdict_report(verdict))
    return recorded.decided


def test_a_correct_server_passes_every_schedule(loop: Loop) -> None:
    explored = explore(parse(loop.talk, "talk.chat"), loop.fragile, range(1, 51))
    assert explored.outcome is Outcome.PASSED, plain(report(explored))
    assert explored.runs == 50


@pytest.mark.parametrize("seed", [2, 7, 11])
def test_the_seed_alone_decides_the_schedule(loop: Loop, seed: int) -> None:
    assert decided(loop, seed) == decided(loop, seed) != decided(loop, seed + 1)


def test_schedules_shorten_reads_and_writes_stall_them_and_change_the_order(loop: Loop) -> None:
    calls = [call for seed in range(1, 9) for call in decided(loop, seed)]
    assert any(what.startswith("reading") and answer < size for what, size, answer in calls)
    assert any(what.startswith("writing") and 0 < answer < size for what, size, answer in calls)
    assert any(what.startswith("writing") and answer == 0 for what, _, answer in calls)
    assert any(what == "choosing" and answer > 0 for what, _, answer in calls)
    assert any(what == "delaying" and answer > 0 for what, _, answer in calls)
