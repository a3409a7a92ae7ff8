"""One script audited at one target: played as it is, then once for each mutation, which it must notice. Knows no terminal."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from harness.audit.mutations import Mutation, mutations
from harness.audit.tampering import Tampering
from harness.language.steps import Script
from harness.playing.pipeline import PlayOptions, play
from harness.playing.verdict import Outcome, Verdict
from harness.stage.fence import Grade
from harness.targets.target import Target


@dataclass(frozen=True, slots=True)
class Sample:
    """How many mutations of one file are played at most, and by which seed they are drawn; None: all of them."""

    most: int | None = None
    seed: int = 0

    def of(self, found: tuple[Mutation, ...], file: str) -> tuple[Mutation, ...]:
        """The same mutations every time, in their own order, whatever else is audited and from wherever."""
        if self.most is None or len(found) <= self.most:
            return found
        drawn = random.Random(f"{self.seed} {PurePath(file).name}").sample(range(len(found)), self.most)
        return tuple(found[at] for at in sorted(drawn))


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutation that the script did not notice."""

    mutation: Mutation
    became: bytes | None = None


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What came of auditing one script."""

    clean: Verdict
    possible: int = 0
    played: int = 0
    survivors: tuple[Survivor, ...] = ()
    unsteady: tuple[Mutation, ...] = ()
    """What could not be judged: when it was played for these, the server did not say that line in that turn."""
    broken: Verdict | None = None
    """The target broke during the audit, which then was given up."""
    took_s: float = 0.0

    @property
    def file(self) -> str:
        return self.clean.file

    @property
    def left_out(self) -> int:
        """How many mutations were not played."""
        return self.possible - self.played

    @property
    def judged(self) -> bool:
        """Whether this script could be audited: it was played, it passed untouched, and the target held."""
        return self.clean.outcome is Outcome.PASSED and self.broken is None

    @property
    def sound(self) -> bool:
        """Whether it noticed everything that was tried."""
        return self.judged and not self.survivors and not self.unsteady

    @property
    def silence_unproven(self) -> bool:
        """Whether that nothing more comes was only waited for, so that a line which comes later goes unnoticed."""
        return self.clean.outcome is Outcome.PASSED and self.clean.grade is Grade.SETTLED


def audit(
    script: Script,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    sample: Sample = Sample(),  # frozen
    on_play: Callable[[], None] = lambda: None,
) -> AuditResult:
    """Play the script as it is, then with each mutation in turn; `on_play` is called after each play."""
    began = time.monotonic()
    clean = play(script, target, play_options)
    on_play()
    if clean.outcome is not Outcome.PASSED:
        return AuditResult(clean, took_s=time.monotonic() - began)
    found = mutations(clean)
    played = 0
    survivors: list[Survivor] = []
    unsteady: list[Mutation] = []
    broken: Verdict | None = None
    for mutation in sample.of(found, script.file):
        tampering = Tampering(mutation)
        verdict = play(script, target, play_options, inbox_filter=tampering)
        on_play()
        if verdict.outcome is Outcome.TARGET_BROKEN:
            broken = verdict
            break
        played += 1
        if not tampering.applied:
            unsteady.append(mutation)
        elif verdict.passed:
            survivors.append(Survivor(mutation, tampering.became))
    took_s = time.monotonic() - began
    return AuditResult(clean, len(found), played, tuple(survivors), tuple(unsteady), broken, took_s)
