"""Plays one script under many schedules; what fails is made as short, and the schedule as tame, as it can be.

Knows no command line and no terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.exploring.schedule import EVERY, Schedule, Whim
from harness.language.errors import ScriptError
from harness.language.flattening import flat
from harness.language.script import load
from harness.language.steps import Script
from harness.playing.player import Manner, play
from harness.playing.running import play_file
from harness.playing.shrinking import Shrinking
from harness.playing.verdict import Outcome, Verdict
from harness.targets.asking import Target
from harness.targets.choosing import NoTarget
from harness.targets.inprocess import InProcess


@dataclass(frozen=True, slots=True)
class Finding:
    """A script that passes as it is and fails under one schedule."""

    verdict: Verdict
    """How the whole script fails."""
    seed: int
    whims: frozenset[Whim]
    """What it takes: without any of these, the shortest script passes."""
    shortest: Verdict
    """How the shortest script that still fails does so."""

    @property
    def steps(self) -> tuple[int, int]:
        """How many things are done in the shortest script, and in the whole one."""
        return _doings(self.shortest.script), _doings(self.verdict.script)


@dataclass(frozen=True, slots=True)
class Explored:
    """What came of one script."""

    calm: Verdict
    """Played as it is. Only what passes so is explored."""
    runs: int
    finding: Finding | None = None

    @property
    def passed(self) -> bool:
        return self.calm.outcome in (Outcome.PASSED, Outcome.SKIPPED) and self.finding is None


def explorable(target: Target) -> InProcess:
    """The target, if schedules can be made for it; NoTarget says why not."""
    if isinstance(target, InProcess):
        return target
    raise NoTarget(
        f"{target} cannot be explored: schedules are made for gevent servers in this process (--app MODULE:FACTORY)"
    )


def explore_file(
    path: Path,
    target: InProcess,
    seeds: Iterable[int],
    manner: Manner = Manner(),  # noqa: B008  # frozen
    whims: frozenset[Whim] = EVERY,
) -> Explored:
    """Explore one file; one that cannot be read or is no script is told as that."""
    try:
        script = load(path)
    except (ScriptError, OSError):
        return Explored(play_file(path, target, manner), 0)
    return explore(script, target, seeds, manner, whims)


def explore(
    script: Script,
    target: InProcess,
    seeds: Iterable[int],
    manner: Manner = Manner(),  # noqa: B008  # frozen
    whims: frozenset[Whim] = EVERY,
) -> Explored:
    """Play the script under the schedule of each seed, up to the first under which it fails."""
    calm = play(script, target, manner)
    if not calm.passed:
        return Explored(calm, 0)
    runs = 0
    for runs, (seed, verdict) in enumerate(_played(script, target, seeds, manner, whims), 1):
        if not verdict.passed:
            return Explored(calm, runs, _finding(verdict, target, seed, manner, whims))
    return Explored(calm, runs)


def _played(
    script: Script, target: InProcess, seeds: Iterable[int], manner: Manner, whims: frozenset[Whim]
) -> Iterator[tuple[int, Verdict]]:
    for seed in seeds:
        yield seed, play(script, target.swayed(Schedule(seed, whims)), manner)


def _finding(
    verdict: Verdict, target: InProcess, seed: int, manner: Manner, whims: frozenset[Whim]
) -> Finding:
    def under(script: Script, whims: frozenset[Whim]) -> Verdict:
        return play(script, target.swayed(Schedule(seed, whims)), manner)

    def fails(script: Script) -> bool:
        return under(script, whims).outcome is Outcome.FAILED

    script = verdict.script
    if verdict.failures and fails(script):
        script = Shrinking(target, fails, manner).shortest(script, verdict.failures[0].turn)
    needed = whims
    for whim in sorted(whims, key=lambda one: one.value):
        if under(script, needed - {whim}).outcome is Outcome.FAILED:
            needed -= {whim}
    return Finding(verdict, seed, needed, under(script, needed))


def _doings(script: Script) -> int:
    return sum(len(turn.doings) for turn in flat(script))
