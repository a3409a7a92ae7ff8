"""Explore a script: play it under many schedules, and reduce the first failure to what it takes.

- Only a script that passes without any perturbation is explored.
- A failure is shortened: actions are removed as long as the script still passes without perturbations and fails with
  them. What a script expects depends on all its actions, so each shorter one expects what is received without
  perturbations.
- Then the schedule is reduced: kinds of perturbation are removed as long as the shortest script still fails.
"""

from __future__ import annotations

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
from harness.playing.pipeline import PlayOptions, play, play_file
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
    """Without any of these, the shortest script passes."""
    shortest: Verdict
    """How the shortest script fails."""
    fails_again: bool = True
    """False if the schedule is not all that decides, such as with threads; then nothing can be left out."""


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
    except ScriptError:
        return Exploration(play_file(path, target, play_options), 0)
    return explore(script, explorable(target), seeds, play_options, perturbations)


def explore(
    script: Script,
    target: ApplicationTarget,
    seeds: Sequence[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    perturbations: frozenset[Perturbation] = EVERY,
) -> Exploration:
    """Play the script under the schedule of each seed, until it fails."""
    baseline = play(script, target, play_options)
    if not baseline.passed:
        return Exploration(baseline, 0)
    runs, failed = _first_failure(script, target, seeds, play_options, perturbations)
    if failed is None:
        return Exploration(baseline, runs)
    return Exploration(baseline, runs, _finding(failed, target, seeds[runs - 1], play_options, perturbations))


def _first_failure(
    script: Script,
    target: ApplicationTarget,
    seeds: Iterable[int],
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> tuple[int, Verdict | None]:
    """How many schedules were played, and the failure under the last of them."""
    runs = 0
    for runs, seed in enumerate(seeds, 1):
        verdict = play(script, target.intercepted_by(Schedule(seed, perturbations)), play_options)
        if not verdict.passed:
            return runs, verdict
    return runs, None


def _finding(
    verdict: Verdict,
    target: ApplicationTarget,
    seed: int,
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> Finding:
    def under(script: Script, kinds: frozenset[Perturbation]) -> Verdict:
        return play(script, target.intercepted_by(Schedule(seed, kinds)), play_options)

    def fails(script: Script) -> bool:
        return under(script, perturbations).outcome is Outcome.FAILED

    again = under(verdict.script, perturbations).outcome
    if again is not Outcome.FAILED or not verdict.failures:
        return Finding(verdict, seed, perturbations, verdict, again is verdict.outcome)
    script = Shrinker(target, fails, play_options).shortest(verdict.script, verdict.failures[0].turn)
    cause = perturbations
    for kind in sorted(perturbations, key=lambda one: one.value):
        if under(script, cause - {kind}).outcome is Outcome.FAILED:
            cause -= {kind}
    shortest = under(script, cause)
    if not shortest.failures:
        return Finding(verdict, seed, perturbations, verdict, fails_again=False)
    return Finding(verdict, seed, cause, shortest)


# --- many scripts, several processes ------------------------------------------------------------------------

SEEDS_AT_ONCE = 5
"""The schedules of one script are divided into parts of this size."""


@dataclass(frozen=True, slots=True)
class _Search:
    """Play a script under some of its schedules."""

    path: Path
    seeds: range
    first: bool
    """Also play it without perturbations."""


@dataclass(frozen=True, slots=True)
class _Searched:
    baseline: Verdict | None
    runs: int
    failed: Verdict | None


@dataclass(frozen=True, slots=True)
class _Reduce:
    """Reduce the first failure of a script."""

    path: Path
    seed: int
    failed: Verdict


class _Script:
    """A script whose schedules are divided. Its first failure is the one that a single process would find."""

    def __init__(self, path: Path, seeds: range) -> None:
        starts = range(0, max(1, len(seeds)), SEEDS_AT_ONCE)
        parts = [_Search(path, seeds[at : at + SEEDS_AT_ONCE], not at) for at in starts]
        self._to_start = deque[_Search | _Reduce](parts)
        self._in_order = deque(parts)
        """Those whose results have not yet been read."""
        self._results: dict[_Search, _Searched] = {}
        self._baseline: Verdict | None = None
        self._runs = 0
        self.exploration: Exploration | None = None

    def next_job(self) -> _Search | _Reduce | None:
        """What can be started now."""
        return self._to_start.popleft() if self._to_start else None

    def take(self, job: _Search | _Reduce, result: _Searched | Finding) -> None:
        """Go on with the result of a job."""
        if self._baseline is not None and isinstance(result, Finding):
            self.exploration = Exploration(self._baseline, self._runs, result)
        elif isinstance(job, _Search) and isinstance(result, _Searched):
            self._results[job] = result
            if result.failed is not None or not (result.baseline is None or result.baseline.passed):
                self._to_start.clear()  # they are all later
            self._read_in_order()

    def _read_in_order(self) -> None:
        while self._in_order and self._in_order[0] in self._results:
            job = self._in_order.popleft()
            result = self._results.pop(job)
            self._baseline = self._baseline or result.baseline
            self._runs += result.runs
            if result.failed is not None:
                self._in_order.clear()
                self._to_start.append(_Reduce(job.path, job.seeds[result.runs - 1], result.failed))
                return
            if self._baseline is not None and not (self._baseline.passed and self._in_order):
                self.exploration = Exploration(self._baseline, self._runs)
                self._in_order.clear()


def explore_files(
    paths: Iterable[Path],
    make_targets: Callable[[], Targets],
    seeds: range,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    perturbations: frozenset[Perturbation] = EVERY,
    processes: int = 1,
) -> Iterator[Exploration]:
    """Explore each file at its target, in order. Several processes divide the schedules of each script between them, and
    find the same."""
    from concurrent.futures import FIRST_COMPLETED, Future, wait

    scripts = deque(_Script(path, seeds) for path in paths)
    work = partial(_work, play_options=play_options, perturbations=perturbations)
    # One more, so that none has to wait for its next job. Of a script that fails, so many parts are played in vain.
    most = processes + 1 if processes > 1 else 1
    with workers(work, make_targets, processes) as start:
        started: dict[Future[_Searched | Finding], tuple[_Script, _Search | _Reduce]] = {}
        while scripts:
            for script in scripts:
                while len(started) < most and (job := script.next_job()) is not None:
                    started[start(job)] = script, job
            for future in wait(started, return_when=FIRST_COMPLETED).done:
                script, job = started.pop(future)
                script.take(job, future.result())
            while scripts and (exploration := scripts[0].exploration) is not None:
                scripts.popleft()
                yield exploration


def _work(
    job: _Search | _Reduce,
    targets: Targets,
    play_options: PlayOptions,
    perturbations: frozenset[Perturbation],
) -> _Searched | Finding:
    target = targets.of(job.path)
    if isinstance(job, _Reduce):
        return _finding(job.failed, explorable(target), job.seed, play_options, perturbations)
    try:
        script = load(job.path)
    except ScriptError:
        return _Searched(play_file(job.path, target, play_options), 0, None)
    target = explorable(target)
    baseline = play(script, target, play_options) if job.first else None
    if baseline is not None and not baseline.passed:
        return _Searched(baseline, 0, None)
    return _Searched(baseline, *_first_failure(script, target, job.seeds, play_options, perturbations))


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


def headline(explored: Exploration) -> str:
    """The result in one line."""
    if explored.finding is None:
        return verdict_summary(explored.baseline)
    return f"under seed {explored.finding.seed}: {verdict_summary(explored.finding.shortest)}"


def _finding_report(finding: Finding, columns: int | None) -> Iterator[Line]:
    shortest = finding.shortest
    if not (finding.fails_again and shortest.failures):
        once = "" if finding.fails_again else ", but not each time that it was played under that seed"
        yield from wrapped([Span(f"under seed {finding.seed}{once}:")], columns)
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
