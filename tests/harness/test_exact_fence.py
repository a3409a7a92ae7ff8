"""The exact fence where it could be wrong: sleeps, pools, spawned greenlets, queues, threads, Nagle, crashes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import gevent.queue
import pytest
from gevent.server import StreamServer

from harness import (
    Address,
    Grade,
    InProcess,
    InProcessAsyncio,
    ServerSpec,
    Stage,
    TargetError,
    UnsupportedSpec,
)
from harness.stage.fence import FenceFailed, NeverIdle
from harness.stage.stage import Unexpected
from tests.harness.servers.late import serve
from tests.patience import HANG_S


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage(InProcess(serve)) as made:
        yield made


def test_others_have_received_a_line_when_its_sender_has_been_processed(stage: Stage) -> None:
    alice, bob, carol = stage.clients("alice", "bob", "carol")
    for client in (alice, bob, carol):
        client.connect()
    stage.fence()
    for n in range(200):
        alice.send(f"line {n}")
        for other in (bob, carol):
            assert other.take(100) == f"line {n}\n".encode()
    alice.expect_nothing()


def test_lines_sent_in_order_are_received_in_order() -> None:
    with Stage(InProcess(serve)) as stage:
        alice, bob, carol = stage.clients("alice", "bob", "carol")
        for client in (alice, bob, carol):
            client.connect()
        stage.fence()
        for n in range(7):
            alice.send(f"line {n}")
            bob.expect(f"line {n}")
            carol.expect(f"line {n}")
        stage.settle()


def test_a_thread_started_by_the_server_lowers_the_grade(stage: Stage) -> None:
    alice = stage.client("alice")
    assert stage.grade is Grade.EXACT
    alice.send("THREAD")
    assert stage.grade is Grade.SETTLED
    alice.send("END")
    alice.expect("done")


def test_a_loop_that_never_becomes_idle_is_an_error_after_a_bounded_time() -> None:
    began = time.monotonic()
    with (
        pytest.raises((NeverIdle, TargetError), match="never became idle"),
        Stage(InProcess(serve), within=0.3) as stage,
    ):
        stage.client("alice").send("SPIN")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("wait", [lambda stage: stage.loop.pause(0.2), lambda stage: gevent.sleep(0.2)])
def test_what_a_test_computes_is_not_counted_by_the_guards_that_follow(stage: Stage, wait) -> None:
    busy_until = time.monotonic() + 0.3
    while time.monotonic() < busy_until:
        pass
    began = time.monotonic()
    wait(stage)
    assert time.monotonic() - began > 0.19


def test_a_pool_thread_that_does_not_return_is_an_error() -> None:
    with Stage(InProcess(serve), within=0.3) as stage:
        with pytest.raises(FenceFailed, match="had a thread at work that did not return"):
            stage.client("alice").send("STUCK")
        gevent.get_hub().threadpool.join()


def test_a_crash_is_in_the_server_output(stage: Stage) -> None:
    alice = stage.client("alice")
    alice.send("CRASH")
    alice.expect_closed()
    assert "this server crashes when asked to" in stage.server_output()


def test_a_crash_that_was_not_reported_is_printed_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Stage(InProcess(serve)) as stage:
        stage.client("alice").send("CRASH")
    assert "this server crashes when asked to" in capsys.readouterr().err


def test_settle_fails_for_an_unexpected_line(stage: Stage) -> None:
    alice, bob = stage.clients("alice", "bob")
    bob.connect()
    alice.send("hello")
    with pytest.raises(Unexpected, match="bob received `< hello`, which was not expected"):
        stage.settle()
    bob.take(6)


def test_a_wrong_line_is_reported_with_the_line_received_instead(stage: Stage) -> None:
    alice, bob = stage.clients("alice", "bob")
    bob.connect()
    alice.send("hello")
    with pytest.raises(Unexpected, match="bob received `< hello` instead of `< hullo`"):
        bob.expect("hullo")
    bob.expect("hello")


# --- isolation ----------------------------------------------------------------------------------------------


def test_the_callers_hub_continues_unchanged() -> None:
    hub = gevent.get_hub()
    ticks: list[int] = []

    def tick() -> None:
        for n in range(3):
            gevent.sleep(0.001)
            ticks.append(n)

    ticking = gevent.spawn(tick)
    with Stage(InProcess(serve)) as stage:
        assert gevent.get_hub() is not hub
        stage.client("alice").send("SLEEP 5")
        stage.wait(5)
        stage.client("alice").expect("done")
        assert ticks == []
    assert gevent.get_hub() is hub
    ticking.join()
    assert ticks == [0, 1, 2]


def test_the_callers_hub_is_back_after_a_stage_that_failed() -> None:
    hub = gevent.get_hub()
    with pytest.raises(ZeroDivisionError), Stage(InProcess(serve)):
        raise ZeroDivisionError
    assert gevent.get_hub() is hub


@pytest.mark.parametrize("make", [gevent.queue.Queue, gevent.queue.SimpleQueue, gevent.queue.Channel])
def test_a_queue_made_before_the_play_wakes_the_server(make: Callable[[], Any]) -> None:
    lines = make()

    def echo(sock: Any, _address: object) -> None:
        gevent.spawn(lambda: [sock.sendall(line) for line in iter(lines.get, b"end\n")])
        for line in sock.makefile("rb"):
            lines.put(line)
        lines.put(b"end\n")

    for _ in range(2):
        with Stage(InProcess(lambda spec: StreamServer(("127.0.0.1", 0), echo))) as stage:
            alice = stage.client("alice")
            for text in ("one", "two"):
                alice.send(text)
                alice.expect(text)


def test_a_greenlet_made_before_the_play_runs_in_it() -> None:
    def wait() -> None:
        gevent.sleep(60)
        ended.append("wait")

    ended: list[str] = []
    waiting = gevent.Greenlet(wait)

    class Waiting(StreamServer):
        def start(self) -> None:
            super().start()
            waiting.start()

    with Stage(InProcess(lambda spec: Waiting(("127.0.0.1", 0), lambda *_: None))) as stage:
        stage.wait(59)
        assert ended == []
        stage.wait(1)
        assert ended == ["wait"]


def test_what_a_test_puts_into_its_own_queue_waits_for_its_own_hub() -> None:
    lines: gevent.queue.Queue[str] = gevent.queue.Queue()
    getting = gevent.spawn(lines.get)
    gevent.idle()
    with Stage(InProcess(serve)) as stage:
        lines.put("hello")
        stage.fence()
        assert not getting.ready()
    assert getting.get() == "hello"


def test_a_hundred_stages_leave_nothing_behind() -> None:
    def once() -> None:
        with Stage(InProcess(serve)) as stage:
            alice, bob = stage.clients("alice", "bob")
            bob.connect()
            alice.send("hello")
            bob.expect("hello")
            alice.send("SLEEP 1000")  # its greenlet still sleeps when the stage ends
            bob.abort()

    once()
    gc.collect()
    fds, greenlets = len(os.listdir("/proc/self/fd")), _greenlets()
    for _ in range(100):
        once()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == fds
    assert _greenlets() <= greenlets


def _greenlets() -> int:
    return sum(isinstance(thing, gevent.Greenlet) and not thing.dead for thing in gc.get_objects())


def test_a_greenlet_left_behind_runs_its_finally_before_the_stage_ends() -> None:
    ended: list[str] = []

    class Lingering(StreamServer):
        def start(self) -> None:
            super().start()
            gevent.spawn(self.linger)

        def linger(self) -> None:
            try:
                gevent.sleep(1_000_000)
            finally:
                ended.append("finally")

    with Stage(InProcess(lambda spec: Lingering(("127.0.0.1", 0), lambda *_: None))) as stage:
        stage.fence()
    assert ended == ["finally"]


WITH_SIGNALS = """
import gevent, os, signal
from gevent.server import StreamServer
from harness import InProcess, Stage

def serve(spec):
    server = StreamServer(("127.0.0.1", 0), lambda sock, _: [sock.sendall(line) for line in sock.makefile("rb")])
    handler = gevent.signal_handler(signal.SIGINT, server.stop)
    gevent.signal_handler(signal.SIGTERM, server.stop).cancel()
    assert handler.watcher.active
    return server

for _ in range(2):
    with Stage(InProcess(serve)) as stage:
        alice = stage.client("alice")
        try:
            os.kill(os.getpid(), signal.SIGINT)
            stage.wait(1)
        except KeyboardInterrupt:
            print("interrupted")
        alice.send("hello")
        alice.expect("hello")
"""


def test_signals_that_a_server_watches_are_for_the_process_that_runs_the_test() -> None:
    command = [sys.executable, "-W", "error", "-c", WITH_SIGNALS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\n" * 2, "")


@pytest.mark.parametrize("kind", ["gevent", "asyncio"])
def test_the_handlers_and_timers_that_a_server_sets_are_gone_afterwards(kind: str) -> None:
    def set_both() -> None:
        signal.signal(signal.SIGUSR1, print)
        signal.signal(signal.SIGVTALRM, print)
        signal.setitimer(signal.ITIMER_VIRTUAL, 10_000)

    def serve(spec: ServerSpec) -> StreamServer:
        set_both()
        return StreamServer(("127.0.0.1", 0), lambda *_: None)

    async def serve_asyncio(spec: ServerSpec) -> asyncio.Server:
        set_both()
        return await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)

    numbers = (signal.SIGUSR1, signal.SIGVTALRM)
    before = [signal.getsignal(number) for number in numbers]
    with Stage(InProcess(serve) if kind == "gevent" else InProcessAsyncio(serve_asyncio)) as stage:
        assert [signal.getsignal(number) for number in numbers] == [print, print]
        stage.fence()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize("where", ["in process", "elsewhere"])
def test_an_exception_from_a_signal_handler_reaches_the_test(where: str) -> None:
    """Ctrl-C, and the time-out of pytest-timeout, while the stage waits in its loop."""

    class TimeIsUp(BaseException):
        pass

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    target = InProcess(serve) if where == "in process" else Address("127.0.0.1", 9)
    before = signal.signal(signal.SIGVTALRM, raise_it)
    try:
        with Stage(target, within=20) as stage:
            began = time.monotonic()
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGVTALRM)).start()
            inside = stage.grade is Grade.EXACT
            wait = partial(stage.client("alice").send, "STUCK") if inside else partial(stage.wait, 20)
            with pytest.raises(TimeIsUp):
                wait()
            assert time.monotonic() - began < 15
    finally:
        signal.signal(signal.SIGVTALRM, before)


# --- factories -----------------------------------------------------------------------------------------------


class TwoEndpoints:
    """An application with two endpoints that needs time to start and to stop."""

    def __init__(self, spec: ServerSpec) -> None:
        if unknown := set(spec.options) - {"greeting"}:
            raise UnsupportedSpec(f"no option {min(unknown)!r}; known: greeting")
        greeting = spec.options.get("greeting", "hello")
        self.clock = spec.clock
        self.servers = {
            name: StreamServer(
                ("127.0.0.1", 0), lambda sock, _, name=name: self.greet(sock, f"{greeting} {name}")
            )
            for name in ("front", "back")
        }

    def greet(self, sock: object, text: str) -> None:
        sock.sendall(f"{text} at {self.clock.time():.1f}\n".encode())  # type: ignore[attr-defined]

    def start(self) -> None:
        gevent.sleep(0.5)
        for server in self.servers.values():
            server.start()

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()
        gevent.sleep(30)

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        return {name: server.address for name, server in self.servers.items()}


def test_an_application_with_several_endpoints_reads_virtual_time() -> None:
    began = time.monotonic()
    with Stage(InProcess(TwoEndpoints), ServerSpec(("back",), {"greeting": "welcome"})) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.connect()
        alice.expect("welcome back at 1234567890.5")
        stage.wait(100)
        bob.connect("front")
        bob.expect("welcome front at 1234567990.5")
        assert stage.now() == 100.0
        with pytest.raises(UnsupportedSpec, match="no endpoint 'side'; known: front, back"):
            stage.client("carol").connect("side")
    assert time.monotonic() - began < 20


def test_an_unknown_option_is_reported_as_unsupported() -> None:
    misspelt = Stage(InProcess(TwoEndpoints), ServerSpec((), {"greting": "hi"}))
    with pytest.raises(UnsupportedSpec, match="no option 'greting'; known: greeting"), misspelt:
        pass


def test_a_factory_that_fails_is_a_broken_target() -> None:
    def broken(_spec: ServerSpec) -> object:
        raise RuntimeError("no database")

    with (
        pytest.raises(TargetError, match=r"(?s)does not start: RuntimeError.*no database"),
        Stage(InProcess(broken)),
    ):
        pass


PATCHED = """
from gevent import monkey

monkey.patch_all()
import socket
import sys
import threading
import time

from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer
from harness import Command, Fence, InProcess, Stage


def app(environ, start_response):
    time.sleep(30)
    start_response("200 OK", [])
    return [b"page"]


with Stage(InProcess(lambda spec: WSGIServer(("127.0.0.1", 0), app, log=None)), eol=b"\\r\\n") as stage:
    alice = stage.client("alice")
    alice.post(b"GET / HTTP/1.0\\r\\n\\r\\n")
    stage.wait(29.999)
    alice.expect_nothing()
    stage.wait(0.001)
    alice.expect("HTTP/1.1 200 OK")
    assert alice.inbox.endswith(b"page")
    alice.take(10_000)


def echo(sock, address):
    for line in sock.makefile("rb"):
        sock.sendall(line)


for host in ("::1", "::", "0.0.0.0"):
    with Stage(InProcess(lambda spec: StreamServer((host, 0), echo))) as stage:
        alice = stage.client("alice")
        alice.send_bytes(b"he")
        alice.send_bytes(b"llo\\n")
        alice.expect("hello")
        stage.settle()

with Stage(Command([sys.executable, *sys.argv[1:], "{port}"]), fence=Fence("PING", ("PONG",))) as stage:
    alice = stage.client("alice")
    alice.send("LOGIN alice")
    alice.expect("OK")
    stage.settle()
began = time.monotonic()
time.sleep(0.01)
assert time.monotonic() - began < 5
print("fine")
"""


def test_stages_work_in_a_monkey_patched_program() -> None:
    threaded = str(Path(__file__).parent / "servers" / "threaded.py")
    command = [sys.executable, "-W", "error", "-c", PATCHED, "-S", threaded]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert (done.stdout, done.stderr) == ("fine\n", "")
