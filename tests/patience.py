"""How long the tests wait for something that is certain to come: the one place for limits that only end a hang.

A limit that a test waits for, because it has to expire, belongs to that test. So does a claim about time, which has to hold
on a busy machine as well: it compares processor times, or two measurements that were taken side by side.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import AnyStr

HANG_S = 90.0
"""More than anything takes on a machine that many share. `timeout` in pyproject.toml is longer, so that a test fails with
what it waited for."""

STANDSTILL_MS = 5_000.0
"""More than a message takes on a busy machine, and less than it takes when a server stands still for seconds: the one bound
of the clock for those who chat beside an attack. Where less than that has to be noticed, processor time is compared."""

_LOOK_S = 0.005


def until(condition: Callable[[], bool], within_s: float = HANG_S) -> bool:
    """Wait until this is true; False if it does not become so."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return condition()
        time.sleep(_LOOK_S)
    return True


@contextmanager
def killed_at_the_end(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """The process during a `with`, whose end does not wait for it: a test that fails would hang there."""
    with process:
        try:
            yield process
        finally:
            process.kill()
