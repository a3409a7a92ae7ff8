"""Run the load generator in `load/` beside a server, and read what it measured.

It does not know which server it loads, nor what the measurements are used for.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.compiler import compiled
from bench.machine import pinned

SOURCES = Path(__file__).parent / "load"

GRACE_S = 60.0
"""Added to the expected duration of a run, for logins, for messages in flight and for a busy machine."""


class LoadFailed(Exception):
    """The load generator itself did not work."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the load generator does: how many clients, how many of them send, by a window or at a rate."""

    clients: int
    senders: int = 0
    window: int = 0
    rate: float = 0
    warm_s: float = 0.3
    seconds: float = 1.0
    idle_s: float = 0
    stalled: int = 0
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
            "timeout": self.timeout_s,
        }
        return [f"--{name}={value}" for name, value in named.items()]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run has no result: messages were lost, changed or reordered, or a connection failed."""

    kind: str
    detail: str


def build() -> Path:
    """The compiled load generator."""
    return compiled("load", sorted(SOURCES.glob("*.[ch]")))


def run(
    load: Load,
    ports: dict[str, int],
    server_pid: int,
    *,
    core: int | None,
    stop_server: Callable[[], None],
) -> dict[str, Any] | Failure:
    """Load one server and return what was measured, or why there is no result.

    `stop_server` is called while the clients are still connected. Otherwise thousands of clients would disconnect one
    by one, each departure announced to all others.
    """
    mix = ",".join(f"{dialect}:{port}" for dialect, port in ports.items())
    command = [str(build()), f"--mix={mix}", f"--server-pid={server_pid}", *load.arguments()]
    limit_s = load.warm_s + load.seconds + load.idle_s + 6 * load.timeout_s + GRACE_S
    pipe = subprocess.PIPE
    with pinned(core):
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        answer = _read_answer(process, limit_s)
    finally:
        stop_server()
        try:
            process.communicate(timeout=10)  # closes its input, upon which it exits
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    return _parse(answer, process)


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
