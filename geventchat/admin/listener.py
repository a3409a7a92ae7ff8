"""The admin socket: reads requests from local programs, one greenlet per connection, and sends the answers. Knows no acts.

Invariants:
- Only root and the user that the server runs as can connect, by the mode of the socket and by what the kernel says of a peer.
- A peer that sends no request within `REQUEST_S`, or does not take a line of its answer within `SEND_S`, is dropped. Until then
  it holds one of `MOST_PEERS` places, and holds up nobody else.
- A lack of memory costs a peer its answer or its connection, and nothing else.
- Between two requests of a peer, and between two parts of an answer, others go on, also if it sends everything together.
- A socket that another server answers on is left alone; one that a killed server has left is replaced.
"""

from __future__ import annotations

import errno
import os
import socket as plain
import stat
import struct
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from gevent import Timeout, socket

from geventchat.admin.protocol import (
    MOST_REQUEST_BYTES,
    Answer,
    BadRequest,
    Request,
    encode,
    error,
    read_request,
    short_path,
)
from geventchat.log import Log, LogEvent

MOST_PEERS = 8
REQUEST_S = 30.0
SEND_S = 10.0
_BACKLOG = 16
_PAUSE_S = 0.5
_CREDENTIALS = struct.Struct("3i")


class CannotOpenSocket(Exception):
    """The admin socket cannot be opened; the message says why."""


class _NotTaken(Exception):
    """A peer is gone, or has not taken a line of its answer in time."""


class AdminSocket:
    """The socket and its peers."""

    def __init__(
        self,
        path: Path,
        carry_out: Callable[[Request, str, Callable[[Answer], object]], Iterator[Answer]],
        log: Log,
        opened: plain.socket | None = None,
    ) -> None:
        """Listen, or raise CannotOpenSocket.

        `carry_out` gets a request, a description of the peer, and what sends the peer an answer without waiting.

        `opened` is the socket of a process that this one takes over from.
        """
        self.path = path.absolute()
        self._carry_out = carry_out
        self._log = log
        self._peers: set[gevent.Greenlet[..., Any]] = set()
        self._socket = _listen(self.path) if opened is None else socket.socket(fileno=opened.detach())
        self._identity = _identity(self.path)
        self._acceptor = gevent.spawn(self._accept)

    def fileno(self) -> int:
        """The descriptor of the socket, to be handed over."""
        return int(self._socket.fileno())

    def close(self) -> None:
        """Accept no more requests, and abandon those that are running."""
        self._acceptor.kill(block=False)
        self._socket.close()
        for peer in list(self._peers):
            peer.kill(block=False)
        # The path can belong to another server by now.
        if _identity(self.path) == self._identity:
            with suppress(OSError):
                self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except (OSError, MemoryError) as failed:
                if isinstance(failed, OSError) and failed.errno == errno.EBADF:
                    return
                gevent.sleep(_PAUSE_S)
                continue
            self._take(peer)

    def _take(self, peer: Any) -> None:
        if len(self._peers) >= MOST_PEERS:
            with suppress(OSError, MemoryError):
                peer.settimeout(0)
                peer.send(encode(error("busy", f"{MOST_PEERS} programs administer this server already")))
            peer.close()
            return
        try:
            greenlet = gevent.spawn(self._serve, peer)
            self._peers.add(greenlet)
            greenlet.link(self._peers.discard)
        except MemoryError:
            peer.close()

    def _serve(self, peer: Any) -> None:
        try:
            pid, uid, _ = _CREDENTIALS.unpack(
                peer.getsockopt(plain.SOL_SOCKET, plain.SO_PEERCRED, _CREDENTIALS.size)
            )
            if uid not in (0, os.geteuid()):
                _send(peer, error("permission", f"user {uid} cannot administer this server"))
                return
            buffer = b""
            while True:
                with Timeout(REQUEST_S):
                    while b"\n" not in buffer and len(buffer) <= MOST_REQUEST_BYTES:
                        chunk = peer.recv(MOST_REQUEST_BYTES)
                        if not chunk:
                            return
                        buffer += chunk
                line, newline, buffer = buffer.partition(b"\n")
                if not newline or len(line) > MOST_REQUEST_BYTES:
                    _send(peer, error("invalid", f"a request has at most {MOST_REQUEST_BYTES} bytes"))
                    return
                self._answer(peer, line, f"pid {pid}, uid {uid}")
                # Others go on.
                gevent.sleep(0)
        except (OSError, Timeout, _NotTaken, MemoryError):
            pass  # The peer is gone or too slow, or memory is short. Its request has been carried out, or was never begun.
        finally:
            peer.close()

    def _answer(self, peer: Any, line: bytes, by: str) -> None:
        try:
            for answer in self._carry_out(read_request(line), by, partial(_send_at_once, peer)):
                _send(peer, answer)
                if "done" not in answer:
                    # Let the clients' greenlets run.
                    gevent.sleep(0)
        except BadRequest as bad:
            _send(peer, error(bad.code, str(bad)))
        except _NotTaken:
            raise
        except (Exception, Timeout) as failed:
            self._log(LogEvent.FAULT, error="".join(traceback.format_exception(failed)).rstrip())
            _send(peer, error("failed", f"{type(failed).__name__}; the server's log says more"))


def _send(peer: Any, answer: Answer) -> None:
    """Send an answer, or raise _NotTaken."""
    try:
        with Timeout(SEND_S):
            peer.sendall(encode(answer))
    except (OSError, Timeout) as failed:
        raise _NotTaken from failed


def _send_at_once(peer: Any, answer: Answer) -> None:
    """Send an answer without waiting, so that no other greenlet runs; if the socket is full, it is lost."""
    with suppress(OSError):
        os.write(peer.fileno(), encode(answer))


def _listen(path: Path) -> Any:
    _remove_stale(path)
    listener = socket.socket(plain.AF_UNIX, plain.SOCK_STREAM)
    # Without this, anyone could connect between `bind` and `chmod`.
    mask = os.umask(0o177)
    try:
        with short_path(path) as name:
            listener.bind(name)
        listener.listen(_BACKLOG)
    except OSError as failed:
        listener.close()
        raise CannotOpenSocket(f"cannot listen on {path}: {failed.strerror or failed}") from failed
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotOpenSocket(f"cannot listen on {path}: another file is there")
    with plain.socket(plain.AF_UNIX, plain.SOCK_STREAM) as asked, short_path(path) as name:
        asked.setblocking(False)
        try:
            asked.connect(name)
        except ConnectionRefusedError:
            try:
                path.unlink(missing_ok=True)
            except OSError as failed:
                raise CannotOpenSocket(f"cannot replace {path}: {failed.strerror or failed}") from failed
            return
        except OSError:
            pass  # Its queue is full, or it belongs to someone else.
    raise CannotOpenSocket(f"cannot listen on {path}: another server does")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
