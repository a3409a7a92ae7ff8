"""How a visit can end, as the exit code that a shell sees."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes; `docs/client.md` lists them."""

    LEFT = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


class Ended(Exception):
    """The visit is over."""

    def __init__(self, exit_code: Exit, *, was_inside: bool = False) -> None:
        super().__init__(exit_code.name)
        self.exit_code = exit_code
        self.was_inside = was_inside
