"""What a client does with the lines that a script need not expect: it ignores or answers them.

- A rule is applied to a whole line as soon as it has arrived, so that nothing waits for it and no fence counts it.
- Of several rules that match, the first is applied.
- Every line that a rule takes is recorded: a pass says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.language.patterns import fill, match
from harness.language.steps import Ignore, Reply, client_names

Rule = Ignore | Reply

Sift = Callable[[bytes], "bytes | None"]
"""Tells of a line with its end whether a rule takes it: the bytes to answer, which can be none; or None."""

Takes = Callable[[bytes], "int | None"]
"""Tells of a line with its end whether it is a fence line of another client: from which byte on; or None."""


@dataclass(frozen=True, slots=True)
class TakenLine:
    """A line that a rule took, and the file of that rule."""

    client: str
    data: bytes
    rule: Rule
    file: str
    answer: bytes = b""


class Rules:
    """The rules of a stage, each with its file, and the lines that they took since they were last asked."""

    def __init__(self, rules: Iterable[tuple[Rule, str]], eol: bytes) -> None:
        self._rules = tuple(rules)
        self._eol = eol
        self.taken: list[TakenLine] = []

    def of(self, client: str) -> Sift | None:
        """What applies the rules to the lines of this client; None where there are none."""
        mine = [
            (rule, file)
            for rule, file in self._rules
            if rule.client is None or client in client_names(rule.client)
        ]
        return (lambda data: self._apply(client, mine, data)) if mine else None

    def _apply(self, client: str, rules: Iterable[tuple[Rule, str]], data: bytes) -> bytes | None:
        if not data.endswith(self._eol):
            return None
        text = data[: -len(self._eol)].decode("utf-8", "surrogateescape")
        for rule, file in rules:
            bound = match(rule.pattern, text, {})
            if bound is not None:
                answer = b""
                if isinstance(rule, Reply):
                    answer = fill(rule.answer, bound).encode("utf-8", "surrogateescape") + self._eol
                self.taken.append(TakenLine(client, data, rule, file, answer))
                return answer
        return None
