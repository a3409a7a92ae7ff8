"""Draws conversations from a model, plays them, and shrinks the first in which the server differs from the model.

Hypothesis does the drawing and the shrinking; it is asked for only here, since nobody needs it who does not test. Knows
no command line and no files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from harness.asking import Target
from harness.choosing import NoTarget
from harness.generating.model import MakeModel, Model, Option
from harness.player import Manner, play
from harness.rendering import render
from harness.script import parse
from harness.settings import header_line
from harness.steps import Script, Step, Title
from harness.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from hypothesis.strategies import DataObject

MOVES = 30
"""How many moves a conversation has at most."""


class Diverged(AssertionError):
    """The server does not say what the model says."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.failures[0].fault.value if verdict.failures else verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of many conversations; the shortest one that differs, if any does."""

    conversations: int
    diverged: Verdict | None = None


def generate(
    make_model: MakeModel,
    target: Target,
    runs: int,
    seed: int,
    manner: Manner = Manner(),  # noqa: B008  # frozen
    *,
    moves: int = MOVES,
    file: str = "conversation.chat",
) -> Generated:
    """Play so many conversations, decided by the seed, up to the first that differs."""
    hypothesis, stateful = _hypothesis()
    played = 0

    class Conversation(stateful.RuleBasedStateMachine):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()
            self.steps: list[Step] = []

        @stateful.rule(data=hypothesis.strategies.data())  # type: ignore[untyped-decorator]
        def move(self, data: DataObject) -> None:
            self.steps.extend(self.model.move(_Drawing(data)))

        def teardown(self) -> None:
            nonlocal played
            if sys.exc_info()[0] is None and self.steps:
                played += 1
                script = _script(self.model, self.steps, "the server says what its model says", file)
                _require_agreement(script, target, manner)

    settings = hypothesis.settings(
        max_examples=runs,
        stateful_step_count=moves,
        deadline=None,
        database=None,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        report_multiple_bugs=False,
    )
    factory = hypothesis.seed(seed)(Conversation)
    try:
        stateful.run_state_machine_as_test(factory, settings=settings)
    except Diverged as diverged:
        return Generated(played, diverged.verdict)
    return Generated(played)


def conversation(make_model: MakeModel, seed: int, moves: int = MOVES) -> Script:
    """One conversation, decided by the seed alone; for those who want to play it in a way of their own."""
    random, model = Random(seed), make_model()
    steps: list[Step] = []
    for _ in range(moves):
        steps.extend(model.move(random.choice))
    return _script(model, steps, f"a conversation of the model, seed {seed}", "conversation.chat")


def _require_agreement(script: Script, target: Target, manner: Manner) -> None:
    verdict = play(script, target, manner)
    if verdict.outcome is not Outcome.PASSED:
        raise Diverged(verdict)


def _script(model: Model, steps: Sequence[Step], title: str, file: str) -> Script:
    header = (Title(title), *(header_line(f"{key}: {value}", 0) for key, value in model.header.items()))
    # Through its text, so that its steps have the lines that a report tells.
    return parse(render(Script(header, tuple(steps))), file)


class _Drawing:
    """Picks by way of hypothesis, which can then pick something simpler."""

    def __init__(self, data: DataObject) -> None:
        self._data = data

    def __call__(self, options: Sequence[Option], /) -> Option:
        from hypothesis import strategies

        return self._data.draw(strategies.sampled_from(options))


def _hypothesis() -> tuple[Any, Any]:
    try:
        import hypothesis
        from hypothesis import stateful
    except ImportError as missing:
        raise NoTarget("to generate conversations install hypothesis: pip install hypothesis") from missing
    return hypothesis, stateful
