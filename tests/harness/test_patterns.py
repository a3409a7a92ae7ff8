"""Patterns bind and compare; literals are never patterns."""

from __future__ import annotations

import pytest

from harness.language.patterns import fill, match, parse_pattern


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
