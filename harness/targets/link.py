"""Links: proxies of TCP connections to the nodes of a target, which can delay, split, hold or cut what passes.

- One thread carries all links of a target, with its own sockets and poll; it ends with `close`.
- What passes keeps its order; the end of a connection and its reset are part of that. A link reads no further while it
  holds LINK_BYTES in one direction.
- A delay counts from the moment the bytes arrive at the link; a change counts for what arrives after it.
- A cut link resets its connections, and closes every new one at once; so does any link whose node refuses connections. A
  blocked one keeps them and passes nothing.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from harness.stage.event_loop import LONGEST_POLL_S
from harness.stage.fence import Transit
from harness.stage.kernel import RealSocket, SocketDiagnostics, original, signals_held
from harness.targets.command import listens

LINK_BYTES = 262_144
"""How much one direction of a connection holds."""

_CHUNK_BYTES = 65_536
_SPLIT_S = 0.001
"""The time between the pieces of a split, so that they can be read one by one."""
_RESET = struct.pack("ii", 1, 0)
_WITHIN_S = 5.0

_poll: Any = original("select", "poll")
_start_thread: Any = original("_thread", "start_new_thread")
_allocate_lock: Any = original("_thread", "allocate_lock")


class _Direction:
    """The bytes on their way from one socket to the other, oldest first. An empty piece is the end, and None a reset."""

    def __init__(self, link: Link, source: Any, sink: Any) -> None:
        self.link = link
        self.source = source
        self.sink = sink
        self.pieces: deque[tuple[float, bytes | None]] = deque()
        self.held_bytes = 0
        self.taken = self.passed_on = 0
        """How many pieces have come in and gone out."""
        self.ended = False
        """Whether the source has sent its end, or is lost."""
        self.lost = False
        """Whether the source has been reset."""
        self.over = False
        """Whether that end has been passed on."""
        self.resets = False
        """Whether the reset is to be passed on now."""
        self.full = False
        """Whether the sink takes no more."""

    @property
    def reads(self) -> bool:
        return not self.ended and self.held_bytes < LINK_BYTES and not self.link.blocked

    @property
    def due_s(self) -> float | None:
        """When the next piece is due; None where only an event can tell."""
        return None if self.full or self.link.blocked or not self.pieces else self.pieces[0][0]

    def read(self) -> None:
        self._take(self.source.recv(_CHUNK_BYTES))

    def lose(self, back: _Direction) -> None:
        """The source has been reset: take what came before that, and the reset. What is on its way to it is lost."""
        if back.lost:
            self.resets = True  # nothing is left to pass it on to
            return
        self.lost = True
        with suppress(OSError):
            while data := self.source.recv(_CHUNK_BYTES):
                self._take(data)
        self._take(None)
        back.pieces.clear()
        back.ended, back.full = True, False

    def _take(self, data: bytes | None) -> None:
        due_s = time.monotonic() + self.link.delay_s
        if not data:
            self.ended = True
            self.pieces.append((due_s, data))
        else:
            size = self.link.split_bytes or len(data)
            for start in range(0, len(data), size):
                self.pieces.append((due_s, data[start : start + size]))
                due_s += _SPLIT_S if self.link.split_bytes else 0.0
            self.held_bytes += len(data)
        self.taken = self.passed_on + len(self.pieces)

    def write(self, now_s: float) -> None:
        """Pass on what is due."""
        while not self.link.blocked and self.pieces and self.pieces[0][0] <= now_s:
            due_s, data = self.pieces.popleft()
            if not data:
                self._count()
                self.over, self.resets = True, data is None
                if not self.resets:
                    self.sink.shutdown(socket.SHUT_WR)
                continue  # a reset can follow an end
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.held_bytes -= sent
            self.full = sent < len(data)
            if self.full:
                self.pieces.appendleft((due_s, data[sent:]))
                return
            self._count()
            if self.link.split_bytes and self.pieces:
                # Also where this comes late: else all that is due by now would be one piece again.
                due_s, following = self.pieces.popleft()
                self.pieces.appendleft((max(due_s, now_s + _SPLIT_S), following))

    def _count(self) -> None:
        self.passed_on += 1
        self.link.passed_on += self.link.is_slow

    @property
    def passes(self) -> bool:
        """Whether what it holds only needs time to pass."""
        return bool(self.pieces) and not self.full and not self.link.blocked


@dataclass(eq=False)
class Link:
    """The proxy in front of one node."""

    port: int
    """That of the node, on this machine. It can listen at any loopback address."""
    listener: Any
    delay_s: float = 0.0
    split_bytes: int = 0
    """The size of the pieces in which everything is passed on; 0: as it comes."""
    blocked: bool = False
    is_cut: bool = False
    passed_on: int = 0
    """How many pieces it has passed on while it was slow."""
    pairs: list[tuple[_Direction, _Direction]] = field(default_factory=list)

    @property
    def is_slow(self) -> bool:
        return bool(self.delay_s or self.split_bytes)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port


class Links(Transit):
    """All links of one target, and the thread that carries them."""

    def __init__(self) -> None:
        self._links: list[Link] = []
        self._work: deque[tuple[Callable[[], None], Any]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._ended = _allocate_lock()
        self._ended.acquire()
        self.error: BaseException | None = None
        """The exception that ended the thread, if `close` did not."""
        with signals_held():  # the thread inherits that: they are for the thread of the test
            _start_thread(self._run, ())

    def add(self, port: int) -> Link:
        """A link to this port of this machine, on a new port."""
        listener = RealSocket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        link = Link(port, listener)
        self._do(lambda: self._links.append(link))
        return link

    def delay(self, link: Link, seconds: float) -> None:
        self._do(lambda: setattr(link, "delay_s", seconds))

    def split(self, link: Link, size: int) -> None:
        self._do(lambda: setattr(link, "split_bytes", size))

    def block(self, link: Link) -> None:
        self._do(lambda: setattr(link, "blocked", True))

    def cut(self, link: Link) -> None:
        def cut() -> None:
            link.is_cut = True
            for pair in list(link.pairs):
                self._drop(link, pair, reset=True)

        self._do(cut)

    def restore(self, link: Link) -> None:
        """Pass everything at once and as it comes, and accept connections."""

        def restore() -> None:
            link.is_cut = link.blocked = False
            link.delay_s, link.split_bytes = 0.0, 0
            for direction in (one for pair in link.pairs for one in pair):
                direction.pieces = deque((0.0, data) for _, data in direction.pieces)

        self._do(restore)

    @property
    def passed_on(self) -> int:  # type: ignore[override]
        return sum(link.passed_on for link in self._links)

    def held(self) -> Callable[[], bool]:
        marks = [(one, one.taken) for link in self._links for pair in list(link.pairs) for one in pair]
        return lambda: (
            self.error is None and any(one.passes and one.passed_on < taken for one, taken in marks)
        )

    def close(self) -> None:
        """End all connections and the thread. Idempotent."""
        if self._wake_write < 0:
            return
        self._stopping = True
        self._wake()
        self._ended.acquire(True, _WITHIN_S)
        for link in self._links:
            for pair in list(link.pairs):
                self._drop(link, pair, reset=False)
            link.listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._wake_write = -1

    def _do(self, work: Callable[[], None]) -> None:
        """Let the thread do this, and return when it is done."""
        done = _allocate_lock()
        done.acquire()
        self._work.append((work, done))
        self._wake()
        if not done.acquire(True, _WITHIN_S):
            raise RuntimeError(f"the links do not answer: {self.error!r}")

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            pass  # it is being woken already

    # The thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:
            self.error = error
        finally:
            self._ended.release()

    def _turn(self) -> None:
        poll = _poll()
        listeners: dict[int, Link] = {}
        poll.register(self._wake_read, select.POLLIN)
        next_s: float | None = None
        for link in self._links:
            if not link.blocked:
                poll.register(link.listener, select.POLLIN)
                listeners[link.listener.fileno()] = link
            for pair in link.pairs:
                for direction, back in (pair, pair[::-1]):
                    # One socket is the source of one direction and the sink of the other.
                    events = (select.POLLIN if direction.reads else 0) | (select.POLLOUT if back.full else 0)
                    if events:
                        poll.register(direction.source, events)
                    due_s = direction.due_s
                    next_s = due_s if next_s is None or (due_s is not None and due_s < next_s) else next_s
        wait_ms = None
        if next_s is not None:
            wait_ms = min(max(0.0, (next_s - time.monotonic()) * 1000 + 0.5), LONGEST_POLL_S * 1000)
        ready = dict(poll.poll(wait_ms))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        while self._work:
            work, done = self._work.popleft()
            work()
            done.release()
        for fileno in ready:
            if fileno in listeners:
                self._accept(listeners[fileno])
        for link in self._links:
            for pair in list(link.pairs):
                self._carry(link, pair, ready)

    def _accept(self, link: Link) -> None:
        if link.blocked:
            return
        try:
            near, _ = link.listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                return
            raise
        with closing(SocketDiagnostics()) as kernel:
            address = listens(kernel, link.port)
        if address is None or link.is_cut:
            # Not with a reset: it could arrive while the client still connects, and sometimes would be a refusal.
            near.close()
            return
        far = RealSocket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = far.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            near.close()
            far.close()
            return
        pair = _Direction(link, near, far), _Direction(link, far, near)
        # Nothing can be passed on before the node has accepted the connection, which a stopped one need not do.
        pair[0].full = code == errno.EINPROGRESS
        link.pairs.append(pair)

    def _carry(self, link: Link, pair: tuple[_Direction, _Direction], ready: dict[int, int]) -> None:
        now_s = time.monotonic()
        for direction, back in (pair, pair[::-1]):
            events = ready.get(direction.source.fileno(), 0)
            if events & select.POLLOUT:
                back.full = False
            try:
                if direction.reads and events & ~select.POLLOUT:
                    direction.read()
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    self._drop(link, pair, reset=False)
                    return
                direction.lose(back)
            try:
                if not direction.full:
                    direction.write(now_s)
            except OSError:
                back.lose(direction)
        if any(one.resets for one in pair) or all(one.over for one in pair):
            self._drop(link, pair, reset=any(one.resets for one in pair))

    def _drop(self, link: Link, pair: tuple[_Direction, _Direction], reset: bool) -> None:
        link.pairs.remove(pair)
        for direction in pair:
            direction.pieces.clear()
            _close(direction.source, reset)


def _close(sock: Any, reset: bool) -> None:
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
