"""The matching of turns is compared with a definition of it that tries everything.

A turn matches if, with some ways of its `either:`, each client's lines can be assigned to its expectations so that

- every line has one, every expectation that is not optional has a line, and the order is free only in an `in any order:`;
- `any lines until` has all lines up to the first that matches it;
- each line matches when the names are bound in the order of the script;
- where clients share an order, one order of all these lines has that of each client in it, and a line that two clients
  received has, as often as both received it, the same place in it.

If it does not match, something is reported, and nothing of a client that depends on no other and is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, groupby, permutations, product
from random import Random

import pytest

from harness import parse
from harness.language.expansion import expand
from harness.language.steps import ReceiveUntil
from harness.language.validation import Turn, validate
from harness.playing import matching
from harness.playing.alignment import align_turn
from harness.playing.expectations import Expectation, TurnExpectations, choices_of
from harness.playing.ways import match_any_way

EOL = b"\n"
SEEDS = 1000
MOST_ASSIGNMENTS = 20_000
TEXTS = ("A", "B", "A 1", "B 2")
PATTERNS = (
    "${_}", "A ${_}", "A ${x}", "B ${x}", "${x} ${y}", "${x} ${z}", "N ${y}", "B ${y:int}", "A ${z}", "${u} ${v}"
)  # fmt: skip

Assignment = Mapping[int, int]
"""The line of each of a client's expectations that has one."""


# --- the definition -----------------------------------------------------------------------------------------


def assignments(items: Sequence[Expectation], lines: Sequence[bytes]) -> list[Assignment]:
    """Every way to assign one client's lines to what it expects, whatever values the names have."""
    numbered = enumerate(items)
    units = [
        [*run]
        for _, run in groupby(numbered, key=lambda one: (one[1].group, one[1].group is None and one[0]))
    ]

    def onward(unit: int, start: int) -> Iterator[dict[int, int]]:
        if unit == len(units):
            if start == len(lines):
                yield {}
            return
        [(number, item), *_] = units[unit]
        if isinstance(item.step, ReceiveUntil):
            for end in range(start, len(lines)):
                if item.accepts(lines[end], {}, EOL):
                    for rest in onward(unit + 1, end + 1):
                        yield {number: end, **rest}
            return
        for size in range(len(units[unit]) + 1):
            for chosen in permutations(units[unit], size):
                numbers = [number for number, _ in chosen]
                complete = all(number in numbers or item.optional for number, item in units[unit])
                mine = lines[start : start + size]
                if complete and len(mine) == size:
                    fit = (item.accepts(line, {}, EOL) for (_, item), line in zip(chosen, mine, strict=True))
                    if all(fit):
                        for rest in onward(unit + 1, start + size):
                            yield {**dict(zip(numbers, range(start, start + size), strict=True)), **rest}

    return [*onward(0, 0)]


def bound_in_order(
    expected: TurnExpectations, chosen: Mapping[str, Assignment], lines: Mapping[str, Sequence[bytes]]
) -> bool:
    known: dict[str, str] = {}
    numbers = dict.fromkeys(chosen, -1)
    for client, item in expected.in_order:
        numbers[client] += 1
        number = numbers[client]
        if number in chosen[client]:
            line = chosen[client][number]
            if isinstance(item.step, ReceiveUntil):
                start = 1 + max((at for one, at in chosen[client].items() if one < number), default=-1)
                passed = lines[client][start:line]
                if any(item.match_end(one, 0, known, EOL) is not None for one in passed):
                    return False
            found = item.match_end(lines[client][line], 0, known, EOL)
            if found is None:
                return False
            known.update(found[1])
    return True


def in_one_order(
    group: int,
    expected: TurnExpectations,
    chosen: Mapping[str, Assignment],
    lines: Mapping[str, Sequence[bytes]],
) -> bool:
    orders: list[dict[tuple[str, int], bytes]] = []
    for client, assignment in chosen.items():
        slots: dict[int, tuple[str, int]] = {}
        own = [one for one in enumerate(expected.lines[client]) if one[1].group == group]
        for number, item in sorted(own, key=lambda one: (one[1].step.client != "", one[1].optional)):
            slots[number] = item.text, sum(text == item.text for text, _ in slots.values())
        in_order = sorted((line, number) for number, line in assignment.items() if number in slots)
        orders.append({slots[number]: lines[client][line] for line, number in in_order})
    every = {slot for order in orders for slot in order}
    if not any(all(is_part(order, whole) for order in orders) for whole in permutations(every)):
        return False
    for one, other in combinations(orders, 2):
        for line in one.values():
            same = sum(one[slot] == other.get(slot) == line for slot in one)
            if same < min([*one.values()].count(line), [*other.values()].count(line)):
                return False
    return True


def is_part(order: Mapping[tuple[str, int], bytes], whole: Sequence[tuple[str, int]]) -> bool:
    left = iter(whole)
    return all(slot in left for slot in order)


def matches(expected: TurnExpectations, lines: Mapping[str, Sequence[bytes]]) -> bool:
    if any(lines[client] for client in lines if client not in expected.lines):
        return False
    ways = [assignments(expected.lines[client], lines[client]) for client in expected.lines]
    return any(
        bound_in_order(expected, chosen, lines)
        and all(in_one_order(group, expected, chosen, lines) for group in expected.agreements)
        for one in product(*ways)
        for chosen in [dict(zip(expected.lines, one, strict=True))]
    )


def number_of_assignments(expected: TurnExpectations, lines: Mapping[str, Sequence[bytes]]) -> int:
    total = 1
    for client, items in expected.lines.items():
        total *= max(1, len(assignments(items, lines[client])))
    return total


# --- random turns -------------------------------------------------------------------------------------------


def a_receive(random: Random, clients: Sequence[str]) -> str:
    """The step, by one of these clients, or without a client if there is none."""
    arrow = random.choice(("<", "<~", "<~"))
    optional = "optional " if random.random() < 0.3 else ""
    client = random.choice(clients) if clients else ""
    return f"{optional}{client}{arrow} {random.choice(TEXTS if arrow == '<' else PATTERNS)}\n"


def some_receives(random: Random, clients: Sequence[str], most: int) -> str:
    return "".join(f"    {a_receive(random, clients)}" for _ in range(random.randint(1, most)))


def a_turn(random: Random) -> tuple[Turn, list[TurnExpectations]]:
    """A turn, and its expectations in each of its ways."""
    clients = ("ann", "bob", "cid")[: random.choice((2, 2, 3))]
    text = "".join(f"{client} connects\n" for client in clients)
    for _ in range(random.randint(1, 4)):
        match random.choices(("one", "any", "same", "either", "until"), weights=(35, 25, 25, 10, 5))[0]:
            case "one":
                text += a_receive(random, clients)
            case "until":
                text += f"{random.choice(clients)} receives any lines until {random.choice(PATTERNS)}\n"
            case "any":
                text += f"in any order:\n{some_receives(random, clients, 4)}"
            case "same":
                some = random.choice((clients, clients[:2]))
                text += f"in any order, the same for {' '.join(some)}:\n"
                for _ in range(random.randint(1, 3)):
                    text += some_receives(random, some if random.random() < 0.15 else (), 1)
            case "either":
                text += (
                    f"either:\n{some_receives(random, clients, 2)}or:\n{some_receives(random, clients, 1)}"
                )
    turn = validate(expand(parse(text))).turns[0]
    ways = product(*(range(len(choice.ways)) for choice in choices_of(turn)))
    return turn, [TurnExpectations.of(turn, way) for way in ways]


def mostly_right(random: Random, expected: TurnExpectations) -> dict[str, list[bytes]]:
    """Lines that each client expects, with a mistake here and there."""
    values = {name: random.choice(("1", "2", "1 2", "p q")) for name in "xyzuv"}
    shared = random.random()
    out: dict[str, list[bytes]] = {}
    for client in ("ann", "bob", "cid"):
        lines: list[str] = []
        for group, run in groupby(expected.lines.get(client, ()), key=lambda item: item.group):
            items = [*run]
            if group is not None:
                agree = group in expected.agreements and random.random() < 0.8
                (Random(f"{shared} {group}") if agree else random).shuffle(items)
            for item in items:
                if isinstance(item.step, ReceiveUntil):
                    lines += random.choices(TEXTS, k=random.choice((0, 1, 2)))
                if not item.optional or random.random() < 0.6:
                    line = item.text.partition("until " if isinstance(item.step, ReceiveUntil) else " ")[2]
                    for name, value in values.items():
                        line = line.replace(f"${{{name}}}", value).replace(f"${{{name}:int}}", value)
                    lines.append(line.replace("${_}", random.choice(("1", "2", "z"))))
        if lines and random.random() < 0.12:
            del lines[random.randrange(len(lines))]
        if lines and random.random() < 0.06:
            lines.insert(random.randrange(len(lines)), random.choice([*lines, "X"]))
        if len(lines) > 1 and random.random() < 0.1:
            at = random.randrange(len(lines) - 1)
            lines[at : at + 2] = reversed(lines[at : at + 2])
        out[client] = [f"{line}\n".encode() for line in lines]
    return out


@pytest.mark.parametrize("few", [0, 100])
def test_a_turn_matches_as_defined_and_otherwise_the_report_blames_what_is_wrong(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After these dead ends a search looks ahead.
    monkeypatch.setattr(matching, "_FEW_DEAD_ENDS", few)
    matched = failed = disagreed = 0
    for seed in range(SEEDS):
        random = Random(seed)
        turn, ways = a_turn(random)
        lines = mostly_right(random, random.choice(ways))
        if any(number_of_assignments(way, lines) > MOST_ASSIGNMENTS for way in ways):
            continue
        received = {client: b"".join(of_one) for client, of_one in lines.items()}
        expected, found = match_any_way(turn, received, {}, EOL, lambda expected: 0)
        assert (found is not None) is any(matches(way, lines) for way in ways), (seed, turn, received)
        if found is not None:
            matched += 1
            continue
        aligned = align_turn(expected, received, {}, EOL)
        wrong = {client for client, lane in aligned.entries.items() if not all(one.matches for one in lane)}
        assert wrong or aligned.disagreed is not None, (seed, turn, received)
        failed += bool(wrong)
        disagreed += aligned.disagreed is not None
        for client in wrong & expected.lines.keys():
            if not depends_on_others(client, expected):
                alone = TurnExpectations(
                    lines={client: expected.lines[client]},
                    in_order=[one for one in expected.in_order if one[0] == client],
                )
                assert not matches(alone, {client: lines[client]}), (seed, client, turn, received)
    assert min(matched, failed, 10 * disagreed) > SEEDS / 5


def depends_on_others(client: str, expected: TurnExpectations) -> bool:
    names = {one: {name for item in items for name in item.names} for one, items in expected.lines.items()}
    return any(names[client] & names[other] for other in names if other != client) or any(
        client in clients for _, _, clients in expected.agreements.values()
    )
