"""A conversation as the choices that made it, so that it can be made again without some of them. Plays nothing.

The tape of one move holds what was picked in it, in order. Made again in another state of the model, a pick that is no
longer possible becomes the first that is: whatever is taken away from a conversation, what is left is one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from harness.generating.model import MakeModel, Model, Option
from harness.language.forms import header_line
from harness.language.renderer import render
from harness.language.script import parse
from harness.language.steps import Script, Step, Title

Choices = tuple[Any, ...]
FIRST: Any = object()
"""On a tape: the first of whatever there is to pick from, which is the simplest."""


class _Recorder:
    def __init__(self, random: Random) -> None:
        self._random = random
        self.choices_made: list[Any] = []

    def __call__(self, options: Sequence[Option], /) -> Option:
        picked = self._random.choice(options)
        self.choices_made.append(picked)
        return picked


class _Player:
    def __init__(self, choices_made: Choices) -> None:
        self._left = list(reversed(choices_made))

    def __call__(self, options: Sequence[Option], /) -> Option:
        wanted = self._left.pop() if self._left else FIRST
        return wanted if wanted is not FIRST and wanted in options else options[0]


def record(make_model: MakeModel, random: Random, moves: int) -> list[Choices]:
    """The choices of a new conversation."""
    model, all_choices = make_model(), []
    for _ in range(moves):
        recorder = _Recorder(random)
        steps = list(model.move(recorder))
        if not steps and not recorder.choices_made:
            break
        all_choices.append(tuple(recorder.choices_made))
    return all_choices


def replay(make_model: MakeModel, all_choices: Sequence[Choices], title: str, file: str) -> Script:
    """The conversation that these choices make."""
    model = make_model()
    steps = [step for choices_made in all_choices for step in model.move(_Player(choices_made))]
    return script_of(model, steps, title, file)


def script_of(model: Model, steps: Sequence[Step], title: str, file: str) -> Script:
    """The steps as a script of this model's."""
    header = (Title(title), *(header_line(f"{key}: {value}", 0) for key, value in model.header.items()))
    # Through its text, so that its steps have the lines that a report tells.
    return parse(render(Script(header, tuple(steps))), file)
