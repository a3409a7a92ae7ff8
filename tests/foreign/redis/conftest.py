"""Redis, spoken to with inline commands."""

from __future__ import annotations

import pytest

from harness import Command
from tests.foreign import presence


@pytest.fixture
def harness_target() -> Command:
    redis = presence.program("redis-server", "redis-server")
    return Command([redis, "--port", "{port}", "--save", "", "--appendonly", "no"])
