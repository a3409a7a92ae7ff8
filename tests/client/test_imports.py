"""The imports of the client: dialects and chat, nothing of the server, and little of the standard library at its start."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import geventchat.client
from tests.client.real_server import ROOT

FOLDER = Path(geventchat.client.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))
ALLOWED = ("geventchat.client", "geventchat.dialects", "geventchat.chat", "geventchat.exhaustive")
# What decides is handed everything else.
PURE = (
    *(
        "address",
        "cells",
        "conversation",
        "display",
        "editor",
        "emoji",
        "entries",
        "input",
        "keys",
        "markup",
        "outgoing_queue",
        "render",
        "requests",
        "sentences",
        "styles",
    ),
    *("terminal", "view", "window_list", "windows"),
)
INPUT_AND_OUTPUT = {
    "asyncio",
    "os",
    "signal",
    "socket",
    "subprocess",
    "random",
    "select",
    "selectors",
    "sys",
    "termios",
    "threading",
    "time",
}
# Each takes longer to load than the client has any use for, or is only needed by some.
NOT_AT_THE_START = {
    *(
        "asyncio",
        "gevent",
        "prompt_toolkit",
        "http",
        "logging",
        "ssl",
        "subprocess",
        "tomllib",
        "tomli",
        "unittest",
    ),
    *("geventchat.server", "geventchat.net", "geventchat.services", "geventchat.settings", "geventchat.log"),
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_of_the_client_imports_dialects_and_chat_but_no_server(path: Path) -> None:
    for name in imported(path):
        top = name.partition(".")[0]
        assert top not in {"gevent", "greenlet", "harness"}
        assert top != "geventchat" or name.startswith(tuple(f"{module}." for module in ALLOWED)), (
            f"{path.name} imports {name}"
        )


@pytest.mark.parametrize("stem", PURE)
def test_a_pure_module_does_no_input_and_output(stem: str) -> None:
    tops = {name.partition(".")[0] for name in imported(FOLDER / f"{stem}.py")}
    assert not INPUT_AND_OUTPUT & tops


def test_the_session_needs_no_event_loop() -> None:
    tops = {name.partition(".")[0] for name in imported(FOLDER / "session.py")}
    assert not {"asyncio", "selectors", "socket", "sys", "time"} & tops


def test_the_client_starts_with_few_modules() -> None:
    """A bound on what is loaded, which unlike a time does not depend on the machine. It starts in 0.1 to 0.2 s."""
    program = (
        "import sys; before = set(sys.modules)\n"
        "import geventchat.cli, geventchat.client.app, geventchat.client.screen\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(done.stdout.split())
    assert not NOT_AT_THE_START & loaded
    assert len(loaded) <= 150, sorted(loaded)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
