"""A chat server on gevent with a greenlet per client, which calls `sendall` for each receiver: the obvious design.

A peer for the benchmark that speaks only the `line` dialect. It knows neither geventchat nor the benchmark.
"""

from __future__ import annotations

import sys

from gevent import socket
from gevent.lock import RLock
from gevent.server import StreamServer

COMMANDS_BEFORE_LOGIN = {b"LOGIN", b"QUIT", b"EXIT"}


class Client:
    """One connection. The lock keeps two greenlets from calling `sendall` on one socket at the same time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.name: bytes | None = None
        self.sending = RLock()

    def send(self, data: bytes) -> None:
        with self.sending:
            try:
                self.sock.sendall(data)
            except OSError:
                pass  # its own greenlet notices that the connection is gone and announces it


class Chat:
    def __init__(self) -> None:
        self.members: dict[bytes, Client] = {}

    def broadcast(self, client: Client, data: bytes) -> None:
        for member in list(self.members.values()):
            if member is not client:
                member.send(data)

    def serve_client(self, sock: socket.socket, _address: object) -> None:
        """Serve one client, in its own greenlet."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client, rest = Client(sock), b""
        try:
            while chunk := sock.recv(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    line = line.rstrip(b"\r")
                    if line and not self.handle(client, line):
                        return
        except OSError:
            pass  # a reset ends the connection like any other end
        finally:
            if client.name is not None:
                del self.members[client.name]
                self.broadcast(client, b"INFO " + client.name + b" disconnected\n")

    def handle(self, client: Client, line: bytes) -> bool:
        """Handle one line. False when the client quits."""
        word, _, rest = line.partition(b" ")
        command = word.upper()
        if client.name is None and command not in COMMANDS_BEFORE_LOGIN:
            client.send(b"ERR must-login-first\n")
        elif command == b"MSG":
            if text := rest.strip():
                self.broadcast(client, b"MSG " + (client.name or b"") + b" " + text + b"\n")
            else:
                client.send(b"ERR empty-message\n")
        elif command == b"LOGIN":
            client.send(b"ERR already-logged-in\n" if client.name else self.login(client, rest.strip()))
        elif command == b"PING":
            client.send(b"PONG " + rest + b"\n" if rest else b"PONG\n")
        elif command == b"WHO":
            client.send(b"".join(b"USER " + name + b"\n" for name in self.members))
        elif command == b"DM":
            to, _, text = rest.partition(b" ")
            target = self.members.get(to)
            if not text:
                client.send(b"ERR invalid-dm-format\n")
            elif target is None:
                client.send(b"ERR user-not-found\n")
            else:
                target.send(b"DM " + (client.name or b"") + b" " + text + b"\n")
        elif command in (b"QUIT", b"EXIT"):
            client.send(b"Goodbye!\n")
            return False
        else:
            client.send(b"ERR unknown-command\n")
        return True

    def login(self, client: Client, name: bytes) -> bytes:
        if not name or b" " in name:
            return b"ERR invalid-username\n"
        if name in self.members:
            return b"ERR username-taken\n"
        client.name = name
        self.members[name] = client
        return b"OK\n"


def main() -> None:
    server = StreamServer(("127.0.0.1", int(sys.argv[1])), Chat().serve_client, backlog=4096)
    server.start()
    print(f"ready {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
