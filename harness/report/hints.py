"""Hints at common causes of failures. Pure: reads only the verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from harness.language.adapter import Spelling
from harness.language.escapes import render_bytes
from harness.language.forms import write_line
from harness.language.steps import Ending, Receive, Reply, Rule
from harness.playing.expectations import Expectation
from harness.playing.verdict import Failure, FailureKind, Overtaken, TurnReport, Verdict
from harness.report.lanes import END_WORDS, ending_to_expect, with_detail
from harness.stage.connection import End
from harness.stage.fence import Grade

_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b")
_MISSING = (FailureKind.MISSING, FailureKind.DIFFERENT)
_MANY_REPLIES = 10
_CAPTURE = re.compile(r"\$\{([A-Za-z_]\w*)(?::int|:/.*/)?\}")
_UNEXPECTED = (FailureKind.EXTRA, FailureKind.DIFFERENT)


def hints(verdict: Verdict) -> Iterator[str]:
    """Every hint that applies, each once."""
    seen: set[str] = set()
    for failure in verdict.failures:
        turn = next((one for one in verdict.turns if one.number == failure.turn), None)
        if turn is None:
            continue
        for look in _HINTS:
            for hint in look(failure, turn, verdict):
                if hint not in seen:
                    seen.add(hint)
                    yield hint


def _literal(failure: Failure) -> tuple[str, bytes] | None:
    """The expected literal line and the bytes received in its place."""
    if failure.expected is None or failure.received is None or failure.kind is FailureKind.TOO_LATE:
        return None
    if not isinstance(failure.expected.step, Receive):
        return None
    return failure.expected.step.text, failure.received


def _matches(expected: Expectation, received: bytes | None, turn: TurnReport, verdict: Verdict) -> bool:
    if received is None:
        return False
    found = expected.match_end(received, 0, {one.name: one.value for one in turn.bindings}, verdict.eol)
    return found is not None and found[0] == len(received)


# --- the form of the line -------------------------------------------------------------------------------------


def _line_end(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    text, received = _literal(failure) or ("", b"")
    match received.removeprefix(text.encode()) if received.startswith(text.encode()) else None:
        case b"\r\n":
            yield "the server ends its lines with CR LF; `eol: crlf` in the header expects that"
        case b"\n":
            yield "the server ends its lines with LF, but the header says `eol: crlf`"
        case b"\r":
            yield "the server ends its lines with CR alone"
        case b"" if received:
            yield "the line arrived without its line end"


def _taken_literally(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    expected, received = _literal(failure) or ("", b"")
    if received and _CAPTURE.search(expected):
        yield f"`{failure.client}<` expects this text as it stands; with captures it is `{failure.client}<~`"
    bound = {one.name for one in turn.bindings}
    for action in turn.actions:
        found = _CAPTURE.search(action.text) if action.text.startswith("> ") else None
        if found is not None and found[1] in bound:
            yield f"{action.client} sent `{found[0]}` as it stands; `{action.client}>~` sends its value"


def _sent_in_pieces(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    spelled = {
        one.client
        for earlier in verdict.turns
        for one in earlier.taken
        if isinstance(one.rule, Spelling) and one.rule.sent
    }
    if any(action.client in spelled and action.text.startswith(">> ") for action in turn.actions):
        yield "what `>>` sends is sent as it is: an adapter puts whole lines in other words"


def _silence(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    step = failure.expected.step if failure.expected is not None else None
    if failure.kind is FailureKind.MISSING and isinstance(step, Receive) and step.text == "nothing":
        yield f"this expects a line `nothing`; that nothing comes is `{failure.client} receives nothing`"


def _greeting(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    received = (
        entry
        for earlier in verdict.turns
        if (client_turn := earlier.client_turn(failure.client)) and earlier.number <= turn.number
        for entry in client_turn.entries
        if entry.received is not None
    )
    first = next(received, None)
    if failure.kind is not FailureKind.EXTRA or first is None or first.matches:
        return
    if first.received == failure.received and {one.client for one in turn.actions} == {failure.client}:
        yield (
            f"it is the first that {failure.client} received: a greeting is expected like any other line, before the answer "
            f"to what {failure.client} sends"
        )


def _no_line_end(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.EXTRA and failure.received and not failure.received.endswith(b"\n"):
        yield (
            f"{failure.client} received bytes without a line end: half a line, "
            f"or data to be expected with `{failure.client}<<`"
        )


def _encoding(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    text, received = _literal(failure) or ("", b"")
    line = received.rstrip(b"\r\n")
    if not received or (text.isascii() and text.encode("utf-16-le") not in received):
        return
    for name, codec in (("Latin-1", "latin-1"), ("UTF-16", "utf-16-le"), ("UTF-16", "utf-16-be")):
        if _encoded(text, codec) in (line, received):
            yield f"this is the expected text in {name} instead of UTF-8"
            return
    if line == text.encode().decode("latin-1").encode():
        yield "this is the expected text encoded twice: its UTF-8 was read as Latin-1 and encoded again"
    elif b"?" in line and line == text.encode("ascii", "replace"):
        yield "the server replaced characters outside ASCII with question marks"


def _encoded(text: str, codec: str) -> bytes | None:
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        return None


def _looks_alike(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    expected, data = _literal(failure) or ("", b"")
    received = data.decode("utf-8", "replace").rstrip("\r\n")
    if not data or received == expected:
        return
    if received.casefold() == expected.casefold():
        yield "only upper and lower case differ"
    elif "".join(received.split()) == "".join(expected.split()):
        yield "only white space differs"


# --- where the line is --------------------------------------------------------------------------------------


def _sent_to_another(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.expected is None or failure.kind not in _MISSING:
        return
    for other in turn.client_turns:
        if other.client != failure.client:
            for entry in other.entries:
                if not entry.matches and _matches(failure.expected, entry.received, turn, verdict):
                    yield f"{failure.client}'s line went to {other.client}"


def _taken(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.expected is None or failure.kind not in _MISSING:
        return
    for one in turn.taken:
        if one.client == failure.client and _matches(failure.expected, one.data, turn, verdict):
            rule = write_line(one.rule) if isinstance(one.rule, Rule) else str(one.rule)
            takes = "respells it" if isinstance(one.rule, Spelling) else "takes it"
            yield f"such a line came, but `{rule}` ({one.file}:{one.rule.line}) {takes}"
            return


def _late(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.expected is None or failure.kind not in _MISSING:
        return
    for late in verdict.late_lines:
        if _matches(failure.expected, late.line, turn, verdict):
            to = "" if late.client == failure.client else f" at {late.client}"
            when = "a turn later" if late.a_turn_later else f"{late.at_s - turn.now_s:g} s later"
            yield f"the missing line arrived{to} {when}"
            return


def _duplicate(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    client_turn = turn.client_turn(failure.client)
    if failure.received is None or client_turn is None or failure.kind not in _UNEXPECTED:
        return
    same = [entry for entry in client_turn.entries if entry.received == failure.received]
    if len(same) > 1 and any(entry.matches for entry in same):
        yield f"{failure.client} received the same line twice"


def _echo(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.received is None or failure.kind not in _UNEXPECTED:
        return
    line = failure.received.rstrip(b"\r\n").decode("utf-8", "replace")
    if any(action.client == failure.client and action.text == f"> {line}" for action in turn.actions):
        yield f"the server echoes what {failure.client} sent"


def _other_order(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.OUT_OF_ORDER:
        yield "every line arrived, but in another order; where that is allowed, use `in any order:`"


# --- how the connection or the server ended -----------------------------------------------------------------


def _lost_connection(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.LOST_CONNECTION:
        sent = [one for one in turn.actions if one.client == failure.client and one.text.startswith(">")]
        if len(sent) > 1:
            yield f"{failure.client} sent {len(sent)} times in this turn; what followed the end was not handled"
        client_turn = turn.client_turn(failure.client)
        words = END_WORDS.get(failure.end or End.CLOSED, "is disconnected")
        ending = (
            ending_to_expect(client_turn, turn)
            if client_turn is not None and client_turn.ended_now
            else with_detail(words, failure.end_detail)
        )
        yield f"if this is intended, expect `{failure.client} {ending}` in this turn"


def _reset(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.WRONG_END and (failure.end is End.RESET or failure.ending is Ending.RESET):
        yield (
            "a server that closes with unread input resets the connection, so either end can be right; "
            f"`{failure.client} is disconnected` accepts both"
        )


def _exception(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    lines = verdict.server_output.splitlines()
    told = any(one.kind is FailureKind.RAISED for one in verdict.failures)
    if not told and any(line.startswith("Traceback") for line in lines):
        errors = [line for line in lines if _EXCEPTION.match(line)]
        if errors:
            yield f"the server's code raised {errors[-1]}"


def _fence_line_not_answered(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    client = failure.client
    if failure.kind is FailureKind.UNANSWERED:
        yield from (one.way_out for one in turn.fence_lines if one.client == client and one.behind)
    unanswered = any(
        one.client == client and one.answer is None and not one.heard_by for one in turn.fence_lines
    )
    if unanswered and failure.kind in (FailureKind.LOST_CONNECTION, FailureKind.WRONG_END):
        yield (
            f"the connection ended when the harness had sent its fence line to {client}; if the server does not take it "
            f"there, `fence-after: …`, `unfenced: {client}` or `fence: none` in the header keeps it away"
        )


def _fence_line_received(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    """The server delivers the fence line in other words than the script says, or answers it."""
    told = [one for one in turn.fence_lines if one.heard_by is not None]
    received = failure.received
    if not told or received is None or failure.kind not in _UNEXPECTED:
        return
    line = render_bytes(received.rstrip(b"\r\n"))
    for one in told:
        if one.token.encode().lower() in received.lower():
            yield f"this is how the server delivers the fence line of {one.client}; `heard as` in the header has to match it"
            return
    sent = Counter(one.client for one in told if one.answer is None)
    extra = Counter(
        one.client
        for one in turn.client_turns
        for entry in one.entries
        if entry.received == received and not entry.matches
    )
    if (
        sent
        and line not in verdict.fence.replies
        and all(extra[client] >= times for client, times in sent.items())
    ):
        yield (
            f"each client that the harness let send its fence line received this; if the server always answers it so, add "
            f"` -> {line}` to the fence, and if it refuses it so, ` | {line}`"
        )


def _overtaken(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if verdict.overtaken and verdict.not_repeated:
        yield (
            f"{verdict.overtaken.value}; played again with a quiet moment after each turn, the script passed, so the "
            f"server does not do the same each time, or {_proves_nothing(verdict)}: `fence: none`"
        )
    elif verdict.overtaken:
        why = overtaken(verdict)
        if verdict.overtaken is not Overtaken.PERHAPS:
            why = f"{why}, so {_proves_nothing(verdict)}"
        yield (
            f"{why}; the script was played again with a quiet moment after each turn"
            + (", and the grade is `settled`" if verdict.grade is not None else "")
        )


def overtaken(verdict: Verdict) -> str:
    """What made a second play necessary."""
    if verdict.overtaken is Overtaken.PERHAPS:
        return str(verdict.overtaken.value)
    return f"lines came after {fence_returned(verdict)}"


def fence_returned(verdict: Verdict) -> str:
    """The reason why a fence returned without waiting for quiet."""
    if verdict.fence.heard:
        return "the other clients had heard the fence line"
    return "the server had answered the fence line"


def _proves_nothing(verdict: Verdict) -> str:
    if verdict.fence.heard:
        return "not everything goes the way of that line"
    return "its answers to the fence line prove nothing"


def _raised(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    if failure.kind is FailureKind.RAISED:
        kind = failure.detail.partition(":")[0].rpartition(".")[2]
        yield f"if this is intended, expect `the server raises {kind}` in this turn"


def _never_at_rest(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    replies = [one.rule for one in turn.taken if isinstance(one.rule, Reply)]
    if failure.kind in (FailureKind.NEVER_QUIET, FailureKind.NEVER_IDLE) and len(replies) >= _MANY_REPLIES:
        yield f"the server answers what `{write_line(replies[-1])}` makes clients say, and so on without end"
    elif failure.kind is FailureKind.NEVER_QUIET:
        yield (
            f"a turn ends when nothing came for {verdict.settle_s:g} s: for a server that sends something at intervals, "
            "`settle:` has to be shorter than those, or `ignore:` has to take what it sends"
        )
    elif failure.kind is FailureKind.NEVER_IDLE and "never became idle" in failure.detail:
        yield (
            "the server's loop always had something to do, as in a loop that calls `sleep(0)`; a server that polls can "
            "be played as a command: `--server`"
        )


def _no_fence(failure: Failure, turn: TurnReport, verdict: Verdict) -> Iterator[str]:
    client_turn = turn.client_turn(failure.client)
    if (
        verdict.grade is Grade.SETTLED
        and not (verdict.fence.question and verdict.answers_prove and not verdict.virtual_time)
        and client_turn is not None
        and client_turn.end is End.OPEN
        and failure.kind in (*_MISSING, FailureKind.EXTRA)
    ):
        if verdict.virtual_time:
            yield (
                f"{verdict.unseen} was at work outside the server's loop: what it causes more than {verdict.settle_s:g} s "
                "later counts for a later turn"
            )
        elif not verdict.answers_prove:
            yield (
                "what passes between several processes can only be waited for, so a slow answer counts for a later turn; "
                "a longer `settle:` waits longer"
            )
        else:
            yield (
                "the run had no fence, so a slow answer counts for a later turn; name a line that the server answers at "
                "once, `fence: PING -> PONG`, and the grade is `answered` if it delivers before it answers"
            )


_HINTS: tuple[Callable[[Failure, TurnReport, Verdict], Iterator[str]], ...] = (
    _line_end,
    _no_line_end,
    _taken_literally,
    _sent_in_pieces,
    _silence,
    _greeting,
    _encoding,
    _looks_alike,
    _sent_to_another,
    _taken,
    _late,
    _duplicate,
    _echo,
    _other_order,
    _lost_connection,
    _reset,
    _exception,
    _raised,
    _fence_line_not_answered,
    _fence_line_received,
    _overtaken,
    _never_at_rest,
    _no_fence,
)
