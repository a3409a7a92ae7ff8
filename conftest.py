"""What the tests here are played against."""

from __future__ import annotations

import pytest

from harness import InProcess
from tests.app import serve

pytest_plugins = ["pytester"]


@pytest.fixture
def harness_target() -> InProcess:
    """geventchat, in process, in virtual time; a fresh one for each test."""
    return InProcess(serve)
