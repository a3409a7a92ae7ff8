"""What a turn expects of each client: one `Expectation` for each line, body or run of bytes, and where it can begin and end.

Of the ways of an `either:`, the expectations of one are in `TurnExpectations`.

Pure: steps and bytes in, expectations and what they match out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from harness.language.expansion import CallSite
from harness.language.forms import write_line
from harness.language.patterns import ANONYMOUS, Capture, match
from harness.language.steps import (
    AnyOrder,
    Either,
    Ends,
    InOneWay,
    InTime,
    Or,
    Raises,
    Receive,
    ReceiveBody,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    ReceiveUntil,
    Receiving,
)
from harness.language.validation import Turn

Values = Mapping[str, str]
"""The value of each name that is bound; a `Binding` also says where."""

_MOST_DIGITS = 16
"""A longer number is the size of no body."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One receive of a turn, for one client."""

    step: Receiving
    file: str
    line: int
    group: int | None = None
    """The `in any order:` that contains it, if any."""
    choice: Choice | None = None
    """The `either:` that contains it, if any."""
    limit_us: int | None = None
    """The time of the `within` that contains it, if any."""
    via: tuple[CallSite, ...] = field(default=(), compare=False)
    """The calls and repeats that led to it, outermost first."""

    @property
    def optional(self) -> bool:
        return getattr(self.step, "optional", False)

    @property
    def text(self) -> str:
        """The text of the step after the client's name: `< OK`."""
        return write_line(self.step).removeprefix("optional ")[len(self.step.client) :].lstrip()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that it binds or uses, each once."""
        match self.step:
            case ReceivePattern(_, pattern) | ReceiveUntil(_, pattern):
                return tuple({one.name: None for one in pattern.captures if one.name != ANONYMOUS})
            case ReceiveBody(_, str(size)):
                return (size,)
        return ()

    def without(self, names: Collection[str]) -> object:
        """What it receives, whatever these names are called: equal for two that differ only in them."""
        match self.step:
            case ReceivePattern(_, pattern):
                numbers = {name: str(number) for number, name in enumerate(self.names) if name in names}
                return tuple(
                    replace(part, name=numbers[part.name])
                    if isinstance(part, Capture) and part.name in numbers
                    else part
                    for part in pattern.parts
                )
            case Receive(_, content) | ReceiveBytes(_, content):
                return content
        return self.step

    def line_for(self, client: str) -> str:
        """The step as this client's line of a script."""
        return write_line(replace(self.step, client=client))

    def match_end(self, data: bytes, start: int, known: Values, eol: bytes) -> tuple[int, Values] | None:
        """The end of this receive if it begins at `start` of the data, and its bindings; None if it does not match."""
        match self.step:
            case Receive(_, text):
                wire = text.encode() + eol
                return (start + len(wire), {}) if data.startswith(wire, start) else None
            case ReceiveBytes(_, wire):
                return (start + len(wire), {}) if data.startswith(wire, start) else None
            case ReceiveBody(_, size, content):
                end = start + _number_of_bytes(size, known)
                found = data[start:end]
                right = start <= end <= len(data) and content in (None, found)
                return (end, {}) if right else None
            case ReceivePattern(_, pattern) | ReceiveUntil(_, pattern):
                end = data.find(eol, start)
                if end < 0:
                    return None
                bound = match(pattern, data[start:end].decode("utf-8", "surrogateescape"), known)
                return None if bound is None else (end + len(eol), bound)

    def find(
        self, data: bytes, start: int, known: Values, eol: bytes
    ) -> tuple[Sequence[Entry], int, Values] | None:
        """The entries of this receive from `start` of the data on, with the lines that it passes over, the end of the
        last, and its bindings; None if it does not come."""
        passed: list[Entry] = []
        while (found := self.match_end(data, start, known, eol)) is None:
            end = data.find(b"\n", start) + 1
            if not isinstance(self.step, ReceiveUntil) or not end:
                return None
            passed.append(Entry(self, data[start:end], start, matches=True, passed_over=True))
            start = end
        return [*passed, Entry(self, data[start : found[0]], start, matches=True)], *found

    def begins(self, data: bytes, start: int, known: Values) -> bool:
        """Whether the data ends before this receive does, and all from `start` on can belong to it."""
        rest = data[start:]
        match self.step:
            case ReceiveBytes(_, wire):
                return len(rest) < len(wire) and wire.startswith(rest)
            case ReceiveBody(_, size, content):
                return len(rest) < _number_of_bytes(size, known) and (
                    content is None or content.startswith(rest)
                )
        return isinstance(self.step, ReceiveUntil)

    def accepts(self, piece: bytes, known: Values, eol: bytes) -> bool:
        """Whether this is exactly what is expected."""
        found = self.match_end(piece, 0, known, eol)
        return found is not None and found[0] == len(piece)


def _number_of_bytes(size: int | str, known: Values) -> int:
    """The size of a body; negative where what was captured is none."""
    if isinstance(size, int):
        return size
    text = known.get(size, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS else -1 << 63


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in a client's lane: what was expected there, what was received there, or both."""

    expected: Expectation | None
    received: bytes | None
    offset: int
    matches: bool
    passed_over: bool = False
    """Received before what was expected, and of no matter."""

    @property
    def unread(self) -> bool:
        """Whether this is a body whose content does not matter."""
        step = self.expected.step if self.expected else None
        return self.matches and isinstance(step, ReceiveBody) and step.content is None

    @property
    def absent(self) -> bool:
        """Whether this is an optional line that was not received."""
        return self.matches and self.received is None


@dataclass(frozen=True, slots=True)
class Choice:
    """One `either:` of a turn, and its ways."""

    file: str
    line: int
    ways: tuple[tuple[InOneWay, ...], ...]

    @property
    def one_of(self) -> tuple[str, ...]:
        """The clients of `one of a b c<`, which is a choice of one line."""
        alone = [way[0] for way in self.ways if len(way) == 1 and way[0].line == self.line]
        return tuple(step.client for step in alone) if self.line and len(alone) == len(self.ways) else ()

    @property
    def receiving(self) -> frozenset[str]:
        """The clients that receive something in one of the ways."""
        return frozenset(step.client for way in self.ways for step in way if isinstance(step, Receiving))

    @property
    def ending(self) -> frozenset[str]:
        """The clients whose connections end in one of the ways."""
        return frozenset(step.client for way in self.ways for step in way if isinstance(step, Ends))


# --- what one turn expects ----------------------------------------------------------------------------------


@dataclass(slots=True)
class TurnExpectations:
    """The expectations of one turn, by client."""

    lines: dict[str, list[Expectation]] = field(default_factory=dict)
    in_order: list[tuple[str, Expectation]] = field(default_factory=list)
    """The same for all clients together, in the order of the script."""
    agreements: dict[int, tuple[str, int, tuple[str, ...]]] = field(default_factory=dict)
    """The file, the line and the clients of each group whose order all its clients must share."""
    silences: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The file and line that says so, for each client."""
    ends: dict[str, tuple[Ends, str, int]] = field(default_factory=dict)
    raises: list[tuple[str, str, int]] = field(default_factory=list)
    """The exceptions of the server's own code: class, file and line."""

    @classmethod
    def of(cls, turn: Turn, chosen: Iterable[int] = ()) -> TurnExpectations:
        """The expectations with the chosen way of each `either:`, by default the first."""
        out = cls()
        choices = list(choices_of(turn))
        chosen = list(chosen) or [0] * len(choices)
        for group, located in enumerate(turn.expectations):
            file, via = located.script.file, located.via
            match located.step:
                case Either():
                    choice, way = choices.pop(0), chosen.pop(0)
                    for step in choice.ways[way]:
                        line = step.line or located.line
                        match step:
                            case Ends(client):
                                out.ends[client] = step, file, line
                            case ReceivesNothing(client):
                                out.silences[client] = file, line
                            case _:
                                out._add(step.client, Expectation(step, file, line, choice=choice, via=via))
                case InTime(limit, body):
                    for one in body:
                        if isinstance(one, Receiving):
                            line = one.line or located.line
                            out._add(one.client, Expectation(one, file, line, limit_us=limit, via=via))
                case Or():
                    pass  # one of the ways of the choice before it
                case AnyOrder(body, same_for):
                    for one in body:
                        if isinstance(one, Receiving):
                            item = Expectation(one, file, one.line or located.line, group, via=via)
                            for client in (one.client,) if one.client else same_for:
                                out._add(client, item)
                    if same_for:
                        out.agreements[group] = file, located.line, same_for
                case ReceivesNothing(client):
                    out.silences[client] = file, located.line
                case Raises(error):
                    out.raises.append((error, file, located.line))
                case Ends(client):
                    out.ends[client] = located.step, file, located.line
                case step:
                    out._add(step.client, Expectation(step, file, located.line, via=via))
        return out

    def _add(self, client: str, item: Expectation) -> None:
        self.lines.setdefault(client, []).append(item)
        self.in_order.append((client, item))


def choices_of(turn: Turn) -> Iterator[Choice]:
    """Every `either:` of the turn, in order."""
    heads = [at for at, one in enumerate(turn.expectations) if isinstance(one.step, Either)]
    for at in heads:
        first = turn.expectations[at]
        ways = [first, *takewhile(lambda one: isinstance(one.step, Or), turn.expectations[at + 1 :])]
        bodies = (tuple(x for x in getattr(way.step, "body", ()) if isinstance(x, InOneWay)) for way in ways)
        yield Choice(first.script.file, first.line, tuple(bodies))


def lines_of(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The lines received from this offset on, each with its line ending; the last one can lack it."""
    while offset < len(data):
        end = data.find(b"\n", offset) + 1 or len(data)
        yield offset, data[offset:end]
        offset = end
