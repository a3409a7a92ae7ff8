"""What the tests here are played against, and how widely they look."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from harness import InProcess
from tests.app import serve

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:
    settings = None

pytest_plugins = ["pytester"]


def pytest_configure() -> None:
    if settings is None:
        raise pytest.UsageError("the tests need more than the server does: pip install '.[test]'")


# The same examples in every run, so that a red run means a change and not a roll of the dice, and no limit on the time of
# one, since machines are shared. HYPOTHESIS_PROFILE=wide looks at many more, and at others each time.
if settings is not None:
    settings.register_profile(
        "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    settings.register_profile(
        "wide", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.fixture
def harness_target() -> InProcess:
    """geventchat, in process, in virtual time; a fresh one for each test."""
    return InProcess(serve)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a user's machine may lack, the machine that decides about a change must have: there a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason}; where CI=true nothing may be skipped"
    return report
