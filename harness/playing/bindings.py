"""The names that lines of a turn bind to values, and where.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.language.patterns import ANONYMOUS, match
from harness.language.steps import (
    ReceivePattern,
    ReceiveUntil,
)
from harness.playing.expectations import Entry, Expectation, Values


@dataclass(frozen=True, slots=True)
class Binding:
    """The value that a name has had since this line of the script."""

    name: str
    value: str
    file: str
    line: int


def bind_in_order(
    expected: Iterable[tuple[str, Expectation]], received: Mapping[str, bytes], known: Values, eol: bytes
) -> Values:
    """The bindings of a partial match: each client's lines up to the first wrong or unordered one."""
    known, offsets, stuck = dict(known), dict.fromkeys(received, 0), set[str]()
    for client, item in expected:
        found = None
        if client not in stuck and item.group is None:
            found = item.find(received.get(client, b""), offsets.get(client, 0), known, eol)
        if found is not None:
            offsets[client] = found[1]
            known.update(found[2])
        elif not item.optional:
            stuck.add(client)
    return known


def newly_bound(
    known: Values,
    before: Mapping[str, Binding],
    expected: Sequence[tuple[str, Expectation]],
    entries: Mapping[str, Sequence[Entry]],
) -> dict[str, Binding]:
    """The bindings before and those of this turn, each at the first line that has its name: of those that came, if any."""
    out = dict(before)
    if known.keys() <= out.keys():
        return out
    came = {
        (client, id(entry.expected))
        for client, lane in entries.items()
        for entry in lane
        if entry.matches and entry.received is not None
    }
    for _, item in sorted(expected, key=lambda one: (one[0], id(one[1])) not in came):
        if isinstance(item.step, (ReceivePattern, ReceiveUntil)):
            for capture in item.step.pattern.captures:
                if capture.name in known and capture.name not in out:
                    out[capture.name] = Binding(capture.name, known[capture.name], item.file, item.line)
    return out


def conflicting_bindings(
    expected: Expectation, received: bytes, bindings: Sequence[Binding], eol: bytes
) -> Iterator[Binding]:
    """The bindings that alone keep this line from matching: were they unbound, it would."""
    if not isinstance(expected.step, ReceivePattern) or not received.endswith(eol):
        return
    pattern = expected.step.pattern
    text = received[: -len(eol)].decode("utf-8", "surrogateescape")
    mine = {capture.name for capture in pattern.captures if capture.name != ANONYMOUS}
    known = {one.name: one.value for one in bindings if one.name in mine}
    if match(pattern, text, known) is not None:
        return
    alone = [
        name for name in known
        if match(pattern, text, {other: value for other, value in known.items() if other != name}) is not None
    ]  # fmt: skip
    free = match(pattern, text, {})
    if not alone and free is not None:
        alone = [name for name in known if free[name] != known[name]]
    yield from (one for one in bindings if one.name in alone)
