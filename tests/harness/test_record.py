"""The recorder, with nc as people have it: what it writes plays green against the server it was taken from."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import Address, Command, Outcome, Stage, load, play
from harness.language.renderer import render
from harness.language.steps import ConnectionAction, Ending
from harness.recording.naming import names
from harness.recording.session_log import (
    Acted,
    Connected,
    LoggedAction,
    LoggedTurn,
    Sent,
    SessionLog,
    Waited,
)
from harness.recording.transcribing import transcript

TALK = Path(__file__).parent / "servers" / "threaded.py"
NC = shutil.which("nc")
needs_nc = pytest.mark.skipif(NC is None, reason="nc is not installed")


class Terminal:
    """Somebody's nc."""

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
        """The other side has closed; nc itself ends once nothing can be typed either."""
        assert self._nc.stdin is not None
        assert self._nc.stdout is not None
        self._nc.stdin.close()
        assert self._nc.stdout.read() == b""

    def leaves(self) -> None:
        """Ctrl-C."""
        self._nc.send_signal(signal.SIGINT)
        self._nc.wait(10)
        self.close()

    def close(self) -> None:
        for stream in (self._nc.stdin, self._nc.stdout):
            if stream is not None:
                stream.close()
        if self._nc.poll() is None:
            self._nc.kill()
        self._nc.wait(10)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """All that were opened; they are closed however the test goes."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@contextmanager
def recording(server: tuple[str, int], out: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """`python -m harness record`, and the port it listens on."""
    command = [sys.executable, "-m", "harness", "record", "--connect", f"{server[0]}:{server[1]}"]
    with subprocess.Popen(
        [*command, "--listen", "0", "-o", str(out)], stdout=subprocess.PIPE, text=True
    ) as proxy:
        try:
            assert proxy.stdout is not None
            ready = proxy.stdout.readline()
            yield int(ready.split()[3]), proxy
        finally:
            if proxy.poll() is None:
                proxy.kill()


def ended(proxy: subprocess.Popen[str], how: signal.Signals) -> str:
    proxy.send_signal(how)
    assert proxy.stdout is not None
    said = proxy.stdout.read()
    assert proxy.wait(10) == 0
    return said


@needs_nc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_three_terminals_are_written_down_and_play_green(
    tmp_path: Path, terminals: list[Terminal], how: signal.Signals
) -> None:
    out = tmp_path / "session.chat"
    with Stage(Command([sys.executable, "-S", str(TALK), "{port}"])) as stage:
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
            one.shows("INFO carol disconnected\n")
            two.leaves()
            one.shows("INFO bob disconnected\n")
            said = ended(proxy, how)
        assert f"written: {out}" in said
        text = out.read_text()
        for line in (
            "alice> LOGIN alice", "alice< OK", "carol< MSG alice hello there", r"bob>> MSG trailing space \n",
            "carol is closed", "bob closes", "alice< INFO bob disconnected",
        ):  # fmt: skip
            assert line in text.splitlines()
        verdict = play(load(out), Address(*address))
        assert verdict.outcome is Outcome.PASSED, text


@needs_nc
def test_what_the_server_says_by_itself_is_waited_for(tmp_path: Path, terminals: list[Terminal]) -> None:
    out = tmp_path / "session.chat"
    program = """
import socket, sys, threading, time
door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def greet(sock):
    with sock:
        sock.sendall(b"welcome\\n")
        time.sleep(0.6)
        sock.sendall(b"still there?\\n")
        time.sleep(0.6)
        sock.sendall(b"goodbye\\n")
while True:
    threading.Thread(target=greet, args=(door.accept()[0],), daemon=True).start()
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
        assert lines[2:4] == ["client1 connects", "client1< welcome"]
        assert sum(line.startswith("wait ") for line in lines) == 2
        assert lines[-1] == "client1 is closed"
        verdict = play(load(out), Address(*address))
        assert verdict.outcome is Outcome.PASSED, "\n".join(lines)


@needs_nc
def test_bytes_that_are_no_line_and_a_half_close_are_written_as_they_were(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    program = """
import socket, sys, threading
door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def answer(sock):
    with sock:
        said = b""
        while data := sock.recv(4096):
            said += data
        sock.sendall(b"you said " + said + b"\\x00\\r\\n")
while True:
    threading.Thread(target=answer, args=(door.accept()[0],), daemon=True).start()
"""
    assert NC is not None
    with Stage(Command([sys.executable, "-S", "-c", program, "{port}"])) as stage:
        address = stage.address(None)
        with recording(address, out) as (port, proxy):
            done = subprocess.run(
                [NC, "-N", "127.0.0.1", str(port)], input=b"\xff one\ntorn", capture_output=True, check=True
            )
            assert done.stdout == b"you said \xff one\ntorn\x00\r\n"
            ended(proxy, signal.SIGINT)
        text = out.read_text()
        for line in (r"client1>> \xff one\n", "client1>> torn", "client1 half-closes", "client1 is closed"):
            assert line in text.splitlines(), text
        verdict = play(load(out), Address(*address))
        assert verdict.outcome is Outcome.PASSED, text


def test_nobody_came_so_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "session.chat"
    with recording(("127.0.0.1", 9), out) as (_, proxy):
        assert "nobody came" in ended(proxy, signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


# --- what is written of what ------------------------------------------------------------------------------


def take(*logged_turns: LoggedTurn | LoggedAction) -> SessionLog:
    return SessionLog(
        [one if isinstance(one, LoggedTurn) else LoggedTurn(one, 1_700_000_000.0) for one in logged_turns]
    )


def received(doing: LoggedAction, **lines: bytes) -> LoggedTurn:
    data = {int(name.removeprefix("c")): bytearray(line) for name, line in lines.items()}
    return LoggedTurn(doing, 1_700_000_000.0, data)


@pytest.mark.parametrize(
    ("said", "called"),
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
def test_a_client_is_called_what_it_calls_itself(said: list[bytes], called: str) -> None:
    assert names(take(Connected(1), *(Sent(1, line) for line in said))) == {1: called}


def test_no_two_are_called_the_same() -> None:
    session = take(
        Connected(1),
        Connected(2),
        Connected(3),
        Sent(1, b"alice\n"),
        Sent(2, b"Alice\n"),
        Sent(3, b"LOGIN client2\n"),
    )
    assert names(session) == {1: "alice", 2: "client2", 3: "client3"}


def written(session: SessionLog) -> list[str]:
    return render(transcript(session, "a session")).splitlines()[2:]


def test_a_connection_needs_a_line_only_if_something_came_of_it_or_in_between() -> None:
    assert written(take(Connected(1), Sent(1, b"a\n"))) == ["a> a"]
    assert written(take(received(Connected(1), c1=b"hi\n"), Sent(1, b"a\n"))) == [
        "a connects",
        "a< hi",
        "",
        "a> a",
    ]
    assert written(take(Connected(1), Connected(2), Sent(1, b"a\n")))[0] == "a connects"


def test_lines_that_end_in_crlf_make_the_header_say_so() -> None:
    session = take(Connected(1), received(Sent(1, b"PING\r\n"), c1=b"+PONG\r\n"))
    assert render(transcript(session, "a session")).splitlines()[1:] == [
        "eol: crlf", "", "client1> PING", "client1< +PONG",
    ]  # fmt: skip
    mixed = take(Connected(1), received(Sent(1, b"PING\n"), c1=b"+PONG\r\n"))
    assert render(transcript(mixed, "a session")).splitlines()[3:] == [r"client1>> PING\n", "client1< +PONG"]


def test_a_line_written_in_pieces_is_one_line_and_one_that_took_time_is_torn() -> None:
    pieces = take(
        Connected(1),
        Sent(1, b"PUT door"),
        Sent(1, b" shut now"),
        received(Sent(1, b"\r\n"), c1=b"OK\r\n"),
    )
    assert written(pieces) == ["", "client1> PUT door shut now", "client1< OK"]
    in_between = take(Connected(1), received(Sent(1, b"PUT"), c1=b"OK\n"), Sent(1, b"\n"))
    assert written(in_between) == ["client1>> PUT", "client1< OK", "", r"client1>> \n"]
    slowly = take(Connected(1), Sent(1, b"PUT"), LoggedTurn(Sent(1, b" x\n"), 1_700_000_001.0))
    assert written(slowly) == ["client1>> PUT", r"client1>>  x\n"]
    others = take(Connected(1), Connected(2), Sent(1, b"PUT"), Sent(2, b"X\n"), Sent(1, b"\n"))
    assert written(others)[-3:] == ["client1>> PUT", "client2> X", r"client1>> \n"]


def test_the_time_of_day_becomes_a_hole_and_another_number_does_not() -> None:
    answer = b'{"timestamp": 1700000001, "id": 1234567890, "ms": 1699999999123, "cost": "$5"}\n'
    assert written(take(Connected(1), received(Sent(1, b"x y\n"), c1=answer))) == [
        "client1> x y",
        'client1<~ {"timestamp": ${_:int}, "id": 1234567890, "ms": ${_:int}, "cost": "$$5"}',
    ]


def test_leaving_and_waiting_are_written() -> None:
    session = take(
        Connected(1),
        received(Waited(59.98), c1=b"bye\n"),
        LoggedTurn(Acted(1, ConnectionAction.HALF_CLOSES), 0.0, {}, {1: Ending.RESET}),
    )
    assert written(session) == [
        "client1 connects", "wait 60.3s", "client1< bye", "", "client1 half-closes", "client1 is reset",
    ]  # fmt: skip


def test_the_recorder_hands_on_at_once_what_it_is_given(tmp_path: Path) -> None:
    """Nobody who types feels the proxy: an answer is there in a few milliseconds, not after the quiet it waits for."""
    with (
        Stage(Command([sys.executable, "-S", str(TALK), "{port}"])) as stage,
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
