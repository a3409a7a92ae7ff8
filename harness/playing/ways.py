"""The ways of the `either:` in a turn: which of them count, and whether more could come with one of them.

One way of each counts, the same for all clients: the first with which everything matches and every connection ended as it says,
or else the one with which most does.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import TypeGuard

from harness.language.steps import (
    InOneWay,
    Receive,
    ReceiveBody,
    ReceiveBytes,
    ReceivePattern,
    Way,
)
from harness.language.validation import Turn, received_in
from harness.playing.alignment import align
from harness.playing.expectations import Choice, Expectation, TurnExpectations, Values, choices_of, lines_of
from harness.playing.matching import TooManyWays, TurnMatch, could_match, match_turn

MOST_TRIED = 2000
"""How many combinations of ways are compared with what one turn received."""

WrongEnds = Callable[[TurnExpectations], int]
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
    lines = {client: [piece for _, piece in lines_of(data, 0)] for client, data in received.items()}
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


def _has_unknown_size(items: Iterable[Expectation], known: Values) -> bool:
    """Whether one is a body of which it is not known here how long it is: it can be incomplete."""
    return any(isinstance(one.step, ReceiveBody) and not known.keys() >= {*one.names} for one in items)


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
            complete = could_match(items, data, known, eol)
            if complete and not _has_unknown_size(items, known):
                continue
            if client not in ended and could_match(items, data, known, eol, so_far=True):
                lacking = True
            elif not complete:
                break
        else:
            if lacking:
                return True
    return False
