"""Audit a script: play it unchanged, then once for each mutation; report those that it did not notice.

Mutations are made between what was received and what is judged, so every kind of target can be audited.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePath

from harness.audit.mutations import Mutation, MutationKind, Mutator, mutations, optional_lines
from harness.language.loading import load
from harness.language.patterns import ANONYMOUS
from harness.language.patterns import Kind as CaptureKind
from harness.language.problems import ScriptError
from harness.language.steps import ReceivePattern, ReceiveUntil, Script
from harness.playing.pipeline import PlayOptions, play, play_file
from harness.playing.verdict import Outcome, Tolerated, Verdict
from harness.report.lanes import received_text
from harness.report.styled_text import Line, Span, Tone, count, wrapped
from harness.report.text import counted
from harness.report.text import report as verdict_report
from harness.report.text import summary as verdict_summary
from harness.stage.fence import SETTLE_S, Grade
from harness.stage.target import Target

SHOWN = 3
"""The number of mutations that are listed for one line of a script."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How many mutations of one file are played, selected by the seed; None: all."""

    most: int | None = None
    seed: int = 0

    def of(self, found: tuple[Mutation, ...], file: str) -> tuple[Mutation, ...]:
        """The selected mutations, which depend only on the seed, the file's name and its mutations."""
        if self.most is None or len(found) <= self.most:
            return found
        drawn = random.Random(f"{self.seed} {PurePath(file).name}").sample(range(len(found)), self.most)
        return tuple(found[at] for at in sorted(drawn))


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutation that the script did not notice."""

    mutation: Mutation
    altered: bytes | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """The result for one script."""

    unchanged: Verdict
    possible: int = 0
    """The number of mutations, of which a sample can leave some out."""
    played: int = 0
    survivors: tuple[Survivor, ...] = ()
    unstable: tuple[Mutation, ...] = ()
    """Mutations without a result: in the replay the server did not send the line in that turn."""
    target_error: Verdict | None = None
    """The target failed during the audit, which ended it."""

    @property
    def file(self) -> str:
        return self.unchanged.file

    @property
    def conclusive(self) -> bool:
        """Whether the script passed unchanged and the target lasted."""
        return self.unchanged.passed and self.target_error is None

    @property
    def outcome(self) -> Outcome:
        """PASSED if every mutation was noticed, FAILED if one survived; an error if the audit proves nothing."""
        if self.target_error is not None or self.unstable:
            return Outcome.TARGET_ERROR
        if self.unchanged.outcome is Outcome.FAILED:
            return Outcome.SCRIPT_ERROR
        return Outcome.FAILED if self.survivors else self.unchanged.outcome


def audit_file(
    path: Path,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    sample: Sample = Sample(),  # frozen
    on_play: Callable[[], None] = lambda: None,
) -> Audit:
    """Audit one file; a file that cannot be read, or is not a script, is a script error."""
    try:
        script = load(path)
    except ScriptError:
        return Audit(play_file(path, target, play_options))
    return audit(script, target, play_options, sample, on_play)


def audit(
    script: Script,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    sample: Sample = Sample(),  # frozen
    on_play: Callable[[], None] = lambda: None,
) -> Audit:
    """Play the script unchanged, then with each mutation; `on_play` is called after each play."""
    unchanged = play(script, target, play_options)
    on_play()
    if not unchanged.passed:
        return Audit(unchanged)
    found = mutations(unchanged)
    play_options = replace(play_options, trust_answers=unchanged.overtaken is None)
    played = 0
    survivors: list[Survivor] = []
    unstable: list[Mutation] = []
    target_error: Verdict | None = None
    for mutation in sample.of(found, script.file):
        mutator = Mutator(mutation, unchanged.eol)
        verdict = play(script, target, play_options, inbox_filter=mutator)
        on_play()
        if verdict.outcome is Outcome.TARGET_ERROR:
            target_error = verdict
            break
        played += 1
        if not mutator.applied:
            unstable.append(mutation)
        elif verdict.passed:
            survivors.append(Survivor(mutation, mutator.altered))
    return Audit(unchanged, len(found), played, tuple(survivors), tuple(unstable), target_error)


# --- the report ---------------------------------------------------------------------------------------------


def report(audited: Audit, columns: int | None = None) -> Iterator[Line]:
    """The report of one file; empty if it noticed every mutation."""
    if audited.target_error is not None:
        stopped = [Span("AUDIT STOPPED ", Tone.BAD), Span(audited.file, Tone.STRONG)]
        yield from wrapped(stopped, columns)
        yield from verdict_report(audited.target_error, columns)
    elif not audited.conclusive:
        yield from verdict_report(audited.unchanged, columns)
    else:
        for line in _what_survived(audited):
            yield from wrapped(line, columns)


def _what_survived(audited: Audit) -> Iterator[Line]:
    survivors = sorted(audited.survivors, key=_line_of)
    for (file, line), group in groupby(survivors, key=_line_of):
        yield from _survivors_of_line(f"{file}:{line}", list(group), audited.unchanged.eol)
    for mutation in audited.unstable[:SHOWN]:
        yield [
            Span("UNSTABLE ", Tone.BAD),
            Span(f"{mutation.expected.file}:{mutation.expected.line}", Tone.STRONG),
            Span(f"   replayed, the server did not send this line to {mutation.client} in the same turn"),
        ]
    if len(audited.unstable) > SHOWN:
        yield [Span(f"  and {len(audited.unstable) - SHOWN} more in {audited.file}", Tone.DIM)]


def headline(audited: Audit) -> str:
    """The result of a file with a failure, in one line."""
    if not audited.conclusive:
        return verdict_summary(audited.target_error or audited.unchanged)
    if audited.survivors:
        expected = audited.survivors[0].mutation.expected
        return f"{expected.file}:{expected.line} {count(len(audited.survivors), 'mutation')} not noticed"
    return f"{audited.file}: the server did not send the same lines again"


def _line_of(survivor: Survivor) -> tuple[str, int]:
    return survivor.mutation.expected.file, survivor.mutation.expected.line


def _survivors_of_line(where: str, survivors: list[Survivor], eol: bytes) -> Iterator[Line]:
    first = survivors[0].mutation
    yield [
        Span("SURVIVED ", Tone.BAD),
        Span(where, Tone.STRONG),
        Span(f"   {count(len(survivors), 'mutation')} of this line would not be noticed"),
    ]
    yield _pair("script", first.expected.line_for(first.client), Tone.WARNING)
    yield _pair("received", _shown(first.data, eol))
    for survivor in survivors[:SHOWN]:
        if survivor.mutation.kind is MutationKind.ALTERED and survivor.altered is not None:
            yield _pair("altered", _shown(survivor.altered, eol), Tone.BAD)
        else:
            yield _pair("mutation", survivor.mutation.text, Tone.BAD)
    if len(survivors) > SHOWN:
        yield [Span(f"  and {len(survivors) - SHOWN} more", Tone.DIM)]
    hint = _hint(first)
    if hint:
        yield [Span("  hint  ", Tone.HINT), Span(hint)]
    yield []


def _pair(label: str, text: str, tone: Tone = Tone.PLAIN) -> Line:
    return [Span(f"  {label:<10}"), Span(text, tone)]


def _shown(data: bytes, eol: bytes) -> str:
    return received_text(data, eol).removeprefix("< ")


def _hint(mutation: Mutation) -> str:
    if not isinstance(mutation.expected.step, (ReceivePattern, ReceiveUntil)):
        return ""
    captures = mutation.expected.step.pattern.captures
    if not captures:
        return ""
    names = [one.name for one in captures if one.kind is CaptureKind.TEXT]
    if ANONYMOUS in names:
        return "${_} matches anything; use ${_:int}, ${_:/regular expression/} or a literal line"
    if names:
        return (
            f"${{{names[0]}}} matches any text, and no later line depends on it; use it again, "
            f"or restrict it: ${{{names[0]}:int}}, ${{{names[0]}:/regular expression/}}"
        )
    if any(one.kind is CaptureKind.REGEX for one in captures):
        return "the regular expression matches more than the server sends; list the allowed characters"
    return (
        f"${{{captures[0].name}:int}} matches any number; write the number, or a name that a later line uses"
    )


def summary(audits: Sequence[Audit], took_s: float, columns: int | None = None) -> Iterator[Line]:
    """The last lines of a run: the counts, and the limits of what they prove."""
    for line in _summary(audits, took_s):
        yield from wrapped(line, columns)


def _summary(audits: Sequence[Audit], took_s: float) -> Iterator[Line]:
    played = sum(one.played for one in audits)
    survivors = sum(len(one.survivors) for one in audits)
    unstable = sum(len(one.unstable) for one in audits)
    conclusive = [one for one in audits if one.conclusive]
    parts = [
        f"{count(len(conclusive), 'script')}, {count(played, 'mutation')}: {played - survivors - unstable} noticed"
    ]
    if survivors:
        parts.append(f"{survivors} survived")
    if unstable:
        parts.append(f"{unstable} unstable")
    yield [Span(f"{', '.join(parts)} in {took_s:.2f} s", Tone.BAD if survivors else Tone.GOOD)]
    skipped = sum(one.possible - one.played for one in conclusive)
    if skipped:
        yield [Span(f"skipped because of --most: {skipped} of {skipped + played} mutations", Tone.WARNING)]
    found = sum((one.unchanged.tolerated for one in conclusive), Counter[Tolerated]())
    short = found.pop(Tolerated.SHORT_SETTLE, 0)
    tolerated = counted(found)
    optional = sum(optional_lines(one.unchanged) for one in conclusive)
    if optional:
        tolerated += f"{', ' if tolerated else ''}{count(optional, 'optional line')} that can be missing"
    if tolerated:
        yield [Span(f"tolerated by the scripts, and so not audited in full: {tolerated}", Tone.WARNING)]
    silent = [one.file for one in conclusive if not one.possible]
    if silent:
        yield [Span(f"nothing to mutate, because no client receives a line: {', '.join(silent)}", Tone.DIM)]
    settled = sum(one.unchanged.passed and one.unchanged.grade is Grade.SETTLED for one in conclusive)
    if settled:
        yield [
            Span(
                f"silence is not proven in {count(settled, 'script')}: a line that comes after the quiet moment at the end "
                "of its turn counts for a later one",
                Tone.WARNING,
            )
        ]
    if short:
        yield [
            Span(
                f"quiet is awaited for less than {SETTLE_S * 1000:g} ms in {count(short, 'script')}: what a server sends "
                "later counts for a later turn, or for none",
                Tone.WARNING,
            )
        ]
    inconclusive = [one.file for one in audits if not one.conclusive]
    if inconclusive:
        yield [Span(f"not audited: {', '.join(inconclusive)}", Tone.WARNING)]
