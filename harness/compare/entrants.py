"""Who takes part in a comparison: a name, a target, and what it has that a script may need. Knows no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.asking import Ask, Drive, Running, Target
from harness.choosing import NoTarget, TargetChoice
from harness.isolation import World


@dataclass(frozen=True, slots=True)
class Entrant:
    """One implementation, as options name it; it can be handed to another process."""

    name: str
    choice: TargetChoice
    features: frozenset[str] = frozenset()

    def target(self) -> Target:
        """The target itself, with its features."""
        return Equipped(self.choice.target(), self.features, self.name)


@dataclass(frozen=True, slots=True)
class Equipped:
    """A target that has more than its kind tells of: which parts of a protocol it speaks, say."""

    target: Target
    more: frozenset[str]
    name: str = ""

    @property
    def features(self) -> frozenset[str]:
        return self.target.features | self.more

    def __str__(self) -> str:
        return self.name or str(self.target)

    def world(self) -> AbstractContextManager[World]:
        return self.target.world()

    def start(self, ask: Ask, drive: Drive) -> AbstractContextManager[Running]:
        return self.target.start(ask, drive)


def named(text: str) -> tuple[str, str]:
    """NAME=REST in two."""
    name, equals, rest = text.partition("=")
    if not equals or not name or not rest or not name.replace("-", "_").replace(".", "_").isidentifier():
        raise NoTarget(f"{text!r} names nothing; expected NAME={'CMD'!r}, such as mine='./server {{port}}'")
    return name, rest


def entrants(choices: Sequence[tuple[str, TargetChoice]], features: Sequence[str]) -> tuple[Entrant, ...]:
    """The entrants in the order in which they were named; `features` are written NAME='one two'."""
    names = [name for name, _ in choices]
    for name in names:
        if names.count(name) > 1:
            raise NoTarget(f"{name} is named twice; each server needs a name of its own")
    have = _features(features, names)
    return tuple(Entrant(name, choice, have.get(name, frozenset())) for name, choice in choices)


def _features(texts: Sequence[str], names: Sequence[str]) -> Mapping[str, frozenset[str]]:
    have: dict[str, frozenset[str]] = {}
    for text in texts:
        name, words = named(text)
        if name not in names:
            raise NoTarget(f"features of {name!r}, which is none of {', '.join(names)}")
        have[name] = have.get(name, frozenset()) | frozenset(words.replace(",", " ").split())
    return have
