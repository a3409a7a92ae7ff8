"""A server that is killed delivers each kept message once. With real processes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.geventchat.processes import port_of, ready_lines, running
from tests.patience import HANG_S

PASSWORD = "correct horse battery"


class Client:
    """A client of `line` that waits for each answer."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), HANG_S)
        self._lines = self._sock.makefile("rb")

    def close(self) -> None:
        self._lines.close()
        self._sock.close()

    def send(self, line: str) -> None:
        self._sock.sendall(line.encode() + b"\n")

    def receive(self) -> str:
        return self._lines.readline().decode().removesuffix("\n")

    def ask(self, line: str) -> str:
        self.send(line)
        return self.receive()


@contextmanager
def killed_server(data: Path) -> Iterator[Callable[[], Client]]:
    """A server, and what connects to it; it is killed at the end."""
    clients: list[Client] = []
    words = ("-p", "0", "--host", "127.0.0.1", "--idle-timeout", "0", "--data", str(data))
    with running(*words) as server:
        port = port_of(ready_lines(server)[0])

        def connect() -> Client:
            clients.append(Client(port))
            return clients[-1]

        yield connect
        server.kill()
        server.wait(HANG_S)
    for client in clients:
        client.close()


def test_a_message_is_delivered_once_whenever_the_server_is_killed(tmp_path: Path):
    data = tmp_path / "data"
    with killed_server(data) as connect:
        bob = connect()
        assert bob.ask("LOGIN bob") == "OK"
        assert bob.ask(f"REGISTER {PASSWORD}") == "OK"
        assert bob.ask("QUIT") == "Goodbye!"
        alice = connect()
        assert alice.ask("LOGIN alice") == "OK"
        assert alice.ask(f"REGISTER {PASSWORD}") == "OK"
        for text in ("one", "two"):
            assert alice.ask(f"DM bob {text}") == "INFO bob is offline, message kept"
    with killed_server(data) as connect:
        bob = connect()
        assert bob.ask(f"LOGIN bob {PASSWORD}") == "OK"
        assert bob.receive() == "DM alice one"
        assert bob.receive() == "DM alice two"
    with killed_server(data) as connect:
        bob = connect()
        assert bob.ask(f"LOGIN bob {PASSWORD}") == "OK"
        assert bob.ask("PING") == "PONG"
