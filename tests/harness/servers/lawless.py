"""A chat server that is right, and one with each rare mistake. `server: fault=drops` in a header asks for that mistake.

LOGIN name, MSG text, PING. A mistake happens in one of ten thousand deliveries, or logins.
"""

from __future__ import annotations

import socket
from typing import ClassVar

import gevent
from gevent.server import StreamServer

from harness import ServerSpec, UnsupportedSpec
from harness.laws.history import Law
from harness.laws.traffic import Granted, Message, Refused

ONE_IN = 10_000


class Chat(StreamServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.converse)
        self.people: dict[str, socket.socket] = {}
        self.deliveries = 0
        self.refusals = 0

    def converse(self, sock: socket.socket, _address: object) -> None:
        name = ""
        try:
            with sock.makefile("rb") as lines:
                for line in lines:
                    verb, _, rest = line.decode().rstrip("\n").partition(" ")
                    if verb == "PING":
                        self.send(sock, "PONG")
                    elif verb == "LOGIN":
                        name = self.log_in(sock, rest) or name
                    elif verb == "MSG" and name:
                        self.say(name, rest)
        except OSError:
            pass  # the client has reset the connection
        finally:
            if self.people.get(name) is sock:
                del self.people[name]
            sock.close()

    def log_in(self, sock: socket.socket, name: str) -> str:
        if self.is_taken(name):
            self.send(sock, "TAKEN")
            return ""
        self.people[name] = sock
        self.send(sock, "OK")
        return name

    def is_taken(self, name: str) -> bool:
        return name in self.people

    def say(self, name: str, text: str) -> None:
        for other, to in list(self.people.items()):
            if other != name:
                self.deliveries += 1
                self.deliver(to, f"MSG {name} {text}", self.deliveries % ONE_IN == ONE_IN // 2)

    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        self.send(to, line)

    def send(self, to: socket.socket, line: str) -> None:
        try:
            to.sendall(line.encode() + b"\n")
        except OSError:
            pass  # its own greenlet notices the end


class Drops(Chat):
    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        if not mistaken:
            self.send(to, line)


class Doubles(Chat):
    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        for _ in range(1 + mistaken):
            self.send(to, line)


class Swaps(Chat):
    """Holds one line back until the next one of the same sender to the same client has been sent."""

    def __init__(self) -> None:
        super().__init__()
        self.held: tuple[socket.socket, str] | None = None

    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        if mistaken and self.held is None:
            self.held = to, line
            return
        self.send(to, line)
        if self.held and self.held[0] is to and self.held[1].split(" ")[1] == line.split(" ")[1]:
            self.send(*self.held)
            self.held = None


class Shares(Chat):
    def is_taken(self, name: str) -> bool:
        taken = super().is_taken(name)
        self.refusals += taken
        return taken and self.refusals != 5


class Lies(Chat):
    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        self.send(to, line.replace("MSG user", "MSG other", 1) if mistaken else line)


class Cuts(Chat):
    """Cuts the last word of a text off, if it has several."""

    due = False

    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        self.due = self.due or mistaken
        if self.due and line.count(" ") > 2:
            self.due, line = False, line.rpartition(" ")[0]
        self.send(to, line)


class Invents(Chat):
    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        self.send(to, line)
        if mistaken:
            self.send(to, "MSG carl welcome")


class HangsUp(Chat):
    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        if mistaken:
            to.shutdown(socket.SHUT_RDWR)
        else:
            self.send(to, line)


class Mute(Chat):
    def say(self, name: str, text: str) -> None:
        pass


class Late(Chat):
    """Right, but it delivers half a second later."""

    def deliver(self, to: socket.socket, line: str, mistaken: bool) -> None:
        gevent.spawn_later(0.5, self.send, to, line)


class Slow(Chat):
    """Right, but it takes a tenth of a second for each line of a client."""

    def say(self, name: str, text: str) -> None:
        gevent.sleep(0.1)
        super().say(name, text)


FAULTS: dict[str, tuple[type[Chat], Law | None]] = {
    "none": (Chat, None),
    "mute": (Mute, None),
    "drops": (Drops, Law.LOST),
    "doubles": (Doubles, Law.DOUBLED),
    "swaps": (Swaps, Law.REORDERED),
    "shares": (Shares, Law.HOLDERS),
    "lies": (Lies, Law.INVENTED),
    "cuts": (Cuts, Law.CHANGED),
    "invents": (Invents, Law.INVENTED),
    "hangs-up": (HangsUp, Law.DISCONNECTED),
}


def serve(spec: ServerSpec) -> Chat:
    fault = spec.options.get("fault", "none")
    if fault not in FAULTS:
        raise UnsupportedSpec(f"unknown fault {fault!r}; known: {', '.join(FAULTS)}")
    return FAULTS[fault][0]()


class LineChat:
    """Its protocol, as far as its laws need it."""

    header: ClassVar[dict[str, str]] = {"fence": "PING -> PONG"}

    def login(self, name: str) -> str:
        return f"LOGIN {name}"

    def say(self, text: str) -> str:
        return f"MSG {text}"

    def read(self, line: str) -> Granted | Refused | Message | None:
        verb, _, rest = line.partition(" ")
        sender, _, text = rest.partition(" ")
        if verb == "MSG":
            return Message(sender, text)
        return {"OK": Granted(), "TAKEN": Refused()}.get(verb)


def faulty(fault: str) -> type[LineChat]:
    """The same model, whose header asks for a mistake."""
    return type("LineChat", (LineChat,), {"header": {**LineChat.header, "server": f"fault={fault}"}})
