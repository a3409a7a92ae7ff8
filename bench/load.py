"""The load: builds the C program in `load/`, runs it beside a server, and reads what it found.

It must not know which server it loads, nor what the numbers are good for.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import pinned

SOURCES = Path(__file__).parent / "load"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror=format")


GRACE_S = 60.0
"""For logins, for what is on its way when the time is up, for a busy machine: longer is no result."""


class LoadFailed(Exception):
    """The load itself could not run: no compiler, no program, no answer."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the load does: so many clients, so many of them speaking, by a window or at a pace."""

    clients: int
    speakers: int = 0
    window: int = 0
    rate: float = 0
    warm_s: float = 0.3
    seconds: float = 1.0
    idle_s: float = 0
    stalled: int = 0
    patience_s: float = 5.0

    def arguments(self) -> list[str]:
        named = {
            "clients": self.clients,
            "speakers": self.speakers,
            "window": self.window,
            "rate": self.rate,
            "warm": self.warm_s,
            "seconds": self.seconds,
            "idle": self.idle_s,
            "stalled": self.stalled,
            "patience": self.patience_s,
        }
        return [f"--{name}={value}" for name, value in named.items()]


@dataclass(frozen=True, slots=True)
class Fault:
    """What was not delivered in full and in order, in the words of the load."""

    kind: str
    told: str


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geventchat-bench"


def build() -> Path:
    """The compiled load program; compiled now if its sources have changed since last time."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    content = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + repr(FLAGS).encode())
    program = cache_folder() / f"load-{content.hexdigest()[:16]}"
    if program.exists():
        return program
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        raise LoadFailed("the load is a C program and there is no C compiler: install one, or set CC")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        fresh = Path(folder) / "load"
        c_files = [str(source) for source in sources if source.suffix == ".c"]
        made = subprocess.run([compiler, *FLAGS, "-o", str(fresh), *c_files], capture_output=True, text=True)
        if made.returncode != 0:
            raise LoadFailed(f"the load does not compile:\n{made.stderr}")
        fresh.replace(program)  # whole or not at all: others may be building the same
    return program


def run(
    crowd: Crowd,
    ports: dict[str, int],
    server_pid: int,
    *,
    core: int | None,
    end_server: Callable[[], None],
) -> dict[str, Any] | Fault:
    """Load one server and return what was measured, or what was wrong.

    The server is ended by `end_server` while the crowd is still there: thousands who leave one by one, each
    leave told to all others, are not what is measured.
    """
    mix = ",".join(f"{dialect}:{port}" for dialect, port in ports.items())
    command = [str(build()), f"--mix={mix}", f"--server-pid={server_pid}", *crowd.arguments()]
    limit_s = crowd.warm_s + crowd.seconds + crowd.idle_s + 6 * crowd.patience_s + GRACE_S
    pipe = subprocess.PIPE
    with pinned(core):
        load = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        answer = _read_answer(load, limit_s)
    finally:
        end_server()
        try:
            load.communicate(timeout=10)  # ends its input: it may go
        except subprocess.TimeoutExpired:
            load.kill()
            load.communicate()
    return _understand(answer, load)


def _read_answer(load: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """What it prints up to its last line, without ending its input."""
    assert load.stdout is not None
    deadline, text = time.monotonic() + limit_s, b""
    while True:
        if not select.select([load.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return f'{{"fault": "late", "told": "not done within {limit_s:.0f} s"}}'.encode()
        chunk = os.read(load.stdout.fileno(), 65536)
        text += chunk
        if not chunk or (text.strip() and text.endswith(b"}\n")):
            return text


def _understand(answer: bytes, load: subprocess.Popen[bytes]) -> dict[str, Any] | Fault:
    lines = answer.decode(errors="replace").strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise LoadFailed(f"the load ended with {load.returncode} and said: {answer[-300:]!r}") from None
    if "fault" in found:
        return Fault(found["fault"], found["told"])
    assert isinstance(found, dict)
    return found
