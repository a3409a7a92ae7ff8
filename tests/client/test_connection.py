"""The connection: the order of its events, what it sends, and how it explains a failure."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from geventchat.client import connection as connection_module
from geventchat.client.address import Address
from geventchat.client.connection import (
    MAX_LINE_BYTES,
    Connected,
    ConnectFailed,
    Connection,
    ConnectionEvent,
    Disconnected,
    LineReceived,
    Network,
    Writable,
    explain,
)
from geventchat.dialects.framing import TOO_LONG
from tests.client.recorders import RecordingTransport, connected

ADDRESS = Address("chat.example", 4000)


def test_lines_arrive_whole_and_in_order_after_the_connection() -> None:
    events: list[ConnectionEvent] = []
    connection, _ = connected(events.append)
    connection.data_received(b"one\r\ntw")
    connection.data_received(b"o\nthr")
    connection.connection_lost(None)
    assert events == [
        Connected(connection),
        LineReceived(connection, b"one"),
        LineReceived(connection, b"two"),
        Disconnected(connection, "the server closed it"),
    ]


def test_a_line_over_the_limit_leaves_a_mark() -> None:
    events: list[ConnectionEvent] = []
    connection, _ = connected(events.append)
    connection.data_received(b"x" * MAX_LINE_BYTES + b"\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\nok\n")
    lines = [event.line for event in events if isinstance(event, LineReceived)]
    assert lines == [b"x" * MAX_LINE_BYTES, TOO_LONG, b"ok"]


def test_a_full_send_buffer_is_known_and_its_end_reported() -> None:
    events: list[ConnectionEvent] = []
    connection, _ = connected(events.append)
    connection.pause_writing()
    assert connection.blocked
    connection.resume_writing()
    assert not connection.blocked
    assert events[1:] == [Writable(connection)]


def test_nothing_is_sent_after_the_end() -> None:
    connection, transport = connected(lambda event: None)
    connection.send(b"in time")
    connection.connection_lost(None)
    connection.send(b"too late")
    connection.close()
    connection.abort()
    assert transport.sent() == b"in time"
    assert not transport.closed


def test_a_reset_is_reported_in_words() -> None:
    events: list[ConnectionEvent] = []
    connection, _ = connected(events.append)
    connection.connection_lost(ConnectionResetError(errno.ECONNRESET, "whatever"))
    connection.connection_lost(ConnectionError())
    assert events[1:] == [
        Disconnected(connection, "connection reset by peer"),
        Disconnected(connection, "connectionError"),
    ]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "Connection refused by chat.example:4000."),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 4000, 0, 0), "
                "[Errno 111] Connect call failed ('127.0.0.1', 4000)"
            ),
            "Connection refused by chat.example:4000.",
        ),
        (OSError(errno.EHOSTUNREACH, "x"), "Cannot connect to chat.example:4000: no route to host."),
        (OSError(errno.ENETUNREACH, "x"), "Cannot connect to chat.example:4000: network is unreachable."),
        (
            OSError("Multiple exceptions: [Errno 101] a, [Errno 111] b"),
            "Cannot connect to chat.example:4000: multiple exceptions: [Errno 101] a, [Errno 111] b.",
        ),
        (socket.gaierror(socket.EAI_NONAME, "x"), "Unknown host chat.example."),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "Cannot look up chat.example at the moment."),
        (UnicodeError("label too long"), "Unknown host chat.example."),
    ],
)
def test_a_failed_connection_is_explained_in_a_sentence(error: OSError | UnicodeError, sentence: str) -> None:
    assert explain(ADDRESS, error) == sentence


def test_the_network_closes_as_soon_as_everything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_TIMEOUT_S", 60.0)

    async def run(listener: socket.socket) -> bytes:
        events: asyncio.Queue[ConnectionEvent] = asyncio.Queue()
        network = Network(events.put_nowait)
        network.connect(Address("127.0.0.1", listener.getsockname()[1]))
        first = await events.get()
        assert isinstance(first, Connected)
        first.connection.send(b"QUIT\n")
        await asyncio.wait_for(network.close(), 10)
        assert isinstance(await events.get(), Disconnected)
        server, _ = listener.accept()
        with server, server.makefile("rb") as received:
            return received.read()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(run(listener)) == b"QUIT\n"


def test_the_network_connects_and_closes_within_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_TIMEOUT_S", 0.05)

    async def run(listener: socket.socket) -> None:
        events: asyncio.Queue[ConnectionEvent] = asyncio.Queue()
        network = Network(events.put_nowait)
        network.connect(Address("127.0.0.1", listener.getsockname()[1]))
        first = await events.get()
        assert isinstance(first, Connected)
        server, _ = listener.accept()
        with server:
            server.sendall(b"hello\n")
            assert await events.get() == LineReceived(first.connection, b"hello")
            # The server reads nothing, and the kernel does not take so much: only an abort ends this connection.
            first.connection.send(b"x" * 50_000_000)
            assert first.connection.blocked
            await network.close()
            assert isinstance(await asyncio.wait_for(events.get(), 10), Disconnected)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(run(listener))


def test_the_network_reports_a_failed_attempt_and_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[ConnectionEvent]:
        events: asyncio.Queue[ConnectionEvent] = asyncio.Queue()
        network = Network(events.put_nowait)
        network.connect(Address("127.0.0.1", 1))
        refused = await events.get()
        monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT_S", 0.0)
        network.connect(Address("127.0.0.1", 1))
        slow = await events.get()
        await network.close()
        return [refused, slow]

    assert asyncio.run(run()) == [
        ConnectFailed("Connection refused by 127.0.0.1:1."),
        ConnectFailed("127.0.0.1:1 did not answer within 0 s."),
    ]


@pytest.mark.parametrize(("family", "enabled"), [(socket.AF_INET, True), (socket.AF_UNIX, False)])
def test_tcp_notices_a_peer_that_vanishes(family: socket.AddressFamily, enabled: bool) -> None:
    with socket.socket(family) as own_socket:
        Connection(lambda event: None).connection_made(RecordingTransport({"socket": own_socket}))
        assert bool(own_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is enabled
        if enabled:
            assert own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
