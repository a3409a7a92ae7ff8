"""The test suite without a package that only some tests need.

Each test runs pytest on a made-up project with the conftest.py of this one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ("harness.pytest_plugin", "pytest_timeout", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with one test that needs nothing. Modules in its folder `hidden` hide installed packages."""
    hidden = pytester.mkdir("hidden")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(hidden), str(ROOT))))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # hypothesis has a plugin, too
    monkeypatch.delenv("CI", raising=False)
    shutil.copy(ROOT / "conftest.py", pytester.path)
    pytester.makepyfile(test_plain="def test_passes(): pass\n")
    return pytester


def hide(project: pytest.Pytester, package: str) -> None:
    error = f"raise ModuleNotFoundError('No module named {package}', name={package!r})\n"
    (project.path / "hidden" / f"{package}.py").write_text(error)


def run(project: pytest.Pytester) -> pytest.RunResult:
    return project.runpytest_subprocess("-rs", *(word for plugin in PLUGINS for word in ("-p", plugin)))


def test_a_module_that_needs_a_missing_package_is_skipped_with_the_reason(project: pytest.Pytester) -> None:
    hide(project, "hypothesis")
    project.makepyfile(test_properties="import hypothesis\ndef test_fails(): assert False\n")
    result = run(project)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*: hypothesis is not installed (pip install*"])


def test_a_module_whose_package_is_installed_runs(project: pytest.Pytester) -> None:
    project.makepyfile(**{"hidden/pyte": "", "test_screen": "import pyte\ndef test_passes(): pass\n"})
    run(project).assert_outcomes(passed=2)


def test_a_missing_package_that_is_not_optional_is_an_error(project: pytest.Pytester) -> None:
    project.makepyfile(test_other="import no_such_package\ndef test_fails(): assert False\n")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E   ModuleNotFoundError: No module named 'no_such_package'"])


def test_on_ci_a_missing_package_is_an_error(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    hide(project, "hypothesis")
    project.makepyfile(test_properties="import hypothesis\ndef test_fails(): assert False\n")
    run(project).assert_outcomes(errors=1)


def test_on_ci_a_skipped_test_is_a_failure(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    project.makepyfile(test_skipped="import pytest\ndef test_skips(): pytest.skip('no Redis')\n")
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*no Redis; on CI a skipped test is a failure*"])
