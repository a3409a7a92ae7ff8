"""How far a run has come: a line that overwrites itself on a terminal, and the summary at the end."""

from __future__ import annotations

from collections import Counter
from typing import TextIO

from harness.playing.verdict import Outcome, Verdict
from harness.stage.fence import Grade

_WORDS = {
    Outcome.FAILED: ("failed", "failed"),
    Outcome.SCRIPT_WRONG: ("script wrong", "scripts wrong"),
    Outcome.TARGET_BROKEN: ("target broken", "targets broken"),
    Outcome.PASSED: ("passed", "passed"),
    Outcome.SKIPPED: ("skipped", "skipped"),
}


class Progress:
    def __init__(self, total: int, out: TextIO) -> None:
        self._total = total
        self._out = out if out.isatty() else None
        self._outcomes: Counter[Outcome] = Counter()
        self._grades: Counter[Grade] = Counter()

    def after(self, verdict: Verdict) -> None:
        """One more script is through."""
        self._outcomes[verdict.outcome] += 1
        if verdict.grade is not None:
            self._grades[verdict.grade] += 1
        if self._out is not None:
            done = sum(self._outcomes.values())
            self._out.write(f"{done}/{self._total}  {self._counts()}  {verdict.file}"[:79])
            self._out.flush()

    def clear(self) -> None:
        """Take the line away, so that something else can be written."""
        if self._out is not None:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def summary(self, took_s: float) -> str:
        """What came of the whole run."""
        grades = ", ".join(
            f"{grade}" + (f" {count}" if len(self._grades) > 1 else "")
            for grade, count in sorted(self._grades.items(), key=lambda one: one[0].name)
        )
        return f"{self._counts()} in {took_s:.2f} s" + (f" ({grades})" if grades else "")

    def _counts(self) -> str:
        counts = ((self._outcomes[outcome], words) for outcome, words in _WORDS.items())
        return ", ".join(f"{count} {words[count > 1]}" for count, words in counts if count)
