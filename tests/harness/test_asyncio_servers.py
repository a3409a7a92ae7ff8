"""Asyncio servers in this process: virtual time and the exact fence where they could be wrong, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import (
    Grade,
    InProcessAsyncio,
    ServerSpec,
    Stage,
    TargetError,
    UnsupportedSpec,
    Verdict,
    parse,
    play,
)
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.fence import FenceFailed, NeverIdle
from harness.targets.application import made_for_asyncio
from harness.targets.choice import TargetChoice
from tests.harness.servers import aio
from tests.patience import HANG_S

CHAT = """\
alice> LOGIN alice
alice< OK
bob> LOGIN bob
bob< OK
carol> LOGIN carol
carol< OK

alice> MSG hi
bob< MSG alice hi
carol< MSG alice hi
"""


@pytest.fixture(scope="module", autouse=True)
def _only_new_objects_are_looked_at() -> Iterator[None]:
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()  # the first loop of libuv opens descriptors for the whole process
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No task, socket, loop or thread outlives its play; what is unclosed would warn while it is collected."""
    gc.collect()
    before, threads = _remains(), frozenset(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if thread not in threads:
            thread.join(HANG_S)  # it has done its work
    for _ in range(2):  # what is finalized by the first is collected by the second
        gc.collect()
    assert _remains() <= before


def _remains() -> tuple[int, ...]:
    things = gc.get_objects()
    return (
        len(os.listdir("/proc/self/fd")),
        sum(isinstance(thing, asyncio.Task) and not thing.done() for thing in things),
        sum(isinstance(thing, asyncio.BaseTransport) for thing in things),
        sum(isinstance(thing, asyncio.AbstractEventLoop) and not thing.is_closed() for thing in things),
        threading.active_count(),
    )


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage(InProcessAsyncio(aio.late)) as made:
        yield made


def played(text: str, factory: Callable[..., Any] = aio.chat) -> Verdict:
    return play(parse(text, "aio.chat"), InProcessAsyncio(factory))


# --- the fence and time --------------------------------------------------------------------------------------


def test_many_waits_add_up_without_an_error() -> None:
    with Stage(InProcessAsyncio(aio.main_coroutine)) as stage:
        alice = stage.client("alice")
        alice.connect()
        stage.fence()
        for seconds in (1, 1, 30, 27.999):
            stage.wait(seconds)
        alice.expect_nothing()
        stage.wait(0.001)
        alice.expect("idle")
        alice.expect_closed()


def test_a_ticking_server_is_idle_between_two_ticks() -> None:
    with Stage(InProcessAsyncio(aio.managed)) as stage:
        alice = stage.client("alice")
        alice.send("hi")
        alice.expect("hi")
        stage.wait(59)
        alice.expect_nothing()
        stage.wait(1)
        alice.expect("idle")
        assert stage.grade is Grade.EXACT


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["0", "1e-7", "1.4e-6", "0.25", "1e9", "inf"]), min_size=1, max_size=8))
def test_timers_fire_in_order_and_at_their_time(delays: list[str]) -> None:
    with Stage(InProcessAsyncio(aio.late)) as stage:
        alice = stage.client("alice")
        for delay in delays:
            alice.send(f"LATER {delay}")
        soon = sum(delay == "0" for delay in delays)
        assert bytes(alice.inbox) == b"done\n" * soon
        stage.wait(0.249_999)
        soon += sum(delay in ("1e-7", "1.4e-6") for delay in delays)
        assert bytes(alice.inbox) == b"done\n" * soon
        stage.wait(0.000_001)
        assert bytes(alice.inbox) == b"done\n" * (soon + delays.count("0.25"))


async def _yielding_echo(spec: ServerSpec) -> asyncio.Server:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await asyncio.sleep(0)
            writer.write(line)
        writer.close()

    return await asyncio.start_server(converse, "127.0.0.1", 0)


def test_no_answer_is_missed_in_many_rounds() -> None:
    """The long form is `python -m bench.harness --rounds 20000`."""
    with Stage(InProcessAsyncio(_yielding_echo)) as stage:
        alice, bob = stage.clients("alice", "bob")
        for n in range(1000):
            asks = alice if n % 2 else bob
            asks.send(f"line {n}")
            assert asks.take(100) == f"line {n}\n".encode()
        assert stage.grade is Grade.EXACT


def test_a_split_write_is_read_in_two_parts() -> None:
    async def reads(spec: ServerSpec) -> asyncio.Server:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(repr(data).encode() + b"\n")
            writer.close()

        return await asyncio.start_server(converse, "127.0.0.1", 0)

    verdict = play(
        parse("alice>> he\nalice>> llo\\n\nalice< b'he'\nalice< b'llo\\n'\n"), InProcessAsyncio(reads)
    )
    assert verdict.passed, verdict.failures


def test_more_than_a_socket_holds_is_sent_and_received(stage: Stage) -> None:
    alice, bob = stage.clients("alice", "bob")
    bob.connect()
    line = b"x" * 60_000 + b"\n"
    alice.post(line * 200)
    stage.fence([alice])
    assert bytes(bob.inbox) == line * 200
    bob.take(len(line) * 200)


# --- what is not exact ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["THREAD", "SUBMIT"])
def test_a_thread_that_the_loop_does_not_know_lowers_the_grade(stage: Stage, way: str) -> None:
    alice = stage.client("alice")
    assert stage.grade is Grade.EXACT
    alice.send(way)
    assert stage.grade is Grade.SETTLED
    alice.send("END")
    alice.expect("done")


def test_a_job_that_a_thread_takes_while_its_frame_is_looked_at_is_seen(stage: Stage) -> None:
    takes, ends = threading.Event(), threading.Event()

    def job() -> None:
        takes.set()
        ends.wait(HANG_S)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        threads = stage.loop._threads  # type: ignore[attr-defined]
        could_run = threads.any_could_run

        def lets_it_run() -> bool:
            if not takes.is_set():
                pool.submit(job)
                takes.wait(HANG_S)
            return bool(could_run())

        assert stage.loop.settle()
        threads.any_could_run = lets_it_run
        try:
            assert not stage.loop.settle()
        finally:
            ends.set()


class _AnswersFromAPool:
    """Answers a connection past the loop, in a job that only the pool knows."""

    def __init__(self, spec: ServerSpec) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.addresses = {"": self._listener.getsockname()}
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        self._pool.submit(self._answer, self._listener.accept()[0])

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            time.sleep(0.02)
            sock.sendall(b"12:00\n")

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._pool.shutdown()


def test_what_a_job_sends_past_the_loop_while_the_harness_waits_for_it_has_arrived() -> None:
    verdict = play(
        parse("alice connects\nalice< 12:00\nalice is closed\n"), InProcessAsyncio(_AnswersFromAPool)
    )
    assert verdict.passed, plain(report(verdict))


@pytest.mark.parametrize("way", ["PROCESS", "SLOW-PROCESS", "CHILD"])
def test_a_subprocess_lowers_the_grade(stage: Stage, way: str) -> None:
    alice = stage.client("alice")
    alice.send(way)
    alice.expect("done")
    assert stage.grade is Grade.SETTLED


def test_a_script_waits_for_what_a_subprocess_causes() -> None:
    verdict = played("alice> SLOW-PROCESS\nalice< done\n", aio.late)
    assert verdict.passed, plain(report(verdict))
    assert verdict.grade is Grade.SETTLED


def test_a_loop_that_never_becomes_idle_is_an_error_after_a_bounded_time() -> None:
    began = time.monotonic()
    with (
        pytest.raises((NeverIdle, TargetError), match="never became idle"),
        Stage(InProcessAsyncio(aio.late), within=0.3) as stage,
    ):
        stage.client("alice").send("SPIN")
    assert time.monotonic() - began < 20


def test_a_job_that_does_not_return_is_an_error() -> None:
    with (
        pytest.raises((FenceFailed, TargetError), match="had a thread at work that did not return"),
        Stage(InProcessAsyncio(aio.late), within=0.3) as stage,
    ):
        stage.client("alice").send("STUCK")


@pytest.mark.parametrize("way", ["uvloop.run", "policy"])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_another_kind_of_loop_is_refused(way: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    def program() -> None:
        if way == "uvloop.run":
            uvloop.run(aio.main_coroutine())
        before = asyncio.get_event_loop_policy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        try:
            asyncio.run(aio.main_coroutine())
        finally:
            asyncio.set_event_loop_policy(before)

    with (
        pytest.raises(TargetError, match=r"asks for uvloop\.\w+, whose time cannot be virtual; play it with"),
        Stage(InProcessAsyncio(program)),
    ):
        pass


def test_an_asyncio_server_cannot_be_played_while_a_loop_runs() -> None:
    async def test() -> None:
        with (
            pytest.raises(TargetError, match="in a thread whose event loop is running"),
            Stage(InProcessAsyncio(aio.late)),
        ):
            pass

    asyncio.run(test())


# --- what goes wrong in the server ---------------------------------------------------------------------------


def test_a_correct_chat_passes_and_wrong_ones_do_not() -> None:
    assert played(CHAT).passed
    wrong = {fault: played(f"server: fault={fault}\n\n{CHAT}") for fault in ("echoes", "forgets", "late")}
    assert {fault: verdict.failures[0].client for fault, verdict in wrong.items()} == {
        "echoes": "alice",
        "forgets": "carol",
        "late": "bob",
    }
    assert [(line.client, line.at_s) for line in wrong["late"].late_lines] == [
        ("bob", 0.5),
        ("carol", 0.5),
    ]


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("CRASH", "RuntimeError: this server crashes when asked to"),
        ("TASK-CRASH", "RuntimeError: this task crashes when asked to"),
        ("CALLBACK-CRASH", "ValueError: invalid literal for int() with base 10: 'not a number'"),
    ],
)
def test_an_unhandled_exception_is_known_at_once(stage: Stage, way: str, what: str) -> None:
    alice = stage.client("alice")
    alice.connect()
    assert stage.take_errors() == ()
    alice.send(way)
    assert [error.text for error in stage.take_errors()] == [what]
    assert stage.take_errors() == ()
    assert what in stage.server_output()
    alice.take(5)


def test_a_script_fails_over_an_exception_unless_it_expects_it() -> None:
    script = "alice> TASK-CRASH\nalice< done\n"
    text = plain(report(played(script, aio.late)))
    assert "RuntimeError: this task crashes when asked to" in text
    assert played(script + "the server raises RuntimeError\n", aio.late).passed
    assert not played(script + "the server raises ValueError\n", aio.late).passed


def test_an_exception_that_the_server_handles_is_not_an_error(stage: Stage) -> None:
    alice = stage.client("alice")
    alice.send("HANDLED")
    alice.expect("done")
    stage.settle()
    assert stage.server_output() == ""


def test_an_exception_that_the_server_asks_for_later_is_not_an_error() -> None:
    script = "alice> KEEP\nalice< done\nwait 5s\nalice> ASK\nalice< this task crashes when asked to\n"
    assert played(script, aio.late).passed


def test_an_exception_that_the_server_never_asks_for_is_an_error_in_the_end() -> None:
    verdict = played("alice> KEEP\nalice< done\n", aio.late)
    assert "RuntimeError: this task crashes when asked to" in plain(report(verdict))


def test_an_exception_of_a_protocol_callback_is_an_error_and_ends_the_connection() -> None:
    script = "alice> NONSENSE\nalice is disconnected\n"
    assert "ValueError: unknown command 'NONSENSE'" in plain(report(played(script)))
    assert played(script + "the server raises ValueError\n").passed


@pytest.mark.parametrize("way", ["CRASH", "TASK-CRASH", "CALLBACK-CRASH"])
def test_an_exception_that_was_not_reported_is_printed_at_the_end(
    capsys: pytest.CaptureFixture[str], way: str
) -> None:
    with Stage(InProcessAsyncio(aio.late)) as stage:
        stage.client("alice").send(way)
    printed = capsys.readouterr().err
    assert printed.count("Traceback") == 1


def test_an_exception_from_a_signal_handler_reaches_the_test() -> None:
    class TimeIsUp(BaseException):
        pass

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGVTALRM, raise_it)
    try:
        with Stage(InProcessAsyncio(aio.late), within=20) as stage:
            began = time.monotonic()
            for way in ("STUCK", "BLOCK"):
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGVTALRM)).start()
                with pytest.raises(TimeIsUp):
                    stage.client(way).send(way)
            assert time.monotonic() - began < 15
            stage.server_output()
    finally:
        signal.signal(signal.SIGVTALRM, before)


# --- forms of servers ----------------------------------------------------------------------------------------

IDLE = "alice> hi\nalice< hi\nwait 59.999s\nalice receives nothing\nwait 1ms\nalice< idle\nalice is closed\n"


@pytest.mark.parametrize("factory", [aio.main_coroutine, aio.program, aio.old_program, aio.managed])
def test_every_form_of_server_is_played_in_virtual_time(factory: Callable[..., Any]) -> None:
    verdict = played(IDLE, factory)
    assert verdict.passed, verdict.failures or verdict.reason
    assert verdict.grade is Grade.EXACT


def _runs_twice() -> None:
    """Such as a program that migrates its database first."""

    async def serve() -> None:
        await asyncio.to_thread(int)
        async with await asyncio.start_server(aio.echo, "localhost", 0) as server:
            await server.serve_forever()

    asyncio.run(asyncio.wait_for(asyncio.to_thread(int), 1))
    asyncio.run(serve())


def _sets_signal_handlers() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        asyncio.run(aio.main_coroutine())
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("program", [_runs_twice, _sets_signal_handlers])
def test_a_program_can_do_what_it_does_alone(program: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        verdict = played(IDLE, program)
        assert verdict.passed, verdict.failures or verdict.reason
        assert verdict.grade is Grade.EXACT
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("sets", [True, False])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_program_that_runs_a_loop_that_it_has_made_itself_is_refused(sets: bool) -> None:
    def program() -> None:
        loop = asyncio.SelectorEventLoop()
        with contextlib.closing(loop):
            if sets:
                asyncio.set_event_loop(loop)
            loop.run_until_complete(aio.main_coroutine())

    with (
        pytest.raises(TargetError, match=r"runs its own loop, asyncio\.\S+, whose time cannot be virtual"),
        Stage(InProcessAsyncio(program)),
    ):
        pass


def test_the_program_has_ended_when_the_stage_has() -> None:
    ended = []

    def program() -> None:
        try:
            asyncio.run(aio.main_coroutine())
        finally:
            ended.append(threading.current_thread())

    for _ in range(3):
        assert played(IDLE, program).passed
    assert len(ended) == 3
    assert not any(thread.is_alive() for thread in ended)


def test_an_application_with_several_endpoints_reads_virtual_time() -> None:
    closed = aio.TwoEndpoints.closed
    with Stage(InProcessAsyncio(aio.two_endpoints), ServerSpec(("back",))) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.connect()
        alice.expect("back at 1234567890.0")
        stage.wait(100)
        bob.connect("front")
        bob.expect("front at 1234567990.0")
        with pytest.raises(UnsupportedSpec, match="no endpoint 'side'; known: front, back"):
            stage.client("carol").connect("side")
    assert aio.TwoEndpoints.closed == closed + 1


async def _fails(spec: ServerSpec) -> None:
    raise RuntimeError("no database")


async def _stubborn(spec: ServerSpec) -> asyncio.Server:
    async def go_on() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    asyncio.ensure_future(go_on())  # noqa: RUF006  # nothing can end it, so nothing keeps it
    return await asyncio.start_server(aio.echo, "127.0.0.1", 0)


async def _stubborn_and_ticking(spec: ServerSpec) -> asyncio.Server:
    async def go_on() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    asyncio.ensure_future(go_on())  # noqa: RUF006  # nothing can end it, so nothing keeps it
    return await asyncio.start_server(aio.echo, "127.0.0.1", 0)


async def _ticks_instead_of_starting(spec: ServerSpec) -> None:
    while True:
        await asyncio.sleep(1)


async def _listens_nowhere(spec: ServerSpec) -> None:
    pass


async def _never_starts(spec: ServerSpec) -> None:
    await asyncio.Event().wait()


class _DoesNotStop:
    async def __aenter__(self) -> None:
        self.server = await asyncio.start_server(aio.echo, "127.0.0.1", 0)

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        raise RuntimeError("no way to stop")


def _blocks() -> None:
    time.sleep(3)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (_fails, r"(?s)_fails does not start: RuntimeError\('no database'\).*Traceback.*no database"),
        (_listens_nowhere, "None has started but listens nowhere"),
        (_stubborn, "waits for something that cannot come, while starting or stopping"),
        (_never_starts, "waits for something that cannot come, while starting or stopping"),
        (_stubborn_and_ticking, "waits for something that does not come, while starting or stopping"),
        (_ticks_instead_of_starting, "waits for something that does not come, while starting or stopping"),
        (_DoesNotStop, r"_DoesNotStop does not stop: RuntimeError\('no way to stop'\)"),
        (_blocks, r"did not return to its event loop within 0\.3 s"),
        (lambda: None, "does not start: it ended before it listened"),
        (lambda: sys.exit("no port"), r"does not start: SystemExit\('no port'\)"),
    ],
)
def test_a_server_that_does_not_start_or_stop_is_a_broken_target(
    factory: Callable[..., Any], message: str
) -> None:
    with pytest.raises(TargetError, match=message), Stage(InProcessAsyncio(factory), within=0.3):
        pass


async def _dies() -> None:
    server = await asyncio.start_server(aio.echo, "127.0.0.1", 0)
    await asyncio.sleep(10)
    server.close()
    raise RuntimeError("out of memory")


def _dying_program() -> None:
    asyncio.run(_dies())


@pytest.mark.parametrize("factory", [_dies, _dying_program])
def test_a_program_that_ends_is_a_dead_server(factory: Callable[..., Any]) -> None:
    verdict = played("alice> hi\nalice< hi\nwait 11s\nalice> hi\nalice< hi\n", factory)
    assert "ended with RuntimeError('out of memory')" in plain(report(verdict))
    assert "the server's code raised RuntimeError: out of memory" in plain(report(verdict))


def test_options_that_nothing_takes_are_refused() -> None:
    with (
        pytest.raises(UnsupportedSpec, match="no option 'idel'; known: fault"),
        Stage(InProcessAsyncio(aio.chat), ServerSpec((), {"idel": "1"})),
    ):
        pass
    with (
        pytest.raises(UnsupportedSpec, match=r"no option 'idle': .*main_coroutine takes none"),
        Stage(InProcessAsyncio(aio.main_coroutine), ServerSpec((), {"idle": "1"})),
    ):
        pass


class _StartsAsynchronously:
    def __init__(self, spec: ServerSpec) -> None:
        pass

    async def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("factory", [aio.chat, aio.late, _StartsAsynchronously])
def test_an_asyncio_server_is_not_played_on_gevent(factory: Callable[..., Any]) -> None:
    from harness import InProcess

    with (
        pytest.raises(TargetError, match="use asyncio:MODULE:FACTORY or InProcessAsyncio"),
        Stage(InProcess(factory)),
    ):
        pass


def test_jobs_of_executors_keep_the_fence_exact(stage: Stage) -> None:
    for _ in range(20):
        alice = stage.client("alice")
        alice.send("QUICK-JOB")
        assert alice.take(100) == b"done\n"
    assert stage.grade is Grade.EXACT


# --- the choice ----------------------------------------------------------------------------------------------

HERE = "tests.harness.servers.aio"


@pytest.mark.parametrize("name", ["chat", "managed", "main_coroutine", "Late"])
def test_a_factory_that_is_asynchronous_is_played_on_asyncio(name: str) -> None:
    assert made_for_asyncio(getattr(aio, name))
    assert isinstance(TargetChoice(app=f"{HERE}:{name}").target(), InProcessAsyncio)


@pytest.mark.parametrize("name", ["late", "program"])
def test_a_factory_that_does_not_show_its_loop_is_played_on_the_loop_that_is_named(name: str) -> None:
    from harness import InProcess

    assert isinstance(TargetChoice(app=f"{HERE}:{name}").target(), InProcess)
    assert isinstance(TargetChoice(app=f"asyncio:{HERE}:{name}").target(), InProcessAsyncio)
    assert isinstance(TargetChoice(app=f"gevent:{HERE}:chat").target(), InProcess)


# --- isolation -----------------------------------------------------------------------------------------------


def test_the_signals_of_the_process_are_not_the_servers() -> None:
    async def serve() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, list)
        await aio.main_coroutine()

    before = signal.getsignal(signal.SIGINT)
    with Stage(InProcessAsyncio(serve)) as stage:
        stage.client("alice").send("hi")
        assert signal.getsignal(signal.SIGINT) is before


def test_a_task_left_behind_runs_its_finally_before_the_stage_ends() -> None:
    ended = []

    async def linger() -> None:
        try:
            await asyncio.sleep(1_000_000)
        finally:
            await asyncio.sleep(1)
            ended.append("finally")

    async def serve(spec: ServerSpec) -> asyncio.Server:
        serve.task = asyncio.ensure_future(linger())  # type: ignore[attr-defined]
        return await asyncio.start_server(aio.echo, "127.0.0.1", 0)

    with Stage(InProcessAsyncio(serve)) as stage:
        stage.fence()
    assert ended == ["finally"]


def test_a_server_that_never_becomes_idle_is_closed_all_the_same() -> None:
    closed = aio.TwoEndpoints.closed

    async def serve(spec: ServerSpec) -> aio.TwoEndpoints:
        async def spin(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                while True:
                    await asyncio.sleep(0)

        return aio.TwoEndpoints({"only": await asyncio.start_server(spin, "127.0.0.1", 0)})

    with (
        pytest.raises(TargetError, match="never became idle"),
        Stage(InProcessAsyncio(serve), within=0.2) as stage,
    ):
        stage.client("alice").connect()
    assert aio.TwoEndpoints.closed == closed + 1


def test_a_server_that_closes_nothing_leaves_nothing_behind() -> None:
    kept: list[Any] = []

    async def careless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)

    async def serve(spec: ServerSpec) -> None:
        await asyncio.start_server(careless, "127.0.0.1", 0)

    with Stage(InProcessAsyncio(serve)) as stage:
        for client in stage.clients("alice", "bob"):
            client.connect()
        stage.fence()
    assert all(writer.is_closing() for writer in kept)
    kept.clear()


MONKEY = """
from gevent import monkey

monkey.patch_all()
from harness import InProcessAsyncio, Stage
from tests.harness.servers.aio import chat

with Stage(InProcessAsyncio(chat)):
    pass
"""


def test_a_monkey_patched_program_is_advised_to_play_asyncio_servers_elsewhere() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MONKEY], cwd=root, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert "TargetError" in done.stderr
    assert "cannot be played where gevent has replaced the standard library's sockets" in done.stderr
