"""Who takes part in a comparison: a name, a target, and what it has that a script may need. Knows no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.targets.choice import TargetChoice, UsageError


@dataclass(frozen=True, slots=True)
class ComparedServer:
    """One implementation, as options name it; it can be handed to another process."""

    name: str
    choice: TargetChoice


def named(text: str) -> tuple[str, str]:
    """NAME=REST in two."""
    name, equals, rest = text.partition("=")
    if not equals or not name or not rest or not name.replace("-", "_").replace(".", "_").isidentifier():
        raise UsageError(f"{text!r} names nothing; expected NAME={'CMD'!r}, such as mine='./server {{port}}'")
    return name, rest


def compared_servers(
    choices: Sequence[tuple[str, TargetChoice]], features: Sequence[str]
) -> tuple[ComparedServer, ...]:
    """The entrants in the order in which they were named; `features` are written NAME='one two'."""
    names = [name for name, _ in choices]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice; each server needs a name of its own")
    have = _features(features, names)
    return tuple(
        ComparedServer(name, replace(choice, features=have.get(name, choice.features)))
        for name, choice in choices
    )


def _features(texts: Sequence[str], names: Sequence[str]) -> Mapping[str, frozenset[str]]:
    have: dict[str, frozenset[str]] = {}
    for text in texts:
        name, words = named(text)
        if name not in names:
            raise UsageError(f"features of {name!r}, which is none of {', '.join(names)}")
        have[name] = have.get(name, frozenset()) | frozenset(words.replace(",", " ").split())
    return have
