"""The servers that are compared: how each is started, and how it says that it is ready.

A server is a command; nothing here imports one. Each is pinned to the core it is given.
"""

from __future__ import annotations

import importlib.util
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.machine import pinned

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
READY_WITHIN_S = 15.0

# The load is far above what a person types, so the rate of lines must not throttle it: the bucket stays in
# place, and is too big to run empty. Everything else is as it comes.
UNTHROTTLED = ("--rate", "100000000", "--burst", "100000000")
BARE = ("--rate", "0", "--log-level", "error", "--max-per-address", "10000", "-t", "0")


class ServerFailed(Exception):
    """A server did not come up."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the comparison. `{port}` in its command is replaced; 0 where it can choose one itself."""

    key: str
    title: str
    command: tuple[str, ...]
    ready: str
    """A pattern of what it prints when it is ready; with a group for the port, and one for the dialect."""
    dialects: tuple[str, ...] = ("line",)
    program: str = sys.executable
    module: str = ""
    """What Python must be able to import for it."""
    chooses_port: bool = True
    joins: bool = False
    """Is what a turn of its loop says joined into one send for each client?"""
    sheds_stalled: bool = True
    """Does it go on when one client stops reading?"""
    python: bool = True
    folder: Path = ROOT
    """The server runs here and imports from here."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder)}

    @property
    def missing(self) -> str | None:
        """What is not installed and would be needed."""
        if shutil.which(self.program) is None:
            return self.program
        if self.module and importlib.util.find_spec(self.module) is None:
            return self.module
        return None


def _peer(file: str) -> tuple[str, ...]:
    return (sys.executable, str(PEERS / file), "{port}")


def _geventchat(key: str, title: str, settings: tuple[str, ...]) -> Server:
    command = (sys.executable, "-m", "geventchat", "--host", "127.0.0.1", "-p", "{port}", *settings)
    ready = r"started on .*:(\d+)(?: \((\w+)\))?$"
    return Server(key, title, command, ready, dialects=("line", "json", "slash"), joins=True)


OURS = "geventchat"
OURS_BARE = "geventchat-bare"
READY = r"^ready (\d+)$"

SERVERS = (
    _geventchat(OURS, "geventchat", UNTHROTTLED),
    _geventchat(OURS_BARE, "geventchat, limits and logs off", BARE),
    Server("threads", "threads, sendall", _peer("threads_sendall.py"), READY, sheds_stalled=False),
    Server("asyncio", "asyncio protocols", _peer("asyncio_protocols.py"), READY),
    Server("uvloop", "asyncio on uvloop", _peer("uvloop_protocols.py"), READY, module="uvloop"),
    Server("gevent", "gevent, sendall", _peer("gevent_sendall.py"), READY, sheds_stalled=False),
    Server(
        "node", "Node", ("node", str(PEERS / "node_net.js"), "{port}"), READY, program="node", python=False
    ),
    Server(
        "redis",
        "Redis publish/subscribe",
        ("redis-server", str(PEERS / "redis.conf"), "--port", "{port}"),
        "Ready to accept connections",
        dialects=("redis",),
        program="redis-server",
        chooses_port=False,
        joins=True,
        python=False,
    ),
)
BY_KEY = {server.key: server for server in SERVERS}


@dataclass(slots=True)
class Running:
    """A server that is up: its process, and its port by dialect."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(server: Server, dialects: tuple[str, ...], *, core: int | None) -> Iterator[Running]:
    """The server, up and ready on its core, for the length of a `with` block."""
    port = 0 if server.chooses_port else _free_port()
    command = [part.replace("{port}", str(port)) for part in server.command]
    for dialect in dialects:
        if dialect not in ("line", "redis"):
            command += ["--listen", f"{dialect}://127.0.0.1:0"]
    with tempfile.TemporaryFile() as errors:
        with pinned(core):
            process = subprocess.Popen(
                command,
                cwd=server.folder,
                env=server.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        running = Running(process, {})
        try:
            found = _await_ready(server, process, port, dialects)
            if found is None:
                running.end()
                errors.seek(0)
                words = errors.read().decode(errors="replace")[-2000:]
                raise ServerFailed(
                    f"{server.key} was not ready within {READY_WITHIN_S:.0f} s; it said:\n{words}"
                )
            running.ports = {dialect: found[dialect] for dialect in dialects}
            yield running
        finally:
            running.end()
            assert process.stdout is not None
            process.stdout.close()


def _await_ready(
    server: Server, process: subprocess.Popen[bytes], port: int, dialects: tuple[str, ...]
) -> dict[str, int] | None:
    assert process.stdout is not None
    deadline, text, found = time.monotonic() + READY_WITHIN_S, "", dict[str, int]()
    while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return None
        text += chunk.decode(errors="replace")
        for match in re.finditer(server.ready, text[: text.rfind("\n") + 1], re.MULTILINE):
            groups = match.groups()
            dialect = groups[1] if len(groups) > 1 and groups[1] else server.dialects[0]
            found[dialect] = int(groups[0]) if groups else port
        if all(dialect in found for dialect in dialects):
            return found
    return None
