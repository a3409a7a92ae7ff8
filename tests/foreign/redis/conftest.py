"""Redis, with inline commands."""

from __future__ import annotations

import pytest

from harness import Command
from tests.foreign import installed


@pytest.fixture
def harness_target() -> Command:
    redis = installed.program("redis-server", "redis-server")
    return Command([redis, "--port", "{port}", "--save", "", "--appendonly", "no"])
