"""One script being played: its turns, one after another, on a stage that stands. Knows no files and no reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.asking import TargetError, UnsupportedAsk
from harness.client import Client
from harness.complaint import complain
from harness.connection import End
from harness.errors import ScriptError
from harness.faults import Faults
from harness.fence import Grade, Unanswered
from harness.hearing import Awaited, Entry, Heard, hear, side_by_side
from harness.judging import judge
from harness.matching import Unbound, fill
from harness.plan import PlacedDoing, Plan, Turn
from harness.rendering import render_item
from harness.settings import render_duration
from harness.stage import Stage
from harness.steps import (
    RECEIVING,
    SENDING,
    AnyOrder,
    CallFails,
    CallTakes,
    ClockJumps,
    Connects,
    Deed,
    Does,
    Ends,
    ReceivesNothing,
    Send,
    SendBytes,
    Sending,
    SendPattern,
    Together,
    Wait,
)
from harness.unfolding import Placed
from harness.verdict import ENDS_AS, Done, Failure, Fault, Hearing, Late, TurnReport

# How often, in seconds, it is looked again for a line that an inexact fence did not wait for.
LOOK_AGAIN_S = 0.005
# How much virtual time a failed run is given, to see whether a missing line was only late.
LATE_S = 60.0

Layer = Callable[[int, Mapping[str, Client]], None]
"""What stands between that which was received and that which is judged: at the end of each turn, given its number, it
may change what the clients hold in their inboxes."""


@dataclass(slots=True)
class _Expected:
    """What one turn says is received."""

    awaited: dict[str, list[Awaited]] = field(default_factory=dict)
    agree: dict[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    """The groups whose order all their clients must share: each one's line and clients."""
    silences: dict[str, int] = field(default_factory=dict)
    ends: dict[str, tuple[Ends, int]] = field(default_factory=dict)


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
        self._faults = faults
        self._known: dict[str, str] = {}
        self._there: dict[str, Client] = {}
        self._gone: set[str] = set()
        self._done: list[Done] = []
        self._unfenced: list[Client] = []
        self._hang_ups: frozenset[str] = frozenset()
        self.turns: list[TurnReport] = []
        self.failures: list[Failure] = []
        self.late: list[Late] = []

    def run(self) -> None:
        """Play every turn, or up to the one that fails."""
        for at, turn in enumerate(self._plan.turns):
            found = self._play_turn(turn)
            self.failures.extend(found)
            if any(one.fault in (Fault.DIED, Fault.UNANSWERED, Fault.UNSENT) for one in found):
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
        self._done = []
        stopped: Failure | None = None
        try:
            for at, doing in enumerate(turn.doings):
                if self._unfenced and _doers([doing]) != [client.name for client in self._unfenced]:
                    self._fence()
                self._hang_ups = _hang_ups(turn, at)
                for name in self._hang_ups & self._there.keys():
                    self._there[name].hangs_up = True
                self._do(doing)
            self._fence(turn)
        except Unanswered as silent:
            stopped = self._failure(turn, Fault.UNANSWERED, silent.client, f"waited {silent.waited_s:.1f} s")
        except Unbound as lost:
            # Only in a run that is kept going: the line that would have bound it was not heard.
            stopped = self._failure(turn, Fault.UNSENT, "", f"nothing has bound ${{{lost.name}}}")
        except TargetError as dead:
            stopped = self._failure(turn, Fault.DIED, "", str(dead))
        expected = _expected(turn)
        heard = None if stopped else self._listen(expected)
        if self._layer is not None and stopped is None:
            # After listening: what the layer takes away must not be waited for.
            self._layer(turn.number, self._there)
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

    def _failure(self, turn: Turn, fault: Fault, client: str, detail: str) -> Failure:
        placed = turn.doings[min(len(self._done), len(turn.doings)) - 1] if self._done else turn.doings[0]
        return Failure(
            fault, client, placed.script.file, placed.line, turn.number, at_s=self._stage.now(), detail=detail
        )

    # --- doing ----------------------------------------------------------------------------------------------

    def _fence(self, turn: Turn | None = None) -> None:
        """What was done without waiting for its effects has them now; at a turn's end, all that the turn did."""
        names = _doers(turn.doings) if turn else ()
        doers = [self._there[name] for name in names if name in self._there] if turn else self._unfenced
        self._unfenced = []
        self._stage.fence(doers)

    def _do(self, doing: PlacedDoing) -> None:
        match doing.step:
            case Connects(client, endpoint):
                self._note(doing, client, "connects" + (f" to {endpoint}" if endpoint else ""))
                self._connect(doing, client, endpoint)
            case Together(body):
                self._together(doing, [send for send in body if isinstance(send, SENDING)])
            case Wait(microseconds):
                self._note(doing, None, f"wait {render_duration(microseconds)}")
                self._stage.wait(microseconds / 1_000_000)
            case CallFails() | CallTakes() | ClockJumps():
                self._note(doing, None, next(iter(render_item(doing.step))))
                self._suffer(doing, doing.step)
            case Does(client, deed):
                self._note(doing, client, deed.value)
                self._deed(self._there[client], deed)
            case Send() | SendBytes() | SendPattern():
                self._send(doing, doing.step)

    def _note(self, doing: PlacedDoing, client: str | None, text: str, line: int = 0) -> None:
        self._done.append(
            Done(client, text, doing.script.file, line or doing.line, self._stage.now(), doing.via)
        )

    def _connect(self, doing: PlacedDoing, name: str, endpoint: str | None = None) -> None:
        client = self._stage.client(name)
        try:
            client.connect(endpoint)
        except UnsupportedAsk as wrong:
            raise complain(
                doing.script, doing.line, 0, str(wrong), "an endpoint of this target", doing.step
            ) from None
        self._there[name] = client
        self._gone.discard(name)
        client.hangs_up = name in self._hang_ups
        if self._stage.grade is Grade.EXACT:
            # Elsewhere this would ask a client who has not said who it is.
            self._unfenced.append(client)

    def _present(self, doing: PlacedDoing, name: str) -> Client:
        """The client, connected by its first send."""
        if name not in self._there:
            self._connect(doing, name)
        return self._there[name]

    def _send(self, doing: PlacedDoing, step: Sending) -> None:
        client = self._present(doing, step.client)
        step = self._filled(doing, step)
        self._note(doing, step.client, _text(step))
        if client.end is not End.OPEN:
            return  # it was cut off; the turn's end says so
        client.hangs_up = step.client in self._hang_ups
        if isinstance(step, Send):
            client.send(step.text)
        elif isinstance(step, SendBytes):
            client.send_bytes(step.data)
            self._unfenced = [client]

    def _together(self, doing: PlacedDoing, sends: list[Sending]) -> None:
        ready = [(self._present(doing, send.client), self._filled(doing, send)) for send in sends]
        for client, step in ready:
            self._note(doing, step.client, _text(step), step.line)
            client.hangs_up = step.client in self._hang_ups
            if client.end is End.OPEN:
                client.post(step.text.encode() + self._eol if isinstance(step, Send) else step.data)
        self._unfenced = list(dict.fromkeys(client for client, _ in ready))

    def _filled(self, doing: PlacedDoing, step: Sending) -> Send | SendBytes:
        if not isinstance(step, SendPattern):
            return step
        text = fill(step.pattern, self._known)
        try:
            return Send(step.client, text, line=step.line)
        except ValueError:
            # A captured value may hold what no literal can; it is sent as it came.
            wire = text.encode("utf-8", "surrogateescape") + self._eol
            return SendBytes(step.client, wire, line=step.line)

    def _deed(self, client: Client, deed: Deed) -> None:
        match deed:
            case Deed.CLOSES:
                client.close()
                self._gone.add(client.name)
            case Deed.ABORTS:
                client.abort()
                self._gone.add(client.name)
            case Deed.HALF_CLOSES:
                client.half_close()
            case Deed.STOPS_READING:
                client.stop_reading()
            case Deed.READS_AGAIN:
                client.read_again()
            case Deed.VANISHES:
                assert self._faults is not None  # see the player
                if client.end is End.OPEN:
                    self._faults.vanish(client.connection)
                self._gone.add(client.name)
        self._unfenced = [client]

    def _suffer(self, doing: PlacedDoing, step: CallFails | CallTakes | ClockJumps) -> None:
        assert self._faults is not None  # see the player
        name = None if isinstance(step, ClockJumps) else step.client
        client = self._there[name] if name is not None else None
        if client is not None and client.end is not End.OPEN:
            return  # it was cut off; the turn's end says so
        self._faults.do(step, client.connection if client is not None else None)

    # --- hearing --------------------------------------------------------------------------------------------

    def _listen(self, expected: _Expected) -> Heard | None:
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
            self._stage.fence(tuple(self._there.values()))
            heard = self._hear(expected)
        return heard

    def _hear(self, expected: _Expected) -> Heard | None:
        inboxes = {name: bytes(client.inbox) for name, client in self._there.items()}
        if any(inboxes[name] for name in inboxes if name not in expected.awaited):
            return None
        return hear(expected.awaited, inboxes, self._known, self._eol, frozenset(expected.agree))

    def _ended_well(self, expected: _Expected) -> bool:
        return all(self._there[name].end in ENDS_AS[ends.ending] for name, (ends, _) in expected.ends.items())

    def _may_still_come(self, expected: _Expected) -> bool:
        """Whether something awaited is missing from someone who is still connected."""
        for name, items in expected.awaited.items():
            client = self._there[name]
            entries, _ = side_by_side(items, bytes(client.inbox), self._known, self._eol)
            if client.end is End.OPEN and any(not entry.fits and entry.awaited for entry in entries):
                return True
        return False

    # --- the report -----------------------------------------------------------------------------------------

    def _report(self, turn: Turn, expected: _Expected, heard: Heard | None) -> TurnReport:
        known = dict(heard.bound) if heard else dict(self._known)
        hearings = []
        for name, client in self._there.items():
            data = bytes(client.inbox)
            if heard is not None:
                entries: tuple[Entry, ...] = heard.entries.get(name, ())
            else:
                entries, bound = side_by_side(expected.awaited.get(name, ()), data, known, self._eol)
                known.update(bound)
            ends = expected.ends.get(name)
            ended_now = client.end is not End.OPEN and name not in self._gone
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
                self._gone.add(name)
        self._known = known
        near = _last(turn)
        return TurnReport(
            turn.number,
            near.script.file,
            near.line,
            tuple(self._done),
            tuple(hearings),
            self._stage.now(),
            *self._disagreement(expected, heard, hearings),
        )

    def _disagreement(
        self, expected: _Expected, heard: Heard | None, hearings: list[Hearing]
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
                for doing in following.doings:
                    self._do(doing)
                self._collect(a_turn_later=True)
        except (TargetError, Unanswered, ScriptError, Unbound):
            return

    def _collect(self, a_turn_later: bool) -> None:
        for name, client in self._there.items():
            data, at = bytes(client.inbox), 0
            for piece in data.splitlines(keepends=True):
                self.late.append(Late(name, piece, client.arrived_at(at), a_turn_later))
                at += len(piece)
            client.take(len(data))


def _text(step: Send | SendBytes) -> str:
    return next(iter(render_item(step)))[len(step.client) :]


def _last(turn: Turn) -> Placed[Any]:
    """The step after which a line would stand that this turn has caused and the script does not say."""
    placed = [*turn.doings, *turn.expects]
    own = [one for one in placed if not one.via]
    return (own or placed)[-1]


def _doers(doings: Iterable[PlacedDoing]) -> list[str]:
    """Who does something, each once."""
    names: dict[str, None] = {}
    for placed in doings:
        match placed.step:
            case Wait() | CallFails() | CallTakes() | ClockJumps():
                pass
            case Together(body):
                names.update((send.client, None) for send in body if isinstance(send, SENDING))
            case step:
                names[step.client] = None
    return list(names)


def _hang_ups(turn: Turn, at: int) -> frozenset[str]:
    """On whom the server will hang up from this doing on, as the script says: a fence must not ask them any more, for
    that would reset the connection. It is so from the client's last deed of this turn on, or from the turn's last."""
    left = turn.doings[at + 1 :]
    ending = {placed.step.client for placed in turn.expects if isinstance(placed.step, Ends)}
    doing, still = _doers(turn.doings), _doers(left)
    return frozenset(name for name in ending if (name not in still if name in doing else not left))


def _expected(turn: Turn) -> _Expected:
    out = _Expected()
    for group, placed in enumerate(turn.expects):
        file = placed.script.file
        match placed.step:
            case AnyOrder(body, same_for):
                for one in body:
                    if isinstance(one, RECEIVING):
                        for client in (one.client,) if one.client else same_for:
                            item = Awaited(one, file, one.line or placed.line, group)
                            out.awaited.setdefault(client, []).append(item)
                if same_for:
                    out.agree[group] = placed.line, same_for
            case ReceivesNothing(client):
                out.silences[client] = placed.line
            case Ends(client):
                out.ends[client] = (placed.step, placed.line)
            case step:
                out.awaited.setdefault(step.client, []).append(Awaited(step, file, placed.line))
    return out
