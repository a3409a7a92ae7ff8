"""The faults that a script asks for, done to a server of this process: what the world does, at the moment it is wanted.

Everything is as a kernel would do it: a connection that failed for good stays lost, a socket that takes nothing is not
ready either, and a peer that vanished is found out by the same time-outs, in virtual time. Knows steps, no scripts.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from harness.interception.interceptor import AcceptedConnection, Interceptor
from harness.language.steps import CallFails, CallTakes, ClockJumps, SocketCall
from harness.stage.connection import Connection
from harness.stage.kernel import RealSocket, SocketAddress
from harness.stage.virtual_time import VirtualTimer

_READ, _WRITE = 1, 2
_ABORT = struct.pack("ii", 1, 0)
# Once one of these was told, the connection is lost; any other error is one call's own.
_FATAL = {
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOTCONN,
}
# How long Linux sends again what nobody acknowledges (tcp_retries2), where the server has set no limit of its own.
_UNACKNOWLEDGED_S = 924.6
_TCP_USER_TIMEOUT = 18


class NoSuchConnection(Exception):
    """There is no connection of this client that the server could suffer from."""


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
    """The server's side of one connection, and all that is wrong with it."""

    accepted: AcceptedConnection
    reads: _Calls = field(default_factory=_Calls)
    writes: _Calls = field(default_factory=_Calls)
    lost: int = 0
    """The error that ended it, once one has."""
    vanished: Any = None
    """The client's own socket, kept open and unread; and when the server's kernel gives up."""
    verdict: Any = None

    def calls(self, call: SocketCall) -> _Calls:
        return self.reads if call is SocketCall.READ else self.writes


class Faults(Interceptor):
    """Nothing is wrong until something is asked for."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._accepts: deque[int] = deque()
        self._by_peer: dict[SocketAddress, _FaultyConnection] = {}

    # What scripts ask for

    def do(self, step: CallFails | CallTakes | ClockJumps, connection: Connection | None) -> None:
        """From now on it is so. The connection is that of the step's client, if it has one."""
        match step:
            case ClockJumps(microseconds):
                self._loop.jumped_us += microseconds
            case CallFails(SocketCall.ACCEPT, _, error, times):
                self._accepts.extend([getattr(errno, error)] * times)
            case CallFails(call, _, error, times):
                self._of(connection).calls(call).failing.extend([getattr(errno, error)] * times)
            case CallTakes(call, _, most):
                self._of(connection).calls(call).most = most
                self._loop.recheck_blocked()

    def vanish(self, connection: Connection) -> None:
        """The client's machine is gone; nobody tells the server."""
        faulty = self._of(connection)
        kept = connection.vanish()
        faulty.vanished = kept
        silence_s = _until_probes_fail(faulty.accepted.fileno)
        if silence_s is not None:
            self._give_up_in(faulty, silence_s)

    def _of(self, connection: Connection | None) -> _FaultyConnection:
        found = self._by_peer.get(_place(connection.near)) if connection is not None else None
        if found is None:
            raise NoSuchConnection
        return found

    # What the server meets

    def loop_created(self, loop: Any) -> None:
        self._loop = loop

    def ends(self) -> None:
        for faulty in self._by_peer.values():
            if faulty.vanished is not None:
                faulty.vanished.close()

    def accepting(self) -> None:
        if self._accepts:
            raise _error(self._accepts.popleft())

    def accepted(self, accepted: AcceptedConnection) -> None:
        self._by_peer[_place(accepted.peer)] = _FaultyConnection(accepted)

    def reading(self, accepted: AcceptedConnection, size: int) -> int:
        faulty = self._by_peer[_place(accepted.peer)]
        if faulty.lost:
            raise _error(faulty.lost)
        return self._noting(faulty, faulty.reads, size)

    def writing(self, accepted: AcceptedConnection, size: int) -> int:
        faulty = self._by_peer[_place(accepted.peer)]
        if faulty.lost:
            raise _error(errno.EPIPE)
        if faulty.vanished is not None and faulty.verdict is not None:
            # What is under way is asked after instead of the peer, and only once.
            self._await_acknowledgement(faulty)
        return self._noting(faulty, faulty.writes, size)

    def _noting(self, faulty: _FaultyConnection, calls: _Calls, size: int) -> int:
        try:
            return calls.allows(size)
        except OSError as failed:
            if failed.errno in _FATAL:
                faulty.lost = failed.errno
            raise

    def is_blocked(self, fileno: int, events: int) -> bool:
        for faulty in self._by_peer.values():
            if faulty.accepted.fileno == fileno and faulty.accepted.is_at(fileno):
                reads = events & _READ and faulty.reads.most != 0
                writes = events & _WRITE and faulty.writes.most != 0
                return not (reads or writes)
        return False

    # A peer that is not there

    def _await_acknowledgement(self, faulty: _FaultyConnection) -> None:
        limit_ms = _option(faulty.accepted.fileno, socket.IPPROTO_TCP, _TCP_USER_TIMEOUT)
        self._give_up_in(faulty, limit_ms / 1000 if limit_ms else _UNACKNOWLEDGED_S)
        faulty.verdict = None

    def _give_up_in(self, faulty: _FaultyConnection, seconds: float) -> None:
        if faulty.verdict is not None:
            faulty.verdict.close()
        # Not the loop's own way to a timer: what the test itself asks it for is real.
        timer = faulty.verdict = VirtualTimer(self._loop, round(seconds * 1_000_000), 0, True, 0)
        timer.start(self._give_up, faulty)

    def _give_up(self, faulty: _FaultyConnection) -> None:
        faulty.lost = errno.ETIMEDOUT
        # The reset makes the server's descriptor ready; what its call then says is that the time was up.
        faulty.vanished.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        faulty.vanished.close()
        faulty.vanished = None


def _place(address: SocketAddress) -> SocketAddress:
    """Host and port, as both sides name them: a socket of both families has its own way to write IPv4."""
    return (str(address[0]).removeprefix("::ffff:"), *address[1:2]) if address else ()


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _until_probes_fail(fileno: int) -> float | None:
    """How long the server's kernel waits for a silent peer, by the options that the server has set; None: for ever."""
    if not _option(fileno, socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return None
    idle = _option(fileno, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    between = _option(fileno, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
    limit_ms = _option(fileno, socket.IPPROTO_TCP, _TCP_USER_TIMEOUT)
    if not limit_ms:
        return float(idle + between * _option(fileno, socket.IPPROTO_TCP, socket.TCP_KEEPCNT))
    # With a limit of its own the count does not matter: the first probe after the limit ends it.
    probes = max(1, -(-(limit_ms / 1000 - idle) // between))
    return idle + probes * between


def _option(fileno: int, level: int, option: int) -> int:
    probe = RealSocket(fileno=fileno)
    try:
        return int(probe.getsockopt(level, option))
    finally:
        probe.detach()
