"""A small chat server that is correct under every schedule, and variants that are correct only under the usual one.

`server: fault=reads` in a script requires a variant.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent
from gevent import socket as cooperative
from gevent.lock import RLock
from gevent.server import StreamServer

from harness import ServerSpec, UnsupportedSpec

TALK = """\
alice> alice
alice< HELLO alice
bob> bob
bob< HELLO bob
carol> carol
carol< HELLO carol

alice> hello there
in any order, the same for bob carol:
    < alice: hello there

bob>> one\\ntwo\\nthree\\n
alice< bob: one
alice< bob: two
alice< bob: three
carol< bob: one
carol< bob: two
carol< bob: three

carol closes
alice> carol has gone
bob< alice: carol has gone
"""
"""A script that the correct server passes, and each variant without perturbations."""


class Correct(StreamServer):
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
                    self.send_to_others(name, line)
                elif line in self.people:
                    name = self.refuse(sock, line)
                else:
                    name = line
                    self.people[name] = sock
                    self.deliver(sock, f"HELLO {name}")
        except OSError:
            return  # the connection is broken
        finally:
            self.people.pop(name, None)
            sock.close()

    def refuse(self, sock: cooperative.socket, name: str) -> str:
        self.deliver(sock, "TAKEN")
        return ""

    def lines(self, sock: cooperative.socket) -> Iterator[str]:
        """Whole lines, however they are split."""
        with sock.makefile("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield line.decode().rstrip("\n")

    def send_to_others(self, name: str, line: str) -> None:
        for other in [one for one in self.people if one != name]:
            self.deliver(self.people[other], f"{name}: {line}")

    def deliver(self, sock: cooperative.socket, text: str) -> None:
        # One writer at a time: nothing must follow a line that was only partly sent.
        with self.writing:
            sock.sendall(text.encode() + b"\n")


class OneReadIsOneLine(Correct):
    def lines(self, sock: cooperative.socket) -> Iterator[str]:
        while chunk := sock.recv(4096):
            yield from chunk.decode().splitlines()


class ASendTakesAll(Correct):
    def deliver(self, sock: cooperative.socket, text: str) -> None:
        sock.send(text.encode() + b"\n")


class ClientsNeverStall(Correct):
    """Takes a client that is not ready for a client that has left."""

    def deliver(self, sock: cooperative.socket, text: str) -> None:
        sock.setblocking(False)
        try:
            super().deliver(sock, text)
        except BlockingIOError:
            self.people = {name: other for name, other in self.people.items() if other is not sock}
        finally:
            sock.setblocking(True)


class GreenletsRunInOrder(Correct):
    def deliver(self, sock: cooperative.socket, text: str) -> None:
        gevent.spawn(super().deliver, sock, text)


class FreesRefusedNames(Correct):
    """A client that was refused a name frees it when it leaves, although another client holds it."""

    def converse(self, sock: cooperative.socket, address: object) -> None:
        self.wanted: dict[cooperative.socket, str] = getattr(self, "wanted", {})
        super().converse(sock, address)
        self.people.pop(self.wanted.pop(sock, ""), None)

    def refuse(self, sock: cooperative.socket, name: str) -> str:
        self.wanted[sock] = name
        return super().refuse(sock, name)


FAULTS: dict[str, type[Correct]] = {
    "reads": OneReadIsOneLine,
    "writes": ASendTakesAll,
    "stalls": ClientsNeverStall,
    "order": GreenletsRunInOrder,
    "holder": FreesRefusedNames,
}


def serve(spec: ServerSpec) -> Correct:
    """The server that the option `fault` names."""
    options = dict(spec.options)
    fault = options.pop("fault", None)
    if options or (fault is not None and fault not in FAULTS):
        raise UnsupportedSpec(
            f"no such option or fault; known: {', '.join(f'fault={name}' for name in FAULTS)}"
        )
    return FAULTS[fault]() if fault else Correct()


def forgetful(spec: ServerSpec) -> Correct:
    """The variant whose fault only an unusual conversation finds."""
    return FreesRefusedNames()
