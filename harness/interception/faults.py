"""The faults that a script asks for, injected into a server in this process at that moment.

- A fault behaves as it does in a kernel: a failed connection stays lost and is ready for reading and writing, a socket that
  takes nothing is not ready, and a peer that vanished is detected by the same time-outs, in virtual time.
- A fault of a client's connection affects the connection that the client has when the step is played.

Knows steps, but no scripts.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from harness.interception.interceptor import AcceptedConnection, Interceptor
from harness.language.exhaustive import assert_never
from harness.language.steps import CallFails, CallTakes, ClockJumps, Fault, SocketCall
from harness.stage.connection import Connection
from harness.stage.kernel import RealSocket, SocketAddress
from harness.stage.target import UnsupportedFault
from harness.stage.virtual_time import US

_READ, _WRITE = 1, 2
_ABORT = struct.pack("ii", 1, 0)
# After one of these the connection is lost; any other error fails a single call.
_FATAL = {
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOTCONN,
}
# How long Linux retransmits what is not acknowledged (tcp_retries2), where the server has set no limit itself.
_UNACKNOWLEDGED_S = 924.6
_TCP_USER_TIMEOUT = 18


@dataclass(slots=True)
class _Calls:
    """One connection's calls of one kind."""

    failing: deque[int] = field(default_factory=deque)
    most: int | None = None

    def allows(self, size: int) -> int:
        if self.failing:
            raise _error(self.failing.popleft())
        return size if self.most is None else min(size, self.most)


@dataclass(slots=True)
class _FaultyConnection:
    """The server's side of one connection, and the faults in it."""

    accepted: AcceptedConnection
    reads: _Calls = field(default_factory=_Calls)
    writes: _Calls = field(default_factory=_Calls)
    last_segment_us: int = 0
    """When the server last received something, data or an acknowledgement."""
    lost: int = 0
    """The error that ended it, once one has."""
    vanished: Any = None
    """The client's own socket, kept open and unread."""
    stop_giving_up: Callable[[], None] | None = None
    """Cancels the timer by which the server's kernel gives up on a silent peer."""
    awaits_acknowledgement: bool = False
    """Whether that timer runs because the server has written to a peer that has vanished."""

    def calls(self, call: SocketCall) -> _Calls:
        return self.reads if call is SocketCall.READ else self.writes


class Faults(Interceptor):
    """The interceptor that injects faults on request."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._accepts: deque[int] = deque()
        self._by_peer: dict[SocketAddress, _FaultyConnection] = {}

    # Called by scripts

    def inject(self, fault: Fault, connection: Connection | None) -> None:
        """Let this happen from now on. The connection is that of the fault's client, if it names one."""
        match fault:
            case ClockJumps(microseconds):
                self._loop.jumped_us += microseconds
            case CallFails(SocketCall.ACCEPT, _, error, times):
                self._accepts.extend([getattr(errno, error)] * times)
            case CallFails(call, _, error, times):
                self._of(connection).calls(call).failing.extend([getattr(errno, error)] * times)
            case CallTakes(call, _, most):
                self._of(connection).calls(call).most = most
                self._loop.recheck_blocked()
            case _:
                assert_never(fault)

    def vanish(self, connection: Connection) -> None:
        """Let the client's machine disappear, without a FIN or a reset."""
        faulty = self._of(connection)
        faulty.vanished = connection.vanish()
        quiet_s = (self._loop.elapsed_us - faulty.last_segment_us) / US
        silence_s = _until_probes_fail(faulty.accepted.fileno, quiet_s)
        if silence_s is not None:
            self._give_up_in(faulty, silence_s)

    def _of(self, connection: Connection | None) -> _FaultyConnection:
        found = self._by_peer.get(_address(connection.local_address)) if connection is not None else None
        if found is None:
            raise UnsupportedFault(
                "the server has not accepted a connection of this client", "an accepted connection"
            )
        if found.accepted.bypassed:
            raise UnsupportedFault(
                "the server's TLS reads and writes this connection itself, where no fault can be injected",
                "a connection without TLS, or with that of asyncio",
            )
        return found

    # Called by the interception

    def loop_created(self, loop: Any) -> None:
        self._loop = loop

    def server_stopped(self) -> None:
        for faulty in self._by_peer.values():
            if faulty.vanished is not None:
                faulty.vanished.close()

    def before_accept(self) -> bool:
        if self._accepts:
            raise _error(self._accepts.popleft())
        return True

    def accepted(self, connection: AcceptedConnection) -> None:
        self._by_peer[_address(connection.peer)] = _FaultyConnection(
            connection, last_segment_us=self._loop.elapsed_us
        )

    def before_read(self, connection: AcceptedConnection, size: int) -> int:
        faulty = self._by_peer[_address(connection.peer)]
        if faulty.lost:
            raise _error(faulty.lost)
        if size:
            faulty.last_segment_us = self._loop.elapsed_us
        return self._allowed(faulty, faulty.reads, size)

    def before_write(self, connection: AcceptedConnection, size: int) -> int:
        faulty = self._by_peer[_address(connection.peer)]
        if faulty.lost:
            raise _error(errno.EPIPE)
        if faulty.vanished is not None and not faulty.awaits_acknowledgement:
            # From the first write on, the kernel waits for the acknowledgement and no longer probes.
            self._await_acknowledgement(faulty)
        faulty.last_segment_us = self._loop.elapsed_us
        return self._allowed(faulty, faulty.writes, size)

    def _allowed(self, faulty: _FaultyConnection, calls: _Calls, size: int) -> int:
        try:
            return calls.allows(size)
        except OSError as failed:
            if failed.errno in _FATAL:
                self._lose(faulty, failed.errno)
                _make_readable(faulty.accepted)
            raise

    def is_blocked(self, fileno: int, events: int) -> bool:
        for faulty in self._by_peer.values():
            if faulty.accepted.fileno == fileno and faulty.accepted.is_at(fileno):
                if faulty.lost:
                    return False
                reads = events & _READ and faulty.reads.most != 0
                writes = events & _WRITE and faulty.writes.most != 0
                return not (reads or writes)
        return False

    def _lose(self, faulty: _FaultyConnection, code: int) -> None:
        faulty.lost = code
        self._loop.recheck_blocked()

    # A peer that has vanished

    def _await_acknowledgement(self, faulty: _FaultyConnection) -> None:
        limit_ms = _option(faulty.accepted.fileno, socket.IPPROTO_TCP, _TCP_USER_TIMEOUT)
        self._give_up_in(faulty, limit_ms / 1000 if limit_ms else _UNACKNOWLEDGED_S)
        faulty.awaits_acknowledgement = True

    def _give_up_in(self, faulty: _FaultyConnection, seconds: float) -> None:
        if faulty.stop_giving_up is not None:
            faulty.stop_giving_up()
        faulty.stop_giving_up = self._loop.later(seconds, self._give_up, faulty)

    def _give_up(self, faulty: _FaultyConnection) -> None:
        self._lose(faulty, errno.ETIMEDOUT)
        # The reset makes the server's descriptor ready; its call then fails with the time-out.
        faulty.vanished.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        faulty.vanished.close()
        faulty.vanished = None


def _address(address: SocketAddress) -> SocketAddress:
    """Host and port, as both sides write them: a dual-stack socket writes IPv4 in a form of IPv6."""
    return (str(address[0]).removeprefix("::ffff:"), *address[1:2]) if address else ()


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _make_readable(connection: AcceptedConnection) -> None:
    """Let whatever waits to read from a lost connection wake, and get the error. The client notices nothing."""
    if connection.is_at(connection.fileno):
        # If the client has reset it, it is readable already.
        with _borrowed(connection.fileno) as sock, suppress(OSError):
            sock.shutdown(socket.SHUT_RD)


def _until_probes_fail(fileno: int, quiet_s: float) -> float | None:
    """How long the server's kernel waits for a peer that answers no more and has sent nothing for `quiet_s`, by the options
    that the server has set; None: for ever."""
    if not _option(fileno, socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return None
    idle = _option(fileno, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    between = _option(fileno, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
    if quiet_s >= idle:
        # The peer has answered probes: it is silent since the last of them.
        quiet_s = (quiet_s - idle) % max(idle, between)
        idle = max(idle, between)
    limit_ms = _option(fileno, socket.IPPROTO_TCP, _TCP_USER_TIMEOUT)
    if limit_ms:
        # With a limit the count does not matter: the first probe after the limit ends the connection.
        probes = max(1, -(-(limit_ms / 1000 - idle) // between))
    else:
        probes = _option(fileno, socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    return float(idle + probes * between - quiet_s)


def _option(fileno: int, level: int, option: int) -> int:
    with _borrowed(fileno) as sock:
        return int(sock.getsockopt(level, option))


@contextmanager
def _borrowed(fileno: int) -> Iterator[Any]:
    """A socket object for the server's descriptor, which stays open."""
    sock = RealSocket(fileno=fileno)
    try:
        yield sock
    finally:
        sock.detach()
