"""A real server in a separate process, as its operator sees it: memory, descriptors, CPU, log, exit code.

Knows nothing of what clients send.
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

from geventchat.net.admission import raise_descriptor_limit
from tests.patience import HANG_S

# Thousands of clients are as many descriptors in this process; many systems allow 1,024 unless a program asks for more.
raise_descriptor_limit()
ROOT = Path(__file__).resolve().parents[2]
_POLL_S = 0.002
# The state of a listening socket in the kernel's table; its queue counts connections.
_LISTEN = "0A"
_READY = re.compile(r"Chat server started on (?P<host>\S+):(?P<port>\d+)(?: \((?P<dialect>[\w+]+)\))?")
# Thousands of clients come from one address here; their rate is not what is being tested.
NO_ADDRESS_RATES = ("--address-connection-rate=0", "--address-login-rate=0", "--address-byte-rate=0")


def descriptors_allowed(needed: int) -> bool:
    """True when this process can have this many files open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= needed


def wait_for(what: str, condition: Callable[[], bool], within_s: float = HANG_S) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(_POLL_S)


class ServerProcess:
    """`python -m geventchat` on free ports of the loopback interface."""

    def __init__(
        self, *options: str, dialects: tuple[str, ...] = ("line",), files: int | None = None
    ) -> None:
        """`files` is a hard limit on open files."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        # Without a `line` address here the server would take its default port.
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
        return self._process.pid

    def address(self, dialect: str = "line") -> tuple[str, int]:
        """The address of this dialect."""
        return "127.0.0.1", self.ports[dialect]

    @property
    def resident_bytes(self) -> int:
        """Its resident set size."""
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("the server process is gone")

    @property
    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def unread_bytes(self) -> int:
        """The bytes that clients on this machine have sent and the server has not read."""
        ports = {f"{port:04X}" for port in self.ports.values()}
        unread = 0
        with open(f"/proc/{self.pid}/net/tcp") as table:
            next(table)
            for row in table:
                _, local, remote, state, queues, *_ = row.split()
                sending, receiving = (int(size, 16) for size in queues.split(":"))
                if remote.partition(":")[2] in ports:
                    unread += sending
                elif local.partition(":")[2] in ports and state != _LISTEN:
                    unread += receiving
        return unread

    @property
    def cpu_s(self) -> float:
        """How long its threads have run."""
        tasks = f"/proc/{self.pid}/task"
        spent = 0
        for task in os.listdir(tasks):
            spent += int(Path(f"{tasks}/{task}/schedstat").read_text().split()[0])
        return spent / 1e9

    def log(self) -> str:
        """Everything it has logged so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode()

    def log_lines(self, event: str) -> list[str]:
        """The log's lines about this event."""
        return [line for line in self.log().split("\n") if line.split(" ")[2:3] == [event]]

    def signal(self, what: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(what)

    def limit_files(self, soft: int) -> None:
        """Change its soft limit on open files while it runs."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def wait_for_output(self, words: str) -> None:
        """Wait until it prints this on its standard output."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if words in line:
                return
        raise AssertionError(f"the server never printed {words!r}")

    def exit_code(self, within_s: float = HANG_S) -> int:
        """Wait for its end."""
        return self._process.wait(within_s)
