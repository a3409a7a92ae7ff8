"""A place where clients come in. Must not know what becomes of them: it accepts, and hands over a socket and an address."""

from __future__ import annotations

import errno
import socket as plain
from collections.abc import Callable
from typing import Any

from gevent import monkey, socket
from gevent.server import StreamServer

from geventchat.log import Log, LogEvent
from geventchat.settings import Listen

_BACKLOG = 4_096
# A silent peer is asked by the kernel after a minute, four times, 15 s apart; what is unacknowledged for two minutes is
# lost. People who say nothing notice none of it.
_OPTIONS = (
    (plain.SOL_SOCKET, plain.SO_KEEPALIVE, 1),
    (plain.IPPROTO_TCP, plain.TCP_KEEPIDLE, 60),
    (plain.IPPROTO_TCP, plain.TCP_KEEPINTVL, 15),
    (plain.IPPROTO_TCP, plain.TCP_KEEPCNT, 4),
    (plain.IPPROTO_TCP, plain.TCP_USER_TIMEOUT, 120_000),
    # The output of a turn is already joined; waiting for more would only make it late.
    (plain.IPPROTO_TCP, plain.TCP_NODELAY, 1),
    # telnet's Ctrl-C sends a byte out of band; in line it is found and taken out like the rest of its sequence.
    (plain.SOL_SOCKET, plain.SO_OOBINLINE, 1),
)
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_S = 0.5
# Where a program around us has patched the standard library, this is still the class without gevent in it.
_Socket: type[plain.socket] = monkey.get_original("socket", "socket")


class CannotListen(OSError):
    """There is no listening here: where, and why."""

    def __init__(self, listen: Listen, cause: OSError) -> None:
        where = f"{listen.host or '*'}:{listen.port}"
        super().__init__(cause.errno, f"cannot listen on {where}: {cause.strerror or cause}")
        self.listen = listen

    @property
    def in_use(self) -> bool:
        """Is somebody else listening there?"""
        return self.errno == errno.EADDRINUSE


class Listener(StreamServer):
    """Accepts for one dialect; when the machine is out of descriptors, waits for one quietly."""

    def __init__(self, listen: Listen, arrive: Callable[[plain.socket, str], None], log: Log) -> None:
        self._arrive = arrive
        self._log = log
        self._retry: Any = None
        self._starved = False
        super().__init__(_open(listen))

    def handle(self, *_: object) -> None:  # pragma: no cover - gevent asks that there be one
        """Not used: `do_handle` hands a client over whole, so that nothing of the accept stays in its memory."""

    def do_read(self) -> tuple[plain.socket, Any] | None:  # type: ignore[override]
        """Accept one, as a plain socket: half the memory, and half the time to make, of one that waits by itself.

        What a burst of errors would print and slow down is one line in the log.
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
        if self._starved:
            self._starved = False
            self._log(LogEvent.ACCEPT_RESUMED, listener=self.server_port)
        sock = _Socket(listening.family, listening.type, listening.proto, fileno)
        sock.setblocking(False)
        return sock, address

    def do_handle(self, sock: plain.socket, address: Any) -> None:
        """Hand it over."""
        # A place for both kinds of address names IPv4 ones in IPv6's way; an operator looks for them as they are.
        self._arrive(sock, address[0].removeprefix("::ffff:"))

    @property
    def place(self) -> tuple[str, int]:
        """The host and the real port."""
        address: Any = self.address
        return str(address[0]), int(address[1])

    def resume(self) -> None:
        """A descriptor has been freed, perhaps: try again."""
        if self._retry is not None:
            self._retry.close()
            self._retry = None
            if self.started:
                self.start_accepting()

    def close(self) -> None:
        """No more clients."""
        if self._retry is not None:
            self._retry.close()
            self._retry = None
        super().close()

    def _pause(self, error: OSError) -> None:
        self.stop_accepting()
        if not self._starved:
            # Once, however often it is tried: a log that fills up is trouble of its own.
            self._starved = True
            self._log(LogEvent.ACCEPT_PAUSED, listener=self.server_port, error=error.strerror)
        self._retry = self.loop.timer(_RETRY_S)
        self._retry.start(self.resume)


def _open(listen: Listen) -> socket.socket:
    try:
        if not listen.host:
            return _bind(plain.AF_INET6, ("::", listen.port), both=True)
        found = socket.getaddrinfo(listen.host, listen.port, type=plain.SOCK_STREAM, flags=plain.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return _bind(family, address)
    except OSError as error:
        if not listen.host and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            # A machine without IPv6.
            return _open(Listen(listen.dialect, "0.0.0.0", listen.port))
        raise CannotListen(listen, error) from error


def _bind(family: int, address: Any, both: bool = False) -> socket.socket:
    sock = socket.socket(family, plain.SOCK_STREAM)
    try:
        sock.setsockopt(plain.SOL_SOCKET, plain.SO_REUSEADDR, 1)
        if family == plain.AF_INET6:
            sock.setsockopt(plain.IPPROTO_IPV6, plain.IPV6_V6ONLY, 0 if both else 1)
        for level, option, value in _OPTIONS:
            sock.setsockopt(level, option, value)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
