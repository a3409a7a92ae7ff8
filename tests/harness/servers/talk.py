"""A small correct chat server, and one with each kind of mistake.

`server: fault=drops` in a script requires the server with that mistake; without an option the server is correct.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

import gevent
from gevent.server import StreamServer

from harness import ServerSpec, UnsupportedSpec


class Chat(StreamServer):
    """LOGIN name, MSG text, WHO, QUIT; FULL: no more clients, CRASH: an exception."""

    eol = b"\n"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.converse)
        self.people: dict[str, socket.socket] = {}

    def converse(self, sock: socket.socket, _address: object) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = ""
        try:
            with sock.makefile("rb") as lines:
                for line in lines:
                    name = self.on_line(sock, name, line.decode().rstrip("\r\n"))
                    if name == "?":
                        return
        except OSError:
            return  # cut off from elsewhere
        finally:
            sock.close()

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        verb, _, rest = line.partition(" ")
        if verb == "LOGIN":
            self.people[rest] = sock
            self.answer(sock, "OK")
            return rest
        if verb == "MSG":
            for other in [one for one in self.people if one != name]:
                self.deliver(other, f"MSG {name} {rest}")
        elif verb == "WHO":
            for other in self.people:
                self.answer(sock, f"USER {other}")
        elif verb == "QUIT":
            self.people.pop(name, None)
            self.answer(sock, "Goodbye!")
            for other in self.people:
                self.deliver(other, f"INFO {name} disconnected")
            return self.hang_up(sock)
        elif verb == "FULL":
            self.turn_away()
        elif verb == "CRASH":
            self.crash()
        return name

    def turn_away(self) -> None:
        self.stop_accepting()
        self.socket.close()

    def crash(self) -> None:
        raise KeyError("as asked")

    def answer(self, sock: socket.socket, text: str) -> None:
        sock.sendall(text.encode() + self.eol)

    def deliver(self, to: str, text: str) -> None:
        self.answer(self.people[to], text)

    def hang_up(self, sock: socket.socket) -> str:
        return "?"


class LetsEveryoneIn(Chat):
    def turn_away(self) -> None:
        pass


class DoesNotCrash(Chat):
    def crash(self) -> None:
        pass


class Spins(Chat):
    """Works without end after the first message."""

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        if line.startswith("MSG"):
            gevent.spawn(self.spin)
        return super().on_line(sock, name, line)

    def spin(self) -> None:
        while True:
            gevent.sleep(0)


class StopsAccepting(Chat):
    """Accepts no client after the first login, and its kernel keeps one connection waiting."""

    backlog = 0

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        self.stop_accepting()
        return super().on_line(sock, name, line)


class StopsReading(Chat):
    """Reads nothing after a login."""

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        super().on_line(sock, name, line)
        gevent.sleep(1e6)
        return name


class Drops(Chat):
    def deliver(self, to: str, text: str) -> None:
        if to != "bob" or not text.startswith("MSG"):
            super().deliver(to, text)


class Doubles(Chat):
    def deliver(self, to: str, text: str) -> None:
        super().deliver(to, text)
        if to == "bob":
            super().deliver(to, text)


class ToTheWrongOne(Chat):
    def deliver(self, to: str, text: str) -> None:
        super().deliver("carol" if to == "bob" else to, text)


class ToEveryone(Chat):
    """Sends messages also to clients that have not logged in."""

    def converse(self, sock: socket.socket, _address: object) -> None:
        self.people[f"guest {id(sock)}"] = sock
        super().converse(sock, _address)

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        if line.startswith("LOGIN"):
            self.people.pop(f"guest {id(sock)}", None)
        return super().on_line(sock, name, line)


class ATurnLate(Chat):
    """Delivers only when the next line arrives."""

    waiting: tuple[tuple[str, str], ...] = ()

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        waiting, self.waiting = self.waiting, ()
        for to, text in waiting:
            super().deliver(to, text)
        return super().on_line(sock, name, line)

    def deliver(self, to: str, text: str) -> None:
        self.waiting += ((to, text),)


class HalfASecondLate(Chat):
    def deliver(self, to: str, text: str) -> None:
        gevent.spawn_later(0.5, super().deliver, to, text)


class CrLf(Chat):
    eol = b"\r\n"


class HalfALine(Chat):
    def deliver(self, to: str, text: str) -> None:
        self.people[to].sendall(text.encode())


class Latin1(Chat):
    def deliver(self, to: str, text: str) -> None:
        self.people[to].sendall(text.encode("latin-1") + self.eol)


class Twice(Chat):
    """Encodes the text twice."""

    def deliver(self, to: str, text: str) -> None:
        super().deliver(to, text.encode().decode("latin-1"))


class Shouts(Chat):
    def deliver(self, to: str, text: str) -> None:
        super().deliver(to, text.upper())


class Echoes(Chat):
    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        if line.startswith("MSG"):
            self.answer(sock, line)
        return super().on_line(sock, name, line)


class ClosesTooEarly(Chat):
    def deliver(self, to: str, text: str) -> None:
        if to == "bob":
            self.people[to].shutdown(socket.SHUT_RDWR)
        else:
            super().deliver(to, text)


class Resets(Chat):
    def hang_up(self, sock: socket.socket) -> str:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "?"


class NeverCloses(Chat):
    def hang_up(self, sock: socket.socket) -> str:
        return ""


class Silent(Chat):
    """Never answers."""

    def answer(self, sock: socket.socket, text: str) -> None:
        pass


class Backwards(Chat):
    """Lists the users in reverse order."""

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        if line == "WHO":
            for other in reversed(self.people):
                self.answer(sock, f"USER {other}")
            return name
        return super().on_line(sock, name, line)


class EachItsOwnOrder(Chat):
    """Sends two messages to its clients in different orders."""

    held: tuple[str, ...] = ()

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        if not line.startswith("MSG"):
            return super().on_line(sock, name, line)
        self.held += (f"MSG {name} {line[4:]}",)
        if len(self.held) == 2:
            self.deliver("carol", self.held[0])
            self.deliver("carol", self.held[1])
            self.deliver("dave", self.held[1])
            self.deliver("dave", self.held[0])
            for text in self.held:
                self.deliver("bob" if text.startswith("MSG alice") else "alice", text)
        return name


class Crashes(Chat):
    def deliver(self, to: str, text: str) -> None:
        raise KeyError(f"no such person: {to}")


class Dies(Chat):
    """Exits; only for a server in a separate process."""

    def deliver(self, to: str, text: str) -> None:
        print(f"fatal: no memory left for {to}", file=sys.stderr, flush=True)
        os._exit(3)


class TurnsAway(Chat):
    """Stops listening after the first line."""

    def on_line(self, sock: socket.socket, name: str, line: str) -> str:
        self.turn_away()
        return super().on_line(sock, name, line)


FAULTS: dict[str, type[Chat]] = {
    "none": Chat,
    "drops": Drops,
    "doubles": Doubles,
    "wrong-one": ToTheWrongOne,
    "everyone": ToEveryone,
    "turn-late": ATurnLate,
    "half-second-late": HalfASecondLate,
    "crlf": CrLf,
    "half-line": HalfALine,
    "latin-1": Latin1,
    "twice": Twice,
    "shouts": Shouts,
    "echoes": Echoes,
    "closes-early": ClosesTooEarly,
    "resets": Resets,
    "never-closes": NeverCloses,
    "silent": Silent,
    "backwards": Backwards,
    "own-order": EachItsOwnOrder,
    "crashes": Crashes,
    "turns-away": TurnsAway,
    "lets-in": LetsEveryoneIn,
    "crash-proof": DoesNotCrash,
    "spins": Spins,
    "stops-accepting": StopsAccepting,
    "stops-reading": StopsReading,
    "dies": Dies,
}


def serve(spec: ServerSpec) -> Chat:
    """The server with the mistake that the script requires."""
    for option in spec.options:
        if option != "fault":
            raise UnsupportedSpec(f"no option {option!r}; known: fault")
    return FAULTS[spec.options.get("fault", "none")]()


def _main(port: str, fault: str) -> None:
    server = FAULTS[fault]()
    server.address = ("127.0.0.1", int(port))
    server.serve_forever()


def serve_correctly(spec: ServerSpec) -> Chat:
    """The correct server, whatever the script requires."""
    return Chat()


if __name__ == "__main__":
    _main(*sys.argv[1:])
