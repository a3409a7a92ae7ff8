"""Faster time for the processes of a command, through libfaketime (Debian package faketime).

- libfaketime is preloaded: it multiplies the clocks, and divides the timeouts of poll, select, epoll, sleeps and timers.
- A process and its descendants share one start, so their clocks agree, also after one of them has ended. Other processes
  share it through `start_of`.
- A process that has not loaded it, or cannot be reached by it, is an error: its waits would silently stay as long as ever.
- The shared memory that libfaketime leaves in /dev/shm when a process is killed is removed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from harness.stage.target import TargetError

_LIBRARY = "faketime/libfaketime.so.1"
_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_SHARED = ("/dev/shm/faketime_shm_{}", "/dev/shm/sem.faketime_sem_{}")
KEEPER = ("/bin/sh", "-c", "echo; exec sleep infinity")
"""A process that only keeps the time at which it has started. It writes a line once others can share that."""
# Programs in Go ask the kernel directly. Their linker marks each of them with these bytes.
_GO = b"\xff Go buildinf:"


def environment(factor: int) -> Mapping[str, str]:
    """The variables with which time passes this many times faster; TargetError where libfaketime is not installed."""
    preloaded = os.environ.get("LD_PRELOAD")
    library = str(_library())
    return {
        "LD_PRELOAD": f"{library}:{preloaded}" if preloaded else library,
        "FAKETIME": f"+0 x{factor}",
        "FAKETIME_DONT_RESET": "1",
    }


def start_of(pid: int) -> Mapping[str, str]:
    """The variables with which a process shares the start of this one, which must have been reached."""
    return {"FAKETIME_SHARED": f"/faketime_sem_{pid} /faketime_shm_{pid}"}


def _library() -> Path:
    for folder in map(Path, _FOLDERS):
        for found in (folder / _LIBRARY, *sorted(folder.glob(f"*/{_LIBRARY}"))):
            if found.exists():
                return found
    raise TargetError(
        "faster time needs libfaketime, which is not installed: apt-get install faketime "
        f"(looked for {_LIBRARY} below {', '.join(_FOLDERS)})"
    )


def require_reached(session: int) -> None:
    """TargetError if the time of a process of this session does not pass faster."""
    for pid in processes(session):
        try:
            reached = b"/libfaketime" in Path(f"/proc/{pid}/maps").read_bytes()
            why = _is_go(pid) if reached else "has not loaded libfaketime (is it linked statically?)"
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if why:
            raise TargetError(f"time cannot pass faster for {name}: it {why}")


def _is_go(pid: int) -> str:
    with (
        open(f"/proc/{pid}/exe", "rb") as program,
        mmap.mmap(program.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        return "is written in Go, which libfaketime does not reach" if mapped.find(_GO) >= 0 else ""


def processes(session: int) -> Iterator[int]:
    """The processes of a session that have not ended."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    yield int(name)


def remove_shared_memory(pids: Iterable[int]) -> None:
    """Remove what libfaketime left of these processes."""
    for pid in pids:
        for path in shared_memory(pid):
            with suppress(FileNotFoundError):
                os.unlink(path)


def shared_memory(pid: int) -> list[str]:
    """The files through which this process shares its time with its children."""
    return [path.format(pid) for path in _SHARED]
