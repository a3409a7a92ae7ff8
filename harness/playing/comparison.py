"""Compares what a turn expects with what was received: finds a complete match, or else the best alignment.

- The order within one client is exact, except inside an `in any order:`.
- Every byte received must belong to an expectation; an optional one can be without bytes.
- Of the ways of an `either:` one counts, the same for all clients: the first with which everything matches and every
  connection ended as it says, or else the one with which most does.
- A name is bound by the first line of the script that has it; afterwards only its value matches.

Pure: bytes and steps in, entries and bindings out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from typing import TypeGuard

from harness.language.expansion import CallSite
from harness.language.forms import write_line
from harness.language.patterns import ANONYMOUS, match
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
    Way,
)
from harness.language.validation import Turn, received_in

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


# --- ways ---------------------------------------------------------------------------------------------------

MOST_TRIED = 2000
"""How many combinations of ways are compared with what one turn received."""
MOST_DEAD_ENDS = 10_000
"""How often one of these comparisons can come to a line that fits nowhere."""


class TooManyWays(Exception):
    """There are more ways in which this turn can match than are tried."""


WrongEnds = Callable[["TurnExpectations"], int]
"""How many connections did not end, or stay, as these expectations say."""


def match_any_way(
    turn: Turn, received: Mapping[str, bytes], known: Values, eol: bytes, wrong_ends: WrongEnds
) -> tuple[TurnExpectations, TurnMatch | None]:
    """The ways with which everything matches, and the match; or else the ways with which most does."""
    choices = list(choices_of(turn))
    if not choices:
        expected = TurnExpectations.of(turn)
        return expected, match_turn(expected, received, known, eol)
    best: tuple[TurnExpectations, TurnMatch] | None = None
    fewest = 0
    for tried, chosen in enumerate(_possible(turn, choices, received, known, eol)):
        if tried == MOST_TRIED:
            raise TooManyWays
        expected = TurnExpectations.of(turn, chosen)
        found = match_turn(expected, received, known, eol)
        if found is None:
            continue
        wrong = wrong_ends(expected)
        if not wrong:
            return expected, found
        if best is None or wrong < fewest:
            best, fewest = (expected, found), wrong
    return best or (_nearest(turn, choices, received, known, eol, wrong_ends), None)


def _possible(
    turn: Turn, choices: Sequence[Choice], received: Mapping[str, bytes], known: Values, eol: bytes
) -> Iterator[tuple[int, ...]]:
    """The combinations of ways in which each client was sent every line that it needs, and enough of them."""
    lines = {client: [piece for _, piece in _lines(data, 0)] for client, data in received.items()}
    fixed, in_pieces = Counter[str](), set[str]()
    for located in turn.expectations:
        for step, client in received_in(located.step):
            if isinstance(step, (ReceiveBytes, ReceiveBody)):
                in_pieces.add(client)
            elif not isinstance(located.step, Way) and _needs_a_line(step):
                fixed[client] += 1

    def came(step: InOneWay) -> bool:
        # With the names as they were before the turn: one that it binds matches anything here. Where a client also
        # expects bytes without a line end, a line can begin behind them.
        if not _needs_a_line(step) or step.client in in_pieces:
            return True
        item = Expectation(step, "", 0)
        return any(item.accepts(one, known, eol) for one in lines.get(step.client, ()))

    came_in = [[all(map(came, way)) for way in choice.ways] for choice in choices]

    least = sum(min(sum(map(_needs_a_line, way)) for way in choice.ways) for choice in choices)
    if fixed.total() + least > sum(map(len, lines.values())):
        return
    stack: list[tuple[tuple[int, ...], Counter[str]]] = [((), fixed)]
    for _ in range(MOST_TRIED * len(choices)):
        if not stack:
            return
        chosen, needed = stack.pop()
        at = len(chosen)
        if at == len(choices):
            yield chosen
            continue
        for number, way in reversed([*enumerate(choices[at].ways)]):
            then = needed + Counter(step.client for step in way if _needs_a_line(step))
            enough = all(then[step.client] <= len(lines.get(step.client, ())) for step in way)
            if came_in[at][number] and enough:
                stack.append(((*chosen, number), then))
    raise TooManyWays


def _needs_a_line(step: InOneWay) -> TypeGuard[Receive | ReceivePattern]:
    return isinstance(step, (Receive, ReceivePattern)) and not step.optional


def _nearest(
    turn: Turn,
    choices: Sequence[Choice],
    received: Mapping[str, bytes],
    known: Values,
    eol: bytes,
    wrong_ends: WrongEnds,
) -> TurnExpectations:
    """The expectations with the ways that leave the least unmatched, found one choice after the other."""

    def unmatched(chosen: Sequence[int]) -> int:
        expected = TurnExpectations.of(turn, chosen)
        clients = dict.fromkeys([*expected.lines, *received])
        aligned = (
            align(expected.lines.get(one, ()), received.get(one, b""), known, eol)[0] for one in clients
        )
        return wrong_ends(expected) + sum(not entry.matches for entries in aligned for entry in entries)

    chosen = [0] * len(choices)
    for at, choice in enumerate(choices):
        chosen[at] = min(
            range(len(choice.ways)), key=lambda way: unmatched([*chosen[:at], way, *chosen[at + 1 :]])
        )
    return TurnExpectations.of(turn, chosen)


# --- where everything matches -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnMatch:
    """A turn in which every client received exactly what was expected."""

    bindings: Values
    entries: Mapping[str, tuple[Entry, ...]]


def match_turn(
    expected: TurnExpectations, received: Mapping[str, bytes], known: Values, eol: bytes
) -> TurnMatch | None:
    """The first complete match, or None."""
    if any(data for client, data in received.items() if client not in expected.lines):
        return None
    agreeing, dead_ends = frozenset(expected.agreements), count()
    clients = list(expected.lines.items())
    paths: list[_Path] = [_Path(known)]
    """The state before each client, and the match of the one before it."""
    options: list[Iterator[_Path]] = []
    while len(paths) <= len(clients):
        client, items = clients[len(paths) - 1]
        if len(options) < len(paths):
            options.append(_match_one(items, received.get(client, b""), paths[-1].known, eol, dead_ends))
        found = next(_agreeing(options[-1], paths[-1].orders, agreeing), None)
        if found is not None:
            paths.append(found)
            continue
        options.pop()
        paths.pop()
        if not paths:
            return None
    entries = {client: path.entries for (client, _), path in zip(clients, paths[1:], strict=True)}
    return TurnMatch(paths[-1].known, entries)


@dataclass(frozen=True, slots=True)
class _Path:
    """A partial match of one client's items: all before `next` are matched, and in its group those in `used`."""

    known: Values
    offset: int = 0
    next: int = 0
    entries: tuple[Entry, ...] = ()
    used: frozenset[int] = frozenset()
    orders: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """The order in which the lines of each group came."""


def _agreeing(
    found: Iterable[_Path], before: Mapping[int, tuple[str, ...]], agreeing: frozenset[int]
) -> Iterator[_Path]:
    """The ways in which the groups of an agreement came in the same order as at the clients before."""
    for path in found:
        if not agreeing:
            yield path  # not `yield from`, which would close what is found once this is left
            continue
        orders = dict(before)
        if all(_agree(orders, group, order) for group, order in path.orders.items() if group in agreeing):
            yield replace(path, orders=orders)


def _agree(orders: dict[int, tuple[str, ...]], group: int, order: tuple[str, ...]) -> bool:
    other = orders.setdefault(group, order)
    return [text for text in other if text in order] == [text for text in order if text in other]


def _match_one(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes, dead_ends: Iterator[int]
) -> Iterator[_Path]:
    """Every complete match of one client's data with its items; usually one or none."""
    stack = [_Path(known)] if _all_can_come(items, data, known, eol) else []
    optional = any(item.optional for item in items)
    seen: set[object] = set()
    while stack:
        path = stack.pop()
        if optional:
            # Many optional lines can lead to the same place in many ways, all of which go on alike. The orders tell which
            # lines of a group are used.
            key = path.next, path.offset, *map(frozenset, (path.known.items(), path.orders.items()))
            if key in seen:
                continue
            seen.add(key)
        if path.next == len(items):
            if path.offset == len(data):
                yield path
            continue
        onward = list(_onward(path, items, data, eol))
        if not onward and next(dead_ends) == MOST_DEAD_ENDS:
            raise TooManyWays
        stack.extend(reversed(onward))


def _all_can_come(items: Sequence[Expectation], data: bytes, known: Values, eol: bytes) -> bool:
    """Whether each line of a free order is among those that came: without this, all orders would be tried in vain."""
    free = [item for item in items if item.group is not None and not item.optional]
    if len(free) < 2 or any(isinstance(item.step, (ReceiveBytes, ReceiveBody)) for item in items):
        return True
    lines = [line for _, line in _lines(data, 0)]
    return all(any(item.accepts(line, known, eol) for line in lines) for item in free)


def _onward(path: _Path, items: Sequence[Expectation], data: bytes, eol: bytes) -> Iterator[_Path]:
    group = items[path.next].group
    candidates, end = [path.next], path.next + 1
    if group is not None:
        while end < len(items) and items[end].group == group:
            end += 1
        candidates = [at for at in range(path.next, end) if at not in path.used]
        # A literal line can come in one place only, so it is not left for a later one. Of two that are alike, the one that
        # has to come is first, and the other is not tried in its place.
        candidates.sort(key=lambda at: (not isinstance(items[at].step, Receive), items[at].optional))
    tried: set[str] = set()
    for at in candidates:
        item = items[at]
        if len(candidates) > 1:
            if item.text in tried:
                continue
            tried.add(item.text)
        found = item.find(data, path.offset, path.known, eol)
        if found is None:
            continue
        new, stop, bound = found
        known = {**path.known, **bound} if bound else path.known
        entries = (*path.entries, *new)
        used, onward, orders = path.used, path.next + 1, path.orders
        if group is not None:
            used = used | {at}
            orders = {**orders, group: (*orders.get(group, ()), item.text)}
            onward = path.next
            while onward in used and onward < len(items):
                onward += 1
            used = frozenset(one for one in used if one >= onward)
        yield _Path(known, stop, onward, entries, used, orders)
    if all(items[at].optional for at in candidates):
        absent = (Entry(items[at], None, path.offset, matches=True) for at in candidates)
        yield replace(path, next=end, entries=(*path.entries, *absent), used=frozenset())


# --- where it does not --------------------------------------------------------------------------------------


def align(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes
) -> tuple[tuple[Entry, ...], Values]:
    """The best alignment of expected and received data, and the names that it binds."""
    entries: list[Entry] = []
    known = dict(known)
    offset = 0
    left = list(items)
    while left and left[0].group is None and not left[0].optional:
        run = left[0].find(data, offset, known, eol)
        if run is None:
            break
        new, offset, bound = run
        entries.extend(new)
        known.update(bound)
        del left[0]
    pieces = list(_lines(data, offset))
    for entry in _aligned(_in_received_order(left, pieces, known, eol), pieces, known, eol):
        if entry.matches and entry.expected and entry.received is not None and not entry.passed_over:
            found = entry.expected.match_end(entry.received, 0, known, eol)
            if found is None:  # a line before it has bound the same name to something else
                entry = replace(entry, matches=False)
            else:
                known.update(found[1])
        entries.append(entry)
    return tuple(entries), known


def align_turn(
    expected: TurnExpectations, received: Mapping[str, bytes], known: Values, eol: bytes
) -> tuple[Values, Mapping[str, tuple[Entry, ...]]]:
    """The names that a turn binds that does not match, and the best alignment of each client. Something in it does not
    match, unless only the clients of an agreement have different orders."""
    known = dict(bind_in_order(expected.in_order, received, known, eol))
    entries: dict[str, tuple[Entry, ...]] = {}
    for client in dict.fromkeys([*received, *expected.lines]):
        items, data = expected.lines.get(client, ()), received.get(client, b"")
        entries[client], bound = align(items, data, known, eol)
        known.update(bound)
    return known, entries


def _lines(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The lines received from this offset on, each with its line ending; the last one can lack it."""
    while offset < len(data):
        end = data.find(b"\n", offset) + 1 or len(data)
        yield offset, data[offset:end]
        offset = end


def _in_received_order(
    items: list[Expectation], pieces: list[tuple[int, bytes]], known: Values, eol: bytes
) -> list[Expectation]:
    """The items, with those of each free group in the order in which they were received, the missing ones last."""
    out: list[Expectation] = []
    while items:
        group = items[0].group
        size = 1
        while group is not None and size < len(items) and items[size].group == group:
            size += 1
        members, items = items[:size], items[size:]
        if group is not None:
            order: list[Expectation] = []
            for _, piece in pieces:
                hits = (one for one in members if one not in order and one.accepts(piece, known, eol))
                order.extend(hit for hit in [next(hits, None)] if hit is not None)
            members = order + [one for one in members if one not in order]
        out.extend(members)
    return out


def _aligned(
    items: list[Expectation], pieces: list[tuple[int, bytes]], known: Values, eol: bytes
) -> Iterator[Entry]:
    """A longest common subsequence; the items between its members are paired in order."""
    rows, columns = len(items), len(pieces)
    matches = [[item.accepts(piece, known, eol) for _, piece in pieces] for item in items]
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            best[i][j] = best[i + 1][j + 1] + 1 if matches[i][j] else max(best[i + 1][j], best[i][j + 1])
    i = j = 0
    missing: list[Expectation] = []
    extra: list[tuple[int, bytes]] = []
    while i < rows or j < columns:
        if i < rows and j < columns and matches[i][j]:
            yield from _paired(missing, extra, items[i])
            missing, extra = [], []
            yield Entry(items[i], pieces[j][1], pieces[j][0], matches=True)
            i, j = i + 1, j + 1
        elif j == columns or (i < rows and best[i + 1][j] >= best[i][j + 1]):
            missing.append(items[i])
            i += 1
        else:
            extra.append(pieces[j])
            j += 1
    yield from _paired(missing, extra, missing[-1] if missing else None)


def _paired(
    missing: list[Expectation], extra: list[tuple[int, bytes]], following: Expectation | None
) -> Iterator[Entry]:
    """Pair missing expectations with the lines that came instead. Optional lines are never missing, and lines before
    `any lines until` are never unexpected."""
    yield from (Entry(item, None, -1, matches=True) for item in missing if item.optional)
    missing = [item for item in missing if not item.optional]
    if following is not None and isinstance(following.step, ReceiveUntil):
        yield from (
            Entry(following, piece, offset, matches=True, passed_over=True) for offset, piece in extra
        )
        extra = []
    for at in range(max(len(missing), len(extra))):
        item = missing[at] if at < len(missing) else None
        offset, piece = extra[at] if at < len(extra) else (-1, None)
        yield Entry(item, piece, offset, matches=False)


# --- bindings -----------------------------------------------------------------------------------------------


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
    known: Values, before: Mapping[str, Binding], expected: Iterable[tuple[str, Expectation]]
) -> dict[str, Binding]:
    """The bindings before and those of this turn, each at the first line that has its name."""
    out = dict(before)
    for _, item in expected:
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
