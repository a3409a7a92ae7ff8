"""What the suite does where a package that only some tests need is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules come first in the path of a new Python, so that they hide installed packages."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # hypothesis has a plugin, too
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def hide(folder: Path, package: str) -> None:
    (folder / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module', name={package!r})\n")


def run(*files: str) -> subprocess.CompletedProcess[str]:
    plugins = ("-p", "harness.pytest_plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", "-rs", *plugins, *files]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_module_that_needs_a_missing_package_is_skipped_with_the_reason(without: Path) -> None:
    hide(without, "hypothesis")
    done = run("tests/geventchat/test_text.py", "tests/harness/test_matching.py")
    assert "hypothesis is not installed (pip install -e '.[test]')" in done.stdout
    assert " passed, 1 skipped" in done.stdout
    assert done.returncode == pytest.ExitCode.OK


def test_on_ci_a_missing_package_is_an_error(without: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    hide(without, "hypothesis")
    done = run("tests/geventchat/test_text.py")
    assert "ERROR collecting tests/geventchat/test_text.py" in done.stdout
    assert done.returncode == pytest.ExitCode.INTERRUPTED


def test_on_ci_a_skipped_test_is_a_failure(without: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    hide(without, "matplotlib")
    done = run("tests/bench/test_bench_report.py")
    assert "on CI a skipped test is a failure" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_a_missing_package_that_is_not_optional_is_an_error(without: Path) -> None:
    hide(without, "gevent")
    done = run("tests/geventchat/test_text.py")
    assert "No module" in done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
