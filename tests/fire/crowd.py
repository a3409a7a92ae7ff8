"""Many clients on real sockets in one thread, each keeping every byte that it heard. Must not know a dialect."""

from __future__ import annotations

import enum
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from tests.fire.process import PATIENCE_S

_CHUNK_BYTES = 262_144
_ABORT = struct.pack("ii", 1, 0)
Address = tuple[str, int]


class Fate(enum.Enum):
    """How a connection stands."""

    OPEN = enum.auto()
    FIN = enum.auto()
    RST = enum.auto()


class Peer:
    """One client. What it hears is kept whole; what the server does not take yet waits."""

    __slots__ = ("_crowd", "_found", "ended_at", "fate", "heard", "reads", "sock", "unsent")

    def __init__(self, crowd: Crowd, sock: socket.socket) -> None:
        self._crowd = crowd
        self._found = 0
        self.unsent = b""
        self.sock = sock
        self.heard = bytearray()
        self.fate = Fate.OPEN
        self.reads = True
        self.ended_at = 0.0

    @property
    def lines(self) -> list[bytes]:
        """The whole lines it has heard."""
        return bytes(self.heard).split(b"\n")[:-1]

    def find(self, words: bytes) -> bool:
        """Whether this was heard behind what was found before it."""
        at = self.heard.find(words, self._found)
        if at >= 0:
            self._found = at + len(words)
        return at >= 0

    def say(self, *lines: str) -> None:
        """Send these lines, now or as soon as the server takes them."""
        self.send("".join([line + "\n" for line in lines]).encode())

    def send(self, data: bytes) -> None:
        """Send these bytes, now or as soon as the server takes them."""
        self.unsent += data
        self.push()

    def push(self) -> None:
        """Send as much of what waits as goes."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # Reading will tell how it ended.
            self.unsent = b""
        self._crowd.watch(self, writing=bool(self.unsent))

    def take(self) -> None:
        """Read what has come."""
        try:
            data = self.sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end(Fate.RST)
            return
        if data:
            self.heard += data
        else:
            self._end(Fate.FIN)

    def stop_reading(self) -> None:
        """From now on whatever the server sends stays in the kernel, and only a little of it."""
        self.reads = False
        self._crowd.forget(self)

    def close(self) -> None:
        """Close, as a program that ends does."""
        self._crowd.forget(self, for_good=True)
        self.sock.close()

    def abort(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()

    def _end(self, fate: Fate) -> None:
        self.fate = fate
        self.ended_at = time.monotonic()
        self.close()


class Crowd:
    """Clients, and one loop that serves them all."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._open: set[Peer] = set()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in list(self._open):
            peer.close()
        self._poll.close()

    def join(self, address: Address, *, receive_bytes: int = 0, source: str = "") -> Peer:
        """One more client; connects and waits for it. `receive_bytes` makes its kernel keep no more than about that."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(PATIENCE_S)
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
        peer = Peer(self, sock)
        self._open.add(peer)
        self._peers[sock.fileno()] = peer
        self._poll.register(sock, select.EPOLLIN)
        return peer

    def until(self, what: str, is_so: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        """Serve all clients until it is so."""
        deadline = time.monotonic() + within_s
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s:g} s: {what}")
            self.turn(0.05)

    def turn(self, wait_s: float = 0.0) -> None:
        """One look at everyone; waits for the first to have something."""
        for fileno, events in self._poll.poll(wait_s, 4096):
            peer = self._peers.get(fileno)
            if peer is None:
                continue
            if events & select.EPOLLOUT:
                peer.push()
            if events & ~select.EPOLLOUT:
                peer.take()

    def until_heard(self, peers: Iterable[Peer], ending: bytes, within_s: float = PATIENCE_S) -> None:
        """Serve all clients until each of these has heard this last."""
        waiting = set(peers)

        def all_have() -> bool:
            waiting.difference_update([peer for peer in waiting if peer.heard.endswith(ending)])
            return not waiting

        try:
            self.until(f"everyone has heard {ending!r} last", all_have, within_s)
        except AssertionError as error:
            one = next(iter(waiting))
            raise AssertionError(f"{error}; one of {len(waiting)} has {bytes(one.heard[-200:])!r}") from None

    def until_heard_since(self, peers: Iterable[Peer], words: bytes) -> None:
        """Serve all clients until each of these has heard this, somewhere in what came since it was last asked for."""
        for peer in peers:
            self.until(f"{words!r} is heard", lambda peer=peer: peer.find(words))  # type: ignore[misc]

    def watch(self, peer: Peer, *, writing: bool) -> None:
        """Look whether this client can send, too, or no longer."""
        if peer.sock.fileno() in self._peers:
            wanted = (select.EPOLLIN if peer.reads else 0) | (select.EPOLLOUT if writing else 0)
            self._poll.modify(peer.sock, wanted)

    def forget(self, peer: Peer, *, for_good: bool = False) -> None:
        """Serve this client no longer."""
        if for_good:
            self._open.discard(peer)
        if self._peers.pop(peer.sock.fileno(), None) is not None:
            self._poll.unregister(peer.sock)


def logged_in(crowd: Crowd, address: Address, names: Iterable[str]) -> list[Peer]:
    """A client for each name, in the `line` dialect, and logged in."""
    peers = []
    for name in names:
        peer = crowd.join(address)
        peer.say(f"LOGIN {name}")
        peers.append(peer)
    crowd.until_heard(peers, b"OK\n")
    return peers
