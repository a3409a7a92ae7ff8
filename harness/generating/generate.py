"""Plays conversations drawn from a model, and shortens the first in which the server differs from it.

Each is decided by a seed alone. Knows no command line and no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from harness.generating.choices import FIRST, Choices, record, replay
from harness.generating.model import MakeModel
from harness.language.steps import Script
from harness.playing.pipeline import PlayOptions, play
from harness.playing.verdict import Outcome, Verdict
from harness.targets.target import Target

MOVES = 30
"""How many moves a conversation has."""
TRIES = 400
"""How many shorter ones are tried at most."""
_TITLE = "the server says what its model says"


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of many conversations."""

    conversations: int
    seed: int = 0
    """Of the one that differs, if one does."""
    diverged: Verdict | None = None
    """How the shortest one that still differs does so."""


def conversation(
    make_model: MakeModel, seed: int, moves: int = MOVES, file: str = "conversation.chat"
) -> Script:
    """The conversation of this seed; for those who want to play it in a way of their own."""
    return replay(make_model, record(make_model, Random(seed), moves), _TITLE, file)


def generate(
    make_model: MakeModel,
    target: Target,
    seeds: Iterable[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    *,
    moves: int = MOVES,
    file: str = "conversation.chat",
) -> Generated:
    """Play the conversation of each seed, up to the first in which server and model differ."""
    played = 0
    for played, seed in enumerate(seeds, 1):
        all_choices = record(make_model, Random(seed), moves)
        verdict = play(replay(make_model, all_choices, _TITLE, file), target, play_options)
        if verdict.outcome is not Outcome.PASSED:
            shortening = _Shortening(make_model, target, play_options, file, all_choices, verdict)
            if verdict.outcome is Outcome.FAILED:
                shortening.shorten()
            return Generated(played, seed, shortening.verdict)
    return Generated(played)


class _Shortening:
    """Takes moves away, then makes what was picked simpler, as long as server and model still differ."""

    def __init__(
        self,
        make_model: MakeModel,
        target: Target,
        play_options: PlayOptions,
        file: str,
        all_choices: list[Choices],
        verdict: Verdict,
    ) -> None:
        self._make_model = make_model
        self._target = target
        self._play_options = play_options
        self._file = file
        self._choices = all_choices
        self._left = TRIES
        self.verdict = verdict

    def shorten(self) -> None:
        """Until nothing more can go."""
        self._cut_the_end()
        while True:
            before = self._choices
            self._take_moves_away()
            self._pick_simpler()
            if self._choices == before:
                return

    def _try(self, all_choices: list[Choices]) -> bool:
        if not all_choices or all_choices == self._choices or self._left <= 0:
            return False
        self._left -= 1
        script = replay(self._make_model, all_choices, _TITLE, self._file)
        verdict = play(script, self._target, self._play_options)
        if verdict.outcome is not Outcome.FAILED:
            return False
        self._choices, self.verdict = all_choices, verdict
        return True

    def _cut_the_end(self) -> None:
        """What comes after the difference has no part in it, so the shortest beginning is found by halves."""
        low, high = 0, len(self._choices)
        while high - low > 1:
            middle = (low + high) // 2
            if self._try(self._choices[:middle]):
                high = middle
            else:
                low = middle

    def _take_moves_away(self) -> None:
        size = max(1, len(self._choices) // 2)
        while True:
            end = len(self._choices)
            while end > 0:
                self._try(self._choices[: max(0, end - size)] + self._choices[end:])
                end = min(end - size, len(self._choices))
            if size == 1:
                return
            size //= 2

    def _pick_simpler(self) -> None:
        for at in reversed(range(len(self._choices))):
            for pick in range(len(self._choices[at])):
                choices_made = self._choices[at]
                if choices_made[pick] is not FIRST:
                    simpler = (*choices_made[:pick], FIRST, *choices_made[pick + 1 :])
                    self._try([*self._choices[:at], simpler, *self._choices[at + 1 :]])
