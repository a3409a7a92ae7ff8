"""`geventchat-harness` is a separate distribution: its contents, and that it can be imported from anywhere."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
OWN = tomllib.loads((ROOT / "harness" / "pyproject.toml").read_text())
SERVER = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_modules_is_a_package_of_the_distribution() -> None:
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "harness").rglob("__init__.py")
        if "build" not in path.relative_to(ROOT / "harness").parts
    }
    assert set(OWN["tool"]["setuptools"]["packages"]) == folders


def test_it_has_no_dependencies_and_gevent_is_an_extra() -> None:
    assert OWN["project"]["dependencies"] == []
    assert OWN["project"]["optional-dependencies"] == {"gevent": ["gevent>=26.9"]}


def test_the_servers_distribution_neither_contains_nor_names_it() -> None:
    assert not [name for name in SERVER["tool"]["setuptools"]["packages"] if name.startswith("harness")]
    assert "harness" not in str(SERVER["project"]["optional-dependencies"])
    assert "pytest11" not in SERVER["project"].get("entry-points", {})


def test_the_licence_that_it_carries_is_the_repositorys() -> None:
    assert (ROOT / "harness" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_installed_distribution_has_the_command_and_the_plugin() -> None:
    points = {(one.group, one.value) for one in distribution("geventchat-harness").entry_points}
    assert points == {("console_scripts", "harness.cli:main"), ("pytest11", "harness.pytest_plugin")}


@pytest.mark.parametrize("module", ["harness.language.loading", "harness.cli", "harness.pytest_plugin"])
def test_it_is_importable_from_another_folder(tmp_path: Path, module: str) -> None:
    code = f"import {module}; from harness.conformance import suites; print(suites())"
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "['chat-line']\n", done.stderr
