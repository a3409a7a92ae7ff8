"""An address that accepts clients. Passes on a socket and the peer's host, and knows nothing about connections."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as plain
import stat
import struct
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
# The process, the user and the group of a peer.
_CREDENTIALS = struct.Struct("3i")
# The originals of the standard library, even if an embedding program has patched it.
_Socket: type[plain.socket] = monkey.get_original("socket", "socket")
_getaddrinfo: Any = monkey.get_original("socket", "getaddrinfo")


class CannotListen(OSError):
    """Listening on an address failed."""

    def __init__(self, listen: Listen, cause: OSError) -> None:
        where = listen.path or f"{listen.host or '*'}:{listen.port}"
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
        owns_path: bool = True,
    ) -> None:
        """`opened` is a socket that listens already; otherwise one is opened, or CannotListen is raised.

        `owns_path`: a Unix socket's file is to be removed in the end.
        """
        self._on_connect = on_connect
        self._log = log
        self._listen = listen
        self._retry: Any = None
        self._starved = False
        # The iteration of the loop in which a client was accepted last.
        self._iteration = 0
        super().__init__(_open(listen) if opened is None else _adopt(opened), self._on_connect)
        self._owns_path = listen.is_unix and owns_path
        # Which file is ours: another server can have replaced it by the time at which this one stops. That of a socket that
        # was opened by somebody else is theirs until this one starts.
        self._file = _file_at(listen.path) if self._owns_path and opened is None else None

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
            self._log(LogEvent.ACCEPT_RESUMED, listener=self._name)
        self._adapt()
        sock = _Socket(listening.family, listening.type, listening.proto, fileno)
        sock.setblocking(False)
        return sock, address

    def do_handle(self, sock: plain.socket, address: Any) -> None:
        """Start the client from the loop, so that its greenlet does not keep the frames of the accept alive."""
        self._on_connect(sock, _user_of(sock) if self._listen.is_unix else host_of(address[0]))

    def start(self) -> None:
        """Accept clients from now on."""
        if self._owns_path and self._file is None:
            # The process that has opened it can have had another mode in its settings.
            with contextlib.suppress(OSError):
                os.chmod(self._listen.path, self._listen.mode)
            self._file = _file_at(self._listen.path)
        super().start()

    @property
    def bound(self) -> tuple[str, int]:
        """The host and the real port; the path and 0 for a Unix socket."""
        if self._listen.is_unix:
            return self._listen.path, 0
        address: Any = self.address
        return str(address[0]), int(address[1])

    @property
    def _name(self) -> str | int:
        """The port or the path, for the log."""
        path, port = self.bound
        return port or path

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
        self.remove_file()

    def remove_file(self) -> None:
        """Remove the file of a Unix socket, unless another server has replaced it."""
        if self._file is not None and _file_at(self._listen.path) == self._file:
            # The directory can have become read-only. The next server replaces the file.
            with contextlib.suppress(OSError):
                os.unlink(self._listen.path)
        self._file = None

    def _adapt(self) -> None:
        """Try to accept several at once only while clients arrive in each iteration: a failed try is expensive."""
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
            self._log(LogEvent.ACCEPT_PAUSED, listener=self._name, error=error.strerror)
        self._retry = self.loop.timer(_RETRY_S)
        self._retry.start(self.resume)


def host_of(address: str) -> str:
    """The peer's address as operators write it: a dual-stack listener names IPv4 peers in IPv6's notation."""
    if not address.startswith("::ffff:"):
        return address
    mapped = IPv6Address(address.partition("%")[0]).ipv4_mapped
    return address if mapped is None else str(mapped)


def _user_of(sock: plain.socket) -> str:
    """The user that has connected to a Unix socket: all its connections count as those of one address."""
    credentials = sock.getsockopt(plain.SOL_SOCKET, plain.SO_PEERCRED, _CREDENTIALS.size)
    return f"uid:{_CREDENTIALS.unpack(credentials)[1]}"


def _open(listen: Listen) -> socket.socket:
    try:
        if listen.is_unix:
            return _bind_unix(listen.path, listen.mode)
        if not listen.host:
            return _bind(plain.AF_INET6, ("::", listen.port), both=True)
        family, _, _, _, address = _look_up(listen)[0]
        return _bind(family, address)
    except OSError as error:
        if not listen.host and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            # This machine has no IPv6.
            return _open(replace(listen, host="0.0.0.0"))
        raise CannotListen(listen, error) from error


def _look_up(listen: Listen) -> list[Any]:
    where, kind, passive = (listen.host, listen.port), plain.SOCK_STREAM, plain.AI_PASSIVE
    try:
        # An address in numbers is known at once, while a name is looked up in a thread.
        found: list[Any] = _getaddrinfo(*where, type=kind, flags=passive | plain.AI_NUMERICHOST)
    except plain.gaierror:
        found = socket.getaddrinfo(*where, type=kind, flags=passive)
    return found


def _adopt(opened: plain.socket) -> socket.socket:
    sock = socket.socket(fileno=opened.detach())
    if sock.family == plain.AF_UNIX:
        return sock
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


def _bind_unix(path: str, mode: int) -> socket.socket:
    """Listen on a path. The file of a server that no longer runs is replaced, in one step."""
    if _is_live(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    # Only this server uses the name, and only the owner of the directory could have put something there.
    new = f"{path}.{os.getpid()}"
    sock = socket.socket(plain.AF_UNIX, plain.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        sock.bind(new)
        # Before anyone can connect.
        os.chmod(new, mode)
        sock.listen(_BACKLOG)
        os.rename(new, path)
    except BaseException:
        sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise
    return sock


def _is_live(path: str) -> bool:
    """True if a server listens there. Raises OSError if what is there is not a socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "it exists and is not a socket")
        with _Socket(plain.AF_UNIX, plain.SOCK_STREAM) as asking:
            # A full backlog would block.
            asking.setblocking(False)
            asking.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        return True
    return True


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
