"""The actions and the input of a stage's clients, in the order of the test, also as a table with a column for each client.

Knows no stage: the caller notes each action here. Only the latest steps are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.language.forms import write_line
from harness.language.steps import as_receive

STEPS = 200
"""How many steps are remembered."""
COLUMNS = 110
"""How wide the table becomes at most."""
_NARROWEST = 16


@dataclass(frozen=True, slots=True)
class Step:
    client: str
    text: str
    """The action, or the beginning of the line in a table."""
    data: bytes = b""
    """The sent or received bytes."""


class Conversation:
    """The latest steps of the clients."""

    def __init__(self, eol: bytes) -> None:
        self._eol = eol
        self._steps: deque[Step] = deque(maxlen=STEPS)
        self._count = 0

    def note(self, client: str, text: str) -> None:
        """Remember that a client did this: `closes`."""
        self._add(Step(client, text))

    def note_sent(self, client: str, data: bytes) -> None:
        self._add(Step(client, ">", data))

    def note_received(self, client: str, data: bytes) -> None:
        self._add(Step(client, "<", data))

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._count += 1

    def texts(self, data: bytes) -> Iterator[str]:
        """These bytes as a script would expect them: `< OK`, `<< \\x00`."""
        for line in data.splitlines(keepends=True):
            yield write_line(as_receive("x", line, self._eol))[1:]

    def table(
        self, client: str, expected: str, unclaimed: Mapping[str, bytes], ends: Mapping[str, str]
    ) -> Iterator[str]:
        """The conversation up to the moment at which this client was expected to receive something else."""
        steps = [line for step in self._steps for line in self._lines(step)]
        if expected:
            steps += [Step(client, f"- {line}") for line in expected.split("\n")]
        for name in sorted(unclaimed, key=lambda one: one != client):
            mark = "!" if name == client else "?"
            steps += [Step(name, f"{mark} {text}") for text in self.texts(unclaimed[name])]
        steps += [Step(name, end) for name, end in ends.items()]
        names, left_out = self._columns(client, steps)
        if self._count > len(self._steps):
            yield f"   {self._count - len(self._steps)} earlier steps are not shown"
        yield from _rows(names, [step for step in steps if step.client in names])
        if left_out:
            yield f"   {left_out} more {'client is' if left_out == 1 else 'clients are'} not shown"
        if any(step.text.startswith("? ") for step in steps):
            yield "   ? has been received and was not expected yet"

    def _lines(self, step: Step) -> Iterator[Step]:
        """A step as the lines of its table."""
        if not step.data:
            yield step
        for text in self.texts(step.data):
            arrows = len(text) - len(text.lstrip("<"))
            yield Step(step.client, step.text * min(arrows, 2) + text[min(arrows, 2) :])

    def _columns(self, client: str, steps: Iterable[Step]) -> tuple[list[str], int]:
        """The clients that are shown, in the order in which they appear: the one concerned, and those that did or
        received something last."""
        order = list(dict.fromkeys(step.client for step in steps))
        latest = list(dict.fromkeys(step.client for step in reversed(list(steps)) if step.client != client))
        kept = {client, *latest[: COLUMNS // (_NARROWEST + 3) - 1]}
        return [name for name in order if name in kept], len(set(order) - kept)


def _rows(names: list[str], steps: list[Step]) -> Iterator[str]:
    most = max(_NARROWEST, COLUMNS // max(len(names), 1) - 3)
    widths = {
        name: min(most, max([len(name), *(len(step.text) for step in steps if step.client == name)]))
        for name in names
    }
    yield "   " + "   ".join(name[: widths[name]].ljust(widths[name]) for name in names).rstrip()
    for step in steps:
        before = sum(widths[name] + 3 for name in names[: names.index(step.client)])
        yield " " * (3 + before) + _cut(step.text, widths[step.client])


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 1] + "\N{HORIZONTAL ELLIPSIS}"
