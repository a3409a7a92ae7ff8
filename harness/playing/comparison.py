"""What a turn expects against what was received: who heard exactly what is written, or how the two lie side by side.

Pure: bytes and steps in, entries out. Knows no sockets, no clock, no layout of reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.language.patterns import ANONYMOUS, match
from harness.language.renderer import render_item
from harness.language.steps import Receive, ReceiveBytes, ReceivePattern, Receiving

Bindings = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One receive of a turn, for one client."""

    step: Receiving
    file: str
    line: int
    group: int | None = None
    """Which `in any order:` of the turn it stands in; within one, order is free."""

    @property
    def text(self) -> str:
        """What the script says after the client's name: `< OK`."""
        return next(iter(render_item(self.step)))[len(self.step.client) :]

    def match_end(self, data: bytes, start: int, known: Bindings, eol: bytes) -> tuple[int, Bindings] | None:
        """Where this receive ends in the data when it begins at `start`, and what it binds; None: it is not there."""
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


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in a client's lane: what was awaited there, what was heard there, or both."""

    expected: Expectation | None
    received: bytes | None
    offset: int
    matches: bool


@dataclass(frozen=True, slots=True)
class TurnMatch:
    """A turn in which everyone heard exactly what was awaited: what it binds, and each client's entries."""

    bound: Bindings
    entries: Mapping[str, tuple[Entry, ...]]


@dataclass(frozen=True, slots=True)
class _Solution:
    known: Bindings
    entries: tuple[Entry, ...]
    orders: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def match_turn(
    expected: Mapping[str, Sequence[Expectation]],
    received: Mapping[str, bytes],
    known: Bindings,
    eol: bytes,
    agree: frozenset[int],
) -> TurnMatch | None:
    """The one way in which everything fits, or None. `agree`: the groups whose order all their clients must share."""
    return next(_everyone(tuple(expected.items()), received, _Solution(known, ()), eol, agree, {}), None)


def _everyone(
    left: tuple[tuple[str, Sequence[Expectation]], ...],
    received: Mapping[str, bytes],
    before: _Solution,
    eol: bytes,
    agree: frozenset[int],
    done: Mapping[str, tuple[Entry, ...]],
) -> Iterator[TurnMatch]:
    if not left:
        yield TurnMatch(before.known, done)
        return
    client, items = left[0]
    for found in _one(items, received.get(client, b""), before.known, eol):
        orders = dict(before.orders)
        if all(_agrees(orders, group, order) for group, order in found.orders.items() if group in agree):
            after = _Solution(found.known, (), orders)
            yield from _everyone(left[1:], received, after, eol, agree, {**done, client: found.entries})


def _agrees(orders: dict[int, tuple[str, ...]], group: int, order: tuple[str, ...]) -> bool:
    other = orders.setdefault(group, order)
    return [text for text in other if text in order] == [text for text in order if text in other]


def _one(items: Sequence[Expectation], data: bytes, known: Bindings, eol: bytes) -> Iterator[_Solution]:
    """Every way in which one client's data is what its items say, no byte more. Mostly there is one or none."""
    stack = [_Path(0, 0, known, (), frozenset(), {})]
    while stack:
        path = stack.pop()
        if path.next == len(items):
            if path.at == len(data):
                yield _Solution(path.known, path.entries, path.orders)
            continue
        stack.extend(reversed(list(_onward(path, items, data, eol))))


@dataclass(frozen=True, slots=True)
class _Path:
    """A way through a client's items so far: all before `next` are heard, and of its group those in `used`."""

    at: int
    next: int
    known: Bindings
    entries: tuple[Entry, ...]
    used: frozenset[int]
    orders: Mapping[int, tuple[str, ...]]


def _onward(path: _Path, items: Sequence[Expectation], data: bytes, eol: bytes) -> Iterator[_Path]:
    group = items[path.next].group
    if group is None:
        candidates = [path.next]
    else:
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
        found = item.match_end(data, path.at, path.known, eol)
        if found is None:
            continue
        stop, bound = found
        known = {**path.known, **bound} if bound else path.known
        entries = (*path.entries, Entry(item, data[path.at : stop], path.at, matches=True))
        used, onward, orders = path.used, path.next + 1, path.orders
        if group is not None:
            used = used | {at}
            orders = {**orders, group: (*orders.get(group, ()), item.text)}
            onward = path.next
            while onward in used and onward < len(items):
                onward += 1
            used = frozenset(one for one in used if one >= onward)
        yield _Path(stop, onward, known, entries, used, orders)


def align(
    items: Sequence[Expectation], data: bytes, known: Bindings, eol: bytes
) -> tuple[tuple[Entry, ...], Bindings]:
    """What was awaited and what was heard, aligned as well as they can be where they do not fit; and what was bound."""
    entries: list[Entry] = []
    known = dict(known)
    at = 0
    left = list(items)
    while left and left[0].group is None:
        found = left[0].match_end(data, at, known, eol)
        if found is None:
            break
        entries.append(Entry(left.pop(0), data[at : found[0]], at, matches=True))
        known.update(found[1])
        at = found[0]
    pieces = list(_pieces(data, at, eol))
    for entry in _aligned(_in_received_order(left, pieces, known, eol), pieces, known, eol):
        if entry.matches and entry.expected is not None and entry.received is not None:
            found = entry.expected.match_end(entry.received, 0, known, eol)
            known.update(found[1] if found else {})
        entries.append(entry)
    return tuple(entries), known


def _pieces(data: bytes, at: int, eol: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of what was heard, each with its end; the last may have none."""
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        yield at, data[at:end]
        at = end


def _is(item: Expectation, piece: bytes, known: Bindings, eol: bytes) -> bool:
    found = item.match_end(piece, 0, known, eol)
    return found is not None and found[0] == len(piece)


def _in_received_order(
    items: list[Expectation], pieces: list[tuple[int, bytes]], known: Bindings, eol: bytes
) -> list[Expectation]:
    """The items with those of each free group in the order in which they were heard, the unheard ones last."""
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
                hit = next((one for one in members if one not in order and _is(one, piece, known, eol)), None)
                if hit is not None:
                    order.append(hit)
            members = order + [one for one in members if one not in order]
        out.extend(members)
    return out


def _aligned(
    items: list[Expectation], pieces: list[tuple[int, bytes]], known: Bindings, eol: bytes
) -> Iterator[Entry]:
    """A longest common subsequence; what lies between its members is paired off in order."""
    rows, columns = len(items), len(pieces)
    matches = [[_is(item, piece, known, eol) for _, piece in pieces] for item in items]
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


# --- what captures have bound, and where ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Binding:
    """What a name stands for since this line of the script."""

    name: str
    value: str
    file: str
    line: int


def bind_in_order(
    expected: Iterable[tuple[str, Expectation]], received: Mapping[str, bytes], known: Bindings, eol: bytes
) -> Bindings:
    """What is bound where not everything fits: each client's lines count up to the first that is wrong or in no order."""
    known, at, stuck = dict(known), dict.fromkeys(received, 0), set[str]()
    for client, item in expected:
        found = None
        if client not in stuck and item.group is None:
            found = item.match_end(received.get(client, b""), at.get(client, 0), known, eol)
        if found is None:
            stuck.add(client)
        else:
            at[client] = found[0]
            known.update(found[1])
    return known


def newly_bound(
    known: Bindings, before: Mapping[str, Binding], expected: Iterable[tuple[str, Expectation]]
) -> dict[str, Binding]:
    """What this turn has bound, each at the first line that has its name."""
    out = dict(before)
    for _, item in expected:
        if isinstance(item.step, ReceivePattern):
            for capture in item.step.pattern.captures:
                if capture.name in known and capture.name not in out:
                    out[capture.name] = Binding(capture.name, known[capture.name], item.file, item.line)
    return out


def conflicting_bindings(
    expected: Expectation, received: bytes, bound: Sequence[Binding], eol: bytes
) -> Iterator[Binding]:
    """The names for which alone this line is not what was awaited: unbound, they would have taken it."""
    if not isinstance(expected.step, ReceivePattern) or not received.endswith(eol):
        return
    pattern = expected.step.pattern
    text = received[: -len(eol)].decode("utf-8", "surrogateescape")
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
