"""A model as a state machine of hypothesis, for test suites that live with its database, its settings and its statistics.

Measured, a command of its own does better with plain seeds: a failure of thirty moves was short after 60 plays instead
of 960, it replays under any version of hypothesis, and nobody has to install it. So hypothesis is asked for only here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from harness.generating.choices import script_of
from harness.generating.model import MakeModel, Option
from harness.language.steps import Step
from harness.playing.pipeline import PlayOptions, play
from harness.reporting.report import report
from harness.reporting.styled_text import plain
from harness.targets.choice import UsageError
from harness.targets.target import Target


class Diverged(AssertionError):
    """The server does not say what the model says."""


def machine_of(make_model: MakeModel, target: Target, play_options: PlayOptions = PlayOptions()) -> Any:  # noqa: B008  # frozen
    """A RuleBasedStateMachine whose one rule is a move of the model; its TestCase is a test."""
    try:
        from hypothesis import stateful, strategies
    except ImportError as missing:
        raise UsageError("a state machine needs hypothesis: pip install hypothesis") from missing

    class Conversation(stateful.RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()
            self.steps: list[Step] = []

        @stateful.rule(data=strategies.data())
        def move(self, data: strategies.DataObject) -> None:
            def pick(options: Sequence[Option], /) -> Option:
                return data.draw(strategies.sampled_from(options))

            self.steps.extend(self.model.move(pick))

        def teardown(self) -> None:
            # Not where hypothesis itself has stopped the conversation in the middle of a move.
            if sys.exc_info()[0] is None and self.steps:
                script = script_of(self.model, self.steps, "a conversation", "conversation.chat")
                verdict = play(script, target, play_options)
                if not verdict.passed:
                    raise Diverged("\n" + plain(report(verdict)))

    return Conversation
