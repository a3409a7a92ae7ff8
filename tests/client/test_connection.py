"""The connection: the order of its events, what it sends, and how it explains a failure."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from geventchat.client import connection as connection_module
from geventchat.client.address import Address
from geventchat.client.connection import (
    BLOCKED_BYTES,
    MAX_LINE_BYTES,
    Connected,
    ConnectFailed,
    Connection,
    ConnectionEvent,
    DataReceived,
    Disconnected,
    LineReceived,
    Writable,
    enable_keepalive,
)
from geventchat.client.loop import Loop
from geventchat.client.network import Network, explain
from geventchat.dialects.framing import TOO_LONG
from tests.patience import HANG_S

ADDRESS = Address("chat.example", 4000)


class Link:
    """A connection over a pair of sockets, and its events."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.events: list[ConnectionEvent] = []
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.settimeout(HANG_S)
        self.connection = Connection(loop, ours, self.events.append)

    def until(self, count: int) -> list[ConnectionEvent]:
        """Run until this many events have come, besides that something has arrived."""
        self.loop.run(until=lambda: len(self.news()) >= count)
        return self.news()

    def news(self) -> list[ConnectionEvent]:
        return [event for event in self.events if not isinstance(event, DataReceived)]


@pytest.fixture
def link() -> Iterator[Link]:
    loop = Loop()
    link = Link(loop)
    yield link
    link.connection.abort()
    link.peer.close()
    loop.close()


def test_lines_arrive_whole_and_in_order_and_the_end_is_last(link: Link) -> None:
    link.peer.sendall(b"one\r\ntw")
    link.peer.sendall(b"o\nthr")
    link.peer.close()
    assert link.until(3) == [
        LineReceived(link.connection, b"one"),
        LineReceived(link.connection, b"two"),
        Disconnected(link.connection, "the server closed it"),
    ]


def test_a_part_of_a_line_is_a_sign_of_life(link: Link) -> None:
    link.peer.sendall(b"on")
    link.loop.run(until=lambda: bool(link.events))
    assert link.events == [DataReceived(link.connection)]


def test_a_line_over_the_limit_leaves_a_mark(link: Link) -> None:
    link.connection._framing.feed(b"x" * (MAX_LINE_BYTES - 5))
    link.peer.sendall(b"x" * 10 + b"\nok\n")
    assert link.until(2) == [LineReceived(link.connection, TOO_LONG), LineReceived(link.connection, b"ok")]


def test_a_full_send_buffer_is_known_and_its_end_reported(link: Link) -> None:
    link.connection.send(b"x" * (2 * 1024 * 1024))
    assert link.connection.blocked
    received = 0
    link.peer.setblocking(False)

    def drain() -> bool:
        nonlocal received
        try:
            received += len(link.peer.recv(1 << 20))
        except BlockingIOError:
            pass
        return bool(link.events)

    link.loop.run(until=drain)
    assert link.events == [Writable(link.connection)]
    assert not link.connection.blocked
    assert received > BLOCKED_BYTES


def test_closing_sends_what_is_left(link: Link) -> None:
    link.connection.send(b"QUIT\n")
    link.connection.close()
    link.connection.send(b"too late")
    assert link.until(1) == [Disconnected(link.connection, "it was closed")]
    assert link.peer.recv(100) == b"QUIT\n"
    assert link.peer.recv(100) == b""
    assert link.connection.is_closed


def test_a_peer_that_takes_nothing_does_not_hold_up_the_end(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_TIMEOUT_S", 0.01)
    link.connection.send(b"x" * 10_000_000)
    link.connection.close()
    assert link.until(1) == [Disconnected(link.connection, "the connection was given up")]


def test_nothing_is_sent_after_the_end(link: Link) -> None:
    link.connection.abort()
    link.connection.send(b"too late")
    link.connection.close()
    assert link.peer.recv(100) == b""
    assert len(link.events) == 1


def test_sending_into_a_broken_connection_is_reported_later(link: Link) -> None:
    link.peer.close()
    link.connection.send(b"x")
    link.connection.send(b"y")
    assert link.events == []
    assert isinstance(link.until(1)[0], Disconnected)


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ([ConnectionRefusedError(errno.ECONNREFUSED, "x")], "Connection refused by chat.example:4000."),
        (
            [OSError(errno.ECONNREFUSED, "a"), OSError(errno.ECONNREFUSED, "b")],
            "Connection refused by chat.example:4000.",
        ),
        ([OSError(errno.EHOSTUNREACH, "x")], "Cannot connect to chat.example:4000: no route to host."),
        (
            [OSError(errno.ENETUNREACH, "a"), OSError(errno.ECONNREFUSED, "b")],
            "Cannot connect to chat.example:4000: network is unreachable, connection refused.",
        ),
        ([socket.gaierror(socket.EAI_NONAME, "x")], "Unknown host chat.example."),
        ([socket.gaierror(socket.EAI_AGAIN, "x")], "Cannot look up chat.example at the moment."),
        ([UnicodeError("label too long")], "Unknown host chat.example."),
    ],
)
def test_a_failed_connection_is_explained_in_a_sentence(
    errors: list[OSError | UnicodeError], sentence: str
) -> None:
    assert explain(ADDRESS, *errors) == sentence


class Client:
    """A network and its events."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.events: list[ConnectionEvent] = []
        self.network = Network(self.loop, self.events.append)

    def connect(self, host: str, port: int, timeout_s: float = HANG_S) -> ConnectionEvent:
        """Connect; the outcome."""
        count = len(self.events)
        self.network.connect(Address(host, port), timeout_s)
        self.loop.run(until=lambda: len(self.events) > count)
        return self.events[-1]


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.network.close()
    client.loop.run(until=lambda: client.network.is_closed)
    client.loop.close()


def test_the_network_connects_by_name_and_closes_when_everything_is_sent(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connected = client.connect("localhost", listener.getsockname()[1])
        assert isinstance(connected, Connected)
        connected.connection.send(b"QUIT\n")
        client.network.close()
        client.loop.run(until=lambda: client.network.is_closed)
        server, _ = listener.accept()
        with server, server.makefile("rb") as received:
            assert received.read() == b"QUIT\n"


def test_the_network_reports_failed_attempts(client: Client) -> None:
    assert client.connect("127.0.0.1", 1) == ConnectFailed("Connection refused by 127.0.0.1:1.")
    long = "a" * 80 + ".invalid"
    assert client.connect(long, 1) == ConnectFailed(f"Unknown host {long}.")
    assert client.connect("127.0.0.1", 1, 0.0) == ConnectFailed("127.0.0.1:1 did not answer within 0 s.")


def test_of_several_addresses_the_first_that_answers_is_taken(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (1, 1, port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: found)
        assert isinstance(client.connect("several", port), Connected)


def test_a_new_attempt_ends_the_one_before(client: Client) -> None:
    client.network.connect(Address("127.0.0.1", 1), HANG_S)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert isinstance(client.connect("127.0.0.1", listener.getsockname()[1]), Connected)
    assert len(client.events) == 1


@pytest.mark.parametrize(("family", "enabled"), [(socket.AF_INET, True), (socket.AF_UNIX, False)])
def test_tcp_notices_a_peer_that_vanishes(family: socket.AddressFamily, enabled: bool) -> None:
    with socket.socket(family) as own_socket:
        enable_keepalive(own_socket)
        assert bool(own_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is enabled
        if enabled:
            assert own_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
