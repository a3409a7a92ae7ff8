"""A small chat server that is right as long as nothing gets in its way, and four ways to be no more than that.

Each fault passes every transcript that is merely played. `server: fault=reads` in a script asks for one of them;
without it the server is right under any schedule.
"""

from __future__ import annotations

import socket

import gevent
from gevent import socket as cooperative
from gevent.lock import RLock
from gevent.server import StreamServer

from harness import Ask, UnsupportedAsk


class Sound(StreamServer):
    """Says `HELLO`, takes lines, hands each to everyone else as `NAME: line`. The first line is the name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.converse)
        self.people: dict[str, cooperative.socket] = {}
        self.writing = RLock()

    def converse(self, sock: cooperative.socket, _address: object) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = ""
        try:
            for line in self.lines(sock):
                if name:
                    for other in [one for one in self.people if one != name]:
                        self.deliver(self.people[other], f"{name}: {line}")
                else:
                    name = line
                    self.people[name] = sock
                    self.deliver(sock, f"HELLO {name}")
        except OSError:
            return  # cut off from elsewhere
        finally:
            self.people.pop(name, None)
            sock.close()

    def lines(self, sock: cooperative.socket):  # type: ignore[no-untyped-def]
        """Whole lines, however they are cut."""
        with sock.makefile("rb") as stream:
            for line in stream:
                yield line.decode().rstrip("\n")

    def deliver(self, sock: cooperative.socket, text: str) -> None:
        # One writer at a time: a line that is only half taken must not be followed by another.
        with self.writing:
            sock.sendall(text.encode() + b"\n")


class OneReadIsOneLine(Sound):
    def lines(self, sock: cooperative.socket):  # type: ignore[no-untyped-def]
        while chunk := sock.recv(4096):
            yield from chunk.decode().splitlines()


class ASendTakesAll(Sound):
    def deliver(self, sock: cooperative.socket, text: str) -> None:
        sock.send(text.encode() + b"\n")


class GreenletsRunInOrder(Sound):
    def deliver(self, sock: cooperative.socket, text: str) -> None:
        gevent.spawn(super().deliver, sock, text)


class NobodyEverStalls(Sound):
    def deliver(self, sock: cooperative.socket, text: str) -> None:
        sock.setblocking(False)
        try:
            super().deliver(sock, text)
        except BlockingIOError:
            self.people = {name: other for name, other in self.people.items() if other is not sock}
        finally:
            sock.setblocking(True)


FAULTS: dict[str, type[Sound]] = {
    "reads": OneReadIsOneLine,
    "writes": ASendTakesAll,
    "order": GreenletsRunInOrder,
    "stalls": NobodyEverStalls,
}


def serve(ask: Ask) -> Sound:
    """The factory; the option `fault` chooses."""
    options = dict(ask.options)
    fault = options.pop("fault", None)
    if options or (fault is not None and fault not in FAULTS):
        raise UnsupportedAsk(
            f"no such option or fault; known: {', '.join(f'fault={name}' for name in FAULTS)}"
        )
    return FAULTS[fault]() if fault else Sound()
