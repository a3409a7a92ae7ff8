"""An address that accepts clients. Passes on a socket and the peer's host, and knows nothing about connections."""

from __future__ import annotations

import errno
import os
import socket as plain
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from gevent import monkey, socket
from gevent.server import StreamServer

from geventchat.log import Log, LogEvent
from geventchat.net.transport import TCP_OPTIONS
from geventchat.settings import Listen

_BACKLOG = 4_096
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_S = 0.5
# How many clients are accepted in one iteration of the loop, when that many are waiting.
_MOST_AT_ONCE = 100
# The class without gevent, even if an embedding program has patched the standard library.
_Socket: type[plain.socket] = monkey.get_original("socket", "socket")


class CannotListen(OSError):
    """Listening on an address failed."""

    def __init__(self, listen: Listen, cause: OSError) -> None:
        where = f"{listen.host or '*'}:{listen.port}"
        super().__init__(cause.errno, f"cannot listen on {where}: {cause.strerror or cause}")
        self.listen = listen

    @property
    def in_use(self) -> bool:
        """True when another program listens there."""
        return self.errno == errno.EADDRINUSE


class Listener(StreamServer):
    """Accepts clients for one service. When the process runs out of descriptors, it pauses until one is free."""

    def __init__(
        self,
        listen: Listen,
        on_connect: Callable[[plain.socket, str], None],
        log: Log,
        opened: plain.socket | None = None,
    ) -> None:
        """`opened` is a socket that listens already; otherwise one is opened, or CannotListen is raised."""
        self._on_connect = on_connect
        self._log = log
        self._retry: Any = None
        self._starved = False
        # The iteration of the loop in which a client was accepted last.
        self._iteration = 0
        super().__init__(_open(listen) if opened is None else _adopt(opened), self._on_connect)

    def do_read(self) -> tuple[plain.socket, Any] | None:  # type: ignore[override]
        """Accept one client as a plain socket, which needs half the memory and time of a cooperative one.

        The log gets one line for a burst of errors, where gevent would print a traceback for each.
        """
        listening: Any = self.socket
        try:
            fileno, address = listening._accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._pause(error)
                return None
            if error.errno in {errno.ECONNABORTED, errno.EINTR, errno.EPROTO}:
                return None
            raise
        except MemoryError:
            self._pause(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
            return None
        if self._starved:
            self._starved = False
            self._log(LogEvent.ACCEPT_RESUMED, listener=self.server_port)
        self._adapt()
        sock = _Socket(listening.family, listening.type, listening.proto, fileno)
        sock.setblocking(False)
        return sock, address

    def do_handle(self, sock: plain.socket, address: Any) -> None:
        """Start the client from the loop, so that its greenlet does not keep the frames of the accept alive."""
        self._on_connect(sock, host_of(address[0]))

    @property
    def bound(self) -> tuple[str, int]:
        """The host and the real port."""
        address: Any = self.address
        return str(address[0]), int(address[1])

    def resume(self) -> None:
        """Try to accept: a descriptor is perhaps free again."""
        if self._retry is not None:
            self._retry.close()
            self._retry = None
            if self.started:
                self.start_accepting()

    def close(self) -> None:
        """Accept no more clients."""
        if self._retry is not None:
            self._retry.close()
            self._retry = None
        super().close()

    def _adapt(self) -> None:
        """Try to accept several at once only while clients arrive in each iteration: a try in vain is expensive."""
        iteration = getattr(self.loop, "iteration", 0)
        if iteration != self._iteration:
            storm = iteration == self._iteration + 1
            self.max_accept = min(2 * self.max_accept, _MOST_AT_ONCE) if storm else 1
            self._iteration = iteration

    def _pause(self, error: OSError) -> None:
        self.stop_accepting()
        if not self._starved:
            # Logged once, not for each attempt, so that the log does not fill up.
            self._starved = True
            self._log(LogEvent.ACCEPT_PAUSED, listener=self.server_port, error=error.strerror)
        self._retry = self.loop.timer(_RETRY_S)
        self._retry.start(self.resume)


def host_of(address: str) -> str:
    """The peer's address as operators write it: a dual-stack listener names IPv4 peers in IPv6's notation."""
    if not address.startswith("::ffff:"):
        return address
    mapped = IPv6Address(address.partition("%")[0]).ipv4_mapped
    return address if mapped is None else str(mapped)


def _open(listen: Listen) -> socket.socket:
    try:
        if not listen.host:
            return _bind(plain.AF_INET6, ("::", listen.port), both=True)
        found = socket.getaddrinfo(listen.host, listen.port, type=plain.SOCK_STREAM, flags=plain.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return _bind(family, address)
    except OSError as error:
        if not listen.host and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            # This machine has no IPv6.
            return _open(replace(listen, host="0.0.0.0"))
        raise CannotListen(listen, error) from error


def _adopt(opened: plain.socket) -> socket.socket:
    sock = socket.socket(fileno=opened.detach())
    for level, option, value in TCP_OPTIONS:
        sock.setsockopt(level, option, value)
    return sock


def _bind(family: int, address: Any, both: bool = False) -> socket.socket:
    sock = socket.socket(family, plain.SOCK_STREAM)
    try:
        sock.setsockopt(plain.SOL_SOCKET, plain.SO_REUSEADDR, 1)
        if family == plain.AF_INET6:
            sock.setsockopt(plain.IPPROTO_IPV6, plain.IPV6_V6ONLY, 0 if both else 1)
        for level, option, value in TCP_OPTIONS:
            sock.setsockopt(level, option, value)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
