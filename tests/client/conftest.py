"""Servers, terminals and pipes with clients in them, and raw clients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.client.raw_client import RawClient
from tests.client.real_server import ROOT, RealServer, client_argv
from tests.client.scripted_server import Script, ScriptedServer
from tests.patience import HANG_S

if TYPE_CHECKING:
    from tests.client.pty_program import PtyProgram


@pytest.fixture
def start_server() -> Iterator[Callable[..., RealServer]]:
    """Starts real servers with the given options."""
    servers: list[RealServer] = []

    def start(*options: str) -> RealServer:
        servers.append(RealServer(*options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RealServer]:
    server = RealServer()
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: RealServer) -> RealServer:
    """A real server without options and, when a test begins, without people. A test can end it."""
    shared_server.start()
    shared_server.wait_until_empty()
    return shared_server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment that does not depend on the machine."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
    }


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[..., PtyProgram]]:
    """Runs clients in terminals: arguments, then the size and environment variables."""
    for package in ("prompt_toolkit", "pyte"):
        pytest.importorskip(package, reason=f"a client in a terminal needs {package}")
    from tests.client.pty_program import PtyProgram

    programs: list[PtyProgram] = []

    def run(*arguments: str, rows: int = 24, columns: int = 120, **variables: str) -> PtyProgram:
        argv = client_argv(arguments)
        programs.append(PtyProgram(argv, {**environment, **variables}, rows=rows, columns=columns))
        return programs[-1]

    yield run
    for program in programs:
        program.close()


@pytest.fixture
def raw_client(server: RealServer) -> Iterator[Callable[[str], RawClient]]:
    """Logs raw clients in."""
    clients: list[RawClient] = []

    def log_in(name: str) -> RawClient:
        clients.append(RawClient(server.host, server.ports["line"], name))
        return clients[-1]

    yield log_in
    for client in clients:
        client.close()


@pytest.fixture
def pipe(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs a client between two pipes to its end."""

    def run(*arguments: str, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            client_argv(arguments),
            input=stdin,
            capture_output=True,
            env={**environment, **variables},
            cwd=ROOT,
            timeout=HANG_S,
            check=False,
        )

    return run


@pytest.fixture
def scripted_server() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts scripted servers."""
    servers: list[ScriptedServer] = []

    def start(*scripts: Script) -> ScriptedServer:
        servers.append(ScriptedServer(*scripts))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
