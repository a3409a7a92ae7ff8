"""One turn's hearings -> what is wrong with them, as Failures. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.language.steps import Ending, ReceivePattern
from harness.playing.hearing import Entry
from harness.playing.verdict import ENDS_AS, Failure, Fault, Hearing, TurnReport
from harness.stage.connection import End


def judge(turn: TurnReport, eol: bytes) -> Iterator[Failure]:
    """Every client's first wrong line and wrong end in this turn, in the order of their lines in the script."""
    if turn.disagreed:
        who = " and ".join(turn.disagreed)
        yield Failure(Fault.DISAGREED, who, turn.file, turn.agreement_line, turn.number, at_s=turn.now_s)
    found = [failure for hearing in turn.hearings for failure in _of_one(turn, hearing, eol)]
    yield from sorted(found, key=_weight)


# What most likely caused the rest is told first: a lost connection, then a line that is wrong or missing.
_FIRST = (Fault.CUT_OFF, Fault.TURNED_AWAY, Fault.LET_IN)


def _weight(failure: Failure) -> tuple[int, int]:
    rank = 0 if failure.fault in _FIRST else 2 if failure.fault is Fault.EXTRA else 1
    return rank, failure.line


def _of_one(turn: TurnReport, hearing: Hearing, eol: bytes) -> Iterator[Failure]:
    wrong = next((at for at, entry in enumerate(hearing.entries) if not entry.fits), None)
    if wrong is not None:
        yield _line_failure(turn, hearing, wrong, eol)
    end = _end_fault(hearing)
    if end is not None:
        line = hearing.ending_line or turn.last_line
        yield Failure(
            end, hearing.client, turn.file, line, turn.number,
            ending=hearing.ending, end=hearing.end, at_s=turn.now_s,
        )  # fmt: skip


def _line_failure(turn: TurnReport, hearing: Hearing, at: int, eol: bytes) -> Failure:
    entry = hearing.entries[at]
    fault = _line_fault(hearing, entry, eol)
    heard = entry.heard
    if fault is Fault.OUT_OF_ORDER and heard is None:
        # What came in its place is a line that is right elsewhere.
        heard = next((other.heard for other in hearing.entries[at:] if other.heard is not None), None)
    return Failure(
        fault,
        hearing.client,
        entry.awaited.file if entry.awaited else turn.file,
        entry.awaited.line if entry.awaited else hearing.silence_line or _line_near(turn, hearing, at),
        turn.number,
        awaited=entry.awaited,
        heard=heard,
        at_s=hearing.times_s[at],
    )


def _line_near(turn: TurnReport, hearing: Hearing, at: int) -> int:
    """Where a line that the script does not say would have to stand: by what was heard before it, else the turn's end."""
    before = [entry.awaited.line for entry in hearing.entries[:at] if entry.awaited]
    return before[-1] if before else turn.last_line


def _line_fault(hearing: Hearing, entry: Entry, eol: bytes) -> Fault:
    if entry.awaited is None:
        return Fault.EXTRA
    if isinstance(entry.awaited.step, ReceivePattern):
        # What a pattern would take elsewhere says nothing: its names may be bound by now.
        return Fault.MISSING if entry.heard is None else Fault.DIFFERENT
    came = [other.heard for other in hearing.entries if not other.fits and other.heard is not None]
    for wire in came:
        found = entry.awaited.ends_at(wire, 0, {}, eol)
        if found is not None and found[0] == len(wire):
            return Fault.OUT_OF_ORDER
    return Fault.MISSING if entry.heard is None else Fault.DIFFERENT


def _end_fault(hearing: Hearing) -> Fault | None:
    said, came = hearing.ending, hearing.end
    if said is None:
        if not hearing.ended_now:
            return None
        return Fault.TURNED_AWAY if came is End.REFUSED else Fault.CUT_OFF
    if came in ENDS_AS[said]:
        return None
    if said is Ending.REFUSED:
        return Fault.LET_IN
    if came is End.REFUSED:
        return Fault.TURNED_AWAY
    return Fault.STILL_OPEN if came is End.OPEN else Fault.OTHER_END
