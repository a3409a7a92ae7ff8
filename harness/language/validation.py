"""What can be known about a script before it is played: who is there, what is bound, what contradicts itself.

A slip in a name (`alcie< OK`) or a send on a closed connection is the script's fault; no server is blamed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from harness.language.expansion import Located
from harness.language.located_problem import script_error
from harness.language.patterns import ANONYMOUS
from harness.language.problems import ScriptError
from harness.language.steps import (
    RECEIVING,
    SENDING,
    Acts,
    AnyOrder,
    CallFails,
    CallTakes,
    ConnectionAction,
    Connects,
    Ends,
    ReceivePattern,
    ReceivesNothing,
    SendPattern,
    Together,
)

_LEAVING = {
    ConnectionAction.CLOSES: "closed",
    ConnectionAction.ABORTS: "aborted",
    ConnectionAction.VANISHES: "vanished",
}


class _Line(enum.Enum):
    OPEN = enum.auto()
    HALF = enum.auto()
    GONE = enum.auto()


@dataclass(frozen=True, slots=True)
class _State:
    line: _Line
    since: int
    why: str


class Validator:
    """Walks through a script's plain steps in order; raises ScriptError where the script is wrong."""

    def __init__(self) -> None:
        self.clients: dict[str, _State] = {}
        self.bound: set[str] = set()
        self.received: dict[str, int] = {}
        self.silent: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    def next_turn(self) -> None:
        for message in (self.received, self.silent, self.ended):
            message.clear()

    def does(self, located: Located[Any]) -> None:
        match located.step:
            case Connects(client):
                state = self.clients.get(client)
                if state is not None and state.line is not _Line.GONE:
                    raise self._error_at(
                        located,
                        f"{client} is connected since line {state.since}",
                        "another client, or an end before this",
                    )
                self.clients[client] = _State(_Line.OPEN, located.line, "connected")
            case Together(body):
                for send in body:
                    if isinstance(send, SENDING):
                        self._sends(located, send)
            case Acts(client, action):
                self._act(located, client, action)
            case CallFails(_, str(client)) | CallTakes(_, client):
                self._validate_fault(located, client)
            case step if isinstance(step, SENDING):
                self._sends(located, step)

    def expectations(self, located: Located[Any]) -> None:
        match located.step:
            case AnyOrder(body, same_for):
                for one in body:
                    if isinstance(one, RECEIVING):
                        for client in (one.client,) if one.client else same_for:
                            self._receives(located, one, client)
            case ReceivesNothing(client):
                self._needs_presence(located, client)
                if client in self.received:
                    raise self._error_at(
                        located, f"{client} receives something in line {self.received[client]}", "one of both"
                    )
                self.silent[client] = located.line
            case Ends(client):
                self._ends(located, client)
            case step if isinstance(step, RECEIVING):
                self._receives(located, step, step.client)

    def _sends(self, located: Located[Any], step: Any) -> None:
        state = self.clients.get(step.client)
        if state is None:
            self.clients[step.client] = _State(_Line.OPEN, located.line, "connected")
        elif state.line is not _Line.OPEN:
            raise self._error_at(
                located, f"{step.client} {state.why} in line {state.since}, so this cannot be sent",
                f"`{step.client} connects` before it", step,
            )  # fmt: skip
        if isinstance(step, SendPattern):
            for capture in step.pattern.captures:
                if capture.name not in self.bound:
                    column = len(step.client) + 3
                    raise self._error_at(
                        located, f"nothing has bound ${{{capture.name}}} yet",
                        f"a line above such as `{step.client}<~ … ${{{capture.name}}}`", step, column,
                    )  # fmt: skip

    def _validate_fault(self, located: Located[Any], client: str) -> None:
        state = self.clients.get(client)
        if state is None or state.line is _Line.GONE:
            why = f"{state.why} in line {state.since}" if state else "has not connected yet"
            raise self._error_at(located, f"{client} {why}", f"`{client} connects` before it")

    def _act(self, located: Located[Any], client: str, action: ConnectionAction) -> None:
        state = self.clients.get(client)
        if state is None or state.line is _Line.GONE:
            why = f"{state.why} in line {state.since}" if state else "has not connected yet"
            raise self._error_at(located, f"{client} {why}", f"`{client} connects` before it")
        if action is ConnectionAction.HALF_CLOSES:
            self.clients[client] = _State(_Line.HALF, located.line, "half-closed")
        elif action in _LEAVING:
            why = _LEAVING[action]
            self.clients[client] = _State(_Line.GONE, located.line, why)

    def _ends(self, located: Located[Any], client: str) -> None:
        self._needs_presence(located, client)
        state = self.clients[client]
        if state.line is _Line.GONE:
            raise self._error_at(
                located, f"{client} {state.why} in line {state.since} already", "an end once"
            )
        self.clients[client] = _State(_Line.GONE, located.line, "lost the connection")
        self.ended[client] = located.line

    def _receives(self, located: Located[Any], step: Any, client: str) -> None:
        self._needs_presence(located, client, step)
        state = self.clients[client]
        if state.line is _Line.GONE:
            raise self._error_at(
                located, f"{client} {state.why} in line {state.since}", "receives before the end", step
            )
        if client in self.silent:
            raise self._error_at(
                located, f"{client} receives nothing, says line {self.silent[client]}", "one of both", step
            )
        self.received[client] = step.line or located.line
        if isinstance(step, ReceivePattern):
            self.bound.update(one.name for one in step.pattern.captures if one.name != ANONYMOUS)

    def _needs_presence(self, located: Located[Any], client: str, step: Any = None) -> None:
        if client not in self.clients:
            known = ", ".join(self.clients) or "nobody yet"
            raise self._error_at(
                located, f"{client} has not connected yet", f"a client that is there: {known}", step
            )

    def _error_at(
        self, located: Located[Any], message: str, expected: str, step: Any = None, column: int = 0
    ) -> ScriptError:
        step = step if step is not None else located.step
        return script_error(located.script, step.line or located.line, column, message, expected, step)
