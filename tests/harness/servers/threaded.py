"""A chat server with plain threads. Run as a command: PORT [no-ping] [login-first].

It delivers messages late, in real time, so that a fence which does not wait for them is noticed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

DELAY_S = 0.03


class Chat:
    def __init__(self, port: int, options: set[str]) -> None:
        self.options = options
        self.people: dict[str, socket.socket] = {}
        self.listener = socket.create_server(("127.0.0.1", port))

    def serve(self) -> None:
        print(f"listening on port {self.listener.getsockname()[1]}", flush=True)
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.converse, args=(sock,), daemon=True).start()

    def converse(self, sock: socket.socket) -> None:
        name = ""
        with sock, sock.makefile("rb") as lines:
            try:
                for line in lines:
                    verb, _, rest = line.decode().strip().partition(" ")
                    if verb == "LOGIN":
                        name = rest
                        self.people[name] = sock
                        sock.sendall(b"OK\n")
                    elif verb == "QUIT":
                        sock.sendall(b"Goodbye!\n")
                        return
                    elif verb == "DIE":
                        print("dying as told", file=sys.stderr, flush=True)
                        os._exit(7)
                    elif not name and "login-first" in self.options:
                        sock.sendall(b"ERR must-login-first\n")
                    elif verb == "PING" and "no-ping" not in self.options:
                        sock.sendall(b"PONG " + rest.encode() + b"\n" if rest else b"PONG\n")
                    elif verb == "MSG":
                        self.tell_others(name, f"MSG {name} {rest}\n")
            finally:
                if self.people.get(name) is sock:
                    del self.people[name]
                    self.tell_others(name, f"INFO {name} disconnected\n")

    def tell_others(self, name: str, text: str) -> None:
        time.sleep(DELAY_S)
        for other, sock in list(self.people.items()):
            if other != name:
                sock.sendall(text.encode())


if __name__ == "__main__":
    Chat(int(sys.argv[1]), set(sys.argv[2:])).serve()
