"""What most likely went wrong, where the cause is a common one. Pure: looks at the verdict alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from harness.language.steps import Receive
from harness.playing.hearing import Awaited
from harness.playing.verdict import Failure, Fault, TurnReport, Verdict
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
    if failure.heard is None or failure.awaited is None or not isinstance(failure.awaited.step, Receive):
        return
    text = failure.awaited.step.text.encode()
    if failure.heard == text + b"\r\n":
        yield "the server ends its lines with CR LF: `eol: crlf` in the header expects that"
    elif failure.heard == text + b"\n":
        yield "the server ends its lines with LF alone, and the header says `eol: crlf`"
    elif failure.heard == text:
        yield "the line has come, its line end has not"
    elif failure.heard == text + b"\r":
        yield "the server ends its lines with CR alone"


def _unfinished(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.fault is Fault.EXTRA and failure.heard is not None and not failure.heard.endswith(b"\n"):
        yield f"what {failure.client} heard has no line end: expect it with `{failure.client}<<`, or it is half a line"


def _encoding(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.heard is None or failure.awaited is None or not isinstance(failure.awaited.step, Receive):
        return
    text = failure.awaited.step.text
    line = failure.heard.rstrip(b"\r\n")
    if text.isascii() and text.encode("utf-16-le") not in failure.heard:
        return
    for name, codec in (("Latin-1", "latin-1"), ("UTF-16", "utf-16-le"), ("UTF-16", "utf-16-be")):
        if _encoded(text, codec) in (line, failure.heard):
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
    if failure.heard is None or failure.awaited is None or not isinstance(failure.awaited.step, Receive):
        return
    came = failure.heard.decode("utf-8", "replace").rstrip("\r\n")
    wanted = failure.awaited.step.text
    if came == wanted:
        return
    if came.casefold() == wanted.casefold():
        yield "only upper and lower case differ"
    elif "".join(came.split()) == "".join(wanted.split()):
        yield "only white space differs"


def _went_elsewhere(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    """Where the missing line did go."""
    if failure.awaited is None or failure.fault not in (Fault.MISSING, Fault.DIFFERENT):
        return
    for hearing in turn.hearings:
        if hearing.client == failure.client:
            continue
        for entry in hearing.entries:
            if not entry.fits and _is(failure.awaited, entry.heard, turn, verdict):
                yield f"{failure.client}'s line went to {hearing.client}"


def _came_late(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.awaited is None or failure.fault not in (Fault.MISSING, Fault.DIFFERENT):
        return
    for late in verdict.late:
        if _is(failure.awaited, late.line, turn, verdict):
            whose = "" if late.client == failure.client else f" to {late.client}"
            seconds = late.at_s - turn.now_s
            when = "a turn later" if late.a_turn_later else f"{seconds:g} s later, when time went on"
            yield f"the missing line came{whose} {when}"
            return


def _heard_before(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    hearing = turn.hearing(failure.client)
    if failure.heard is None or hearing is None or failure.fault not in (Fault.EXTRA, Fault.DIFFERENT):
        return
    same = [entry for entry in hearing.entries if entry.heard == failure.heard]
    if len(same) > 1 and any(entry.fits for entry in same):
        yield f"{failure.client} heard the same line twice"


def _echo(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.heard is None or failure.fault not in (Fault.EXTRA, Fault.DIFFERENT):
        return
    line = failure.heard.rstrip(b"\r\n").decode("utf-8", "replace")
    if any(done.client == failure.client and done.text == f"> {line}" for done in turn.done):
        yield f"this is what {failure.client} sent: the server echoes"


def _order_is_free(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.fault is Fault.OUT_OF_ORDER:
        yield "all of it came, but in another order: where that is allowed, `in any order:` says so"


def _lost_with_the_connection(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.fault is Fault.CUT_OFF:
        lost = [done for done in turn.done if done.client == failure.client and done.text.startswith(">")]
        if len(lost) > 1:
            yield f"{failure.client} sent {len(lost)} times in this turn; what came after the end was not dealt with"
        came = END_WORDS.get(failure.end or End.CLOSED, "is disconnected")
        yield f"if the server may do so, `{failure.client} {came}` in this turn says it"


def _unread(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.fault is Fault.OTHER_END:
        yield (
            "a server that closes with unread input resets, so that both ends can be right: "
            f"`{failure.client} is disconnected` accepts either"
        )


def _raised(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    lines = verdict.last_words.splitlines()
    if any(line.startswith("Traceback") for line in lines):
        errors = [line for line in lines if _EXCEPTION.match(line)]
        if errors:
            yield f"the server's own code failed: {errors[-1]}"


def _weak_fence(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if (
        verdict.grade is Grade.SETTLED
        and not verdict.fenced
        and failure.fault in (Fault.MISSING, Fault.EXTRA, Fault.DIFFERENT)
    ):
        yield "this server was not fenced: a line that it must answer, `fence: PING -> PONG`, makes runs exact"


def _is(awaited: Awaited, heard: bytes | None, turn: TurnReport, verdict: Verdict) -> bool:
    if heard is None:
        return False
    found = awaited.ends_at(heard, 0, {one.name: one.value for one in turn.bound}, verdict.eol)
    return found is not None and found[0] == len(heard)


_LOOKS: tuple[_Hint, ...] = (
    _line_end,
    _unfinished,
    _encoding,
    _looks_alike,
    _went_elsewhere,
    _came_late,
    _heard_before,
    _echo,
    _order_is_free,
    _lost_with_the_connection,
    _unread,
    _raised,
    _weak_fence,
)
