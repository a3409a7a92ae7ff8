"""One script being played: its turns, one after another, on a stage that stands. Knows no files and no reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from harness.beneath.faults import Faults
from harness.language.errors import ScriptError
from harness.language.matching import Unbound
from harness.language.plan import Plan, Turn
from harness.language.steps import FenceLine
from harness.playing.binding import Bound, bound_in_order, newly_bound
from harness.playing.doing import Doer
from harness.playing.expecting import Expected, last_step
from harness.playing.expecting import expected as expected_of
from harness.playing.hearing import Entry, Heard, hear, side_by_side
from harness.playing.judging import judge
from harness.playing.verdict import ENDS_AS, Failure, Fault, Hearing, Late, TurnReport
from harness.stage.client import Client
from harness.stage.connection import End, NotTaken
from harness.stage.fence import Grade, NotAnswered, Unanswered
from harness.stage.stage import Stage
from harness.targets.asking import TargetError

# How often, in seconds, it is looked again for a line that an inexact fence did not wait for.
LOOK_AGAIN_S = 0.005
# How much virtual time a failed run is given, to see whether a missing line was only late.
LATE_S = 60.0
_STOPPING = (Fault.DIED, Fault.UNANSWERED, Fault.RESTLESS, Fault.UNSENT, Fault.NOT_TAKEN)

Layer = Callable[[int, Mapping[str, Client]], None]
"""What stands between that which was received and that which is judged: at the end of each turn, given its number, it
may change what the clients hold in their inboxes."""


class Playing:
    def __init__(
        self,
        made: Plan,
        stage: Stage,
        eol: bytes,
        within_s: float,
        keep_going: bool,
        on_turn: Callable[[TurnReport], None] | None,
        layer: Layer | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._plan = made
        self._stage = stage
        self._eol = eol
        self._within_s = within_s
        self._keep_going = keep_going
        self._on_turn = on_turn
        self._layer = layer
        self._doer = Doer(stage, eol, faults)
        self._bound: dict[str, Bound] = {}
        self.turns: list[TurnReport] = []
        self.failures: list[Failure] = []
        self.late: list[Late] = []

    def run(self) -> None:
        """Play every turn, or up to the one that fails."""
        for at, turn in enumerate(self._plan.turns):
            found = self._play_turn(turn)
            self.failures.extend(found)
            if any(one.fault in _STOPPING for one in found):
                return
            if found and self._layer is not None:
                return  # what is missing was taken away; it will not come late
            if found and not self._keep_going:
                following = self._plan.turns[at + 1] if at + 1 < len(self._plan.turns) else None
                self._look_afterwards(following)
                return

    @property
    def nobody_was_let_in(self) -> bool:
        """Whether all that is wrong is that there is no server: each connection was refused, the first one too."""
        ends = {hearing.end for turn in self.turns for hearing in turn.hearings}
        return ends == {End.REFUSED} and any(one.fault is Fault.TURNED_AWAY for one in self.failures)

    # --- one turn -------------------------------------------------------------------------------------------

    def _play_turn(self, turn: Turn) -> list[Failure]:
        stopped: Failure | None = None
        try:
            self._doer.do_all(turn)
        except Unanswered as silent:
            stopped = self._failure(turn, *self._unanswered(silent))
        except NotTaken as refused:
            stopped = self._failure(turn, Fault.NOT_TAKEN, "", str(refused))
        except Unbound as lost:
            # Only in a run that is kept going: the line that would have bound it was not heard.
            stopped = self._failure(turn, Fault.UNSENT, "", f"nothing has bound ${{{lost.name}}}")
        except TargetError as dead:
            stopped = self._failure(turn, Fault.DIED, "", str(dead))
        expected = expected_of(turn)
        heard = None if stopped else self._listen(expected)
        if self._layer is not None and stopped is None:
            # After listening: what the layer takes away must not be waited for.
            self._layer(turn.number, self._doer.there)
            heard = self._hear(expected)
        report = self._report(turn, expected, heard)
        self.turns.append(report)
        if self._on_turn is not None:
            self._on_turn(report)
        found = list(judge(report, self._eol))
        if stopped is None and found and not self._stage.alive():
            stopped = self._failure(turn, Fault.DIED, "", "")
        # Of a server that is gone nothing else is to be blamed.
        return [stopped] if stopped else found

    def _unanswered(self, silent: Unanswered) -> tuple[Fault, str, str]:
        if not isinstance(silent, NotAnswered):
            return Fault.RESTLESS, silent.client, str(silent)
        line = self._plan.script.setting(FenceLine)
        here = line is not None and line in self._plan.script.header
        where = f" (line {line.line})" if here and line is not None else ""
        return Fault.UNANSWERED, silent.client, f"{silent.told(where)} (waited {silent.waited_s:.1f} s)"

    def _failure(self, turn: Turn, fault: Fault, client: str, detail: str) -> Failure:
        at = self._doer.now or turn.doings[0]
        return Failure(
            fault, client, at.script.file, at.line, turn.number, at_s=self._stage.now(), detail=detail
        )

    # --- hearing --------------------------------------------------------------------------------------------

    def _listen(self, expected: Expected) -> Heard | None:
        """What fits; where the fence is not exact, an awaited line or end is given its time to come."""
        heard = self._hear(expected)
        if self._stage.grade is Grade.EXACT or (heard and self._ended_well(expected)):
            return heard
        until = time.monotonic() + self._within_s
        waited = False
        while not (heard and self._ended_well(expected)) and time.monotonic() < until:
            if heard is None and not self._may_still_come(expected):
                return None
            self._stage.wait(LOOK_AGAIN_S)
            waited = True
            heard = self._hear(expected)
        if waited and heard:
            self._stage.fence(tuple(self._doer.there.values()))
            heard = self._hear(expected)
        return heard

    def _hear(self, expected: Expected) -> Heard | None:
        inboxes = {name: bytes(client.inbox) for name, client in self._doer.there.items()}
        if any(inboxes[name] for name in inboxes if name not in expected.awaited):
            return None
        return hear(expected.awaited, inboxes, self._doer.known, self._eol, frozenset(expected.agree))

    def _ended_well(self, expected: Expected) -> bool:
        return all(
            self._doer.there[name].end in ENDS_AS[ends.ending] for name, (ends, _) in expected.ends.items()
        )

    def _may_still_come(self, expected: Expected) -> bool:
        """Whether something awaited is missing from someone who is still connected."""
        for name, items in expected.awaited.items():
            client = self._doer.there[name]
            entries, _ = side_by_side(items, bytes(client.inbox), self._doer.known, self._eol)
            if client.end is End.OPEN and any(not entry.fits and entry.awaited for entry in entries):
                return True
        return False

    # --- the report -----------------------------------------------------------------------------------------

    def _report(self, turn: Turn, expected: Expected, heard: Heard | None) -> TurnReport:
        if heard:
            known = dict(heard.bound)
        else:
            inboxes = {name: bytes(client.inbox) for name, client in self._doer.there.items()}
            known = dict(bound_in_order(expected.in_order, inboxes, self._doer.known, self._eol))
        hearings = []
        for name, client in self._doer.there.items():
            data = bytes(client.inbox)
            if heard is not None:
                entries: tuple[Entry, ...] = heard.entries.get(name, ())
            else:
                entries, bound = side_by_side(expected.awaited.get(name, ()), data, known, self._eol)
                known.update(bound)
            ends = expected.ends.get(name)
            ended_now = client.end is not End.OPEN and name not in self._doer.gone
            hearings.append(
                Hearing(
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
                self._doer.gone.add(name)
        self._doer.known = known
        self._bound = newly_bound(known, self._bound, expected.in_order)
        near = last_step(turn)
        return TurnReport(
            turn.number,
            near.script.file,
            near.line,
            tuple(self._doer.done),
            tuple(hearings),
            self._stage.now(),
            *self._disagreement(expected, heard, hearings),
            bound=tuple(self._bound.values()),
        )

    def _disagreement(
        self, expected: Expected, heard: Heard | None, hearings: list[Hearing]
    ) -> tuple[tuple[str, ...], int]:
        if heard is None and all(entry.fits for one in hearings for entry in one.entries):
            for line, clients in expected.agree.values():
                return clients, line
        return (), 0

    def _time_of(self, client: Client, entry: Entry) -> float:
        if entry.heard is None:
            return self._stage.now()
        return client.arrived_at(entry.offset)

    # --- afterwards -----------------------------------------------------------------------------------------

    def _look_afterwards(self, following: Turn | None) -> None:
        """The run is over; see whether what is missing only comes late. Whatever goes wrong here tells nothing."""
        if not any(one.fault in (Fault.MISSING, Fault.DIFFERENT) for one in self.failures):
            return
        try:
            if self._stage.grade is Grade.EXACT:
                self._stage.wait(LATE_S)
                self._collect(a_turn_later=False)
            if following is not None:
                self._doer.do_all(following)
                self._collect(a_turn_later=True)
        except (TargetError, Unanswered, NotTaken, ScriptError, Unbound):
            return

    def _collect(self, a_turn_later: bool) -> None:
        for name, client in self._doer.there.items():
            data, at = bytes(client.inbox), 0
            for piece in data.splitlines(keepends=True):
                self.late.append(Late(name, piece, client.arrived_at(at), a_turn_later))
                at += len(piece)
            client.take(len(data))
