"""What a client does with the lines that a script need not expect: it ignores or answers them.

- A rule is applied to a whole line as soon as it has arrived, so that nothing waits for it and no fence counts it.
- Of several rules that match, the first is applied.
- Every line that a script does not see as it came is recorded, also what an adapter changes: a pass says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.language.adapter import Greeting, Prompt, Spelling
from harness.language.patterns import fill, match
from harness.language.steps import Reply, Rule, client_names

Sift = Callable[[bytes], "bytes | None"]
"""Tells of a line with its end whether a rule takes it: the bytes to answer, which can be none; or None."""

FindHeard = Callable[[bytes], "int | None"]
"""Where in a line with its end the fence line of another client begins; None where there is none."""


@dataclass(frozen=True, slots=True)
class TakenLine:
    """What a script does not see as it came, or a client does not send as the script says: by which rule or part of an
    adapter, and the file of that."""

    client: str
    data: bytes
    rule: Rule | Greeting | Prompt | Spelling
    file: str
    instead: bytes = b""
    """What the client answered, or the line in other words."""


Take = Callable[[TakenLine], None]


class Rules:
    """Rules, each with its file. Every line that one of them takes is handed on."""

    def __init__(self, rules: Iterable[tuple[Rule, str]], eol: bytes, take: Take) -> None:
        self._rules = tuple(rules)
        self._eol = eol
        self._take = take

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
                self._take(TakenLine(client, data, rule, file, answer))
                return answer
        return None
