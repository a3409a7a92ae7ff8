"""What the client may know: nothing of the server, and prompt_toolkit in one place only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import geventchat.client

FOLDER = Path(geventchat.client.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_of_the_client_imports_only_the_client(path: Path) -> None:
    for name in imported(path):
        top = name.partition(".")[0]
        assert top not in {"gevent", "greenlet", "harness"}
        assert top != "geventchat" or name.startswith("geventchat.client."), f"{path.name} imports {name}"
        assert top != "prompt_toolkit" or path.stem == "screen"


PURE = {
    "address", "cleaning", "completing", "conversation", "heard", "json_speech", "line_speech", "lines",
    "naming", "notes", "pauses", "rendering", "slash_speech", "speech", "speeches", "words",
}  # fmt: skip


@pytest.mark.parametrize("stem", sorted(PURE))
def test_a_pure_module_does_no_input_or_output(stem: str) -> None:
    forbidden = {
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
    assert not forbidden & {name.partition(".")[0] for name in imported(FOLDER / f"{stem}.py")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
