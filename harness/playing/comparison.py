"""Compares what a turn expects with what was received: finds a complete match, or else the best alignment.

- The order within one client is exact, except inside an `in any order:`.
- Every byte received must belong to an expectation; an optional one can be without bytes.
- Of the ways of an `either:` one counts, the same for all clients: the first with which everything matches and every
  connection ended as it says, or else the one with which most does.
- A name is bound by the first line of the script that has it and came; in the others only this value matches.
- Clients that share an order each received a part of it, and only optional lines are missing in a part.
- Of a turn that does not match, something is reported: an entry that does not match, or an order that is not shared. A client
  that depends on no other and received what is expected has no such entry.

Pure: bytes and steps in, entries and bindings out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, groupby, islice, pairwise, product, takewhile
from typing import TypeGuard

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


# --- ways ---------------------------------------------------------------------------------------------------

MOST_TRIED = 2000
"""How many combinations of ways are compared with what one turn received."""
MOST_DEAD_ENDS = 10_000
"""How often the search for the match of some clients can come to a place from which it cannot go on."""
_FEW_DEAD_ENDS = 100
"""After so many, a search that looks ahead pays."""


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
    everyone = _Together(tuple(expected.lines), expected.in_order, expected.agreements, received, known, eol)
    bindings, entries = dict(known), dict[str, tuple[Entry, ...]]()
    for clients in everyone.divided() if everyone.has_choice else [everyone]:
        found = clients.match()
        if found is None:
            return None
        bindings.update(found.bindings)
        entries.update(found.entries)
    return TurnMatch(bindings, entries)


@dataclass(frozen=True, slots=True)
class _Together:
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

    def only(self, clients: Sequence[str]) -> _Together:
        among = frozenset(clients)
        return replace(self, clients=clients, items=[one for one in self.items if one[0] in among])

    def divided(self) -> list[_Together]:
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


Slot = tuple[str, int]
"""One of the lines whose order several clients share: its text, and its number among those with this text."""

Piece = tuple[int, int, "Expectation | None"]
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
    """

    def __init__(self, together: _Together, looks_ahead: bool = False) -> None:
        self._together = together
        self._looks_ahead = looks_ahead
        self._data = {client: together.data(client) for client in together.clients}
        self._known = together.known
        self._eol = together.eol
        self._offsets = dict.fromkeys(self._data, 0)
        self._entries: dict[str, list[Entry]] = {client: [] for client in self._data}
        self._steps: list[Callable[[], Choices]] = []
        self._between: set[int] = set()
        """The steps before which every `in any order:` that has begun is complete."""
        self._last_use: dict[str, int] = {}
        """The last step that has each name, of those that are bound here."""
        self._add_steps()

    def first(self, most_dead_ends: int) -> TurnMatch | None:
        """The first match, or None; TooManyWays if there are more dead ends before it."""
        steps, made, failed, dead_ends = self._steps, list[Choices](), set[object](), 0
        while len(made) < len(steps):
            known_to_fail = failed and len(made) in self._between and self._state(len(made)) in failed
            made.append(iter(()) if known_to_fail else steps[len(made)]())
            while not next(made[-1], False):
                made.pop()
                if not made:
                    return None
                if len(made) in self._between:
                    failed.add(self._state(len(made)))
                dead_ends += 1
                if dead_ends > most_dead_ends:
                    raise TooManyWays
        return TurnMatch(self._known, {client: tuple(lane) for client, lane in self._entries.items()})

    def _state(self, step: int) -> object:
        """All that decides whether there is a match from this step on."""
        names = tuple(self._known.get(name) for name, last in self._last_use.items() if last >= step)
        return step, tuple(self._offsets.values()), names

    # --- the steps ------------------------------------------------------------------------------------------

    def _add_steps(self) -> None:
        last = {client: number for number, (client, _) in enumerate(self._together.items)}
        for client in self._data.keys() - last.keys():
            self._steps.append(partial(self._end, client))
        start = 0
        for group, run in groupby(self._together.items, key=lambda one: one[1].group):
            members = [*run]
            if group is None:
                for number, (client, item) in enumerate(members, start):
                    self._add_receive(client, item)
                    if last[client] == number:
                        self._steps.append(partial(self._end, client))
            else:
                self._add_group(group, members, self._together.items[start + len(members) :])
                for number, (client, _) in enumerate(members, start):
                    if last[client] == number:
                        self._steps.append(partial(self._end, client))
            start += len(members)

    def _add_receive(self, client: str, item: Expectation) -> None:
        self._between.add(len(self._steps))
        self._add(item, partial(self._receive, client, item))

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
        shared = group in self._together.agreements and len(parts) > 1
        self._between.add(len(self._steps))
        if shared:
            # The leader of the order is the first to receive what all of them do.
            leader = next((client for client, item in members if not item.step.client), members[0][0])
            parts = {leader: parts[leader], **parts}
        several = [part for part in parts.values() if shared or len(part.items) > 1]
        self._steps.extend(partial(self._cut, part) for part in several)
        slots = {(part.client, id(item)): slot for part in several if shared for item, slot in _slots(part)}
        # Literal lines bind nothing, and fit in few places; an optional one leaves these to one that has to come.
        for client, item in sorted(members, key=lambda one: _rank(one[1])):
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
            for item in {id(item): item for _, item in self._together.items}.values()
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
        data, known, eol = self._data[part.client], self._together.known, self._eol
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


def _rank(item: Expectation) -> int:
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
                    found = (item.match_end(data, at, known, eol) for at, _ in _lines(data, start))
                    onward.update(one[0] for one in found if one is not None)
                case _:
                    one = item.match_end(data, start, known, eol)
                    onward.update([one[0]] if one is not None else [])
                    onward.update([start] if item.optional else [])
        ends = onward
    return not so_far and len(data) in ends


def could_go_on(
    turn: Turn,
    received: Mapping[str, bytes],
    known: Values,
    eol: bytes,
    ended: Collection[str],
    lost: Collection[str],
) -> bool:
    """Whether with some combination of ways nothing is wrong except that something is missing at clients that can still
    receive it. Those in `ended` cannot; those in `lost` have lost their connection in this turn."""
    ways = product(*(range(len(choice.ways)) for choice in choices_of(turn)))
    for chosen in islice(ways, MOST_TRIED):
        expected = TurnExpectations.of(turn, chosen)
        lacking = False
        for client in dict.fromkeys([*received, *expected.lines]):
            items, data = expected.lines.get(client, ()), received.get(client, b"")
            if client in lost and client not in expected.ends:
                break
            if could_match(items, data, known, eol):
                continue
            if client in ended or not could_match(items, data, known, eol, so_far=True):
                break
            lacking = True
        else:
            if lacking:
                return True
    return False


def _least_and_most(
    items: Sequence[Expectation], pieces: Sequence[Piece], data: bytes, known: Values, eol: bytes
) -> tuple[int, int]:
    """How many of the pieces have to be there for all items that have to come, and how many can each have an item."""
    fits = [
        [number for number, item in enumerate(items) if _takes(item, piece, data, known, eol)]
        for piece in pieces
    ]
    needed = {number for number, item in enumerate(items) if not item.optional}
    with_item = _assigned(fits)
    with_needed = _assigned([[one for one in takes if one in needed] for takes in fits])
    most = next((number for number, size in enumerate(with_item) if size < number), len(fits) + 1) - 1
    least = next((number for number, size in enumerate(with_needed) if size == len(needed)), len(fits) + 1)
    return least, most


def _takes(item: Expectation, piece: Piece, data: bytes, known: Values, eol: bytes) -> bool:
    start, end, owner = piece
    if owner is not (item if isinstance(item.step, ReceiveBytes) else None):
        return False
    found = item.match_end(data, start, known, eol)
    return found is not None and found[0] == end


def _assigned(fits: Sequence[Sequence[int]]) -> list[int]:
    """How many of the first pieces, for each number of them, can each have an item that no other has."""
    holder: dict[int, int] = {}
    out = [0]
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
        if free >= 0:
            out.append(out[-1] + 1)
            while free >= 0:
                given_up = came_from[free]
                holder[free] = holder[given_up] if given_up >= 0 else piece
                free = given_up
        else:
            out.append(out[-1])
    return out


# --- where it does not --------------------------------------------------------------------------------------


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
    everyone = _Together(tuple(expected.lines), expected.in_order, expected.agreements, received, known, eol)
    for clients in everyone.divided():
        found = clients.match_in_time()
        if found is None:
            found = _align_together(clients)
            if _all_match(found):
                found = _with_conflicts(clients, found)
            if _all_match(found) and disagreed is None:
                disagreed = _disagreement(clients)
        bindings.update(found.bindings)
        lanes.update(found.entries)
    for client in received.keys() - lanes.keys():
        lanes[client] = align((), received[client], known, eol)[0]
    in_order = dict.fromkeys([*received, *lanes])
    return TurnAlignment(bindings, {client: lanes[client] for client in in_order}, disagreed)


def _all_match(found: TurnMatch) -> bool:
    return all(entry.matches for lane in found.entries.values() for entry in lane)


def _align_together(clients: _Together) -> TurnMatch:
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


def _with_conflicts(clients: _Together, found: TurnMatch) -> TurnMatch:
    """The same, except that a line does not match if one before it in the script has bound a name to something else."""
    known, lanes = dict(clients.known), {client: [*lane] for client, lane in found.entries.items()}
    for client, item in clients.items:
        lane = lanes[client]
        for at, entry in enumerate(lane):
            if entry.expected is item and entry.received is not None and not entry.passed_over:
                end = item.match_end(entry.received, 0, known, clients.eol)
                if end is None:
                    lane[at] = replace(entry, matches=False)
                else:
                    known.update(end[1])
    return TurnMatch(known, {client: tuple(lane) for client, lane in lanes.items()})


def _disagreement(clients: _Together) -> int | None:
    """The first group whose order alone keeps these clients from matching, or else the first that they share."""
    own = {item.group for _, item in clients.items}
    groups = [group for group in clients.agreements if group in own]
    alone = (one for one in groups if replace(clients, agreements={one}).match_in_time() is None)
    return next(alone, groups[0] if groups else None)


def align(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes
) -> tuple[tuple[Entry, ...], Values]:
    """The first match of one client's data, or else the best alignment; and the names that it binds."""
    found = _Together([""], [("", item) for item in items], (), {"": data}, known, eol).match_in_time()
    if found is not None:
        return found.entries[""], found.bindings
    return _align_what_does_not_match(items, data, known, eol)


def _align_what_does_not_match(
    items: Sequence[Expectation], data: bytes, known: Values, eol: bytes
) -> tuple[tuple[Entry, ...], Values]:
    entries: list[Entry] = []
    known = dict(known)
    offset = 0
    left = list(items)
    while left and left[0].group is None:
        absent = [*takewhile(lambda one: one.optional and one.group is None, left)]
        if absent == left or left[len(absent)].group is not None:
            break
        if any(one.match_end(data, offset, known, eol) is not None for one in absent):
            break  # it can be one of several that came
        run = left[len(absent)].find(data, offset, known, eol)
        if run is None:
            break
        entries.extend(Entry(one, None, offset, matches=True) for one in absent)
        new, offset, bound = run
        entries.extend(new)
        known.update(bound)
        del left[: len(absent) + 1]
    pieces = list(_lines(data, offset))
    for entry in _aligned(_in_received_order(left, pieces, known, eol), pieces, known, eol):
        if entry.matches and entry.expected and entry.received is not None and not entry.passed_over:
            end = entry.expected.match_end(entry.received, 0, known, eol)
            if end is None:  # a line before it has bound the same name to something else
                entry = replace(entry, matches=False)
            else:
                known.update(end[1])
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
