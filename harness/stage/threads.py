"""The threads of processes, as Linux reports them. On other systems no process has any threads.

A thread is named by its folder in /proc.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator

_MOST_BYTES = 65536
_waitid = getattr(os, "waitid", None)


def threads_of(processes: Iterable[int]) -> Iterator[str]:
    """The threads of these processes and of all that they have started."""
    pending = list(processes)
    while pending:
        folder = f"/proc/{pending.pop()}/task"
        for name in _names(folder):
            thread = f"{folder}/{name}"
            pending += map(int, _read(f"{thread}/children").split())
            yield thread


def has_children() -> bool:
    """Whether this process has any children, also such as have ended and that it has not waited for."""
    if _waitid is None:
        return True
    try:
        _waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def own_children() -> Iterator[int]:
    """The children of this process."""
    folder = f"/proc/{os.getpid()}/task"
    for name in _names(folder):
        yield from map(int, _read(f"{folder}/{name}/children").split())


def main_thread_of(process: int) -> str:
    """The first thread of this process."""
    return f"/proc/{process}"


def other_threads() -> Iterator[str]:
    """The threads of this process besides the one that asks."""
    folder, own = f"/proc/{os.getpid()}/task", str(threading.get_native_id())
    return (f"{folder}/{name}" for name in _names(folder) if name != own)


def times(thread: str) -> bytes:
    """How long it has run and how long it has waited to run, in nanoseconds, and how often it was run; empty if that is
    unknown."""
    return _read(f"{thread}/schedstat").rstrip()


def waited_s(times: bytes) -> float:
    """How long the thread of these times has waited to run, without the wait that is not over yet."""
    return int(times.split()[1]) / 1e9


def is_runnable(thread: str) -> bool:
    """Whether it runs or waits to run."""
    return _state(thread) == b"R"


def is_halted(thread: str) -> bool:
    """Whether it is stopped or has ended."""
    return _state(thread) in b"tTZX"


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # it has ended


def _state(thread: str) -> bytes:
    """Its state, as one letter; empty if it has ended."""
    return _read(f"{thread}/stat").rpartition(b")")[2].lstrip()[:1]


def _read(path: str) -> bytes:
    # Several times as fast as a file object.
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, _MOST_BYTES)
    except OSError:
        return b""  # it has just ended
    finally:
        os.close(file)
