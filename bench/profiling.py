"""Profiles a loaded server with py-spy. Only for servers written in Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.servers import RunningServer
from bench.workloads import Workload

SAMPLES_PER_S = 500
SHOWN = 15


class Profiler:
    """Samples every run and reports which functions and lines the samples fell on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._profiles: list[tuple[str, Path, subprocess.Popen[bytes]]] = []

    @staticmethod
    def command() -> str | None:
        return shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))

    def watch(self, running: RunningServer, workload: Workload) -> None:
        """Start sampling this server. Returns at once."""
        command = self.command()
        assert command is not None
        out = self._folder / f"{workload.key}-{running.process.pid}.txt"
        load = workload.load
        seconds = max(1, round(load.warm_s + load.seconds + load.idle_s))
        target = ["--pid", str(running.process.pid), "--output", str(out)]
        sampling = ["--rate", str(SAMPLES_PER_S), "--duration", str(seconds), "--nonblocking"]
        process = subprocess.Popen(
            [command, "record", "--format", "raw", *target, *sampling],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._profiles.append((workload.key, out, process))

    def report(self) -> str:
        parts = []
        for key, out, process in self._profiles:
            process.wait(timeout=60)
            text = out.read_text() if out.exists() else ""
            parts.append(f"{key}\n{summary(text)}")
        return "\n\n".join(parts)


def summary(raw: str) -> str:
    """The share of samples by function and by line, from py-spy's raw format: `outer;inner count`."""
    functions: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for row in raw.splitlines():
        stack, _, count = row.rpartition(" ")
        innermost = stack.split(";")[-1]
        functions[innermost.rpartition(":")[0] + ")" if ":" in innermost else innermost] += int(count)
        lines[innermost] += int(count)
    total = sum(functions.values())
    if total == 0:
        return "  no samples"
    shown = [f"  {count / total:6.1%}  {name}" for name, count in functions.most_common(SHOWN)]
    shown += ["  by line:"] + [f"  {count / total:6.1%}  {name}" for name, count in lines.most_common(SHOWN)]
    return "\n".join(shown)


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-profile-")
