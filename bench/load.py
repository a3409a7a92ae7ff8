"""Run the load generator in `load/` beside a server, and read what it measured.

It does not know which server it loads, nor what the measurements are used for.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.compiler import CompilationFailed, compiled, compiler
from bench.machine import pinned

SOURCES = Path(__file__).parent / "load"

GRACE_S = 60.0
"""Added to the expected duration of a run, for logins, for messages in flight and for a busy machine."""


class LoadFailed(Exception):
    """The load generator itself did not work."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load: the number of clients, how many of them send, and whether by a window or at a rate."""

    clients: int
    senders: int = 0
    window: int = 0
    rate: float = 0
    warm_s: float = 0.3
    seconds: float = 1.0
    idle_s: float = 0
    stalled: int = 0
    rooms: int = 1
    """In how many rooms the clients and the senders are, in turn; one is the room in which they log in."""
    timeout_s: float = 5.0

    def arguments(self) -> list[str]:
        named = {
            "clients": self.clients,
            "senders": self.senders,
            "window": self.window,
            "rate": self.rate,
            "warm": self.warm_s,
            "seconds": self.seconds,
            "idle": self.idle_s,
            "stalled": self.stalled,
            "rooms": self.rooms,
            "timeout": self.timeout_s,
        }
        return [f"--{name}={value}" for name, value in named.items()]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run has no result: messages were lost, changed or reordered, or a connection failed."""

    kind: str
    detail: str


def build(tls: bool = False) -> Path:
    """The compiled load generator; one that speaks TLS needs OpenSSL's headers and library."""
    more = ("-DWITH_TLS", "-lssl", "-lcrypto") if tls else ()
    return compiled("load-tls" if tls else "load", sorted(SOURCES.glob("*.[ch]")), *more)


def can_build_tls() -> bool:
    """True if OpenSSL's headers and library are installed. Also true without a compiler, which is reported elsewhere."""
    try:
        build(tls=True)
    except CompilationFailed:
        return compiler() is None
    return True


def run(
    load: Load,
    ports: dict[str, int],
    server_pid: int,
    *,
    core: int | None,
    stop_server: Callable[[], None],
) -> dict[str, Any] | Failure:
    """Load one server; return the measurements, or the reason for having none.

    `stop_server` is called while the clients are still connected. Otherwise thousands of clients would disconnect one
    by one, each departure announced to all others.
    """
    process = _start(load, ports, server_pid, core)
    try:
        answer = _read_answer(process, _limit_s(load))
    finally:
        stop_server()
        _end(process)
    return _parse(answer, process)


class RequestFailed(Exception):
    """A request to the load generator has no result: messages were lost, changed or reordered, or a connection failed."""


class Session:
    """A load generator with connected clients that works only when it is asked to."""

    def __init__(self, load: Load, process: subprocess.Popen[bytes]) -> None:
        self._load = load
        self._process = process

    def request(self, line: str) -> dict[str, Any]:
        """Send one request (`load/main.c` lists them) and return its measurements."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()
        measured = _parse(_read_answer(self._process, _limit_s(self._load)), self._process)
        if isinstance(measured, Failure):
            raise RequestFailed(f"{measured.kind}: {measured.detail}")
        return measured


@contextmanager
def session(
    load: Load,
    ports: dict[str, int],
    server_pid: int,
    *,
    core: int | None,
    stop_server: Callable[[], None],
) -> Iterator[Session]:
    """A session with one server, for the length of a `with` block. At its end the server is stopped first."""
    process = _start(load, ports, server_pid, core, "--on-request")
    try:
        yield Session(load, process)
    finally:
        stop_server()
        _end(process)


def _start(
    load: Load, ports: dict[str, int], server_pid: int, core: int | None, *more: str
) -> subprocess.Popen[bytes]:
    mix = ",".join(f"{dialect}:{port}" for dialect, port in ports.items())
    tls = any(dialect.endswith("+tls") for dialect in ports)
    command = [str(build(tls)), f"--mix={mix}", f"--server-pid={server_pid}", *load.arguments(), *more]
    pipe = subprocess.PIPE
    with pinned(core):
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=10)  # closes its input, upon which it exits
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _limit_s(load: Load) -> float:
    return load.warm_s + load.seconds + load.idle_s + 6 * load.timeout_s + GRACE_S


def _read_answer(process: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """The output up to its last line. The input stays open."""
    assert process.stdout is not None
    deadline, text = time.monotonic() + limit_s, b""
    while True:
        if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return f'{{"failure": "late", "detail": "not finished within {limit_s:.0f} s"}}'.encode()
        chunk = os.read(process.stdout.fileno(), 65536)
        text += chunk
        if not chunk or (text.strip() and text.endswith(b"}\n")):
            return text


def _parse(answer: bytes, process: subprocess.Popen[bytes]) -> dict[str, Any] | Failure:
    lines = answer.decode(errors="replace").strip().splitlines()
    try:
        measured = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise LoadFailed(
            f"the load generator exited with {process.returncode}; output: {answer[-300:]!r}"
        ) from None
    if "failure" in measured:
        return Failure(measured["failure"], measured["detail"])
    assert isinstance(measured, dict)
    return measured
