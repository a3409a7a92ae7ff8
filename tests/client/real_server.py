"""A real server in a process of its own, on an address that nobody else uses."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
READY = re.compile(r"Chat server started on (?P<host>\S+):(?P<port>\d+)(?: \((?P<dialect>\w+)\))?")
DIALECTS = ("line", "json", "slash")


class RealServer:
    """`python -m geventchat` with all three dialects. It can be killed and started again on the same ports."""

    def __init__(self, *options: str) -> None:
        # A loopback address of its own: its ports stay free for it while it is down, whoever else runs tests here.
        self.host = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        self.ports = dict.fromkeys(DIALECTS, 0)
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it and learn its ports."""
        listen = [f"--listen={dialect}://{self.host}:{port}" for dialect, port in self.ports.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "geventchat", *listen, "--log-level=error", *self._options],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert self._process.stdout is not None
        self.ports = _ports(self._process.stdout)

    def at(self, dialect: str) -> str:
        """HOST:PORT of a dialect."""
        return f"{self.host}:{self.ports[dialect]}"

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.communicate(timeout=15)
        self._process = None


def _ports(output: IO[str]) -> dict[str, int]:
    ports: dict[str, int] = {}
    said: list[str] = []
    for line in output:
        said.append(line)
        ready = READY.search(line)
        if ready is not None:
            ports[ready["dialect"] or "line"] = int(ready["port"])
        if len(ports) == len(DIALECTS):
            return ports
    raise AssertionError(f"the server did not start: {''.join(said)}")


def client_argv(words: Sequence[str]) -> list[str]:
    """The client as a command."""
    return [sys.executable, "-m", "geventchat", "connect", *words]
