"""The loop for servers outside this process: reading, waiting to write and waking, on plain sockets without gevent."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from harness.stage.connection import Connection, End, Inbox, SocketTimeout
from harness.stage.event_loop import RealTime
from harness.stage.kernel import SocketDiagnostics
from harness.stage.transport import Plain
from tests.patience import HANG_S

Pair = tuple[Connection, socket.socket, RealTime]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client's connection, the server's socket of it, and the loop that drives the client."""
    kernel, loop = SocketDiagnostics(), RealTime()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection("alice", Inbox(), loop, kernel, HANG_S)
        connection.open(listener.getsockname())
        with listener.accept()[0] as server:
            yield connection, server, loop
            connection.close()
    kernel.close()


def test_pause_returns_as_soon_as_something_arrives(pair: Pair) -> None:
    connection, server, loop = pair
    server.sendall(b"hello\n")
    began = time.monotonic()
    loop.pause(HANG_S)
    assert time.monotonic() - began < HANG_S / 2
    assert connection.inbox == b"hello\n"


def test_a_wait_can_be_longer_than_a_poll(pair: Pair) -> None:
    connection, server, loop = pair
    server.sendall(b"hello\n")
    loop.pause(100 * 365 * 24 * 3600)
    assert connection.inbox == b"hello\n"


def test_pause_returns_when_its_time_is_up(pair: Pair) -> None:
    _, _, loop = pair
    began = time.monotonic()
    loop.pause(0.05)
    assert 0.05 <= time.monotonic() - began < HANG_S


def test_advance_reads_what_arrives_and_does_not_return_early(pair: Pair) -> None:
    connection, server, loop = pair
    server.sendall(b"hello\n")
    began = time.monotonic()
    loop.advance(0.1)
    assert time.monotonic() - began >= 0.1
    assert connection.inbox == b"hello\n"


def test_a_client_is_read_while_it_waits_to_write(pair: Pair) -> None:
    """A server that sends until its client reads, and only then reads, would otherwise be a deadlock."""
    connection, server, loop = pair
    connection._within_s = 60.0
    sent = b"x" * 4_000_000

    def converse() -> None:
        server.sendall(sent)
        left = len(sent)
        while left:
            left -= len(server.recv(65536))
        server.sendall(b"done")

    thread = threading.Thread(target=converse)
    thread.start()
    connection.write(sent)
    while thread.is_alive():
        # The kernel can have taken all of it before the server has sent everything.
        loop.pause(0.01)
    assert len(connection.inbox) >= len(sent) - 4_000_000
    assert connection.end is End.OPEN


def test_a_server_that_does_not_read_is_a_timeout(pair: Pair) -> None:
    connection, _, _ = pair
    connection._within_s = 0.5
    with pytest.raises(SocketTimeout, match=r"alice sent more than the server read within 0\.5 s"):
        connection.write(b"x" * 50_000_000)


def test_a_server_that_does_not_read_keeps_no_client_from_leaving(pair: Pair) -> None:
    class Polite(Plain):
        def end(self) -> bytes:
            return b"bye" * 1_000_000

    connection, _, _ = pair
    connection._within_s, connection._transport = 0.5, Polite()
    with pytest.raises(SocketTimeout):
        connection.write(b"x" * 50_000_000)
    connection.close()
    assert connection.end is End.CLOSED


def test_a_reset_ends_the_wait_to_write(pair: Pair) -> None:
    connection, server, loop = pair

    def reset() -> None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()

    threading.Timer(0.1, reset).start()
    connection.write(b"x" * 50_000_000)
    while connection.end is End.OPEN:
        loop.pause(HANG_S)
    assert connection.end is End.RESET
    assert not connection.writes


def test_nothing_is_read_after_reading_stops_and_everything_once_it_resumes(pair: Pair) -> None:
    connection, server, loop = pair
    connection.stop_reading()
    server.sendall(b"later\n")
    loop.pause(0.05)
    assert not connection.inbox
    connection.read_again()
    loop.pause(HANG_S)
    assert connection.inbox == b"later\n"


def test_the_answer_to_a_fence_line_leaves_no_trace_in_the_inbox() -> None:
    inbox = Inbox()
    inbox.receive(b"one\n", 1.0)
    inbox.receive(b"PONG\n", 2.0)
    inbox.receive(b"two\n", 3.0)
    inbox.discard(4, 5)
    assert inbox == b"one\ntwo\n"
    assert [inbox.arrived_at(offset) for offset in (0, 3, 4)] == [1.0, 1.0, 3.0]
    assert inbox.take(4) == b"one\n"
    assert inbox.arrived_at(0) == 3.0
