"""One scripted client: its sends, its reads and the ends of its connections, as the server sees them."""

from __future__ import annotations

import socket
import struct
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from harness import Address, Command, End, InProcess, ServerSpec, Stage
from harness.stage.connection import UnsupportedAction
from harness.stage.fence import FenceFailed
from tests.harness.servers.late import serve


def served(converse: Callable[[Any], None]) -> InProcess:
    """A server that has one conversation with each client and then closes."""

    def handle(sock: Any, _address: object) -> None:
        with sock:
            converse(sock)

    def factory(_spec: ServerSpec) -> StreamServer:
        return StreamServer(("127.0.0.1", 0), handle)

    return InProcess(factory)


def reports_its_reads(sock: Any) -> None:
    while data := sock.recv(4096):
        sock.sendall(repr(data).encode() + b"\n")
    sock.sendall(b"end\n")


THREADED = """
    import socket, sys
    door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    sock, _ = door.accept()
    with sock:
        while data := sock.recv(4096):
            sock.sendall(repr(data).encode() + b"\\n")
        sock.sendall(b"end\\n")
    door.accept()
"""


@pytest.mark.parametrize(
    "target",
    [served(reports_its_reads), Command([sys.executable, "-S", "-c", textwrap.dedent(THREADED), "{port}"])],
    ids=["in process", "a command"],
)
def test_the_server_reads_each_send_bytes_separately(target: InProcess | Command) -> None:
    with Stage(target) as stage:
        alice = stage.client("alice")
        pieces = [f"{n}".encode() for n in range(100)]
        for piece in pieces:
            alice.send_bytes(piece)
        alice.half_close()
        for piece in pieces:
            alice.expect(repr(piece))
        alice.expect("end")
        alice.expect_closed()


def test_the_server_reads_a_line_after_send_bytes_separately() -> None:
    with Stage(served(reports_its_reads)) as stage:
        alice = stage.client("alice")
        alice.send_bytes(b"LO")
        alice.send("GIN")
        alice.expect("b'LO'")
        alice.expect(repr(b"GIN\n"))


def test_a_split_that_cannot_be_proven_is_an_error() -> None:
    with Stage(served(lambda sock: gevent.sleep(1_000_000))) as stage:
        alice = stage.client("alice")
        alice.send_bytes(b"first")
        with pytest.raises(
            FenceFailed, match="alice sent bytes before these, and the server has to read them first"
        ):
            alice.send_bytes(b"second")


def reports_its_end(sock: Any) -> None:
    try:
        while sock.recv(100):
            pass
    except ConnectionResetError:
        reports_its_end.seen.append("reset")  # type: ignore[attr-defined]
    else:
        reports_its_end.seen.append("end")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("action", "seen"),
    [(lambda c: c.close(), "end"), (lambda c: c.half_close(), "end"), (lambda c: c.abort(), "reset")],
    ids=["close", "half-close", "abort"],
)
def test_the_server_sees_how_a_client_leaves(action: Callable[[Any], None], seen: str) -> None:
    reports_its_end.seen = []  # type: ignore[attr-defined]
    with Stage(served(reports_its_end)) as stage:
        alice = stage.client("alice")
        alice.send("hello")
        action(alice)
        stage.fence()
        assert reports_its_end.seen == [seen]  # type: ignore[attr-defined]


def test_a_client_that_connects_after_all_have_left_leaves_as_well() -> None:
    reports_its_end.seen = []  # type: ignore[attr-defined]
    with Stage(served(reports_its_end)) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("hello")
        stage.close_clients()
        bob.send("hello")
    assert bob.end is End.CLOSED
    assert reports_its_end.seen == ["end", "end"]  # type: ignore[attr-defined]


def test_the_state_of_a_connection_differs_once_the_server_has_ended_it() -> None:
    with Stage(served(lambda sock: gevent.sleep(1))) as stage:
        alice = stage.client("alice")
        alice.connect()
        before = alice.connection.state
        stage.wait(1)
        assert alice.connection.state != before


def test_a_client_still_receives_after_a_half_close() -> None:
    with Stage(served(reports_its_reads)) as stage:
        alice = stage.client("alice")
        alice.post(b"last")
        alice.half_close()
        alice.expect(repr(b"last"))
        alice.expect("end")
        alice.expect_closed()
        assert alice.end is End.CLOSED


def test_an_orderly_end_differs_from_a_reset() -> None:
    def ends(sock: Any) -> None:
        if sock.recv(100) == b"reset\n":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with Stage(served(ends)) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("close")
        bob.send("reset")
        assert (alice.end, bob.end) == (End.CLOSED, End.RESET)
        with pytest.raises(AssertionError, match="bob is reset, and not as expected: is closed"):
            bob.expect_closed()
        bob.expect_reset()
        alice.expect_disconnected()
        stage.settle()


def test_lines_that_came_before_a_reset_are_received() -> None:
    def leaves_unread(sock: Any) -> None:
        sock.sendall(b"go away\n")
        gevent.sleep(1)  # then it closes with input unread, which resets

    with Stage(served(leaves_unread)) as stage:
        alice = stage.client("alice")
        alice.send("hello")
        stage.wait(1)
        alice.expect("go away")
        assert alice.end is End.RESET


def test_a_client_that_stops_reading_blocks_the_server_and_reads_everything_later() -> None:
    size = 8_000_000
    with Stage(InProcess(serve)) as stage:
        alice, bob = stage.clients("alice", "bob")
        bob.connect()
        alice.connect()
        stage.fence()
        alice.stop_reading()
        alice.send(f"FILL {size}")
        assert not alice.inbox
        bob.send("PIECES")  # the server is blocked for alice alone
        bob.expect("done")
        alice.read_again()
        stage.fence()
        assert len(alice.take(2 * size)) == size


def test_a_client_can_connect_again() -> None:
    with Stage(InProcess(serve)) as stage:
        alice = stage.client("alice")
        for _ in range(3):
            alice.connect()
            alice.send("BYE")
            alice.expect("done")
            alice.expect_closed()


class Shut:
    def start(self) -> None:
        self.door = socket.create_server(("127.0.0.1", 0))
        self.addresses = {"door": self.door.getsockname()}
        self.door.close()

    def stop(self) -> None:
        pass


def test_a_closed_port_means_refused() -> None:
    with Stage(InProcess(lambda spec: Shut())) as stage:
        alice = stage.client("alice")
        alice.connect()
        assert alice.end is End.REFUSED
        assert not alice.connected
        alice.expect_refused()
        stage.settle()


@pytest.mark.parametrize(
    "action",
    [
        lambda alice: alice.send("hello"),
        lambda alice: alice.post(b"hello\n"),
        lambda alice: alice.send_bytes(b"hello\n"),
        lambda alice: [alice.connect(), alice.connect()],
        lambda alice: [alice.connect(), alice.expect_closed()],
        lambda alice: [alice.connect(), alice._stage.settle()],
    ],
)
def test_a_refusal_that_is_not_expected_does_not_go_unnoticed(action: Callable[[Any], None]) -> None:
    with Stage(InProcess(lambda spec: Shut())) as stage:
        alice = stage.client("alice")
        with pytest.raises(AssertionError, match="alice is refused"):
            action(alice)


def test_a_lost_connection_does_not_go_unnoticed_where_the_client_connects_again() -> None:
    with Stage(InProcess(serve)) as stage:
        alice = stage.client("alice")
        alice.send("BYE")
        alice.expect("done")
        alice.close()  # the server has closed it already
        with pytest.raises(AssertionError, match="alice lost its connection, which is closed"):
            alice.connect()
        alice.expect_closed()
        alice.connect()
        stage.settle()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda alice: alice.close(), "alice is closed, so it cannot send"),
        (lambda alice: alice.abort(), "alice is closed, so it cannot send"),
        (lambda alice: alice.half_close(), "alice has half-closed its connection, so it cannot send"),
    ],
)
def test_a_client_that_has_said_that_it_sends_no_more_cannot_send(
    action: Callable[[Any], None], message: str
) -> None:
    with Stage(InProcess(serve)) as stage:
        alice = stage.client("alice")
        alice.connect()
        action(alice)
        for send in (lambda: alice.send("hello"), lambda: alice.send_bytes(b"hello")):
            with pytest.raises(UnsupportedAction, match=message):
                send()


def test_the_silence_of_a_client_that_has_not_connected_says_nothing() -> None:
    with Stage(InProcess(serve)) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("hello")
        with pytest.raises(UnsupportedAction, match="bob has not connected yet"):
            bob.expect_nothing()


def test_a_name_with_several_addresses_is_refused_only_if_all_of_them_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as shut:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", one.getsockname()) for one in (shut, listener)
        ]
        shut.close()
        monkeypatch.setattr("harness.stage.connection._getaddrinfo", lambda *_, **__: addresses)
        with Stage(Address("two.example", 4000)) as stage:
            alice = stage.client("alice")
            alice.connect()
            assert alice.connected
            listener.close()
            bob = stage.client("bob")
            bob.connect()
            bob.expect_refused()


def test_each_byte_has_its_time_of_arrival() -> None:
    with Stage(InProcess(serve)) as stage:
        alice = stage.client("alice")
        alice.send("PIECES")
        alice.send("SLEEP 2.5")
        stage.wait(10)
        assert [alice.arrived_at(offset) for offset in (0, 4, 5, 9)] == [0.0, 0.0, 2.5, 2.5]
        alice.expect("done")
        assert alice.arrived_at(0) == 2.5
        alice.expect("done")
