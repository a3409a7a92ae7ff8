"""The best alignment of what was expected and received, in a turn that does not match.

Something is always reported: an entry that does not match, or an order that is not shared. A client that depends on no other
and received what is expected has no such entry.

Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.language.steps import (
    ReceiveUntil,
)
from harness.playing.bindings import bind_in_order
from harness.playing.expectations import Entry, Expectation, TurnExpectations, Values, lines_of
from harness.playing.matching import ClientGroup, TurnMatch, assigned, rank

_WINDOW = 300
"""The most lines that are compared with one another."""


@dataclass(frozen=True, slots=True)
class TurnAlignment:
    """The best alignment of each client in a turn that does not match, and the names that it binds."""

    bindings: Values
    entries: Mapping[str, tuple[Entry, ...]]
    disagreed: int | None
    """The group whose order clients did not share though each received the right lines. Without it, some entry does not
    match."""


def align_turn(
    expected: TurnExpectations, received: Mapping[str, bytes], known: Values, eol: bytes
) -> TurnAlignment:
    """The alignment of each client. A client whose lines match whatever the others received has no entry that does not."""
    bindings, lanes = dict(known), dict[str, tuple[Entry, ...]]()
    disagreed: int | None = None
    everyone = ClientGroup(
        tuple(expected.lines), expected.in_order, expected.agreements, received, known, eol
    )
    for clients in everyone.divided():
        found = clients.match_in_time()
        if found is None:
            found = _align_together(clients)
            if _all_match(found):
                found = _with_conflicts(clients, found)
            if _all_match(found):
                group = _disagreement(clients)
                if group is None:
                    found = _without_match(found)
                elif disagreed is None:
                    disagreed = group
        bindings.update(found.bindings)
        lanes.update(found.entries)
    for client in received.keys() - lanes.keys():
        lanes[client] = align((), received[client], known, eol)[0]
    in_order = dict.fromkeys([*received, *lanes])
    return TurnAlignment(bindings, {client: lanes[client] for client in in_order}, disagreed)


def _all_match(found: TurnMatch) -> bool:
    return all(entry.matches for lane in found.entries.values() for entry in lane)


def _align_together(clients: ClientGroup) -> TurnMatch:
    """As many as possible of those that match alone are matched together, those first that bind a name first in the script;
    each of the others is aligned with the names that have a value by then."""
    known, eol = clients.known, clients.eol
    binder: dict[str, str] = {}
    for client, item in clients.items:
        for name in item.names:
            binder.setdefault(name, client)
    order = dict.fromkeys([*(one for name, one in binder.items() if name not in known), *clients.clients])
    alone = (replace(clients.only([one]), agreements=()) for one in order if len(order) > 1)
    right = [one.clients[0] for one in alone if one.match_in_time()]
    given = {
        name: value
        for name, value in bind_in_order(clients.items, clients.received, known, eol).items()
        if name in known or binder[name] not in right
    }

    def matched(number: int) -> TurnMatch | None:
        return replace(clients.only(right[:number]), known=given).match_in_time()

    most = bisect_left(range(1, len(right) + 1), True, key=lambda number: matched(number) is None)
    found = matched(most)
    expected, lanes = clients.lanes(), dict(found.entries) if found else {}
    bound = dict(found.bindings if found else given)
    for client in clients.clients:
        if client not in lanes:
            aligned = align if len(order) > 1 else _align_what_does_not_match
            lanes[client], more = aligned(expected[client], clients.data(client), bound, eol)
            bound.update(more)
    return TurnMatch(bound, lanes)


def _with_conflicts(clients: ClientGroup, found: TurnMatch) -> TurnMatch:
    """The same, except that a line does not match if one before it in the script has bound a name to something else, and that
    the first of the lines before an end that is that end leaves the others unexpected."""
    known, lanes = dict(clients.known), {client: [*lane] for client, lane in found.entries.items()}
    for client, item in clients.items:
        lane, ended = lanes[client], False
        for at, entry in enumerate(lane):
            if entry.expected is not item or entry.received is None:
                continue
            end = item.match_end(entry.received, 0, known, clients.eol)
            if ended:
                lane[at] = Entry(None, entry.received, entry.offset, matches=False)
            elif end is not None:
                lane[at], ended = replace(entry, passed_over=False), True
                known.update(end[1])
            elif not entry.passed_over:
                lane[at] = replace(entry, matches=False)
    return TurnMatch(known, {client: tuple(lane) for client, lane in lanes.items()})


def _without_match(found: TurnMatch) -> TurnMatch:
    """The same, where nothing that was received matches: it cannot be told what is wrong, but all of it together is."""
    lanes = {
        client: tuple(entry if entry.received is None else replace(entry, matches=False) for entry in lane)
        for client, lane in found.entries.items()
    }
    return TurnMatch(found.bindings, lanes)


def _disagreement(clients: ClientGroup) -> int | None:
    """The first group whose order alone keeps these clients from matching, or else the first that they share."""
    own = {item.group for _, item in clients.items}
    groups = [group for group in clients.agreements if group in own]
    alone = (one for one in groups if replace(clients, agreements={one}).match_in_time() is None)
    return next(alone, groups[0] if groups else None)


def align(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes
) -> tuple[tuple[Entry, ...], Values]:
    """The first match of one client's data, or else the best alignment; and the names that it binds."""
    found = ClientGroup([""], [("", item) for item in items], (), {"": data}, known, eol).match_in_time()
    if found is not None:
        return found.entries[""], found.bindings
    return _align_what_does_not_match(items, data, known, eol)


def _align_what_does_not_match(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes
) -> tuple[tuple[Entry, ...], Values]:
    first = ClientGroup([""], [("", item) for item in items], (), {"": data}, known, eol).longest_beginning()
    entries, known, left = [*first.entries], dict(first.bindings), [*items[first.expectations :]]
    pieces = list(lines_of(data, first.offset))
    for entry in _aligned(_in_received_order(left, pieces, known, eol), pieces, known, eol):
        if entry.matches and entry.expected and entry.received is not None and not entry.passed_over:
            end = entry.expected.match_end(entry.received, 0, known, eol)
            if end is None:  # a line before it has bound the same name to something else
                entry = replace(entry, matches=False)
            else:
                known.update(end[1])
        entries.append(entry)
    return tuple(entries), known


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
            by_rank = sorted(range(size), key=lambda at: rank(members[at]))
            fits = [[at for at in by_rank if members[at].accepts(piece, known, eol)] for _, piece in pieces]
            place = [{}, *assigned(fits)][-1]
            members = [members[at] for at in sorted(range(size), key=lambda at: place.get(at, len(pieces)))]
        out.extend(members)
    return out


def _aligned(
    items: list[Expectation], pieces: list[tuple[int, bytes]], known: Values, eol: bytes
) -> Iterator[Entry]:
    """Those in common are matched; the items between them are paired in order."""
    i = j = 0
    for at, other in _in_common(items, pieces, known, eol):
        yield from _paired(items[i:at], pieces[j:other], items[at])
        yield Entry(items[at], pieces[other][1], pieces[other][0], matches=True)
        i, j = at + 1, other + 1
    yield from _paired(items[i:], pieces[j:], items[-1] if items[i:] else None)


def _in_common(
    items: list[Expectation], pieces: list[tuple[int, bytes]], known: Values, eol: bytes
) -> Iterator[tuple[int, int]]:
    """The offsets of a longest common subsequence. What precedes a long common end is compared in windows, each of which
    begins behind the last match of the one before."""
    i = j = 0
    rows, columns = len(items), len(pieces)
    if max(rows, columns) > _WINDOW:
        while rows and columns and items[rows - 1].accepts(pieces[columns - 1][1], known, eol):
            rows, columns = rows - 1, columns - 1
    while i < rows and j < columns:
        end, other_end = min(i + _WINDOW, rows), min(j + _WINDOW, columns)
        window = [one for _, one in pieces[j:other_end]]
        found = _longest_in_common(items[i:end], window, known, eol)
        yield from ((i + at, j + other) for at, other in found)
        if found and (end, other_end) != (rows, columns):
            end, other_end = i + found[-1][0] + 1, j + found[-1][1] + 1
        i, j = end, other_end
    yield from zip(range(rows, len(items)), range(columns, len(pieces)), strict=True)


def _longest_in_common(
    items: list[Expectation], pieces: list[bytes], known: Values, eol: bytes
) -> list[tuple[int, int]]:
    rows, columns = len(items), len(pieces)
    matches = [[item.accepts(piece, known, eol) for piece in pieces] for item in items]
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            best[i][j] = best[i + 1][j + 1] + 1 if matches[i][j] else max(best[i + 1][j], best[i][j + 1])
    i = j = 0
    out: list[tuple[int, int]] = []
    while i < rows and j < columns:
        if matches[i][j]:
            out.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return out


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
