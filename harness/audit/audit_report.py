"""An audit told to a person: which line of which script would let what pass, and what would hold it. Styled lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from harness.audit.auditing import AuditResult, Survivor
from harness.audit.mutations import Kind, Mutation
from harness.language.patterns import ANONYMOUS
from harness.language.patterns import Kind as CaptureKind
from harness.language.steps import ReceivePattern
from harness.reporting.failure_text import summary as summarised
from harness.reporting.lanes import received_text
from harness.reporting.report import report as report_verdict
from harness.reporting.styled_text import Line, Span, Tone
from harness.stage.fence import SETTLE_S

SHOWN = 3
"""How many of the changes that one line lets pass are shown."""


def report(audit_result: AuditResult) -> Iterator[Line]:
    """Everything there is to say about one file; nothing where it noticed every mutation."""
    if audit_result.broken is not None:
        yield [Span("BROKEN ", Tone.BAD), Span(audit_result.file, Tone.STRONG), Span("  during its audit")]
        yield from report_verdict(audit_result.broken)
        return
    if not audit_result.judged:
        yield from report_verdict(audit_result.clean)
        return
    eol = audit_result.clean.eol
    for (file, line), survivors in groupby(_by_line(audit_result.survivors), key=_place):
        yield from _one_line(file, line, list(survivors), eol)
    for mutation in audit_result.unsteady[:SHOWN]:
        yield [
            Span("UNSTEADY ", Tone.BAD),
            Span(f"{mutation.file}:{mutation.line}", Tone.STRONG),
            Span(f"   played again, the server did not say this to {mutation.client} in that turn"),
        ]
    if len(audit_result.unsteady) > SHOWN:
        yield [Span(f"  and {len(audit_result.unsteady) - SHOWN} more in {audit_result.file}", Tone.QUIET)]


def headline(audit_result: AuditResult) -> str:
    """What is wrong with this file, in one line."""
    if audit_result.broken is not None:
        return summarised(audit_result.broken)
    if not audit_result.judged:
        return summarised(audit_result.clean)
    if audit_result.survivors:
        first = audit_result.survivors[0].mutation
        return f"{first.file}:{first.line} {_count(len(audit_result.survivors), 'change')} would go unnoticed"
    return f"{audit_result.file}: the server did not say the same again"


def _place(survivor: Survivor) -> tuple[str, int]:
    return survivor.mutation.file, survivor.mutation.line


def _by_line(survivors: Sequence[Survivor]) -> list[Survivor]:
    return sorted(survivors, key=_place)


def _one_line(file: str, line: int, survivors: list[Survivor], eol: bytes) -> Iterator[Line]:
    first = survivors[0].mutation
    expected = f"{first.client}{first.expected.text}" if first.expected else ""
    yield [
        Span("SURVIVED ", Tone.BAD),
        Span(f"{file}:{line}", Tone.STRONG),
        Span(f"   {_count(len(survivors), 'change')} to this line would go unnoticed"),
    ]
    yield _pair("the script", expected, Tone.WANTED)
    yield _pair("it heard", _shown(first.wire, eol))
    for survivor in survivors[:SHOWN]:
        yield _pair(*_change(survivor, eol), Tone.BAD)
    if len(survivors) > SHOWN:
        yield [Span(f"  and {len(survivors) - SHOWN} more", Tone.QUIET)]
    hint = _hint(first)
    if hint:
        yield [Span("  hint  ", Tone.HINT), Span(hint)]
    yield []


def _change(survivor: Survivor, eol: bytes) -> tuple[str, str]:
    if survivor.mutation.kind is Kind.ALTERED and survivor.became is not None:
        return "altered", _shown(survivor.became, eol)
    return "", survivor.mutation.text


def _pair(label: str, text: str, tone: Tone = Tone.PLAIN) -> Line:
    return [Span(f"  {label:<12}"), Span(text, tone)]


def _shown(wire: bytes, eol: bytes) -> str:
    text = received_text(wire, eol)
    return text[2:] if text.startswith("< ") else text


def _hint(mutation: Mutation) -> str:
    if mutation.expected is None or not isinstance(mutation.expected.step, ReceivePattern):
        return ""
    captures = mutation.expected.step.pattern.captures
    anything = [one for one in captures if one.kind is CaptureKind.TEXT and one.name == ANONYMOUS]
    named = [one for one in captures if one.kind is CaptureKind.TEXT and one.name != ANONYMOUS]
    if anything:
        return (
            "${_} takes anything; ${_:int} or ${_:/regular expression/} says what may stand there, "
            "a literal line says all"
        )
    if named:
        name = named[0].name
        return (
            f"${{{name}}} takes any text, and nothing after it needs it to be that: use it again, "
            f"or say ${{{name}:int}} or ${{{name}:/regular expression/}}"
        )
    return "the regular expression takes more than the server says; name the characters that may stand there"


def summary(audit_results: Sequence[AuditResult], took_s: float) -> Iterator[Line]:
    """What came of it all: one line, and one more for each thing that one must know to trust it."""
    played = sum(one.played for one in audit_results)
    survivors = sum(len(one.survivors) for one in audit_results)
    unsteady = sum(len(one.unsteady) for one in audit_results)
    judged = [one for one in audit_results if one.judged]
    words = [f"{_count(len(judged), 'script')}, {_count(played, 'change')} to what the server says"]
    words.append(f"{played - survivors - unsteady} noticed")
    if survivors:
        words.append(f"{survivors} not")
    if unsteady:
        words.append(f"{unsteady} not judged")
    yield [Span(", ".join(words) + f" in {took_s:.2f} s", Tone.BAD if survivors else Tone.GOOD)]
    left_out = sum(one.left_out for one in judged)
    if left_out:
        yield [Span(f"left out by --most: {left_out} of {left_out + played}", Tone.WANTED)]
    mute = [one.file for one in judged if not one.possible]
    if mute:
        yield [Span(f"nothing to change in {', '.join(mute)}: nobody hears a line there", Tone.QUIET)]
    unproven = sum(one.silence_unproven for one in judged)
    if unproven:
        yield [
            Span(
                f"silence is not proven in {_count(unproven, 'script')}: a line that comes more than {SETTLE_S:g} s "
                "late goes unnoticed; a fence line would prove it",
                Tone.WANTED,
            )
        ]
    not_judged = [one for one in audit_results if not one.judged]
    if not_judged:
        yield [Span(f"not audited: {', '.join(one.file for one in not_judged)}", Tone.WANTED)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
