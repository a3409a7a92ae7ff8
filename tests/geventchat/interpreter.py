"""How much work something is, without a clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def events_of_interpreter(action: Callable[[], object]) -> int:
    """How many functions are called and lines run: a measure of the work that does not depend on the machine."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count
