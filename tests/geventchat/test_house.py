"""The rules of the house: who may import whom. docs/architecture.md says why."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "geventchat"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it points"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(folder: str) -> list[Path]:
    return [path for path in MODULES if path.is_relative_to(PACKAGE / folder)]


def offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imported(path))
        for word in forbidden
        if name == word or name.startswith(word + ".")
    ]


def test_the_chat_knows_no_bytes_no_sockets_and_no_gevent():
    assert within("chat")
    assert not offenders(
        within("chat"),
        *("gevent", "greenlet", "socket", "select", "threading", "time"),
        *(
            "geventchat.dialects",
            "geventchat.net",
            "geventchat.server",
            "geventchat.cli",
            "geventchat.client",
        ),
    )


def test_the_dialects_know_no_sockets_and_no_gevent():
    assert within("dialects")
    assert not offenders(
        within("dialects"),
        *("gevent", "greenlet", "socket", "select", "threading", "time"),
        *("geventchat.net", "geventchat.server", "geventchat.cli", "geventchat.client"),
    )


def test_a_dialect_knows_no_other_dialect():
    for name in ("line", "json", "slash"):
        others = {f"geventchat.dialects.{other}" for other in ("line", "json", "slash") if other != name}
        assert not offenders([PACKAGE / "dialects" / f"{name}.py"], *others)


def test_the_net_does_not_know_what_is_composed_of_it():
    assert not offenders(within("net"), "geventchat.server", "geventchat.cli", "geventchat.client")


def test_only_the_net_the_server_and_the_command_line_import_gevent():
    allowed = {*within("net"), PACKAGE / "server.py", PACKAGE / "cli.py"}
    assert not offenders([path for path in MODULES if path not in allowed], "gevent", "greenlet")


def test_the_harness_knows_nothing_of_the_server():
    harness = sorted((ROOT / "harness").rglob("*.py"))
    assert harness
    assert not offenders(harness, "geventchat")
    assert not offenders(MODULES, "harness")


def test_nothing_reads_a_clock_but_the_clock():
    clock = {PACKAGE / "clock.py", *within("client")}
    assert not offenders([path for path in MODULES if path not in clock], "time")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_for(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())), "the first lines of a module say what it is for"
