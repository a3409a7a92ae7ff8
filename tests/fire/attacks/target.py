"""A server process under attack, and what its operator could measure of it. Does not know what is sent to it."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.fire.attacks import plan

ROOT = Path(__file__).resolve().parents[3]
DIALECTS = ("line", "json", "slash")
_READY = re.compile(rb"Chat server started on \S+:(\d+)(?: \(([\w+]+)\))?")
_WAITING = b"Waiting for connections"


def raise_descriptor_limit() -> None:
    """Allow this process as many open files as the system lets it have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Target:
    """`python -m geventchat` with default settings, one listener on loopback for each dialect."""

    def __init__(self, *options: str, address_space: int | None = None) -> None:
        """`address_space` is the most memory that the process can map once it serves, in bytes."""
        raise_descriptor_limit()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        listen = [f"--listen={dialect}://127.0.0.1:0" for dialect in DIALECTS]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "geventchat", *listen, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            # Ctrl-C is for the one who started all this, and that one ends it.
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.ports: dict[str, int] = {}
        assert self._process.stdout is not None
        for line in self._process.stdout:
            ready = _READY.search(line)
            if ready is not None:
                self.ports[(ready[2] or b"line").decode()] = int(ready[1])
            if _WAITING in line:
                break
        else:
            raise AssertionError(f"the server did not start: {self.log()}")
        self.start_bytes = self.resident_bytes
        if address_space is not None:
            self.limit_address_space(address_space)

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        if error is not None:
            sys.stderr.write(self.log()[-4000:])
        self._log.close()

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def address(self, dialect: str = "line") -> tuple[str, int]:
        """Where it serves this dialect."""
        return "127.0.0.1", self.ports[plan.LISTENER.get(dialect, dialect)]

    @property
    def cpu_s(self) -> float:
        """Processor time so far, of all threads."""
        spent = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            spent += int(Path(f"/proc/{self.pid}/task/{task}/schedstat").read_text().split()[0])
        return spent / 1e9

    @property
    def resident_bytes(self) -> int:
        """Memory in use now."""
        return self._status("VmRSS")

    @property
    def peak_bytes(self) -> int:
        """The most memory in use since the start, or since `reset_peak`."""
        return self._status("VmHWM")

    @property
    def mapped_bytes(self) -> int:
        """The size of the address space."""
        return self._status("VmSize")

    def reset_peak(self) -> None:
        """Count the peak from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def descriptors(self) -> int:
        """The number of open files."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def limit_address_space(self, size: int) -> None:
        """Let the process map at most this much memory from now on."""
        resource.prlimit(self.pid, resource.RLIMIT_AS, (size, size))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the process, as a busy loop would, and continue it at the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def starved_s(self) -> float:
        """How long the process has waited for a processor that other programs used."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def log(self) -> str:
        """Everything that it has logged so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode()

    def logged(self, event: str, **fields: str) -> int:
        """How often it logged this event with these fields."""
        wanted = [f"{key}={value}" for key, value in fields.items()]
        found = 0
        for line in self.log().split("\n"):
            words = line.split(" ")
            if words[2:3] == [event] and all(word in words for word in wanted):
                found += 1
        return found

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().split("\n"):
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server has died")
