"""Plain steps -> Plan: the turns that will be played, checked before anything is played. Pure.

- A turn is one or more actions, followed by everything that is then received.
- A client exists from its first connect or send; it is open, half-closed or gone.
- Nothing is received, sent or done on a connection that is gone, and no name is used before it is bound.
- No line that the script expects can be taken for an answer to the fence line because of a wildcard in that answer.

So a typo in a name (`alcie< OK`) is reported as an error of the script, not of the server.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.language.escapes import unescape
from harness.language.exhaustive import assert_never
from harness.language.expansion import Expansion, Located
from harness.language.fences import Fence
from harness.language.forms import write_line
from harness.language.patterns import ANONYMOUS, TOKEN, WILDCARD, Pattern, could_match, match
from harness.language.problems import ScriptError, ScriptProblem
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
    ExpectationStep,
    FenceAfter,
    InOneWay,
    InTime,
    Item,
    LinkChanges,
    LinkDelays,
    LinkSplits,
    NodeChanges,
    NodeFate,
    NodeStep,
    Or,
    Raises,
    Receive,
    ReceiveBody,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    ReceiveUntil,
    Receiving,
    Script,
    Send,
    SendBytes,
    Sending,
    SendPattern,
    Setting,
    Together,
    Unfenced,
    Wait,
    Way,
    client_names,
    names_in,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One or more actions, and what is then received."""

    number: int
    actions: tuple[Located[ActionStep], ...]
    expectations: tuple[Located[ExpectationStep], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A script that can be played: its turns, and its clients in the order in which they appear."""

    script: Script
    turns: tuple[Turn, ...]
    clients: tuple[str, ...]

    def first_fault(self) -> Located[ActionStep] | None:
        """The first step that needs a server in this process."""
        for turn in self.turns:
            for located in turn.actions:
                match located.step:
                    case CallFails() | CallTakes() | ClockJumps() | Acts(_, ConnectionAction.VANISHES):
                        return located
        return None

    def first_node_step(self) -> Located[ActionStep] | None:
        """The first step that needs a target of nodes."""
        found = (one for turn in self.turns for one in turn.actions if isinstance(one.step, NodeStep))
        return next(found, None)

    def first_raise(self) -> Located[ExpectationStep] | None:
        """The first step that expects an exception of the server's own code."""
        found = (one for turn in self.turns for one in turn.expectations if isinstance(one.step, Raises))
        return next(found, None)


def validate(expansion: Expansion) -> Plan:
    """Divide the steps into turns and check them; ScriptError where the script contradicts itself."""
    checker = _Checker()
    turns: list[Turn] = []
    actions: list[Any] = []
    expectations: list[Any] = []
    _check_ways(expansion.steps)
    for located in expansion.steps:
        if isinstance(located.step, ActionStep):
            if expectations:
                turns.append(Turn(len(turns) + 1, tuple(actions), tuple(expectations)))
                actions, expectations = [], []
                checker.next_turn()
            checker.action(located.step, located)
            actions.append(located)
        elif isinstance(located.step, ExpectationStep):
            checker.expectation(located.step, located)
            expectations.append(located)
        else:
            assert_never(located.step)
    if actions or expectations:
        turns.append(Turn(len(turns) + 1, tuple(actions), tuple(expectations)))
    plan = Plan(expansion.script, tuple(turns), tuple(checker.clients))
    _check_unfenced(plan)
    _check_fence_after(plan)
    _check_times(plan)
    _check_rules(plan)
    check_fence(plan, plan.script.setting(Fence))
    return plan


def _check_ways(steps: Sequence[Located[Any]]) -> None:
    """Require that each `or:` follows its `either:`, and that no `either:` stands alone."""
    for at, located in enumerate(steps):
        if isinstance(located.step, Or):
            before = steps[at - 1] if at else None
            if before is None or not isinstance(before.step, Way) or before.via != located.via:
                raise located.problem(
                    "an or: without an either: above it", "`either:` and its steps right above it"
                )
        elif isinstance(located.step, Either):
            after = steps[at + 1] if at + 1 < len(steps) else None
            if after is None or not isinstance(after.step, Or) or after.via != located.via:
                raise located.problem("an either: without another way", "or: below it")


def require_steps(plan: Plan) -> None:
    """Reject a script without steps, which would pass with any server."""
    if not plan.turns:
        source = plan.script.source
        line = len(source) or 1
        text = source[line - 1] if source else ""
        column = len(text) - len(text.lstrip(" ")) + 1
        raise ScriptError(
            ScriptProblem(plan.script.file, line, column, "nothing happens in this script", "steps", text)
        )


# --- the fence ----------------------------------------------------------------------------------------------


def check_fence(plan: Plan, fence: Fence | None) -> None:
    """Reject a fence whose answers could swallow a line that the script expects."""
    unfenced = plan.script.setting(Unfenced)
    exempt = names_in(unfenced.clients) if unfenced else ()
    for answer in fence.replies if fence else ():
        _check_taken_answer(plan, answer)
    swallowing = [answer for answer in fence.replies if _may_be_anything(answer)] if fence else []
    for located in (one for turn in plan.turns for one in turn.expectations if swallowing):
        for step, client in received_in(located.step):
            for answer in swallowing:
                if client not in exempt and looks_like(step, answer):
                    raise located.problem(
                        f"the fence answer `{answer}` would also match this line",
                        "an answer that no expected line can be: a literal one, or one with ${token}",
                        step=step,
                    )


def _check_taken_answer(plan: Plan, answer: str) -> None:
    """Refuse an answer that a rule takes: it would never come."""
    text = unescape(answer.replace(TOKEN, WILDCARD)).decode("utf-8", "surrogateescape")
    *lines, rest = text.split("\n")  # what follows a line end is a prompt
    for line in [one.removesuffix("\r") for one in lines] or [rest]:
        for rule, home in plan.script.rules():
            wild = WILDCARD in line
            if could_match(rule.pattern, line) if wild else match(rule.pattern, line, {}) is not None:
                raise header_problem(
                    home, rule, f"this would also take the fence answer `{answer}`", "a narrower pattern"
                )


def header_problem(
    home: Script, setting: Setting, message: str, expected: str, word: str = ""
) -> ScriptError:
    """An error about a line of this script's header, or about one word of it."""
    text = home.source[setting.line - 1] if 0 < setting.line <= len(home.source) else ""
    return ScriptError(
        ScriptProblem(home.file, setting.line, max(text.find(word), 0) + 1, message, expected, text)
    )


def received_in(step: ExpectationStep) -> Iterator[tuple[Receiving, str]]:
    """The receives of an expectation, each with its client."""
    match step:
        case Either(body) | Or(body) | InTime(_, body):
            yield from ((one, one.client) for one in body if isinstance(one, Receiving))
        case AnyOrder(body, same_for):
            for one in body:
                if isinstance(one, Receiving):
                    yield from ((one, client) for client in ((one.client,) if one.client else same_for))
        case Receive() | ReceiveBytes() | ReceivePattern() | ReceiveUntil() | ReceiveBody():
            yield step, step.client
        case ReceivesNothing() | Ends() | Raises():
            pass
        case _:
            assert_never(step)


def looks_like(step: Receiving, answer: str) -> bool:
    """Whether the line that is expected here could be this answer to a fence line. One with a token is never expected."""
    if TOKEN in answer:
        return False
    return could_match(_as_pattern(step), unescape(answer).decode("utf-8", "surrogateescape").rstrip("\r\n"))


def _may_be_anything(answer: str) -> bool:
    return WILDCARD in answer and TOKEN not in answer


def _check_fence_after(plan: Plan) -> None:
    """A beginning in this script's own `fence-after:` that no sent line has is misspelt."""
    script = plan.script
    after = next((item for item in script.header if isinstance(item, FenceAfter)), None)
    if after is None or not plan.turns:
        return
    sends = (send for turn in plan.turns for located in turn.actions for send in _sent_in(located.step))
    if not any(could_match(_as_pattern(send), after.beginning + WILDCARD) for send in sends):
        raise header_problem(
            script,
            after,
            f"no client sends a line that begins with {after.beginning!r}",
            "the beginning of a line that clients send first, such as LOGIN",
            after.beginning,
        )


def _sent_in(step: ActionStep) -> Iterator[Sending]:
    match step:
        case Together(body):
            yield from (one for one in body if isinstance(one, Sending))
        case Send() | SendBytes() | SendPattern():
            yield step
        case Connects() | ConnectsToPort() | Acts() | Wait() | CallFails() | CallTakes() | ClockJumps():
            pass
        case NodeChanges() | LinkChanges() | LinkDelays() | LinkSplits():
            pass
        case _:
            assert_never(step)


def _as_pattern(step: Sending | Receiving) -> Pattern:
    match step:
        case Send(_, text) | Receive(_, text):
            return Pattern((text,))
        case SendBytes(_, data) | ReceiveBytes(_, data):
            return Pattern((data.decode("utf-8", "surrogateescape").rstrip("\r\n"),))
        case SendPattern(_, pattern) | ReceivePattern(_, pattern) | ReceiveUntil(_, pattern):
            return pattern
        case ReceiveBody(_, _, content):
            return Pattern(((content or b"").decode("utf-8", "surrogateescape").rstrip("\r\n"),))


def _check_unfenced(plan: Plan) -> None:
    """A name in this script's own `unfenced:` that no client has is misspelt."""
    script = plan.script
    unfenced = next((item for item in script.header if isinstance(item, Unfenced)), None)
    if unfenced is None or not plan.clients:
        return
    for name in names_in(unfenced.clients):
        if name not in plan.clients:
            raise header_problem(script, unfenced, f"no client is called {name}", _one_of(plan.clients), name)


def _one_of(clients: Sequence[str]) -> str:
    return f"a client of this script: {', '.join(clients)}"


def _check_times(plan: Plan) -> None:
    """A time is measured from one action, after which the script can only wait."""
    for turn in plan.turns:
        more = [one for one in turn.actions[1:] if not isinstance(one.step, Wait)]
        for located in turn.expectations:
            if isinstance(located.step, InTime) and (more or not turn.actions):
                raise located.problem(
                    f"this turn has {len(more) + 1 if more else 'no'} actions to measure from",
                    "a single action, or a together:, and after it nothing but wait",
                )


def _check_rules(plan: Plan) -> None:
    """Reject rules of this script for clients that it does not have, and literal lines that a rule would take."""
    script = plan.script
    for rule, home in script.rules():
        names = None if rule.client is None else client_names(rule.client)
        for name in names or ():
            if home is script and plan.clients and name not in plan.clients:
                raise header_problem(script, rule, f"no client is called {name}", _one_of(plan.clients), name)
        for located in (one for turn in plan.turns for one in turn.expectations):
            for step, client in received_in(located.step):
                if (
                    isinstance(step, Receive)
                    and (names is None or client in names)
                    and match(rule.pattern, step.text, {}) is not None
                ):
                    raise located.problem(
                        f"`{write_line(rule)}` ({home.file}:{rule.line}) would take this line",
                        "a narrower pattern there, or no such line here",
                        step=step,
                    )


# --- the checks ---------------------------------------------------------------------------------------------

_LEAVING = {
    ConnectionAction.CLOSES: "closed",
    ConnectionAction.ABORTS: "aborted",
    ConnectionAction.VANISHES: "vanished",
}


_BEFORE = {
    NodeFate.KILLED: (NodeFate.STARTED, NodeFate.STOPPED),
    NodeFate.STOPPED: (NodeFate.STARTED,),
    NodeFate.CONTINUED: (NodeFate.STOPPED,),
    NodeFate.STARTED: (NodeFate.KILLED,),
}
"""The states that a node must be in for each event."""


_Place = tuple[str, int]
"""A file and a line of it."""


def _place(located: Located[Any], step: Item | None = None) -> _Place:
    return located.script.file, (step.line if step is not None else 0) or located.line


def _shown(place: _Place, located: Located[Any]) -> str:
    """A line as a message about this step names it."""
    file, line = place
    return f"line {line}" if file == located.script.file else f"line {line} of {file}"


class _Connection(enum.Enum):
    OPEN = enum.auto()
    HALF_CLOSED = enum.auto()
    UNCERTAIN = enum.auto()
    """Only some ways of a turn end it."""
    GONE = enum.auto()


@dataclass(frozen=True, slots=True)
class _State:
    connection: _Connection
    since: _Place
    why: str


@dataclass(frozen=True, slots=True)
class _Known:
    """The state of the checker after one way of a turn."""

    clients: dict[str, _State]
    bound: set[str]
    received: dict[str, _Place]
    silent: dict[str, _Place]

    def copy(self) -> _Known:
        return _Known(dict(self.clients), set(self.bound), dict(self.received), dict(self.silent))


class _Checker:
    """Follows the steps in order, and tracks connections, bound names and received lines."""

    def __init__(self) -> None:
        self.clients: dict[str, _State] = {}
        self._nodes: dict[str, NodeFate] = {}
        self._bound: set[str] = set()
        self._fresh: dict[str, str] = {}
        """The client that bound a name in this turn."""
        self._perhaps: dict[str, _Place] = {}
        """Names that only some ways of a turn bind, and the line that does."""
        self._ways: list[_Known] = []
        """The state after each way of the present `either:`."""
        self._received: dict[str, _Place] = {}
        self._silent: dict[str, _Place] = {}

    def next_turn(self) -> None:
        self._end_ways()
        self._received.clear()
        self._fresh.clear()
        self._silent.clear()

    def action(self, step: ActionStep, located: Located[Any]) -> None:
        self._end_ways()
        match step:
            case Connects(client) | ConnectsToPort(client):
                for name in sorted(getattr(step, "names", ())):
                    if name not in self._bound:
                        raise located.problem(
                            f"${{{name}}} is not bound yet",
                            f"a turn above with a line such as `a<~ … ${{{name}:int}}`",
                            len(client) + len(" connects to port "),
                        )
                state = self.clients.get(client)
                if state is not None and state.connection is _Connection.UNCERTAIN:
                    raise located.problem(
                        f"{client} {state.why} in {_shown(state.since, located)}, so it may still be connected",
                        f"`{client} closes` before it",
                    )
                if state is not None and state.connection is not _Connection.GONE:
                    raise located.problem(
                        f"{client} has been connected since {_shown(state.since, located)}",
                        "another client, or an end before this",
                    )
                self.clients[client] = _State(_Connection.OPEN, _place(located), "connected")
            case Together(body):
                for send in body:
                    if isinstance(send, Sending):
                        self._send(located, send)
            case Acts(client, action):
                self._require_connection(located, client, leaves=action is ConnectionAction.CLOSES)
                if action is ConnectionAction.HALF_CLOSES:
                    self.clients[client] = _State(_Connection.HALF_CLOSED, _place(located), "half-closed")
                elif action in _LEAVING:
                    self.clients[client] = _State(_Connection.GONE, _place(located), _LEAVING[action])
            case NodeChanges(node, fate):
                before = self._nodes.get(node, NodeFate.STARTED)
                if before not in _BEFORE[fate]:
                    known = " or ".join(f"`node {node} is {one.value}`" for one in _BEFORE[fate])
                    raise located.problem(f"node {node} is {before.value} here", f"{known} before it")
                self._nodes[node] = NodeFate.STARTED if fate is NodeFate.CONTINUED else fate
            case CallFails(_, client) | CallTakes(_, client):
                if client is not None:
                    self._require_connection(located, client)
            case Send() | SendBytes() | SendPattern():
                self._send(located, step)
            case Wait() | ClockJumps() | LinkChanges() | LinkDelays() | LinkSplits():
                pass
            case _:
                assert_never(step)

    def expectation(self, step: ExpectationStep, located: Located[Any]) -> None:
        if not isinstance(step, Or):
            self._end_ways()
        match step:
            case Either(body) | Or(body):
                before = self._known()
                self._set_known(before.copy())
                for one in body:
                    if isinstance(one, InOneWay):
                        self._expect_one(located, one)
                self._ways.append(self._known())
                self._set_known(before)
            case AnyOrder(body, same_for):
                for one in body:
                    if isinstance(one, Receiving):
                        for client in (one.client,) if one.client else same_for:
                            self._receive(located, one, client)
            case InTime(_, body):
                for one in body:
                    if isinstance(one, Receiving):
                        self._receive(located, one, one.client)
            case (
                Receive() | ReceiveBytes() | ReceivePattern() | ReceiveUntil() | ReceiveBody()
                | ReceivesNothing() | Ends()
            ):  # fmt: skip
                self._expect_one(located, step)
            case Raises():
                pass
            case _:
                assert_never(step)

    def _expect_one(self, located: Located[Any], step: InOneWay) -> None:
        """Check an expectation that stands alone or in one of several ways."""
        match step:
            case ReceivesNothing(client):
                self._require_presence(located, client, step)
                if client in self._received:
                    raise located.problem(
                        f"{client} receives something in {_shown(self._received[client], located)}",
                        "only one of the two",
                        step=step,
                    )
                self._silent[client] = _place(located, step)
            case Ends(client):
                self._require_presence(located, client, step)
                state = self.clients[client]
                if state.connection in (_Connection.GONE, _Connection.UNCERTAIN):
                    already = "already " if state.connection is _Connection.GONE else ""
                    raise located.problem(
                        f"{client} {already}{state.why} in {_shown(state.since, located)}",
                        "a single end",
                        step=step,
                    )
                self.clients[client] = _State(_Connection.GONE, _place(located, step), "lost the connection")
            case receive:
                self._receive(located, receive, receive.client)

    def _known(self) -> _Known:
        return _Known(self.clients, self._bound, self._received, self._silent)

    def _set_known(self, known: _Known) -> None:
        self.clients, self._bound = known.clients, known.bound
        self._received, self._silent = known.received, known.silent

    def _end_ways(self) -> None:
        """After the last way of an `either:` only what each of them binds is bound, and a connection that only some of them
        end can be open or not."""
        ways, self._ways = self._ways, []
        if ways:
            self._bound |= set.intersection(*(way.bound for way in ways))
        for way in ways:
            self._received |= way.received
            self._silent |= way.silent
        for client in self.clients if ways else ():
            states = [way.clients[client] for way in ways]
            gone = next((one for one in states if one.connection is _Connection.GONE), states[0])
            if gone.connection is _Connection.GONE and any(
                one.connection is not _Connection.GONE for one in states
            ):
                gone = _State(_Connection.UNCERTAIN, gone.since, "may have lost the connection")
            self.clients[client] = gone

    def _send(self, located: Located[Any], step: Sending) -> None:
        state = self.clients.get(step.client)
        if state is None:
            self.clients[step.client] = _State(_Connection.OPEN, _place(located), "connected")
        elif state.connection is not _Connection.OPEN:
            uncertain = state.connection is _Connection.UNCERTAIN
            raise located.problem(
                f"{step.client} {state.why} in {_shown(state.since, located)}, so this cannot be sent",
                f"`{step.client} closes`, then `{step.client} connects`, before it"
                if uncertain
                else f"`{step.client} connects` before it",
                step=step,
            )
        if isinstance(step, SendPattern):
            for capture in step.pattern.captures:
                if capture.name not in self._bound and capture.name in self._perhaps:
                    where = _shown(self._perhaps[capture.name], located)
                    raise located.problem(
                        f"${{{capture.name}}} is not bound where {where} is not received",
                        "a line that is always received",
                        len(step.client) + 3,
                        step,
                    )
                if capture.name not in self._bound:
                    raise located.problem(
                        f"${{{capture.name}}} is not bound yet",
                        f"a line above such as `{step.client}<~ … ${{{capture.name}}}`",
                        len(step.client) + 3,
                        step,
                    )

    def _receive(self, located: Located[Any], step: Receiving, client: str) -> None:
        self._require_presence(located, client, step)
        state = self.clients[client]
        if state.connection in (_Connection.GONE, _Connection.UNCERTAIN):
            raise located.problem(
                f"{client} {state.why} in {_shown(state.since, located)}",
                "receives before the end",
                step=step,
            )
        if client in self._silent:
            raise located.problem(
                f"{client} receives nothing according to {_shown(self._silent[client], located)}",
                "only one of the two",
                step=step,
            )
        self._received[client] = _place(located, step)
        if isinstance(step, ReceiveBody) and isinstance(step.size, str):
            self._check_size(located, step, step.size)
        if isinstance(step, (ReceivePattern, ReceiveUntil)):
            names = {one.name for one in step.pattern.captures if one.name != ANONYMOUS}
            self._perhaps.update(dict.fromkeys(names, self._received[client]))
            self._fresh |= dict.fromkeys(names - self._bound, client)
            if not getattr(step, "optional", False):
                self._bound |= names

    def _check_size(self, located: Located[Any], step: ReceiveBody, name: str) -> None:
        column, line = len(step.client) + len(" receives "), f"`{step.client}<~ … ${{{name}:int}}` above it"
        if name not in self._bound:
            raise located.problem(f"${{{name}}} is not bound yet", line, column, step)
        if self._fresh.get(name, step.client) != step.client:
            message = f"{self._fresh[name]} binds ${{{name}}} in this turn, in no order with what {step.client} receives"
            raise located.problem(message, line, column, step)

    def _require_connection(self, located: Located[Any], client: str, leaves: bool = False) -> None:
        state = self.clients.get(client)
        uncertain = state is not None and state.connection is _Connection.UNCERTAIN
        if state is None or state.connection is _Connection.GONE or (uncertain and not leaves):
            why = f"{state.why} in {_shown(state.since, located)}" if state else "has not connected yet"
            before = f"`{client} closes`, then `{client} connects`," if uncertain else f"`{client} connects`"
            raise located.problem(f"{client} {why}", f"{before} before it")

    def _require_presence(self, located: Located[Any], client: str, step: Item | None = None) -> None:
        if client not in self.clients:
            known = ", ".join(self.clients) or "none so far"
            raise located.problem(
                f"{client} has not connected yet", f"a connected client: {known}", step=step
            )
