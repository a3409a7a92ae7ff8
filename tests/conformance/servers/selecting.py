"""A small server of the line protocol: one loop over a selector. It follows document 001.

python selecting.py PORT [IDLE_SECONDS]

It makes common mistakes on purpose:

1. A message goes to everyone, including its sender.
2. A connection that is reset is closed without telling the others; only an orderly end is announced.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Client:
    connection: socket.socket
    received_at: float
    name: str = ""
    unread: bytes = b""
    unsent: bytearray = field(default_factory=bytearray)
    leaving: bool = False

    def send(self, text: str) -> None:
        self.unsent += text.encode() + b"\n"


class Server:
    def __init__(self, port: int, idle_s: float) -> None:
        self.idle_s = idle_s
        self.selector = selectors.DefaultSelector()
        self.clients: dict[socket.socket, Client] = {}
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select(0.05):
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj in self.clients:
                    self.read(self.clients[key.fileobj])
            self.disconnect_idle_clients()
            self.write()

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.clients[connection] = Client(connection, time.monotonic())
        self.selector.register(connection, selectors.EVENT_READ)

    def read(self, client: Client) -> None:
        try:
            data = client.connection.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            self.close(client)  # mistake 2
            return
        if not data:
            self.announce(client)
            self.close(client)
            return
        *lines, client.unread = (client.unread + data).split(b"\n")
        for line in lines:
            client.received_at = time.monotonic()
            self.command(client, line.decode(errors="replace").rstrip("\r"))

    def command(self, client: Client, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "LOGIN" and not client.name:
            if any(other.name == rest for other in self.clients.values()):
                client.send("ERR username-taken")
            else:
                client.name = rest
                client.send("OK")
        elif word == "PING":
            client.send("PONG")
        elif not client.name:
            client.send("ERR login")
        elif word == "MSG":
            for other in self.users():
                other.send(f"MSG {client.name} {rest}")  # mistake 1
        elif word == "WHO":
            for other in self.users():
                client.send(f"USER {other.name}")
        elif word == "DM":
            name, _, text = rest.partition(" ")
            for other in self.users():
                if other.name == name:
                    other.send(f"DM {client.name} {text}")

    def users(self) -> list[Client]:
        return [client for client in self.clients.values() if client.name]

    def announce(self, client: Client) -> None:
        for other in self.users() if client.name else []:
            if other is not client:
                other.send(f"INFO {client.name} disconnected")

    def close(self, client: Client) -> None:
        self.selector.unregister(client.connection)
        del self.clients[client.connection]
        client.connection.close()

    def disconnect_idle_clients(self) -> None:
        for client in list(self.clients.values()):
            if not client.leaving and time.monotonic() - client.received_at > self.idle_s:
                client.leaving = True
                client.send("ERR idle-timeout")
                self.announce(client)

    def write(self) -> None:
        for client in list(self.clients.values()):
            try:
                while client.unsent:
                    del client.unsent[: client.connection.send(client.unsent)]
            except BlockingIOError:
                continue
            except ConnectionError:
                self.close(client)
                continue
            if client.leaving:
                self.close(client)


if __name__ == "__main__":
    Server(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0).serve()
