"""What a client does with the lines that a script need not expect: it ignores them.

- A rule is applied to a whole line as soon as it has arrived, so that nothing waits for it and no fence counts it.
- Every line that a rule takes is recorded: a pass says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.language.patterns import Pattern, match


@dataclass(frozen=True, slots=True)
class Rule:
    """Lines that match are taken from this client, or from each."""

    pattern: Pattern
    client: str | None = None
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class TakenLine:
    """A line that a rule took."""

    client: str
    data: bytes
    rule: Rule


class Rules:
    """The rules of a stage, and the lines that they took since they were last asked."""

    def __init__(self, rules: Iterable[Rule], eol: bytes) -> None:
        self._rules = tuple(rules)
        self._eol = eol
        self.taken: list[TakenLine] = []

    def of(self, client: str) -> Callable[[bytes], bool] | None:
        """Tells of a line with its end whether a rule takes it from this client; None where no rule can."""
        mine = [rule for rule in self._rules if rule.client in (None, client)]

        def takes(data: bytes) -> bool:
            rule = self._first(mine, data)
            if rule is not None:
                self.taken.append(TakenLine(client, data, rule))
            return rule is not None

        return takes if mine else None

    def _first(self, rules: Iterable[Rule], data: bytes) -> Rule | None:
        if not data.endswith(self._eol):
            return None
        text = data[: -len(self._eol)].decode("utf-8", "surrogateescape")
        return next((rule for rule in rules if match(rule.pattern, text, {}) is not None), None)
