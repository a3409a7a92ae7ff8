"""What one turn of a script says is received, sorted by client. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.language.plan import Turn
from harness.language.steps import RECEIVING, AnyOrder, Ends, ReceivesNothing
from harness.language.unfolding import Placed
from harness.playing.hearing import Awaited


@dataclass(slots=True)
class Expected:
    """What one turn says is received."""

    awaited: dict[str, list[Awaited]] = field(default_factory=dict)
    in_order: list[tuple[str, Awaited]] = field(default_factory=list)
    """The same for all clients together, in the order of the script."""
    agree: dict[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    """The groups whose order all their clients must share: each one's line and clients."""
    silences: dict[str, int] = field(default_factory=dict)
    ends: dict[str, tuple[Ends, int]] = field(default_factory=dict)

    def add(self, client: str, item: Awaited) -> None:
        self.awaited.setdefault(client, []).append(item)
        self.in_order.append((client, item))


def expected(turn: Turn) -> Expected:
    """What this turn awaits of whom."""
    out = Expected()
    for group, placed in enumerate(turn.expects):
        file = placed.script.file
        match placed.step:
            case AnyOrder(body, same_for):
                for one in body:
                    if isinstance(one, RECEIVING):
                        for client in (one.client,) if one.client else same_for:
                            item = Awaited(one, file, one.line or placed.line, group)
                            out.add(client, item)
                if same_for:
                    out.agree[group] = placed.line, same_for
            case ReceivesNothing(client):
                out.silences[client] = placed.line
            case Ends(client):
                out.ends[client] = (placed.step, placed.line)
            case step:
                out.add(step.client, Awaited(step, file, placed.line))
    return out


def last_step(turn: Turn) -> Placed[Any]:
    """The step after which a line would stand that this turn has caused and the script does not say."""
    placed = [*turn.doings, *turn.expects]
    own = [one for one in placed if not one.via]
    return (own or placed)[-1]
