"""Many script files played at one target, one after another or on several processes. Knows no terminal."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from harness.language.problems import ScriptError
from harness.language.script import is_library, load
from harness.language.steps import Script
from harness.playing.pipeline import PlayOptions, play
from harness.playing.verdict import Outcome, Verdict
from harness.targets.target import Target

if TYPE_CHECKING:
    from harness.targets.choice import TargetChoice


def scripts_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and of folders every *.chat below them that has steps of its own."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        yield from (file for file in sorted(path.rglob("*.chat")) if not _is_library(file))


def _is_library(path: Path) -> bool:
    """Definitions alone, for others to include: nothing to play."""
    try:
        return is_library(load(path))
    except (ScriptError, OSError):
        return False


def play_file(path: Path, target: Target, play_options: PlayOptions = PlayOptions()) -> Verdict:  # noqa: B008  # frozen
    """The verdict on one file; a file that cannot be read or is no script is a verdict too."""
    try:
        return play(load(path), target, play_options)
    except ScriptError as wrong:
        return Verdict(Script(file=str(path)), Outcome.SCRIPT_WRONG, target=str(target), reason=str(wrong))
    except OSError as wrong:
        reason = f"cannot read {path}: {wrong.strerror}"
        return Verdict(Script(file=str(path)), Outcome.SCRIPT_WRONG, target=str(target), reason=reason)


def play_files(
    paths: Iterable[Path], choice: TargetChoice, play_options: PlayOptions, jobs: int
) -> Iterator[Verdict]:
    """A verdict for each file, in order, as it comes."""
    if jobs < 2:
        target = choice.target()
        for path in paths:
            yield play_file(path, target, play_options)
        return
    # Spawned, not forked: a forked copy of a gevent hub is a hub that others read from too.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_take_target, initargs=(choice,)) as pool:
        waiting = [pool.submit(_play_there, path, play_options) for path in paths]
        try:
            for one in waiting:
                yield one.result()
        finally:
            for one in waiting:
                one.cancel()


_there: list[Target] = []


def _take_target(choice: TargetChoice) -> None:
    _there.append(choice.target())


def _play_there(path: Path, play_options: PlayOptions) -> Verdict:
    return play_file(path, _there[0], play_options)
