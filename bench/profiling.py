"""Where the server's time goes while it is loaded: py-spy, summarised. Only for servers written in Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.servers import Running
from bench.workloads import Workload

SAMPLES_PER_S = 500
SHOWN = 15


class Profiler:
    """Looks on at each run, and tells afterwards which lines and functions the samples fell on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spies: list[tuple[str, Path, subprocess.Popen[bytes]]] = []

    @staticmethod
    def command() -> str | None:
        return shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))

    def watch(self, running: Running, workload: Workload) -> None:
        spy = self.command()
        assert spy is not None
        out = self._folder / f"{workload.key}-{running.process.pid}.txt"
        seconds = max(1, round(workload.crowd.warm_s + workload.crowd.seconds + workload.crowd.idle_s))
        options = [
            "--format",
            "raw",
            "--rate",
            str(SAMPLES_PER_S),
            "--nonblocking",
            "--duration",
            str(seconds),
        ]
        command = [spy, "record", "--pid", str(running.process.pid), "--output", str(out), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._spies.append((workload.key, out, process))

    def report(self) -> str:
        parts = []
        for key, out, spy in self._spies:
            spy.wait(timeout=60)
            text = out.read_text() if out.exists() else ""
            parts.append(f"{key}\n{summary(text)}")
        return "\n\n".join(parts)


def summary(raw: str) -> str:
    """The shares of samples by function and by line, from py-spy's raw format: `outer;inner count`."""
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
