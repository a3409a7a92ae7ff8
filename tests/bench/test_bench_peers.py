"""The peers speak the `line` dialect well enough for every workload, and alike."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bench.servers import OURS, OURS_BARE, SERVERS, Server, started
from tests.patience import HANG_S

PEERS = [server for server in SERVERS if "line" in server.dialects and server.key not in (OURS, OURS_BARE)]


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=HANG_S)
        self.file = self.socket.makefile("rb")

    def send(self, *lines: str) -> None:
        self.socket.sendall("".join(f"{line}\n" for line in lines).encode())

    def receives(self, *lines: str) -> None:
        assert [self.file.readline().decode() for _ in lines] == [f"{line}\n" for line in lines]

    def receives_nothing_more(self) -> None:
        """The answer to a new request comes next, so the server sent nothing before it."""
        self.send("PING fence")
        self.receives("PONG fence")


@contextmanager
def clients(server: Server, *names: str) -> Iterator[list[Client]]:
    if server.missing:
        pytest.skip(f"{server.missing} is not installed")
    with started(server, ("line",), core=None) as running, ExitStack() as stack:
        connected = []
        for name in names:
            client = Client(running.ports["line"])
            stack.callback(client.socket.close)
            stack.callback(client.file.close)
            client.send(f"LOGIN {name}")
            client.receives("OK")
            connected.append(client)
        yield connected


each_peer = pytest.mark.parametrize("server", PEERS, ids=lambda server: server.key)


@each_peer
def test_a_message_goes_to_everyone_but_its_sender(server: Server) -> None:
    with clients(server, "alice", "bob", "carol") as (alice, bob, carol):
        alice.send("MSG one", "MSG  two words ", "PING x")
        alice.receives("PONG x")
        for other in (bob, carol):
            other.receives("MSG alice one", "MSG alice two words")
        bob.send("MSG three")
        alice.receives("MSG bob three")
        carol.receives("MSG bob three")
        for client in (alice, bob, carol):
            client.receives_nothing_more()


@each_peer
def test_replies_and_messages_keep_their_order(server: Server) -> None:
    with clients(server, "alice", "bob") as (alice, bob):
        alice.send(*[part for i in range(500) for part in (f"MSG {i}", f"DM bob {i}", f"PING {i}")])
        alice.receives(*[f"PONG {i}" for i in range(500)])
        bob.receives(*[line for i in range(500) for line in (f"MSG alice {i}", f"DM alice {i}")])
        bob.receives_nothing_more()


@each_peer
def test_requests_that_are_refused(server: Server) -> None:
    with clients(server, "alice") as (alice,):
        alice.send("LOGIN again", "MSG", "MSG  ", "DM bob", "DM bob hi", "FLY", "", "who", "PING")
        alice.receives(
            "ERR already-logged-in",
            "ERR empty-message",
            "ERR empty-message",
            "ERR invalid-dm-format",
            "ERR user-not-found",
            "ERR unknown-command",
            "USER alice",
            "PONG",
        )
        stranger = Client(alice.socket.getpeername()[1])
        with stranger.socket, stranger.file:
            stranger.send("MSG hi", "LOGIN", "LOGIN two words", "LOGIN alice")
            stranger.receives(
                "ERR must-login-first", "ERR invalid-username", "ERR invalid-username", "ERR username-taken"
            )
        alice.receives_nothing_more()


@each_peer
def test_a_client_that_leaves_is_announced_and_its_name_is_free(server: Server) -> None:
    with clients(server, "alice", "bob", "carol") as (alice, bob, carol):
        bob.send("MSG bye", "QUIT")
        bob.receives("Goodbye!")
        assert bob.file.readline() == b""
        bob.socket.shutdown(socket.SHUT_RDWR)
        alice.receives("MSG bob bye", "INFO bob disconnected")
        carol.socket.shutdown(socket.SHUT_RDWR)
        alice.receives("INFO carol disconnected")
        alice.receives_nothing_more()
        again = Client(alice.socket.getpeername()[1])
        with again.socket, again.file:
            again.send("LOGIN bob")
            again.receives("OK")
