"""The harness's own architecture: which folder imports which, no import cycles, and which modules need gevent."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "harness"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if "build" not in path.relative_to(PACKAGE).parts
}
DOCS = [ROOT / "docs" / "architecture.md"]
GEVENT = ("gevent", "greenlet", "_greenlet")
MAY_IMPORT_GEVENT = re.compile(r"harness\.(stage\.gevent_loop|interception\.gevent_loop|targets\.inprocess)")
ENTRIES = [
    "harness",
    "harness.cli",
    "harness.pytest_plugin",
    "harness.playing.pipeline",
    "harness.stage.stage",
    "harness.targets.address",
    "harness.targets.asyncio_server",
    "harness.targets.choice",
    "harness.targets.command",
]


def named(node: ast.AST, path: Path) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}: a relative import hides where it points"
        assert node.module is not None
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            yield submodule if submodule in MODULES else node.module


@cache
def imports(path: Path) -> set[str]:
    """Every module that the file imports, wherever in the file."""
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in named(node, path)}


def imports_at_once(path: Path) -> set[str]:
    """The modules that are imported when the file is: not in functions, and not for the type checker alone."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            found.update(named(node, path))
            if isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
                if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                    visit(node.orelse)
                    continue
                for block in ("body", "orelse", "finalbody"):
                    visit(getattr(node, block, []))
                for handler in getattr(node, "handlers", []):
                    visit(handler.body)

    visit(ast.parse(path.read_text()).body)
    return found


def folder(module: str) -> str:
    """The part of the harness in which the module is: a folder, or itself."""
    return module.split(".")[1] if "." in module else "harness"


def arrows() -> Mapping[str, frozenset[str]]:
    """The table of arrows in the documentation: each folder, and the folders that it imports."""
    text = "\n".join(page.read_text() for page in DOCS if page.exists())
    table = text.split("| folder | imports |\n|---|---|\n")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    assert rows
    return {name: frozenset(re.findall(r"`(\w+)`", right)) for name, right in rows}


@cache
def graph() -> Mapping[str, set[str]]:
    """Each module with the others that it imports."""
    return {
        name: {one for one in imports(path) if one in MODULES and one not in (name, "harness")}
        for name, path in MODULES.items()
        if name != "harness"  # the public names, which are looked up where they are used
    }


def cycle(arrows: Mapping[str, set[str]]) -> list[str]:
    """One cycle, or nothing."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            found = walk(other, [*trail, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := walk(name, []))), [])


ENTRY_POINTS = {"cli", "pytest_plugin", "__main__"}


def test_every_folder_imports_only_what_the_documentation_allows() -> None:
    allowed = arrows()
    assert {folder(name) for name in graph()} == allowed.keys() | ENTRY_POINTS
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if folder(name) in allowed and folder(other) not in allowed[folder(name)] | {folder(name)}
    ]
    assert not wrong


def test_every_arrow_in_the_documentation_is_used() -> None:
    used: dict[str, set[str]] = {}
    for name, others in graph().items():
        used.setdefault(folder(name), set()).update(folder(other) for other in others)
    assert {name: used[name] - {name} for name in arrows()} == {
        name: set(to) for name, to in arrows().items()
    }


def test_nothing_imports_an_entry_point() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if folder(other) in ENTRY_POINTS and name != "harness.__main__"
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    assert cycle(graph()) == []


def test_no_folder_imports_itself_in_a_circle() -> None:
    folders: dict[str, set[str]] = {}
    for name, others in graph().items():
        folders.setdefault(folder(name), set()).update(folder(other) for other in others)
    assert cycle({name: others - {name} for name, others in folders.items()}) == []


def test_a_circle_would_be_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]


def test_the_harness_never_imports_the_server_that_it_tests() -> None:
    foreign = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imports(path)
        if other.split(".")[0] in ("geventchat", "tests", "bench")
    ]
    assert not foreign


def test_gevent_is_not_imported_on_the_way_to_servers_outside_this_process() -> None:
    reached: set[str] = set()
    waiting = list(ENTRIES)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [one for one in imports_at_once(MODULES[name]) if one in MODULES]
    wrong = [name for name in reached if any(one.split(".")[0] in GEVENT for one in imports(MODULES[name]))]
    assert not wrong


@pytest.mark.parametrize("core", ["language", "stage", "targets", "interception", "playing", "conformance"])
def test_gevent_is_imported_only_for_servers_in_this_process(core: str) -> None:
    wrong = [
        name
        for name, path in MODULES.items()
        if folder(name) == core
        and not MAY_IMPORT_GEVENT.fullmatch(name)
        and any(one.split(".")[0] in GEVENT for one in imports(path))
    ]
    assert not wrong


def test_a_run_in_one_process_does_not_pay_for_several() -> None:
    program = (
        "import sys; from harness.batch import run_jobs; "
        "assert [*run_jobs(lambda job, context: job, [1, 2], dict, 1)] == [1, 2]; "
        "print('multiprocessing' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"
