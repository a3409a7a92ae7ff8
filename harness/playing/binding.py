"""What captures have bound, and where: the first line that says a name, in the order of the script, decides. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.language.matching import ANONYMOUS, match
from harness.language.steps import ReceivePattern
from harness.playing.hearing import Awaited, Known


@dataclass(frozen=True, slots=True)
class Bound:
    """What a name stands for since this line of the script."""

    name: str
    value: str
    file: str
    line: int


def bound_in_order(
    awaited: Iterable[tuple[str, Awaited]], heard: Mapping[str, bytes], known: Known, eol: bytes
) -> Known:
    """What is bound where not everything fits: each client's lines count up to the first that is wrong or in no order."""
    known, at, stuck = dict(known), dict.fromkeys(heard, 0), set[str]()
    for client, item in awaited:
        found = None
        if client not in stuck and item.group is None:
            found = item.ends_at(heard.get(client, b""), at.get(client, 0), known, eol)
        if found is None:
            stuck.add(client)
        else:
            at[client] = found[0]
            known.update(found[1])
    return known


def newly_bound(
    known: Known, before: Mapping[str, Bound], awaited: Iterable[tuple[str, Awaited]]
) -> dict[str, Bound]:
    """What this turn has bound, each at the first line that has its name."""
    out = dict(before)
    for _, item in awaited:
        if isinstance(item.step, ReceivePattern):
            for capture in item.step.pattern.captures:
                if capture.name in known and capture.name not in out:
                    out[capture.name] = Bound(capture.name, known[capture.name], item.file, item.line)
    return out


def in_the_way(awaited: Awaited, heard: bytes, bound: Sequence[Bound], eol: bytes) -> Iterator[Bound]:
    """The names for which alone this line is not what was awaited: unbound, they would have taken it."""
    if not isinstance(awaited.step, ReceivePattern) or not heard.endswith(eol):
        return
    pattern = awaited.step.pattern
    text = heard[: -len(eol)].decode("utf-8", "surrogateescape")
    mine = {capture.name for capture in pattern.captures if capture.name != ANONYMOUS}
    known = {one.name: one.value for one in bound if one.name in mine}
    if match(pattern, text, known) is not None:
        return
    alone = [
        name for name in known
        if match(pattern, text, {other: value for other, value in known.items() if other != name}) is not None
    ]  # fmt: skip
    free = match(pattern, text, {})
    if not alone and free is not None:
        alone = [name for name in known if free[name] != known[name]]
    yield from (one for one in bound if one.name in alone)
