"""The machine that the benchmark runs on: cores, limits, what else it does, and the description of it in a result."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for the server and another for the load generator; the same one where the machine has only one."""

    server: int
    load: int

    @property
    def separate(self) -> bool:
        return self.server != self.load


def choose_cores() -> Cores:
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(server=allowed[0], load=allowed[-1])


@dataclass(frozen=True, slots=True)
class CoreTime:
    """The times of a core since the machine started, in ticks of its clock."""

    busy: int
    """With any process, or withheld by the hypervisor."""
    total: int


def core_times(stat: str) -> dict[int, CoreTime]:
    """The cores in the text of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal."""
    found = {}
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            spent = [int(tick) for tick in ticks[:8]]
            found[int(name.removeprefix("cpu"))] = CoreTime(sum(spent) - spent[3] - spent[4], sum(spent))
    return found


def busy_share(before: Mapping[int, CoreTime], after: Mapping[int, CoreTime], cores: Cores) -> float:
    """How busy the busier of the two cores was between two moments."""
    shares = []
    for core in (cores.server, cores.load):
        total = after[core].total - before[core].total
        shares.append((after[core].busy - before[core].busy) / total if total else 0.0)
    return max(shares)


def other_work(cores: Cores, seconds: float = 0.5) -> float:
    """How busy the two cores are now, while nothing is measured."""
    stat = Path("/proc/stat")
    before = core_times(stat.read_text())
    time.sleep(seconds)
    return busy_share(before, core_times(stat.read_text()), cores)


CALM = 0.05
"""A core that other work uses for a smaller share is calm."""


def wait_until_calm(cores: Cores, limit_s: float) -> None:
    """Wait until other work leaves both cores alone, or until the time is over."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and other_work(cores) > CALM:
        pass


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started in this block run on that core alone, with all their threads. None: on any core."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_open_files() -> int:
    """Raise the soft limit on open files as far as allowed. Child processes inherit it. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe() -> dict[str, str]:
    """The kind of machine, for the head of a result. Nothing here identifies the machine itself."""
    with Path("/proc/meminfo").open() as file:
        memory_gb = int(file.readline().split()[1]) / (1 << 20)
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }
