"""Rules for lines that a script does not have to expect: the client ignores or answers them.

- A rule is applied to a line as soon as it is complete, so no step waits for the line and no fence counts it.
- If several rules match, the first is applied.
- Each line that the script does not see unchanged is recorded, also if an adapter changed it. A pass reports their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.language.adapter import Greeting, Prompt, Spelling
from harness.language.patterns import fill, match
from harness.language.steps import Reply, Rule, client_names

Sift = Callable[[bytes], "bytes | None"]
"""Called with a line and its end. If a rule takes the line, returns the bytes of the answer, possibly empty; otherwise None."""

FindHeard = Callable[[bytes], "int | None"]
"""Called with a line and its end. Returns the offset of another client's fence line in it, or None."""


@dataclass(frozen=True, slots=True)
class TakenLine:
    """A line that the script does not see as it came, or that the client does not send as the script says; with the rule or
    the part of an adapter that changed it, and its file."""

    client: str
    data: bytes
    rule: Rule | Greeting | Prompt | Spelling
    file: str
    instead: bytes = b""
    """The client's answer, or the line in the adapter's words."""


Take = Callable[[TakenLine], None]


class Rules:
    """Rules, each with its file. `take` gets each line that one of them takes."""

    def __init__(self, rules: Iterable[tuple[Rule, str]], eol: bytes, take: Take) -> None:
        self._rules = tuple(rules)
        self._eol = eol
        self._take = take

    def of(self, client: str) -> Sift | None:
        """A function that applies the rules to the lines of this client; None if it has none."""
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
