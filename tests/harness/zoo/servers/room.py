"""The protocol of the Python servers of the zoo, and the one place in which each of them is late or wrong.

A server has an architecture and at most one flaw, `KIND=MS`. The architecture passes in how it delivers: `deliver(delay_s,
action)` runs the action where this architecture delivers messages, that much later. Answers to a client's own lines do
not go that way, except that to SYNC.

Late, but right in what they say:

- `deliver`: messages come this many milliseconds later. `tick`: at the next tick of a timer. `part`: departures are
  announced later. `greet`: a client is greeted later. `batch`: everything written to one client is collected that long.

Wrong:

- `echo`: the sender receives its own message as well. `dup`: the others receive it twice. `partdup`: they hear of a
  departure twice. `stranger`: clients that have not logged in receive messages. Each happens so much later.
- `drop`: messages are delivered later, and not at all if their sender has left by then.
- `reverse`: messages are collected that long, and delivered in reverse.

The option `early` belongs to the architectures: answers are written by another thread or task than messages.
"""

from __future__ import annotations

import heapq
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import count

Action = Callable[[], None]
Deliver = Callable[[float, Action], None]


class Person(ABC):
    """One client. `send` delivers a message to it, `answer` answers its own line."""

    def __init__(self) -> None:
        self.name = ""
        self.room = ""
        self.gone = False
        self.closing = False
        self.pending = b""

    @abstractmethod
    def send(self, data: bytes) -> None: ...

    def answer(self, data: bytes) -> None:
        self.send(data)

    @abstractmethod
    def close(self) -> None: ...


class SocketPerson(Person):
    """A client with a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            pass  # it has left; reading tells

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Chat:
    """Rooms of people. Not safe for threads: its callers and the actions that they deliver hold one lock."""

    def __init__(self, options: dict[str, str], deliver: Deliver) -> None:
        self.options = options
        self.deliver = deliver
        self.rooms: dict[str, list[Person]] = {}
        self.held: list[Action] = []

    def delay_s(self, flaw: str) -> float:
        return float(self.options[flaw]) / 1000

    def behind(self, action: Action, message: bool = False) -> None:
        """Deliver on the way of messages. Only messages themselves change their order."""
        if "tick" in self.options or (message and "reverse" in self.options):
            self.held.append(action)
            if len(self.held) == 1:
                self.deliver(self.collecting_s(), self.release)
        else:
            late = next((flaw for flaw in ("deliver", "drop", "reverse") if flaw in self.options), None)
            self.deliver(self.delay_s(late) if late else 0.0, action)

    def collecting_s(self) -> float:
        if "reverse" in self.options:
            return self.delay_s("reverse")
        tick_s = self.delay_s("tick")
        return tick_s - time.monotonic() % tick_s

    def release(self) -> None:
        held, self.held = self.held, []
        for action in reversed(held) if "reverse" in self.options else held:
            action()

    # Requests

    def connect(self, person: Person) -> None:
        if "greet" in self.options:
            self.deliver(self.delay_s("greet"), lambda: self.send([person], "WELCOME"))

    def line(self, person: Person, line: str) -> None:
        verb, _, rest = line.strip().partition(" ")
        if verb == "LOGIN":
            self.login(person, *rest.split("@", 1))
        elif verb == "JOIN":
            person.room = rest
            self.rooms.setdefault(rest, []).append(person)
        elif verb in ("PING", "HELLO"):
            self.write(person, answer_to(line), person.answer)
        elif verb == "SYNC":
            self.behind(lambda: self.send([person], f"SYNCED {rest}"))
        elif verb == "MSG" and person.name:
            self.say(person, f"MSG {person.name} {rest}")
        elif verb == "QUIT":
            self.write(person, b"Goodbye!\n", person.answer)
            self.leave(person)
            self.close(person)
        else:
            self.write(person, b"ERR must-login-first\n", person.answer)

    def login(self, person: Person, name: str, room: str = "") -> None:
        members = self.rooms.setdefault(room, [])
        taken = any(member.name == name for member in members)
        if not taken:
            person.name, person.room = name, room
            members.append(person)
        self.write(person, b"ERR username-taken\n" if taken else b"OK\n", person.answer)

    def leave(self, person: Person) -> None:
        if person.gone:
            return
        person.gone = True
        members = self.rooms.get(person.room, [])
        if person in members:
            members.remove(person)
        if not members:
            self.rooms.pop(person.room, None)
        if person.name:
            others, text = self.others(person), f"INFO {person.name} left"
            if "part" in self.options:
                self.deliver(self.delay_s("part"), lambda: self.send(others, text))
            else:
                self.behind(lambda: self.send(others, text))
            if "partdup" in self.options:
                self.deliver(self.delay_s("partdup"), lambda: self.send(others, text))

    # Output

    def others(self, person: Person) -> list[Person]:
        return [one for one in self.rooms.get(person.room, []) if one is not person and one.name]

    def say(self, person: Person, text: str) -> None:
        others = self.others(person)
        drops = "drop" in self.options
        self.behind(lambda: self.send([] if drops and person.gone else others, text), message=True)
        strangers = [one for one in self.rooms.get(person.room, []) if not one.name]
        for flaw, people in (("dup", others), ("echo", [person]), ("stranger", strangers)):
            if flaw in self.options:
                self.deliver(self.delay_s(flaw), lambda people=people: self.send(people, text))

    def send(self, people: Iterable[Person], text: str) -> None:
        for person in people:
            self.write(person, text.encode() + b"\n", person.send)

    def write(self, person: Person, data: bytes, how: Callable[[bytes], None]) -> None:
        if "batch" not in self.options:
            how(data)
            return
        if not person.pending:
            self.deliver(self.delay_s("batch"), lambda: self.flush(person))
        person.pending += data

    def flush(self, person: Person) -> None:
        pending, person.pending = person.pending, b""
        person.send(pending)
        if person.closing:
            person.close()

    def close(self, person: Person) -> None:
        if person.pending:
            person.closing = True
        else:
            person.close()


class Timers(threading.Thread):
    """A thread that runs actions when they are due, those that are due at one time in the order in which they came."""

    def __init__(self, lock: threading.Lock | None = None) -> None:
        super().__init__(daemon=True)
        self.lock = lock or threading.Lock()
        self.changed = threading.Condition()
        self.due: list[tuple[float, int, Action]] = []
        self.numbers = count()
        self.start()

    def at(self, delay_s: float, action: Action) -> None:
        with self.changed:
            heapq.heappush(self.due, (time.monotonic() + delay_s, next(self.numbers), action))
            self.changed.notify()

    def run(self) -> None:
        while True:
            with self.changed:
                while not self.due or self.due[0][0] > time.monotonic():
                    self.changed.wait(self.due[0][0] - time.monotonic() if self.due else None)
                _, _, action = heapq.heappop(self.due)
            with self.lock:
                action()


def answer_to(line: str) -> bytes:
    """The answer to a line that needs no other client, with which an architecture can be early."""
    verb, _, rest = line.strip().partition(" ")
    if verb == "PING":
        return f"PONG {rest}".strip().encode() + b"\n"
    return b"HI\n" if verb == "HELLO" else b""


def arguments() -> tuple[int, dict[str, str]]:
    """The port and the options of the command line."""
    return int(sys.argv[1]), dict(option.partition("=")[::2] for option in sys.argv[2:])


def listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), backlog=64)
