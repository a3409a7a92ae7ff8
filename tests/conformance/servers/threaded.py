"""A small server of the line protocol: one thread for each client. It follows document 000.

python threaded.py PORT [IDLE_SECONDS]

It makes common mistakes on purpose:

1. It takes the result of one recv() for one line. TCP does not promise that: two lines in one segment become one command,
   and a line that arrives in two segments becomes two.
2. A refused LOGIN still stores the name, so that when this client leaves, the user who really has the name is removed and
   announced as gone.
"""

from __future__ import annotations

import socket
import sys
import threading

lock = threading.Lock()
users: dict[str, socket.socket] = {}


def send(to: socket.socket, text: str) -> None:
    try:
        to.sendall(text.encode() + b"\n")
    except OSError:
        pass  # its own thread notices the end


def send_to_others(name: str, text: str) -> None:
    with lock:
        for other, connection in users.items():
            if other != name:
                send(connection, text)


class Client(threading.Thread):
    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.username = ""
        self.logged_in = False

    def run(self) -> None:
        try:
            while data := self.connection.recv(4096):
                self.command(data.decode(errors="replace").strip())  # mistake 1
        except TimeoutError:
            send(self.connection, "INFO idle-timeout")
        except OSError:
            pass
        self.leave()

    def command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "LOGIN":
            self.login(rest)
        elif not self.logged_in:
            send(self.connection, "ERR must-login-first")
        elif word == "MSG":
            send_to_others(self.username, f"MSG {self.username} {rest}")
        elif word == "WHO":
            with lock:
                for name in users:
                    send(self.connection, f"USER {name}")
        elif word == "DM":
            self.dm(rest)
        elif word == "PING":
            send(self.connection, "PONG")
        else:
            send(self.connection, "ERR unknown-command")

    def login(self, name: str) -> None:
        if not name or " " in name:
            send(self.connection, "ERR invalid-username")
            return
        self.username = name  # mistake 2: the name can still turn out to be taken
        with lock:
            if name in users:
                send(self.connection, "ERR username-taken")
                return
            users[name] = self.connection
        self.logged_in = True
        send(self.connection, "OK")

    def dm(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        if not text:
            send(self.connection, "ERR invalid-dm-format")
            return
        with lock:
            other = users.get(name)
        if other is None:
            send(self.connection, "ERR user-not-found")
        else:
            send(other, f"DM {self.username} {text}")

    def leave(self) -> None:
        with lock:
            there = users.pop(self.username, None)
        if there is not None:
            send_to_others(self.username, f"INFO {self.username} disconnected")
        self.connection.close()


def main(port: int, idle_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        connection.settimeout(idle_s)
        Client(connection).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0)
