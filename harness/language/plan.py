"""Script -> Plan: definitions and repeats expanded, turns cut, contradictions told before anything is played.

Pure: knows no targets and no sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.language.expansion import Located, expand
from harness.language.located_problem import script_error
from harness.language.steps import (
    FAULTS,
    SENDING,
    ActionStep,
    Acts,
    AnyOrder,
    CallFails,
    CallTakes,
    ClockJumps,
    ConnectionAction,
    Connects,
    Ends,
    ExpectationStep,
    Receive,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    Script,
    Together,
    Wait,
)
from harness.language.validation import Validator

ACTION_STEPS = (Connects, *SENDING, Acts, Wait, Together, *FAULTS)
EXPECTATION_STEPS = (Receive, ReceiveBytes, ReceivePattern, ReceivesNothing, Ends, AnyOrder)

LocatedAction = Located[ActionStep]
LocatedExpectation = Located[ExpectationStep]


@dataclass(frozen=True, slots=True)
class Turn:
    """One or more things done, followed by what is then received."""

    number: int
    actions: tuple[LocatedAction, ...]
    expectations: tuple[LocatedExpectation, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    script: Script
    turns: tuple[Turn, ...]
    clients: tuple[str, ...]

    def fault(self) -> LocatedAction | None:
        """The first step that only a server in this process can be made to suffer."""
        for turn in self.turns:
            for located in turn.actions:
                match located.step:
                    case CallFails() | CallTakes() | ClockJumps() | Acts(_, ConnectionAction.VANISHES):
                        return located
        return None


def plan(script: Script) -> Plan:
    """The turns that will be played; ScriptError when the script cannot be meant as it stands."""
    validator = Validator()
    turns: list[Turn] = []
    actions: list[LocatedAction] = []
    expectations: list[LocatedExpectation] = []
    for located in expand(script):
        step = located.step
        if isinstance(step, ACTION_STEPS):
            if expectations:
                turns.append(Turn(len(turns) + 1, tuple(actions), tuple(expectations)))
                actions, expectations = [], []
                validator.next_turn()
            validator.does(located)
            actions.append(located)  # type: ignore[arg-type]
        elif isinstance(step, EXPECTATION_STEPS):
            validator.expectations(located)
            expectations.append(located)  # type: ignore[arg-type]
    if actions or expectations:
        turns.append(Turn(len(turns) + 1, tuple(actions), tuple(expectations)))
    return Plan(script, tuple(turns), tuple(validator.clients))


def require_steps(made: Plan) -> None:
    """A script that does nothing would pass whatever the server does."""
    if not made.turns:
        raise script_error(
            made.script, len(made.script.source) or 1, 0, "nothing happens in this script", "steps"
        )
