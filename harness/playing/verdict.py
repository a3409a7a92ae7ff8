"""The result of a play, as data, and its judgement: turns, what each client received in them, and failures.

- A turn passes when every client received exactly what the script says, and no connection ended otherwise.
- Of an interrupted turn only the interruption is a failure: a dead server explains everything else.
- Judging only reads: the same performance always has the same verdict.

Knows no sockets and no layout of reports.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from harness.language.adapter import Greeting, Prompt, Spelling
from harness.language.expansion import CallSite
from harness.language.fences import Fence
from harness.language.forms import render_duration
from harness.language.problems import ScriptProblem
from harness.language.steps import (
    ConnectionAction,
    Ending,
    Ignore,
    ReceivePattern,
    ReceiveUntil,
    Reply,
    Script,
)
from harness.language.validation import Plan
from harness.playing.bindings import Binding
from harness.playing.expectations import Choice, Entry, Expectation
from harness.stage.connection import End
from harness.stage.fence import SETTLE_S, FenceLineSent, Grade
from harness.stage.rules import TakenLine
from harness.stage.target import ServerError

ACCEPTED_ENDS: Mapping[Ending, frozenset[End]] = {
    Ending.REFUSED: frozenset({End.REFUSED}),
    Ending.CLOSED: frozenset({End.CLOSED}),
    Ending.RESET: frozenset({End.RESET}),
    Ending.DISCONNECTED: frozenset({End.CLOSED, End.RESET}),
}
"""The real ends that each ending of the script accepts."""


def accepts_end(ending: Ending, detail: str, end: End, end_detail: str) -> bool:
    """Whether a connection ended as the script says. `is disconnected` accepts any detail."""
    return end in ACCEPTED_ENDS[ending] and (ending is Ending.DISCONNECTED or detail == end_detail)


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    XPASSED = "passed unexpectedly"
    """The script passed, but says of itself that it fails."""
    XFAILED = "failed as expected"
    SKIPPED = "skipped"
    SCRIPT_ERROR = "script error"
    """The script is invalid, or requires something that the target does not have. Never the server's fault."""
    TARGET_ERROR = "target error"
    """The server did not start, or the address refuses connections."""

    @property
    def expected(self) -> bool:
        """Whether there is nothing to look at."""
        return self in (Outcome.PASSED, Outcome.XFAILED, Outcome.SKIPPED)


class Overtaken(enum.Enum):
    """Why the answers to fence lines, or hearing them, prove too little here: when something came after them."""

    IN_A_TURN = "something came after the fence of a turn"
    AFTER_A_FAILURE = "something came after the fence, in the turn that failed"
    AT_THE_END = "something came after the last turn had been as expected"
    PERHAPS = "what came could be what an earlier turn had done without"


class Tolerated(enum.Enum):
    """The tolerances of a script or an adapter, in singular and plural."""

    IGNORED = "line ignored", "lines ignored"
    REPLIED = "line replied to", "lines replied to"
    GREETED = "greeting removed", "greetings removed"
    PROMPTED = "prompt removed", "prompts removed"
    RESPELLED = "line respelled", "lines respelled"
    ABSENT = "optional line absent", "optional lines absent"
    ANY = "line of any text", "lines of any text"
    UNREAD = "body of any bytes", "bodies of any bytes"
    CHOSEN = "choice between several ways", "choices between several ways"
    SHORT_SETTLE = f"settle below {SETTLE_S * 1000:g} ms", f"settles below {SETTLE_S * 1000:g} ms"
    """Quiet decides that nothing comes, and less of it decides less. Counted once for a script. Real time counts, however
    fast the server's time passes: its work takes real time."""


_TAKEN_BY: Mapping[type, Tolerated] = {
    Ignore: Tolerated.IGNORED,
    Reply: Tolerated.REPLIED,
    Greeting: Tolerated.GREETED,
    Prompt: Tolerated.PROMPTED,
    Spelling: Tolerated.RESPELLED,
}


class FailureKind(enum.Enum):
    """Kinds of failures of a server; each is reported in a different way."""

    MISSING = "did not receive what was expected"
    EXTRA = "received something unexpected"
    DIFFERENT = "received something else"
    TOO_LATE = "received it too late"
    OUT_OF_ORDER = "received it in another order"
    DISAGREED = "did not receive the same order"
    STILL_OPEN = "is still connected"
    LOST_CONNECTION = "lost the connection"
    WRONG_END = "lost the connection in another way"
    NOT_REFUSED = "was not refused"
    REFUSED_ENTRY = "was refused"
    UNANSWERED = "got no answer to the fence line"
    NEVER_IDLE = "never became idle"
    NEVER_QUIET = "was never quiet"
    NOT_READ = "sent bytes that the server did not read"
    TIMED_OUT = "was kept waiting by the server"
    NO_HANDSHAKE = "could not finish the handshake"
    UNSENDABLE = "could not send the line"
    NO_PORT = "cannot connect to what the server named"
    SERVER_DIED = "lost its server"
    RAISED = "met an exception"
    NOT_RAISED = "met no exception"


@dataclass(frozen=True, slots=True)
class PerformedAction:
    """One action in the words of the script: `> MSG hi` in alice's lane. Without a client for steps such as a wait."""

    client: str | None
    text: str
    file: str
    line: int
    at_s: float
    via: tuple[CallSite, ...] = ()
    on_connection: ConnectionAction | None = None
    """The action on the connection, if it is one."""


@dataclass(frozen=True, slots=True)
class ClientTurn:
    """One client's side of a turn."""

    client: str
    entries: tuple[Entry, ...] = ()
    times_s: tuple[float, ...] = ()
    """When each entry's first byte arrived; for an entry that was not received, the end of the turn."""
    silence_file: str = ""
    silence_line: int = 0
    """The line of `receives nothing`, if the script says so here."""
    ending: Ending | None = None
    ending_file: str = ""
    ending_line: int = 0
    end: End = End.OPEN
    ended_now: bool = False
    """The connection ended in this turn, and not by an action of the client itself."""
    ending_detail: str = ""
    """The code that the script expects."""
    end_detail: str = ""

    @property
    def ended_as_expected(self) -> bool:
        """Whether the connection ended as the script says."""
        return self.ending is not None and accepts_end(
            self.ending, self.ending_detail, self.end, self.end_detail
        )

    @property
    def as_expected(self) -> bool:
        """Whether this client received, and its connection did, exactly what the script says."""
        ended_well = self.ended_as_expected if self.ending is not None else not self.ended_now
        return ended_well and all(entry.matches for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Interruption:
    """Why a turn, and with it the performance, was interrupted: at which step, and for which client."""

    kind: FailureKind
    client: str
    detail: str
    file: str
    line: int
    at_s: float
    via: tuple[CallSite, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnReport:
    """The actions of one turn, and the data that every client received."""

    number: int
    file: str
    last_line: int
    actions: tuple[PerformedAction, ...]
    client_turns: tuple[ClientTurn, ...]
    now_s: float
    disagreed: tuple[str, ...] = ()
    """The clients that had to receive one order and did not, though each of them received the right lines."""
    agreement_file: str = ""
    agreement_line: int = 0
    agreement_group: int | None = None
    """What the entries have whose order it is."""
    bindings: tuple[Binding, ...] = ()
    """The values of captures at the end of the turn."""
    interruption: Interruption | None = None
    errors: tuple[ServerError, ...] = ()
    """Exceptions of the server's own code that the script does not expect."""
    not_raised: tuple[tuple[str, str, int], ...] = ()
    """The expected exceptions that were not raised: class, file and line."""
    raised: tuple[tuple[str, str, int], ...] = ()
    """The expected exceptions that were raised."""
    fence_lines: tuple[FenceLineSent, ...] = ()
    """The fence lines that the harness sent in this turn."""
    measured: tuple[Measured, ...] = ()
    choices: tuple[Choice, ...] = ()
    """The ways that the turn took, where the script has several."""
    last_via: tuple[CallSite, ...] = ()
    """The calls and repeats that led to the last line."""
    taken: tuple[TakenLine, ...] = ()
    """The lines that a rule or an adapter took or changed before any comparison."""

    @property
    def as_expected(self) -> bool:
        return (
            self.interruption is None
            and not self.disagreed
            and not self.errors
            and not self.not_raised
            and all(one.in_time for one in self.measured)
            and all(client_turn.as_expected for client_turn in self.client_turns)
        )

    @property
    def did_without(self) -> bool:
        """Whether it was as expected without something that could have come."""
        return bool(self.choices) or any(entry.absent for one in self.client_turns for entry in one.entries)

    @property
    def has_unexpected(self) -> bool:
        """Whether something was received that was not expected there."""
        entries = (entry for one in self.client_turns for entry in one.entries)
        return any(entry.received is not None and not entry.matches for entry in entries)

    def client_turn(self, client: str) -> ClientTurn | None:
        return next((one for one in self.client_turns if one.client == client), None)


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a line took that has to come within a time: from the action of the turn to its last byte."""

    client: str
    expected: Expectation
    received: bytes
    microseconds: int

    @property
    def in_time(self) -> bool:
        return self.expected.limit_us is None or self.microseconds <= self.expected.limit_us


@dataclass(frozen=True, slots=True)
class LateLine:
    """A line that arrived while a failed run continued: for which client, when, and after which step."""

    client: str
    line: bytes
    at_s: float
    a_turn_later: bool


@dataclass(frozen=True, slots=True)
class Performance:
    """Everything that was observed while a plan was played, before it is judged."""

    plan: Plan
    target: str
    turns: tuple[TurnReport, ...]
    grade: Grade | None
    fence: Fence
    virtual_time: bool
    eol: bytes
    late_lines: tuple[LateLine, ...] = ()
    server_output: str = ""
    overtaken: Overtaken | None = None
    settle_s: float = SETTLE_S
    time_factor: int = 1
    margin_s: float = 0.0
    unseen: str = ""
    answers_prove: bool = True


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
    ending_detail: str = ""
    end: End | None = None
    end_detail: str = ""
    at_s: float | None = None
    detail: str = ""
    via: tuple[CallSite, ...] = ()
    """The calls and repeats that led to the line, outermost first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one script on one target."""

    script: Script
    outcome: Outcome
    target: str = ""
    grade: Grade | None = None
    """The weakest proof that a turn was over; None if nothing was played, or a turn was interrupted."""
    fence: Fence = Fence()  # noqa: RUF009  # frozen
    """If there is a fence line and the grade is still weak, a client could not be asked, one did not hear another, or the
    answers were overtaken."""
    overtaken: Overtaken | None = None
    not_repeated: bool = False
    """Whether this is a failure that a second play, which waited for quiet, did not show."""
    settle_s: float = SETTLE_S
    """The real time without input after which the server counted as quiet."""
    time_factor: int = 1
    """How many times faster than real time the server's time passed."""
    margin_s: float = 0.0
    """How much more time than the script says passed for the server, at most, if its time passed faster."""
    virtual_time: bool = False
    unseen: str = ""
    """In virtual time: the work that the server's loop did not see; empty if there was none."""
    answers_prove: bool = True
    """Whether a fence line can prove anything: among several processes it cannot."""
    clients: tuple[str, ...] = ()
    turns: tuple[TurnReport, ...] = ()
    failures: tuple[Failure, ...] = ()
    late_lines: tuple[LateLine, ...] = ()
    reason: str = ""
    """Why it was skipped, or what is wrong with the script or the target."""
    problem: ScriptProblem | None = None
    """The problem of the script, if the target is not to blame."""
    server_output: str = ""
    real_s: float = 0.0
    eol: bytes = b"\n"

    def without_tokens(self, text: str) -> str:
        """The text with TOKEN in place of each token of a fence line, because these differ in each play."""
        sent = (one for turn in self.turns for one in turn.fence_lines)
        tokens = {one.token.lower() for one in sent if one.token.encode() in one.line}
        return re.sub(r"\w+", lambda word: "TOKEN" if word[0].lower() in tokens else word[0], text)

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED

    @property
    def file(self) -> str:
        return self.script.file

    @property
    def slowest(self) -> Measured | None:
        """The line that came nearest to its time limit, or exceeded it most."""
        measured = [one for turn in self.turns for one in turn.measured]
        return max(measured, key=lambda one: one.microseconds / (one.expected.limit_us or 1), default=None)

    @property
    def tolerated(self) -> Counter[Tolerated]:
        """Counts of lines that were not compared, and whether quiet was awaited for less time than usual: a pass proves less
        because of them, whatever its grade."""
        found: Counter[Tolerated] = Counter()
        for turn in self.turns:
            entries = [entry for one in turn.client_turns for entry in one.entries]
            found.update(_TAKEN_BY[type(one.rule)] for one in turn.taken)
            found[Tolerated.ABSENT] += sum(entry.absent for entry in entries)
            found[Tolerated.ANY] += sum(entry.passed_over for entry in entries)
            found[Tolerated.UNREAD] += sum(entry.unread for entry in entries)
            found[Tolerated.CHOSEN] += len(turn.choices)
        if self.grade not in (None, Grade.EXACT):
            found[Tolerated.SHORT_SETTLE] += self.settle_s < SETTLE_S
        return +found


# --- judging ------------------------------------------------------------------------------------------------

# The likely cause comes first: a lost connection, then a wrong or missing line.
_FIRST = (FailureKind.LOST_CONNECTION, FailureKind.REFUSED_ENTRY, FailureKind.NOT_REFUSED)


def judge(performance: Performance) -> Verdict:
    """The verdict on a performance."""
    failures = tuple(
        replace(failure, via=failure.via or _call_sites(performance.plan, failure))
        for turn in performance.turns
        for failure in judge_turn(turn, performance.eol)
    )
    return Verdict(
        performance.plan.script,
        Outcome.FAILED if failures else Outcome.PASSED,
        target=performance.target,
        grade=performance.grade,
        fence=performance.fence,
        overtaken=performance.overtaken,
        settle_s=performance.settle_s,
        time_factor=performance.time_factor,
        margin_s=performance.margin_s,
        virtual_time=performance.virtual_time,
        unseen=performance.unseen,
        answers_prove=performance.answers_prove,
        clients=performance.plan.clients,
        turns=performance.turns,
        failures=failures,
        late_lines=performance.late_lines,
        server_output=performance.server_output if failures else "",
        eol=performance.eol,
    )


def _call_sites(plan: Plan, failure: Failure) -> tuple[CallSite, ...]:
    """What led to the line of a failure which has no line to receive: to the step there that is about this client, if the line
    is played several times, or else to the first."""
    turn = plan.turns[failure.turn - 1]
    found = [
        (getattr(step, "client", "") != failure.client, located.via)
        for located in (*turn.actions, *turn.expectations)
        for step in (located.step, *getattr(located.step, "body", ()))
        if (located.script.file, step.line or located.line) == (failure.file, failure.line)
    ]
    return min(found, key=lambda one: one[0])[1] if found else ()


def judge_turn(turn: TurnReport, eol: bytes) -> list[Failure]:
    """Every client's first wrong line and wrong end in this turn, the most telling first."""
    if turn.interruption is not None:
        why = turn.interruption
        return [
            Failure(
                why.kind, why.client, why.file, why.line, turn.number,
                at_s=why.at_s, detail=why.detail, via=why.via,
            )
        ]  # fmt: skip
    failures = list(_failures_of_the_server(turn))
    if turn.disagreed:
        clients = " and ".join(turn.disagreed)
        failures.append(
            Failure(
                FailureKind.DISAGREED,
                clients,
                turn.agreement_file,
                turn.agreement_line,
                turn.number,
                at_s=turn.now_s,
            )
        )
    found = [failure for one in turn.client_turns for failure in _failures_of(turn, one, eol)]
    first_late: dict[str, Failure] = {}
    for failure in _too_late(turn):
        first_late.setdefault(failure.client, failure)
    return failures + sorted(found, key=_weight) + list(first_late.values())


def all_failures(verdict: Verdict) -> Iterator[Failure]:
    """The failures of a verdict, and after each wrong or late line the others of that client in the same turn. They are often
    mere consequences of the first, so only what counts differences needs them."""
    turns = {turn.number: turn for turn in verdict.turns}
    more: Iterator[Failure]
    for failure in verdict.failures:
        yield failure
        turn = turns.get(failure.turn)
        client_turn = turn.client_turn(failure.client) if turn is not None else None
        if turn is None or client_turn is None:
            continue
        if failure.kind is FailureKind.TOO_LATE:
            more = (one for one in _too_late(turn) if one.client == failure.client)
        elif failure.kind in _OF_A_LINE:
            more = _line_failures(turn, client_turn, verdict.eol)
        else:
            continue
        yield from (replace(one, via=one.via or failure.via) for one in islice(more, 1, None))


def _too_late(turn: TurnReport) -> Iterator[Failure]:
    """The lines that took too long."""
    for one in turn.measured:
        if not one.in_time:
            yield Failure(
                FailureKind.TOO_LATE,
                one.client,
                one.expected.file,
                one.expected.line,
                turn.number,
                expected=one.expected,
                received=one.received,
                detail=render_duration(one.microseconds),
                via=one.expected.via,
            )


def _failures_of_the_server(turn: TurnReport) -> Iterator[Failure]:
    where = turn.actions[-1] if turn.actions else None
    file, line, via = (
        (where.file, where.line, where.via) if where else (turn.file, turn.last_line, turn.last_via)
    )
    for error in turn.errors:
        yield Failure(
            FailureKind.RAISED, "", file, line, turn.number, at_s=turn.now_s, detail=error.text, via=via
        )
    for kind, script, at in turn.not_raised:
        yield Failure(FailureKind.NOT_RAISED, "", script, at, turn.number, at_s=turn.now_s, detail=kind)


def _weight(failure: Failure) -> tuple[int, int]:
    rank = 0 if failure.kind in _FIRST else 2 if failure.kind is FailureKind.EXTRA else 1
    return rank, failure.line


def _failures_of(turn: TurnReport, client_turn: ClientTurn, eol: bytes) -> Iterator[Failure]:
    yield from islice(_line_failures(turn, client_turn, eol), 1)
    kind = _end_kind(client_turn)
    if kind is not None:
        yield Failure(
            kind,
            client_turn.client,
            client_turn.ending_file or turn.file,
            client_turn.ending_line or turn.last_line,
            turn.number,
            ending=client_turn.ending,
            ending_detail=client_turn.ending_detail,
            end=client_turn.end,
            end_detail=client_turn.end_detail,
            at_s=turn.now_s,
            via=() if client_turn.ending_line else turn.last_via,
        )


_OF_A_LINE = (FailureKind.MISSING, FailureKind.EXTRA, FailureKind.DIFFERENT, FailureKind.OUT_OF_ORDER)


def _line_failures(turn: TurnReport, client_turn: ClientTurn, eol: bytes) -> Iterator[Failure]:
    """The wrong lines of a client, in order."""
    for at, entry in enumerate(client_turn.entries):
        if not entry.matches:
            yield _line_failure(turn, client_turn, at, eol)


def _line_failure(turn: TurnReport, client_turn: ClientTurn, at: int, eol: bytes) -> Failure:
    entry = client_turn.entries[at]
    kind = _line_kind(client_turn, entry, eol)
    received = entry.received
    if kind is FailureKind.OUT_OF_ORDER and received is None:
        # The line in its place is expected elsewhere.
        received = next((one.received for one in client_turn.entries[at:] if one.received is not None), None)
    if entry.expected is not None:
        file, line, via = entry.expected.file, entry.expected.line, entry.expected.via
    else:
        # An unexpected line is shown after the lines received before it.
        before = [one.expected for one in client_turn.entries[:at] if one.expected]
        file, line, via = turn.file, turn.last_line, turn.last_via
        if client_turn.silence_line:
            file, line, via = client_turn.silence_file, client_turn.silence_line, ()
        elif before:
            file, line, via = before[-1].file, before[-1].line, before[-1].via
    return Failure(
        kind,
        client_turn.client,
        file,
        line,
        turn.number,
        expected=entry.expected,
        received=received,
        at_s=client_turn.times_s[at],
        via=via,
    )


def _line_kind(client_turn: ClientTurn, entry: Entry, eol: bytes) -> FailureKind:
    if entry.expected is None:
        return FailureKind.EXTRA
    # A pattern that would match elsewhere proves nothing: its names can be bound by now.
    if not isinstance(entry.expected.step, (ReceivePattern, ReceiveUntil)):
        for other in client_turn.entries:
            if not other.matches and other.received and entry.expected.accepts(other.received, {}, eol):
                return FailureKind.OUT_OF_ORDER
    return FailureKind.MISSING if entry.received is None else FailureKind.DIFFERENT


def _end_kind(client_turn: ClientTurn) -> FailureKind | None:
    expected, end = client_turn.ending, client_turn.end
    if expected is None:
        if not client_turn.ended_now:
            return None
        return FailureKind.REFUSED_ENTRY if end is End.REFUSED else FailureKind.LOST_CONNECTION
    if client_turn.ended_as_expected:
        return None
    if expected is Ending.REFUSED and end is not End.REFUSED:
        return FailureKind.NOT_REFUSED
    if end is End.REFUSED and expected is not Ending.REFUSED:
        return FailureKind.REFUSED_ENTRY
    return FailureKind.STILL_OPEN if end is End.OPEN else FailureKind.WRONG_END
