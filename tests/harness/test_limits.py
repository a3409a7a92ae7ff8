"""Limits in time on a machine that is too busy to run the server, and on a calm one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness import Command, Fence, Grade, Stage, parse, play
from harness.playing.verdict import FailureKind
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.limits import LOOK_S, LimitClock
from harness.stage.threads import times
from tests.patience import until

BUSY = 4
"""How many programs compete for the processor of the server."""

ONE_PROCESSOR = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
SPIN = f"{ONE_PROCESSOR}import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass\n"
SLEEP = f"{ONE_PROCESSOR}import time\ntime.sleep(60)"


@contextmanager
def program(source: str, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that end with the test."""
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            # In a separate session, like servers: where Linux shares a processor among sessions, each has its share.
            one = subprocess.Popen([sys.executable, "-S", "-c", source], start_new_session=True)
            stack.callback(one.wait)
            stack.callback(one.kill)
            started.append(one)
        yield started


def share(server: subprocess.Popen[bytes], seconds: float) -> float:
    """How much of the time counts while this server runs for so long; what does not count without it is left out."""
    clock, without = LimitClock(lambda: (server.pid,)), LimitClock()
    began_s, began_without_s, until_s = clock.now(), without.now(), time.monotonic() + seconds
    while time.monotonic() < until_s:
        time.sleep(LOOK_S)
        clock.now()
        without.now()
    return (clock.now() - began_s) / (without.now() - began_without_s)


def test_the_clock_stands_still_while_the_server_waits_for_a_processor() -> None:
    with program(SPIN) as (server,), program(SPIN, BUSY):
        assert until(lambda: share(server, 0.2) < 0.5)  # once all of them run
        assert share(server, 1.0) < 0.6


def test_the_clock_runs_while_the_server_runs() -> None:
    def ran_s() -> float:
        return int(times(f"/proc/{server.pid}/task/{server.pid}").split()[0]) / 1e9

    with program(SPIN) as (server,):
        ran_before_s, began_s = ran_s(), time.monotonic()
        counted = share(server, 1.0)
        assert counted > (ran_s() - ran_before_s) / (time.monotonic() - began_s) / 2


def test_the_clock_runs_for_a_server_that_waits_for_anything_else() -> None:
    with program(SLEEP) as (server,), program(SPIN, BUSY):
        assert until(lambda: share(server, 0.2) > 0.99)  # once it sleeps


def test_the_processes_that_a_server_has_started_belong_to_it() -> None:
    shell = f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', {SPIN!r}])"
    with program(shell) as (server,), program(SPIN, BUSY):
        assert until(lambda: Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text() != "")
        assert until(lambda: share(server, 1.0) < 0.6)


def test_time_without_a_look_counts_as_one_look() -> None:
    clock = LimitClock()
    began_s = clock.now()
    time.sleep(0.5)
    assert clock.now() - began_s < 0.5 / 2


def test_a_limit_ends_after_twenty_times_as_long_whatever_happens() -> None:
    clock = LimitClock()
    # As of a server that is never run. A real one is run now and then, and a look at the wrong moment counts for 0.1 s.
    clock._waited_s = lambda gap_s: gap_s  # type: ignore[method-assign]
    began, limit = time.monotonic(), clock.limit(0.1)
    counted_s = clock.now()
    while not limit.over:
        time.sleep(limit.pause_s)
    assert time.monotonic() - began >= 20 * 0.1
    assert clock.now() - counted_s < 0.1


def test_a_process_that_is_gone_is_not_waited_for() -> None:
    with program("") as (server,):
        server.wait()
        assert share(server, 0.2) > 0.99


def test_looking_at_many_threads_takes_a_small_part_of_the_time() -> None:
    source = """
        import threading, time
        for _ in range(300):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        time.sleep(60)
    """
    with program(textwrap.dedent(source)) as (server,):
        assert until(lambda: len(os.listdir(f"/proc/{server.pid}/task")) > 300)
        clock = LimitClock(lambda: (server.pid,))
        time.sleep(2 * LOOK_S)
        clock.now()
        limit = clock.limit(60)
        assert limit.pause_s > LOOK_S
        began_s, spent_s = time.monotonic(), time.thread_time()
        for _ in range(5):
            time.sleep(limit.pause_s)
            clock.now()
        assert time.thread_time() - spent_s < 0.2 * (time.monotonic() - began_s)


# --- servers that do not get a processor --------------------------------------------------------------------

WORKS = """
    import os, select, socket, sys, time
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    def works(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
"""
SLOW = f"""{WORKS}
    works(0.2)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        sock, _ = listener.accept()
        for line in sock.makefile("rb"):
            works(0.2)
            sock.sendall(line)
"""
RELAYS = f"""{WORKS}
    listener, clients = socket.create_server(("127.0.0.1", int(sys.argv[1]))), []
    while True:
        for ready in select.select([listener, *clients], [], [])[0]:
            if ready is listener:
                clients.append(listener.accept()[0])
            elif not (data := ready.recv(4096)):
                clients.remove(ready)
            elif data.startswith(b"MSG"):
                works(0.1)
                for other in clients:
                    if other is not ready:
                        other.sendall(data)
"""


@contextmanager
def starved(source: str) -> Iterator[Command]:
    """A server that gets a fifth of a processor."""
    with program(SPIN, BUSY):
        yield Command([sys.executable, "-S", "-c", textwrap.dedent(source), "{port}"], starts_within=1)


@pytest.fixture
def slow() -> Iterator[Command]:
    """One that needs a fifth of a second to start, and for each line."""
    with starved(SLOW) as server:
        yield server


def test_a_busy_machine_fails_no_start_and_no_answer(slow: Command) -> None:
    with Stage(slow, fence=Fence("PING", ("PING",)), within=1) as stage:
        alice = stage.client("alice")
        began = time.monotonic()
        alice.send("hello")
        alice.expect("hello")
        assert time.monotonic() - began > 1


def test_a_server_is_not_quiet_while_it_waits_for_a_processor(slow: Command) -> None:
    verdict = play(parse("settle: 300ms\n\nalice> hello\nalice receives nothing\n"), slow)
    assert verdict.failures, "the answer came after 0.2 s in which the server ran"
    assert verdict.failures[0].kind is FailureKind.EXTRA


def test_a_client_is_not_given_up_as_one_that_hears_nothing_while_the_server_waits_for_a_processor() -> None:
    script = (
        "fence: MSG ${token} heard as MSG ${token}\nsettle: 250ms\n\nann> HI\nbob> HI\nann receives nothing\n"
    )
    with starved(RELAYS) as server:
        verdict = play(parse(script), server)
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), plain(report(verdict))
    sent = [one for turn in verdict.turns for one in turn.fence_lines]
    assert not any(one.unheard_by for one in sent), sent
