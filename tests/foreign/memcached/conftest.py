"""memcached, in its text protocol."""

from __future__ import annotations

import pytest

from harness import Command
from tests.foreign import presence


@pytest.fixture
def harness_target() -> Command:
    memcached = presence.program("memcached", "memcached")
    # -u is for those who run it as root, which it refuses.
    return Command([memcached, "-u", "nobody", "-l", "127.0.0.1", "-p", "{port}", "-U", "0", "-t", "1"])
