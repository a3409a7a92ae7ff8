"""Patches the server's sockets to consult the interceptors at each call.

While `SocketPatch` is entered, it replaces methods of the socket classes that the server can hold. Only sockets that were
accepted here are intercepted, never those of scripted clients or those that a server opens itself. TLS of the `ssl` module
and of gevent reads and writes below these classes, so such a connection is marked. TLS of asyncio uses the socket's methods.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from harness.interception.interceptor import AcceptedConnection, Interceptor, cookie_of
from harness.stage.kernel import SocketAddress, original, unread


class SocketPatch:
    """In a `with`: socket calls of this process go through the interceptors. One at a time."""

    def __init__(self, interceptors: Sequence[Interceptor], classes: Sequence[type]) -> None:
        self._interceptors = tuple(interceptors)
        self._classes = tuple(classes)
        self._by_cookie: dict[bytes, AcceptedConnection] = {}
        self._stack = ExitStack()

    def __enter__(self) -> SocketPatch:
        with ExitStack() as stack:
            for kind in self._classes:
                for name, make in _CALLS.items():
                    self._replace(stack, kind, name, make(self, getattr(kind, name)))
            tls = original("ssl", "SSLContext")
            self._replace(stack, tls, "_wrap_socket", _wrap_socket(self, tls._wrap_socket))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._by_cookie.clear()
        for interceptor in self._interceptors:
            interceptor.server_stopped()

    @staticmethod
    def _replace(stack: ExitStack, kind: Any, name: str, call: Callable[..., Any]) -> None:
        if name in vars(kind):
            stack.callback(setattr, kind, name, vars(kind)[name])
        else:
            stack.callback(delattr, kind, name)
        setattr(kind, name, call)

    # Called by the patched methods

    def find(self, sock: Any) -> AcceptedConnection | None:
        """The connection of this socket; None if it was not accepted here, or is closed."""
        try:
            return self._by_cookie.get(cookie_of(sock))
        except OSError:
            return None

    def before_accept(self, sock: Any) -> None:
        allowed = True
        for interceptor in self._interceptors:
            allowed = interceptor.before_accept() and allowed
        if not allowed:
            _refuse(sock)

    def accepted(self, fileno: int, peer: SocketAddress) -> None:
        probe = _socket.socket(fileno=fileno)
        try:
            cookie = cookie_of(probe)
        finally:
            probe.detach()
        connection = AcceptedConnection(len(self._by_cookie) + 1, peer, fileno, cookie)
        self._by_cookie[cookie] = connection
        for interceptor in self._interceptors:
            interceptor.accepted(connection)

    def readable(self, sock: Any, connection: AcceptedConnection, size: int) -> int:
        """The number of bytes that the server reads."""
        there = min(size, unread(sock.fileno()))
        allowed = there
        for interceptor in self._interceptors:
            allowed = interceptor.before_read(connection, allowed)
        if allowed == there:
            return size
        return allowed or _refuse(sock)

    def writable(self, sock: Any, connection: AcceptedConnection, size: int) -> int:
        """The number of bytes that the server writes."""
        allowed = size
        for interceptor in self._interceptors:
            allowed = interceptor.before_write(connection, allowed)
        return allowed or _refuse(sock)


def _refuse(sock: Any) -> int:
    """Block the call; one that waits inside the kernel goes on, with one byte or one connection."""
    if _socket.socket.gettimeout(sock) == 0.0:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return 1


# --- the calls ----------------------------------------------------------------------------------------------

_Call = Callable[..., Any]


def _accept(patch: SocketPatch, original: _Call) -> _Call:
    def accept(sock: Any) -> Any:
        patch.before_accept(sock)
        fileno, peer = original(sock)
        patch.accepted(fileno, peer)
        return fileno, peer

    return accept


def _recv(patch: SocketPatch, original: _Call) -> _Call:
    def recv(sock: Any, size: int, flags: int = 0) -> Any:
        connection = patch.find(sock)
        if connection is None or not size or flags:
            return original(sock, size, flags)
        return original(sock, patch.readable(sock, connection, size))

    return recv


def _recv_into(patch: SocketPatch, original: _Call) -> _Call:
    def recv_into(sock: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
        connection = patch.find(sock)
        size = nbytes or memoryview(buffer).nbytes
        if connection is None or not size or flags:
            return original(sock, buffer, nbytes, flags)
        return original(sock, buffer, patch.readable(sock, connection, size))

    return recv_into


def _send(patch: SocketPatch, original: _Call) -> _Call:
    def send(sock: Any, data: Any, flags: int = 0) -> Any:
        connection = patch.find(sock)
        size = memoryview(data).nbytes
        if connection is None or not size:
            return original(sock, data, flags)
        allowed = patch.writable(sock, connection, size)
        # No variable holds the view: the frames of an error are kept while asyncio handles it, and it clears its buffer then.
        return original(sock, memoryview(data).cast("B")[:allowed], flags)

    return send


def _sendall(patch: SocketPatch, original: _Call) -> _Call:
    def sendall(sock: Any, data: Any, flags: int = 0) -> None:
        left = memoryview(data).cast("B")
        if patch.find(sock) is None:
            original(sock, data, flags)
            return
        while left:
            left = left[sock.send(left, flags) :]

    return sendall


def _sendmsg(patch: SocketPatch, original: _Call) -> _Call:
    def sendmsg(sock: Any, buffers: Any, *more: Any) -> Any:
        connection = patch.find(sock)
        pieces = [memoryview(piece).cast("B") for piece in buffers]
        size = sum(map(len, pieces))
        if connection is None or not size:
            return original(sock, pieces, *more)
        allowed = patch.writable(sock, connection, size)
        kept = []
        for piece in pieces:
            kept.append(piece[:allowed])
            allowed -= len(kept[-1])
        return original(sock, [piece for piece in kept if piece], *more)

    return sendmsg


def _wrap_socket(patch: SocketPatch, original: _Call) -> _Call:
    def wrap_socket(context: Any, sock: Any, *more: Any, **named: Any) -> Any:
        connection = patch.find(sock)
        if connection is not None:
            connection.bypassed = True
        return original(context, sock, *more, **named)

    return wrap_socket


_CALLS: dict[str, Callable[[SocketPatch, _Call], _Call]] = {
    "_accept": _accept,
    "recv": _recv,
    "recv_into": _recv_into,
    "send": _send,
    "sendall": _sendall,
    "sendmsg": _sendmsg,
}
