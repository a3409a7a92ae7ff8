"""Servers in this process, on either loop: the exact fence, virtual time and schedules."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from harness import Grade, InProcess, InProcessAsyncio, Outcome, ServerSpec, Stage, parse, play
from harness.explore import explore, report
from harness.interception.interceptor import AcceptedConnection
from harness.interception.schedule import Schedule
from harness.report.styled_text import plain
from harness.report.text import report as verdict_report
from harness.stage.virtual_time import ForeignConnections, ForeignThreads
from harness.targets.choice import TargetChoice
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


# --- what no loop sees --------------------------------------------------------------------------------------

GIVES_UP_S = 0.1
"""How long the servers below wait for their back end, in their own time. It takes longer, in real time."""


@pytest.fixture
def back_end() -> Iterator[str]:
    """The port of something that is not on the server's loop, and echoes each line after a while."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock, sock.makefile("rb") as lines:
                    for line in lines:
                        time.sleep(1.5 * GIVES_UP_S)
                        sock.sendall(line)

    thread = threading.Thread(target=echo)
    thread.start()
    yield str(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


class GeventRelay:
    """Relays lines to a port, or to its own second listener."""

    def __init__(self, spec: ServerSpec) -> None:
        self._back = spec.options.get("back")
        self._own, self._front = (StreamServer(("127.0.0.1", 0), one) for one in (self._echo, self._relay))

    def start(self) -> None:
        self._own.start()
        self._front.start()
        self.addresses = {"": self._front.address}

    def _relay(self, sock: Any, address: object) -> None:
        port = int(self._back) if self._back else self._own.address[1]
        with gevent.Timeout(GIVES_UP_S, False), gevent.socket.create_connection(("127.0.0.1", port)) as back:
            for line in sock.makefile("rb"):
                # In two writes: the kernel holds the second back until the first is acknowledged, which takes it 40 ms.
                back.sendall(line[:1])
                back.sendall(line[1:])
                sock.sendall(back.recv(100))

    def _echo(self, sock: Any, address: object) -> None:
        for line in sock.makefile("rb"):
            sock.sendall(line)

    def stop(self) -> None:
        self._front.stop()
        self._own.stop()


def delays_what_it_writes(writer: asyncio.StreamWriter) -> None:
    """As sockets do by themselves. Those of asyncio do not."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)


@contextlib.asynccontextmanager
async def asyncio_relay(spec: ServerSpec) -> AsyncIterator[asyncio.Server]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        delays_what_it_writes(writer)
        with contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(line)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = int(spec.options.get("back", own.sockets[0].getsockname()[1]))
        answers, questions = await asyncio.open_connection("127.0.0.1", port)
        delays_what_it_writes(questions)
        with contextlib.closing(writer), contextlib.closing(questions):
            while line := await reader.readline():
                questions.write(line[:1])
                questions.write(line[1:])
                writer.write(await asyncio.wait_for(answers.readline(), GIVES_UP_S))

    own = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with own, await asyncio.start_server(relay, "127.0.0.1", 0) as front:
        yield front


RELAYS = {"gevent": InProcess(GeventRelay), "asyncio": InProcessAsyncio(asyncio_relay)}


@pytest.mark.parametrize("name", RELAYS)
def test_what_another_process_sends_is_waited_for_and_time_stands_still_meanwhile(
    name: str, back_end: str
) -> None:
    script = parse(f"server: back={back_end}\nsettle: 20ms\n\nann> hello\nann< hello\n")
    verdict = play(script, RELAYS[name])
    assert verdict.passed, plain(verdict_report(verdict))
    assert verdict.grade is Grade.SETTLED
    at_work = f"a connection to port {back_end} was at work outside the server's loop"
    assert f"(settled: {at_work}, so the harness waited" in plain(verdict_report(verdict))
    wrong = parse(f"server: back={back_end}\nsettle: 20ms\nwithin: 500ms\n\nann> hello\nann< hullo\n")
    assert f"hint  {at_work}" in plain(verdict_report(play(wrong, RELAYS[name])))


@pytest.mark.parametrize("name", RELAYS)
def test_a_connection_of_the_server_to_itself_leaves_the_fence_exact(name: str) -> None:
    lines = "".join(f"ann> hello {number}\nann< hello {number}\n" for number in range(4))
    verdict = play(parse(f"{lines}ann closes\n"), RELAYS[name])
    assert verdict.passed, plain(verdict_report(verdict))
    assert verdict.grade is Grade.EXACT


@pytest.mark.parametrize("name", RELAYS)
def test_a_connection_that_ends_at_once_leaves_the_fence_exact(name: str) -> None:
    """The first look at its socket finds no peer any more."""

    def closes(sock: Any, address: object) -> None:
        sock.recv(100)

    async def serve(spec: ServerSpec) -> asyncio.Server:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.close()

        return await asyncio.start_server(talk, "127.0.0.1", 0)

    gevent_target = InProcess(lambda spec: StreamServer(("127.0.0.1", 0), closes))
    target = gevent_target if name == "gevent" else InProcessAsyncio(serve)
    verdict = play(parse("ann> hello\nann is closed\n"), target)
    assert (verdict.passed, verdict.grade) == (True, Grade.EXACT)


class GeventCommands:
    """Does what its clients say, as `asyncio_commands` does."""

    def __init__(self, act: Callable[[bytes, Callable[[bytes], None], Callable[..., object]], None]) -> None:
        self._act = act

    def __call__(self, spec: ServerSpec) -> StreamServer:
        def talk(sock: Any, address: object) -> None:
            loop = gevent.get_hub().loop

            def from_thread(function: Callable[..., object], *arguments: object) -> None:
                loop.run_callback_threadsafe(gevent.spawn, function, *arguments)

            for line in sock.makefile("rb"):
                self._act(line, sock.sendall, from_thread)

        return StreamServer(("127.0.0.1", 0), talk)


def asyncio_commands(act: Callable[[bytes, Callable[[bytes], None], Callable[..., object]], None]) -> Any:
    async def serve(spec: ServerSpec) -> asyncio.Server:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                while line := await reader.readline():
                    act(line, writer.write, asyncio.get_running_loop().call_soon_threadsafe)

        return await asyncio.start_server(talk, "127.0.0.1", 0)

    return serve


ACTING = {
    "gevent": lambda act: InProcess(GeventCommands(act)),
    "asyncio": lambda act: InProcessAsyncio(asyncio_commands(act)),
}


@pytest.mark.parametrize("name", ACTING)
def test_an_exception_that_ends_a_thread_of_the_server_fails_the_run(name: str) -> None:
    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        write(line)
        threading.Thread(target=int, args=(line,)).start()

    target = ACTING[name](act)
    assert play(parse("ann> 1\nann< 1\n"), target).passed
    verdict = play(parse("settle: 20ms\n\nann> one\nann< one\n"), target)
    assert verdict.outcome is Outcome.FAILED
    text = plain(verdict_report(verdict))
    assert "the server raised ValueError" in text
    assert "in run" in text
    expected = parse("settle: 20ms\n\nann> one\nann< one\nthe server raises ValueError\n")
    assert play(expected, target).passed


@pytest.mark.parametrize("delay_s", [0, 0.01])
@pytest.mark.parametrize("name", ACTING)
def test_timers_that_are_due_at_the_same_instant_fire_in_the_order_in_which_they_were_set(
    name: str, delay_s: float
) -> None:
    """On a real clock the second is always due later than the first."""

    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        later = gevent.spawn_later if name == "gevent" else asyncio.get_running_loop().call_later
        for number in range(int(line)):
            later(delay_s, write, b"%d\n" % number)

    in_order = "".join(f"ann< {number}\n" for number in range(20))
    verdict = play(parse(f"ann> 20\nwait 10ms\n{in_order}"), ACTING[name](act))
    assert verdict.passed, plain(verdict_report(verdict))
    assert verdict.grade is Grade.EXACT


@pytest.mark.parametrize("name", ACTING)
def test_timers_fire_at_their_instant_after_years(name: str) -> None:
    """Seconds as floats are coarser by then than a microsecond's thousandth."""

    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        later = gevent.spawn_later if name == "gevent" else asyncio.get_running_loop().call_later
        later(60, write, line)

    script = parse(
        "ann connects\nwait 500000h\nann> hi\nwait 59.999s\nann receives nothing\nwait 1ms\nann< hi\n"
    )
    verdict = play(script, ACTING[name](act))
    assert verdict.passed, plain(verdict_report(verdict))


class Misunderstood(ValueError):
    def __str__(self) -> str:
        return "\n2 errors in a line\n  no verb\n  no name"


@pytest.mark.parametrize("name", ACTING)
def test_an_exception_is_told_by_its_class_and_the_first_line_of_its_message(name: str) -> None:
    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        error = Misunderstood()
        if hasattr(error, "add_note"):
            error.add_note("while reading ann")
        raise error

    verdict = play(parse("ann> one\nann receives nothing\n"), ACTING[name](act))
    text = plain(verdict_report(verdict))
    assert f"the server raised {__name__}.Misunderstood\n" in text
    assert f"  actual    {__name__}.Misunderstood: 2 errors in a line\n" in text
    assert "expect `the server raises Misunderstood` in this turn" in text
    script = parse("ann> one\nann is disconnected\nthe server raises Misunderstood\n")
    assert play(script, ACTING[name](act)).passed


@pytest.mark.parametrize("name", ACTING)
def test_a_server_that_exits_does_not_end_the_run(name: str) -> None:
    """A test run that ends with status 0 would look as if everything had passed."""

    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        sys.exit(0)

    verdict = play(parse("ann> hello\nann receives nothing\n"), ACTING[name](act))
    assert verdict.outcome is Outcome.FAILED
    assert "the server raised SystemExit" in plain(verdict_report(verdict))


@pytest.mark.parametrize("name", ACTING)
def test_a_signal_handler_that_exits_ends_the_run(name: str) -> None:
    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(3))
    try:
        with pytest.raises(SystemExit):
            play(parse("ann> hello\nann receives nothing\n"), ACTING[name](act))
    finally:
        signal.signal(signal.SIGUSR1, before)


class OnGevent:
    """A server that acts while it is made, started or stopped."""

    def __init__(self, when: str, act: Callable[[], object]) -> None:
        self.when, self.act = when, act
        self.server = StreamServer(("127.0.0.1", 0), lambda *_: gevent.sleep(1_000))
        self.acts("made")

    def acts(self, now: str) -> None:
        if now == self.when:
            self.act()

    def start(self) -> None:
        self.server.start()
        self.acts("started")

    def stop(self) -> None:
        self.server.stop()
        self.acts("stopped")

    @property
    def addresses(self) -> dict[str, Any]:
        return {"": self.server.address}


def acting_when(name: str, when: str, act: Callable[[], object]) -> InProcess | InProcessAsyncio:
    @contextlib.asynccontextmanager
    async def on_asyncio(spec: ServerSpec) -> AsyncIterator[object]:
        async with await asyncio.start_server(aio.echo, "127.0.0.1", 0) as server:
            if when == "started":
                act()
            yield server
        if when == "stopped":
            act()

    def made(spec: ServerSpec) -> Any:
        if when == "made":
            act()
        return on_asyncio(spec)

    return InProcess(lambda _spec: OnGevent(when, act)) if name == "gevent" else InProcessAsyncio(made)


@pytest.mark.parametrize("when", ["made", "started", "stopped"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_server_that_exits_while_it_starts_or_stops_is_a_broken_target(name: str, when: str) -> None:
    verdict = play(parse("ann connects\n"), acting_when(name, when, lambda: sys.exit(0)))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert f"does not {'stop' if when == 'stopped' else 'start'}: SystemExit(0)" in verdict.reason
    assert "sys.exit(0)" in verdict.reason  # the traceback


@pytest.mark.parametrize("when", ["made", "started", "stopped"])
def test_a_server_that_ticks_for_ever_while_it_starts_or_stops_is_a_broken_target(when: str) -> None:
    def ticks() -> None:
        while True:
            gevent.sleep(1)

    verdict = play(parse("within: 300ms\n\nann connects\n"), acting_when("gevent", when, ticks))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "waits for something that does not come, while starting or stopping" in verdict.reason


def test_a_server_that_kills_the_greenlet_in_which_it_stops_is_a_broken_target() -> None:
    target = acting_when("gevent", "stopped", lambda: gevent.getcurrent().kill())
    verdict = play(parse("ann connects\n"), target)
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "does not stop: GreenletExit()" in verdict.reason


@pytest.mark.parametrize("when", ["made", "started", "stopped"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_signal_handler_that_exits_while_the_server_starts_or_stops_ends_the_run(
    name: str, when: str
) -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(3))
    try:
        with pytest.raises(SystemExit):
            play(
                parse("ann connects\n"), acting_when(name, when, lambda: os.kill(os.getpid(), signal.SIGUSR1))
            )
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("name", ACTING)
def test_time_stops_for_a_thread_and_the_grade_says_so(name: str) -> None:
    """A thread that has ended by the end of the turn has had less time than the script says."""

    def act(line: bytes, write: Callable[[bytes], None], from_thread: Callable[..., object]) -> None:
        def work() -> None:
            time.sleep(0.1)  # or a busy machine could be later than this thread
            from_thread(write, b"worked\n")

        later = gevent.spawn_later if name == "gevent" else asyncio.get_running_loop().call_later
        later(1, threading.Thread(target=work).start)
        later(1.5, write, b"half a second later\n")

    script = parse("settle: 20s\n\nann> work\nwait 2s\nann< worked\nann< half a second later\n")
    verdict = play(script, ACTING[name](act))
    assert verdict.passed, plain(verdict_report(verdict))
    assert (verdict.grade, verdict.unseen) == (Grade.SETTLED, "a thread")


@pytest.mark.parametrize("name", ACTING)
def test_a_line_is_awaited_from_a_thread_that_no_fence_has_seen_before(name: str) -> None:
    def act(line: bytes, write: Callable[[bytes], None], from_thread: Callable[..., object]) -> None:
        def work() -> None:
            time.sleep(0.3)  # longer than the server has to be quiet
            from_thread(write, b"worked\n")

        threading.Thread(target=work).start()

    with Stage(ACTING[name](act), settle=0.02) as stage:
        ann = stage.client("ann")
        ann.post(b"work\n")
        ann.expect("worked")


@pytest.mark.parametrize("name", ACTING)
def test_what_a_thread_leaves_behind_when_it_ends_is_part_of_the_turn(name: str) -> None:
    given: list[Any] = []

    def act(line: bytes, *given_here: Any) -> None:
        given.extend(given_here)

    with Stage(ACTING[name](act)) as stage:
        ann = stage.client("ann")
        ann.send("hello")
        write, from_thread = given
        look = stage.loop._threads.any

        def ends_before_the_look() -> bool:
            if not left:
                left.append(threading.Thread(target=from_thread, args=(write, b"left\n")))
                left[0].start()
                left[0].join()
            return look()

        left: list[threading.Thread] = []
        stage.loop._threads.any = ends_before_the_look
        ann.expect("left")
        assert stage.grade is Grade.EXACT


@pytest.mark.parametrize("name", ACTING)
def test_a_process_that_the_server_forks_lowers_the_grade_while_it_runs(name: str) -> None:
    waits, lets = os.pipe()
    children: list[int] = []

    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: this child uses none
            child = os.fork()
        if not child:
            os.read(waits, 1)
            os._exit(0)
        children.append(child)
        if line == b"wait\n":
            os.write(lets, b"!")
            os.waitpid(children.pop(), 0)

    try:
        verdict = play(parse("settle: 20ms\n\nann> go on\nann receives nothing\n"), ACTING[name](act))
        assert (verdict.grade, verdict.unseen) == (Grade.SETTLED, "a process that the server started")
        os.write(lets, b"!")
        os.waitpid(children.pop(), 0)
        verdict = play(parse("ann> wait\nann receives nothing\n"), ACTING[name](act))
        assert (verdict.passed, verdict.grade) == (True, Grade.EXACT)
    finally:
        os.close(waits)
        os.close(lets)


@pytest.mark.parametrize("name", ACTING)
def test_a_program_that_the_server_starts_lowers_the_grade_while_it_runs(name: str) -> None:
    """Its exit status comes through nothing that a loop watches."""
    programs: list[subprocess.Popen[bytes]] = []

    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        if line == b"start\n":
            programs.append(subprocess.Popen(["sleep", "60"]))

    start, nothing = (
        parse(f"settle: 20ms\n\nann> {line}\nann receives nothing\n") for line in ("start", "nothing")
    )
    try:
        for script in (start, nothing):  # it still runs in the second play
            verdict = play(script, ACTING[name](act))
            assert verdict.passed
            assert (verdict.grade, verdict.unseen) == (Grade.SETTLED, "a process that the server started")
    finally:
        for program in programs:
            program.kill()
            program.wait()
    assert play(nothing, ACTING[name](act)).grade is Grade.EXACT


@pytest.mark.parametrize("name", ACTING)
def test_processes_that_have_ended_or_are_no_servers_leave_the_grade_exact(name: str) -> None:
    program, ended = subprocess.Popen(["sleep", "60"]), list[int]()

    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: this child uses none
            child = os.fork()
        if not child:
            os._exit(0)
        ended.append(child)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # nobody has taken its status

    try:
        for _ in range(2):
            verdict = play(parse("settle: 20ms\n\nann> fork\nann receives nothing\n"), ACTING[name](act))
            assert (verdict.passed, verdict.grade) == (True, Grade.EXACT)
        assert len(ended) == 2
    finally:
        program.kill()
        program.wait()
        for child in ended:
            os.waitpid(child, 0)


@pytest.mark.parametrize("name", ACTING)
def test_a_thread_of_an_earlier_play_lowers_the_grade_until_it_ends(name: str) -> None:
    ends, workers = threading.Event(), list[threading.Thread]()

    def act(line: bytes, write: Callable[[bytes], None], from_thread: object) -> None:
        if not workers:
            workers.append(threading.Thread(target=ends.wait))
            workers[0].start()

    script = parse("settle: 20ms\n\nann> hello\nann receives nothing\n")
    try:
        for _ in range(3):
            verdict = play(script, ACTING[name](act))
            assert verdict.passed
            assert (verdict.grade, verdict.unseen) == (Grade.SETTLED, "a thread")
    finally:
        ends.set()
        workers[0].join()
    assert play(script, ACTING[name](act)).grade is Grade.EXACT


@pytest.mark.parametrize("name", ACTING)
def test_a_thread_that_begins_between_plays_is_no_servers(name: str) -> None:
    """Such as that of a plugin of pytest."""
    script = parse("ann> hello\nann receives nothing\n")
    ends = threading.Event()
    other = threading.Thread(target=ends.wait)
    assert play(script, ACTING[name](lambda *_: None)).grade is Grade.EXACT
    other.start()
    try:
        assert play(script, ACTING[name](lambda *_: None)).grade is Grade.EXACT
    finally:
        ends.set()
        other.join()


def test_a_thread_that_begins_with_the_module_of_the_server_is_a_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "begins_a_thread.py").write_text(
        "import asyncio, threading\n"
        "ends = threading.Event()\n"
        "thread = threading.Thread(target=ends.wait)\n"
        "thread.start()\n"
        "async def serve(spec): return await asyncio.start_server(lambda *_: None, '127.0.0.1', 0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    target = TargetChoice(app="begins_a_thread:serve").target()
    try:
        verdict = play(parse("settle: 20ms\n\nann> hello\nann receives nothing\n"), target)
        assert (verdict.grade, verdict.unseen) == (Grade.SETTLED, "a thread")
    finally:
        begun = sys.modules.pop("begins_a_thread")
        begun.ends.set()
        begun.thread.join()


def test_a_connection_to_the_same_port_at_another_address_leads_out() -> None:
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = own.getsockname()[1]
        stack.enter_context(socket.create_server(("127.0.0.2", port)))
        here, elsewhere = (
            stack.enter_context(socket.create_connection((host, port))) for host in ("127.0.0.1", "127.0.0.2")
        )
        watched = ForeignConnections()
        watched.watch(own.fileno())
        watched.watch(here.fileno())
        assert watched.any() == ""
        watched.watch(elsewhere.fileno())
        assert watched.any() == f"a connection to port {port}"


@contextlib.contextmanager
def connected_by_another_process(listener: socket.socket) -> Iterator[socket.socket]:
    """The accepted connection of a process that keeps it open."""
    connect = "import socket, sys; s = socket.socket(int(sys.argv[1])); s.connect(eval(sys.argv[2])); input()"
    command = [sys.executable, "-c", connect, str(int(listener.family)), repr(listener.getsockname())]
    with subprocess.Popen(command, stdin=subprocess.PIPE), listener.accept()[0] as accepted:
        yield accepted


@pytest.mark.parametrize("family", ["TCP", "Unix"])
def test_an_accepted_connection_leads_out_where_another_process_has_opened_it(
    family: str, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        if family == "TCP":
            own, where = socket.create_server(("127.0.0.1", 0)), ""
        else:
            own, where = socket.socket(socket.AF_UNIX), f"{tmp_path}/socket"
            own.bind(where)
            own.listen()
        stack.enter_context(own)
        where = where or f"port {own.getsockname()[1]}"
        of_this_process = stack.enter_context(socket.socket(own.family))
        of_this_process.connect(own.getsockname())
        accepted = stack.enter_context(own.accept()[0])
        watched = ForeignConnections()
        watched.watch(own.fileno())
        watched.watch(accepted.fileno())
        assert watched.any() == ""
        with connected_by_another_process(own) as foreign:
            watched.watch(foreign.fileno())
            assert watched.any() == f"a connection from another process to {where}"
        assert watched.any() == ""


def test_an_accepted_connection_of_a_client_that_has_closed_does_not_lead_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        watched = ForeignConnections()
        watched.watch(own.fileno())
        with socket.create_connection(own.getsockname()) as client:
            watched.watch_client(client.fileno())
        with own.accept()[0] as accepted:
            watched.watch(accepted.fileno())
            assert watched.any() == ""


def test_a_socket_that_is_connected_long_after_it_was_made_leads_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, socket.socket() as late:
        watched = ForeignConnections()
        watched.watch(late.fileno())
        assert watched.any() == ""
        late.connect(elsewhere.getsockname())
        assert watched.any() == f"a connection to port {elsewhere.getsockname()[1]}"


@pytest.mark.parametrize("name", LOOPS)
def test_a_connected_datagram_socket_does_not_disturb_the_fence(name: str) -> None:
    """Such as that of statistics."""

    class Statistics(StreamServer):  # type: ignore[misc]
        def __init__(self, spec: ServerSpec) -> None:
            super().__init__(("127.0.0.1", 0), self.talk)
            self.statistics = gevent.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.statistics.connect(statsd.getsockname())

        def talk(self, sock: Any, address: object) -> None:
            for line in sock.makefile("rb"):
                self.statistics.send(b"lines:1|c")
                sock.sendall(line)

        def stop(self, timeout: float | None = None) -> None:
            super().stop(timeout)
            self.statistics.close()

    @contextlib.asynccontextmanager
    async def on_asyncio(spec: ServerSpec) -> AsyncIterator[asyncio.Server]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                while line := await reader.readline():
                    statistics.sendto(b"lines:1|c")
                    writer.write(line)

        statistics, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=statsd.getsockname()
        )
        with contextlib.closing(statistics):
            async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
                yield server

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        target = InProcess(Statistics) if name == "gevent" else InProcessAsyncio(on_asyncio)
        verdict = play(parse("ann> hello\nann< hello\n"), target)
        assert verdict.passed, plain(verdict_report(verdict))
        assert verdict.grade is Grade.EXACT


def test_a_connection_that_is_being_made_leads_out_and_a_socket_without_one_does_not() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
        for sock in sockets[1:]:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())  # the last one waits: only one fits
        unconnected, connecting = ForeignConnections(), ForeignConnections()
        unconnected.watch(sockets[0].fileno())
        connecting.watch(sockets[-1].fileno())
        assert (unconnected.any(), connecting.any()) == ("", "a connection that is being made")


def test_a_pipe_to_another_process_counts_until_it_is_closed() -> None:
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            watched = ForeignConnections()
            watched.watch(program.stdout.fileno())
            assert watched.any() == watched.any() == "a pipe to another process"
            program.stdout.close()
            assert watched.any() == ""
        finally:
            program.kill()


def test_a_descriptor_that_something_outside_makes_ready_leads_out_and_one_of_this_process_does_not() -> None:
    with contextlib.ExitStack() as stack:

        def held(fileno: int) -> int:
            stack.callback(os.close, fileno)
            return fileno

        terminal, inside = map(held, os.openpty())
        ends_of_process = held(os.pidfd_open(os.getpid()))
        netlink = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM))
        for outside, words in (
            (terminal, "the device /dev/ptmx"),
            (inside, f"the device {os.ttyname(inside)}"),
            (ends_of_process, "a descriptor of the kind pidfd"),
            (netlink.fileno(), "a socket of the family AF_NETLINK"),
        ):
            watched = ForeignConnections()
            watched.watch(outside)
            assert watched.any() == watched.any() == words
        watched = ForeignConnections()
        for own in (
            *map(held, os.pipe()),
            *(stack.enter_context(one).fileno() for one in socket.socketpair()),
            stack.enter_context(select.epoll()).fileno(),
            held(os.eventfd(0)),
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).fileno(),
        ):
            watched.watch(own)
            assert watched.any() == ""


def test_a_thread_is_seen_that_has_the_number_of_one_that_has_ended() -> None:
    ended = threading.Event()
    first = threading.Thread(target=ended.wait)
    first.start()
    threads = ForeignThreads(lambda frame: False)
    ended.set()
    first.join()
    ended.clear()
    second = threading.Thread(target=ended.wait)
    second.start()
    assert threads.any()
    threads._before[second.ident or 0] = first  # if the numbers happen to differ
    assert threads.any()
    ended.set()
    second.join()


# --- schedules ----------------------------------------------------------------------------------------------


class RecordedSchedule(Schedule):
    """A schedule that records what it decided."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.decided: list[tuple[str, int, int]] = []
        """Each decision: its kind, the requested size or the number of choices, and the answer."""

    def before_accept(self) -> bool:
        allowed = super().before_accept()
        self.decided.append(("accepting", 0, allowed))
        return allowed

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
