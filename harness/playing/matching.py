"""Finds the first way in which a turn matches completely, if there is one.

- The order within one client is exact, except inside an `in any order:`.
- Every byte received must belong to an expectation; an optional one can be without bytes.
- A name is bound by the first line of the script that has it and came; in the others only this value matches.
- Clients that share an order each received a part of it, and only optional lines are missing in a part.
- Clients are searched together only where they depend on one another.
- A search of more than a number of dead ends is given up. One that is long looks ahead: at what each client alone could match.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, groupby, pairwise

from harness.language.steps import (
    ReceiveBody,
    ReceiveBytes,
    ReceivePattern,
    ReceiveUntil,
)
from harness.playing.expectations import Entry, Expectation, TurnExpectations, Values, lines_of

MOST_DEAD_ENDS = 10_000
"""How often the search for the match of some clients can come to a place from which it cannot go on."""
_FEW_DEAD_ENDS = 100
"""After so many, a search that looks ahead pays."""
_DEAD_ENDS_OF_A_BEGINNING = 1_000


class TooManyWays(Exception):
    """There are more ways in which this turn can match than are tried."""


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
    everyone = ClientGroup(
        tuple(expected.lines), expected.in_order, expected.agreements, received, known, eol
    )
    bindings, entries = dict(known), dict[str, tuple[Entry, ...]]()
    for clients in everyone.divided() if everyone.has_choice else [everyone]:
        found = clients.match()
        if found is None:
            return None
        bindings.update(found.bindings)
        entries.update(found.entries)
    return TurnMatch(bindings, entries)


@dataclass(frozen=True, slots=True)
class ClientGroup:
    """Clients that are matched together: what each of them expects, in the order of the script, and what it received."""

    clients: Sequence[str]
    items: Sequence[tuple[str, Expectation]]
    agreements: Collection[int]
    """The groups whose order they have to share."""
    received: Mapping[str, bytes]
    known: Values
    eol: bytes

    @property
    def has_choice(self) -> bool:
        return any(item.group is not None or item.optional for _, item in self.items)

    def data(self, client: str) -> bytes:
        return self.received.get(client, b"")

    def lanes(self) -> dict[str, list[Expectation]]:
        """What each client expects."""
        out: dict[str, list[Expectation]] = {client: [] for client in self.clients}
        for client, item in self.items:
            out[client].append(item)
        return out

    def only(self, clients: Sequence[str]) -> ClientGroup:
        among = frozenset(clients)
        return replace(self, clients=clients, items=[one for one in self.items if one[0] in among])

    def divided(self) -> list[ClientGroup]:
        """The same clients, together only where they share an order, or a name that has no value yet."""
        together = {client: [client] for client in self.clients}

        def join(one: str, other: str) -> None:
            mine, theirs = together[one], together[other]
            if mine is not theirs:
                mine.extend(theirs)
                together.update(dict.fromkeys(theirs, mine))

        first: dict[object, str] = {}
        for client, item in self.items if len(together) > 1 else ():
            for name in item.names:
                if name not in self.known:
                    join(first.setdefault(name, client), client)
            if item.group in self.agreements:
                join(first.setdefault(item.group, client), client)
        own: dict[int, list[tuple[str, Expectation]]] = {}
        for one in self.items:
            own.setdefault(id(together[one[0]]), []).append(one)
        return [
            replace(self, clients=[*dict.fromkeys(client for client, _ in items)], items=items)
            for items in own.values()
        ]

    def match(self) -> TurnMatch | None:
        """The first match; TooManyWays if there is too much to try."""
        if not self.has_choice:
            return self._match_without_choice()
        try:
            return _Search(self).first(_FEW_DEAD_ENDS)
        except TooManyWays:
            lanes = self.lanes().items()
            if not all(could_match(items, self.data(one), self.known, self.eol) for one, items in lanes):
                return None
        return _Search(self, looks_ahead=True).first(MOST_DEAD_ENDS)

    def match_in_time(self) -> TurnMatch | None:
        """The first match, if there is not too much to try."""
        try:
            return self.match()
        except TooManyWays:
            return None

    def longest_beginning(self) -> Beginning:
        """The longest beginning of one client's data that the first of its expectations match. The last of them came."""
        search = _Search(self, to_the_end=False)
        with suppress(TooManyWays):
            search.first(_DEAD_ENDS_OF_A_BEGINNING)
        return search.longest

    def _match_without_choice(self) -> TurnMatch | None:
        bindings, offsets = dict(self.known), dict.fromkeys(self.clients, 0)
        entries: dict[str, list[Entry]] = {client: [] for client in offsets}
        for client, item in self.items:
            found = item.find(self.data(client), offsets[client], bindings, self.eol)
            if found is None:
                return None
            new, offsets[client], bound = found
            entries[client].extend(new)
            bindings.update(bound)
        if any(offset < len(self.data(client)) for client, offset in offsets.items()):
            return None
        return TurnMatch(bindings, {client: tuple(lane) for client, lane in entries.items()})


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first expectations of one client, which match the beginning of what it received."""

    expectations: int
    """How many these are."""
    entries: tuple[Entry, ...]
    offset: int
    """Where the rest begins."""
    bindings: Values


Slot = tuple[str, int]
"""One of the lines whose order several clients share: its text, and its number among those with this text."""

Piece = tuple[int, int, Expectation | None]
"""The start and end of a line, or of bytes that belong to this expectation."""

Choices = Iterator[bool]
"""One step of a search: makes one choice after the other, and takes each back before the next."""


def _in_one_order(orders: Iterable[tuple[tuple[Slot, bytes], ...]]) -> bool:
    """Whether all these are parts of one order, in which equal lines of two of them are, as far as possible, one line."""
    distinct = [*dict.fromkeys(orders)]
    whole = TopologicalSorter[Slot]()
    for order in distinct:
        for (before, _), (after, _) in pairwise(order):
            whole.add(after, before)
    try:
        whole.prepare()
    except CycleError:
        return False
    lines = [Counter(line for _, line in order) for order in distinct]
    return all(
        len({*distinct[one]} & {*distinct[other]}) == (lines[one] & lines[other]).total()
        for one, other in combinations(range(len(distinct)), 2)
    )


@dataclass(slots=True, eq=False)
class _Part:
    """What one client receives of an `in any order:`, while a match is searched for."""

    client: str
    items: list[Expectation]
    rest: list[Expectation]
    """What follows it at this client."""
    pieces: Sequence[Piece] = ()
    """What comes next at this client; as many of these as there are items that come."""
    size: int = 0
    """How many these are, if all come that are not known to be absent."""
    members: list[_Member] = field(default_factory=list)
    taken: dict[int, _Member] = field(default_factory=dict)
    slots: dict[Slot, int] = field(default_factory=dict)
    """The piece in each slot of a shared order."""
    leader: _Part | None = None
    """The first of those that share the order, for the others."""
    lacks: int = 0
    """How many slots of the leader it can lack."""
    adds: int = 0
    """How many slots it can have that the leader lacks."""
    due: dict[_Member, list[int]] = field(default_factory=dict)
    """In a search that looks ahead: the pieces that only this member and those before it can take."""
    at_least: Counter[bytes] = field(default_factory=Counter)
    """In such a search: how often each line is certainly among its pieces."""
    at_most: Counter[bytes] = field(default_factory=Counter)

    def follow(self, leader: _Part) -> None:
        self.leader = leader
        models = {one.slot: one for one in leader.members}
        for one in self.members:
            one.model = models.get(one.slot)
        theirs = {one.slot: one.item.optional for one in leader.members}
        mine = {one.slot: one.item.optional for one in self.members}
        self.lacks = sum(mine.get(slot, True) for slot in theirs)
        self.adds = sum(theirs.get(slot, True) for slot in mine)

    def fits(self, slot: Slot, at: int) -> bool:
        """Whether this slot, if it has this piece, has the place that it has in the order of the leader."""
        place = self.leader.slots.get(slot) if self.leader else None
        if self.leader is None or place is None:
            return True
        order = self.leader.slots
        return place - self.lacks <= at <= place + self.adds and all(
            (order[other] < place) is (there < at) for other, there in self.slots.items() if other in order
        )


@dataclass(slots=True, eq=False)
class _Member:
    """One expectation of an `in any order:`, for one client."""

    part: _Part
    item: Expectation
    slot: Slot | None
    """Where several clients share the order."""
    model: _Member | None = None
    """That of the leader in this slot."""
    twin: _Member | None = None
    """The one before it that is like it: of the two, the first takes the first piece."""
    twins_after: int = 0
    """How many more have to come that are like it."""
    piece: int | None = None
    """The piece that it takes; None before that, and if it is absent."""
    placed: bool = False
    """Whether it has a piece, or is absent."""


class _Search:
    """The search for the first match of some clients.

    - Receives are matched in the order of the script, so the first of them that has a name binds it.
    - Those of an `in any order:` each take one of the pieces that come next at their client, and leave none of these.
    - A search can look ahead: a piece that no later receive can take, and a line that another client has in this place of a
      shared order, are taken.
    - Of choices that are alike one is tried: equal pieces are alike, and so are expectations that differ only in names that
      nothing else has.

    The steps of an `in any order:` are: the next bytes of each client are cut into pieces, each expectation takes one of them,
    each client goes on behind them, and their orders are compared.
    """

    def __init__(self, clients: ClientGroup, looks_ahead: bool = False, to_the_end: bool = True) -> None:
        self._clients = clients
        self._looks_ahead = looks_ahead
        self._to_the_end = to_the_end
        """Whether everything that was received has to match. Without that, `longest` is looked for, of one client."""
        self.longest = Beginning(0, (), 0, clients.known)
        self._longer: tuple[int, int, int, Values] | None = None
        """That of what is matched now, if it is longer: the numbers of expectations and entries, the offset, the bindings."""
        self._data = {client: clients.data(client) for client in clients.clients}
        self._known = clients.known
        self._eol = clients.eol
        self._offsets = dict.fromkeys(self._data, 0)
        self._entries: dict[str, list[Entry]] = {client: [] for client in self._data}
        self._steps: list[Callable[[], Choices]] = []
        self._between: dict[int, int] = {}
        """The steps before which every `in any order:` that has begun is complete, and how many expectations precede them."""
        self._last_use: dict[str, int] = {}
        """The last step that has each name, of those that are bound here."""
        self._add_steps()

    def first(self, most_dead_ends: int) -> TurnMatch | None:
        """The first match, or None; TooManyWays if there are more dead ends before it."""
        steps, made, failed, dead_ends = self._steps, list[Choices](), set[object](), 0
        while len(made) < len(steps):
            if not self._to_the_end and len(made) in self._between:
                self._note_beginning(self._between[len(made)])
            known_to_fail = failed and len(made) in self._between and self._state(len(made)) in failed
            made.append(iter(()) if known_to_fail else steps[len(made)]())
            while not next(made[-1], False):
                self._save_longer()
                made.pop()
                if not made:
                    return None
                if len(made) in self._between:
                    failed.add(self._state(len(made)))
                dead_ends += 1
                if dead_ends > most_dead_ends:
                    raise TooManyWays
        if not self._to_the_end:
            self._note_beginning(len(self._clients.items))
            self._save_longer()
        return TurnMatch(self._known, {client: tuple(lane) for client, lane in self._entries.items()})

    def _note_beginning(self, expectations: int) -> None:
        [(client, offset)] = self._offsets.items()
        if offset > (self._longer[2] if self._longer is not None else self.longest.offset):
            self._longer = expectations, len(self._entries[client]), offset, self._known

    def _save_longer(self) -> None:
        """Called before anything of it is taken back."""
        if self._longer is not None:
            expectations, entries, offset, known = self._longer
            [lane] = self._entries.values()
            self.longest, self._longer = Beginning(expectations, tuple(lane[:entries]), offset, known), None

    def _state(self, step: int) -> object:
        """All that decides whether there is a match from this step on."""
        names = tuple(self._known.get(name) for name, last in self._last_use.items() if last >= step)
        return step, tuple(self._offsets.values()), names

    # --- the steps ------------------------------------------------------------------------------------------

    def _add_steps(self) -> None:
        last = {client: number for number, (client, _) in enumerate(self._clients.items)}
        for client in self._data.keys() - last.keys():
            self._add_end(client)
        start = 0
        for group, run in groupby(self._clients.items, key=lambda one: one[1].group):
            members = [*run]
            if group is None:
                for number, (client, item) in enumerate(members, start):
                    self._between[len(self._steps)] = number
                    self._add(item, partial(self._receive, client, item))
                    if last[client] == number:
                        self._add_end(client)
            else:
                self._between[len(self._steps)] = start
                self._add_group(group, members, self._clients.items[start + len(members) :])
                for number, (client, _) in enumerate(members, start):
                    if last[client] == number:
                        self._add_end(client)
            start += len(members)

    def _add_end(self, client: str) -> None:
        if self._to_the_end:
            self._steps.append(partial(self._end, client))

    def _add(self, item: Expectation, step: Callable[[], Choices]) -> None:
        self._last_use.update((name, len(self._steps)) for name in item.names if name not in self._known)
        self._steps.append(step)

    def _add_group(
        self,
        group: int,
        members: Sequence[tuple[str, Expectation]],
        rest: Sequence[tuple[str, Expectation]],
    ) -> None:
        parts = {client: _Part(client, [], []) for client, _ in members}
        for client, item in members:
            parts[client].items.append(item)
        for client, item in rest if self._looks_ahead else ():
            if client in parts:
                parts[client].rest.append(item)
        shared = group in self._clients.agreements and len(parts) > 1
        if shared:
            # The leader of the order is the first to receive what all of them do.
            leader = next((client for client, item in members if not item.step.client), members[0][0])
            parts = {leader: parts[leader], **parts}
        several = [part for part in parts.values() if shared or len(part.items) > 1]
        self._steps.extend(partial(self._cut, part) for part in several)
        slots = {(part.client, id(item)): slot for part in several if shared for item, slot in _slots(part)}
        # Literal lines bind nothing, and fit in few places; an optional one leaves these to one that has to come.
        for client, item in sorted(members, key=lambda one: rank(one[1])):
            part = parts[client]
            if shared or len(part.items) > 1:
                part.members.append(_Member(part, item, slots.get((client, id(item)))))
                self._add(item, partial(self._place, part.members[-1]))
            else:
                self._add(item, partial(self._receive, client, item))
        self._find_twins(several)
        self._steps.extend(partial(self._close, part) for part in several)
        if shared:
            for part in several[1:]:
                part.follow(several[0])
            self._steps.append(partial(self._agree, several))

    def _find_twins(self, parts: Sequence[_Part]) -> None:
        """Where clients share an order, what is alike has to be alike for each of them, and only the first is bound by it."""
        names = Counter(
            name
            for item in {id(item): item for _, item in self._clients.items}.values()
            for name in item.names
        )
        own = {name for name, number in names.items() if number == 1 and name not in self._known}
        decided: set[Slot] = set()
        holders: dict[Slot, tuple[tuple[str, bool], ...]] = {}
        for part in parts:
            for one in part.members:
                if one.slot is not None:
                    holders[one.slot] = (*holders.get(one.slot, ()), (part.client, one.item.optional))
        for part in parts:
            last: dict[object, _Member] = {}
            for one in part.members:
                if one.slot in decided:
                    continue
                for_all = one.item.optional if one.slot is None else holders[one.slot]
                kind = one.item.without(own), for_all
                one.twin, last[kind] = last.get(kind), one
            for one in reversed(part.members):
                if one.twin is not None and not one.item.optional:
                    one.twin.twins_after = one.twins_after + 1
            decided.update(one.slot for one in part.members if one.slot is not None)

    def _end(self, client: str) -> Choices:
        if self._offsets[client] == len(self._data[client]):
            yield True

    def _receive(self, client: str, item: Expectation) -> Choices:
        offset, known, lane = self._offsets[client], self._known, self._entries[client]
        size = len(lane)
        found = item.find(self._data[client], offset, known, self._eol)
        if found is not None:
            new, self._offsets[client], bound = found
            lane.extend(new)
            if bound:
                self._known = {**known, **bound}
            yield True
            self._offsets[client], self._known = offset, known
            del lane[size:]
        if item.optional:
            lane.append(Entry(item, None, offset, matches=True))
            yield True
            del lane[size:]

    def _cut(self, part: _Part) -> Choices:
        needed = sum(not item.optional for item in part.items)
        data, offset = self._data[part.client], self._offsets[part.client]
        for pieces in _pieces(part.items, data, offset, self._eol):
            part.pieces, part.size = pieces, len(part.items)
            if len(pieces) >= needed and (not self._looks_ahead or self._look_ahead(part)):
                yield True

    def _look_ahead(self, part: _Part) -> bool:
        """Find out what has to be taken if names have the values that each line needs; False if that is impossible."""
        data, known, eol = self._data[part.client], self._clients.known, self._eol
        least, most = _least_and_most(part.items, part.pieces, data, known, eol)
        stops = [self._offsets[part.client], *(end for _, end, _ in part.pieces)]
        sizes = range(least, most + 1)
        certain = next((one for one in sizes if could_match(part.rest, data[stops[one] :], known, eol)), None)
        if certain is None:
            return False
        part.due = {}
        for at in range(certain):
            takers = [one for one in part.members if _takes(one.item, part.pieces[at], data, known, eol)]
            part.due.setdefault(takers[-1], []).append(at)
        lines = [self._piece(part, at) for at in range(len(part.pieces))]
        part.at_least, part.at_most = Counter(lines[:certain]), Counter(lines)
        return True

    def _place(self, member: _Member) -> Choices:
        part, item, known = member.part, member.item, self._known
        due = [at for at in part.due.get(member, ()) if at not in part.taken]
        needed = self._needed(member)
        options = self._options(member, due, needed)
        if member.twins_after:
            # Each of these takes a later one.
            listed = [*options]
            options = iter(listed[: max(0, len(listed) - member.twins_after)])
        tried: set[bytes] = set()
        member.placed = True
        for at, bound in options:
            if member.slot is not None:
                part.slots[member.slot] = at
            elif (piece := self._piece(part, at)) in tried:
                continue
            else:
                tried.add(piece)
            part.taken[at], member.piece = member, at
            if bound:
                self._known = {**known, **bound}
            yield True
            del part.taken[at]
            member.piece, self._known = None, known
            if member.slot is not None:
                del part.slots[member.slot]
        if item.optional and not due and needed is None and part.size - 1 not in part.taken:
            part.size -= 1
            yield True
            part.size += 1
        member.placed = False

    def _options(
        self, member: _Member, due: Sequence[int], needed: bytes | None
    ) -> Iterator[tuple[int, Values]]:
        """The pieces that it can take, and what it then binds."""
        part, item, known = member.part, member.item, self._known
        data, first = self._data[part.client], 0
        if member.twin is not None:
            first = part.size if member.twin.piece is None else member.twin.piece + 1
        own = item if isinstance(item.step, ReceiveBytes) else None
        for at in range(first, min(part.size, len(part.pieces))):
            start, end, owner = part.pieces[at]
            if at in part.taken or owner is not own or (due and due != [at]):
                continue
            found = item.match_end(data, start, known, self._eol)
            if found is None or found[0] != end:
                continue
            if needed is not None and self._piece(part, at) != needed:
                continue
            if member.slot is None or (part.fits(member.slot, at) and self._is_alike(member, at)):
                yield at, found[1]

    def _needed(self, member: _Member) -> bytes | None:
        """The line that the leader has in this slot, if this client certainly has it as often."""
        leader, model = member.part.leader, member.model
        if leader is None or model is None or model.piece is None:
            return None
        line = self._piece(leader, model.piece)
        return line if member.part.at_least[line] >= leader.at_most[line] > 0 else None

    def _is_alike(self, member: _Member, at: int) -> bool:
        """Whether the leader has the same line in this slot, or possibly does not have it as often as this client."""
        part, leader, model = member.part, member.part.leader, member.model
        if not self._looks_ahead or leader is None or (model is not None and not model.placed):
            return True
        line = self._piece(part, at)
        if leader.at_least[line] < part.at_most[line]:
            return True
        return model is not None and model.piece is not None and self._piece(leader, model.piece) == line

    def _piece(self, part: _Part, at: int) -> bytes:
        start, end, _ = part.pieces[at]
        return self._data[part.client][start:end]

    def _close(self, part: _Part) -> Choices:
        client, lane = part.client, self._entries[part.client]
        offset, size = self._offsets[client], len(lane)
        for at in range(part.size):
            start, self._offsets[client], _ = part.pieces[at]
            lane.append(Entry(part.taken[at].item, self._piece(part, at), start, matches=True))
        at_end = self._offsets[client]
        lane.extend(Entry(one.item, None, at_end, matches=True) for one in part.members if one.piece is None)
        yield True
        self._offsets[client] = offset
        del lane[size:]

    def _agree(self, parts: Sequence[_Part]) -> Choices:
        orders = []
        for part in parts:
            in_order = sorted(part.slots.items(), key=lambda one: one[1])
            orders.append(tuple((slot, self._piece(part, at)) for slot, at in in_order))
        if _in_one_order(orders):
            yield True


def _slots(part: _Part) -> Iterator[tuple[Expectation, Slot]]:
    """The slot of each item. What each client receives comes before what only this one does."""
    alike = Counter[str]()
    for item in sorted(part.items, key=lambda one: (one.step.client != "", one.optional)):
        yield item, (item.text, alike[item.text])
        alike[item.text] += 1


def rank(item: Expectation) -> int:
    """Literal lines, which fit in few places, before patterns; and those that have to come first."""
    return 2 if isinstance(item.step, ReceivePattern) else int(item.optional)


def _pieces(items: Sequence[Expectation], data: bytes, start: int, eol: bytes) -> Iterator[tuple[Piece, ...]]:
    """What comes next in the data, for as many pieces as there are items: lines, and the bytes that some of them expect.
    Only with these can there be several ways."""
    literal = tuple(item for item in items if isinstance(item.step, ReceiveBytes))
    stack: list[tuple[int, tuple[Piece, ...], int, tuple[Expectation, ...]]]
    stack = [(start, (), len(items) - len(literal), literal)]
    while stack:
        at, pieces, lines, left = stack.pop()
        onward = []
        for number, item in enumerate(left):
            found = item.match_end(data, at, {}, eol)
            alike = item.without(()) in (one.without(()) for one in left[:number] if not one.optional)
            if found is not None and not (alike and not item.optional):
                others = tuple(one for one in left if one is not item)
                onward.append((found[0], (*pieces, (at, found[0], item)), lines, others))
        end = data.find(eol, at) if lines else -1
        if end >= 0:
            end += len(eol)
            onward.append((end, (*pieces, (at, end, None)), lines - 1, left))
        if not onward:
            yield pieces
        stack.extend(reversed(onward))


# --- what one client alone could match ----------------------------------------------------------------------


def could_match(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes, so_far: bool = False
) -> bool:
    """Whether a client's data could match if each name that is not known had the value that each line needs; `so_far`:
    whether it could if something came that is missing."""
    ends = {0}
    units = [[*unit] for group, run in groupby(items, key=lambda one: one.group)
             for unit in ([run] if group is not None else ([one] for one in run))]  # fmt: skip
    for number, unit in enumerate(units):
        needed = any(not item.optional for later in units[number:] for item in later)
        onward: set[int] = set()
        for start in ends:
            if so_far and data.find(b"\n", start) < 0 and (needed or start < len(data)):
                return True
            if len(unit) > 1:
                for pieces in _pieces(unit, data, start, eol):
                    least, most = _least_and_most(unit, pieces, data, known, eol)
                    stops = [start, *(end for _, end, _ in pieces)]
                    onward.update(stops[least : most + 1])
                    rest = stops[-1]
                    begun = most == len(pieces) < len(unit) and data.find(b"\n", rest) < 0
                    if so_far and begun and (least > most or rest < len(data)):
                        return True
                continue
            [item] = unit
            match item.step:
                case ReceiveBody(_, str(size)) if size not in known:
                    return True  # of any size
                case ReceiveBody() | ReceiveBytes() | ReceiveUntil() if so_far and item.begins(
                    data, start, known
                ):
                    return True
                case ReceiveUntil():
                    found = (item.match_end(data, at, known, eol) for at, _ in lines_of(data, start))
                    onward.update(one[0] for one in found if one is not None)
                case _:
                    one = item.match_end(data, start, known, eol)
                    onward.update([one[0]] if one is not None else [])
                    onward.update([start] if item.optional else [])
        ends = onward
    return not so_far and len(data) in ends


def _least_and_most(
    items: Sequence[Expectation], pieces: Sequence[Piece], data: bytes, known: Values, eol: bytes
) -> tuple[int, int]:
    """How many of the pieces have to be there for all items that have to come, and how many can each have an item."""
    fits = [
        [number for number, item in enumerate(items) if _takes(item, piece, data, known, eol)]
        for piece in pieces
    ]
    needed = {number for number, item in enumerate(items) if not item.optional}
    with_item = _numbers_assigned(fits)
    with_needed = _numbers_assigned([[one for one in takes if one in needed] for takes in fits])
    most = next((number for number, size in enumerate(with_item) if size < number), len(fits) + 1) - 1
    least = next((number for number, size in enumerate(with_needed) if size == len(needed)), len(fits) + 1)
    return least, most


def _takes(item: Expectation, piece: Piece, data: bytes, known: Values, eol: bytes) -> bool:
    start, end, owner = piece
    if owner is not (item if isinstance(item.step, ReceiveBytes) else None):
        return False
    found = item.match_end(data, start, known, eol)
    return found is not None and found[0] == end


def _numbers_assigned(fits: Sequence[Sequence[int]]) -> list[int]:
    """How many of the first pieces, for each number of them, can each have an item that no other has."""
    return [0, *map(len, assigned(fits))]


def assigned(fits: Sequence[Sequence[int]]) -> Iterator[Mapping[int, int]]:
    """For each of the first pieces: the items that as many of them as possible can have, and the piece of each; of the items
    that fit, the first ones rather."""
    holder: dict[int, int] = {}
    for piece in range(len(fits)):
        came_from: dict[int, int] = {}  # the item that would be given up for this one
        todo, free = [(piece, -1)], -1
        while todo and free < 0:
            one, given_up = todo.pop()
            for item in fits[one]:
                if item in came_from:
                    continue
                came_from[item] = given_up
                if item not in holder:
                    free = item
                    break
                todo.append((holder[item], item))
        while free >= 0:
            given_up = came_from[free]
            holder[free] = holder[given_up] if given_up >= 0 else piece
            free = given_up
        yield holder
