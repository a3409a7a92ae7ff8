"""What one turn of a script says is received, sorted by client. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.language.expansion import Located
from harness.language.plan import Turn
from harness.language.steps import RECEIVING, AnyOrder, Ends, ReceivesNothing
from harness.playing.comparison import Expectation


@dataclass(slots=True)
class TurnExpectations:
    """What one turn says is received."""

    expected: dict[str, list[Expectation]] = field(default_factory=dict)
    in_order: list[tuple[str, Expectation]] = field(default_factory=list)
    """The same for all clients together, in the order of the script."""
    agree: dict[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    """The groups whose order all their clients must share: each one's line and clients."""
    silences: dict[str, int] = field(default_factory=dict)
    ends: dict[str, tuple[Ends, int]] = field(default_factory=dict)

    def add(self, client: str, item: Expectation) -> None:
        self.expected.setdefault(client, []).append(item)
        self.in_order.append((client, item))


def expected(turn: Turn) -> TurnExpectations:
    """What this turn awaits of whom."""
    out = TurnExpectations()
    for group, located in enumerate(turn.expectations):
        file = located.script.file
        match located.step:
            case AnyOrder(body, same_for):
                for one in body:
                    if isinstance(one, RECEIVING):
                        for client in (one.client,) if one.client else same_for:
                            item = Expectation(one, file, one.line or located.line, group)
                            out.add(client, item)
                if same_for:
                    out.agree[group] = located.line, same_for
            case ReceivesNothing(client):
                out.silences[client] = located.line
            case Ends(client):
                out.ends[client] = (located.step, located.line)
            case step:
                out.add(step.client, Expectation(step, file, located.line))
    return out


def last_step(turn: Turn) -> Located[Any]:
    """The step after which a line would stand that this turn has caused and the script does not say."""
    located = [*turn.actions, *turn.expectations]
    own = [one for one in located if not one.via]
    return (own or located)[-1]
