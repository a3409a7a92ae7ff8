"""Servers for fault injection: each echoes lines, and has one property that a fault reveals."""

from __future__ import annotations

import socket
from contextlib import suppress

import gevent
from gevent import socket as cooperative
from gevent.queue import Queue
from gevent.server import StreamServer

from harness import ServerSpec, UnsupportedSpec

_TCP_USER_TIMEOUT = 18


class Echo(StreamServer):
    """Echoes each line; notifies all others when a connection ends, and how."""

    def __init__(self, spec: ServerSpec) -> None:
        super().__init__(("127.0.0.1", 0), self.converse)
        self.spec = spec
        self.others: set[cooperative.socket] = set()
        self.outgoing: dict[cooperative.socket, Queue[bytes]] = {}

    def converse(self, sock: cooperative.socket, _address: object) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.prepare(sock)
        self.others.add(sock)
        how = "gone"
        try:
            with sock.makefile("rb") as lines:
                for line in lines:
                    self.answer(sock, line)
        except OSError as error:
            how = f"lost: {error.strerror}"
        self.others.discard(sock)
        sock.close()
        for other in list(self.others):
            self.answer(other, f"{how}\n".encode())

    def prepare(self, sock: cooperative.socket) -> None:
        pass

    def answer(self, sock: cooperative.socket, line: bytes) -> None:
        sock.sendall(line)


class Probing(Echo):
    """Probes silent peers after 10 s, three times, 5 s apart."""

    def prepare(self, sock: cooperative.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class Limited(Probing):
    """The same, with a limit of 12 s for anything unacknowledged."""

    def prepare(self, sock: cooperative.socket) -> None:
        super().prepare(sock)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, 12_000)


class Careless(Echo):
    """Ignores how much a send has taken."""

    def answer(self, sock: cooperative.socket, line: bytes) -> None:
        sock.send(line)


class Queueing(Echo):
    """Writes to each client in a second greenlet, which only ends when a send fails."""

    def prepare(self, sock: cooperative.socket) -> None:
        self.outgoing[sock] = lines = Queue()
        gevent.spawn(self.write, sock, lines)

    def write(self, sock: cooperative.socket, lines: Queue[bytes]) -> None:
        with suppress(OSError):
            for line in lines:
                sock.sendall(line)

    def answer(self, sock: cooperative.socket, line: bytes) -> None:
        self.outgoing[sock].put(line)


class ByTheWallClock(Echo):
    """Disconnects clients that are idle for a minute, measured by the time of day."""

    def answer(self, sock: cooperative.socket, line: bytes) -> None:
        self.last = self.spec.clock.time()
        super().answer(sock, line)

    def prepare(self, sock: cooperative.socket) -> None:
        self.last = self.spec.clock.time()
        gevent.spawn(self.watch, sock)

    def watch(self, sock: cooperative.socket) -> None:
        while self.spec.clock.time() - self.last < 60:
            gevent.sleep(1)
        sock.shutdown(socket.SHUT_RDWR)


SERVERS: dict[str, type[Echo]] = {
    "": Echo,
    "probing": Probing,
    "limited": Limited,
    "careless": Careless,
    "queueing": Queueing,
    "wall-clock": ByTheWallClock,
}


def serve(spec: ServerSpec) -> Echo:
    """The factory; the option `kind` chooses."""
    kind = spec.options.get("kind", "")
    if kind not in SERVERS:
        raise UnsupportedSpec(f"no kind {kind!r}; known: {', '.join(SERVERS)}")
    return SERVERS[kind](spec)
