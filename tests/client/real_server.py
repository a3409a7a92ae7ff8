"""A real server in a separate process."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tests.client.raw_client import RawClient
from tests.patience import HANG_S, until

ROOT = Path(__file__).resolve().parents[2]
_STARTED = re.compile(r"Chat server started on \S+:(?P<port>\d+)(?: \((?P<dialect>[\w+]+)\))?")
DIALECTS = ("line", "json", "slash")


class RealServer:
    """`python -m geventchat` with all dialects. It can be killed and started again on the same ports."""

    def __init__(self, *options: str, schemes: Sequence[str] = DIALECTS, host: str = "") -> None:
        # A random loopback address keeps the ports free for a restart, whatever else runs on this machine.
        self.host = host or f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        self.ports = dict.fromkeys(schemes, 0)
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it, unless it is running, and learn its ports."""
        if self._process is not None:
            return
        listen = [f"--listen={dialect}://{self.host}:{port}" for dialect, port in self.ports.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "geventchat", *listen, "--log-level=error", *self._options],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert self._process.stdout is not None
        self.ports = _ports(self._process.stdout, len(self.ports))

    def at(self, dialect: str) -> str:
        """HOST:PORT of a dialect."""
        return f"{self.host}:{self.ports[dialect]}"

    def wait_until_empty(self) -> None:
        """Wait until the server has noticed that the last client has left."""
        visitor = RawClient(self.host, self.ports["line"], "visitor")
        assert until(lambda: visitor.people() == ["visitor"])
        visitor.send("QUIT")
        visitor.expect("Goodbye!")
        visitor.close()

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down."""
        self._end(signal.SIGTERM)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signum)
        self._process.communicate(timeout=HANG_S)
        self._process = None


def _ports(output: IO[str], count: int) -> dict[str, int]:
    ports: dict[str, int] = {}
    printed = []
    for line in output:
        printed.append(line)
        started = _STARTED.search(line)
        if started is not None:
            ports[started["dialect"] or "line"] = int(started["port"])
        if len(ports) == count:
            return ports
    raise AssertionError(f"the server did not start: {''.join(printed)}")


def client_argv(arguments: Sequence[str]) -> list[str]:
    """The command that runs the client."""
    return [sys.executable, "-m", "geventchat", "connect", *arguments]
