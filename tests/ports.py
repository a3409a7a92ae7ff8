"""Ports of this machine on which nothing listens."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below those that the harness gives to its servers, and those from which the kernel takes the ports of connections and of
# servers that ask for none: tests that run at the same time would get one that has just been closed.
_RANGE = range(5_000, 10_000)


def free_port() -> int:
    """A free port that no other test gets in the next moments."""
    for port in random.SystemRandom().sample(_RANGE, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("a hundred ports in a row were in use")
