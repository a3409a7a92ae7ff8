"""A node of a chat of several processes: NAME PORT [PEER_PORT…]. What a client says, everyone hears, at the other nodes too.

`PING` is answered with `PONG`, `DIE` ends the node. With `careless` as its first peer it takes each read for a line.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

people: list[socket.socket] = []
lock = threading.Lock()


class Peer:
    """The connection to another node, made for the first message, and again after it was lost."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock: socket.socket | None = None

    def say(self, line: bytes) -> None:
        if not self.said(line):
            self.said(line)

    def said(self, line: bytes) -> bool:
        try:
            sock = self.sock or self.connected()
            sock.sendall(line)
        except OSError:
            self.sock = None
            return False
        return True

    def connected(self) -> socket.socket:
        sock = self.sock = socket.create_connection(("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"PEER\n")
        threading.Thread(target=self.watch, args=(sock,), daemon=True).start()
        return sock

    def watch(self, sock: socket.socket) -> None:
        """Notice that the connection is lost."""
        with sock, contextlib.suppress(OSError):
            sock.recv(1)
        if self.sock is sock:
            self.sock = None


def converse(sock: socket.socket, peers: list[Peer], careless: bool) -> None:
    is_peer = False
    with sock:
        source = iter(lambda: sock.recv(1000), b"") if careless else iter(sock.makefile("rb"))
        people.append(sock)
        try:
            for line in source:
                if line == b"PEER\n":
                    is_peer = True
                    people.remove(sock)
                elif line == b"DIE\n":
                    print("dying as told", flush=True)
                    os._exit(4)
                elif line.startswith(b"PING") and line.endswith(b"\n"):
                    sock.sendall(b"PONG\n")
                else:
                    with lock:
                        for other in people:
                            other.sendall(line)
                    for peer in () if is_peer else peers:
                        peer.say(line)
        except OSError:
            pass
        if not is_peer:
            people.remove(sock)


def main(name: str, port: int, *rest: str) -> None:
    careless = "careless" in rest
    peers = [Peer(int(word)) for word in rest if word.isdigit()]
    listener = socket.create_server(("127.0.0.1", port))
    print(f"{name} listens", flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=converse, args=(sock, peers, careless), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
