"""Matching of turns: a name has one value in all its lines, and the search and the report agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random

import pytest

from harness import InProcess, Outcome, Verdict, parse, play
from harness.language.expansion import expand
from harness.language.validation import Turn, validate
from harness.playing.comparison import TurnExpectations, align_turn, choices_of, match_any_way, match_turn
from harness.playing.verdict import FailureKind
from tests.harness.servers.puppet import serve

NAMES = "ann> NAME ann\nbob> NAME bob\n"


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("ID 1 | OK 2", "in any order:\n    bob<~ ID ${x}\n    bob<~ OK ${x}\n"),
        ("ID 1 | hi | OK 2", "in any order:\n    bob<~ ID ${x}\n    bob< hi\nbob<~ OK ${x}\n"),
        ("ID 1 | OK 2", "optional bob< hi\nbob<~ ID ${x}\nbob<~ OK ${x}\n"),
        ("ID 1 | OK 2", "either:\n    bob<~ ID ${x}\n    bob<~ OK ${x}\nor:\n    bob< hi\n"),
        ("ID 2 | ID 1", "in any order:\n    bob<~ ID ${x}\n    bob< ID 1\nbob<~ ID ${x}\n"),
        ("ID 1 | OK 2", "bob receives any lines until ID ${x}\nin any order:\n    bob<~ OK ${x}\n"),
    ],
)
def test_a_name_has_one_value_in_all_lines_of_a_turn(received: str, expected: str) -> None:
    verdict = play(parse(f"{NAMES}ann> bob: {received}\n{expected}"), InProcess(serve))
    assert verdict.outcome is Outcome.FAILED
    assert verdict.failures[0].kind in (FailureKind.DIFFERENT, FailureKind.MISSING)
    same = received.replace("2", "1") + (" | ID 1" if "ID 2" in received else "")
    assert play(parse(f"{NAMES}ann> bob: {same}\n{expected}"), InProcess(serve)).passed


def test_a_name_that_one_client_binds_in_a_free_order_has_that_value_for_the_next() -> None:
    said = "ann> ann: ID 1 | hi\nann> bob: OK 2\n"
    verdict = play(
        parse(f"{NAMES}{said}in any order:\n    ann<~ ID ${{x}}\n    ann< hi\n    bob<~ OK ${{x}}\n"),
        InProcess(serve),
    )
    assert [(one.kind, one.client) for one in verdict.failures] == [(FailureKind.DIFFERENT, "bob")]


def test_an_optional_line_does_not_take_the_place_of_the_same_one_that_has_to_come() -> None:
    assert free("hi | B", "optional hi", "hi", "B").passed
    assert free("hi | B | hi", "optional hi", "hi", "B").passed
    assert free("B", "optional hi", "hi", "B").outcome is Outcome.FAILED


def test_of_two_optional_lines_the_second_can_be_the_one_that_came() -> None:
    expected = "optional bob<~ A ${x}\noptional bob<~ A ${y}\nbob<~ B ${x}\n"
    verdict = play(parse(f"{NAMES}ann> bob: A 1 | B 2\n{expected}"), InProcess(serve))
    assert verdict.passed
    assert {one.name: one.value for one in verdict.turns[-1].bindings} == {"x": "2", "y": "1"}


def test_lines_in_a_free_order_can_follow_bytes_without_a_line_end() -> None:
    steps = "ann> bob! >\nann> bob: a | b\nbob<< >\nin any order:\n    bob< b\n    bob< a\n"
    assert play(parse(NAMES + steps), InProcess(serve)).passed


def test_a_thousand_clients_match_and_those_that_do_not_agree_do_not() -> None:
    turn = validate(expand(parse("c1..c1000 connects\nc1..c1000<~ hi ${n:int}\n"))).turns[0]
    received = {f"c{n}": b"hi 7\n" for n in range(1, 1001)}
    _, found = match_any_way(turn, received, {}, b"\n", lambda expected: 0)
    assert found is not None
    assert (found.bindings, len(found.entries)) == ({"n": "7"}, 1000)
    _, found = match_any_way(turn, {**received, "c1000": b"hi 8\n"}, {}, b"\n", lambda expected: 0)
    assert found is None


def test_clients_that_have_to_receive_one_order_do() -> None:
    steps = "in any order, the same for ann bob:\n    <~ ${_}\n    <~ A ${_}\n"
    turn = validate(expand(parse(f"ann connects\nbob connects\n{steps}"))).turns[0]

    def matches(ann: bytes, bob: bytes) -> bool:
        received = {"ann": ann, "bob": bob}
        return match_any_way(turn, received, {}, b"\n", lambda expected: 0)[1] is not None

    # Either line can be the first of ann, and one of these orders is that of bob.
    assert matches(b"A 1\nA 2\n", b"A 1\nz\n")
    assert matches(b"A 1\nA 2\n", b"z\nA 1\n")
    assert not matches(b"A 1\nz\n", b"z\nA 1\n")


def test_clients_that_share_the_order_of_some_lines_are_free_in_that_of_others() -> None:
    steps = "in any order, the same for ann bob:\n    < 1\n    < 2\nin any order:\n"
    steps += "".join(f"    {client}< {line}\n" for client in ("ann", "bob") for line in "ab")
    turn = validate(expand(parse(f"ann connects\nbob connects\n{steps}"))).turns[0]
    for bob, matches in ((b"2\n1\nb\na\n", True), (b"1\n2\na\nb\n", False)):
        received = {"ann": b"2\n1\na\nb\n", "bob": bob}
        _, found = match_any_way(turn, received, {}, b"\n", lambda expected: 0)
        assert (found is not None) is matches


def free(lines: str, *expected: str, then: str = "") -> Verdict:
    steps = ""
    for one in expected:
        optional, line = ("optional ", one[9:]) if one.startswith("optional ") else ("", one)
        steps += f"    {optional}bob{'<~' if '$' in line else '<'} {line}\n"
    return play(parse(f"{NAMES}ann> bob: {lines}\nin any order:\n{steps}{then}"), InProcess(serve))


def test_many_lines_in_a_free_order_are_no_long_search() -> None:
    names, said = [f"${{n{one}}} says hi" for one in range(11)], [f"{one} says hi" for one in range(12)]
    verdict = free(" | ".join(said), *names, "3 says hi")
    assert verdict.passed
    assert {one.name: one.value for one in verdict.turns[-1].bindings}["n3"] == "4"
    assert free(" | ".join(said), *names, "x says hi").outcome is Outcome.FAILED


def test_a_search_that_would_last_for_ever_is_an_error_of_the_script() -> None:
    names = [f"${{n{one}}} says hi" for one in range(11)]
    said = [*(f"{one} says hi" for one in range(11)), "both 0 11"]
    verdict = free(" | ".join(said), *names, "both ${n0} ${n1}", then="in any order:\n    ann< x\n")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "<script>:4:1: the ways in which this turn can go have too many combinations" in verdict.reason


@pytest.mark.parametrize(("lines", "outcome"), [(7, Outcome.PASSED), (8, Outcome.SCRIPT_ERROR)])
def test_a_search_comes_to_thousands_of_dead_ends_before_it_is_given_up(lines: int, outcome: Outcome) -> None:
    names = [f"${{n{one}}} says hi" for one in range(lines)]
    # Names are tried in their order, and the first two have the last two lines: 1,745 or 11,825 orders come before.
    said = [*(f"{one} says hi" for one in range(lines)), f"both {lines - 1} {lines - 2}"]
    assert free(" | ".join(said), *names, "both ${n0} ${n1}").outcome is outcome


# --- random turns -------------------------------------------------------------------------------------------

Received = dict[str, str]
KINDS = (
    "< A 1", "< B 2", "<~ A ${x}", "<~ B ${x}", "<~ B ${y:int}", "<~ A ${y}", "<~ ${_}", "<~ ${x} ${y}", "optional < A 1",
    "optional <~ A ${x}", "optional <~ B ${y}", "<< 1", "<< A\\x20", "<< 1\\n", " receives any lines until A 1",
    " receives any lines until B ${x}", " receives 2 bytes", " receives 2 bytes: A\\x20",
)  # fmt: skip


def step(random: Random, values: dict[str, str], kinds: tuple[str, ...]) -> tuple[str, str, str]:
    """A client, one of its steps, and what makes it match."""
    client, kind = random.choice(("ann", "bob")), random.choice(kinds)
    optional = kind.startswith("optional ")
    text = f"optional {client}{kind.removeprefix('optional ')}" if optional else f"{client}{kind}"
    if " receives 2 bytes" in kind:
        return client, text, "A " if ":" in kind else random.choice(("A\n", "ab"))
    received = kind.rpartition("< ")[2].rpartition("<~ ")[2].rpartition("until ")[2]
    for name, value in values.items():
        received = received.replace(f"${{{name}}}", value).replace(f"${{{name}:int}}", value)
    received = (
        received.replace("${_}", random.choice(("", "A 1", "z"))).replace("\\x20", " ").replace("\\n", "\n")
    )
    if "<<" not in kind:
        received += "\n"
    before = random.choice(("", "B 2\n", "q\nB 1\n")) if "any lines" in kind else ""
    return client, text, "" if optional and random.random() < 0.5 else before + received


def a_turn(random: Random) -> tuple[str, Received]:
    """The expectations of a turn, and lines that mostly match them."""
    values = {"x": random.choice("12"), "y": random.choice("12")}
    text, received = "", {"ann": "", "bob": ""}
    lines = tuple(kind for kind in KINDS if "<<" not in kind and "receives" not in kind)

    def several(most: int, kinds: tuple[str, ...]) -> list[tuple[str, str, str]]:
        return [step(random, values, kinds) for _ in range(random.randint(1, most))]

    def receive(steps: list[tuple[str, str, str]]) -> None:
        for client, _, data in steps:
            received[client] += data

    def one() -> str:
        steps = several(1, KINDS)
        receive(steps)
        return f"{steps[0][1]}\n"

    def group() -> str:
        steps = several(4, lines)
        receive(random.sample(steps, len(steps)))
        return "in any order:\n" + "".join(f"    {written}\n" for _, written, _ in steps)

    def same() -> str:
        said = random.choices(("A 1", "B 2", "A 2"), k=random.randint(1, 3))
        text = "in any order, the same for ann bob:\n" + "".join(f"    < {one}\n" for one in said)
        random.shuffle(said)
        received["ann"] += "".join(f"{one}\n" for one in said)
        if random.random() < 0.2:
            random.shuffle(said)
        received["bob"] += "".join(f"{one}\n" for one in said)
        return text

    def either() -> str:
        ways = [several(2, KINDS) for _ in range(random.randint(2, 3))]
        receive(random.choice(ways))
        return "either:\n" + "or:\n".join(
            "".join(f"    {written}\n" for _, written, _ in way) for way in ways
        )

    blocks: tuple[Callable[[], str], ...] = (one, one, group, same, either, either)
    for _ in range(random.randint(1, 4)):
        text += random.choice(blocks)()
    client = random.choice(("ann", "bob"))
    if received[client] and random.random() < 0.4:
        at = random.randrange(len(received[client]))
        cut = received[client][at + random.choice((0, 1)) :]
        received[client] = received[client][:at] + random.choice(("", "1", "2", "A 2\n", "\n")) + cut
    return text, received


def test_the_search_finds_every_match_and_the_report_shows_what_does_not() -> None:
    matched = 0
    for seed in range(700):
        text, came = a_turn(Random(seed))
        turn: Turn = validate(expand(parse(f"ann connects\nbob connects\n{text}"))).turns[0]
        received = {client: data.encode() for client, data in came.items()}
        expected, found = match_any_way(turn, received, {}, b"\n", lambda expected: 0)
        ways = itertools.product(*(range(len(choice.ways)) for choice in choices_of(turn)))
        possible = any(
            match_turn(TurnExpectations.of(turn, way), received, {}, b"\n") is not None for way in ways
        )
        assert possible is (found is not None), (seed, text, came)
        matched += possible
        if found is None and not expected.agreements:
            _, entries = align_turn(expected, received, {}, b"\n")
            wrong = [one for lane in entries.values() for one in lane if not one.matches]
            assert wrong, (seed, text, came)
    assert 200 < matched < 600
