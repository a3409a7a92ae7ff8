"""Matching of turns: a name has one value in all its lines, and the search and the report agree."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from harness import Command, InProcess, Outcome, Verdict, parse, play
from harness.language.expansion import expand
from harness.language.validation import Turn, validate
from harness.playing.alignment import align_turn
from harness.playing.expectations import TurnExpectations, choices_of
from harness.playing.matching import match_turn
from harness.playing.verdict import FailureKind, all_failures
from harness.playing.ways import match_any_way
from tests.harness.servers.puppet import serve

PUPPET = str(Path(__file__).parent / "servers" / "puppet.py")
NAMES = "ann> NAME ann\nbob> NAME bob\n"
KNOWN = "".join(f"{one}> NAME {one}\n{one}> {one}: hi\n{one}< hi\n" for one in ("ann", "bob"))


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


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("MSG two | MSG one | x", "in any order:\n    bob<~ MSG ${_}\n    bob< MSG two\nbob< END\n"),
        ("HELLO | AB | x", "optional bob< HELLO\nbob receives 2 bytes: AB\nbob<\nbob< END\n"),
        ("hi | ID 2 | DONE 1 | DONE 2 | x",
         "in any order:\n    bob<~ ID ${id}\n    bob< hi\nbob receives any lines until DONE ${id}\nbob< END\n"),
        ("B | A | x", "in any order:\n    optional bob< C\n    bob< A\n    bob< B\nbob< END\n"),
        ("A | B | x", "optional bob< C\nbob< A\noptional bob< D\nbob< B\noptional bob< C\nbob< END\n"),
    ],
)  # fmt: skip
def test_what_precedes_a_wrong_line_and_is_right_is_not_reported(received: str, expected: str) -> None:
    verdict = play(parse(f"{NAMES}ann> bob: {received}\n{expected}"), InProcess(serve))
    assert [(one.kind, one.received, one.line) for one in all_failures(verdict)] == [
        (FailureKind.DIFFERENT, b"x\n", 3 + expected.count("\n"))
    ]


@pytest.mark.parametrize("lost", [1, 700, 1500, 3000])
def test_one_lost_line_of_thousands_is_found(lost: int) -> None:
    turn = validate(expand(parse("b connects\nrepeat 3000 as n:\n    b<~ MSG ${n} ${_}\n"))).turns[0]
    data = b"".join(b"MSG %d hi\n" % number for number in range(1, 3001) if number != lost)
    lane = align_turn(TurnExpectations.of(turn), {"b": data}, {}, b"\n").entries["b"]
    wrong = [(one.expected.text if one.expected else "", one.received) for one in lane if not one.matches]
    assert wrong == [(f"<~ MSG {lost} ${{_}}", None)]


def test_many_lost_lines_of_thousands_are_found() -> None:
    turn = validate(expand(parse("b connects\nrepeat 1500 as n:\n    b<~ MSG ${n} ${_}\n"))).turns[0]
    data = b"".join(b"MSG %d hi\n" % number for number in range(1, 1501) if number % 10)
    lane = align_turn(TurnExpectations.of(turn), {"b": data}, {}, b"\n").entries["b"]
    assert sum(not one.matches for one in lane) == 150
    assert [one.received for one in lane if one.received] == data.splitlines(keepends=True)


def test_lines_end_at_the_first_that_ends_them_also_where_another_client_wants_a_later_one() -> None:
    steps = (
        f"{NAMES}ann> bob: hi | oh | DONE 6 | DONE 7\nann> ann: STARTED 7\n"
        "in any order:\n    bob< hi\n    bob< oh\nbob receives any lines until DONE ${job}\nann<~ STARTED ${job}\n"
    )
    verdict = play(parse(steps), InProcess(serve))
    assert {(one.kind, one.client, one.received) for one in all_failures(verdict)} == {
        (FailureKind.EXTRA, "bob", b"DONE 7\n"),
        (FailureKind.DIFFERENT, "ann", b"STARTED 7\n"),
    }
    right = steps.replace("STARTED 7", "STARTED 6").replace(" | DONE 7", "")
    assert play(parse(right), InProcess(serve)).passed


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


def together(*expected: str, clients: str = "ann bob") -> Callable[..., bool]:
    """Whether these clients share the order of these lines, if each of them receives this."""
    head = "".join(f"{client} connects\n" for client in clients.split())
    steps = "".join(f"    {one}\n" for one in expected)
    turn = validate(expand(parse(f"{head}in any order, the same for {clients}:\n{steps}"))).turns[0]

    def matches(*lines: str) -> bool:
        received = {
            client: "".join(f"{one}\n" for one in of_one.split(" | ") if one).encode()
            for client, of_one in zip(clients.split(), lines, strict=True)
        }
        return match_any_way(turn, received, {}, b"\n", lambda expected: 0)[1] is not None

    return matches


def test_clients_that_have_to_receive_one_order_do() -> None:
    matches = together("<~ ${_}", "<~ A ${_}")
    # Either line can be the first of ann, and one of these orders is that of bob.
    assert matches("A 1 | A 2", "A 1 | z")
    assert matches("A 1 | A 2", "z | A 2")
    # The same line is the first of one of them and the second of the other.
    assert not matches("A 1 | A 2", "z | A 1")
    assert not matches("A 1 | z", "z | A 1")


def test_lines_of_one_pattern_have_an_order() -> None:
    matches = together("<~ MSG ${_}", "<~ MSG ${_}")
    assert matches("MSG x | MSG y", "MSG x | MSG y")
    assert not matches("MSG x | MSG y", "MSG y | MSG x")
    # Each client can have different numbers.
    matches = together("<~ ${_:int} x", "<~ ${_:int} y")
    assert matches("1 y | 2 x", "7 y | 8 x")
    assert not matches("1 y | 2 x", "7 x | 8 y")


def test_a_line_that_one_client_lacks_has_no_part_in_the_order() -> None:
    matches = together("< A", "< B", "optional < A")
    for bob in ("A | B | A", "A | B", "B | A"):
        assert matches("A | B | A", bob)
        assert matches(bob, "A | B | A")
    assert not matches("A | B", "B | A")
    assert not matches("A | B | A", "A | A | B")


def test_an_order_is_one_for_all_clients_also_if_no_two_of_them_contradict_each_other() -> None:
    for lines in (("optional < x", "optional < y", "optional < z"), ("optional <~ ${_}",) * 3):
        matches = together(*lines, clients="ann bob cid")
        assert matches("x | y", "y | z", "x | z")
        assert not matches("x | y", "y | z", "z | x")


def test_a_line_that_only_one_client_receives_can_come_among_those_whose_order_is_shared() -> None:
    matches = together("bob<~ ${x} ${y}", "<~ ${x} ${z}", "<~ ${x} ${z}")
    assert matches("2 p q | 2 p q", "2 p q | 2 1 2 | 2 p q")
    assert matches("2 p q | 2 p q", "2 1 2 | 2 p q | 2 p q")
    assert not matches("2 p q | 2 p q", "2 p q | 3 1 2 | 2 p q")


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


def test_lines_that_differ_only_in_names_are_not_tried_in_every_order() -> None:
    names = [f"${{n{one}}} says hi" for one in range(8)]
    said = [f"{one} says hi" for one in range(8)]
    assert free(" | ".join([*said, "both 7 6"]), *names, "both ${n0} ${n1}").passed
    assert free(" | ".join([*said, "both 7 8"]), *names, "both ${n0} ${n1}").outcome is Outcome.FAILED
    wrong = free(" | ".join([*said, "END."]), *names, then="bob< END\n")
    assert [(one.kind, one.received) for one in wrong.failures] == [(FailureKind.DIFFERENT, b"END.\n")]


def all_of(names: int) -> tuple[str, str]:
    """Lines and one with all their names, which is received in the last order that is tried."""
    numbers = " ".join(map(str, reversed(range(names))))
    said = [*(f"{one} says hi" for one in range(names)), f"all {numbers}"]
    expected = "".join(f"    bob<~ ${{n{one}}} says hi\n" for one in range(names))
    last = " ".join(["all", *(f"${{n{one}}}" for one in range(names))])
    return " | ".join(said), f"in any order:\n{expected}bob<~ {last}\n"


@pytest.mark.parametrize(("names", "outcome"), [(6, Outcome.PASSED), (9, Outcome.SCRIPT_ERROR)])
def test_a_search_comes_to_thousands_of_dead_ends_before_it_is_given_up(names: int, outcome: Outcome) -> None:
    said, expected = all_of(names)
    verdict = play(parse(f"{NAMES}ann> bob: {said}\n{expected}"), InProcess(serve))
    assert verdict.outcome is outcome
    if outcome is Outcome.SCRIPT_ERROR:
        reason = "<script>:4:1: the ways in which this turn can go have too many combinations"
        assert reason in verdict.reason


def test_too_many_ways_are_no_error_as_long_as_something_can_come() -> None:
    said, expected = all_of(9)
    # This line has all names, and comes when the others have been there for a while.
    names = " ".join(["N", *(f"${{n{one}}}" for one in range(9))])
    sent = f"ann> bob: {said}\nann> LATER 200 ann: N 8 7 6 5 4 3 2 1 0\n"
    script = parse(f"settle: 20ms\n\n{KNOWN}{sent}optional ann<~ {names}\n{expected}")
    assert play(script, Command([sys.executable, "-S", PUPPET, "{port}"])).passed


def test_many_names_are_no_error_while_the_last_line_is_on_its_way() -> None:
    names = "".join(f"    bob<~ U ${{u{one}}}\n" for one in range(8))
    sent = f"ann> bob: {' | '.join(f'U {one}' for one in range(8))}\nann> LATER 150 bob: END\n"
    script = parse(f"settle: 20ms\n\n{KNOWN}{sent}in any order:\n{names}bob< END\n")
    assert play(script, Command([sys.executable, "-S", PUPPET, "{port}"])).passed


def test_many_optional_lines_are_no_long_search() -> None:
    expected = "".join(f"optional bob<~ U ${{u{one}}}\n" for one in range(16))
    said = " | ".join(f"U {one}" for one in range(8))
    verdict = play(parse(f"{NAMES}ann> bob: {said}\n{expected}bob< END\n"), InProcess(serve))
    assert [(one.kind, one.line) for one in verdict.failures] == [(FailureKind.MISSING, 20)]
    assert play(parse(f"{NAMES}ann> bob: {said} | END\n{expected}bob< END\n"), InProcess(serve)).passed


def test_optional_lines_alone_can_have_too_many_ways() -> None:
    expected = "".join(f"optional bob<~ U ${{u{one}}}\n" for one in range(18))
    names = " ".join(f"${{u{one}}}" for one in range(18))
    said = " | ".join([*(f"U {one}" for one in range(9)), "all" + " z" * 18])
    verdict = play(parse(f"{NAMES}ann> bob: {said}\n{expected}bob<~ all {names}\n"), InProcess(serve))
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "<script>:4:1: the ways in which this turn can go have too many combinations" in verdict.reason


# --- several clients ----------------------------------------------------------------------------------------

BOB_BINDS = (
    "ann< OK\nbob<~ NICK ${nick}\nann<~ MSG from ${nick} ${text}\n",
    "in any order:\n    ann< OK\n    bob<~ NICK ${nick}\n    ann<~ MSG from ${nick} ${text}\n",
    "either:\n    ann< OK\nor:\n    ann< NO\nbob<~ NICK ${nick}\nann<~ MSG from ${nick} ${text}\n",
)


@pytest.mark.parametrize("expected", BOB_BINDS)
def test_a_name_is_bound_by_the_first_line_of_the_script_whichever_client_comes_first(expected: str) -> None:
    sent = "ann> ann: OK | MSG from bob smith hello\nann> bob: NICK bob smith\n"
    verdict = play(parse(NAMES + sent + expected), InProcess(serve))
    assert verdict.passed
    assert {one.name: one.value for one in verdict.turns[-1].bindings} == {
        "nick": "bob smith",
        "text": "hello",
    }
    wrong = play(parse(NAMES + sent.replace("from bob", "from cid") + expected), InProcess(serve))
    assert [(one.kind, one.client) for one in wrong.failures] == [(FailureKind.DIFFERENT, "ann")]


def test_the_order_that_clients_share_does_not_decide_which_line_binds_a_name() -> None:
    sent = "ann> ann: 1 | 2 | MSG from bob smith hello\nann> bob: 1 | 2 | NICK bob smith\n"
    shared = "in any order, the same for ann bob:\n    < 1\n    < 2\n"
    expected = "bob<~ NICK ${nick}\nann<~ MSG from ${nick} ${text}\n"
    assert play(parse(NAMES + sent + shared + expected), InProcess(serve)).passed


def test_a_name_is_shown_where_it_was_bound() -> None:
    verdict = play(
        parse(f"{NAMES}ann> bob: B 1\noptional bob<~ A ${{x}}\nbob<~ B ${{x}}\n"), InProcess(serve)
    )
    assert [(one.name, one.line) for one in verdict.turns[-1].bindings] == [("x", 5)]


RIGHT = (
    ("VALUE 3 | a | b", "optional ann< note\nann<~ VALUE ${size:int}\nann receives ${size} bytes: a\\nb\nann<\n"),
    ("MSG x | MSG y", "in any order:\n    ann<~ ${_}\n    ann<~ MSG x\n"),
    ("foo | bar", "in any order:\n    ann<< bar\\n\n    ann<< foo\\n\n"),
    ("A | A", "optional ann< A\nann<~ A\nann< A\n"),
)  # fmt: skip


@pytest.mark.parametrize(("received", "expected"), RIGHT)
def test_a_client_that_received_the_right_lines_is_not_blamed_for_another(
    received: str, expected: str
) -> None:
    verdict = play(parse(f"{NAMES}ann> ann: {received}\n{expected}bob< z\n"), InProcess(serve))
    assert [(one.kind, one.client) for one in verdict.failures] == [(FailureKind.MISSING, "bob")]


def test_of_two_shared_orders_the_wrong_one_is_reported() -> None:
    clients = "".join(f"{one}> NAME {one}\n" for one in "abcd")
    sent = "a> a: 1 | 2\na> b: 1 | 2\na> c: 3 | 4\na> d: 4 | 3\n"
    shared = "in any order, the same for a b:\n    < 1\n    < 2\nin any order, the same for c d:\n    < 3\n    < 4\n"
    verdict = play(parse(clients + sent + shared), InProcess(serve))
    [failure] = verdict.failures
    assert (failure.kind, failure.client, failure.line) == (FailureKind.DISAGREED, "c and d", 12)


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
            entries = align_turn(expected, received, {}, b"\n").entries
            wrong = [one for lane in entries.values() for one in lane if not one.matches]
            assert wrong, (seed, text, came)
    assert 200 < matched < 600
