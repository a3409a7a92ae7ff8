"""Whose lines a failing test shows: the test's own, where what is raised tells itself. Knows pytest only by the shape of
what it hands over."""

from __future__ import annotations

from typing import Any


def hides_traceback(excinfo: Any) -> bool:
    """For `__tracebackhide__`: true of what the harness raises to say something of a server; its slips stay visible."""
    return type(excinfo.value).__module__.startswith("harness.")
