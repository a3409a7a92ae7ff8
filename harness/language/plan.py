"""Script -> Plan: definitions and repeats unfolded, turns cut, contradictions told before anything is played.

Pure: knows no targets and no sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.language.complaint import complain
from harness.language.foresight import Foresight
from harness.language.steps import (
    FAULTS,
    SENDING,
    AnyOrder,
    CallFails,
    CallTakes,
    ClockJumps,
    Connects,
    Deed,
    Does,
    Doing,
    Ends,
    Expecting,
    Receive,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    Script,
    Together,
    Wait,
)
from harness.language.unfolding import Placed, unfold

DOING = (Connects, *SENDING, Does, Wait, Together, *FAULTS)
EXPECTING = (Receive, ReceiveBytes, ReceivePattern, ReceivesNothing, Ends, AnyOrder)

PlacedDoing = Placed[Doing]
PlacedExpecting = Placed[Expecting]


@dataclass(frozen=True, slots=True)
class Turn:
    """One or more things done, followed by what is then received."""

    number: int
    doings: tuple[PlacedDoing, ...]
    expects: tuple[PlacedExpecting, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    script: Script
    turns: tuple[Turn, ...]
    clients: tuple[str, ...]

    def fault(self) -> PlacedDoing | None:
        """The first step that only a server in this process can be made to suffer."""
        for turn in self.turns:
            for placed in turn.doings:
                match placed.step:
                    case CallFails() | CallTakes() | ClockJumps() | Does(_, Deed.VANISHES):
                        return placed
        return None


def plan(script: Script) -> Plan:
    """The turns that will be played; ScriptError when the script cannot be meant as it stands."""
    foresight = Foresight()
    turns: list[Turn] = []
    doings: list[PlacedDoing] = []
    expects: list[PlacedExpecting] = []
    for placed in unfold(script):
        step = placed.step
        if isinstance(step, DOING):
            if expects:
                turns.append(Turn(len(turns) + 1, tuple(doings), tuple(expects)))
                doings, expects = [], []
                foresight.next_turn()
            foresight.does(placed)
            doings.append(placed)  # type: ignore[arg-type]
        elif isinstance(step, EXPECTING):
            foresight.expects(placed)
            expects.append(placed)  # type: ignore[arg-type]
    if doings or expects:
        turns.append(Turn(len(turns) + 1, tuple(doings), tuple(expects)))
    return Plan(script, tuple(turns), tuple(foresight.clients))


def require_steps(made: Plan) -> None:
    """A script that does nothing would pass whatever the server does."""
    if not made.turns:
        raise complain(
            made.script, len(made.script.source) or 1, 0, "nothing happens in this script", "steps"
        )
