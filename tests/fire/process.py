"""A real server in a process of its own, and what its operator could see of it: memory, descriptors, CPU, log, exit code.

Must not know what is said to it.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from geventchat.net.descriptors import raise_limit

# Thousands of clients are as many descriptors here; many systems allow a program no more than 1,024 unless it asks.
raise_limit()
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
"""How long anything may take before a test gives up: far more than it needs, since machines are shared."""
_LOOK_S = 0.002
_READY = re.compile(r"Chat server started on (?P<host>\S+):(?P<port>\d+)(?: \((?P<dialect>\w+)\))?")


def descriptors_allowed(needed: int) -> bool:
    """Whether this process may have so many files open, as it is or where it is asked for."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= needed


def eventually(what: str, is_so: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(_LOOK_S)


class ServerProcess:
    """`python -m geventchat` on free ports of loopback."""

    def __init__(
        self, *options: str, dialects: tuple[str, ...] = ("line",), files: int | None = None
    ) -> None:
        """`files`: how many it may have open, as a hard limit."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        # A `line` listener of ours, always: without one the server would take its usual port.
        listen = [f"--listen={dialect}://127.0.0.1:0" for dialect in dict.fromkeys(("line", *dialects))]
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "geventchat", *listen, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            text=True,
            preexec_fn=limit,
        )
        self.ports: dict[str, int] = {}
        assert self._process.stdout is not None
        for line in self._process.stdout:
            ready = _READY.search(line)
            if ready is not None:
                self.ports[ready["dialect"] or "line"] = int(ready["port"])
            if "Waiting for connections" in line:
                break
        else:
            raise AssertionError(f"the server did not start: {self.log()}")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        if error is not None:
            sys.stderr.write(self.log()[-4000:])
        self._log.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def at(self, dialect: str = "line") -> tuple[str, int]:
        """Where it serves this dialect."""
        return "127.0.0.1", self.ports[dialect]

    @property
    def resident_bytes(self) -> int:
        """What of it is in memory."""
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("the server is gone")

    @property
    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def cpu_s(self) -> float:
        """How long it has been on a processor, to the nanosecond."""
        tasks = f"/proc/{self.pid}/task"
        spent = 0
        for task in os.listdir(tasks):
            spent += int(Path(f"{tasks}/{task}/schedstat").read_text().split()[0])
        return spent / 1e9

    def log(self) -> str:
        """All that it has logged so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode()

    def logged(self, event: str) -> list[str]:
        """The log's lines about this event."""
        return [line for line in self.log().split("\n") if line.split(" ")[2:3] == [event]]

    def signal(self, what: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(what)

    def allow_files(self, soft: int) -> None:
        """Change how many files it may have open, as it runs."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def says(self, words: str) -> None:
        """Wait until it has said this on its standard output."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if words in line:
                return
        raise AssertionError(f"the server never said {words!r}")

    def exit_code(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end."""
        return self._process.wait(within_s)
