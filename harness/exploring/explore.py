"""Plays one script under many schedules; what fails is made as short, and the schedule as tame, as it can be.

Knows no command line and no terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.interception.schedule import EVERY, Perturbation, Schedule
from harness.language.flattening import flat
from harness.language.problems import ScriptError
from harness.language.script import load
from harness.language.steps import Script
from harness.playing.files import play_file
from harness.playing.pipeline import PlayOptions, play
from harness.playing.shrinking import Shrinker
from harness.playing.verdict import Outcome, Verdict
from harness.targets.choice import UsageError
from harness.targets.inprocess import InProcess
from harness.targets.target import Target


@dataclass(frozen=True, slots=True)
class Finding:
    """A script that passes as it is and fails under one schedule."""

    verdict: Verdict
    """How the whole script fails."""
    seed: int
    perturbations: frozenset[Perturbation]
    """What it takes: without any of these, the shortest script passes."""
    shortest: Verdict
    """How the shortest script that still fails does so."""

    @property
    def steps(self) -> tuple[int, int]:
        """How many things are done in the shortest script, and in the whole one."""
        return _action_count(self.shortest.script), _action_count(self.verdict.script)


@dataclass(frozen=True, slots=True)
class ExplorationResult:
    """What came of one script."""

    baseline: Verdict
    """Played as it is. Only what passes so is explored."""
    runs: int
    finding: Finding | None = None

    @property
    def passed(self) -> bool:
        return self.baseline.outcome in (Outcome.PASSED, Outcome.SKIPPED) and self.finding is None


def explorable(target: Target) -> InProcess:
    """The target, if schedules can be made for it; NoTarget says why not."""
    if isinstance(target, InProcess):
        return target
    raise UsageError(
        f"{target} cannot be explored: schedules are made for gevent servers in this process (--app MODULE:FACTORY)"
    )


def explore_file(
    path: Path,
    target: InProcess,
    seeds: Iterable[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    perturbations: frozenset[Perturbation] = EVERY,
) -> ExplorationResult:
    """Explore one file; one that cannot be read or is no script is told as that."""
    try:
        script = load(path)
    except (ScriptError, OSError):
        return ExplorationResult(play_file(path, target, play_options), 0)
    return explore(script, target, seeds, play_options, perturbations)


def explore(
    script: Script,
    target: InProcess,
    seeds: Iterable[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    perturbations: frozenset[Perturbation] = EVERY,
) -> ExplorationResult:
    """Play the script under the schedule of each seed, up to the first under which it fails."""
    baseline = play(script, target, play_options)
    if not baseline.passed:
        return ExplorationResult(baseline, 0)
    runs = 0
    for runs, (seed, verdict) in enumerate(_played(script, target, seeds, play_options, perturbations), 1):
        if not verdict.passed:
            return ExplorationResult(
                baseline, runs, _finding(verdict, target, seed, play_options, perturbations)
            )
    return ExplorationResult(baseline, runs)


def _played(
    script: Script,
    target: InProcess,
    seeds: Iterable[int],
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> Iterator[tuple[int, Verdict]]:
    for seed in seeds:
        yield seed, play(script, target.intercepted_by(Schedule(seed, perturbations)), play_options)


def _finding(
    verdict: Verdict,
    target: InProcess,
    seed: int,
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> Finding:
    def under(script: Script, perturbations: frozenset[Perturbation]) -> Verdict:
        return play(script, target.intercepted_by(Schedule(seed, perturbations)), play_options)

    def fails(script: Script) -> bool:
        return under(script, perturbations).outcome is Outcome.FAILED

    script = verdict.script
    if verdict.failures and fails(script):
        script = Shrinker(target, fails, play_options).shortest(script, verdict.failures[0].turn)
    needed = perturbations
    for perturbation in sorted(perturbations, key=lambda one: one.value):
        if under(script, needed - {perturbation}).outcome is Outcome.FAILED:
            needed -= {perturbation}
    return Finding(verdict, seed, needed, under(script, needed))


def _action_count(script: Script) -> int:
    return sum(len(turn.actions) for turn in flat(script))
