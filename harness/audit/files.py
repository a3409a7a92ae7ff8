"""Many script files audited at one target, one after another or on several processes. Knows no terminal."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from harness.audit.auditing import AuditResult, Sample, audit
from harness.language.problems import ScriptError
from harness.language.script import load
from harness.language.steps import Script
from harness.playing.pipeline import PlayOptions
from harness.playing.verdict import Outcome, Verdict
from harness.targets.choice import TargetChoice
from harness.targets.target import Target


def audit_file(
    path: Path,
    target: Target,
    play_options: PlayOptions,
    sample: Sample,
    on_play: Callable[[], None] = lambda: None,
) -> AuditResult:
    """The audit of one file; one that cannot be read or is no script is told as a verdict on it is."""
    try:
        return audit(load(path), target, play_options, sample, on_play)
    except ScriptError as wrong:
        reason = str(wrong)
    except OSError as wrong:
        reason = f"cannot read {path}: {wrong.strerror}"
    return AuditResult(
        Verdict(Script(file=str(path)), Outcome.SCRIPT_WRONG, target=str(target), reason=reason)
    )


def audit_files(
    paths: Sequence[Path],
    choice: TargetChoice,
    play_options: PlayOptions,
    sample: Sample,
    jobs: int,
    on_play: Callable[[], None],
) -> Iterator[AuditResult]:
    """An audit of each file, in order, as it comes. `on_play` is told of plays in this process only."""
    if jobs < 2:
        target = choice.target()
        for path in paths:
            yield audit_file(path, target, play_options, sample, on_play)
        return
    # Spawned, not forked: a forked copy of a gevent hub is a hub that others read from too.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_take_target, initargs=(choice,)) as pool:
        waiting = [pool.submit(_audit_there, path, play_options, sample) for path in paths]
        try:
            for one in waiting:
                yield one.result()
        finally:
            for one in waiting:
                one.cancel()


_there: list[Target] = []


def _take_target(choice: TargetChoice) -> None:
    _there.append(choice.target())


def _audit_there(path: Path, play_options: PlayOptions, sample: Sample) -> AuditResult:
    return audit_file(path, _there[0], play_options, sample)
