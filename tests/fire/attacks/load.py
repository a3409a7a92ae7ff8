"""Many clients in one thread: what they send, how they read, how they leave. Does not know a dialect.

Everything goes through one `Load`: it looks at all sockets, reads for those that read, and writes for those that have
something to say. What is received is counted and thrown away, except for a short tail.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

_ABORT = struct.pack("ii", 1, 0)
_TAIL = 4_096
# As /proc/net/tcp writes it.
_FIN_WAIT_1 = "04"
_READ = 262_144
_TICK_S = 0.01
CONNECT_S = 20.0

Address = tuple[str, int]


class Client:
    """One connection of the load."""

    __slots__ = (
        "_budget",
        "_load",
        "_mask",
        "_rate",
        "_since",
        "_source",
        "ended",
        "ended_at",
        "fileno",
        "name",
        "pending",
        "received",
        "sent",
        "sock",
        "tail",
    )

    def __init__(self, load: Load, sock: socket.socket) -> None:
        self._load = load
        self.sock = sock
        self.fileno = sock.fileno()
        self._mask = select.EPOLLIN
        self._source: Iterator[bytes] | None = None
        # Bytes per second that are read; None for all.
        self._rate: float | None = None
        self._budget = 0.0
        self._since = 0.0
        self.name = ""
        self.pending = b""
        self.sent = 0
        self.received = 0
        self.tail = b""
        # "fin" or "reset" once the server has ended the connection; "closed" when this side has.
        self.ended = ""
        self.ended_at = 0.0

    @property
    def open(self) -> bool:
        """True while neither side has ended the connection."""
        return not self.ended

    def send(self, data: bytes) -> None:
        """Send this once the socket takes it."""
        self.pending += data
        self._write()

    def keep_sending(self, source: Iterator[bytes]) -> None:
        """Send everything that the iterator yields, as fast as the socket takes it."""
        self._source = source
        self._write()

    def stop_sending(self) -> None:
        """Send nothing more."""
        self._source, self.pending = None, b""
        self._watch()

    def read_nothing(self) -> None:
        """Stop reading."""
        self._rate = 0.0
        self._load.unpace(self)
        self._watch()

    def read_everything(self) -> None:
        """Read as fast as data arrives."""
        self._rate = None
        self._load.unpace(self)
        self._watch()

    def read_at(self, bytes_per_s: float) -> None:
        """Read at this pace."""
        self._rate = bytes_per_s
        self._budget, self._since = 0.0, time.monotonic()
        self._load.pace(self)
        self._watch()

    def half_close(self) -> None:
        """Send nothing more, and say so."""
        if self.open:
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close as a program that ends does: a reset if there is something unread, otherwise the end of the stream."""
        self._end("closed")

    def reset(self) -> None:
        """Close with a reset."""
        if self.open:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._end("closed")

    # --- Called by Load ----------------------------------------------------------------------------------------------

    def readable(self) -> None:
        """Read what is there."""
        self._read(_READ)

    def writable(self) -> None:
        """Send what is left."""
        self._write()

    def tick(self, now: float) -> None:
        """Read as much as the pace allows."""
        rate = self._rate
        if not rate:
            return
        # At most a tenth of a second can be made up for.
        self._budget = min(self._budget + (now - self._since) * rate, max(rate / 10, 2_048.0))
        self._since = now
        while self.open and self._budget >= 1_024:
            took = self._read(int(self._budget))
            if not took:
                return
            self._budget -= took

    def _read(self, size: int) -> int:
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return 0
        except OSError:
            self._end("reset")
            return 0
        if not data:
            self._end("fin")
            return 0
        self.received += len(data)
        self.tail = (self.tail + data)[-_TAIL:] if len(data) < _TAIL else data[-_TAIL:]
        return len(data)

    def _write(self) -> None:
        try:
            while self.open:
                if not self.pending:
                    self.pending = next(self._source, b"") if self._source is not None else b""
                    if not self.pending:
                        self._source = None
                        break
                sent = self.sock.send(self.pending)
                self.sent += sent
                self.pending = self.pending[sent:]
        except BlockingIOError:
            pass
        except OSError:
            # What the server sent before is not lost: reading shows how it ended. One that does not read ends here.
            self._source, self.pending = None, b""
            if self._rate is not None:
                self._end("reset")
        self._watch()

    def _watch(self) -> None:
        if not self.open:
            return
        wants = bool(self.pending or self._source)
        mask = (select.EPOLLIN if self._rate is None else 0) | (select.EPOLLOUT if wants else 0)
        if mask != self._mask:
            self._mask = mask
            self._load.modify(self, mask)

    def hung_up(self) -> None:
        """The server has ended the connection while this client does not read."""
        if self._rate is None:
            return
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._end("reset")

    def _end(self, how: str) -> None:
        if self.open:
            self.ended, self.ended_at = how, time.monotonic()
            self._source, self.pending = None, b""
            self._load.forget(self)
            self.sock.close()


class Load:
    """All clients of this process."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._paced: dict[Client, None] = {}
        self._next_tick = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in list(self._clients.values()):
            client.reset()
        self._epoll.close()

    @property
    def clients(self) -> list[Client]:
        """All connections that are open."""
        return list(self._clients.values())

    def connect(self, address: Address, *, source: str = "127.0.0.1", receive_buffer: int = 0) -> Client:
        """One more client. `receive_buffer` is what its kernel keeps for it; 0 leaves that to the kernel."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            # Otherwise hundreds that send without a pause would fill the memory that the kernel has for all connections.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(CONNECT_S)
            # Without this, each source address would have to find a port that no other connection uses.
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((source, 0))
            sock.connect(address)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        client = Client(self, sock)
        self._clients[client.fileno] = client
        self._epoll.register(client.fileno, select.EPOLLIN)
        return client

    def connect_many(
        self,
        count: int,
        address: Address,
        *,
        sources: Iterable[str] = ("127.0.0.1",),
        receive_buffer: int = 0,
    ) -> list[Client]:
        """This many clients, from these addresses in turn."""
        origins = list(sources)
        clients = []
        for number in range(count):
            clients.append(
                self.connect(address, source=origins[number % len(origins)], receive_buffer=receive_buffer)
            )
            if number % 50 == 49:
                self.turn(0)
        return clients

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this once the time has passed, while the load runs."""
        self._numbers += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._numbers, action))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Serve all clients for this long, or until it is so; True if it is."""
        deadline = time.monotonic() + seconds
        while True:
            if until is not None and until():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.turn(min(left, 0.05))

    def wait(self, what: str, is_so: Callable[[], bool], within_s: float = 60.0) -> None:
        """Serve all clients until it is so."""
        if not self.run(within_s, is_so):
            raise AssertionError(f"not within {within_s:g} s: {what}")

    def turn(self, wait_s: float) -> None:
        """One look at all sockets, which waits at most this long, and everything that is due."""
        now = time.monotonic()
        if self._timers:
            wait_s = min(wait_s, max(0.0, self._timers[0][0] - now))
        self.look(wait_s)
        now = time.monotonic()
        # These actions take effect in the next turn, so that sockets are polled in between.
        for _ in range(len(self._timers)):
            if self._timers[0][0] > now:
                break
            heapq.heappop(self._timers)[2]()

    def look(self, wait_s: float) -> None:
        """One look at all sockets, which waits at most this long."""
        if self._paced:
            wait_s = min(wait_s, max(0.0, self._next_tick - time.monotonic()))
        for fileno, events in self._epoll.poll(wait_s, 4_096):
            client = self._clients.get(fileno)
            if client is None:
                continue
            if events & select.EPOLLIN:
                client.readable()
            if events & select.EPOLLOUT and client.open:
                client.writable()
            if events & (select.EPOLLHUP | select.EPOLLERR) and client.open:
                client.hung_up()
        now = time.monotonic()
        if self._paced and now >= self._next_tick:
            self._next_tick = now + _TICK_S
            for client in list(self._paced):
                client.tick(now)

    def pace(self, client: Client) -> None:
        """This client reads at its own pace."""
        self._paced[client] = None

    def unpace(self, client: Client) -> None:
        """This client reads as data arrives, or not at all."""
        self._paced.pop(client, None)

    def modify(self, client: Client, mask: int) -> None:
        """Look at this client for these events."""
        self._epoll.modify(client.fileno, mask)

    def forget(self, client: Client) -> None:
        """The connection is over."""
        self._paced.pop(client, None)
        if self._clients.pop(client.fileno, None) is not None:
            self._epoll.unregister(client.fileno)


def unfinished(ports: Iterable[int]) -> int:
    """How many clients of these ports have closed while their kernel still has something to send.

    To the server they are connected: the end of the stream comes after what it has not let in yet.
    """
    wanted = {f"{port:04X}" for port in ports}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == _FIN_WAIT_1 and row[2].partition(":")[2] in wanted for row in rows)


def addresses(count: int, first: int = 2) -> list[str]:
    """This many different addresses of loopback, from 127.0.0.2 on."""
    return [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(first - 1, first - 1 + count)]


def repeated(data: bytes, times: int) -> Iterator[bytes]:
    """The same bytes this many times."""
    for _ in range(times):
        yield data


def random_word(length: int) -> str:
    """A word that is unlikely to have been used before."""
    return os.urandom(length).hex()[:length]
