"""A small server of the line protocol: one thread for each client. It goes by document 000.

python threaded.py PORT [IDLE_SECONDS]

Wrong on purpose, in ways that are common:

1. What one recv() returns is taken for one line. TCP keeps no such promise: two lines in one segment become one command,
   and a line that arrives in two segments becomes two.
2. A refused LOGIN leaves the asked name with whoever was refused, so that the name's real holder is thrown out of the
   list, and said to have left, once that other client goes.
"""

from __future__ import annotations

import socket
import sys
import threading

lock = threading.Lock()
users: dict[str, socket.socket] = {}


def say(to: socket.socket, text: str) -> None:
    try:
        to.sendall(text.encode() + b"\n")
    except OSError:
        pass  # its own thread sees that it is gone


def tell_others(name: str, text: str) -> None:
    with lock:
        for other, connection in users.items():
            if other != name:
                say(connection, text)


class Client(threading.Thread):
    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.name_asked = ""
        self.logged_in = False

    def run(self) -> None:
        try:
            while data := self.connection.recv(4096):
                self.command(data.decode(errors="replace").strip())  # mistake 1
        except TimeoutError:
            say(self.connection, "INFO idle-timeout")
        except OSError:
            pass
        self.leave()

    def command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "LOGIN":
            self.login(rest)
        elif not self.logged_in:
            say(self.connection, "ERR must-login-first")
        elif word == "MSG":
            tell_others(self.name_asked, f"MSG {self.name_asked} {rest}")
        elif word == "WHO":
            with lock:
                for name in users:
                    say(self.connection, f"USER {name}")
        elif word == "DM":
            self.dm(rest)
        elif word == "PING":
            say(self.connection, "PONG")
        else:
            say(self.connection, "ERR unknown-command")

    def login(self, name: str) -> None:
        if not name or " " in name:
            say(self.connection, "ERR invalid-username")
            return
        self.name_asked = name  # mistake 2: before it is known whether the name is free
        with lock:
            if name in users:
                say(self.connection, "ERR username-taken")
                return
            users[name] = self.connection
        self.logged_in = True
        say(self.connection, "OK")

    def dm(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        if not text:
            say(self.connection, "ERR invalid-dm-format")
            return
        with lock:
            other = users.get(name)
        if other is None:
            say(self.connection, "ERR user-not-found")
        else:
            say(other, f"DM {self.name_asked} {text}")

    def leave(self) -> None:
        with lock:
            there = users.pop(self.name_asked, None)
        if there is not None:
            tell_others(self.name_asked, f"INFO {self.name_asked} disconnected")
        self.connection.close()


def main(port: int, idle_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        connection.settimeout(idle_s)
        Client(connection).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0)
