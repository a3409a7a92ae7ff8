"""One schedule, decided by its seed alone: what every call and every turn of the loop does differently.

Whatever it decides, a kernel or a loop could have decided too, so no right server notices. Each connection is decided
for by itself: what happens on one does not shift what is decided on another. Knows no scripts and no servers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from harness.beneath.sway import Sway, Wire

_FEW = 400
"""How often one connection is interfered with in one direction; then it is left alone, so that every run has an end."""


class Whim(enum.Enum):
    """What may be done differently. The value is its word on the command line."""

    READS = "reads"
    WRITES = "writes"
    STALLS = "stalls"
    ORDER = "order"
    ACCEPTS = "accepts"

    @property
    def told(self) -> str:
        return _TOLD[self]


_TOLD = {
    Whim.READS: "input cut into smaller reads",
    Whim.WRITES: "writes that take a part",
    Whim.STALLS: "clients that take nothing for a while",
    Whim.ORDER: "another order of what is ready",
    Whim.ACCEPTS: "clients accepted later",
}
EVERY = frozenset(Whim)

# How often each kind strikes under one seed. Some seeds leave a kind alone, some never let go: a fault that needs one
# kind often and another never is found by neither a mild mixture nor by everything at once.
_STRENGTHS = (0.0, 0.15, 0.5, 1.0)


@dataclass(slots=True)
class _Calls:
    """One connection in one direction."""

    random: Random
    left: int = _FEW
    refusing: int = 0


class Schedule(Sway):
    """One seed's own way of running a server."""

    def __init__(self, seed: int, whims: Iterable[Whim] = EVERY) -> None:
        self.seed = seed
        self.whims = frozenset(whims)
        strengths = Random(f"{seed} strengths")
        drawn = {whim: strengths.choice(_STRENGTHS) for whim in Whim}
        if not any(drawn.values()):
            drawn[strengths.choice(tuple(Whim))] = 1.0
        self._strength = {whim: drawn[whim] if whim in self.whims else 0.0 for whim in Whim}
        self._order = Random(f"{seed} order")
        self._holding = Random(f"{seed} hold")
        self._accepting = _Calls(Random(f"{seed} accept"))
        self._reads: dict[int, _Calls] = {}
        self._writes: dict[int, _Calls] = {}

    # What sockets do

    def accepting(self) -> None:
        if self._refuses(self._accepting, Whim.ACCEPTS, 6):
            raise BlockingIOError

    def accepted(self, wire: Wire) -> None:
        self._reads[wire.number] = _Calls(Random(f"{self.seed} reads {wire.number}"))
        self._writes[wire.number] = _Calls(Random(f"{self.seed} writes {wire.number}"))

    def reading(self, wire: Wire, size: int) -> int:
        if not size:
            return 0
        return self._part(self._reads[wire.number], Whim.READS, size)

    def writing(self, wire: Wire, size: int) -> int:
        calls = self._writes[wire.number]
        if self._refuses(calls, Whim.STALLS, 30):
            return 0
        return self._part(calls, Whim.WRITES, size)

    def _part(self, calls: _Calls, whim: Whim, size: int) -> int:
        if not self._strikes(calls, whim):
            return size
        match calls.random.randrange(3):
            case 0:
                return 1
            case 1:
                return max(1, size - 1)
            case _:
                return calls.random.randint(1, size)

    def _refuses(self, calls: _Calls, whim: Whim, longest: int) -> bool:
        """A refusal lasts for some calls on end, and then at least one call goes through."""
        if calls.refusing > 1:
            calls.refusing -= 1
            return True
        if calls.refusing == 1:
            calls.refusing = 0
            return False
        if not self._strikes(calls, whim):
            return False
        calls.refusing = calls.random.randint(1, longest)
        return True

    def _strikes(self, calls: _Calls, whim: Whim) -> bool:
        strength = self._strength[whim]
        if not strength or not calls.left or calls.random.random() >= strength:
            return False
        calls.left -= 1
        return True

    # What the loop does

    def choose(self, ready: int) -> int:
        strength = self._strength[Whim.ORDER]
        if not strength or self._order.random() >= strength:
            return 0
        return self._order.randrange(ready)

    def hold(self) -> int:
        strength = self._strength[Whim.ORDER]
        # Mostly not: each turn of the loop that something is held back costs real time.
        if not strength or self._holding.random() >= strength * 0.1:
            return 0
        return self._holding.randint(1, 3)


def whims(words: str) -> frozenset[Whim]:
    """The kinds that are named: `reads,order`; ValueError names one that is none."""
    return frozenset(Whim(word.strip()) for word in words.split(","))
