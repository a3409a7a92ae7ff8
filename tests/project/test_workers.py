"""How the tests are shared among the workers of pytest-xdist."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Other files have this name, too.
LONGEST: tuple[str, ...] = runpy.run_path(str(ROOT / "conftest.py"))["LONGEST"]
TESTS = """
import os, pytest

@pytest.mark.parametrize("number", range(20))
def test_it(number):
    with open("log", "a") as log:
        print(os.path.basename(__file__), os.getpid(), file=log)
"""
CRASH = """
import os

def test_first(): pass
def test_crash(): os._exit(3)
def test_last(): pass
"""
# What one worker says is read when the other has ended. The thread that notices this end gets no further until it has been
# dealt with.
NOTICES_LATE = """

import threading

ended, replaced = threading.Event(), threading.Event()

def pytest_testnodeready(node):
    notify = node.notify_inproc

    def notify_and_wait(event, **arguments):
        if arguments.get("nodeid", "").startswith("test_b.py"):
            ended.wait()
        notify(event, **arguments)
        if event == "errordown":
            ended.set()
            replaced.wait()

    node.notify_inproc = notify_and_wait

def pytest_runtest_logreport(report):
    if report.nodeid == "test_a.py::test_first" and report.when == "teardown" and hasattr(report, "node"):
        ended.wait()

def pytest_testnodedown(node):
    replaced.set()
"""


def test_the_files_that_come_first_exist() -> None:
    assert [name for name in LONGEST if not (ROOT / name).exists()] == []


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with the conftest.py of this one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    shutil.copy(ROOT / "conftest.py", pytester.path)
    return pytester


def run(project: pytest.Pytester, **outcomes: int) -> None:
    options = ("-n", "2", "-p", "xdist", "-p", "no:cacheprovider", "--max-worker-restart", "2")
    project.runpytest_subprocess(*options).assert_outcomes(**outcomes)


def test_a_worker_gets_whole_files_and_the_longest_come_first(project: pytest.Pytester) -> None:
    (project.path / LONGEST[0]).parent.mkdir(parents=True)
    for name in ("test_a.py", "test_b.py", "test_c.py", LONGEST[0]):
        (project.path / name).write_text(TESTS)
    run(project, passed=80)
    ran = [line.split() for line in (project.path / "log").read_text().splitlines()]
    files = dict.fromkeys(name for name, _ in ran)
    assert all(len({process for name, process in ran if name == file}) == 1 for file in files)
    # Its worker has run no other before.
    longest = Path(LONGEST[0]).name
    (worker,) = {process for name, process in ran if name == longest}
    assert next(name for name, process in ran if process == worker) == longest


@pytest.fixture
def crash(project: pytest.Pytester) -> None:
    """Three files, one with a test that ends its worker."""
    (project.path / "test_a.py").write_text(CRASH)
    (project.path / "test_b.py").write_text(TESTS)
    (project.path / "test_c.py").write_text(TESTS)


@pytest.mark.usefixtures("crash")
def test_a_test_that_ends_its_worker_is_not_run_again(project: pytest.Pytester) -> None:
    run(project, passed=42, failed=1)


@pytest.mark.usefixtures("crash")
def test_a_worker_whose_end_is_noticed_late_can_be_given_more(project: pytest.Pytester) -> None:
    with (project.path / "conftest.py").open("a") as conftest:
        conftest.write(NOTICES_LATE)
    run(project, passed=42, failed=1)


def test_no_test_may_take_longer_than_what_ends_its_worker(request: pytest.FixtureRequest) -> None:
    marks = [mark.args[0] for item in request.session.items for mark in item.iter_markers("timeout")]
    worker_ends = float(request.config.getini("faulthandler_timeout"))
    assert max([float(request.config.getini("timeout")), *marks]) < worker_ends
