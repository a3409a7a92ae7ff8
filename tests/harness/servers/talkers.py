"""A model of the small server beside it: who hears what when some people come, talk and go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.generating.model import Pick
from harness.language.steps import Acts, ConnectionAction, Connects, Receive, Send, SendBytes, Step

PEOPLE = ("a", "b", "c")
NAMES = ("ann", "bob")


class Talkers:
    """`server: fault=…` is for whoever plays it."""

    def __init__(self) -> None:
        self._there: dict[str, str] = {}
        """The connected ones, with their names or nothing."""

    @property
    def header(self) -> Mapping[str, str]:
        return {}

    def move(self, pick: Pick) -> Iterator[Step]:
        who = pick(PEOPLE)
        name = self._there.get(who, "")
        if who in self._there and pick((False, False, True)):
            yield Acts(who, pick((ConnectionAction.CLOSES, ConnectionAction.ABORTS)))
            del self._there[who]
        elif name:
            line = pick(("hi", "you there?"))
            yield Send(who, line) if pick((True, False)) else SendBytes(who, line.encode() + b"\n")
            for other, listener in self._there.items():
                if listener and other != who:
                    yield Receive(other, f"{name}: {line}")
        else:
            wanted = pick(NAMES)
            taken = wanted in self._there.values()
            if who not in self._there:
                yield Connects(who)
            self._there[who] = "" if taken else wanted
            yield Send(who, wanted)
            yield Receive(who, "TAKEN" if taken else f"HELLO {wanted}")
