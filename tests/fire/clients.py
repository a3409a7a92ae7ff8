"""Many clients on real sockets in one thread, each keeping every byte it receives. Knows no dialect."""

from __future__ import annotations

import enum
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from tests.patience import HANG_S

_CHUNK_BYTES = 262_144
_ABORT = struct.pack("ii", 1, 0)
Address = tuple[str, int]


class State(enum.Enum):
    """A connection, as its client sees it."""

    OPEN = enum.auto()
    FIN = enum.auto()
    RESET = enum.auto()
    CLOSED = enum.auto()
    """Closed by this client."""


def receive(sock: socket.socket, received: bytearray) -> State:
    """Read once from a non-blocking socket; returns the state of its connection."""
    try:
        data = sock.recv(_CHUNK_BYTES)
    except BlockingIOError:
        return State.OPEN
    except OSError:
        return State.RESET
    received += data
    return State.OPEN if data else State.FIN


class Client:
    """One client. Keeps everything it receives; what the server does not take yet waits."""

    __slots__ = ("_found", "_pool", "ended_at", "reads", "received", "sock", "state", "unsent")

    def __init__(self, pool: ClientPool, sock: socket.socket) -> None:
        self._pool = pool
        self._found = 0
        self.unsent = b""
        self.sock = sock
        self.received = bytearray()
        self.state = State.OPEN
        self.reads = True
        self.ended_at = 0.0

    @property
    def lines(self) -> list[bytes]:
        """The complete lines it has received."""
        return bytes(self.received).split(b"\n")[:-1]

    def find_next(self, words: bytes) -> bool:
        """True when this was received after the last match."""
        at = self.received.find(words, self._found)
        if at >= 0:
            self._found = at + len(words)
        return at >= 0

    def send_lines(self, *lines: str) -> None:
        """Send these lines, now or as soon as the server takes them."""
        self.send("".join([line + "\n" for line in lines]).encode())

    def send(self, data: bytes) -> None:
        """Send these bytes, now or as soon as the server takes them."""
        self.unsent += data
        self.push()

    def push(self) -> None:
        """Send as much as the socket takes of what waits."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # Reading tells how it ended.
            self.unsent = b""
        self._pool.watch(self, writing=bool(self.unsent))

    def read(self) -> None:
        """Read what has arrived."""
        state = receive(self.sock, self.received)
        if state is not State.OPEN:
            self._end(state)

    def stop_reading(self) -> None:
        """Stop reading: output of the server stays in the kernel."""
        self.reads = False
        self._pool.unregister(self)

    def close(self) -> None:
        """Close, as a program that ends does."""
        self._end(State.CLOSED)

    def abort(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()

    def _end(self, state: State) -> None:
        if self.state is State.OPEN:
            self.state = state
            self.ended_at = time.monotonic()
        self._pool.unregister(self, for_good=True)
        self.sock.close()


class ClientPool:
    """Clients, and one poller that serves them all."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._registered: dict[int, Client] = {}
        self._open: set[Client] = set()

    def __enter__(self) -> ClientPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in list(self._open):
            client.close()
        self._poll.close()

    def connect(self, address: Address, *, receive_bytes: int = 0, source: str = "") -> Client:
        """One more client, connected. `receive_bytes` makes its kernel keep about that much unread and no more."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(HANG_S)
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            if source:
                sock.bind((source, 0))
            sock.connect(address)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        client = Client(self, sock)
        self._open.add(client)
        self._registered[sock.fileno()] = client
        self._poll.register(sock, select.EPOLLIN)
        return client

    def wait_for(self, what: str, condition: Callable[[], bool], within_s: float = HANG_S) -> None:
        """Serve all clients until the condition holds."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s:g} s: {what}")
            self.poll(0.05)

    def poll(self, wait_s: float = 0.0) -> None:
        """Serve every client that is ready; wait at most this long for the first."""
        for fileno, events in self._poll.poll(wait_s, 4096):
            client = self._registered.get(fileno)
            if client is None:
                continue
            if events & select.EPOLLOUT:
                client.push()
            if events & ~select.EPOLLOUT:
                client.read()

    def wait_until_received(self, clients: Iterable[Client], ending: bytes, within_s: float = HANG_S) -> None:
        """Serve all clients until what each of these has received ends like this."""
        waiting = set(clients)

        def all_have() -> bool:
            waiting.difference_update([client for client in waiting if client.received.endswith(ending)])
            return not waiting

        try:
            self.wait_for(f"everyone has received {ending!r} last", all_have, within_s)
        except AssertionError as error:
            one = next(iter(waiting))
            raise AssertionError(
                f"{error}; one of {len(waiting)} has {bytes(one.received[-200:])!r}"
            ) from None

    def wait_until_found(self, clients: Iterable[Client], words: bytes) -> None:
        """Serve all clients until each of these has received this, after whatever it was last asked for."""
        for client in clients:
            self.wait_for(
                f"{words!r} is received",
                lambda client=client: client.find_next(words),  # type: ignore[misc]
            )

    def watch(self, client: Client, *, writing: bool) -> None:
        """Watch whether this client can send as well, or no longer."""
        if client.sock.fileno() in self._registered:
            wanted = (select.EPOLLIN if client.reads else 0) | (select.EPOLLOUT if writing else 0)
            self._poll.modify(client.sock, wanted)

    def unregister(self, client: Client, *, for_good: bool = False) -> None:
        """Serve this client no longer."""
        if for_good:
            self._open.discard(client)
        if self._registered.pop(client.sock.fileno(), None) is not None:
            self._poll.unregister(client.sock)


def log_in(pool: ClientPool, address: Address, names: Iterable[str], receive_bytes: int = 0) -> list[Client]:
    """A client for each name, logged in, in the `line` dialect."""
    clients = []
    for name in names:
        client = pool.connect(address, receive_bytes=receive_bytes)
        client.send_lines(f"LOGIN {name}")
        clients.append(client)
    pool.wait_until_received(clients, b"OK\n")
    return clients


def send_broken(
    pool: ClientPool,
    address: Address,
    rng: random.Random,
    makers: Sequence[Callable[[random.Random], bytes]],
    count: int,
) -> None:
    """Have clients send what `makers` make, whole or in pieces, and leave, break off or stay, until all are closed."""
    stay: list[Client] = []
    for _ in range(count):
        client = pool.connect(address)
        data = rng.choice(makers)(rng)
        match rng.randrange(4):
            case 0:
                client.send(data)
                client.close()
            case 1:
                client.send(data)
                client.abort()
            case 2:
                client.send(data)
                stay.append(client)
            case 3:
                for n in range(0, min(len(data), 200), 20):
                    client.send(data[n : n + 20])
                    pool.poll()
                stay.append(client)
    # The server ends all of them, at once or after a deadline.
    pool.wait_for("all are closed", lambda: all(client.state is not State.OPEN for client in stay))
