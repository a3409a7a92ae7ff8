"""A chat server with a thread per client, which calls `sendall` for each receiver: the obvious first design.

A peer for the benchmark that speaks only the `line` dialect. It knows neither geventchat nor the benchmark.
"""

from __future__ import annotations

import socket
import sys
import threading

COMMANDS_BEFORE_LOGIN = {b"LOGIN", b"QUIT", b"EXIT"}


class Client:
    """One connection. Several threads send to it, so each line is sent under its lock."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.name: bytes | None = None
        self.sending = threading.Lock()

    def send(self, data: bytes) -> None:
        with self.sending:
            try:
                self.sock.sendall(data)
            except OSError:
                pass  # its own thread notices that the connection is gone and announces it


class Room:
    def __init__(self) -> None:
        self.members: dict[bytes, Client] = {}
        self.lock = threading.Lock()

    def others(self, client: Client) -> list[Client]:
        with self.lock:
            return [member for member in self.members.values() if member is not client]

    def broadcast(self, client: Client, data: bytes) -> None:
        for member in self.others(client):
            member.send(data)

    def login(self, client: Client, name: bytes) -> bytes:
        if not name or b" " in name:
            return b"ERR invalid-username\n"
        with self.lock:
            if name in self.members:
                return b"ERR username-taken\n"
            self.members[name] = client
        client.name = name
        return b"OK\n"

    def leave(self, client: Client) -> None:
        if client.name is not None:
            with self.lock:
                del self.members[client.name]
            self.broadcast(client, b"INFO " + client.name + b" disconnected\n")


def handle(room: Room, client: Client, line: bytes) -> bool:
    """Handle one line. False when the client quits."""
    word, _, rest = line.partition(b" ")
    command = word.upper()
    if client.name is None and command not in COMMANDS_BEFORE_LOGIN:
        client.send(b"ERR must-login-first\n")
    elif command == b"MSG":
        if text := rest.strip():
            room.broadcast(client, b"MSG " + (client.name or b"") + b" " + text + b"\n")
        else:
            client.send(b"ERR empty-message\n")
    elif command == b"LOGIN":
        client.send(b"ERR already-logged-in\n" if client.name else room.login(client, rest.strip()))
    elif command == b"PING":
        client.send(b"PONG " + rest + b"\n" if rest else b"PONG\n")
    elif command == b"WHO":
        with room.lock:
            names = list(room.members)
        client.send(b"".join(b"USER " + name + b"\n" for name in names))
    elif command == b"DM":
        to, _, text = rest.partition(b" ")
        with room.lock:
            target = room.members.get(to)
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


def serve_client(room: Room, sock: socket.socket) -> None:
    """Serve one client, in its own thread."""
    client, rest = Client(sock), b""
    try:
        while chunk := sock.recv(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                line = line.rstrip(b"\r")
                if line and not handle(room, client, line):
                    return
    except OSError:
        pass  # a reset ends the connection like any other end
    finally:
        room.leave(client)
        sock.close()


def main() -> None:
    room = Room()
    threading.stack_size(256 * 1024)  # the default reserves 8 MB for each of thousands of threads
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096) as listener:
        print(f"ready {listener.getsockname()[1]}", flush=True)
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve_client, args=(room, sock), daemon=True).start()


if __name__ == "__main__":
    main()
