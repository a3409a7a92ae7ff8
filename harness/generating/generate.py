"""Plays conversations drawn from a model, and shortens the first in which the server differs from it.

Each is decided by a seed alone. Knows no command line and no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from harness.generating.drawing import FIRST, Tape, record, retold
from harness.generating.model import MakeModel
from harness.language.steps import Script
from harness.playing.player import Manner, play
from harness.playing.verdict import Outcome, Verdict
from harness.targets.asking import Target

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
    return retold(make_model, record(make_model, Random(seed), moves), _TITLE, file)


def generate(
    make_model: MakeModel,
    target: Target,
    seeds: Iterable[int],
    manner: Manner = Manner(),  # noqa: B008  # frozen
    *,
    moves: int = MOVES,
    file: str = "conversation.chat",
) -> Generated:
    """Play the conversation of each seed, up to the first in which server and model differ."""
    played = 0
    for played, seed in enumerate(seeds, 1):
        tapes = record(make_model, Random(seed), moves)
        verdict = play(retold(make_model, tapes, _TITLE, file), target, manner)
        if verdict.outcome is not Outcome.PASSED:
            shortening = _Shortening(make_model, target, manner, file, tapes, verdict)
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
        manner: Manner,
        file: str,
        tapes: list[Tape],
        verdict: Verdict,
    ) -> None:
        self._make_model = make_model
        self._target = target
        self._manner = manner
        self._file = file
        self._tapes = tapes
        self._left = TRIES
        self.verdict = verdict

    def shorten(self) -> None:
        """Until nothing more can go."""
        self._cut_the_end()
        while True:
            before = self._tapes
            self._take_moves_away()
            self._pick_simpler()
            if self._tapes == before:
                return

    def _try(self, tapes: list[Tape]) -> bool:
        if not tapes or tapes == self._tapes or self._left <= 0:
            return False
        self._left -= 1
        script = retold(self._make_model, tapes, _TITLE, self._file)
        verdict = play(script, self._target, self._manner)
        if verdict.outcome is not Outcome.FAILED:
            return False
        self._tapes, self.verdict = tapes, verdict
        return True

    def _cut_the_end(self) -> None:
        """What comes after the difference has no part in it, so the shortest beginning is found by halves."""
        low, high = 0, len(self._tapes)
        while high - low > 1:
            middle = (low + high) // 2
            if self._try(self._tapes[:middle]):
                high = middle
            else:
                low = middle

    def _take_moves_away(self) -> None:
        size = max(1, len(self._tapes) // 2)
        while True:
            end = len(self._tapes)
            while end > 0:
                self._try(self._tapes[: max(0, end - size)] + self._tapes[end:])
                end = min(end - size, len(self._tapes))
            if size == 1:
                return
            size //= 2

    def _pick_simpler(self) -> None:
        for at in reversed(range(len(self._tapes))):
            for pick in range(len(self._tapes[at])):
                tape = self._tapes[at]
                if tape[pick] is not FIRST:
                    simpler = (*tape[:pick], FIRST, *tape[pick + 1 :])
                    self._try([*self._tapes[:at], simpler, *self._tapes[at + 1 :]])
