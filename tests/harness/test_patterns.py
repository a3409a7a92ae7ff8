"""Patterns bind and compare; literals are never patterns."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.language.fences import Fence
from harness.language.patterns import ANONYMOUS, Capture, Kind, Pattern, fill, match, parse_pattern
from harness.stage.fence import FenceLineSent
from harness.stage.heard_fence import DeliveryTracker


@pytest.mark.parametrize(
    ("pattern", "text", "known", "bound"),
    [
        ("MSG ${who} hi", "MSG alice hi", {}, {"who": "alice"}),
        ("MSG ${who} hi", "MSG  hi", {}, None),
        ("MSG ${who} hi", "MSG bob hi", {"who": "alice"}, None),
        ("MSG ${who} hi", "MSG alice hi", {"who": "alice"}, {}),
        ("${n:int}", "-12", {}, {"n": "-12"}),
        ("${n:int}", "1.5", {}, None),
        ("${n:int}", "x", {"n": "x"}, None),
        ("${t:/[0-9]{2}/}!", "12!", {}, {"t": "12"}),
        ("${t:/a|b/}c", "bc", {}, {"t": "b"}),
        (r"${t:/a\/b/}", "a/b", {}, {"t": "a/b"}),
        ("[${_}]", "[]", {}, {}),
        ("[${_}] ${_:int}", "[x] 3", {}, {}),
        ("${x} and ${x}", "a and a", {}, {"x": "a"}),
        ("${x} and ${x}", "a and b", {}, None),
        ("costs $$5", "costs $5", {}, {}),
        ("a.b*", "a.b*", {}, {}),
        ("a.b*", "axbb", {}, None),
        ("${x}", "line\r", {}, None),
        ("${_}", "line\r", {}, None),
        ("${x}", "a b  c", {}, {"x": "a b  c"}),
        ("${x}", "(.*)", {"x": "(.*)"}, {}),
    ],
)
def test_matches_and_bindings(pattern, text, known, bound):
    assert match(parse_pattern(pattern), text, known) == bound


def test_captures_in_sent_lines_are_filled_in():
    assert fill(parse_pattern("GET ${id} for $$${n}"), {"id": "7", "n": "1"}) == "GET 7 for $1"


@pytest.mark.parametrize(
    ("pattern", "text", "known", "bound"),
    [
        ("ID ${x} ${x:int}", "ID foo foo", {}, None),
        ("ID ${x} ${x:int}", "ID 12 12", {}, {"x": "12"}),
        ("ID ${x} ${x:int}", "ID 12 1", {}, None),
        ("ID ${x} ${x:int}", "ID foo foo", {"x": "foo"}, None),
        ("${x}${x:int}", "1a1a1a", {}, None),
        ("${x:int} ${x}", "foo foo", {}, None),
        ("${n:/[a-z]+(?= joined)/} joined", "bob joined", {"n": "bob"}, {}),
        ("${n:/[a-z]+(?= joined)/} joined", "carol joined", {"n": "bob"}, None),
        ("${n:/[a-z]+(?= joined)/}${_}", "bob left", {"n": "bob"}, None),
        ("@${n:/(?<=@)[a-z]+/}", "@bob", {"n": "bob"}, {}),
        ("${n:/[a-z]+/}", "bob", {"n": "BOB"}, None),
        ("${n:/[a-z]+(?= x)/} x ${n:/[a-z]+(?= x)/}", "bob x bob", {}, None),
        ("${n:/[a-z]+(?= x)/} x ${n:/[a-z]+(?= x)/} x", "bob x bob x", {}, {"n": "bob"}),
        ("${x:/[ab]+/}${x:/[bc]+/}", "abab", {}, None),
        ("${x:/[ab]+/}${x:/[bc]+/}${_}", "bbbb", {}, {"x": "bb"}),
        ("${x}-${x:/a+/}-${x:/[ab]/}", "a-a-a", {}, {"x": "a"}),
        ("${x}-${x:/a+/}-${x:/[ab]/}", "aa-aa-aa", {}, None),
        ("${x:/a|aa/}${x:/aa?/}${_}", "aaaa", {}, {"x": "a"}),
    ],
)
def test_a_name_satisfies_each_of_its_captures(pattern, text, known, bound):
    assert match(parse_pattern(pattern), text, known) == bound


LONG = "MSG " + "x " * 30_000


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("MSG ${_} x ${_} x ${_} x ${_} x ${_} x ${_} END", LONG),
        ("MSG ${a} x ${b} x ${c} x ${_} x ${d} x ${e} END", LONG),
        ("${a}${b}${_}${_}${_}${_}${c}END", LONG),
        ("${_}: ${_:int}; ${_}: ${a:int}; ${_}: ${b:int}; ${_}: ${c:int}; ${_} END", "a: 1; " * 10_000),
    ],
)
def test_the_length_of_a_line_does_not_make_its_comparison_endless(pattern, text):
    assert match(parse_pattern(pattern), text, {}) is None
    assert match(parse_pattern(pattern), f"{text} END", {}) is not None


def as_written(pattern: Pattern) -> re.Pattern[str]:
    """The regular expression in which each capture can still end elsewhere if the rest of the line does not match."""
    parts = [
        re.escape(part)
        if isinstance(part, str)
        else f"(?:{part.accepts})"
        if part.name == ANONYMOUS
        else f"(?P<{part.name}>{part.accepts})"
        for part in pattern.parts
    ]
    return re.compile("".join(parts))


CAPTURES = st.one_of(
    st.builds(Capture, st.sampled_from([ANONYMOUS, "named"]), st.sampled_from([Kind.TEXT, Kind.INT])),
    st.just(Capture(ANONYMOUS, Kind.REGEX, "a|1-?")),
)
PARTS = st.lists(st.one_of(st.text("a1-", min_size=1, max_size=2), CAPTURES, CAPTURES), max_size=8)


@given(PARTS, st.data())
def test_where_a_capture_ends_does_not_depend_on_how_fast_that_is_found(parts, data):
    named = [
        replace(part, name=f"n{at}") if isinstance(part, Capture) and part.name != ANONYMOUS else part
        for at, part in enumerate(parts)
    ]
    some = st.text("a1-", max_size=3)
    line = "".join(part if isinstance(part, str) else data.draw(some) for part in parts)
    for text in (line, line + "\r", line[1:]):
        found = as_written(Pattern(tuple(named))).fullmatch(text)
        assert match(Pattern(tuple(named)), text, {}) == (found and found.groupdict())


@pytest.mark.parametrize(
    "fence",
    ["PING -> PONG ${_} x ${_} x ${_} x ${_} x ${_} END", "PING -> OK | ${_}x${_}x${_}x${_}x${_} END"],
)
def test_the_length_of_a_line_does_not_make_the_search_for_an_answer_endless(fence):
    answer = b"PONG " + b"x " * 30_000
    assert list(Fence.parse(fence).find_answers(answer + b"\n", 0, "t")) == []
    assert list(Fence.parse(fence).find_answers(answer + b"END\n", 0, "t")) == [(0, len(answer) + 4)]


def test_the_length_of_a_line_does_not_make_the_search_for_a_fence_line_endless():
    fence = Fence.parse("MSG ${token} heard as ${_} x ${_} x ${_} x ${_} says ${token}")
    tracker = DeliveryTracker(fence)
    sent = FenceLineSent("ann", b"", 0.0, token=tracker.new_token())
    tracker.track(sent)
    find = tracker.finder_for("bob")
    assert find(b"x " * 30_000 + b"\n") is None
    assert find(b"ann x b x c x d says " + sent.token.encode() + b"\n") == 0
