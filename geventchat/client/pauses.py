"""How long to wait before the next try, growing from try to try.

Pure but for the dice, which are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

FIRST_S = 0.5
LONGEST_S = 30.0


def pauses() -> Iterator[float]:
    """0.5, 1, 2, 4 … seconds, and then the longest for ever."""
    pause_s = FIRST_S
    while True:
        yield min(pause_s, LONGEST_S)
        pause_s *= 2 if pause_s < LONGEST_S else 1


def scattered(pause_s: float, dice: Callable[[], float]) -> float:
    """A bit less than the pause, so that a room that lost its server does not come back as one crowd."""
    return pause_s * (1 - dice() / 4)
