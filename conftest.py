"""The target of transcripts, the number of examples of property tests, and skips for missing packages."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness import InProcess

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:
    settings = None

pytest_plugins = ["pytester"]

# What a shell has started in the background ignores Ctrl-C, and what `nohup` has started ignores a hangup. So would every
# program that the tests start and send these signals to.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# Only some tests need these packages. All of them are in the extra `test`.
OPTIONAL_PACKAGES = {
    "aiosmtpd",
    "hypothesis",
    "jsonschema",
    "matplotlib",
    "precis_i18n",
    "pyte",
    "uvloop",
    "websockets",
}

# Every run tries the same examples, so a failure means a change and not chance. One example has no time limit, because
# machines are shared. HYPOTHESIS_PROFILE=wide tries many more examples, and different ones each time.
if settings is not None:
    settings.register_profile(
        "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    settings.register_profile(
        "wide", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


# Each takes five seconds of processor time to collect the tests.
_MOST_WORKERS = 16
# With several workers they come first, so that none of them runs on alone when all else is done. Those that mostly wait and
# those that need a processor take turns.
LONGEST = (
    "tests/harness/test_verdicts.py",
    "tests/geventchat/test_attack_search.py",
    "tests/independent/test_independent.py",
    "tests/harness/test_auditing_scripts.py",
    "tests/independent/adapted/test_adapted.py",
    "tests/geventchat/test_attacks.py",
    "tests/harness/test_heard_fences.py",
    "tests/geventchat/test_cli.py",
    "tests/harness/test_documentation.py",
    "tests/browser/test_page.py",
    "tests/browser/test_page_rooms.py",
    "tests/browser/test_page_messages.py",
    "tests/geventchat/test_fire_garbage.py",
    "tests/client/test_pipe.py",
    "tests/harness/test_zoo.py",
    "tests/harness/test_conformance_suite.py",
    "tests/geventchat/test_json_schema.py",
    "tests/fuzz/test_fuzz.py",
    "tests/harness/test_pytest_plugin.py",
    "tests/bench/test_bench_load.py",
    "tests/harness/test_judging_by_laws.py",
    "tests/bench/test_bench_against.py",
    "tests/geventchat/test_model.py",
    "tests/geventchat/test_passwd.py",
    "tests/geventchat/test_health.py",
)


def _on_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


@pytest.fixture
def harness_target() -> InProcess:
    """geventchat, in process, in virtual time; a new server for each test."""
    # Imported here, so that a run without transcripts, of which some tests start many, begins sooner.
    from harness import InProcess
    from tests.app import serve

    return InProcess(serve)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """With `-n auto` two tests run on each processor, because many of them wait for time to pass."""
    return min(2 * len(os.sched_getaffinity(0)), _MOST_WORKERS)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker gets whole files, so that what the tests of a file share is made once."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    class WholeFiles(LoadFileScheduling):
        def remove_node(self, node: Any) -> str | None:
            """Give others what a worker has not done, but for the test that ended it, which would end them as well."""
            files = {
                name: tests for name, tests in self.assigned_work.pop(node).items() if not all(tests.values())
            }
            if not files:
                return None
            crashed = next(iter(files.values()))
            test = next(test for test, done in crashed.items() if not done)
            crashed[test] = True
            self.workqueue.update({name: tests for name, tests in files.items() if not all(tests.values())})
            for other in self.assigned_work:
                self._reschedule(other)
            return test

        def _assign_work_unit(self, node: Any) -> None:
            # What a worker cannot be told because it has ended is still noted as its own until `remove_node`.
            with contextlib.suppress(OSError):
                super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            super()._reschedule(node)
            # A worker begins a test when it knows the next one, or that none follows.
            while (
                self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2
            ):
                self._assign_work_unit(node)
            if not self.workqueue and not node.shutting_down:
                node.shutdown()

    config.option.loadscopereorder = False
    return WholeFiles(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, in the workers of pytest-xdist."""
    if hasattr(config, "workerinput"):
        rank = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


class ModuleWithOptionalPackages(pytest.Module):
    """A test module that is skipped, with the reason, when it imports an optional package that is not installed."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as failed:
            missing = failed.__cause__
            if (
                _on_ci()
                or not isinstance(missing, ModuleNotFoundError)
                or missing.name not in OPTIONAL_PACKAGES
            ):
                raise
            pytest.skip(
                f"{missing.name} is not installed (pip install -e '.[test]')", allow_module_level=True
            )


def pytest_pycollect_makemodule(
    module_path: os.PathLike[str], parent: pytest.Collector
) -> ModuleWithOptionalPackages:
    return ModuleWithOptionalPackages.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a skipped test on CI, where everything that a test needs must be installed."""
    report = yield
    if report.skipped and _on_ci() and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason}; on CI a skipped test is a failure"
    return report
