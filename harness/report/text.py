"""A verdict as styled lines: the failures, the expected and received data, the lanes, and hints.

`report` is the complete report, `summary` one line about a verdict, `headline` a few words about a failure, and
`run_summary` the last line of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.language.adapter import Greeting, Prompt, Spelling
from harness.language.columns import width, windowed_alike
from harness.language.escapes import render_bytes
from harness.language.exhaustive import assert_never
from harness.language.forms import render_duration
from harness.language.steps import (
    Ignore,
    Receive,
    ReceiveBody,
    ReceiveBytes,
    ReceiveUntil,
    Reply,
)
from harness.playing.bindings import conflicting_bindings
from harness.playing.expectations import Choice, Expectation
from harness.playing.verdict import Failure, FailureKind, Outcome, Tolerated, TurnReport, Verdict
from harness.report.hints import hints, overtaken
from harness.report.lanes import END_WORDS, WIDEST, as_received, lanes, received_text, with_detail
from harness.report.styled_text import Line, Span, Tone, count, listed, padded, wrapped
from harness.stage.connection import End
from harness.stage.fence import FenceLineSent, Grade
from harness.stage.rules import TakenLine

SERVER_OUTPUT_LINES = 24
ALSO_SHOWN = 8
_LABEL_COLUMNS = 12
_TO_PASTE = (
    FailureKind.MISSING,
    FailureKind.EXTRA,
    FailureKind.DIFFERENT,
    FailureKind.OUT_OF_ORDER,
    FailureKind.STILL_OPEN,
    FailureKind.LOST_CONNECTION,
    FailureKind.WRONG_END,
    FailureKind.NOT_REFUSED,
    FailureKind.REFUSED_ENTRY,
)
"""The failures that other expectations would fix."""
PASTED_LINES = 24
"""For a longer turn, the lines to paste are only those of clients with unexpected input."""
_GRADES = {
    Grade.EXACT: "exact: the server has nothing left to do",
    Grade.HEARD: "heard: a line sent afterwards has reached every client",
    Grade.ANSWERED: "answered: the server has answered everyone's fence line",
    Grade.SETTLED: "settled: nothing more arrived for a while",
}


def report(verdict: Verdict, columns: int | None = None) -> Iterator[Line]:
    """The complete report of this verdict; one line if the script passed or was skipped. Only lines to be pasted are wider
    than `columns`."""
    match verdict.outcome:
        case Outcome.PASSED:
            passed = [
                Span("passed ", Tone.GOOD),
                Span(verdict.file),
                Span(_tolerance_note(verdict), Tone.WARNING),
                Span(_time_note(verdict), Tone.DIM),
                Span(_grade_note(verdict), Tone.DIM),
            ]
            yield from wrapped(passed, columns)
        case Outcome.SKIPPED:
            skipped = f"{verdict.file}  {verdict.reason}"
            yield from wrapped([Span("skipped ", Tone.WARNING), Span(skipped)], columns)
        case Outcome.XFAILED:
            failed = f"{verdict.file}  {verdict.reason}  ({summary(verdict)})"
            yield from wrapped([Span("failed as expected ", Tone.WARNING), Span(failed)], columns)
        case Outcome.XPASSED:
            unexpectedly = [
                Span("PASSED UNEXPECTEDLY ", Tone.BAD),
                Span(verdict.file, Tone.STRONG),
                Span(f"   remove `xfail: {verdict.reason}`"),
            ]
            yield from wrapped(unexpectedly, columns)
        case Outcome.SCRIPT_ERROR:
            heading = [Span("SCRIPT ERROR ", Tone.BAD), Span(verdict.file, Tone.STRONG)]
            yield from wrapped(heading, columns)
            yield from _reason(verdict, columns)
        case Outcome.TARGET_ERROR:
            heading = [Span("TARGET ERROR ", Tone.BAD), Span(verdict.file, Tone.STRONG)]
            if verdict.target not in verdict.reason:
                heading.append(Span(f"  {verdict.target}"))
            yield from wrapped(heading, columns)
            yield from _reason(verdict, columns)
        case Outcome.FAILED:
            yield from _failed(verdict, columns)
        case outcome:
            assert_never(outcome)


def _reason(verdict: Verdict, columns: int | None) -> Iterator[Line]:
    text = verdict.reason
    if verdict.problem is not None and columns is not None:
        text = verdict.problem.text(columns - 2)
    for line in text.splitlines():
        yield from wrapped([Span("  "), Span(line)], columns)


def tolerated_text(verdicts: Iterable[Verdict]) -> str:
    """`3 lines ignored`: what these verdicts say nothing about; empty if nothing was tolerated."""
    return counted(sum((verdict.tolerated for verdict in verdicts), Counter[Tolerated]()))


def counted(found: Counter[Tolerated]) -> str:
    """`3 lines ignored, 1 prompt removed`."""
    return ", ".join(f"{found[one]} {one.value[found[one] > 1]}" for one in Tolerated if found[one])


def _clock(verdict: Verdict) -> str:
    """The clock that measured a duration, which decides what it includes."""
    if verdict.virtual_time:
        return "in virtual time, which is exact"
    clock = "in real time, on the clock of this machine"
    if verdict.time_factor > 1:
        clock = f"on the clock of this machine, times {verdict.time_factor}"
    return f"{clock}: it contains the network and the harness's own delay"


def _time_note(verdict: Verdict) -> str:
    slowest = verdict.slowest
    if slowest is None:
        return ""
    took, limit = render_duration(slowest.microseconds), render_duration(slowest.expected.limit_us or 0)
    return f"  (slowest: {took} of {limit}, {_clock(verdict)})"


def _tolerance_note(verdict: Verdict) -> str:
    text = tolerated_text([verdict])
    return f", {text}" if text else ""


def passed_note(verdict: Verdict) -> str:
    """The tolerances and times of a pass, after the word `passed`; empty for most."""
    return _tolerance_note(verdict) + _time_note(verdict)


def _grade_note(verdict: Verdict) -> str:
    fast = f"  ({_fast_time(verdict)})" if verdict.time_factor > 1 else ""
    return _settled_note(verdict) + fast


def _settled_note(verdict: Verdict) -> str:
    if verdict.grade is not Grade.SETTLED:
        return ""
    if verdict.virtual_time:
        return f"  (settled: {verdict.unseen} was at work outside the server's loop, so the harness waited for quiet)"
    if not verdict.answers_prove:
        return "  (settled: what passes between several processes can only be waited for)"
    if verdict.overtaken:
        return (
            f"  (settled: {overtaken(verdict)}, so each turn was also given {verdict.settle_s:g} s of quiet)"
        )
    sent = (one for turn in verdict.turns for one in turn.fence_lines if _never_heard_by(one))
    unheard = next(sent, None)
    if unheard is not None:
        names = listed(_never_heard_by(unheard))
        return f"  (settled: {names} did not hear the fence line of {unheard.client}, so the harness waited for quiet)"
    if verdict.fence.heard and len(verdict.clients) == 1:
        return (
            "  (settled: there was no other client to hear the fence line, so the harness waited for quiet)"
        )
    if verdict.fence.question:
        return "  (settled: where a client could not be asked, the harness waited for quiet)"
    return "  (settled: silence is not proven; with a fence line the grade can be `answered`)"


def _failed(verdict: Verdict, columns: int | None) -> Iterator[Line]:
    for line in _what_failed(verdict, columns):
        yield from wrapped(line, columns)
    yield []
    yield from lanes(verdict, columns=columns)
    found = list(hints(verdict))
    if found:
        yield []
        for hint in found:
            yield from wrapped([Span("  hint  ", Tone.HINT), Span(hint)], columns)
    yield from _pasteable(verdict)
    for line in server_output(verdict):
        yield from wrapped(line, columns)


def _what_failed(verdict: Verdict, columns: int | None) -> Iterator[Line]:
    first, *others = verdict.failures
    yield failed_line(place(first), first)
    if verdict.script.title:
        yield [Span(f"  {verdict.script.title}", Tone.DIM)]
    yield from details(first, verdict, columns)
    yield from _taken(first, verdict)
    yield from _fence_lines(first, verdict)
    for other in others[:ALSO_SHOWN]:
        where = _line_at(other.file, other.line, first.file)
        yield [Span(f"  also {where}: {headline(other)}", Tone.DIM)]
    if len(others) > ALSO_SHOWN:
        yield [Span(f"  and {len(others) - ALSO_SHOWN} more", Tone.DIM)]


def failed_line(where: str, failure: Failure) -> Line:
    """The first line of a failed verdict's report."""
    return [Span("FAILED ", Tone.BAD), Span(where, Tone.STRONG), Span(f"   {headline(failure)}")]


def _pasteable(verdict: Verdict) -> Iterator[Line]:
    failed = _turn_of(verdict.failures[0], verdict)
    if failed is None or verdict.failures[0].kind not in _TO_PASTE:
        return
    steps = as_received(failed, verdict.eol)
    wrong = [one for one in failed.client_turns if not one.as_expected]
    names = ""
    if len(steps) > PASTED_LINES and len(wrong) < len(failed.client_turns):
        steps = as_received(replace(failed, client_turns=tuple(wrong)), verdict.eol)
        names = listed([one.client for one in wrong])
    many = len(steps) > PASTED_LINES or any(len(step) > WIDEST for step in steps)
    if many:
        # `update` does not replace `any lines until`.
        entries = (entry for one in failed.client_turns for entry in one.entries if not entry.matches)
        until = any(entry.expected and isinstance(entry.expected.step, ReceiveUntil) for entry in entries)
        how = count(len(steps), "line") + ("" if until else ", use `harness update`")
    elif names:
        how = f"replace the lines of {names} by:" if steps else f"remove the lines of {names}"
    elif steps:
        how = "paste:"
    else:
        return
    yield from ([], [Span(f"  to accept what was received, {how}", Tone.STRONG)])
    if not many:
        yield from ([Span(step, Tone.GOOD)] for step in steps)


def server_output(verdict: Verdict) -> Iterator[Line]:
    """The last lines that the server wrote, if it wrote any."""
    if verdict.server_output.strip():
        yield []
        yield [Span("  server output", Tone.STRONG)]
        for line in verdict.server_output.rstrip().splitlines()[-SERVER_OUTPUT_LINES:]:
            yield [Span("  | ", Tone.DIM), Span(line)]


def _taken(failure: Failure, verdict: Verdict) -> Iterator[Line]:
    """The lines that rules and an adapter took from this client in the failed turn. One can be the missing line."""
    turn = _turn_of(failure, verdict)
    by_label: dict[str, list[TakenLine]] = {}
    for one in turn.taken if turn else ():
        if one.client == failure.client:
            by_label.setdefault(_taken_label(one), []).append(one)
    for label, lines in by_label.items():
        last, noun = lines[-1], "prompt" if isinstance(lines[-1].rule, Prompt) else "line"
        by = {Reply: ", by", Spelling: ", as"}.get(type(last.rule))
        shown, instead = (
            received_text(data, verdict.eol).removeprefix("< ") for data in (last.data, last.instead)
        )
        text = f"{count(len(lines), noun)}, the last of them `{shown}`"
        yield pair(label, f"{text}{by} `{instead}`" if by else text, Tone.DIM)


def _taken_label(taken: TakenLine) -> str:
    match taken.rule:
        case Ignore():
            return "ignored"
        case Reply():
            return "replied"
        case Greeting():
            return "greeting"
        case Prompt():
            return "prompt"
        case Spelling(sent=sent):
            return "sent" if sent else "respelled"


def _turn_of(failure: Failure, verdict: Verdict) -> TurnReport | None:
    return next((turn for turn in verdict.turns if turn.number == failure.turn), None)


# Failures in which a fence line has no part once it has been answered.
_NOT_OF_FENCES = (
    FailureKind.MISSING,
    FailureKind.DIFFERENT,
    FailureKind.OUT_OF_ORDER,
    FailureKind.DISAGREED,
    FailureKind.TOO_LATE,
    FailureKind.SERVER_DIED,
)


def _fence_lines(failure: Failure, verdict: Verdict) -> Iterator[Line]:
    """The fence lines that the harness sent as this client, that this client heard or should have heard, or that come back in
    what it received, if they can be part of the failure."""
    turn = _turn_of(failure, verdict)
    shown: dict[str, None] = {}
    for one in turn.fence_lines if turn else ():
        text = render_bytes(one.line.rstrip(b"\r\n"))
        concerned = failure.kind not in _NOT_OF_FENCES
        unanswered = one.answer is None and one.heard_by is None
        own = one.client == failure.client and (concerned or unanswered)
        heard = (concerned and failure.client in (one.heard_by or ())) or failure.client in one.unheard_by
        if own or heard or _comes_back(one, failure.received or b""):
            shown[f"sent the fence line `{text}` as {one.client}, which was {_fate(one)}"] = None
    yield from (pair("harness", text, Tone.DIM) for text in [*shown][:ALSO_SHOWN])
    if len(shown) > ALSO_SHOWN:
        yield pair("", f"and {count(len(shown) - ALSO_SHOWN, 'more fence line')}", Tone.DIM)


def _comes_back(sent: FenceLineSent, received: bytes) -> bool:
    """Whether this line is a part of what was received, or its token is, however the server writes it."""
    if sent.heard_by is None:
        return sent.line.rstrip(b"\r\n") in received
    return sent.token.encode().lower() in received.lower()


def _never_heard_by(sent: FenceLineSent) -> list[str]:
    return sorted(one for one in sent.unheard_by if one not in (sent.heard_by or ()))


def _fate(sent: FenceLineSent) -> str:
    """The outcome of a fence line."""
    answer = "" if sent.answer is None else f"answered `{render_bytes(sent.answer.rstrip())}`"
    if sent.heard_by is None:
        return answer or "not answered"
    in_time = sorted(one for one in sent.heard_by if one not in sent.unheard_by)
    late = sorted(one for one in sent.unheard_by if one in sent.heard_by)
    never = _never_heard_by(sent)
    fates = [f"heard by {listed(in_time)}" if in_time else "heard by none of the others"]
    if late:
        fates.append(f"later by {listed(late)}")
    if in_time and never:
        fates.append(f"not by {listed(never)}")
    if answer:
        fates.append(answer)
    return ", ".join(fates)


# --- one line -----------------------------------------------------------------------------------------------


def headline(failure: Failure) -> str:
    """The failure in a few words: the client, and what it did not do."""
    match failure.kind:
        case FailureKind.SERVER_DIED:
            return "the server died"
        case FailureKind.NEVER_IDLE:
            return "the server never became idle"
        case FailureKind.NEVER_QUIET:
            return "the server was never quiet"
        case FailureKind.RAISED:
            return f"the server raised {failure.detail.partition(':')[0]}"
        case FailureKind.NOT_RAISED:
            return f"the server did not raise {failure.detail}"
        case kind:
            return f"{failure.client} {kind.value}".lstrip()


def place(failure: Failure) -> str:
    """Where the failure is: its file and line, and the line of the script that led there."""
    where = f"{failure.file}:{failure.line}"
    calls = [site for site in failure.via if site.is_call]
    rounds = [site.text for site in failure.via if not site.is_call]
    if calls:
        where += f" from {calls[0].file}:{calls[0].line}"
    return f"{where} ({', '.join(rounds)})" if rounds else where


def summary(verdict: Verdict) -> str:
    """The verdict in one line."""
    if verdict.failures:
        first = verdict.failures[0]
        return f"{place(first)} {headline(first)}"
    reason = verdict.reason.splitlines()
    return f"{verdict.outcome.value}: {reason[0] if reason else verdict.file}"


_COUNTED = {
    Outcome.FAILED: ("failed", "failed"),
    Outcome.XPASSED: ("passed unexpectedly", "passed unexpectedly"),
    Outcome.SCRIPT_ERROR: ("script error", "script errors"),
    Outcome.TARGET_ERROR: ("target error", "target errors"),
    Outcome.PASSED: ("passed", "passed"),
    Outcome.XFAILED: ("failed as expected", "failed as expected"),
    Outcome.SKIPPED: ("skipped", "skipped"),
}


def counts(outcomes: Iterable[Outcome]) -> str:
    """`1 failed, 3 passed`; the outcomes to look at come first."""
    counted = Counter(outcomes)
    numbers = ((counted[outcome], words) for outcome, words in _COUNTED.items())
    return ", ".join(f"{number} {words[number > 1]}" for number, words in numbers if number)


def run_summary(verdicts: Iterable[Verdict], took_s: float) -> str:
    """The counts, the time, how the end of each turn was proven, and what those that passed tolerated."""
    verdicts = list(verdicts)
    grades = Counter(verdict.grade for verdict in verdicts if verdict.grade is not None)
    proof = ", ".join(
        f"{grade} {number}" if len(grades) > 1 else f"{grade}"
        for grade, number in sorted(grades.items(), key=lambda one: one[0].name)
    )
    fast = max(
        (verdict for verdict in verdicts if verdict.time_factor > 1), key=lambda v: v.margin_s, default=None
    )
    if fast is not None:
        proof += f", {_fast_time(fast)}"
    found = counts(verdict.outcome for verdict in verdicts)
    tolerated = tolerated_text(verdict for verdict in verdicts if verdict.passed)
    return (
        f"{found} in {took_s:.2f} s"
        + (f" ({proof})" if proof else "")
        + (f"; {tolerated}" if tolerated else "")
    )


# --- expected and received ----------------------------------------------------------------------------------


def details(failure: Failure, verdict: Verdict, columns: int | None = None) -> Iterator[Line]:
    """The details of a failure: expected and actual."""
    match failure.kind:
        case (
            FailureKind.UNANSWERED
            | FailureKind.NEVER_IDLE
            | FailureKind.NEVER_QUIET
            | FailureKind.NOT_READ
            | FailureKind.UNSENDABLE
        ):
            yield pair("reason", failure.detail, Tone.BAD)
        case FailureKind.NO_HANDSHAKE:
            yield pair("expected", "a handshake", Tone.WARNING)
            yield pair("actual", failure.detail, Tone.BAD)
        case FailureKind.TOO_LATE:
            limit = render_duration((failure.expected.limit_us if failure.expected else None) or 0)
            yield pair("received", _bare(received_text(failure.received or b"", verdict.eol)))
            yield pair("expected", f"within {limit} of the action of the turn", Tone.WARNING)
            yield pair("measured", f"{failure.detail}, {_clock(verdict)}", Tone.BAD)
        case FailureKind.NO_PORT:
            yield pair("expected", "a port of the server", Tone.WARNING)
            yield pair("actual", failure.detail, Tone.BAD)
        case FailureKind.TIMED_OUT:
            yield pair("expected", "the server accepts connections and reads", Tone.WARNING)
            yield pair("actual", failure.detail, Tone.BAD)
        case FailureKind.SERVER_DIED:
            yield pair("expected", "the server keeps running", Tone.WARNING)
            for line in failure.detail.splitlines()[:1]:
                yield pair("actual", line, Tone.BAD)
        case FailureKind.RAISED:
            yield pair("expected", "no exception that the server does not handle", Tone.WARNING)
            yield pair("actual", failure.detail, Tone.BAD)
        case FailureKind.NOT_RAISED:
            yield pair("expected", f"the server raises {failure.detail}", Tone.WARNING)
            yield pair("actual", "no such exception", Tone.BAD)
        case FailureKind.DISAGREED:
            yield pair("expected", "the same order for all of them", Tone.WARNING)
            yield pair("actual", "the right lines, but in different orders", Tone.BAD, _grade(verdict))
        case FailureKind.MISSING | FailureKind.EXTRA | FailureKind.DIFFERENT | FailureKind.OUT_OF_ORDER:
            yield from _line_details(failure, verdict, columns)
        case (
            FailureKind.STILL_OPEN
            | FailureKind.LOST_CONNECTION
            | FailureKind.WRONG_END
            | FailureKind.NOT_REFUSED
            | FailureKind.REFUSED_ENTRY
        ):
            expected = (
                with_detail(failure.ending.value, failure.ending_detail) if failure.ending else "is connected"
            )
            actual = with_detail(END_WORDS.get(failure.end or End.OPEN, "is connected"), failure.end_detail)
            yield pair("expected", f"{failure.client} {expected}", Tone.WARNING)
            yield pair("actual", f"{failure.client} {actual}", Tone.BAD, _grade(verdict))
            turn = _turn_of(failure, verdict)
            for choice in turn.choices if turn else ():
                if failure.client in choice.ending:
                    yield _other_ways(choice, failure.client)
        case kind:
            assert_never(kind)


def pair(label: str, text: str, tone: Tone = Tone.PLAIN, note: str = "") -> Line:
    """One labelled line below a headline."""
    return [
        Span(padded(f"  {label}", _LABEL_COLUMNS)),
        Span(text, tone),
        Span(f"      {note}" if note else "", Tone.DIM),
    ]


def _grade(verdict: Verdict) -> str:
    if verdict.grade is None:
        return ""
    fast = f"; {_fast_time(verdict)}" if verdict.time_factor > 1 else ""
    return f"({_GRADES[verdict.grade]}{fast})"


def _fast_time(verdict: Verdict) -> str:
    """How fast the server's time passed, and how much later the end of a turn can have been than the script says."""
    return f"time x{verdict.time_factor}, up to {max(0.01, verdict.margin_s):.2f} s late"


def _line_details(failure: Failure, verdict: Verdict, columns: int | None) -> Iterator[Line]:
    received = None if failure.received is None else received_text(failure.received, verdict.eol)
    expected = None if failure.expected is None else failure.expected.text
    step = failure.expected.step if failure.expected is not None else None
    comparable = received is not None and isinstance(step, (Receive, ReceiveBytes))
    data = failure.received or b""
    if isinstance(step, ReceiveBody) and step.content is not None and received is not None:
        # The rest of the line has a separate expectation.
        data, received, comparable = data[: len(step.content)], "<<", True
    if comparable and "<<" in ((received or "")[:2], (expected or "")[:2]):
        # One of the two is not a valid plain line, so both are shown as bytes.
        received = f"<< {render_bytes(data)}"
        expected = f"<< {render_bytes(_wire(failure.expected, verdict.eol))}"
    at = f"after {failure.at_s:g} s" if verdict.virtual_time and failure.at_s and received else ""
    one, other = _bare(received), _bare(expected)
    differs = first_difference(one, other) if comparable else 0
    room = (WIDEST if columns is None else columns) - _LABEL_COLUMNS
    (one, other), at_column = windowed_alike((one, other), differs, room)
    grade = _grade(verdict)
    apart = columns is not None and _LABEL_COLUMNS + width(other) + width(grade) + 6 > columns
    yield pair("received", one, Tone.BAD, at)
    yield pair("expected", other, Tone.WARNING, "" if apart else grade)
    if comparable:
        yield [Span(" " * (_LABEL_COLUMNS + at_column) + "^", Tone.BAD)]
    yield from _passed_over(failure, verdict)
    yield from _size(failure, verdict)
    yield from _conflicts(failure, verdict)
    if failure.expected is not None and failure.expected.choice is not None:
        yield _other_ways(failure.expected.choice, failure.client)
    if apart:
        yield [Span(" " * _LABEL_COLUMNS), Span(grade, Tone.DIM)]


def _other_ways(choice: Choice, failed: str) -> Line:
    """The alternatives that an `either:` would have accepted."""
    clients = choice.one_of
    if clients:
        others = " or ".join(client for client in clients if client != failed)
        return pair("or", f"{others} receives it", Tone.WARNING)
    number = len(choice.ways) - 1
    ways = "the other way" if number == 1 else f"one of the {number} other ways"
    return pair("or", f"{ways} of line {choice.line}", Tone.WARNING)


def _passed_over(failure: Failure, verdict: Verdict) -> Iterator[Line]:
    """The lines that came before, instead of the line of `any lines until`."""
    turn = _turn_of(failure, verdict)
    lane = turn.client_turn(failure.client) if turn else None
    passed = (
        [one for one in lane.entries if one.passed_over and one.expected == failure.expected] if lane else []
    )
    if passed:
        last = received_text(passed[-1].received or b"", verdict.eol).removeprefix("< ")
        yield pair("heard", f"{count(len(passed), 'line')}, the last of them `{last}`", Tone.BAD)


def _size(failure: Failure, verdict: Verdict) -> Iterator[Line]:
    """The announced size of a missing body, and how much of it came."""
    step, turn = failure.expected.step if failure.expected else None, _turn_of(failure, verdict)
    if not isinstance(step, ReceiveBody) or turn is None:
        return
    lane = turn.client_turn(failure.client)
    came = sum(len(one.received or b"") for one in lane.entries if not one.matches) if lane else 0
    known = {one.name: one.value for one in turn.bindings}
    if (
        step.content is not None
        and known.get(str(step.size)) == str(len(step.content))
        and came >= len(step.content)
    ):
        return
    for one in turn.bindings:
        if one.name == step.size:
            yield pair(
                "but",
                f"${{{one.name}}} is `{one.value}` since {_line_at(one.file, one.line, failure.file)}, "
                f"and {count(came, 'byte')} came",
                Tone.BAD,
            )


def _conflicts(failure: Failure, verdict: Verdict) -> Iterator[Line]:
    """Notes on the names that are already bound: a pattern can seem to match although one of its names has another value."""
    turn = _turn_of(failure, verdict)
    if turn is None or failure.expected is None or failure.received is None:
        return
    for one in conflicting_bindings(failure.expected, failure.received, turn.bindings, verdict.eol):
        since = _line_at(one.file, one.line, failure.file)
        yield pair("but", f"${{{one.name}}} is `{one.value}` since {since}", Tone.BAD)


def _line_at(file: str, line: int, here: str) -> str:
    """A line as another line of that file names it: `line 4`, or `common.chat:4` if it is in another file."""
    return f"line {line}" if file == here else f"{file}:{line}"


def _bare(text: str | None) -> str:
    """A plain line without its `<`, so that both can be compared one above the other."""
    if text is None:
        return "nothing"
    if text in ("< nothing", "< an empty line"):
        return text
    return text[2:] if text.startswith("< ") else "an empty line" if text == "<" else text


def _wire(expected: Expectation | None, eol: bytes) -> bytes:
    match expected.step if expected else None:
        case Receive(_, text):
            return text.encode() + eol
        case ReceiveBytes(_, data) | ReceiveBody(_, _, bytes(data)):
            return data
        case _:
            return b""


def first_difference(one: str, other: str) -> int:
    """The number of characters at their beginning that are the same."""
    same = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(same, min(len(one), len(other)))
