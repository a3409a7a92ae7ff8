"""One failure in words: a headline, then what was expected and what came, with a caret where they part. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.language.escapes import render_bytes
from harness.language.steps import Receive, ReceiveBytes, ReceivePattern
from harness.playing.comparison import Expectation, conflicting_bindings
from harness.playing.verdict import Failure, FailureKind, Verdict
from harness.reporting.lanes import END_WORDS, received_text
from harness.reporting.styled_text import Line, Span, Tone, padded, width
from harness.stage.connection import End

_NOTHING = "nothing"


def headline(failure: Failure) -> str:
    """Who, and what is wrong."""
    match failure.kind:
        case FailureKind.SERVER_DIED:
            return "the server died"
        case FailureKind.NEVER_IDLE:
            return "the server never became idle"
        case _:
            return f"{failure.client} {failure.kind.value}"


def summary(verdict: Verdict) -> str:
    """The verdict in one line."""
    if verdict.failures:
        first = verdict.failures[0]
        return f"{first.file}:{first.line} {headline(first)}"
    reason = verdict.reason.splitlines()
    return f"{verdict.outcome.value}: {reason[0] if reason else verdict.file}"


def particulars(failure: Failure, verdict: Verdict, grade: str) -> Iterator[Line]:
    """What was expected and what came."""
    match failure.kind:
        case FailureKind.UNANSWERED | FailureKind.NEVER_IDLE:
            yield _pair("because", failure.detail, "", Tone.BAD)
        case FailureKind.TIMED_OUT:
            yield _pair("expected", "a server that accepts and reads", "", Tone.WANTED)
            yield _pair("it did", failure.detail, "", Tone.BAD)
        case FailureKind.UNSENDABLE:
            yield _pair("because", failure.detail, "", Tone.BAD)
        case FailureKind.SERVER_DIED:
            yield _pair("expected", "a server that goes on", "", Tone.WANTED)
            for line in failure.detail.splitlines()[:1]:
                yield _pair("it", line, "", Tone.BAD)
        case FailureKind.DISAGREED:
            yield _pair("expected", "one order for all of them", "", Tone.WANTED)
            yield _pair("but", "each heard the right lines, in an order of its own", f"({grade})", Tone.BAD)
        case FailureKind.MISSING | FailureKind.EXTRA | FailureKind.DIFFERENT | FailureKind.OUT_OF_ORDER:
            yield from _lines(failure, verdict, grade)
        case _:
            said = failure.ending.value if failure.ending else "is connected"
            came = END_WORDS.get(failure.end or End.OPEN, "is connected")
            yield _pair("expected", f"{failure.client} {said}", "", Tone.WANTED)
            yield _pair("but", f"{failure.client} {came}", f"({grade})", Tone.BAD)


def _pair(label: str, text: str, note: str, tone: Tone) -> Line:
    return [
        Span(f"  {padded(label, 14)}"),
        Span(text, tone),
        Span(f"      {note}" if note else "", Tone.QUIET),
    ]


def _lines(failure: Failure, verdict: Verdict, grade: str) -> Iterator[Line]:
    came = None if failure.received is None else received_text(failure.received, verdict.eol)
    wanted = None if failure.expected is None else failure.expected.text
    note = f"({grade})" if grade else ""
    by_bytes = came is not None and wanted is not None and _same_to_the_eye(failure, came, wanted)
    if by_bytes and failure.expected is not None and failure.received is not None:
        came = f"<< {render_bytes(failure.received)}"
        wanted = f"<< {render_bytes(_wire(failure.expected, verdict.eol))}"
    heard_at = f"after {failure.at_s:g} s" if verdict.virtual_time and failure.at_s and came else ""
    yield _pair(f"{failure.client} heard", _said(came), heard_at, Tone.BAD)
    yield _pair("expected", _said(wanted), note, Tone.WANTED)
    yield from _conflicts(failure, verdict)
    if (
        came is not None
        and wanted is not None
        and not isinstance(failure.expected and failure.expected.step, ReceivePattern)
    ):
        yield [Span(" " * 16 + " " * _first_difference(_said(came), _said(wanted)) + "^", Tone.BAD)]


def _conflicts(failure: Failure, verdict: Verdict) -> Iterator[Line]:
    """To the eye the two are the same where only a name stands for something else by now."""
    turn = next((one for one in verdict.turns if one.number == failure.turn), None)
    if turn is None or failure.expected is None or failure.received is None:
        return
    for one in conflicting_bindings(failure.expected, failure.received, turn.bindings, verdict.eol):
        since = f"{one.file}:{one.line}" if one.file != failure.file else f"line {one.line}"
        yield _pair("but", f"${{{one.name}}} is `{one.value}` since {since}", "", Tone.BAD)


def _said(text: str | None) -> str:
    """The content alone where it is a plain line, so that two of them can be laid one above the other."""
    if text is None:
        return _NOTHING
    return text[2:] if text.startswith("< ") else "an empty line" if text == "<" else text


def _same_to_the_eye(failure: Failure, came: str, wanted: str) -> bool:
    """Whether the two must be shown as bytes: one of them cannot be written as a plain line."""
    assert failure.expected is not None
    if isinstance(failure.expected.step, ReceivePattern):
        return False
    return came.startswith("<<") or wanted.startswith("<<")


def _wire(expected: Expectation, eol: bytes) -> bytes:
    match expected.step:
        case Receive(_, text):
            return text.encode() + eol
        case ReceiveBytes(_, data):
            return data
        case _:
            return b""


def _first_difference(one: str, other: str) -> int:
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return width(one[:at])
    return width(min(one, other, key=len))
