"""Explore a script: play it under many schedules, and reduce the first failure to what it takes.

- Only a script that passes without any perturbation is explored, and only one that still does after a failure is reduced.
- A failure is shortened: actions are removed as long as the script still passes without perturbations and fails with
  them. What a script expects depends on all its actions, so each shorter one expects what is received without
  perturbations.
- Then the schedule is reduced: kinds of perturbation are removed as long as the shortest script still fails.
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from harness.batch import workers
from harness.interception.schedule import EVERY, Perturbation, Schedule
from harness.language.loading import check, load
from harness.language.parser import parse
from harness.language.problems import ScriptError
from harness.language.renderer import render
from harness.language.steps import (
    ActionStep,
    AnyOrder,
    Either,
    ExpectationStep,
    InTime,
    Or,
    Rule,
    Script,
    Sending,
    Setting,
    Together,
)
from harness.playing.pipeline import PlayOptions, play, unreadable
from harness.playing.verdict import Outcome, Verdict
from harness.report.lanes import as_received, lanes
from harness.report.styled_text import Line, Span, Tone, wrapped
from harness.report.text import details, failed_line, pair, server_output
from harness.report.text import report as verdict_report
from harness.report.text import summary as verdict_summary
from harness.stage.target import Target
from harness.targets.application import ApplicationTarget
from harness.targets.choice import UsageError
from harness.targets.named import Targets

TRIES = 300
"""The number of shorter scripts that are tried at most."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A script that passes as it is and fails under one schedule."""

    verdict: Verdict
    """How the whole script fails."""
    seed: int
    cause: frozenset[Perturbation]
    """The kinds without any of which the shortest script passes; all that were applied, if nothing was reduced."""
    shortest: Verdict
    """How the shortest script fails; that of the whole script, if nothing was reduced."""
    again: Outcome = Outcome.FAILED
    """The outcome when the seed was played again. Only a script that fails both times is reduced: otherwise the schedule is
    not all that decides, such as with threads, or the server cannot be played at all."""
    unperturbed: Outcome = Outcome.PASSED
    """The outcome when the script was then played without perturbations once more. If it does not pass, no schedule is needed:
    the server keeps something from one play to the next."""

    @property
    def reduced(self) -> bool:
        return self.verdict.outcome is self.again is Outcome.FAILED and self.unperturbed is Outcome.PASSED


@dataclass(frozen=True, slots=True)
class Exploration:
    """The result for one script."""

    baseline: Verdict
    """The play without perturbations."""
    runs: int
    finding: Finding | None = None

    @property
    def outcome(self) -> Outcome:
        return Outcome.FAILED if self.finding else self.baseline.outcome


def explorable(target: Target) -> ApplicationTarget:
    """The target, if its schedules can be controlled; otherwise raise UsageError."""
    if not isinstance(target, ApplicationTarget):
        raise UsageError(
            f"cannot explore {target}: only a server in this process can be scheduled (--app MODULE:FACTORY)"
        )
    return target


def explore_file(
    path: Path,
    target: Target,
    seeds: Sequence[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    perturbations: frozenset[Perturbation] = EVERY,
) -> Exploration:
    """Explore one file; a file that cannot be read, or is not a script, is a script error."""
    try:
        script = load(path)
    except ScriptError as error:
        return Exploration(unreadable(path, error), 0)
    return explore(script, explorable(target), seeds, play_options, perturbations)


def explore(
    script: Script,
    target: ApplicationTarget,
    seeds: Sequence[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    perturbations: frozenset[Perturbation] = EVERY,
) -> Exploration:
    """Play the script under the schedule of each seed, until it fails."""
    search = _Search(script, seeds)
    while search.exploration is None:
        job = search.next_job()
        assert job is not None, "with one job at a time, each result has a next job or ends the search"
        search.take(job, _done(job, target, play_options, perturbations))
    return search.exploration


def explore_files(
    paths: Iterable[Path],
    make_targets: Callable[[], Targets],
    seeds: Sequence[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    perturbations: frozenset[Perturbation] = EVERY,
    processes: int = 1,
) -> Iterator[Exploration]:
    """Explore each file at its target, in order. All files are read before the first play, so one that changes during the
    run changes nothing. Several processes divide the schedules of each script between them."""
    from concurrent.futures import FIRST_COMPLETED, Future, wait

    searches = deque(_search_of(path, seeds) for path in paths)
    work = partial(_work, play_options=play_options, perturbations=perturbations)
    # One more than there are processes, so that none has to wait for its next job. When a script fails, the parts that
    # have been started after the one that fails are wasted.
    most = processes + 1 if processes > 1 else 1
    with workers(work, make_targets, processes) as start:
        started: dict[Future[_Played | Finding], tuple[_Search, _Part | _Reduction]] = {}
        while searches:
            for search in searches:
                while len(started) < most and (job := search.next_job()) is not None:
                    started[start(job)] = search, job
            for future in wait(started, return_when=FIRST_COMPLETED).done:
                search, job = started.pop(future)
                search.take(job, future.result())
            while searches and (exploration := searches[0].exploration) is not None:
                searches.popleft()
                yield exploration


# --- the search: one script, in parts -------------------------------------------------------------------------

SEEDS_AT_ONCE = 5
"""The schedules of one script are divided into parts of this size."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Play a script under some of its schedules."""

    number: int
    """The first, 0, also plays it without perturbations."""
    script: Script
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Played:
    """The result of a part."""

    baseline: Verdict | None
    runs: int
    failed: Verdict | None
    """The failure under the last schedule that was played."""


@dataclass(frozen=True, slots=True)
class _Reduction:
    """Reduce the first failure of a script."""

    failed: Verdict
    seed: int

    @property
    def script(self) -> Script:
        return self.failed.script


class _Search:
    """The search in one script, divided into jobs that can be done in any order and in other processes.

    - The jobs of a script are the parts, then the reduction of its failure.
    - Parts are started in order. Their results are taken in any order, and read in order: so the first failure is the one
      that a single process would find.
    - A baseline that does not pass ends the search, and so does the last part. A part that fails ends the starting of others.
    """

    def __init__(self, script: Script, seeds: Sequence[int]) -> None:
        starts = range(0, max(1, len(seeds)), SEEDS_AT_ONCE)
        parts = [_Part(number, script, seeds[at : at + SEEDS_AT_ONCE]) for number, at in enumerate(starts)]
        self._to_start = deque[_Part | _Reduction](parts)
        self._unread = deque(parts)
        """The parts whose results have not been read; empty when it is known what the parts find."""
        self._results: dict[int, _Played] = {}
        """The results that wait for that of an earlier part, by the number of the part."""
        self._baseline: Verdict | None = None
        self._runs = 0
        self.exploration: Exploration | None = None

    def next_job(self) -> _Part | _Reduction | None:
        """What can be started now."""
        return self._to_start.popleft() if self._to_start else None

    def take(self, job: _Part | _Reduction, result: _Played | Finding) -> None:
        """Go on with the result of a job."""
        if self._baseline is not None and isinstance(result, Finding):
            self.exploration = Exploration(self._baseline, self._runs, result)
        elif isinstance(job, _Part) and isinstance(result, _Played) and self._unread:
            self._results[job.number] = result
            if result.failed is not None:
                self._to_start.clear()  # they are all later
            self._read_in_order()

    def _read_in_order(self) -> None:
        while self._unread and self._unread[0].number in self._results:
            part = self._unread.popleft()
            result = self._results.pop(part.number)
            self._baseline = self._baseline or result.baseline
            self._runs += result.runs
            if result.failed is not None:
                self._unread.clear()
                self._to_start.append(_Reduction(result.failed, part.seeds[result.runs - 1]))
            elif self._baseline is not None and not (self._baseline.passed and self._unread):
                self._unread.clear()
                self._to_start.clear()
                self.exploration = Exploration(self._baseline, self._runs)


def _search_of(path: Path, seeds: Sequence[int]) -> _Search:
    """The search in this file; it is over if the file cannot be read."""
    try:
        return _Search(load(path), seeds)
    except ScriptError as error:
        search = _Search(Script(file=str(path)), ())
        search.exploration = Exploration(unreadable(path, error), 0)
        return search


def _work(
    job: _Part | _Reduction,
    targets: Targets,
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> _Played | Finding:
    return _done(job, explorable(targets.of_script(job.script)), play_options, perturbations)


def _done(
    job: _Part | _Reduction,
    target: ApplicationTarget,
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> _Played | Finding:
    """The result of a job."""
    if isinstance(job, _Reduction):
        return _finding(job.failed, target, job.seed, play_options, perturbations)
    baseline = play(job.script, target, play_options) if job.number == 0 else None
    if baseline is not None and not baseline.passed:
        return _Played(baseline, 0, None)
    runs = 0
    for runs, seed in enumerate(job.seeds, 1):
        verdict = play(job.script, target.intercepted_by(Schedule(seed, perturbations)), play_options)
        if not verdict.passed:
            return _Played(baseline, runs, verdict)
    return _Played(baseline, runs, None)


def _finding(
    verdict: Verdict,
    target: ApplicationTarget,
    seed: int,
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> Finding:
    def under(script: Script, kinds: frozenset[Perturbation]) -> Verdict:
        return play(
            script, target.intercepted_by(Schedule(seed, perturbations, perturbations - kinds)), play_options
        )

    def fails(script: Script) -> bool:
        return under(script, perturbations).outcome is Outcome.FAILED

    again = under(verdict.script, perturbations).outcome
    if not verdict.outcome is again is Outcome.FAILED:
        return Finding(verdict, seed, perturbations, verdict, again)
    unperturbed = play(verdict.script, target, play_options).outcome
    if unperturbed is not Outcome.PASSED:
        return Finding(verdict, seed, perturbations, verdict, again, unperturbed)
    script = Shrinker(target, fails, play_options).shortest(verdict.script, verdict.failures[0].turn)
    cause = perturbations
    for kind in sorted(perturbations, key=lambda one: one.value):
        if under(script, cause - {kind}).outcome is Outcome.FAILED:
            cause -= {kind}
    shortest = under(script, cause)
    if not shortest.failures:
        return Finding(verdict, seed, perturbations, verdict, shortest.outcome)
    return Finding(verdict, seed, cause, shortest)


# --- shortening ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn whose definitions, repeats and includes are expanded."""

    actions: tuple[ActionStep, ...]
    expectations: tuple[ExpectationStep, ...]


class Shrinker:
    """Delta debugging on the actions of a script. `baseline` is the target without perturbations."""

    def __init__(
        self, baseline: Target, fails: Callable[[Script], bool], play_options: PlayOptions, tries: int = TRIES
    ) -> None:
        self._baseline = baseline
        self._fails = fails
        self._play_options = play_options
        self._left = tries

    def shortest(self, script: Script, failed_turn: int) -> Script:
        """The shortest script found, perhaps the script itself; nothing after the failed turn is needed."""
        best = self._try(_expanded(script)[:failed_turn], script) or script
        while True:
            before = best
            best = self._fewer_actions(self._fewer_clients(best))
            if best is before:
                return best

    def _fewer_clients(self, script: Script) -> Script:
        clients = {
            name: None for turn in _expanded(script) for action in turn.actions for name in _clients(action)
        }
        for client in reversed(clients):
            script = self._try(_without_client(_expanded(script), client), script) or script
        return script

    def _fewer_actions(self, script: Script) -> Script:
        """Remove half of the actions, then quarters, down to single ones; the last ones first."""
        size = max(1, count_actions(script) // 2)
        while True:
            end = count_actions(script)
            while end > 0:
                turns = _without_actions(_expanded(script), max(0, end - size), end)
                script = self._try(turns, script) or script
                end = min(end - size, count_actions(script))
            if size == 1:
                return script
            size //= 2

    def _try(self, turns: Sequence[_Turn], like: Script) -> Script | None:
        """The script of these turns, if it still fails."""
        if not turns or self._left <= 0:
            return None
        self._left -= 1
        try:
            script = self._expecting_baseline(_script_of(turns, like))
        except ScriptError:
            return None  # such as a send by a client whose connection was removed
        return script if script is not None and self._fails(script) else None

    def _expecting_baseline(self, script: Script) -> Script | None:
        """The script, expecting what is received without perturbations; None if that cannot be expected."""
        verdict = play(script, self._baseline, self._play_options, keep_going=True)
        if verdict.passed:
            return script
        if verdict.outcome is not Outcome.FAILED:
            return None
        again = _script_of(_expecting_received(_expanded(script), verdict), script)
        return again if play(again, self._baseline, self._play_options).passed else None


def _expanded(script: Script) -> tuple[_Turn, ...]:
    return tuple(
        _Turn(
            tuple(located.step for located in turn.actions),
            tuple(located.step for located in turn.expectations),
        )
        for turn in check(script).turns
    )


def _script_of(turns: Iterable[_Turn], like: Script) -> Script:
    """A script of these turns with the settings of another, parsed so that its steps have lines."""
    kinds = [kind for kind in get_args(Setting) if kind not in get_args(Rule)]
    settings: list[Any] = [*map(like.setting, kinds), *(rule for rule, _ in like.rules())]
    header = tuple(setting for setting in settings if setting is not None)
    body = tuple(step for turn in turns for step in (*turn.actions, *turn.expectations))
    return parse(render(Script(header, body)), like.file)


def count_actions(script: Script) -> int:
    """The number of actions of the expanded script."""
    return sum(len(turn.actions) for turn in _expanded(script))


def _expecting_received(turns: Sequence[_Turn], verdict: Verdict) -> list[_Turn]:
    failed = {failure.turn for failure in verdict.failures}
    out = []
    for turn, played in zip(turns, verdict.turns, strict=False):
        if played.number in failed:
            text = "".join(f"{line}\n" for line in as_received(played, verdict.eol))
            received = tuple(step for step in parse(text).body if isinstance(step, ExpectationStep))
            turn = replace(turn, expectations=received)
        out.append(turn)
    return out


def _without_actions(turns: Sequence[_Turn], start: int, end: int) -> tuple[_Turn, ...]:
    """The turns without the actions from `start` to `end`, counted over all turns."""
    out: list[_Turn] = []
    at = 0
    for turn in turns:
        kept = tuple(action for number, action in enumerate(turn.actions, at) if not start <= number < end)
        at += len(turn.actions)
        if kept:
            out.append(replace(turn, actions=kept))
    return tuple(out)


def _without_client(turns: Iterable[_Turn], client: str) -> tuple[_Turn, ...]:
    """The turns as if this client had never connected."""
    out = []
    for turn in turns:
        actions = tuple(kept for action in turn.actions for kept in _action_without(action, client))
        if actions:
            expectations = (kept for step in turn.expectations for kept in _expectation_without(step, client))
            out.append(_Turn(actions, tuple(expectations)))
    return tuple(out)


def _action_without(action: ActionStep, client: str) -> tuple[ActionStep, ...]:
    if isinstance(action, Together):
        left = tuple(step for step in action.body if getattr(step, "client", "") != client)
        return (Together(left, line=action.line),) if left else ()
    return () if client in _clients(action) else (action,)


def _expectation_without(step: ExpectationStep, client: str) -> tuple[ExpectationStep, ...]:
    if isinstance(step, (Either, Or, InTime)):
        body: tuple[Any, ...] = tuple(one for one in step.body if getattr(one, "client", "") != client)
        return (replace(step, body=body),) if body else ()
    if isinstance(step, AnyOrder):
        names = tuple(name for name in step.same_for if name != client)
        left = tuple(one for one in step.body if getattr(one, "client", "") != client)
        if not left or (step.same_for and len(names) < 2):
            return ()  # what is received takes its place
        return (AnyOrder(left, names, line=step.line),)
    return () if getattr(step, "client", "") == client else (step,)


def _clients(action: ActionStep) -> tuple[str, ...]:
    if isinstance(action, Together):
        return tuple(step.client for step in action.body if isinstance(step, Sending))
    client = getattr(action, "client", None)
    return (client,) if client else ()


# --- the report ---------------------------------------------------------------------------------------------


def report(explored: Exploration, columns: int | None = None) -> Iterator[Line]:
    """Everything about one script; nothing if it passed."""
    if explored.finding is not None:
        yield from _finding_report(explored.finding, columns)
    elif not explored.outcome.expected:
        yield [Span("not explored, because it does not pass without perturbations:")]
        yield from verdict_report(explored.baseline, columns)


def again(command: Iterable[str]) -> Iterator[Line]:
    """The end of a report: the command that plays the schedule that failed."""
    yield []
    yield [Span(f"  again: {shlex.join(command)}")]


def headline(explored: Exploration) -> str:
    """The result in one line."""
    if explored.finding is None:
        return verdict_summary(explored.baseline)
    return f"under seed {explored.finding.seed}: {verdict_summary(explored.finding.shortest)}"


def _finding_report(finding: Finding, columns: int | None) -> Iterator[Line]:
    shortest = finding.shortest
    if not finding.reduced:
        yield from wrapped([Span(f"under seed {finding.seed}{_when_played_again(finding)}:")], columns)
        yield from verdict_report(finding.verdict, columns)
        return
    head = [
        failed_line(f"{finding.verdict.file} under seed {finding.seed}", shortest.failures[0]),
        pair("cause", "; ".join(one.description for one in Perturbation if one in finding.cause)),
        *details(shortest.failures[0], shortest, columns),
    ]
    for line in head:
        yield from wrapped(line, columns)
    yield []
    actions = f"{count_actions(shortest.script)} of {count_actions(finding.verdict.script)} actions"
    yield [Span(f"  the shortest script that still fails, with {actions}:", Tone.STRONG)]
    yield []
    yield from (
        [Span(f"    {line}")] if line else [] for line in render(shortest.script).rstrip("\n").split("\n")
    )
    yield []
    yield from lanes(shortest, columns=columns)
    for line in server_output(shortest):
        yield from wrapped(line, columns)


def _when_played_again(finding: Finding) -> str:
    if finding.unperturbed is not Outcome.PASSED:
        return (
            f", and then without perturbations too ({finding.unperturbed.value}), so something else decides, such as what the "
            "server remembers of earlier plays"
        )
    if finding.again is finding.verdict.outcome:
        return ""
    if finding.again is Outcome.PASSED:
        return ", but not each time that it was played under that seed"
    return f", with another outcome when it was played again ({finding.again.value})"
