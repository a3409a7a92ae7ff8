"""The text that would have passed: which lines of a script were wrong, and what stands in their place. Pure.

Only expectations are ever replaced, added or taken away; comments, layout and what fits stay byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.language.expansion import expand
from harness.language.parser import parse
from harness.language.plan import ACTION_STEPS, plan
from harness.language.problems import ScriptError
from harness.language.renderer import render_item
from harness.language.steps import (
    AnyOrder,
    Blank,
    Comment,
    Define,
    Include,
    Item,
    Repeat,
    Script,
    Together,
    as_receive,
)
from harness.playing.comparison import Entry
from harness.playing.verdict import ClientTurn, FailureKind, TurnReport, Verdict
from harness.reporting.lanes import END_WORDS

_NAME = re.compile(r"[^ <]*")


class Refused(Exception):
    """The script cannot be rewritten without losing something; the message says what."""


@dataclass(slots=True)
class _Demand:
    """What one visit to a line wants of it: what it says after its client's name (None: as it stands, "": gone), and
    whole lines around it. The name stays: in a definition it is a parameter."""

    instead: str | None = None
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def key(self) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
        return self.instead, tuple(self.before), tuple(self.after)


def rewritten(verdict: Verdict) -> str:
    """The script's text with its wrong expectations put right, from a run that was kept going. Refused, or as it was."""
    script = verdict.script
    for failure in verdict.failures:
        if failure.kind is FailureKind.UNSENDABLE:
            raise Refused(f"line {failure.line}: {failure.detail}")
        if failure.kind in (FailureKind.UNANSWERED, FailureKind.NEVER_IDLE):
            raise Refused(f"{failure.detail}; nothing can be learned from that")
        if failure.kind in (FailureKind.SERVER_DIED, FailureKind.DISAGREED):
            raise Refused(
                f"line {failure.line}: {failure.client} {failure.kind.value}; nothing can be learned from that"
            )
    visits: dict[int, list[_Demand]] = {}
    for turn in verdict.turns:
        for line, demand in _demands(turn, verdict.eol, script).items():
            visits.setdefault(line, []).append(demand)
    text = _apply(script, _agreed(visits))
    require_nothing_lost(script, text)
    return text


def as_received(turn: TurnReport, eol: bytes) -> list[str]:
    """The receives of this turn as they were heard, to be pasted; client after client."""
    out: list[str] = []
    for client_turn in turn.client_turns:
        for entry in client_turn.entries:
            if entry.matches and entry.expected is not None:
                out.append(f"{client_turn.client}{entry.expected.text}")
            elif entry.received is not None:
                out.append(_line(as_receive(client_turn.client, entry.received, eol)))
        ended = _ended(client_turn)
        if ended:
            out.append(ended)
    return out


def _line(item: Item) -> str:
    return next(iter(render_item(item)))


def _ended(client_turn: ClientTurn) -> str:
    """The line that says how this connection ended in this turn, if it did."""
    if not client_turn.ended_now:
        return ""
    if client_turn.ending is not None and client_turn.ended_as_expected:
        return f"{client_turn.client} {client_turn.ending.value}"
    return f"{client_turn.client} {END_WORDS[client_turn.end]}"


# --- what each line should be -------------------------------------------------------------------------------


def _demands(turn: TurnReport, eol: bytes, script: Script) -> dict[int, _Demand]:
    """What this turn wants of the script's lines: first those that are there, then what has to be added to them."""
    out: dict[int, _Demand] = {}
    for client_turn in turn.client_turns:
        for entry in client_turn.entries:
            if entry.expected is not None:
                _own(entry.expected.file, script, entry.expected.line)
                _merge(out, entry.expected.line, _instead(entry, eol))
        if client_turn.ending is not None:
            _merge(
                out,
                client_turn.ending_line,
                None if client_turn.ended_as_expected else _ended(client_turn)[len(client_turn.client) :],
            )
        elif client_turn.silence_line:
            received = next(
                (entry.received for entry in client_turn.entries if entry.received is not None), None
            )
            line = None if received is None else _line(as_receive("", received, eol))
            _merge(out, client_turn.silence_line, line)
    for client_turn in turn.client_turns:
        _add(client_turn, turn, eol, script, out)
    return out


def _add(
    client_turn: ClientTurn, turn: TurnReport, eol: bytes, script: Script, out: dict[int, _Demand]
) -> None:
    """What the script does not say stands after what was heard before it, or else before what was heard next."""
    own = [entry.expected.line for entry in client_turn.entries if entry.expected]
    if client_turn.ending is not None:
        own.append(client_turn.ending_line)
    anchor = client_turn.silence_line or 0
    for at, entry in enumerate(client_turn.entries):
        if entry.expected is not None:
            anchor = entry.expected.line
        elif entry.received is not None and not (client_turn.silence_line and at == 0):
            line = _line(as_receive(client_turn.client, entry.received, eol))
            place = out.setdefault(anchor or (own[0] if own else turn.last_line), _Demand())
            _own(turn.file, script, anchor or turn.last_line)
            (place.before if own and not anchor else place.after).append(line)
    if client_turn.ending is None and client_turn.ended_now:
        _own(turn.file, script, anchor or turn.last_line)
        out.setdefault(anchor or turn.last_line, _Demand()).after.append(_ended(client_turn))


def _instead(entry: Entry, eol: bytes) -> str | None:
    if entry.matches or entry.expected is None:
        return None
    return "" if entry.received is None else _line(as_receive("", entry.received, eol))


def _merge(out: dict[int, _Demand], line: int, instead: str | None) -> None:
    """One line may be heard by several in one turn (`the same for`), who must then want the same of it."""
    there = out.setdefault(line, _Demand(instead))
    if there.instead != instead:
        raise Refused(f"line {line} is heard more than once and would have to say different things")


def _own(file: str, script: Script, line: int) -> None:
    if file != script.file:
        raise Refused(f"{file}:{line} is wrong, and an included file is not rewritten")


def _agreed(visits: Mapping[int, Sequence[_Demand]]) -> dict[int, _Demand]:
    """A line in a repeat or a definition is visited several times; all visits must want the same of it."""
    out: dict[int, _Demand] = {}
    for line, demands in visits.items():
        if len({demand.key() for demand in demands}) > 1:
            raise Refused(
                f"line {line} is played {len(demands)} times and would have to say different things"
            )
        out[line] = demands[0]
    return out


# --- the text -----------------------------------------------------------------------------------------------


def _apply(script: Script, demands: Mapping[int, _Demand]) -> str:
    emptied = set(_emptied(script.body, {line for line, demand in demands.items() if demand.instead == ""}))
    out: list[str] = []
    later: dict[int, list[str]] = {}
    blocks = dict(_block_ends(script.body))
    for number, row in enumerate(script.source, 1):
        demand = demands.get(number, _Demand())
        indent = row[: len(row) - len(row.lstrip(" "))]
        out.extend(indent + line for line in demand.before)
        if number not in emptied and demand.instead is None:
            out.append(row)
        elif number not in emptied and demand.instead:
            out.append(indent + _NAME.match(row[len(indent) :])[0] + demand.instead)  # type: ignore[index]
        if demand.after:
            # After the head of a block means after the block.
            later.setdefault(blocks.get(number, number), []).extend(indent + line for line in demand.after)
        out.extend(later.pop(number, ()))
    return "".join(f"{row}\n" for row in out)


def _emptied(body: Iterable[Item], gone: set[int]) -> Iterator[int]:
    """The heads of blocks that would be left without a step."""
    for item in body:
        if not isinstance(item, (Together, AnyOrder, Repeat, Define)):
            continue
        steps = [inner for inner in item.body if not isinstance(inner, (Comment, Blank))]
        if isinstance(item, (Repeat, Define)):
            yield from _emptied(item.body, gone)
        if all(inner.line in gone for inner in steps):
            if not isinstance(item, AnyOrder) or len(steps) != len(item.body):
                raise Refused(f"the block of line {item.line} would be left without a step")
            yield item.line


def _block_ends(body: Iterable[Item]) -> Iterator[tuple[int, int]]:
    for item in body:
        if isinstance(item, (Together, AnyOrder, Repeat, Define)):
            yield item.line, _last_line(item)
            if isinstance(item, (Repeat, Define)):
                yield from _block_ends(item.body)


def _last_line(item: Item) -> int:
    if isinstance(item, (Together, AnyOrder, Repeat, Define)):
        return max(_last_line(inner) for inner in item.body)
    return item.line


def require_nothing_lost(script: Script, text: str) -> None:
    """Whatever the script does must still be done, in the same order; and the text must be a script."""
    try:
        after = _with_includes_of(script, parse(text, script.file))
        plan(after)
    except ScriptError as wrong:
        raise Refused(f"what was heard does not make a script: {wrong}") from None
    if _action_steps(script) != _action_steps(after):
        raise Refused("a step would be lost")


def _with_includes_of(script: Script, after: Script) -> Script:
    read = {item.path: item.script for item in script.body if isinstance(item, Include)}
    body = tuple(
        replace(item, script=read.get(item.path)) if isinstance(item, Include) else item
        for item in after.body
    )
    return replace(after, body=body)


def _action_steps(script: Script) -> list[object]:
    return [located.step for located in expand(script) if isinstance(located.step, ACTION_STEPS)]
