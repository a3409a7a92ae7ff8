"""The same bytes for many sockets, copied once: the kernel sends the pages of a file in memory, and `send` copies for each.

A file is written once, before it is sent, and never again: what a socket has taken but its peer has not read yet are these
very pages, and they exist until the last peer has read them. Knows no clients.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from functools import cache

# Copying fewer bytes for each receiver, or for all of them together, is cheaper than the file, or as cheap.
_LEAST_BYTES = 6_144
_LEAST_COPIED = 2_000_000


class SharedPages:
    """Bytes to be sent to many sockets. Raises OSError if the system cannot keep them."""

    __slots__ = ("_file", "_size")

    def __init__(self, data: bytes) -> None:
        self._size = len(data)
        self._file = os.memfd_create("geventchat-batch", os.MFD_CLOEXEC)
        try:
            if os.write(self._file, data) != self._size:
                raise OSError("no memory for the pages of a batch")
        except BaseException:
            self.close()
            raise

    def send_to(self, receiver: socket.socket) -> int:
        """Like `send` of this socket: how many bytes it has taken, or BlockingIOError if that is none."""
        return os.sendfile(receiver.fileno(), self._file, 0, self._size)

    def close(self) -> None:
        """Nothing more is sent. What sockets have taken is kept until it is read."""
        os.close(self._file)


def shared_pages(data: bytes, receivers: int) -> SharedPages | None:
    """These bytes as shared pages; None if that is not worth it for so few, or not possible."""
    if len(data) < _LEAST_BYTES or len(data) * receivers < _LEAST_COPIED:
        return None
    try:
        return SharedPages(data) if _can_be_sent() else None
    except (OSError, MemoryError):
        # Too many open files, or no memory: each socket is sent a copy.
        return None


@cache
def _can_be_sent() -> bool:
    """Whether this system has such files and sends them: a sandbox can refuse either."""
    if not hasattr(os, "memfd_create"):
        return False
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            with closing(SharedPages(b"pages")) as pages:
                return pages.send_to(ours) == len(theirs.recv(5, socket.MSG_DONTWAIT)) == 5
        except OSError:
            return False
