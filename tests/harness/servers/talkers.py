"""A model of `fragile.py`: what every client receives when clients connect, talk and leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.generate import Pick
from harness.language.steps import Acts, ConnectionAction, Connects, Receive, Send, SendBytes, Step

PEOPLE = ("a", "b", "c")
NAMES = ("ann", "bob")


class Talkers:
    def __init__(self) -> None:
        self._connected: dict[str, str] = {}
        """The connected clients with their names; empty before they have one."""

    @property
    def header(self) -> Mapping[str, str]:
        return {}

    def move(self, pick: Pick) -> Iterator[Step]:
        who = pick(PEOPLE)
        name = self._connected.get(who, "")
        if who in self._connected and pick((False, False, True)):
            yield Acts(who, pick((ConnectionAction.CLOSES, ConnectionAction.ABORTS)))
            del self._connected[who]
        elif name:
            line = pick(("hi", "you there?"))
            yield Send(who, line) if pick((True, False)) else SendBytes(who, line.encode() + b"\n")
            for other, name_of_other in self._connected.items():
                if name_of_other and other != who:
                    yield Receive(other, f"{name}: {line}")
        else:
            wanted = pick(NAMES)
            taken = wanted in self._connected.values()
            if who not in self._connected:
                yield Connects(who)
            self._connected[who] = "" if taken else wanted
            yield Send(who, wanted)
            yield Receive(who, "TAKEN" if taken else f"HELLO {wanted}")
