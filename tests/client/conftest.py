"""What the client's tests are given: a server, terminals with clients in them, and people."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.client.people import RawPerson
from tests.client.real_server import ROOT, RealServer, client_argv
from tests.client.scripted_server import Behave, ScriptedServer

if TYPE_CHECKING:
    from tests.client.pty_program import PtyProgram


@pytest.fixture
def serve() -> Iterator[Callable[..., RealServer]]:
    """Starts servers and ends them."""
    servers: list[RealServer] = []

    def start(*options: str) -> RealServer:
        servers.append(RealServer(*options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(serve: Callable[..., RealServer]) -> RealServer:
    """A server as it is without options."""
    return serve()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of the machine shows."""
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
    """Opens terminals with a client in them: words of the command line, then rows, columns and variables."""
    for package in ("prompt_toolkit", "pyte"):
        pytest.importorskip(package, reason=f"a client in a terminal needs {package}")
    from tests.client.pty_program import PtyProgram

    programs: list[PtyProgram] = []

    def open_terminal(*words: str, rows: int = 24, columns: int = 120, **variables: str) -> PtyProgram:
        program = PtyProgram(client_argv(words), {**environment, **variables}, rows=rows, columns=columns)
        programs.append(program)
        return program

    yield open_terminal
    for program in programs:
        program.close()


@pytest.fixture
def person(server: RealServer) -> Iterator[Callable[[str], RawPerson]]:
    """Lets people in by hand."""
    people: list[RawPerson] = []

    def come(name: str) -> RawPerson:
        people.append(RawPerson(server.host, server.ports["line"], name))
        return people[-1]

    yield come
    for somebody in people:
        somebody.close()


@pytest.fixture
def pipe(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs a client between two pipes to its end."""

    def run(*words: str, typed: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            client_argv(words),
            input=typed,
            capture_output=True,
            env={**environment, **variables},
            cwd=ROOT,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def script() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts scripted servers and takes their failures."""
    servers: list[ScriptedServer] = []

    def start(*behaviours: Behave) -> ScriptedServer:
        servers.append(ScriptedServer(*behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.end()
