"""aiosmtpd, a mail server on asyncio."""

from __future__ import annotations

import sys

import pytest

from harness import Command
from tests.foreign import installed


@pytest.fixture
def harness_target() -> Command:
    aiosmtpd = installed.module("aiosmtpd")
    handler = "aiosmtpd.handlers.Debugging"
    return Command([sys.executable, "-m", aiosmtpd, "-n", "-c", handler, "stderr", "-l", "127.0.0.1:{port}"])
