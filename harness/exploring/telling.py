"""What was explored, told to a person: the seed, what it takes, the shortest script. Lines of ink; runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.exploring.explore import Explored, Finding
from harness.exploring.schedule import Whim
from harness.language.rendering import render
from harness.reporting.ink import Line, Span, Tone
from harness.reporting.report import GRADES, LAST_WORDS_LINES, lanes
from harness.reporting.report import report as verdict_report
from harness.reporting.telling import headline as failure_headline
from harness.reporting.telling import particulars, summary


def report(explored: Explored) -> Iterator[Line]:
    """Everything there is to say; nothing when it passed."""
    if explored.finding is not None:
        yield from _found(explored.finding)
    elif not explored.passed:
        yield [Span("not explored, since it does not pass as it is:")]
        yield from verdict_report(explored.calm)


def headline(explored: Explored) -> str:
    """The same in one line."""
    if explored.finding is None:
        return summary(explored.calm)
    return f"under seed {explored.finding.seed}: {summary(explored.finding.shortest)}"


def words(whims: Iterable[Whim]) -> str:
    """The kinds as the command line names them."""
    return ",".join(whim.value for whim in Whim if whim in whims)


def _found(finding: Finding) -> Iterator[Line]:
    verdict = finding.shortest
    failure = verdict.failures[0]
    yield [
        Span("FAILED ", Tone.BAD),
        Span(finding.verdict.file, Tone.STRONG),
        Span(f" under seed {finding.seed}   {failure_headline(failure)}"),
    ]
    yield [Span(f"  it takes      {'; '.join(whim.told for whim in Whim if whim in finding.whims)}")]
    yield from particulars(failure, verdict, GRADES[verdict.grade] if verdict.grade else "")
    yield []
    short, whole = finding.steps
    yield [Span(f"  the shortest script that still fails, {short} of {whole} things done:", Tone.STRONG)]
    yield []
    for line in render(verdict.script).rstrip("\n").split("\n"):
        yield [Span(f"    {line}")] if line else []
    yield []
    yield from lanes(verdict)
    if verdict.last_words.strip():
        yield []
        yield [Span("  the server's last words", Tone.STRONG)]
        for line in verdict.last_words.rstrip().splitlines()[-LAST_WORDS_LINES:]:
            yield [Span("  | ", Tone.QUIET), Span("".join(c if c.isprintable() else "\ufffd" for c in line))]
