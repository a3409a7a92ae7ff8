"""The server in this process and in virtual time, with as many clients as there are descriptors for.

Its clients come over socket pairs, handed to a listener's callback as accepted connections are. In a pair nothing is
ever in flight, so once the loop is idle and no client has anything to read, everything that could happen has happened.
What TCP adds (resets, segments, the kernel's queues) is for the scenarios with real sockets. Knows no dialect.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent

from geventchat import Config, Server
from geventchat.log import LogEvent
from geventchat.net.acceptor import Acceptor
from geventchat.net.connection import ServerContext
from geventchat.services.passwords import Cost, Hasher, derive_here
from tests.fire.clients import State, receive
from tests.geventchat.virtual_time import VirtualTime, virtual_time

# Seconds of virtual time that one client's bytes can wait for the server.
_MAX_WAITS = 300


class SimulatedClient:
    """One client: what it received, and when and how its connection ended."""

    __slots__ = ("_simulation", "_sock", "ended_us", "reads", "received", "state")

    def __init__(self, simulation: Simulation, sock: socket.socket) -> None:
        self._simulation = simulation
        self._sock = sock
        simulation.open_clients.add(self)
        self.received = bytearray()
        self.state = State.OPEN
        self.ended_us = -1
        self.reads = True
        simulation.register(self, sock)

    def send_lines(self, *lines: str) -> None:
        """Send lines."""
        self.send("".join([line + "\n" for line in lines]).encode())

    def send(self, data: bytes) -> None:
        """Send all of it; time passes only while the server reads no more because of its rates."""
        rest = memoryview(data)
        waits = 0
        while rest and self.state is State.OPEN:
            sent = self._push(rest)
            if sent is None:
                self._simulation.run_until_idle()
                return
            if not sent:
                self._simulation.run_until_idle()
                sent = self._push(rest)
                if not sent:
                    waits += 1
                    assert waits < _MAX_WAITS, f"the server has not read {len(rest)} bytes"
                    self._simulation.advance(1)
            rest = rest[sent or 0 :]

    def try_send_line(self, line: str) -> bool:
        """Send a line if the server takes it now; part of a line is never sent."""
        whole = memoryview(line.encode() + b"\n")
        sent = self._push(whole)
        if sent:
            self.send(bytes(whole[sent:]))
        return bool(sent)

    def _push(self, data: memoryview) -> int | None:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The server has closed; what it sent before that is still to be read.
            return None

    def stop_reading(self) -> None:
        """Stop reading: output of the server stays in the kernel."""
        self.reads = False
        self._simulation.unregister(self, self._sock)

    def resume_reading(self) -> None:
        """Read from now on, including what has arrived meanwhile."""
        self.reads = True
        self._simulation.register(self, self._sock)

    @property
    def server_closed(self) -> bool:
        """True when the server has ended the connection; works without reading."""
        look = select.poll()
        look.register(self._sock, 0)
        return self.state is not State.OPEN or bool(look.poll(0))

    def half_close(self) -> None:
        """Send nothing more, but keep reading."""
        if self.state is State.OPEN:
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close, whether or not everything has been read: unread bytes make it a reset."""
        self._end(State.CLOSED)

    def read(self) -> None:
        """Read what has arrived."""
        state = receive(self._sock, self.received)
        if state is not State.OPEN:
            self._end(state)

    def _end(self, state: State) -> None:
        if self.state is State.OPEN:
            self.state = state
            self.ended_us = self._simulation.now_us
            self._simulation.open_clients.discard(self)
            if self.reads:
                self._simulation.unregister(self, self._sock)
            self._sock.close()


class Simulation(VirtualTime):
    """A server, a time that moves only when told to, and the clients."""

    def __init__(self, config: Config, time: VirtualTime, hasher: Hasher | None) -> None:
        super().__init__(time.hub, time.hub.loop)
        self._poll = select.epoll()
        self._reading: dict[int, SimulatedClient] = {}
        self.open_clients: set[SimulatedClient] = set()
        self.logged: Counter[str] = Counter()
        """How often each event was logged; a disconnect is counted by its reason as well, and a refusal as `refused REASON`."""
        self.faults: list[str] = []
        # In this process, so that nothing happens outside it.
        hasher = hasher or Hasher(Cost(4, 1, 1), derive=derive_here)
        self.server = Server(config, clock=self.clock, log=self._log, hasher=hasher)
        gevent.spawn(self.server.start).get()
        self._on_connect: dict[str, Callable[..., None]] = {
            listen.scheme: listener._on_connect for listen, listener in self.server._listeners
        }

    @property
    def context(self) -> ServerContext:
        """The context that the server's connections share."""
        accept: Any = next(iter(self._on_connect.values()))
        acceptor: Acceptor = accept.__self__
        return acceptor.context

    def connect(
        self,
        dialect: str = "line",
        host: str = "127.0.0.1",
        *,
        buffer_bytes: int = 0,
        make: type[SimulatedClient] | None = None,
    ) -> SimulatedClient:
        """One more client; `buffer_bytes` is about how much can be in the kernel on its way to it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        if buffer_bytes:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        self._on_connect[dialect](theirs, host)
        return (make or SimulatedClient)(self, ours)

    def run_until_idle(self) -> None:
        """Let everything happen that can happen at this instant."""
        while True:
            gevent.idle(self._loop.MINPRI)
            ready = self._poll.poll(0, 16_384)
            if not ready:
                return
            for fileno, _ in ready:
                client = self._reading.get(fileno)
                if client is not None:
                    client.read()

    def register(self, client: SimulatedClient, sock: socket.socket) -> None:
        """Read for this client when something arrives."""
        self._reading[sock.fileno()] = client
        self._poll.register(sock, select.EPOLLIN)

    def unregister(self, client: SimulatedClient, sock: socket.socket) -> None:
        """Read for this client no longer."""
        if self._reading.pop(sock.fileno(), None) is not None:
            self._poll.unregister(sock)

    def close(self) -> None:
        """Stop the server, whatever is left."""
        self.finish(gevent.spawn(self.server.stop, 0))
        for client in list(self.open_clients):
            client.close()
        self._poll.close()

    def _log(self, event: LogEvent, /, **fields: object) -> None:
        self.logged[event.value] += 1
        if event is LogEvent.DISCONNECTED:
            self.logged[str(fields["reason"])] += 1
        if event is LogEvent.REFUSED:
            self.logged[f"refused {fields['reason']}"] += 1
        if event is LogEvent.FAULT:
            self.faults.append(str(fields["error"]))


@contextmanager
def simulate(config: Config, hasher: Hasher | None = None) -> Iterator[Simulation]:
    """A server on its own loop."""
    with virtual_time() as time:
        simulation = Simulation(config, time, hasher)
        try:
            yield simulation
        finally:
            simulation.close()
