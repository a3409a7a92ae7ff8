"""Performs a plan on a stage, turn by turn: executes and fences actions, and records what is received.

- An action starts when the server has processed the one before it, except inside `together`.
- Actions whose effects were not waited for are fenced before another client acts, and at the end of the turn.
- No fence line is sent on a connection that the server is expected to close: it would reset the connection.
- Everything received in a turn is claimed at its end, whether it was expected or not.

Nothing is judged here. A turn is only compared with what it expects, because later turns need its bindings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from harness.language.adapter import Spelling
from harness.language.exhaustive import assert_never
from harness.language.expansion import Located
from harness.language.fences import Fence
from harness.language.forms import write_line
from harness.language.patterns import UnboundName, fill
from harness.language.problems import ScriptError
from harness.language.steps import (
    ActionStep,
    Acts,
    AnyOrder,
    CallFails,
    CallTakes,
    ClockJumps,
    ConnectionAction,
    Connects,
    ConnectsToPort,
    Either,
    Ends,
    Fault,
    LinkChanges,
    LinkDelays,
    LinkSplits,
    NodeChanges,
    NodeStep,
    ReceiveBody,
    ReceiveBytes,
    ReceiveUntil,
    Send,
    SendBytes,
    Sending,
    SendPattern,
    Term,
    Together,
    Transport,
    Wait,
)
from harness.language.validation import Plan, Turn, looks_like, received_in
from harness.playing.alignment import align, align_turn
from harness.playing.bindings import Binding, newly_bound
from harness.playing.expectations import Entry, Expectation, TurnExpectations, Values, choices_of
from harness.playing.matching import TooManyWays, TurnMatch
from harness.playing.verdict import (
    ClientTurn,
    FailureKind,
    Interruption,
    LateLine,
    Measured,
    Overtaken,
    PerformedAction,
    TurnReport,
    accepts_end,
)
from harness.playing.ways import could_go_on, match_any_way
from harness.stage.connection import End, SocketTimeout, UnsupportedAction
from harness.stage.fence import FenceFailed, FenceLineSent, Grade, NeverIdle, NoFenceAnswer
from harness.stage.rules import TakenLine
from harness.stage.stage import Client, NotRead, Stage
from harness.stage.target import (
    ServerError,
    TargetError,
    UnsupportedFault,
    UnsupportedSpec,
    Untestable,
)
from harness.stage.transport import HandshakeFailed

_POLL_S = 0.005
"""How often a line is looked for that an inexact fence did not wait for."""

_ANY_NUMBER = 1 << 40
"""More lines than a client receives."""

WARM_UP_TURNS = 3
"""How many turns are watched for longer, to see whether the server delivers before it answers a fence line: this many that
only introduce clients, and as many others."""

_PORT_DIGITS = 9

LATE_S = 60.0
"""The virtual time for which a failed run continues, to find out whether a missing line was only late."""

ExpectedError = tuple[str, str, int]
"""The class of an exception, and the file and line that expect it."""

InboxFilter = Callable[[int, Mapping[str, Client]], None]
"""Called at the end of each turn, with its number, before the turn is compared; can change the clients' inboxes."""

LocatedAction = Located[ActionStep]


class NoPort(Exception):
    """The server named something that is not a port."""


class Execution:
    """One plan on one stage. After `run`, `turns` and `late_lines` hold what was observed."""

    def __init__(self, plan: Plan, stage: Stage, keep_going: bool, inbox_filter: InboxFilter | None) -> None:
        self.turns: list[TurnReport] = []
        self.late_lines: list[LateLine] = []
        self._plan = plan
        self._stage = stage
        self._keep_going = keep_going
        self._inbox_filter = inbox_filter
        self._clients: dict[str, Client] = {}
        """Every client that has ever connected, in that order."""
        self._departed: set[str] = set()
        """Clients whose end needs no report: they left themselves, or an earlier turn reported it."""
        self._uncertain: set[str] = set()
        """Clients whose connection the server could end or not, in an earlier turn."""
        self._known: Values = {}
        self._bindings: dict[str, Binding] = {}
        self._performed: list[PerformedAction] = []
        self._current: LocatedAction | None = None
        self.overtaken: Overtaken | None = None
        """Set where something came that the answers to fence lines did not wait for: what was observed then counts for
        little, and another play has to wait for quiet."""
        self._did_without = False
        """Whether an earlier turn ended without something that could have come, and so can come now."""
        self._unfenced: list[Client] = []
        self._sent_line = False
        """Whether all that is not fenced is one whole line of one client."""
        self._closing: frozenset[str] = frozenset()
        self._perhaps_closing: frozenset[str] = frozenset()
        self._warm_up_turns = dict.fromkeys((True, False), WARM_UP_TURNS)
        self._introduced: frozenset[str] = frozenset()
        """The clients that had introduced themselves before this turn."""
        self._lookalikes: Counter[str] = Counter()
        self._expected_lines: Counter[str] = Counter()
        self._unended: dict[str, tuple[bytes, ...]] = {}
        self._has_all: dict[str, Callable[[bytes], bool]] = {}
        self._taken: list[TakenLine] = []
        stage.on_taken = self._taken.append

    def run(self) -> None:
        """Play all turns, or up to the first that fails."""
        turns = self._plan.turns
        for turn, following in zip(turns, (*turns[1:], None), strict=True):
            report = self._play(turn, last=following is None)
            self.turns.append(report)
            if self.overtaken is not None:
                return
            if report.interruption is not None:
                return
            if report.as_expected:
                self._did_without = self._did_without or report.did_without
                continue
            if self._inbox_filter is not None:
                return  # what is missing was taken away, and will not come late
            late = report.has_unexpected and self._did_without
            if self._stage.more_comes():
                self.overtaken = Overtaken.IN_A_TURN if late else Overtaken.AFTER_A_FAILURE
                return
            if self._stage.answers_alone and late:
                self.overtaken = Overtaken.PERHAPS
                return
            if not self._keep_going:
                self._look_for_late_lines(report, following)
                return

    @property
    def failed(self) -> bool:
        return not all(report.as_expected for report in self.turns)

    def _play(self, turn: Turn, last: bool) -> TurnReport:
        self._stage.take_fence_lines()
        interruption, expected, found = self._attempt(turn, last)
        released = [client.connection.release() for client in self._clients.values()]
        if interruption is None and any(released):
            expected, found = self._match(turn)  # a rule can have taken a line of what was held back
        if interruption is None and self._inbox_filter is not None:
            # After listening, so that nothing waits for lines that the filter removes.
            self._inbox_filter(turn.number, self._clients)
            for client in self._clients.values():
                client.inbox.sift_again()
            expected, found = self._match(turn)
        report = self._report(turn, expected, found, interruption)
        if interruption is None and not report.as_expected and not self._stage.alive():
            died = str(self._stage.died())
            report = replace(
                report, interruption=self._interruption(turn, FailureKind.SERVER_DIED, detail=died)
            )
        return report

    def _take_taken(self, fence_lines: Iterable[FenceLineSent]) -> tuple[TakenLine, ...]:
        """The lines of this turn that rules took or an adapter changed, without the answers to fence lines that it spelled."""
        answers = [(one.client, one.answer) for one in fence_lines if one.answer is not None]
        for at, one in reversed([*enumerate(self._taken)]):
            spelled = isinstance(one.rule, Spelling) and not one.rule.sent
            if spelled and (one.client, one.instead) in answers:
                answers.remove((one.client, one.instead))
                del self._taken[at]
        taken = tuple(self._taken)
        self._taken.clear()
        return taken

    def leave(self) -> None:
        """Let the clients leave; what the server's code does not handle then belongs to the last turn. An OSError can be
        caused by all of them leaving at once, which the script does not contain unless it expects it."""
        self._stage.close_clients()
        if self.overtaken is not None:
            # The next play may meet the same server, which has to notice that its clients have left.
            self._stage.loop.advance(self._stage.settle_s)
        last = self.turns[-1]
        unexpected, raised, not_raised = _claimed(self._stage.take_errors(), last.not_raised)
        last = replace(last, raised=(*last.raised, *raised), not_raised=not_raised)
        errors = tuple(error for error in unexpected if not error.from_the_system)
        # After a failure they explain nothing.
        self.turns[-1] = replace(last, errors=errors) if last.as_expected else last

    def _warms_up(self, turn: Turn) -> bool:
        """Whether this turn is watched for longer: one of the first in which something could reach a client that does not
        act, as long as nothing has. Once something has, and came before the answers, the server delivers first. A turn that
        waited for quiet says nothing about that, and one that only introduces clients nothing about later ones: what a
        login causes can go another way than messages."""
        if not self._stage.answers_alone:
            return False
        acting = _acting(turn.actions)
        introduces = bool(acting) and self._introduced.isdisjoint(acting)
        watching = [one for one in self._clients.values() if one.name not in acting and one.connected]
        if any(one.received for one in watching):
            self._warm_up_turns[introduces] = 0
        if not watching or not self._warm_up_turns[introduces]:
            return False
        self._warm_up_turns[introduces] -= 1
        return True

    def _note_overtaken(self, how: Overtaken) -> None:
        # A play with a filter is one of many, and is not played again: it goes on and waits for quiet.
        if self._inbox_filter is None:
            self.overtaken = how

    def _attempt(
        self, turn: Turn, last: bool
    ) -> tuple[Interruption | None, TurnExpectations, TurnMatch | None]:
        """Execute the actions of a turn; returns when all their effects have been received."""
        try:
            self._act(turn)
            expected, found = self._listen(turn)
            if found is not None and self._stage.more_comes(last or self._warms_up(turn)):
                expected, found = self._match(turn)
                failed = found is None or self._number_of_wrong_ends(expected) > 0
                if failed and self._did_without:
                    how = Overtaken.IN_A_TURN  # what an earlier turn did without can be what came
                elif last:
                    how = Overtaken.AT_THE_END
                else:
                    how = Overtaken.AFTER_A_FAILURE if failed else Overtaken.IN_A_TURN
                self._note_overtaken(how)
            return None, expected, found
        except FenceFailed as failed:
            kind = _kind_of(failed)
            interruption = self._interruption(turn, kind, failed.client, self._explained(failed))
        except SocketTimeout as late:
            interruption = self._interruption(
                turn, FailureKind.TIMED_OUT, self._acting_now(), detail=str(late)
            )
        except HandshakeFailed as refused:
            interruption = self._interruption(
                turn, FailureKind.NO_HANDSHAKE, self._acting_now(), detail=str(refused)
            )
        except UnboundName as unbound:
            # Happens only in a run that goes on after failures.
            detail = f"${{{unbound.name}}} is not bound, because no line came that binds it"
            interruption = self._interruption(turn, FailureKind.UNSENDABLE, self._acting_now(), detail=detail)
        except NoPort as wrong:
            interruption = self._interruption(
                turn, FailureKind.NO_PORT, self._acting_now(), detail=str(wrong)
            )
        except Untestable:
            raise
        except TargetError as died:
            interruption = self._interruption(turn, FailureKind.SERVER_DIED, detail=str(died))
        return interruption, TurnExpectations.of(turn), None

    def _acting_now(self) -> str:
        return getattr(self._current.step, "client", "") if self._current else ""

    def _explained(self, failed: FenceFailed) -> str:
        if not isinstance(failed, NoFenceAnswer):
            return str(failed)
        line = self._plan.script.setting(Fence)
        where = f" (line {line.line})" if line is not None and line in self._plan.script.header else ""
        return f"{failed.explained(where)} (waited {failed.waited_s:.1f} s)"

    def _interruption(
        self, turn: Turn, kind: FailureKind, client: str = "", detail: str = ""
    ) -> Interruption:
        at = self._current or turn.actions[0]
        return Interruption(kind, client, detail, at.script.file, at.line, self._stage.now(), at.via)

    # --- actions --------------------------------------------------------------------------------------------

    def _act(self, turn: Turn) -> None:
        self._performed = []
        self._introduced = frozenset(
            name for name, client in self._clients.items() if client.connection.introduced
        )
        self._expect_lookalikes(turn)
        for at, located in enumerate(turn.actions):
            if self._unfenced and not self._continues(located):
                self._fence_before_next()
            self._current = located
            self._closing, self._perhaps_closing = _closing(turn, at)
            for name in self._closing & self._clients.keys():
                self._clients[name].connection.expects_close = True
            for name, client in self._clients.items():
                client.connection.may_close = name in self._perhaps_closing
            self._do(located)
        self._fence([self._clients[name] for name in _acting(turn.actions) if name in self._clients])

    def _expect_lookalikes(self, turn: Turn) -> None:
        """Tell the connections how many lines this turn expects, and how many of them look like an answer to the fence
        line. Where it expects any lines, only the whole of what a client expects can tell."""
        self._lookalikes, self._expected_lines, self._unended = Counter(), Counter(), {}
        self._has_all = {}
        fence = self._stage.answered_fence
        if fence is None:
            return
        for located in turn.expectations:
            for step, name in received_in(located.step):
                match step:
                    case ReceiveBytes(_, data) | ReceiveBody(_, _, bytes(data)):
                        self._expected_lines[name] += data.count(b"\n")
                        self._lookalikes[name] += fence.lookalikes(data)
                        unended = data.rpartition(b"\n")[2]
                        if unended:
                            self._unended[name] = (*self._unended.get(name, ()), unended)
                        continue
                    case ReceiveUntil() | ReceiveBody():
                        self._expected_lines[name] += _ANY_NUMBER
                        self._lookalikes[name] += _ANY_NUMBER if fence.has_lookalikes else 0
                        if not any(choices_of(turn)):
                            items = TurnExpectations.of(turn).lines[name]
                            self._has_all[name] = partial(self._are_all, items)
                        continue
                    case _:
                        self._expected_lines[name] += 1
                self._lookalikes[name] += any(looks_like(step, answer) for answer in fence.replies)
        for client in self._clients.values():
            self._prepare(client)

    def _prepare(self, client: Client) -> None:
        client.connection.lookalikes = self._lookalikes[client.name]
        client.connection.expected_lines = self._expected_lines[client.name]
        client.connection.unended = self._unended.get(client.name, ())
        client.connection.has_all = self._has_all.get(client.name)

    def _are_all(self, items: Sequence[Expectation], data: bytes) -> bool:
        entries, _ = align(items, data, self._known, self._stage.eol)
        return all(entry.matches for entry in entries)

    def _continues(self, located: LocatedAction) -> bool:
        """Whether this goes on with what was done before it, so that its effects need not be awaited first."""
        match located.step:
            case Send(client) | SendBytes(client) | SendPattern(client):
                return not self._sent_line and [client] == [one.name for one in self._unfenced]
            case Connects() | ConnectsToPort():
                # Outside this process connects that follow one another are made at once.
                return self._stage.grade is not Grade.EXACT and all(
                    one.connection.nothing_sent for one in self._unfenced
                )
            case _:
                return False

    def _fence_before_next(self) -> None:
        """Wait until the server has processed the last action. Effects of a line on other clients can still be under way."""
        if self._sent_line and self._stage.ask(self._unfenced[0]):
            self._unfenced = []
        else:
            self._fence(self._unfenced)

    def _fence(self, actors: Iterable[Client]) -> None:
        self._stage.fence(tuple(actors))
        self._unfenced = []

    def _do(self, located: LocatedAction) -> None:
        match located.step:
            case Connects(client, endpoint, transport):
                self._note(located, client, write_line(located.step)[len(client) + 1 :])
                self._connect(located, client, endpoint, transport)
            case ConnectsToPort(client, port):
                self._note(located, client, write_line(located.step)[len(client) + 1 :])
                self._connect(located, client, port=self._port(port))
            case Together(body):
                self._send_together(located, [send for send in body if isinstance(send, Sending)])
            case Wait(microseconds):
                self._note(located, None, write_line(located.step))
                self._stage.wait(microseconds / 1_000_000)
            case CallFails() | CallTakes() | ClockJumps():
                self._note(located, None, write_line(located.step))
                self._inject(located, located.step)
            case NodeChanges() | LinkChanges() | LinkDelays() | LinkSplits():
                self._note(located, None, write_line(located.step))
                self._change_part(located, located.step)
            case Acts(client, action):
                self._note(located, client, action.value, on_connection=action)
                try:
                    self._change(located, self._clients[client], action)
                except UnsupportedAction as wrong:
                    raise located.problem(str(wrong), f"`{client} closes`, or a target over TCP") from None
            case Send() | SendBytes() | SendPattern():
                self._send(located, located.step)
            case _:
                assert_never(located.step)

    def _note(
        self,
        located: LocatedAction,
        client: str | None,
        text: str,
        line: int = 0,
        on_connection: ConnectionAction | None = None,
    ) -> None:
        self._performed.append(
            PerformedAction(
                client,
                text,
                located.script.file,
                line or located.line,
                self._stage.now(),
                located.via,
                on_connection,
            )
        )

    def _port(self, terms: Iterable[Term]) -> int:
        """The port that was captured; NoPort where it is none."""
        total = 0
        for term in terms:
            text = str(term.value) if isinstance(term.value, int) else self._known.get(term.value)
            if text is None:
                raise UnboundName(str(term.value))
            if not (text.isascii() and text.isdigit() and len(text) <= _PORT_DIGITS):
                raise NoPort(f"${{{term.value}}} is `{text}`")
            total += term.times * int(text)
        if not 0 < total < 1 << 16:
            raise NoPort(f"{total}, which is not from 1 to 65535")
        return total

    def _connect(
        self,
        located: LocatedAction,
        name: str,
        endpoint: str | None = None,
        transport: Transport | None = None,
        port: int | None = None,
    ) -> None:
        client = self._stage.client(name)
        if self._lost(client):
            return  # the end of the turn reports that it lost the connection before
        client.left = True  # turns report how its last connection ended
        try:
            client.connect(endpoint, transport, port)
        except UnsupportedSpec as wrong:
            raise located.problem(str(wrong), "an endpoint of this target") from None
        self._clients[name] = client
        self._departed.discard(name)
        self._uncertain.discard(name)
        client.connection.expects_close = name in self._closing
        client.connection.may_close = name in self._perhaps_closing
        self._prepare(client)
        self._unfenced.append(client)
        self._sent_line = False

    def _lost(self, client: Client) -> bool:
        """Whether the server has ended its connection, and no turn has reported that so far."""
        return client.end not in (End.NEVER, End.OPEN) and client.name not in self._departed | self._uncertain

    def _present(self, located: LocatedAction, name: str) -> Client:
        """The client, connected by its first send."""
        if name not in self._clients:
            try:
                self._connect(located, name)
            except (HandshakeFailed, SocketTimeout):
                self._note(located, name, "connects")
                raise
        return self._clients[name]

    def _send(self, located: LocatedAction, step: Sending) -> None:
        client = self._present(located, step.client)
        filled = self._filled(step)
        self._note(located, step.client, _text(filled))
        if client.end is not End.OPEN:
            return  # the end of the turn reports that it lost the connection
        client.connection.expects_close = step.client in self._closing
        if isinstance(step, SendBytes):
            client.send_bytes(step.data)
        else:
            client.post(self._wire(filled))
        self._unfenced = [client]
        self._sent_line = not isinstance(step, SendBytes)

    def _send_together(self, located: LocatedAction, sends: list[Sending]) -> None:
        ready = [
            (self._present(located, send.client), self._filled(send), isinstance(send, SendBytes))
            for send in sends
        ]
        if self._unfenced:
            # Clients that connect only now have connected before anything is sent.
            self._fence(self._unfenced)
        for client, filled, unchanged in ready:
            self._note(located, filled.client, _text(filled), filled.line)
            client.connection.expects_close = filled.client in self._closing
            if client.end is End.OPEN:
                client.post(self._wire(filled), unchanged)
        self._unfenced = list(dict.fromkeys(client for client, *_ in ready))
        self._sent_line = False

    def _filled(self, step: Sending) -> Send | SendBytes:
        if not isinstance(step, SendPattern):
            return step
        text = fill(step.pattern, self._known)
        try:
            return Send(step.client, text, line=step.line)
        except ValueError:
            # A captured value can hold what a literal cannot; it is sent as received.
            wire = text.encode("utf-8", "surrogateescape") + self._stage.eol
            return SendBytes(step.client, wire, line=step.line)

    def _wire(self, step: Send | SendBytes) -> bytes:
        return step.text.encode() + self._stage.eol if isinstance(step, Send) else step.data

    def _change(self, located: LocatedAction, client: Client, action: ConnectionAction) -> None:
        if self._lost(client):
            return  # the end of the turn reports that it lost the connection
        match action:
            case ConnectionAction.CLOSES:
                client.close()
            case ConnectionAction.ABORTS:
                client.abort()
            case ConnectionAction.HALF_CLOSES:
                client.half_close()
            case ConnectionAction.STOPS_READING:
                client.stop_reading()
            case ConnectionAction.READS_AGAIN:
                client.read_again()
            case ConnectionAction.VANISHES:
                if client.end is End.OPEN:
                    self._with_connection(located, lambda: self._stage.server.vanish(client.connection))
            case _:
                assert_never(action)
        if action in (ConnectionAction.CLOSES, ConnectionAction.ABORTS, ConnectionAction.VANISHES):
            self._departed.add(client.name)
        self._unfenced = [client]
        self._sent_line = False

    def _change_part(self, located: LocatedAction, step: NodeStep) -> None:
        """Change a node or its link."""
        server = self._stage.server
        try:
            if isinstance(step, NodeChanges):
                server.change_node(step)
            else:
                server.change_link(step)
        except UnsupportedSpec as wrong:
            raise located.problem(str(wrong), "a node of this target") from None
        self._stage.acts()
        self._unfenced = []
        self._sent_line = False

    def _inject(self, located: LocatedAction, fault: Fault) -> None:
        name = None if isinstance(fault, ClockJumps) else fault.client
        client = self._clients[name] if name is not None else None
        if client is not None and client.end is not End.OPEN:
            return  # the end of the turn reports that it lost the connection
        connection = client.connection if client is not None else None
        self._with_connection(located, lambda: self._stage.server.inject(fault, connection))

    def _with_connection(self, located: LocatedAction, inject: Callable[[], None]) -> None:
        try:
            inject()
        except UnsupportedFault as wrong:
            raise located.problem(wrong.reason, wrong.expected) from None

    # --- what is received -----------------------------------------------------------------------------------

    def _inboxes(self) -> dict[str, bytes]:
        return {name: client.received for name, client in self._clients.items()}

    def _match(self, turn: Turn) -> tuple[TurnExpectations, TurnMatch | None]:
        try:
            return self._match_so_far(turn)
        except TooManyWays:
            blocks = [one for one in turn.expectations if isinstance(one.step, (Either, AnyOrder))]
            either = [one for one in blocks if isinstance(one.step, Either)]
            raise [*either, *blocks, *turn.expectations][0].problem(
                "the ways in which this turn can go have too many combinations", "fewer of them in one turn"
            ) from None

    def _match_so_far(self, turn: Turn) -> tuple[TurnExpectations, TurnMatch | None]:
        return match_any_way(turn, self._inboxes(), self._known, self._stage.eol, self._number_of_wrong_ends)

    def _listen(self, turn: Turn) -> tuple[TurnExpectations, TurnMatch | None]:
        """The match. If the fence is not exact, wait for expected lines and ends that are missing."""
        if self._stage.grade is Grade.EXACT:
            return self._match(turn)
        limit, waited, changed = self._stage.limit(), False, True
        while True:
            if changed:
                try:
                    expected, found = self._match_so_far(turn)
                    may_come = found is not None or self._may_still_come(turn, expected)
                except TooManyWays:
                    # With what is missing there can be fewer.
                    expected, found, may_come = TurnExpectations.of(turn), None, True
            if (found and self._ends_as_expected(expected)) or limit.over or not may_come:
                break
            before = self._sizes(), self._ends()
            if self._stage.loop.virtual:
                # The missing lines come from outside the server's loop, so its own time stands still meanwhile.
                self._stage.loop.pause(_POLL_S)
            else:
                self._stage.loop.advance(_POLL_S * self._stage.loop.factor)
            self._stage.require_alive()
            waited = True
            if self._stage.answers_alone and self._sizes() != before[0]:
                self._stage.distrust_answers()
                self._note_overtaken(Overtaken.IN_A_TURN)
                if self.overtaken is not None:
                    return expected, None
            changed = before != (self._sizes(), self._ends())
        if waited and found:
            self._stage.fence(tuple(self._clients.values()))
        return self._match(turn) if waited or not found else (expected, found)

    def _sizes(self) -> list[int]:
        return [len(client.received) for client in self._clients.values()]

    def _ends(self) -> list[End]:
        return [client.end for client in self._clients.values()]

    def _ends_as_expected(self, expected: TurnExpectations) -> bool:
        return all(
            accepts_end(ends.ending, ends.detail, self._clients[name].end, self._clients[name].end_detail)
            for name, (ends, _, _) in expected.ends.items()
        )

    def _number_of_wrong_ends(self, expected: TurnExpectations) -> int:
        ended = {
            name
            for name, client in self._clients.items()
            if client.end is not End.OPEN and name not in self._departed
        }
        return len(ended - expected.ends.keys()) + sum(
            not accepts_end(ends.ending, ends.detail, self._clients[name].end, self._clients[name].end_detail)
            for name, (ends, _, _) in expected.ends.items()
        )

    def _may_still_come(self, turn: Turn, nearest: TurnExpectations) -> bool:
        """Whether something is missing, or the rest of what is optional, at a client that is still connected: of the nearest
        way whatever else is wrong, and of another if nothing else is."""
        for name, items in nearest.lines.items():
            client = self._clients[name]
            begun = client.received and not client.received.endswith(b"\n")
            if client.end is End.OPEN and begun and any(item.optional for item in items):
                return True
            entries, _ = align(items, client.received, self._known, self._stage.eol)
            if client.end is End.OPEN and any(not entry.matches and entry.expected for entry in entries):
                return True
        if next(choices_of(turn), None) is None:
            return False
        ended = {name for name, client in self._clients.items() if client.end is not End.OPEN}
        lost = ended - self._departed
        return could_go_on(turn, self._inboxes(), self._known, self._stage.eol, ended, lost)

    def _report(
        self,
        turn: Turn,
        expected: TurnExpectations,
        found: TurnMatch | None,
        interruption: Interruption | None,
    ) -> TurnReport:
        """Record the turn, and claim everything that was received in it."""
        errors, raised, not_raised = _claimed(self._stage.take_errors(), expected.raises)
        eol, inboxes, choices = self._stage.eol, self._inboxes(), tuple(choices_of(turn))
        disagreed: tuple[str, ...] = ()
        agreement_file, agreement_line, agreement_group = "", 0, None
        if found is not None:
            known, entries = found.bindings, found.entries
        else:
            aligned = align_turn(expected, inboxes, self._known, eol)
            known, entries = aligned.bindings, aligned.entries
            if aligned.disagreed is not None:
                agreement_group = aligned.disagreed
                agreement_file, agreement_line, disagreed = expected.agreements[agreement_group]
        client_turns = [
            self._client_turn(name, client, entries.get(name, ()), expected)
            for name, client in self._clients.items()
        ]
        for choice in choices:
            self._uncertain |= choice.ending
        measured = tuple(self._measured(client_turns))
        for name, client in self._clients.items():
            client.take(len(inboxes[name]))
        self._known = known
        self._bindings = newly_bound(known, self._bindings, expected.in_order, entries)
        last = _last_step(turn)
        fence_lines = self._stage.take_fence_lines()
        return TurnReport(
            turn.number,
            last.script.file,
            last.line,
            tuple(self._performed),
            tuple(client_turns),
            self._stage.now(),
            disagreed,
            agreement_file,
            agreement_line,
            agreement_group,
            tuple(self._bindings.values()),
            interruption=interruption,
            errors=errors,
            not_raised=not_raised,
            raised=raised,
            fence_lines=fence_lines,
            measured=measured,
            choices=choices,
            last_via=last.via,
            taken=self._take_taken(fence_lines),
        )

    def _measured(self, client_turns: Iterable[ClientTurn]) -> Iterator[Measured]:
        """How long the lines took that have to come within a time."""
        for one in client_turns if self._performed else ():
            for entry in one.entries:
                expected, received = entry.expected, entry.received
                if expected is not None and expected.limit_us is not None and received and entry.matches:
                    end = self._clients[one.client].arrived_at(entry.offset + len(received) - 1)
                    took = round((end - self._performed[0].at_s) * 1_000_000)
                    yield Measured(one.client, expected, received, max(0, took))

    def _client_turn(
        self, name: str, client: Client, entries: tuple[Entry, ...], expected: TurnExpectations
    ) -> ClientTurn:
        ends, ending_file, ending_line = expected.ends.get(name, (None, "", 0))
        silence_file, silence_line = expected.silences.get(name, ("", 0))
        ended_now = client.end is not End.OPEN and name not in self._departed
        if ended_now or ends:
            self._departed.add(name)
        now = self._stage.now()
        return ClientTurn(
            name,
            entries,
            tuple(now if entry.received is None else client.arrived_at(entry.offset) for entry in entries),
            silence_file,
            silence_line,
            ends.ending if ends else None,
            ending_file,
            ending_line,
            client.end,
            ended_now,
            ends.detail if ends else "",
            client.end_detail,
        )

    # --- afterwards -----------------------------------------------------------------------------------------

    def _look_for_late_lines(self, report: TurnReport, following: Turn | None) -> None:
        """Find out whether a missing line only comes late. Errors from here on are ignored."""
        if not any(
            entry.expected and not entry.matches for one in report.client_turns for entry in one.entries
        ):
            return
        try:
            if self._stage.grade is Grade.EXACT:
                self._stage.wait(LATE_S)
                self._collect_late_lines(None)
            if following is not None:
                self._act(following)
                self._collect_late_lines(following)
        except (TargetError, FenceFailed, SocketTimeout, HandshakeFailed, ScriptError, UnboundName, NoPort):
            return

    def _collect_late_lines(self, following: Turn | None) -> None:
        """Keep what has come, except the lines that the turn which has acted in between expects."""
        expected: dict[str, list[Expectation]] = {}
        for located in following.expectations if following is not None else ():
            for step, name in received_in(located.step):
                expected.setdefault(name, []).append(Expectation(step, located.script.file, located.line))
        for name, client in self._clients.items():
            client.connection.release()
            data, at = bytes(client.inbox), 0
            awaited = expected.get(name, [])
            for piece in data.splitlines(keepends=True):
                own = next((one for one in awaited if one.accepts(piece, self._known, self._stage.eol)), None)
                if own is not None:
                    awaited.remove(own)
                else:
                    late = LateLine(name, piece, client.arrived_at(at), a_turn_later=following is not None)
                    self.late_lines.append(late)
                at += len(piece)
            client.take(len(data))


def _claimed(
    errors: Iterable[ServerError], expected: Iterable[ExpectedError]
) -> tuple[tuple[ServerError, ...], tuple[ExpectedError, ...], tuple[ExpectedError, ...]]:
    """The exceptions that are not expected; the expected ones that came; and those that did not."""
    unexpected, raised, missing = [*errors], list[ExpectedError](), list[ExpectedError]()
    for one in expected:
        found = next((error for error in unexpected if error.kind == one[0]), None)
        if found is None:
            missing.append(one)
        else:
            unexpected.remove(found)
            raised.append(one)
    return tuple(unexpected), tuple(raised), tuple(missing)


def _kind_of(failed: FenceFailed) -> FailureKind:
    match failed:
        case NoFenceAnswer():
            return FailureKind.UNANSWERED
        case NotRead():
            return FailureKind.NOT_READ
        case NeverIdle():
            return FailureKind.NEVER_IDLE
        case _:
            return FailureKind.NEVER_QUIET


def _text(step: Send | SendBytes) -> str:
    return write_line(step)[len(step.client) :]


def _acting(actions: Iterable[LocatedAction]) -> list[str]:
    """The clients that act, each once."""
    names: dict[str, None] = {}
    for located in actions:
        match located.step:
            case Wait() | CallFails() | CallTakes() | ClockJumps():
                pass
            case NodeChanges() | LinkChanges() | LinkDelays() | LinkSplits():
                pass
            case Together(body):
                names.update((send.client, None) for send in body if isinstance(send, Sending))
            case step:
                names[step.client] = None
    return list(names)


def _closing(turn: Turn, at: int) -> tuple[frozenset[str], frozenset[str]]:
    """The clients whose connections the server is expected to close from this action on, and those whose it may close: from
    the client's own last action of the turn, or else from the last of all."""
    left = turn.actions[at + 1 :]
    ending = {located.step.client for located in turn.expectations if isinstance(located.step, Ends)}
    perhaps = set[str]().union(*(choice.ending for choice in choices_of(turn)))
    acting, still_acting = _acting(turn.actions), _acting(left)

    def from_here(names: Iterable[str]) -> frozenset[str]:
        return frozenset(name for name in names if (name not in still_acting if name in acting else not left))

    return from_here(ending), from_here(perhaps)


def _last_step(turn: Turn) -> Located[Any]:
    """The step after which an unexpected line of this turn is shown."""
    located: list[Located[Any]] = [*turn.actions, *turn.expectations]
    own = [one for one in located if not one.via]
    return (own or located)[-1]
