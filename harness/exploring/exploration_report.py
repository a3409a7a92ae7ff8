"""What was explored, told to a person: the seed, what it takes, the shortest script. Styled lines; runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.exploring.explore import ExplorationResult, Finding
from harness.interception.schedule import Perturbation
from harness.language.renderer import render
from harness.reporting.failure_text import headline as failure_headline
from harness.reporting.failure_text import particulars, summary
from harness.reporting.report import GRADES, SERVER_OUTPUT_LINES, lanes
from harness.reporting.report import report as verdict_report
from harness.reporting.styled_text import Line, Span, Tone


def report(exploration_result: ExplorationResult) -> Iterator[Line]:
    """Everything there is to say; nothing when it passed."""
    if exploration_result.finding is not None:
        yield from _found(exploration_result.finding)
    elif not exploration_result.passed:
        yield [Span("not explored, since it does not pass as it is:")]
        yield from verdict_report(exploration_result.baseline)


def headline(exploration_result: ExplorationResult) -> str:
    """The same in one line."""
    if exploration_result.finding is None:
        return summary(exploration_result.baseline)
    return f"under seed {exploration_result.finding.seed}: {summary(exploration_result.finding.shortest)}"


def words(perturbations: Iterable[Perturbation]) -> str:
    """The kinds as the command line names them."""
    return ",".join(perturbation.value for perturbation in Perturbation if perturbation in perturbations)


def _found(finding: Finding) -> Iterator[Line]:
    verdict = finding.shortest
    failure = verdict.failures[0]
    yield [
        Span("FAILED ", Tone.BAD),
        Span(finding.verdict.file, Tone.STRONG),
        Span(f" under seed {finding.seed}   {failure_headline(failure)}"),
    ]
    yield [
        Span(
            f"  it takes      {'; '.join(one.description for one in Perturbation if one in finding.perturbations)}"
        )
    ]
    yield from particulars(failure, verdict, GRADES[verdict.grade] if verdict.grade else "")
    yield []
    short, whole = finding.steps
    yield [Span(f"  the shortest script that still fails, {short} of {whole} things done:", Tone.STRONG)]
    yield []
    for line in render(verdict.script).rstrip("\n").split("\n"):
        yield [Span(f"    {line}")] if line else []
    yield []
    yield from lanes(verdict)
    if verdict.server_output.strip():
        yield []
        yield [Span("  the server's last words", Tone.STRONG)]
        for line in verdict.server_output.rstrip().splitlines()[-SERVER_OUTPUT_LINES:]:
            yield [Span("  | ", Tone.QUIET), Span("".join(c if c.isprintable() else "\ufffd" for c in line))]
