"""Compares what a turn expects with what was received: finds a complete match, or else the best alignment.

- The order within one client is exact, except inside an `in any order:`.
- Every byte received must belong to an expectation.
- A name is bound by the first line of the script that has it; afterwards only its value matches.

Pure: bytes and steps in, entries and bindings out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.language.forms import write_line
from harness.language.patterns import ANONYMOUS, match
from harness.language.steps import (
    AnyOrder,
    Ends,
    Raises,
    Receive,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    Receiving,
)
from harness.language.validation import Turn

Values = Mapping[str, str]
"""The value of each name that is bound; a `Binding` also says where."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One receive of a turn, for one client."""

    step: Receiving
    file: str
    line: int
    group: int | None = None
    """The `in any order:` that contains it, if any."""

    @property
    def text(self) -> str:
        """The text of the step after the client's name: `< OK`."""
        return write_line(self.step)[len(self.step.client) :]

    def match_end(self, data: bytes, start: int, known: Values, eol: bytes) -> tuple[int, Values] | None:
        """The end of this receive if it begins at `start` of the data, and its bindings; None if it does not match."""
        match self.step:
            case Receive(_, text):
                wire = text.encode() + eol
                return (start + len(wire), {}) if data.startswith(wire, start) else None
            case ReceiveBytes(_, wire):
                return (start + len(wire), {}) if data.startswith(wire, start) else None
            case ReceivePattern(_, pattern):
                end = data.find(eol, start)
                if end < 0:
                    return None
                bound = match(pattern, data[start:end].decode("utf-8", "surrogateescape"), known)
                return None if bound is None else (end + len(eol), bound)

    def accepts(self, piece: bytes, known: Values, eol: bytes) -> bool:
        """Whether this is exactly what is expected."""
        found = self.match_end(piece, 0, known, eol)
        return found is not None and found[0] == len(piece)


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in a client's lane: what was expected there, what was received there, or both."""

    expected: Expectation | None
    received: bytes | None
    offset: int
    matches: bool


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
    def of(cls, turn: Turn) -> TurnExpectations:
        out = cls()
        for group, located in enumerate(turn.expectations):
            file = located.script.file
            match located.step:
                case AnyOrder(body, same_for):
                    for one in body:
                        if isinstance(one, Receiving):
                            item = Expectation(one, file, one.line or located.line, group)
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
                    out._add(step.client, Expectation(step, file, located.line))
        return out

    def _add(self, client: str, item: Expectation) -> None:
        self.lines.setdefault(client, []).append(item)
        self.in_order.append((client, item))


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
    agreeing = frozenset(expected.agreements)
    clients = tuple(expected.lines.items())
    return next(_match_clients(clients, received, _Path(known=known), eol, agreeing, {}), None)


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


def _match_clients(
    left: tuple[tuple[str, Sequence[Expectation]], ...],
    received: Mapping[str, bytes],
    before: _Path,
    eol: bytes,
    agreeing: frozenset[int],
    done: Mapping[str, tuple[Entry, ...]],
) -> Iterator[TurnMatch]:
    if not left:
        yield TurnMatch(before.known, done)
        return
    client, items = left[0]
    for found in _match_one(items, received.get(client, b""), before.known, eol):
        orders = dict(before.orders)
        if all(_agree(orders, group, order) for group, order in found.orders.items() if group in agreeing):
            after = _Path(found.known, orders=orders)
            entries = {**done, client: found.entries}
            yield from _match_clients(left[1:], received, after, eol, agreeing, entries)


def _agree(orders: dict[int, tuple[str, ...]], group: int, order: tuple[str, ...]) -> bool:
    other = orders.setdefault(group, order)
    return [text for text in other if text in order] == [text for text in order if text in other]


def _match_one(items: Sequence[Expectation], data: bytes, known: Values, eol: bytes) -> Iterator[_Path]:
    """Every complete match of one client's data with its items; usually one or none."""
    stack = [_Path(known)]
    while stack:
        path = stack.pop()
        if path.next == len(items):
            if path.offset == len(data):
                yield path
            continue
        stack.extend(reversed(list(_onward(path, items, data, eol))))


def _onward(path: _Path, items: Sequence[Expectation], data: bytes, eol: bytes) -> Iterator[_Path]:
    group = items[path.next].group
    candidates = [path.next]
    if group is not None:
        end = path.next
        while end < len(items) and items[end].group == group:
            end += 1
        candidates = [at for at in range(path.next, end) if at not in path.used]
    tried: set[tuple[str, str]] = set()
    for at in candidates:
        item = items[at]
        key = (type(item.step).__name__, item.text)
        if key in tried:
            continue
        tried.add(key)
        found = item.match_end(data, path.offset, path.known, eol)
        if found is None:
            continue
        stop, bound = found
        known = {**path.known, **bound} if bound else path.known
        entries = (*path.entries, Entry(item, data[path.offset : stop], path.offset, matches=True))
        used, onward, orders = path.used, path.next + 1, path.orders
        if group is not None:
            used = used | {at}
            orders = {**orders, group: (*orders.get(group, ()), item.text)}
            onward = path.next
            while onward in used and onward < len(items):
                onward += 1
            used = frozenset(one for one in used if one >= onward)
        yield _Path(known, stop, onward, entries, used, orders)


# --- where it does not --------------------------------------------------------------------------------------


def align(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes
) -> tuple[tuple[Entry, ...], Values]:
    """The best alignment of expected and received data, and the names that it binds."""
    entries: list[Entry] = []
    known = dict(known)
    offset = 0
    left = list(items)
    while left and left[0].group is None:
        found = left[0].match_end(data, offset, known, eol)
        if found is None:
            break
        entries.append(Entry(left.pop(0), data[offset : found[0]], offset, matches=True))
        known.update(found[1])
        offset = found[0]
    pieces = list(_lines(data, offset))
    for entry in _aligned(_in_received_order(left, pieces, known, eol), pieces, known, eol):
        if entry.matches and entry.expected is not None and entry.received is not None:
            found = entry.expected.match_end(entry.received, 0, known, eol)
            known.update(found[1] if found else {})
        entries.append(entry)
    return tuple(entries), known


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
            yield from _paired(missing, extra)
            missing, extra = [], []
            yield Entry(items[i], pieces[j][1], pieces[j][0], matches=True)
            i, j = i + 1, j + 1
        elif j == columns or (i < rows and best[i + 1][j] >= best[i][j + 1]):
            missing.append(items[i])
            i += 1
        else:
            extra.append(pieces[j])
            j += 1
    yield from _paired(missing, extra)


def _paired(missing: list[Expectation], extra: list[tuple[int, bytes]]) -> Iterator[Entry]:
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
            found = item.match_end(received.get(client, b""), offsets.get(client, 0), known, eol)
        if found is None:
            stuck.add(client)
        else:
            offsets[client] = found[0]
            known.update(found[1])
    return known


def newly_bound(
    known: Values, before: Mapping[str, Binding], expected: Iterable[tuple[str, Expectation]]
) -> dict[str, Binding]:
    """The bindings before and those of this turn, each at the first line that has its name."""
    out = dict(before)
    for _, item in expected:
        if isinstance(item.step, ReceivePattern):
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
