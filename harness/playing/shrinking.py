"""The shortest script that still does what a long one did: steps are taken away as long as it does.

What a script expects depends on all that it does, so each shorter one is first played where nothing is wrong, and its
expectations are what is heard there. Knows no schedules: whoever asks says what "still" means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.language.flattening import PlainTurn, actors, flat, script_of, without
from harness.language.parser import parse
from harness.language.plan import EXPECTATION_STEPS
from harness.language.problems import ScriptError
from harness.language.steps import Script
from harness.playing.pipeline import PlayOptions, play
from harness.playing.verdict import Outcome, Verdict
from harness.targets.target import Target
from harness.updating.rewriting import as_received

TRIES = 300
"""How many shorter scripts are tried at most."""


class Shrinker:
    """`calm` is the target with nothing wrong; `still` says whether a script that passes there does it still."""

    def __init__(
        self, baseline: Target, still: Callable[[Script], bool], play_options: PlayOptions, tries: int = TRIES
    ) -> None:
        self._baseline = baseline
        self._still = still
        self._play_options = play_options
        self._left = tries

    def shortest(self, script: Script, failed_turn: int) -> Script:
        """The shortest one found; at worst the script itself. Nothing after the turn that failed is needed."""
        best = self._try(flat(script)[:failed_turn], script) or script
        while True:
            before = best
            best = self._fewer_actions(self._fewer_clients(best))
            if best is before:
                return best

    def _fewer_clients(self, script: Script) -> Script:
        clients = {name: None for turn in flat(script) for doing in turn.actions for name in actors(doing)}
        for client in reversed(clients):
            script = self._try(without(flat(script), client), script) or script
        return script

    def _fewer_actions(self, script: Script) -> Script:
        """Delta debugging: half of what is done away, then quarters, down to each thing alone; the last ones first."""
        size = max(1, _count(flat(script)) // 2)
        while True:
            end = _count(flat(script))
            while end > 0:
                turns = flat(script)
                script = self._try(_cut(turns, max(0, end - size), end), script) or script
                end = min(end - size, _count(flat(script)))
            if size == 1:
                return script
            size //= 2

    def _try(self, turns: Sequence[PlainTurn], like: Script) -> Script | None:
        """The script of these turns if it does it still."""
        if not turns or self._left <= 0:
            return None
        self._left -= 1
        try:
            script = self._with_received(script_of(turns, like))
        except ScriptError:
            return None  # such as a line sent by someone whose end was taken away
        return script if script is not None and self._still(script) else None

    def _with_received(self, script: Script) -> Script | None:
        """The script expecting what is heard where nothing is wrong; None where even that cannot be said."""
        verdict = play(script, self._baseline, self._play_options, keep_going=True)
        if verdict.outcome is Outcome.PASSED:
            return script
        if verdict.outcome is not Outcome.FAILED:
            return None
        again = script_of(_in_received_order(flat(script), verdict), script)
        return again if play(again, self._baseline, self._play_options).passed else None


def _in_received_order(turns: Sequence[PlainTurn], verdict: Verdict) -> list[PlainTurn]:
    wrong = {failure.turn for failure in verdict.failures}
    out = []
    for turn, report in zip(turns, verdict.turns, strict=False):
        if report.number in wrong:
            text = "".join(f"{line}\n" for line in as_received(report, verdict.eol))
            received = tuple(step for step in parse(text).body if isinstance(step, EXPECTATION_STEPS))
            turn = replace(turn, expectations=received)
        out.append(turn)
    return out


def _count(turns: Sequence[PlainTurn]) -> int:
    return sum(len(turn.actions) for turn in turns)


def _cut(turns: Sequence[PlainTurn], start: int, end: int) -> tuple[PlainTurn, ...]:
    """The turns without the things done from `start` to `end`, counted over all of them."""
    out: list[PlainTurn] = []
    at = 0
    for turn in turns:
        kept = tuple(doing for number, doing in enumerate(turn.actions, at) if not start <= number < end)
        at += len(turn.actions)
        if kept:
            out.append(replace(turn, actions=kept))
    return tuple(out)
