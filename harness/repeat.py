"""Many plays of one script: does it always pass, always fail, or sometimes? Identical failures are counted together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.playing.verdict import Outcome, Verdict
from harness.report.lanes import received_text
from harness.report.styled_text import Line, Span, Tone, wrapped
from harness.report.text import report as verdict_report
from harness.report.text import summary as verdict_summary


@dataclass(slots=True)
class Cause:
    """Failures that are the same: the same line, and the same received instead."""

    first: Verdict
    count: int = 1


@dataclass(slots=True)
class Repetition:
    """The plays of one script so far. One that failed as expected counts as passed, and the outcome says so."""

    file: str
    plays: int = 0
    passed: int = 0
    causes: dict[tuple[object, ...], Cause] = field(default_factory=dict)
    skipped: Verdict | None = None
    xfailed: Verdict | None = None
    """The first play that failed as expected."""

    def add(self, verdict: Verdict) -> None:
        """Count one more play."""
        self.plays += 1
        if verdict.outcome in (Outcome.PASSED, Outcome.XFAILED):
            self.passed += 1
            if verdict.outcome is Outcome.XFAILED and self.xfailed is None:
                self.xfailed = verdict
        elif verdict.outcome is Outcome.SKIPPED:
            self.skipped = verdict
        elif (key := _cause(verdict)) in self.causes:
            self.causes[key].count += 1
        else:
            self.causes[key] = Cause(verdict)

    @property
    def failed(self) -> int:
        return sum(cause.count for cause in self.causes.values())

    @property
    def flaky(self) -> bool:
        return bool(self.passed and self.failed)

    @property
    def outcome(self) -> Outcome:
        """The worst of its plays."""
        worst = {cause.first.outcome for cause in self.causes.values()}
        for outcome in (Outcome.SCRIPT_ERROR, Outcome.TARGET_ERROR, Outcome.FAILED, Outcome.XPASSED):
            if outcome in worst:
                return outcome
        if self.skipped is not None:
            return Outcome.SKIPPED
        return Outcome.PASSED if self.xfailed is None else Outcome.XFAILED

    def by_count(self) -> list[Cause]:
        """The different failures, the most frequent first."""
        return sorted(self.causes.values(), key=lambda cause: -cause.count)


def _cause(verdict: Verdict) -> tuple[object, ...]:
    if not verdict.failures:
        return (verdict.outcome, verdict_summary(verdict))
    first = verdict.failures[0]
    received = first.received
    same = None if received is None else verdict.without_tokens(received_text(received, verdict.eol))
    return (first.kind, first.file, first.line, first.client, same)


def report(repeated: Repetition, columns: int | None = None) -> Iterator[Line]:
    """How often it failed and in which ways, with the whole report of each; one line if it passed or was skipped."""
    if repeated.skipped is not None:
        yield from verdict_report(repeated.skipped, columns)
        return
    if not repeated.failed:
        plays = f"{repeated.file}  {repeated.plays} of {repeated.plays} plays"
        if repeated.xfailed is None:
            yield from wrapped([Span("passed ", Tone.GOOD), Span(plays)], columns)
        else:
            plays += f"  {repeated.xfailed.reason}"
            yield from wrapped([Span("failed as expected ", Tone.WARNING), Span(plays)], columns)
        return
    heading = [
        Span("FLAKY " if repeated.flaky else "FAILED ", Tone.BAD),
        Span(repeated.file, Tone.STRONG),
        Span(f"  {headline(repeated)}"),
    ]
    yield from wrapped(heading, columns)
    for cause in repeated.by_count():
        yield from wrapped(
            [Span(f"{cause.count:>6}x ", Tone.STRONG), Span(_in_one_line(cause.first))], columns
        )
    for number, cause in enumerate(repeated.by_count(), 1):
        yield []
        if len(repeated.causes) > 1:
            yield [Span(f"  failure {number} of {len(repeated.causes)}", Tone.STRONG)]
        yield from verdict_report(cause.first, columns)


def _in_one_line(verdict: Verdict) -> str:
    received = verdict.failures[0].received if verdict.failures else None
    shown = f": `{received_text(received, verdict.eol)}`" if received is not None else ""
    return f"{verdict_summary(verdict)}{shown}"


def headline(repeated: Repetition) -> str:
    """How often it failed."""
    if repeated.passed:
        return f"{repeated.failed} of {repeated.plays} plays failed ({_rate(repeated)})"
    return f"all {repeated.plays} plays failed" if repeated.plays > 1 else "its only play failed"


def summary(repeated: Repetition) -> str:
    """The failures in one line."""
    return f"{headline(repeated)}, most often: {_in_one_line(repeated.by_count()[0].first)}"


def _rate(repeated: Repetition) -> str:
    percent = 100 * repeated.failed / repeated.plays
    return f"{percent:.0f}%" if percent >= 1 else f"{percent:.2g}%"


def run_summary(repetitions: Iterable[Repetition], took_s: float) -> str:
    """`1 flaky, 2 always failed, 5 always passed in 4.20 s (400 plays)`."""
    repetitions = list(repetitions)
    flaky = sum(one.flaky for one in repetitions)
    failed = sum(bool(one.failed) and not one.flaky for one in repetitions)
    outcomes = [one.outcome for one in repetitions]
    skipped, xfailed = outcomes.count(Outcome.SKIPPED), outcomes.count(Outcome.XFAILED)
    numbers = {
        "flaky": flaky,
        "always failed": failed,
        "always passed": len(repetitions) - flaky - failed - skipped - xfailed,
        "always failed as expected": xfailed,
        "skipped": skipped,
    }
    counted = ", ".join(f"{number} {word}" for word, number in numbers.items() if number)
    plays = sum(one.plays for one in repetitions)
    return f"{counted} in {took_s:.2f} s ({plays} plays)"
