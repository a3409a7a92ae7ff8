"""The server in this process and in virtual time, with as many clients as there are descriptors for.

Its clients come over socket pairs, handed to a listener's callback as accepted connections are: in a pair nothing is ever
on its way, so once the loop has nothing left to do and no client anything to read, all that could happen has happened. What
TCP adds (resets, segments, backlogs of the kernel) is for the scenarios with real sockets. Must not know a dialect.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

import gevent

from geventchat import Config, Server
from geventchat.log import Happening
from geventchat.net.surroundings import Surroundings
from harness.stage.isolation import fresh_world
from harness.stage.virtual_time import VirtualClock, VirtualLoop

_CHUNK_BYTES = 262_144
_US = 1_000_000


class End(Enum):
    """How a connection stands, as its client sees it."""

    OPEN = auto()
    ENDED = auto()
    BROKEN = auto()
    LEFT = auto()


class Guest:
    """One client: what it heard, and when and how it ended."""

    __slots__ = ("_arena", "_sock", "end", "ended_us", "heard", "reads")

    def __init__(self, arena: Arena, sock: socket.socket) -> None:
        self._arena = arena
        self._sock = sock
        self.heard = bytearray()
        self.end = End.OPEN
        self.ended_us = -1
        self.reads = True
        arena.attend(self, sock)

    def say(self, *lines: str) -> None:
        """Send lines."""
        self.send("".join([line + "\n" for line in lines]).encode())

    def send(self, data: bytes) -> None:
        """Send all of it, however long the server takes."""
        rest = memoryview(data)
        while rest and self.end is End.OPEN:
            sent = self._push(rest)
            if not sent:
                self._arena.settle()
            if sent is None:
                return
            rest = rest[sent:]

    def try_to_say(self, line: str) -> None:
        """Send a line if the server takes it now; a part of it is never sent."""
        whole = memoryview(line.encode() + b"\n")
        sent = self._push(whole)
        if sent:
            self.send(bytes(whole[sent:]))

    def _push(self, data: memoryview) -> int | None:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The server has closed; what it said before that is still to be read.
            return None

    def stop_reading(self) -> None:
        """Whatever comes stays where it is, and there is little room."""
        self.reads = False
        self._arena.disregard(self, self._sock)

    def read_again(self) -> None:
        """Read what has come meanwhile, and what comes."""
        self.reads = True
        self._arena.attend(self, self._sock)

    @property
    def hung_up(self) -> bool:
        """Has the server ended it? Can be seen without reading."""
        look = select.poll()
        look.register(self._sock, 0)
        return self.end is not End.OPEN or bool(look.poll(0))

    def half_close(self) -> None:
        """Say no more, but listen."""
        if self.end is End.OPEN:
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Go, with or without having read all: what was not read becomes a reset."""
        self._over(End.LEFT)

    def take(self) -> None:
        """Read what has come."""
        try:
            data = self._sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._over(End.BROKEN)
            return
        if data:
            self.heard += data
        else:
            self._over(End.ENDED)

    def _over(self, end: End) -> None:
        if self.end is End.OPEN:
            self.end = end
            self.ended_us = self._arena.now_us
            if self.reads:
                self._arena.disregard(self, self._sock)
            self._sock.close()


class Arena:
    """A server, a time that only moves when told to, and the guests."""

    def __init__(self, config: Config, loop: VirtualLoop) -> None:
        self._loop = loop
        self._poll = select.epoll()
        self._reading: dict[int, Guest] = {}
        self.happened: Counter[str] = Counter()
        """How often each event was logged; a departure is counted by its reason, too."""
        self.faults: list[str] = []
        self.server = Server(config, clock=VirtualClock(loop), log=self._log)
        self.server.start()
        self._doors: dict[str, Any] = {
            listen.dialect: listener._arrive for listen, listener in self.server._listeners
        }

    @property
    def around(self) -> Surroundings:
        """What the server's connections share."""
        around: Surroundings = next(iter(self._doors.values())).args[1]
        return around

    @property
    def feeds(self) -> list[Any]:
        """Each dialect's feed."""
        return [door.args[0] for door in self._doors.values()]

    @property
    def now_us(self) -> int:
        """Microseconds since the beginning."""
        return self._loop.elapsed_us

    @property
    def timers(self) -> int:
        """How many timers are set."""
        return sum(1 for _, _, ticket, timer in self._loop._heap if timer.ticket == ticket)

    def come(self, dialect: str = "line", host: str = "127.0.0.1", *, buffer_bytes: int = 0) -> Guest:
        """One more client; `buffer_bytes` is about how much may be on its way to it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        if buffer_bytes:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        self._doors[dialect](theirs, host)
        return Guest(self, ours)

    def settle(self) -> None:
        """Everything that can happen at this instant happens."""
        while True:
            gevent.idle(self._loop.MINPRI)
            ready = self._poll.poll(0, 16_384)
            if not ready:
                return
            for fileno, _ in ready:
                guest = self._reading.get(fileno)
                if guest is not None:
                    guest.take()

    def pass_until(self, at_us: int) -> None:
        """Time passes; whatever is due is done at its own instant."""
        self.settle()
        while (due := self._loop.next_due_us) is not None and due <= at_us:
            # What is due at one instant is one turn of the loop, as it is in real time.
            while self._loop.next_due_us == due:
                self._loop.fire_next()
            self.settle()
        self._loop.move_to(at_us)

    def pass_s(self, seconds: float) -> None:
        """So much time passes."""
        self.pass_until(self.now_us + round(seconds * _US))

    def attend(self, guest: Guest, sock: socket.socket) -> None:
        """Read for this guest when something comes."""
        self._reading[sock.fileno()] = guest
        self._poll.register(sock, select.EPOLLIN)

    def disregard(self, guest: Guest, sock: socket.socket) -> None:
        """No longer."""
        if self._reading.pop(sock.fileno(), None) is not None:
            self._poll.unregister(sock)

    def close(self) -> None:
        """End the server, whatever is left."""
        stopping = gevent.spawn(self.server.stop, 0)
        while not stopping.ready():
            self.settle()
            if not stopping.ready():
                self._loop.fire_next()
        self._poll.close()

    def _log(self, happening: Happening, **fields: object) -> None:
        self.happened[happening.value] += 1
        if happening is Happening.DISCONNECTED:
            self.happened[str(fields["reason"])] += 1
        if happening is Happening.FAULT:
            self.faults.append(str(fields["error"]))


@contextmanager
def arena(config: Config) -> Iterator[Arena]:
    """A server on a loop of its own."""
    with fresh_world(VirtualLoop) as world:
        assert isinstance(world.loop, VirtualLoop)
        built = Arena(config, world.loop)
        try:
            yield built
        finally:
            built.close()
            words = world.words.getvalue()
        assert not words, words
