"""A small chat server that is right as long as nothing gets in its way, and ways to be no more than that.

Each fault passes every transcript that is merely played, unless it is written for it. `server: fault=reads` in a script
asks for one of them; without it the server is right under any schedule.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent
from gevent import socket as cooperative
from gevent.lock import RLock
from gevent.server import StreamServer

from harness import ServerSpec, UnsupportedSpec


class Sound(StreamServer):
    """The first line is a name, answered `HELLO name` or `TAKEN`; each line after it goes to everyone else."""

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
                    self.tell_others(name, line)
                elif line in self.people:
                    name = self.refuse(sock, line)
                else:
                    name = line
                    self.people[name] = sock
                    self.deliver(sock, f"HELLO {name}")
        except OSError:
            return  # cut off from elsewhere
        finally:
            self.people.pop(name, None)
            sock.close()

    def refuse(self, sock: cooperative.socket, name: str) -> str:
        self.deliver(sock, "TAKEN")
        return ""

    def lines(self, sock: cooperative.socket) -> Iterator[str]:
        """Whole lines, however they are cut; the one that never ended is none."""
        with sock.makefile("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield line.decode().rstrip("\n")

    def tell_others(self, name: str, line: str) -> None:
        for other in [one for one in self.people if one != name]:
            self.deliver(self.people[other], f"{name}: {line}")

    def deliver(self, sock: cooperative.socket, text: str) -> None:
        # One writer at a time: a line that is only half taken must not be followed by another.
        with self.writing:
            sock.sendall(text.encode() + b"\n")


class OneReadIsOneLine(Sound):
    def lines(self, sock: cooperative.socket) -> Iterator[str]:
        while chunk := sock.recv(4096):
            yield from chunk.decode().splitlines()


class ASendTakesAll(Sound):
    def deliver(self, sock: cooperative.socket, text: str) -> None:
        sock.send(text.encode() + b"\n")


class NobodyEverStalls(Sound):
    """Takes a client that is not ready for one that is gone."""

    def deliver(self, sock: cooperative.socket, text: str) -> None:
        sock.setblocking(False)
        try:
            super().deliver(sock, text)
        except BlockingIOError:
            self.people = {name: other for name, other in self.people.items() if other is not sock}
        finally:
            sock.setblocking(True)


class GreenletsRunInOrder(Sound):
    def deliver(self, sock: cooperative.socket, text: str) -> None:
        gevent.spawn(super().deliver, sock, text)


class ForgetsTheHolder(Sound):
    """Someone who was refused a name takes it from its holder when they go."""

    def converse(self, sock: cooperative.socket, address: object) -> None:
        self.wanted: dict[cooperative.socket, str] = getattr(self, "wanted", {})
        super().converse(sock, address)
        self.people.pop(self.wanted.pop(sock, ""), None)

    def refuse(self, sock: cooperative.socket, name: str) -> str:
        self.wanted[sock] = name
        return super().refuse(sock, name)


FAULTS: dict[str, type[Sound]] = {
    "reads": OneReadIsOneLine,
    "writes": ASendTakesAll,
    "stalls": NobodyEverStalls,
    "order": GreenletsRunInOrder,
    "holder": ForgetsTheHolder,
}


def serve(ask: ServerSpec) -> Sound:
    """The factory; the option `fault` chooses."""
    options = dict(ask.options)
    fault = options.pop("fault", None)
    if options or (fault is not None and fault not in FAULTS):
        raise UnsupportedSpec(
            f"no such option or fault; known: {', '.join(f'fault={name}' for name in FAULTS)}"
        )
    return FAULTS[fault]() if fault else Sound()


def forgetful(ask: ServerSpec) -> Sound:
    """A factory for the fault that only a conversation nobody thought of shows."""
    return ForgetsTheHolder()
