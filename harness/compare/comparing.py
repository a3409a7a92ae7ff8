"""A suite played at every entrant -> a cell for each script and server. Knows no terminal."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness.compare.servers import ComparedServer
from harness.compare.tags import Tags
from harness.language.problems import ScriptError
from harness.playing.files import play_file
from harness.playing.pipeline import PlayOptions
from harness.playing.verdict import Outcome, Verdict
from harness.reporting.failure_text import headline, summary
from harness.targets.target import Target


@dataclass(frozen=True, slots=True)
class Cell:
    """How one server did in one script. Plain data, for every way of writing it down."""

    file: str
    title: str
    server: str
    outcome: Outcome
    line: int = 0
    """Where the server first diverged, in `where`."""
    where: str = ""
    message: str = ""
    """What is wrong there, or why it was not played."""
    tags: tuple[str, ...] = ()
    """Where the first thing that was not kept comes from."""
    of_script: tuple[str, ...] = ()
    """Where anything in this script comes from."""
    verdict: Verdict | None = field(default=None, compare=False, repr=False)


def cell(server: str, verdict: Verdict) -> Cell:
    """What the table says of this verdict."""
    script = verdict.script
    try:
        tags = Tags(script)
        every = tags.all()
    except ScriptError:
        tags, every = None, ()
    line, where, message, broken = 0, "", "", tuple[str, ...]()
    if verdict.failures:
        first = verdict.failures[0]
        line, where, message = first.line, first.file, headline(first)
        broken = tags.at(where, line) if tags else ()
    elif verdict.outcome is Outcome.SKIPPED:
        message = verdict.reason.replace(verdict.target, server)
    elif verdict.outcome is not Outcome.PASSED:
        message = summary(verdict)
    return Cell(
        script.file,
        script.title or "",
        server,
        verdict.outcome,
        line,
        where,
        message,
        broken,
        every,
        verdict,
    )


def compare(
    paths: Sequence[Path], compared_servers: Sequence[ComparedServer], play_options: PlayOptions, jobs: int
) -> Iterator[Cell]:
    """A cell for each script and server as it comes, one script at all servers before the next."""
    if jobs < 2:
        targets = {one.name: one.choice.target() for one in compared_servers}
        for path in paths:
            for one in compared_servers:
                yield cell(one.name, play_file(path, targets[one.name], play_options))
        return
    # Spawned, not forked: a forked copy of a gevent hub is a hub that others read from too.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_take, initargs=(tuple(compared_servers),)
    ) as pool:
        waiting = [
            (one.name, pool.submit(_play_there, path, one.name, play_options))
            for path in paths
            for one in compared_servers
        ]
        try:
            for name, verdict in waiting:
                yield cell(name, verdict.result())
        finally:
            for _, verdict in waiting:
                verdict.cancel()


_there: dict[str, Target] = {}


def _take(compared_servers: tuple[ComparedServer, ...]) -> None:
    _there.update((one.name, one.choice.target()) for one in compared_servers)


def _play_there(path: Path, name: str, play_options: PlayOptions) -> Verdict:
    return play_file(path, _there[name], play_options)
