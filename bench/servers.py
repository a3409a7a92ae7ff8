"""The servers that are compared: how each is started, and how it reports that it is ready.

A server is a command; nothing here imports one. Each is pinned to the core that it is given.
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

from bench.compiler import CompilationFailed, compiled, compiler
from bench.machine import pinned

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
# A machine that is busy with other work can need most of it.
READY_WITHIN_S = 60.0

# The load is far above what people type, so the default rates would limit it. The token buckets stay in place and never
# run empty. Every other setting has its default.
_RATES = (
    "rate",
    "byte-rate",
    "address-byte-rate",
    "address-connection-rate",
    "address-login-rate",
    "address-room-rate",
)
_BURSTS = (
    "burst",
    "byte-burst",
    "address-byte-burst",
    "address-connection-burst",
    "address-login-burst",
    "address-room-burst",
)
UNTHROTTLED = tuple(word for name in (*_RATES, *_BURSTS) for word in (f"--{name}", "100000000"))
BARE = ("--rate", "0", "--log-level", "error", "--max-per-address", "10000", "-t", "0")


class ServerFailed(Exception):
    """A server did not start."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the comparison. In its command `{port}` and `{program}` are replaced, and `{folder}` by a new folder for
    each start."""

    key: str
    title: str
    command: tuple[str, ...]
    ready: str
    """A pattern of the line printed when it is ready, with groups for the port and the dialect where it has them."""
    dialects: tuple[str, ...] = ("line",)
    program: str = sys.executable
    """Must be installed."""
    module: str = ""
    """Must be importable by Python."""
    source: Path | None = None
    """A C program, compiled on first use: `{program}` in the command."""
    chooses_port: bool = True
    joins: bool = False
    """Joins the messages of one iteration of its loop into one send per client."""
    sheds_stalled: bool = True
    """Continues when one client stops reading."""
    python: bool = True
    tls: tuple[str, ...] = ()
    """More of its command for the dialect `line+tls`, in which `{cert}` and `{key}` are replaced. None: it has no TLS."""
    folder: Path = ROOT
    """The working directory of the server, from which it also imports."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder)}

    @property
    def missing(self) -> str | None:
        """The missing program or package that the server needs, or nothing."""
        if self.source is not None and compiler() is None:
            return "a C compiler"
        if shutil.which(self.program) is None:
            return self.program
        if self.module and importlib.util.find_spec(self.module) is None:
            return self.module
        return None


def _peer(file: str) -> tuple[str, ...]:
    return (sys.executable, str(PEERS / file), "{port}")


def _geventchat(key: str, title: str, settings: tuple[str, ...]) -> Server:
    command = (sys.executable, "-m", "geventchat", "--host", "127.0.0.1", "-p", "{port}", *settings)
    ready = r"started on .*:(\d+)(?: \(([\w+]+)\))?$"
    tls = ("--listen", "line+tls://127.0.0.1:0", "--tls-cert", "{cert}", "--tls-key", "{key}")
    dialects = ("line", "json", "slash", "line+tls", "web")
    return Server(key, title, command, ready, dialects=dialects, joins=True, tls=tls)


OURS = "geventchat"
OURS_BARE = "geventchat-bare"
_PAIR = ("{cert}", "{key}")
READY = r"^ready (\d+)$"

SERVERS = (
    _geventchat(OURS, "geventchat", UNTHROTTLED),
    _geventchat(OURS_BARE, "geventchat, limits and logs off", BARE),
    Server("threads", "threads, sendall", _peer("threads_sendall.py"), READY, sheds_stalled=False),
    Server(
        "asyncio", "asyncio protocols", _peer("asyncio_protocols.py"), READY, ("line", "line+tls"), tls=_PAIR
    ),
    Server(
        "uvloop",
        "asyncio on uvloop",
        _peer("uvloop_protocols.py"),
        READY,
        ("line", "line+tls"),
        module="uvloop",
        tls=_PAIR,
    ),
    Server(
        "websockets",
        "asyncio, websockets",
        _peer("asyncio_websockets.py"),
        READY,
        ("web",),
        module="websockets",
    ),
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
    Server(
        "reference",
        "C reference, epoll",
        ("{program}", "{port}"),
        READY,
        source=PEERS / "reference.c",
        joins=True,
        python=False,
    ),
)
BY_KEY = {server.key: server for server in SERVERS}


@dataclass(slots=True)
class RunningServer:
    """A started server: its process, and its port for each dialect."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _certificate(folder: str) -> tuple[str, str]:
    """A new certificate and its key."""
    cert, key = f"{folder}/cert.pem", f"{folder}/key.pem"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    made = ("openssl", "req", "-x509", *kind, "-subj", "/CN=localhost", "-keyout", key, "-out", cert)
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as failed:
        raise ServerFailed(f"openssl cannot make a certificate: {failed}") from None
    return cert, key


def _command(server: Server, port: int, dialects: tuple[str, ...], folder: str) -> list[str]:
    values = {"{port}": str(port), "{folder}": folder}
    if server.source is not None:
        try:
            values["{program}"] = str(compiled(server.key, [server.source]))
        except CompilationFailed as failed:
            raise ServerFailed(str(failed)) from None
    words = server.command
    if "line+tls" in dialects:
        words = (*words, *server.tls)
        values["{cert}"], values["{key}"] = _certificate(folder)
    command = [values.get(part, part) for part in words]
    for dialect in dialects:
        if dialect not in (server.dialects[0], "line+tls"):
            command += ["--listen", f"{dialect}://127.0.0.1:0"]
    return command


@contextmanager
def started(server: Server, dialects: tuple[str, ...], *, core: int | None) -> Iterator[RunningServer]:
    """The server, ready on its core, for the length of a `with` block."""
    port = 0 if server.chooses_port else _free_port()
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory(prefix="bench-server-") as folder:
        command = _command(server, port, dialects, folder)
        with pinned(core):
            process = subprocess.Popen(
                command,
                cwd=server.folder,
                env=server.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        running = RunningServer(process, {})
        try:
            ports = _await_ready(server, process, port, dialects)
            if ports is None:
                running.stop()
                errors.seek(0)
                output = errors.read().decode(errors="replace")[-2000:]
                raise ServerFailed(
                    f"{server.key} was not ready within {READY_WITHIN_S:.0f} s; its errors:\n{output}"
                )
            running.ports = {dialect: ports[dialect] for dialect in dialects}
            yield running
        finally:
            running.stop()
            assert process.stdout is not None
            process.stdout.close()


def _await_ready(
    server: Server, process: subprocess.Popen[bytes], port: int, dialects: tuple[str, ...]
) -> dict[str, int] | None:
    assert process.stdout is not None
    deadline, text, ports = time.monotonic() + READY_WITHIN_S, "", dict[str, int]()
    while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return None
        text += chunk.decode(errors="replace")
        for match in re.finditer(server.ready, text[: text.rfind("\n") + 1], re.MULTILINE):
            groups = match.groups()
            dialect = dialects[0] if len(groups) < 2 else groups[1] or server.dialects[0]
            ports[dialect] = int(groups[0]) if groups else port
        if all(dialect in ports for dialect in dialects):
            return ports
    return None
