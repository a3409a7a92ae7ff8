"""The imports of the client: the dialects and the chat, nothing of the server, and prompt_toolkit in one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import geventchat.client

FOLDER = Path(geventchat.client.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))
ALLOWED = ("geventchat.client", "geventchat.dialects", "geventchat.chat", "geventchat.exhaustive")
# Session and conversation decide, and are handed everything else.
PURE = ("address", "conversation", "input", "render", "terminal")
INPUT_AND_OUTPUT = {
    "asyncio",
    "os",
    "select",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "time",
    "random",
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
        assert top != "prompt_toolkit" or path.stem == "screen"


@pytest.mark.parametrize("stem", PURE)
def test_a_pure_module_does_no_input_and_output(stem: str) -> None:
    tops = {name.partition(".")[0] for name in imported(FOLDER / f"{stem}.py")}
    assert not INPUT_AND_OUTPUT & tops


def test_the_session_needs_no_event_loop() -> None:
    assert not {"asyncio", "socket", "sys", "time"} & {
        name.partition(".")[0] for name in imported(FOLDER / "session.py")
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
