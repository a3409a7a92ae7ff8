"""The program as a separate process, as people run it, and its commands that end at once."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

from geventchat.cli import main
from tests.patience import HANG_S

MODULE = ("-m", "geventchat")


def environment(**more: str) -> dict[str, str]:
    """This environment without what the server reads and without changes to how Python writes, and with these variables."""
    ours = re.compile("PORT|CHAT_PORT|GEVENTCHAT_.*|PYTHONUNBUFFERED")
    return {**{key: value for key, value in os.environ.items() if not ours.fullmatch(key)}, **more}


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [sys.executable, *MODULE, *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_S, env=environment(**more), check=False
    )


def called(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end in this process, which takes a tenth of the time. For everything but a server."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment(**more), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextmanager
def running(*words: str, program: tuple[str, ...] = MODULE, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Run the program during a `with`. More arguments are those of Popen; `env` is added to the environment."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    pipes["env"] = environment(**pipes.get("env", {}))
    with subprocess.Popen([sys.executable, *program, *words], text=True, **pipes) as server:
        try:
            yield server
        finally:
            server.kill()


def ready_lines(server: subprocess.Popen[str]) -> list[str]:
    """The lines on standard output, up to the one that says that the server is ready."""
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line.rstrip("\n"))
        if "Waiting for connections" in line:
            return lines
    raise AssertionError(f"the server did not start: {lines}")


def port_of(line: str) -> int:
    """The port in a ready line."""
    found = re.search(r":(\d+)(?: \([\w+]+\))?$", line)
    assert found is not None, line
    return int(found[1])


def full_pipe() -> tuple[int, int]:
    """A pipe that is full, because it has no reader."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    return read, write
