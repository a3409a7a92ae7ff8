"""One schedule, decided by its seed alone: what each socket call and each iteration of the loop does differently.

- A kernel or a loop could have decided the same, so a correct server is not affected.
- Each connection has a separate stream of random numbers: events on one do not change the decisions on another.
- Each connection is perturbed a bounded number of times, so that every run ends.

Knows no scripts and no servers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from harness.interception.interceptor import AcceptedConnection, Interceptor

_FEW = 400
"""How many times one connection is perturbed in one direction."""


class Perturbation(enum.Enum):
    """Kinds of perturbation. The value is the name on the command line."""

    READS = "reads"
    WRITES = "writes"
    STALLS = "stalls"
    ORDER = "order"
    ACCEPTS = "accepts"

    @property
    def description(self) -> str:
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    Perturbation.READS: "input cut into smaller reads",
    Perturbation.WRITES: "writes that take a part",
    Perturbation.STALLS: "clients that take nothing for a while",
    Perturbation.ORDER: "another order of what is ready",
    Perturbation.ACCEPTS: "clients accepted later",
}
EVERY = frozenset(Perturbation)

# How often each kind is applied under one seed. Some seeds never apply a kind, some always do: neither a mild mixture nor
# everything at once would find a bug that needs one kind often and another never.
_STRENGTHS = (0.0, 0.15, 0.5, 1.0)


@dataclass(slots=True)
class _Calls:
    """One connection in one direction."""

    random: Random
    left: int = _FEW
    refusing: int = 0


class Schedule(Interceptor):
    """The way in which one seed runs a server: with at least one of the chosen kinds, unless that is left out."""

    def __init__(
        self, seed: int, chosen: Iterable[Perturbation] = EVERY, left_out: Iterable[Perturbation] = ()
    ) -> None:
        self.seed = seed
        strengths = Random(f"{seed} strengths")
        drawn = {perturbation: strengths.choice(_STRENGTHS) for perturbation in Perturbation}
        choice = [perturbation for perturbation in Perturbation if perturbation in frozenset(chosen)]
        if not any(drawn[perturbation] for perturbation in choice):
            drawn[strengths.choice(choice)] = 1.0
        applied = frozenset(choice).difference(left_out)
        self._strength = {
            perturbation: drawn[perturbation] if perturbation in applied else 0.0
            for perturbation in Perturbation
        }
        self._order = Random(f"{seed} order")
        self._delaying = Random(f"{seed} hold")
        self._accepting = _Calls(Random(f"{seed} accept"))
        self._reads: dict[int, _Calls] = {}
        self._writes: dict[int, _Calls] = {}

    # Sockets

    def before_accept(self) -> bool:
        return not self._refuses(self._accepting, Perturbation.ACCEPTS, 6)

    def accepted(self, connection: AcceptedConnection) -> None:
        self._reads[connection.number] = _Calls(Random(f"{self.seed} reads {connection.number}"))
        self._writes[connection.number] = _Calls(Random(f"{self.seed} writes {connection.number}"))

    def before_read(self, connection: AcceptedConnection, size: int) -> int:
        if not size:
            return 0
        return self._part(self._reads[connection.number], Perturbation.READS, size)

    def before_write(self, connection: AcceptedConnection, size: int) -> int:
        calls = self._writes[connection.number]
        if self._refuses(calls, Perturbation.STALLS, 30):
            return 0
        return self._part(calls, Perturbation.WRITES, size)

    def _part(self, calls: _Calls, perturbation: Perturbation, size: int) -> int:
        if not self._strikes(calls, perturbation):
            return size
        match calls.random.randrange(3):
            case 0:
                return 1
            case 1:
                return max(1, size - 1)
            case _:
                return calls.random.randint(1, size)

    def _refuses(self, calls: _Calls, perturbation: Perturbation, longest: int) -> bool:
        """Refuse several calls in a row, and then let at least one through."""
        if calls.refusing > 1:
            calls.refusing -= 1
            return True
        if calls.refusing == 1:
            calls.refusing = 0
            return False
        if not self._strikes(calls, perturbation):
            return False
        calls.refusing = calls.random.randint(1, longest)
        return True

    def _strikes(self, calls: _Calls, perturbation: Perturbation) -> bool:
        strength = self._strength[perturbation]
        if not strength or not calls.left or calls.random.random() >= strength:
            return False
        calls.left -= 1
        return True

    # The loop

    def choose(self, ready: int) -> int:
        strength = self._strength[Perturbation.ORDER]
        if not strength or self._order.random() >= strength:
            return 0
        return self._order.randrange(ready)

    def delay(self) -> int:
        strength = self._strength[Perturbation.ORDER]
        # Rarely: each iteration by which something is delayed costs real time.
        if not strength or self._delaying.random() >= strength * 0.1:
            return 0
        return self._delaying.randint(1, 3)


def perturbations(words: str) -> frozenset[Perturbation]:
    """The kinds named in a list such as `reads,order`; ValueError names an unknown one."""
    return frozenset(Perturbation(word.strip()) for word in words.split(","))


def kinds(perturbations: Iterable[Perturbation]) -> str:
    """The list that names these kinds."""
    return ",".join(one.value for one in Perturbation if one in perturbations)
