"""memcached, with its text protocol."""

from __future__ import annotations

import pytest

from harness import Command
from tests.foreign import installed


@pytest.fixture
def harness_target() -> Command:
    memcached = installed.program("memcached", "memcached")
    # Run as root, memcached insists on -u.
    return Command([memcached, "-u", "nobody", "-l", "127.0.0.1", "-p", "{port}", "-U", "0", "-t", "1"])
