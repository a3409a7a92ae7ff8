"""What came of playing a script, as data: turns, lanes, failures. Knows no sockets and no layout (see report)."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from harness.language.expansion import CallSite
from harness.language.steps import Ending, ReceivePattern, Script
from harness.playing.comparison import Binding, Entry, Expectation
from harness.stage.connection import End
from harness.stage.fence import Grade

# Which real ends keep the script's word.
ACCEPTED_ENDS: dict[Ending, frozenset[End]] = {
    Ending.REFUSED: frozenset({End.REFUSED}),
    Ending.CLOSED: frozenset({End.CLOSED}),
    Ending.RESET: frozenset({End.RESET}),
    Ending.DISCONNECTED: frozenset({End.CLOSED, End.RESET}),
}


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    SCRIPT_WRONG = "script wrong"
    """The script breaks the language or asks for what the target does not know. Never the server's fault."""
    TARGET_BROKEN = "target broken"
    """There was nothing to play against: it did not start, or nobody answers at the address."""


class FailureKind(enum.Enum):
    """What a server did wrong, one kind for each way of telling it."""

    MISSING = "did not receive what was expected"
    EXTRA = "received something unexpected"
    DIFFERENT = "received something else"
    OUT_OF_ORDER = "received it in another order"
    DISAGREED = "did not receive the same order"
    STILL_OPEN = "is still connected"
    LOST_CONNECTION = "lost the connection"
    WRONG_END = "lost the connection in another way"
    NOT_REFUSED = "was not refused"
    REFUSED_ENTRY = "was refused"
    UNANSWERED = "got no answer to the fence line"
    NEVER_IDLE = "never became idle"
    TIMED_OUT = "was kept waiting by the server"
    UNSENDABLE = "could not send the line"
    SERVER_DIED = "lost its server"


@dataclass(frozen=True, slots=True)
class PerformedAction:
    """One thing that was done, as the script says it: `> MSG hi` in alice's lane. No client: everyone's, such as a wait."""

    client: str | None
    text: str
    file: str
    line: int
    at_s: float
    via: tuple[CallSite, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientTurn:
    """One client's side of a turn."""

    client: str
    entries: tuple[Entry, ...] = ()
    times_s: tuple[float, ...] = ()
    """When each entry's first byte came; for one that was not heard, when the turn ended."""
    silence_line: int = 0
    """The line of `receives nothing`, if the script says so here."""
    ending: Ending | None = None
    ending_line: int = 0
    end: End = End.OPEN
    ended_now: bool = False
    """The connection ended in this turn, by no deed of the client itself."""

    @property
    def ended_as_expected(self) -> bool:
        """Whether the connection ended as the script says."""
        return self.ending is not None and self.end in ACCEPTED_ENDS[self.ending]


@dataclass(frozen=True, slots=True)
class TurnReport:
    number: int
    file: str
    last_line: int
    actions: tuple[PerformedAction, ...]
    client_turns: tuple[ClientTurn, ...]
    now_s: float
    disagreed: tuple[str, ...] = ()
    """Those who had to hear one order and did not, though each of them heard the right lines."""
    agreement_line: int = 0
    bindings: tuple[Binding, ...] = ()
    """What captures stand for when the turn ends."""

    def client_turn(self, client: str) -> ClientTurn | None:
        return next((one for one in self.client_turns if one.client == client), None)


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong in the turn that failed."""

    kind: FailureKind
    client: str
    file: str
    line: int
    turn: int
    expected: Expectation | None = None
    received: bytes | None = None
    ending: Ending | None = None
    end: End | None = None
    at_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LateLine:
    """A line that came when the failed run was looked at a little longer: to whom, when, and in which way."""

    client: str
    line: bytes
    at_s: float
    a_turn_later: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole outcome of one script on one target."""

    script: Script
    outcome: Outcome
    target: str = ""
    grade: Grade | None = None
    fenced: bool = False
    """Whether there was a fence line; where there was one and the grade is weak, a client's leaving has weakened it."""
    virtual_time: bool = False
    clients: tuple[str, ...] = ()
    turns: tuple[TurnReport, ...] = ()
    failures: tuple[Failure, ...] = ()
    late_lines: tuple[LateLine, ...] = ()
    reason: str = ""
    """Why it was skipped, or what is wrong with the script or the target."""
    server_output: str = ""
    real_s: float = 0.0
    eol: bytes = b"\n"

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED

    @property
    def file(self) -> str:
        return self.script.file


# --- one turn judged --------------------------------------------------------------------------------------


def judge(turn: TurnReport, eol: bytes) -> Iterator[Failure]:
    """Every client's first wrong line and wrong end in this turn, in the order of their lines in the script."""
    if turn.disagreed:
        who = " and ".join(turn.disagreed)
        yield Failure(
            FailureKind.DISAGREED, who, turn.file, turn.agreement_line, turn.number, at_s=turn.now_s
        )
    found = [failure for client_turn in turn.client_turns for failure in _of_one(turn, client_turn, eol)]
    yield from sorted(found, key=_weight)


# What most likely caused the rest is told first: a lost connection, then a line that is wrong or missing.
_FIRST = (FailureKind.LOST_CONNECTION, FailureKind.REFUSED_ENTRY, FailureKind.NOT_REFUSED)


def _weight(failure: Failure) -> tuple[int, int]:
    rank = 0 if failure.kind in _FIRST else 2 if failure.kind is FailureKind.EXTRA else 1
    return rank, failure.line


def _of_one(turn: TurnReport, client_turn: ClientTurn, eol: bytes) -> Iterator[Failure]:
    wrong = next((at for at, entry in enumerate(client_turn.entries) if not entry.matches), None)
    if wrong is not None:
        yield _line_failure(turn, client_turn, wrong, eol)
    end = _end_kind(client_turn)
    if end is not None:
        line = client_turn.ending_line or turn.last_line
        yield Failure(
            end, client_turn.client, turn.file, line, turn.number,
            ending=client_turn.ending, end=client_turn.end, at_s=turn.now_s,
        )  # fmt: skip


def _line_failure(turn: TurnReport, client_turn: ClientTurn, at: int, eol: bytes) -> Failure:
    entry = client_turn.entries[at]
    kind = _line_kind(client_turn, entry, eol)
    received = entry.received
    if kind is FailureKind.OUT_OF_ORDER and received is None:
        # What came in its place is a line that is right elsewhere.
        received = next(
            (other.received for other in client_turn.entries[at:] if other.received is not None), None
        )
    return Failure(
        kind,
        client_turn.client,
        entry.expected.file if entry.expected else turn.file,
        entry.expected.line
        if entry.expected
        else client_turn.silence_line or _line_near(turn, client_turn, at),
        turn.number,
        expected=entry.expected,
        received=received,
        at_s=client_turn.times_s[at],
    )


def _line_near(turn: TurnReport, client_turn: ClientTurn, at: int) -> int:
    """Where a line that the script does not say would have to stand: by what was heard before it, else the turn's end."""
    before = [entry.expected.line for entry in client_turn.entries[:at] if entry.expected]
    return before[-1] if before else turn.last_line


def _line_kind(client_turn: ClientTurn, entry: Entry, eol: bytes) -> FailureKind:
    if entry.expected is None:
        return FailureKind.EXTRA
    if isinstance(entry.expected.step, ReceivePattern):
        # What a pattern would take elsewhere says nothing: its names may be bound by now.
        return FailureKind.MISSING if entry.received is None else FailureKind.DIFFERENT
    came = [
        other.received for other in client_turn.entries if not other.matches and other.received is not None
    ]
    for wire in came:
        found = entry.expected.match_end(wire, 0, {}, eol)
        if found is not None and found[0] == len(wire):
            return FailureKind.OUT_OF_ORDER
    return FailureKind.MISSING if entry.received is None else FailureKind.DIFFERENT


def _end_kind(client_turn: ClientTurn) -> FailureKind | None:
    message, came = client_turn.ending, client_turn.end
    if message is None:
        if not client_turn.ended_now:
            return None
        return FailureKind.REFUSED_ENTRY if came is End.REFUSED else FailureKind.LOST_CONNECTION
    if came in ACCEPTED_ENDS[message]:
        return None
    if message is Ending.REFUSED:
        return FailureKind.NOT_REFUSED
    if came is End.REFUSED:
        return FailureKind.REFUSED_ENTRY
    return FailureKind.STILL_OPEN if came is End.OPEN else FailureKind.WRONG_END
