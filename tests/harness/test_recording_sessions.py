"""Sessions recorded through the proxy, with nc and with plain sockets, pass against the server they were recorded from."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import Address, Command, Outcome, Stage, load, play
from harness.cli import main
from harness.language.renderer import render
from harness.language.steps import ConnectionAction, Ending
from harness.record.recorder import Recorder
from harness.record.transcript import (
    Acted,
    Connected,
    LoggedAction,
    LoggedTurn,
    Sent,
    Waited,
    names,
    transcript,
)
from tests.patience import HANG_S

SERVER = Path(__file__).parent / "servers" / "threaded.py"
NC = shutil.which("nc")
needs_nc = pytest.mark.skipif(NC is None, reason="nc is not installed")


class Terminal:
    """An nc with someone at its keyboard."""

    def __init__(self, port: int) -> None:
        assert NC is not None
        self._nc = subprocess.Popen(
            [NC, "127.0.0.1", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def types(self, text: str) -> None:
        assert self._nc.stdin is not None
        self._nc.stdin.write(text.encode())
        self._nc.stdin.flush()

    def shows(self, line: str) -> None:
        assert self._nc.stdout is not None
        assert self._nc.stdout.readline() == line.encode()

    def shows_no_more(self) -> None:
        """The server has closed the connection; nc itself ends with its own input."""
        assert self._nc.stdin is not None
        assert self._nc.stdout is not None
        self._nc.stdin.close()
        assert self._nc.stdout.read() == b""

    def leaves(self) -> None:
        """Ctrl-C."""
        self._nc.send_signal(signal.SIGINT)
        self._nc.wait(HANG_S)
        self.close()

    def close(self) -> None:
        for stream in (self._nc.stdin, self._nc.stdout):
            if stream is not None:
                stream.close()
        if self._nc.poll() is None:
            self._nc.kill()
        self._nc.wait(HANG_S)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """The terminals of the test, which are closed afterwards."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@contextmanager
def recording(server: tuple[str, int], out: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """`harness record`: its port and its process."""
    command = [sys.executable, "-m", "harness", "record", "--connect", f"{server[0]}:{server[1]}"]
    with subprocess.Popen(
        [*command, "--listen", "0", "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as proxy:
        try:
            assert proxy.stdout is not None
            announcement = proxy.stdout.readline()
            yield int(re.search(r"nc 127\.0\.0\.1 (\d+)", announcement)[1]), proxy
        finally:
            if proxy.poll() is None:
                proxy.kill()


def ended(proxy: subprocess.Popen[str], how: signal.Signals) -> str:
    proxy.send_signal(how)
    assert proxy.stdout is not None
    output = proxy.stdout.read()
    assert proxy.wait(HANG_S) == 0
    return output


@needs_nc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_session_of_three_terminals_is_recorded_and_passes(
    tmp_path: Path, terminals: list[Terminal], how: signal.Signals
) -> None:
    out = tmp_path / "session.chat"
    with Stage(Command([sys.executable, "-S", str(SERVER), "{port}"])) as stage:
        address = stage.address(None)
        with recording(address, out) as (port, proxy):
            one, two, three = (Terminal(port) for _ in range(3))
            terminals += (one, two, three)
            for terminal, name in ((one, "alice"), (two, "bob"), (three, "carol")):
                terminal.types(f"LOGIN {name}\n")
                terminal.shows("OK\n")
            one.types("MSG hello there\nPING\n")
            one.shows("PONG\n")
            for other in (two, three):
                other.shows("MSG alice hello there\n")
            two.types("MSG trailing space \n")
            for other in (one, three):
                other.shows("MSG bob trailing space\n")
            three.types("QUIT\n")
            three.shows("Goodbye!\n")
            three.shows_no_more()
            for other in (one, two):
                # A terminal that leaves with unread data resets its connection instead of closing it.
                other.shows("INFO carol disconnected\n")
            two.leaves()
            one.shows("INFO bob disconnected\n")
            output = ended(proxy, how)
        assert (
            f"written: {out}; passwords after LOGIN and the like are replaced, other secrets are not"
            in output
        )
        text = out.read_text()
        for line in (
            "alice> LOGIN alice", "alice< OK", "carol< MSG alice hello there", r"bob>> MSG trailing space \n",
            "carol is closed", "bob closes", "alice< INFO bob disconnected",
        ):  # fmt: skip
            assert line in text.splitlines()
        verdict = play(load(out), Address(*address))
        assert verdict.outcome is Outcome.PASSED, text


@needs_nc
def test_unsolicited_lines_follow_a_wait(tmp_path: Path, terminals: list[Terminal]) -> None:
    out = tmp_path / "session.chat"
    program = """
import socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def greet(sock):
    with sock:
        sock.sendall(b"welcome\\n")
        time.sleep(1.2)
        sock.sendall(b"still there?\\n")
        time.sleep(1.2)
        sock.sendall(b"goodbye\\n")
while True:
    threading.Thread(target=greet, args=(listener.accept()[0],), daemon=True).start()
"""
    with Stage(Command([sys.executable, "-S", "-c", program, "{port}"])) as stage:
        address = stage.address(None)
        with recording(address, out) as (port, proxy):
            one = Terminal(port)
            terminals.append(one)
            for line in ("welcome\n", "still there?\n", "goodbye\n"):
                one.shows(line)
            one.shows_no_more()
            ended(proxy, signal.SIGINT)
        lines = out.read_text().splitlines()
        assert without_waits(out)[-5:-3] == ["client1 connects", "client1< welcome"]
        for late in ("client1< still there?", "client1< goodbye"):
            assert lines[lines.index(late) - 1].startswith("wait ")
        assert lines[-1] == "client1 is closed"
        verdict = play(load(out), Address(*address))
        assert verdict.outcome is Outcome.PASSED, "\n".join(lines)


@needs_nc
def test_bytes_that_are_not_a_line_and_a_half_close_are_recorded(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    program = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def answer(sock):
    with sock:
        received = b""
        while data := sock.recv(4096):
            received += data
        sock.sendall(b"you sent " + received + b"\\x00\\r\\n")
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
"""
    assert NC is not None
    with Stage(Command([sys.executable, "-S", "-c", program, "{port}"])) as stage:
        address = stage.address(None)
        with recording(address, out) as (port, proxy):
            done = subprocess.run(
                [NC, "-N", "127.0.0.1", str(port)], input=b"\xff one\ntorn", capture_output=True, check=True
            )
            assert done.stdout == b"you sent \xff one\ntorn\x00\r\n"
            ended(proxy, signal.SIGINT)
        text = out.read_text()
        for line in (r"client1>> \xff one\n", "client1>> torn", "client1 half-closes", "client1 is closed"):
            assert line in text.splitlines(), text
        verdict = play(load(out), Address(*address))
        assert verdict.outcome is Outcome.PASSED, text


def without_waits(out: Path) -> list[str]:
    """The lines of a recording but for the empty ones and the waits, which a busy machine can put between any two."""
    lines = out.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("wait ")]


def test_a_reset_by_a_client_is_recorded(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    with (
        Stage(Command([sys.executable, "-S", str(SERVER), "{port}"])) as stage,
        recording(stage.address(None), out) as (port, proxy),
    ):
        alice, bob = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        with alice, bob:
            for sock, name in ((alice, b"alice"), (bob, b"bob")):
                sock.sendall(b"LOGIN " + name + b"\n")
                assert sock.recv(100) == b"OK\n"
            alice.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            alice.close()
            assert bob.recv(100) == b"INFO alice disconnected\n"
        ended(proxy, signal.SIGINT)
    lines = without_waits(out)
    assert lines[lines.index("alice aborts") + 1] == "bob< INFO alice disconnected"


@pytest.mark.parametrize("unread", [True, False], ids=["with something unread", "half-closed first"])
def test_a_client_that_leaves_is_recorded_as_closing(tmp_path: Path, unread: bool) -> None:
    """A program that is killed resets its connection if it has not read everything, and its kernel can say that it sends
    no more well before it is gone."""
    out = tmp_path / "session.chat"
    with (
        Stage(Command([sys.executable, "-S", str(SERVER), "{port}"])) as stage,
        recording(stage.address(None), out) as (port, proxy),
    ):
        alice, bob = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        with alice, bob:
            for sock, name in ((alice, b"alice"), (bob, b"bob")):
                sock.sendall(b"LOGIN " + name + b"\n")
                assert sock.recv(100) == b"OK\n"
            if unread:
                alice.sendall(b"MSG hello\n")
                assert bob.recv(100, socket.MSG_PEEK) == b"MSG alice hello\n"
                bob.close()
            else:
                bob.shutdown(socket.SHUT_WR)
                threading.Timer(0.03, bob.close).start()
            assert alice.recv(100) == b"INFO bob disconnected\n"
        ended(proxy, signal.SIGINT)
    lines = without_waits(out)
    assert lines[lines.index("bob closes") + 1] == "alice< INFO bob disconnected"


def test_a_server_that_refuses_or_resets_a_connection_is_recorded(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    listener = socket.create_server(("127.0.0.1", 0))
    with recording(listener.getsockname(), out) as (port, proxy):
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = listener.accept()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()
            assert client.recv(100) == b""
        listener.close()
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert client.recv(100) == b""
        ended(proxy, signal.SIGINT)
    assert without_waits(out)[-4:] == [
        "client1 connects",
        "client1 is reset",
        "client2 connects",
        "client2 is refused",
    ]


def test_a_port_that_is_in_use_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [
            "record",
            "--connect",
            "127.0.0.1:9",
            "--listen",
            str(port),
            "-o",
            str(tmp_path / "x.chat"),
        ]
        assert main(command) == 2
    assert f"harness: cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


def test_an_error_ends_the_recording_but_what_was_recorded_is_written(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    with Stage(Command([sys.executable, "-S", str(SERVER), "{port}"])) as stage:
        address = stage.address(None)
        with recording(address, out) as (port, proxy):
            with socket.create_connection(("127.0.0.1", port)) as alice:
                alice.sendall(b"LOGIN alice\n")
                assert alice.recv(100) == b"OK\n"
                opened = os.listdir(f"/proc/{proxy.pid}/fd")
                free = next(number for number in range(len(opened) + 1) if str(number) not in opened)
                _, most = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
                resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (free, most))
                with socket.create_connection(("127.0.0.1", port)):
                    assert proxy.stdout is not None
                    output = proxy.stdout.read()
            assert proxy.wait(HANG_S) == 2
        assert f"written: {out}" in output
        assert output.endswith("harness: cannot accept a client: Too many open files\n")
        assert without_waits(out)[-2:] == ["alice> LOGIN alice", "alice< OK"]
        assert play(load(out), Address(*address)).outcome is Outcome.PASSED


@needs_nc
def test_a_server_that_has_not_read_yet_is_not_quiet(tmp_path: Path, terminals: list[Terminal]) -> None:
    out = tmp_path / "session.chat"
    with Stage(Command([sys.executable, "-S", str(SERVER), "{port}"])) as stage:
        with recording(stage.address(None), out) as (port, proxy):
            terminals.append(alice := Terminal(port))
            alice.types("LOGIN alice\n")
            alice.shows("OK\n")
            server = stage.server.process.pid
            os.kill(server, signal.SIGSTOP)
            threading.Timer(0.5, os.kill, (server, signal.SIGCONT)).start()
            alice.types("PING\n")
            alice.shows("PONG\n")
            ended(proxy, signal.SIGINT)
        steps = [line for line in out.read_text().splitlines() if line]
        assert steps[-2:] == ["alice> PING", "alice< PONG"], steps


def test_a_recording_ends_also_where_something_comes_at_that_moment(tmp_path: Path) -> None:
    async def end(iterations: int) -> None:
        recorder = Recorder(("127.0.0.1", 1), tmp_path / "session.chat", None)
        recorder._loop, recorder._received = asyncio.get_running_loop(), asyncio.Event()
        waiting = asyncio.create_task(recorder._receives_within(HANG_S))
        await asyncio.sleep(0)
        recorder._received.set()
        for _ in range(iterations):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        recorder._diagnostics.close()

    for iterations in range(6):
        asyncio.run(end(iterations))


def test_a_client_for_whom_there_is_no_way_to_the_server_is_not_recorded(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    with recording(("255.255.255.255", 9), out) as (port, proxy):  # TCP has no broadcast
        with socket.create_connection(("127.0.0.1", port)):
            assert proxy.stdout is not None
            assert proxy.stdout.read().startswith("harness: cannot connect to 255.255.255.255:9: ")
        assert proxy.wait(HANG_S) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_clients_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    with recording(("127.0.0.1", 9), out) as (_, proxy):
        assert "nothing written: no client connected" in ended(proxy, signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


# --- from log to script ------------------------------------------------------------------------------


def log_of(*turns: LoggedTurn | LoggedAction) -> list[LoggedTurn]:
    return [turn if isinstance(turn, LoggedTurn) else LoggedTurn(turn, 1_700_000_000.0) for turn in turns]


def received(action: LoggedAction, **lines: bytes) -> LoggedTurn:
    data = {int(name.removeprefix("c")): bytearray(line) for name, line in lines.items()}
    return LoggedTurn(action, 1_700_000_000.0, data)


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ([b"LOGIN alice\n"], "alice"),
        ([b"login Alice\r\n"], "Alice"),
        ([b"LOGIN taken\n", b"LOGIN bob\n"], "bob"),
        ([b"NICK alice\r\n", b"USER al 0 * :A\r\n"], "alice"),
        ([b"HELO client.example\r\n"], "client.example"),
        ([b'{"type": "join", "username": "alice"}\n'], "alice"),
        ([b"alice\n"], "alice"),
        ([b"/nick alice\n"], "alice"),
        ([b"LOGIN wait\n"], "client1"),
        ([b"LOGIN a b\n"], "a"),
        ([b"LOGIN 1st\n"], "client1"),
        ([b"PING\n"], "client1"),
        ([b"quit\n"], "client1"),
        ([b"\xff\n"], "client1"),
        ([], "client1"),
    ],
)
def test_a_client_is_named_after_its_login(sent: list[bytes], name: str) -> None:
    assert names(log_of(Connected(1), *(Sent(1, line) for line in sent))) == {1: name}


def test_all_names_are_different() -> None:
    session = log_of(
        Connected(1),
        Connected(2),
        Connected(3),
        Sent(1, b"alice\n"),
        Sent(2, b"Alice\n"),
        Sent(3, b"LOGIN client2\n"),
    )
    assert names(session) == {1: "alice", 2: "client2", 3: "client3"}


def written(session: list[LoggedTurn]) -> list[str]:
    return render(transcript(session, "a session")).splitlines()[2:]


def test_a_connection_has_a_step_only_if_it_had_an_effect_or_another_client_acted_next() -> None:
    assert written(log_of(Connected(1), Sent(1, b"a\n"))) == ["a> a"]
    assert written(log_of(received(Connected(1), c1=b"hi\n"), Sent(1, b"a\n"))) == [
        "a connects",
        "a< hi",
        "",
        "a> a",
    ]
    assert written(log_of(Connected(1), Connected(2), Sent(1, b"a\n")))[0] == "a connects"


def test_the_line_end_of_most_lines_is_in_the_header() -> None:
    session = log_of(Connected(1), received(Sent(1, b"PING\r\n"), c1=b"+PONG\r\n"))
    assert render(transcript(session, "a session")).splitlines()[1:] == [
        "eol: crlf", "", "client1> PING", "client1< +PONG",
    ]  # fmt: skip
    mixed = log_of(Connected(1), received(Sent(1, b"PING\n"), c1=b"+PONG\r\n"))
    assert render(transcript(mixed, "a session")).splitlines()[3:] == [r"client1>> PING\n", "client1< +PONG"]


def test_pieces_of_a_line_are_joined_unless_they_took_time() -> None:
    pieces = log_of(
        Connected(1),
        Sent(1, b"PUT door"),
        Sent(1, b" shut now"),
        received(Sent(1, b"\r\n"), c1=b"OK\r\n"),
    )
    assert written(pieces) == ["", "client1> PUT door shut now", "client1< OK"]
    in_between = log_of(Connected(1), received(Sent(1, b"PUT"), c1=b"OK\n"), Sent(1, b"\n"))
    assert written(in_between) == ["client1>> PUT", "client1< OK", "", r"client1>> \n"]
    slowly = log_of(Connected(1), Sent(1, b"PUT"), LoggedTurn(Sent(1, b" x\n"), 1_700_000_001.0))
    assert written(slowly) == ["client1>> PUT", r"client1>>  x\n"]
    others = log_of(Connected(1), Connected(2), Sent(1, b"PUT"), Sent(2, b"X\n"), Sent(1, b"\n"))
    assert written(others)[-3:] == ["client1>> PUT", "client2> X", r"client1>> \n"]


def test_the_time_of_day_becomes_a_capture_and_other_numbers_do_not() -> None:
    answer = b'{"timestamp": 1700000001, "id": 1234567890, "ms": 1699999999123, "cost": "$5"}\n'
    assert written(log_of(Connected(1), received(Sent(1, b"x y\n"), c1=answer))) == [
        "client1> x y",
        'client1<~ {"timestamp": ${_:int}, "id": 1234567890, "ms": ${_:int}, "cost": "$$5"}',
    ]


def test_passwords_are_replaced_by_others_of_the_same_length() -> None:
    session = log_of(
        Connected(1),
        Sent(1, b"LOGIN alice\n"),
        Sent(1, b"REGISTER  correct horse\n"),
        Sent(1, b"MSG a horse\n"),
        Sent(1, b"PASSWORD correct-horse another-one\n"),
        received(Sent(1, b"/login alice correct horse\r\n"), c1=b"ERR correct horse is wrong\n"),
        Sent(1, b'{"username": "alice", "password": "correct horse", "new": "\\"quoted\\"", "token": ""}\n'),
        Sent(1, b"register short\n"),
    )
    assert written(session) == [
        "alice> LOGIN alice",
        "alice> REGISTER  1-secretxxxxx",
        "alice> MSG a horse",
        "alice> PASSWORD 2-secretxxxxx 3-secretxxx",
        r"alice>> /login alice 1-secretxxxxx\r\n",
        "alice< ERR 1-secretxxxxx is wrong",
        "",
        'alice> {"username": "alice", "password": "1-secretxxxxx", "new": "4-secretxx", "token": ""}',
        "alice> register 5-sec",
    ]


def test_a_name_that_is_registered_is_not_replaced() -> None:
    session = log_of(
        Connected(1),
        Sent(1, b"REGISTER alice\n"),
        Sent(1, b"REGISTER alice  secret word\n"),
        Sent(1, b"LOGIN alice secret word\n"),
    )
    assert written(session) == [
        "alice> REGISTER alice",
        "alice> REGISTER alice  1-secretxxx",
        "alice> LOGIN alice 1-secretxxx",
    ]


def test_a_password_that_is_sent_in_pieces_is_replaced() -> None:
    session = log_of(
        Connected(1),
        Connected(2),
        Sent(1, b"LOGIN alice hor"),
        Sent(2, b"x\n"),
        Sent(1, b"se-and-"),
        Sent(2, b"y\n"),
        Sent(1, b"cart\nPING\n"),
    )
    assert written(session)[2:] == [
        "alice>> LOGIN alice 1-s",
        "x> x",
        "alice>> ecretxx",
        "x> y",
        r"alice>> xxxx\nPING\n",
    ]


def test_a_password_in_pieces_is_replaced_by_the_same_text_as_in_one() -> None:
    session = log_of(
        Connected(1),
        Connected(2),
        Sent(1, b"REGISTER alice hunter"),
        Sent(2, b"x\n"),
        Sent(1, b"2hunter2\nLOGIN alice hun"),
        Sent(2, b"y\n"),
        Sent(1, b"ter2hunter2\n"),
        Sent(2, b"LOGIN alice hunter2hunter2\n"),
    )
    assert written(session)[2:] == [
        "alice>> REGISTER alice 1-secr",
        "x> x",
        r"alice>> etxxxxxx\nLOGIN alice 1-s",
        "x> y",
        r"alice>> ecretxxxxxx\n",
        "x> LOGIN alice 1-secretxxxxxx",
    ]


def test_a_known_password_is_replaced_wherever_it_is_sent() -> None:
    session = log_of(
        Connected(1),
        Sent(1, b"LOGIN bob horse-and-cart\n"),
        Sent(1, b"PASSWORD horse-and-cart horse-and-cart-too\n"),
        received(
            Sent(1, b"echo horse-and-cart-too, horse-and-cart\n"), c1=b"horse-and-cart-too, horse-and-cart\n"
        ),
        Sent(1, b"PASSWORD horse-and-cart-too password\n"),
        Sent(1, b'{"username": "bob", "password": "password"}\n'),
    )
    assert written(session) == [
        "bob> LOGIN bob 1-secretxxxxxx",
        "bob> PASSWORD 1-secretxxxxxx 2-secretxxxxxxxxxx",
        "bob> echo 2-secretxxxxxxxxxx, 1-secretxxxxxx",
        "bob< 2-secretxxxxxxxxxx, 1-secretxxxxxx",
        "",
        "bob> PASSWORD 2-secretxxxxxxxxxx 3-secret",
        'bob> {"username": "bob", "password": "3-secret"}',
    ]


def test_what_the_server_says_is_searched_for_passwords_that_are_long_enough() -> None:
    session = log_of(
        Connected(1),
        received(Sent(1, b"REGISTER 12345678\n"), c1=b"12345678 is too easy\n"),
        received(Sent(1, b"REGISTER 1234567\n"), c1=b"1234567 is too short\n"),
    )
    assert written(session) == [
        "client1> REGISTER 1-secret",
        "client1< 1-secret is too easy",
        "",
        "client1> REGISTER 2-secre",
        "client1< 1234567 is too short",
    ]


def test_a_token_becomes_a_capture_that_is_sent_again() -> None:
    token = b"gct_" + 43 * b"A"
    session = log_of(
        Connected(1),
        received(Sent(1, b"TOKEN\n"), c1=b"TOKEN " + token + b"\n"),
        received(Sent(1, b"TOKEN\n"), c1=b'{"token": "' + token[:-1] + b'B", "at": 1700000001}\n'),
        Sent(1, b"LOGIN alice " + token + b"\n"),
        Sent(1, b'{"username": "alice", "token": "' + token[:-1] + b'B"}\n'),
        Sent(1, b"LOGIN alice " + token[:-1] + b"C\n"),
        Sent(1, b'{"token": "' + token[:-1] + b'D"}\n'),
        Sent(1, b"MSG like " + token[:-1] + b"E\n"),  # which nobody has been given
    )
    assert written(session) == [
        "alice> TOKEN",
        "alice<~ TOKEN ${token1}",
        "",
        "alice> TOKEN",
        'alice<~ {"token": "${token2}", "at": ${_:int}}',
        "",
        "alice>~ LOGIN alice ${token1}",
        'alice>~ {"username": "alice", "token": "${token2}"}',
        "alice> LOGIN alice 1-secret" + 39 * "x",
        'alice> {"token": "2-secret' + 39 * "x" + '"}',
        "alice> MSG like gct_" + 42 * "A" + "E",
    ]


def test_a_token_that_contains_the_time_is_captured_as_a_whole() -> None:
    token = b"sess_1700000001_" + 24 * b"a"
    session = log_of(
        Connected(1),
        received(Sent(1, b"TOKEN\n"), c1=b"1700000001 " + token + b" 1700000002\n"),
        Sent(1, b"LOGIN alice " + token + b"\n"),
    )
    assert written(session) == [
        "alice> TOKEN",
        "alice<~ ${_:int} ${token1} ${_:int}",
        "",
        "alice>~ LOGIN alice ${token1}",
    ]


def test_waits_actions_and_ends_are_recorded() -> None:
    session = log_of(
        Connected(1),
        received(Waited(59.98), c1=b"bye\n"),
        LoggedTurn(Acted(1, ConnectionAction.HALF_CLOSES), 0.0, {}, {1: Ending.RESET}),
    )
    assert written(session) == [
        "client1 connects", "wait 60.3s", "client1< bye", "", "client1 half-closes", "client1 is reset",
    ]  # fmt: skip


def test_the_proxy_does_not_delay_an_answer(tmp_path: Path) -> None:
    with (
        Stage(Command([sys.executable, "-S", str(SERVER), "{port}"])) as stage,
        recording(stage.address(None), tmp_path / "out.chat") as (port, proxy),
    ):
        with Stage(Address("127.0.0.1", port)) as through:
            alice = through.client("alice")
            alice.connect()
            through.fence()
            costs = []
            for _ in range(5):
                began = time.monotonic()
                alice.post(b"PING\n")
                alice.expect("PONG")
                costs.append(time.monotonic() - began)
                through.fence()
        ended(proxy, signal.SIGINT)
    assert min(costs) < 0.04
