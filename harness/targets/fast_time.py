"""Faster time for the processes of a command, through libfaketime (Debian package faketime).

- libfaketime is preloaded: it multiplies the clocks, and divides the timeouts of poll, select, epoll, sleeps and timers.
- A process and its descendants share one start, so their clocks agree, also after one of them has ended. Other processes
  share it through `start_of`.
- A process that has not loaded it, or cannot be reached by it, is an error: its waits would silently stay as long as ever.
  That is looked at when the server has started, at each wait and at the end.
- The shared memory that libfaketime leaves in /dev/shm when a process is killed is removed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.stage.kernel import original
from harness.stage.limits import LimitClock
from harness.stage.target import TargetError, Untestable

_LIBRARY = "faketime/libfaketime.so.1"
_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_SHARED = ("/dev/shm/faketime_shm_{}", "/dev/shm/sem.faketime_sem_{}")
KEEPER = ("/bin/sh", "-c", "echo; exec sleep infinity")
"""A process that only keeps the time at which it has started. It writes a line once others can share that."""
_LOADS_WITHIN_S = 0.5
_LOOK_S = 0.001
_sleep: Any = original("time", "sleep")
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


def require_reached(session: int, limits: LimitClock) -> None:
    """Untestable if the time of a process of this session does not pass faster."""
    limit = limits.limit(_LOADS_WITHIN_S)
    for pid in processes(session):
        # A program that has just begun has not loaded anything yet.
        while (why := _unreached(pid)) and not limit.over:
            _sleep(_LOOK_S)
        if why:
            raise Untestable(f"time cannot pass faster for {why}")


def _unreached(pid: int) -> str:
    """Which program this process is and why its time does not pass faster; empty if it does, or if it has ended."""
    try:
        program = os.stat(f"/proc/{pid}/exe")
        maps = Path(f"/proc/{pid}/maps").read_bytes()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if b"/libfaketime" in maps and _is_go(pid, (program.st_dev, program.st_ino, program.st_mtime_ns)):
            return f"{name}: it is written in Go, which libfaketime does not reach"
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except PermissionError:
        return f"process {pid}: it has the rights of another user"
    if not maps or b"/libfaketime" in maps:
        return ""
    return f"{name}: it has not loaded libfaketime (is it linked statically, or started without LD_PRELOAD?)"


_programs_in_go: dict[tuple[int, ...], bool] = {}
"""Whether a program is one, by its file: it takes a while to look."""


def _is_go(pid: int, program: tuple[int, ...]) -> bool:
    if program not in _programs_in_go:
        with (
            open(f"/proc/{pid}/exe", "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            _programs_in_go[program] = mapped.find(_GO) >= 0
    return _programs_in_go[program]


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
