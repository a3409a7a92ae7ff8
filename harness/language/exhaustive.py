"""`assert_never`, which typing has from Python 3.11 on: the type checker proves that a `match` covers every case."""

from __future__ import annotations

from typing import NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """Mark a branch that the type checker must find unreachable."""
    raise AssertionError(f"unhandled case: {value!r}")
