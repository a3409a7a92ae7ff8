"""One script being played: its turns, one after another, on a stage that stands. Knows no files and no reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from harness.interception.faults import Faults
from harness.language.patterns import Unbound
from harness.language.plan import Plan, Turn
from harness.language.problems import ScriptError
from harness.language.steps import FenceLine
from harness.playing.comparison import (
    Binding,
    Entry,
    TurnMatch,
    align,
    bind_in_order,
    match_turn,
    newly_bound,
)
from harness.playing.execution import Executor
from harness.playing.expectations import TurnExpectations, last_step
from harness.playing.expectations import expected as expectations_of
from harness.playing.verdict import (
    ACCEPTED_ENDS,
    ClientTurn,
    Failure,
    FailureKind,
    LateLine,
    TurnReport,
    judge,
)
from harness.stage.client import Client
from harness.stage.connection import End, SocketTimeout
from harness.stage.fence import FenceFailed, Grade, NoFenceAnswer
from harness.stage.stage import Stage
from harness.targets.target import TargetError

# How often, in seconds, it is looked again for a line that an inexact fence did not wait for.
LOOK_AGAIN_S = 0.005
# How much virtual time a failed run is given, to see whether a missing line was only late.
LATE_S = 60.0
_STOPPING = (
    FailureKind.SERVER_DIED,
    FailureKind.UNANSWERED,
    FailureKind.NEVER_IDLE,
    FailureKind.UNSENDABLE,
    FailureKind.TIMED_OUT,
)

InboxFilter = Callable[[int, Mapping[str, Client]], None]
"""What stands between that which was received and that which is judged: at the end of each turn, given its number, it
may change what the clients hold in their inboxes."""


class ScriptRun:
    def __init__(
        self,
        made: Plan,
        stage: Stage,
        eol: bytes,
        within_s: float,
        keep_going: bool,
        on_turn: Callable[[TurnReport], None] | None,
        inbox_filter: InboxFilter | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._plan = made
        self._stage = stage
        self._eol = eol
        self._within_s = within_s
        self._keep_going = keep_going
        self._on_turn = on_turn
        self._inbox_filter = inbox_filter
        self._executor = Executor(stage, eol, faults)
        self._bindings: dict[str, Binding] = {}
        self.turns: list[TurnReport] = []
        self.failures: list[Failure] = []
        self.late_lines: list[LateLine] = []

    def run(self) -> None:
        """Play every turn, or up to the one that fails."""
        for at, turn in enumerate(self._plan.turns):
            found = self._play_turn(turn)
            self.failures.extend(found)
            if any(one.kind in _STOPPING for one in found):
                return
            if found and self._inbox_filter is not None:
                return  # what is missing was taken away; it will not come late
            if found and not self._keep_going:
                following = self._plan.turns[at + 1] if at + 1 < len(self._plan.turns) else None
                self._look_afterwards(following)
                return

    @property
    def all_connections_refused(self) -> bool:
        """Whether all that is wrong is that there is no server: each connection was refused, the first one too."""
        ends = {client_turn.end for turn in self.turns for client_turn in turn.client_turns}
        return ends == {End.REFUSED} and any(one.kind is FailureKind.REFUSED_ENTRY for one in self.failures)

    # --- one turn -------------------------------------------------------------------------------------------

    def _play_turn(self, turn: Turn) -> list[Failure]:
        stopped: Failure | None = None
        try:
            self._executor.do_all(turn)
        except FenceFailed as silent:
            stopped = self._failure(turn, *self._unanswered(silent))
        except SocketTimeout as refused:
            stopped = self._failure(turn, FailureKind.TIMED_OUT, "", str(refused))
        except Unbound as lost:
            # Only in a run that is kept going: the line that would have bound it was not heard.
            stopped = self._failure(turn, FailureKind.UNSENDABLE, "", f"nothing has bound ${{{lost.name}}}")
        except TargetError as dead:
            stopped = self._failure(turn, FailureKind.SERVER_DIED, "", str(dead))
        expected = expectations_of(turn)
        received = None if stopped else self._listen(expected)
        if self._inbox_filter is not None and stopped is None:
            # After listening: what the inbox_filter takes away must not be waited for.
            self._inbox_filter(turn.number, self._executor.clients)
            received = self._match(expected)
        report = self._report(turn, expected, received)
        self.turns.append(report)
        if self._on_turn is not None:
            self._on_turn(report)
        found = list(judge(report, self._eol))
        if stopped is None and found and not self._stage.alive():
            stopped = self._failure(turn, FailureKind.SERVER_DIED, "", "")
        # Of a server that is gone nothing else is to be blamed.
        return [stopped] if stopped else found

    def _unanswered(self, silent: FenceFailed) -> tuple[FailureKind, str, str]:
        if not isinstance(silent, NoFenceAnswer):
            return FailureKind.NEVER_IDLE, silent.client, str(silent)
        line = self._plan.script.setting(FenceLine)
        here = line is not None and line in self._plan.script.header
        where = f" (line {line.line})" if here and line is not None else ""
        return FailureKind.UNANSWERED, silent.client, f"{silent.told(where)} (waited {silent.waited_s:.1f} s)"

    def _failure(self, turn: Turn, kind: FailureKind, client: str, detail: str) -> Failure:
        at = self._executor.current or turn.actions[0]
        return Failure(
            kind, client, at.script.file, at.line, turn.number, at_s=self._stage.now(), detail=detail
        )

    # --- hearing --------------------------------------------------------------------------------------------

    def _listen(self, expected: TurnExpectations) -> TurnMatch | None:
        """What fits; where the fence is not exact, an awaited line or end is given its time to come."""
        received = self._match(expected)
        if self._stage.grade is Grade.EXACT or (received and self._ended_as_expected(expected)):
            return received
        until = time.monotonic() + self._within_s
        waited = False
        while not (received and self._ended_as_expected(expected)) and time.monotonic() < until:
            if received is None and not self._may_still_come(expected):
                return None
            self._stage.wait(LOOK_AGAIN_S)
            waited = True
            received = self._match(expected)
        if waited and received:
            self._stage.fence(tuple(self._executor.clients.values()))
            received = self._match(expected)
        return received

    def _match(self, expected: TurnExpectations) -> TurnMatch | None:
        inboxes = {name: bytes(client.inbox) for name, client in self._executor.clients.items()}
        if any(inboxes[name] for name in inboxes if name not in expected.expected):
            return None
        return match_turn(
            expected.expected, inboxes, self._executor.bindings, self._eol, frozenset(expected.agree)
        )

    def _ended_as_expected(self, expected: TurnExpectations) -> bool:
        return all(
            self._executor.clients[name].end in ACCEPTED_ENDS[ends.ending]
            for name, (ends, _) in expected.ends.items()
        )

    def _may_still_come(self, expected: TurnExpectations) -> bool:
        """Whether something awaited is missing from someone who is still connected."""
        for name, items in expected.expected.items():
            client = self._executor.clients[name]
            entries, _ = align(items, bytes(client.inbox), self._executor.bindings, self._eol)
            if client.end is End.OPEN and any(not entry.matches and entry.expected for entry in entries):
                return True
        return False

    # --- the report -----------------------------------------------------------------------------------------

    def _report(self, turn: Turn, expected: TurnExpectations, received: TurnMatch | None) -> TurnReport:
        if received:
            bindings = dict(received.bound)
        else:
            inboxes = {name: bytes(client.inbox) for name, client in self._executor.clients.items()}
            bindings = dict(bind_in_order(expected.in_order, inboxes, self._executor.bindings, self._eol))
        client_turns = []
        for name, client in self._executor.clients.items():
            data = bytes(client.inbox)
            if received is not None:
                entries: tuple[Entry, ...] = received.entries.get(name, ())
            else:
                entries, bound = align(expected.expected.get(name, ()), data, bindings, self._eol)
                bindings.update(bound)
            ends = expected.ends.get(name)
            ended_now = client.end is not End.OPEN and name not in self._executor.departed
            client_turns.append(
                ClientTurn(
                    name,
                    entries,
                    tuple(self._time_of(client, entry) for entry in entries),
                    expected.silences.get(name, 0),
                    ends[0].ending if ends else None,
                    ends[1] if ends else 0,
                    client.end,
                    ended_now,
                )
            )
            client.take(len(data))
            if ended_now or ends:
                self._executor.departed.add(name)
        self._executor.bindings = bindings
        self._bindings = newly_bound(bindings, self._bindings, expected.in_order)
        near = last_step(turn)
        return TurnReport(
            turn.number,
            near.script.file,
            near.line,
            tuple(self._executor.performed),
            tuple(client_turns),
            self._stage.now(),
            *self._disagreement(expected, received, client_turns),
            bindings=tuple(self._bindings.values()),
        )

    def _disagreement(
        self, expected: TurnExpectations, received: TurnMatch | None, client_turns: list[ClientTurn]
    ) -> tuple[tuple[str, ...], int]:
        if received is None and all(entry.matches for one in client_turns for entry in one.entries):
            for line, clients in expected.agree.values():
                return clients, line
        return (), 0

    def _time_of(self, client: Client, entry: Entry) -> float:
        if entry.received is None:
            return self._stage.now()
        return client.arrived_at(entry.offset)

    # --- afterwards -----------------------------------------------------------------------------------------

    def _look_afterwards(self, following: Turn | None) -> None:
        """The run is over; see whether what is missing only comes late. Whatever goes wrong here tells nothing."""
        if not any(one.kind in (FailureKind.MISSING, FailureKind.DIFFERENT) for one in self.failures):
            return
        try:
            if self._stage.grade is Grade.EXACT:
                self._stage.wait(LATE_S)
                self._collect(a_turn_later=False)
            if following is not None:
                self._executor.do_all(following)
                self._collect(a_turn_later=True)
        except (TargetError, FenceFailed, SocketTimeout, ScriptError, Unbound):
            return

    def _collect(self, a_turn_later: bool) -> None:
        for name, client in self._executor.clients.items():
            data, at = bytes(client.inbox), 0
            for piece in data.splitlines(keepends=True):
                self.late_lines.append(LateLine(name, piece, client.arrived_at(at), a_turn_later))
                at += len(piece)
            client.take(len(data))
