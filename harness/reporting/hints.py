"""What most likely went wrong, where the cause is a common one. Pure: looks at the verdict alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from harness.language.steps import Receive
from harness.playing.comparison import Expectation
from harness.playing.verdict import Failure, FailureKind, TurnReport, Verdict
from harness.reporting.lanes import END_WORDS
from harness.stage.connection import End
from harness.stage.fence import Grade

_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b")
_Hint = Callable[[Failure, TurnReport, Verdict], Iterator[str]]


def hints(verdict: Verdict) -> Iterator[str]:
    """Each hint once."""
    told: set[str] = set()
    for failure in verdict.failures:
        turn = next((one for one in verdict.turns if one.number == failure.turn), None)
        if turn is None:
            continue
        for look in _LOOKS:
            for hint in look(failure, turn, verdict):
                if hint not in told:
                    told.add(hint)
                    yield hint


def _line_end(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.received is None or failure.expected is None or not isinstance(failure.expected.step, Receive):
        return
    text = failure.expected.step.text.encode()
    if failure.received == text + b"\r\n":
        yield "the server ends its lines with CR LF: `eol: crlf` in the header expects that"
    elif failure.received == text + b"\n":
        yield "the server ends its lines with LF alone, and the header says `eol: crlf`"
    elif failure.received == text:
        yield "the line has come, its line end has not"
    elif failure.received == text + b"\r":
        yield "the server ends its lines with CR alone"


def _unfinished(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if (
        failure.kind is FailureKind.EXTRA
        and failure.received is not None
        and not failure.received.endswith(b"\n")
    ):
        yield f"what {failure.client} heard has no line end: expect it with `{failure.client}<<`, or it is half a line"


def _encoding(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.received is None or failure.expected is None or not isinstance(failure.expected.step, Receive):
        return
    text = failure.expected.step.text
    line = failure.received.rstrip(b"\r\n")
    if text.isascii() and text.encode("utf-16-le") not in failure.received:
        return
    for name, codec in (("Latin-1", "latin-1"), ("UTF-16", "utf-16-le"), ("UTF-16", "utf-16-be")):
        if _encoded(text, codec) in (line, failure.received):
            yield f"this is the expected text in {name}, not in UTF-8"
            return
    try:
        twice = text.encode().decode("latin-1").encode()
    except UnicodeDecodeError:
        return
    if line == twice:
        yield "this is the expected text encoded twice: UTF-8 taken for Latin-1 and made UTF-8 again"
    elif b"?" in line and line == text.encode("ascii", "replace"):
        yield "the server has replaced what is not ASCII with question marks"


def _encoded(text: str, codec: str) -> bytes | None:
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        return None


def _looks_alike(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.received is None or failure.expected is None or not isinstance(failure.expected.step, Receive):
        return
    came = failure.received.decode("utf-8", "replace").rstrip("\r\n")
    wanted = failure.expected.step.text
    if came == wanted:
        return
    if came.casefold() == wanted.casefold():
        yield "only upper and lower case differ"
    elif "".join(came.split()) == "".join(wanted.split()):
        yield "only white space differs"


def _went_elsewhere(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    """Where the missing line did go."""
    if failure.expected is None or failure.kind not in (FailureKind.MISSING, FailureKind.DIFFERENT):
        return
    for client_turn in turn.client_turns:
        if client_turn.client == failure.client:
            continue
        for entry in client_turn.entries:
            if not entry.matches and _is(failure.expected, entry.received, turn, verdict):
                yield f"{failure.client}'s line went to {client_turn.client}"


def _came_late(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.expected is None or failure.kind not in (FailureKind.MISSING, FailureKind.DIFFERENT):
        return
    for late in verdict.late_lines:
        if _is(failure.expected, late.line, turn, verdict):
            whose = "" if late.client == failure.client else f" to {late.client}"
            seconds = late.at_s - turn.now_s
            when = "a turn later" if late.a_turn_later else f"{seconds:g} s later, when time went on"
            yield f"the missing line came{whose} {when}"
            return


def _received_before(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    client_turn = turn.client_turn(failure.client)
    if (
        failure.received is None
        or client_turn is None
        or failure.kind not in (FailureKind.EXTRA, FailureKind.DIFFERENT)
    ):
        return
    same = [entry for entry in client_turn.entries if entry.received == failure.received]
    if len(same) > 1 and any(entry.matches for entry in same):
        yield f"{failure.client} heard the same line twice"


def _echo(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.received is None or failure.kind not in (FailureKind.EXTRA, FailureKind.DIFFERENT):
        return
    line = failure.received.rstrip(b"\r\n").decode("utf-8", "replace")
    if any(done.client == failure.client and done.text == f"> {line}" for done in turn.actions):
        yield f"this is what {failure.client} sent: the server echoes"


def _order_is_free(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.OUT_OF_ORDER:
        yield "all of it came, but in another order: where that is allowed, `in any order:` says so"


def _lost_with_the_connection(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.LOST_CONNECTION:
        lost = [done for done in turn.actions if done.client == failure.client and done.text.startswith(">")]
        if len(lost) > 1:
            yield f"{failure.client} sent {len(lost)} times in this turn; what came after the end was not dealt with"
        came = END_WORDS.get(failure.end or End.CLOSED, "is disconnected")
        yield f"if the server may do so, `{failure.client} {came}` in this turn says it"


def _unread(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.WRONG_END:
        yield (
            "a server that closes with unread input resets, so that both ends can be right: "
            f"`{failure.client} is disconnected` accepts either"
        )


def _raised(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    lines = verdict.server_output.splitlines()
    if any(line.startswith("Traceback") for line in lines):
        errors = [line for line in lines if _EXCEPTION.match(line)]
        if errors:
            yield f"the server's own code failed: {errors[-1]}"


def _weak_fence(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if (
        verdict.grade is Grade.SETTLED
        and not verdict.fenced
        and failure.kind in (FailureKind.MISSING, FailureKind.EXTRA, FailureKind.DIFFERENT)
    ):
        yield "this server was not fenced: a line that it must answer, `fence: PING -> PONG`, makes runs exact"


def _is(expected: Expectation, received: bytes | None, turn: TurnReport, verdict: Verdict) -> bool:
    if received is None:
        return False
    found = expected.match_end(received, 0, {one.name: one.value for one in turn.bindings}, verdict.eol)
    return found is not None and found[0] == len(received)


_LOOKS: tuple[_Hint, ...] = (
    _line_end,
    _unfinished,
    _encoding,
    _looks_alike,
    _went_elsewhere,
    _came_late,
    _received_before,
    _echo,
    _order_is_free,
    _lost_with_the_connection,
    _unread,
    _raised,
    _weak_fence,
)
