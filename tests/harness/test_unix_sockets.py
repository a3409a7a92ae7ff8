"""Unix sockets: given to a command, printed by it, by address and in process; splits, slow readers and what cannot be done."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.server import StreamServer

from harness import (
    Address,
    Command,
    Fence,
    InProcess,
    InProcessAsyncio,
    ServerSpec,
    Stage,
    Target,
    TargetError,
    parse,
    play,
)
from harness.cli import main
from harness.playing.verdict import Outcome
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.fence import FenceFailed, Grade

PING = Fence("PING ${token}", ("PONG ${token}",))
CHAT = """
    import os, socketserver, sys, threading
    people, lock = [], threading.Lock()
    class Talk(socketserver.StreamRequestHandler):
        def handle(self):
            people.append(self.wfile)
            for line in self.rfile:
                with lock:
                    if line.startswith(b"PING"):
                        self.wfile.write(b"PONG" + line[4:])
                    elif line.startswith(b"QUIT"):
                        break
                    else:
                        for other in people:
                            other.write(line)
            people.remove(self.wfile)
    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
    server = Server(sys.argv[1], Talk)
    print("listening on unix:" + sys.argv[1], flush=True)
    server.serve_forever()
"""
HOLDS = """
    import socketserver, sys, time
    names = set()
    class Talk(socketserver.StreamRequestHandler):
        def handle(self):
            name = self.rfile.readline()
            self.wfile.write(b"TAKEN\\n" if name in names else b"WELCOME\\n")
            names.add(name)
            while self.rfile.readline():
                pass
            time.sleep(0.3)
            names.discard(name)
    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
    Server(sys.argv[1], Talk).serve_forever()
"""
"""It holds the name of a client for a while after that has left."""

SCRIPT = """\
fence: PING ${token} -> PONG ${token}

alice connects
alice> hello
alice< hello
bob connects
bob> hello
alice< hello
bob< hello
bob>> in
bob>>  parts\\n
alice< in parts
bob< in parts
alice half-closes
alice is closed
bob> QUIT
bob is closed
"""


def server(*arguments: str) -> Command:
    return Command([sys.executable, "-c", textwrap.dedent(CHAT), *arguments])


def passes(target: Any, script: str = SCRIPT) -> None:
    verdict = play(parse(script), target)
    assert verdict.passed, plain(report(verdict))


def test_a_command_is_given_a_path_that_is_gone_afterwards() -> None:
    target = server("{socket}")
    passes(target)
    with Stage(target, fence=PING) as stage:
        (path,) = stage.address(None)
        assert os.path.exists(path)
    assert not os.path.exists(os.path.dirname(path))


@pytest.mark.parametrize("leaving", ["", "alice closes\n"], ids=["at-the-end", "before"])
def test_a_shared_server_has_let_its_clients_go_before_the_next_script(leaving: str) -> None:
    shared = Command([sys.executable, "-c", textwrap.dedent(HOLDS), "{socket}"], shared=True)
    script = parse(f"settle: 20ms\n\nalice> alice\nalice< WELCOME\n{leaving}")
    try:
        for _ in range(2):
            verdict = play(script, shared)
            assert verdict.passed, plain(report(verdict))
    finally:
        shared.close()


def test_a_command_can_say_its_path(tmp_path: Path) -> None:
    passes(server(str(tmp_path / "said.sock")))


def test_an_address_can_be_a_unix_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Stage(server("{socket}")) as stage:
        (path,) = stage.address(None)
        passes(Address(f"unix:{path}"))
        (tmp_path / "unix.chat").write_text(SCRIPT)
        assert main(["play", str(tmp_path / "unix.chat"), "--connect", f"unix:{path}"]) == 0
        assert main(["play", str(tmp_path / "unix.chat"), "--connect", f"chat=unix:{path}"]) == 0
    assert capsys.readouterr().out.count("1 passed") == 2


def test_a_path_at_which_nothing_listens_refuses(tmp_path: Path) -> None:
    missing = f"unix:{tmp_path}/missing"
    passes(Address(missing), "alice connects\nalice is refused\n")
    verdict = play(parse("alice connects\n"), Address(missing))
    assert (verdict.outcome, verdict.reason) == (
        Outcome.TARGET_ERROR,
        f"connection refused by {missing}",
    )
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        passes(Address(f"unix:{tmp_path}/deaf"), "alice connects\nalice is refused\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unix:relative", "'unix:relative' is not a Unix socket; expected unix:/PATH"),
        ("unix:", "'unix:' is not a Unix socket; expected unix:/PATH"),
        ("unix:/" + "x" * 120, "is longer than the 107 bytes of a Unix socket's path"),
        ("chat=unix:x", "'unix:x' is not a Unix socket"),
    ],
)
def test_an_address_that_is_none_is_an_error(
    text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", "tests/transcripts", "--connect", text]) == 2
    assert message in capsys.readouterr().err


def test_an_endpoint_cannot_be_a_port_and_a_socket() -> None:
    with pytest.raises(ValueError, match="gives the only endpoint a port and a socket; name one of them"):
        Command("serve {port} {socket}")
    Command("serve {port} {socket:admin}")


def test_a_command_that_does_not_listen_on_its_path_is_named_with_it() -> None:
    with (
        pytest.raises(TargetError, match=r"did not listen on /tmp/harness-\w+/socket within 0.2 s"),
        Stage(Command(["sh", "-c", "sleep 60", "{socket}"], starts_within=0.2)),
    ):
        pass


def listener(tmp_path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "by-hand"))
    sock.listen(1)
    return sock


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[tuple[Stage, socket.socket]]:
    with listener(tmp_path) as sock, Stage(Address(f"unix:{tmp_path}/by-hand"), within=0.5) as stage:
        yield stage, sock


def test_a_split_is_proven(by_hand: tuple[Stage, socket.socket]) -> None:
    stage, sock = by_hand
    alice = stage.client("alice")
    alice.send_bytes(b"one")
    with sock.accept()[0] as server_side:
        with pytest.raises(FenceFailed, match=r"it did not read them within 0.5 s"):
            alice.send_bytes(b"two")
        assert server_side.recv(100) == b"one"
        alice.send_bytes(b"two")
        assert server_side.recv(100) == b"two"


def test_a_full_backlog_is_awaited(by_hand: tuple[Stage, socket.socket]) -> None:
    stage, _ = by_hand
    for name in ("alice", "bob"):
        stage.client(name).connect()
    with pytest.raises(Exception, match=r"the connection was not accepted within 0.5 s"):
        stage.client("carol").connect()


def test_a_slow_reader_holds_up_the_server(by_hand: tuple[Stage, socket.socket]) -> None:
    stage, sock = by_hand
    alice = stage.client("alice")
    alice.connect()
    alice.stop_reading()
    with sock.accept()[0] as server_side:
        server_side.setblocking(False)
        sent = sum(iter(lambda: sent_by(server_side), 0))
        assert 0 < sent < 10_000_000
        alice.read_again()
        stage.fence()
        assert len(alice.inbox) == sent


def sent_by(sock: socket.socket) -> int:
    try:
        return sock.send(b"x" * 1000)
    except BlockingIOError:
        return 0


def test_a_unix_socket_cannot_be_reset() -> None:
    verdict = play(parse("alice connects\nalice aborts\n", "reset.chat"), server("{socket}"))
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert verdict.reason.startswith("reset.chat:2:1: a Unix socket cannot be reset")


def gevent_server(tmp_path: Path) -> InProcess:
    def serve(spec: ServerSpec) -> Any:
        people: list[Any] = []

        def talk(sock: Any, _: object) -> None:
            people.append(sock)
            for line in sock.makefile("rb"):
                for other in people:
                    other.sendall(line)
            people.remove(sock)

        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "in-process"))
        sock.listen()
        sock.setblocking(False)
        return StreamServer(sock, talk)

    return InProcess(serve)


def asyncio_server(tmp_path: Path) -> InProcessAsyncio:
    people: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        people.append(writer)
        while line := await reader.readline():
            for other in people:
                other.write(line)
        people.remove(writer)
        writer.close()

    async def serve(spec: ServerSpec) -> asyncio.Server:
        return await asyncio.start_unix_server(talk, str(tmp_path / "in-process"))

    return InProcessAsyncio(serve)


@pytest.mark.parametrize("target", [gevent_server, asyncio_server])
def test_the_fence_is_exact_in_process(tmp_path: Path, target: Callable[[Path], Target]) -> None:
    script = re.sub(r"fence.*\n\n|bob> QUIT\nbob is closed\n", "", SCRIPT)
    verdict = play(parse(script + "wait 1h\nbob half-closes\nbob is closed\n"), target(tmp_path))
    assert verdict.passed, plain(report(verdict))
    assert verdict.grade is Grade.EXACT
