"""What can be known about a script before it is played: who is there, what is bound, what contradicts itself.

A slip in a name (`alcie< OK`) or a send on a closed connection is the script's fault; no server is blamed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from harness.language.complaint import complain
from harness.language.errors import ScriptError
from harness.language.matching import ANONYMOUS
from harness.language.steps import (
    RECEIVING,
    SENDING,
    AnyOrder,
    CallFails,
    CallTakes,
    Connects,
    Deed,
    Does,
    Ends,
    ReceivePattern,
    ReceivesNothing,
    SendPattern,
    Together,
)
from harness.language.unfolding import Placed

_LEAVING = {Deed.CLOSES: "closed", Deed.ABORTS: "aborted", Deed.VANISHES: "vanished"}


class _Line(enum.Enum):
    OPEN = enum.auto()
    HALF = enum.auto()
    GONE = enum.auto()


@dataclass(frozen=True, slots=True)
class _State:
    line: _Line
    since: int
    why: str


class Foresight:
    """Walks through a script's plain steps in order; raises ScriptError where the script is wrong."""

    def __init__(self) -> None:
        self.clients: dict[str, _State] = {}
        self.bound: set[str] = set()
        self.heard: dict[str, int] = {}
        self.silent: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    def next_turn(self) -> None:
        for said in (self.heard, self.silent, self.ended):
            said.clear()

    def does(self, placed: Placed[Any]) -> None:
        match placed.step:
            case Connects(client):
                state = self.clients.get(client)
                if state is not None and state.line is not _Line.GONE:
                    raise self._complain(
                        placed,
                        f"{client} is connected since line {state.since}",
                        "another client, or an end before this",
                    )
                self.clients[client] = _State(_Line.OPEN, placed.line, "connected")
            case Together(body):
                for send in body:
                    if isinstance(send, SENDING):
                        self._sends(placed, send)
            case Does(client, deed):
                self._deed(placed, client, deed)
            case CallFails(_, str(client)) | CallTakes(_, client):
                self._suffers(placed, client)
            case step if isinstance(step, SENDING):
                self._sends(placed, step)

    def expects(self, placed: Placed[Any]) -> None:
        match placed.step:
            case AnyOrder(body, same_for):
                for one in body:
                    if isinstance(one, RECEIVING):
                        for client in (one.client,) if one.client else same_for:
                            self._receives(placed, one, client)
            case ReceivesNothing(client):
                self._needs_presence(placed, client)
                if client in self.heard:
                    raise self._complain(
                        placed, f"{client} receives something in line {self.heard[client]}", "one of both"
                    )
                self.silent[client] = placed.line
            case Ends(client):
                self._ends(placed, client)
            case step if isinstance(step, RECEIVING):
                self._receives(placed, step, step.client)

    def _sends(self, placed: Placed[Any], step: Any) -> None:
        state = self.clients.get(step.client)
        if state is None:
            self.clients[step.client] = _State(_Line.OPEN, placed.line, "connected")
        elif state.line is not _Line.OPEN:
            raise self._complain(
                placed, f"{step.client} {state.why} in line {state.since}, so this cannot be sent",
                f"`{step.client} connects` before it", step,
            )  # fmt: skip
        if isinstance(step, SendPattern):
            for capture in step.pattern.captures:
                if capture.name not in self.bound:
                    column = len(step.client) + 3
                    raise self._complain(
                        placed, f"nothing has bound ${{{capture.name}}} yet",
                        f"a line above such as `{step.client}<~ … ${{{capture.name}}}`", step, column,
                    )  # fmt: skip

    def _suffers(self, placed: Placed[Any], client: str) -> None:
        state = self.clients.get(client)
        if state is None or state.line is _Line.GONE:
            why = f"{state.why} in line {state.since}" if state else "has not connected yet"
            raise self._complain(placed, f"{client} {why}", f"`{client} connects` before it")

    def _deed(self, placed: Placed[Any], client: str, deed: Deed) -> None:
        state = self.clients.get(client)
        if state is None or state.line is _Line.GONE:
            why = f"{state.why} in line {state.since}" if state else "has not connected yet"
            raise self._complain(placed, f"{client} {why}", f"`{client} connects` before it")
        if deed is Deed.HALF_CLOSES:
            self.clients[client] = _State(_Line.HALF, placed.line, "half-closed")
        elif deed in _LEAVING:
            why = _LEAVING[deed]
            self.clients[client] = _State(_Line.GONE, placed.line, why)

    def _ends(self, placed: Placed[Any], client: str) -> None:
        self._needs_presence(placed, client)
        state = self.clients[client]
        if state.line is _Line.GONE:
            raise self._complain(placed, f"{client} {state.why} in line {state.since} already", "an end once")
        self.clients[client] = _State(_Line.GONE, placed.line, "lost the connection")
        self.ended[client] = placed.line

    def _receives(self, placed: Placed[Any], step: Any, client: str) -> None:
        self._needs_presence(placed, client, step)
        state = self.clients[client]
        if state.line is _Line.GONE:
            raise self._complain(
                placed, f"{client} {state.why} in line {state.since}", "receives before the end", step
            )
        if client in self.silent:
            raise self._complain(
                placed, f"{client} receives nothing, says line {self.silent[client]}", "one of both", step
            )
        self.heard[client] = step.line or placed.line
        if isinstance(step, ReceivePattern):
            self.bound.update(one.name for one in step.pattern.captures if one.name != ANONYMOUS)

    def _needs_presence(self, placed: Placed[Any], client: str, step: Any = None) -> None:
        if client not in self.clients:
            known = ", ".join(self.clients) or "nobody yet"
            raise self._complain(
                placed, f"{client} has not connected yet", f"a client that is there: {known}", step
            )

    def _complain(
        self, placed: Placed[Any], message: str, expected: str, step: Any = None, column: int = 0
    ) -> ScriptError:
        step = step if step is not None else placed.step
        return complain(placed.script, step.line or placed.line, column, message, expected, step)
