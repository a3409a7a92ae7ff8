"""Names: which are allowed, how they are shown, when two are the same, and that no name is expensive to check."""

from __future__ import annotations

import time

import pytest

from geventchat.chat.events import Rejection
from geventchat.chat.names import InvalidName, key_of, parse_name

MAX_TYPED = 80


def by_us(typed: str) -> str | None:
    try:
        return parse_name(typed).shown
    except InvalidName:
        return None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice", "alice"),
        ("ALICE", "aLICE"),
        ("Ａｌｉｃｅ", "alice"),
        ("Straße", "STRASSE"),
        ("Zoe\u0308", "zoë"),
        ("Σ", "ς"),
    ],
)
def test_names_that_differ_in_case_or_width_are_the_same(one: str, other: str):
    assert parse_name(one).key == parse_name(other).key == key_of(other)


@pytest.mark.parametrize(("one", "other"), [("alice", "alice1"), ("a.b", "a-b"), ("e", "é"), ("ı", "l")])
def test_other_names_are_different(one: str, other: str):
    assert parse_name(one).key != parse_name(other).key


def test_a_name_is_shown_as_typed_and_normalised():
    assert parse_name("ZoE\u0308").shown == "ZoË"
    assert parse_name("Ａｌｉｃｅ").shown == "Alice"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", Rejection.NAME_LENGTH),
        ("a" * 21, Rejection.NAME_LENGTH),
        ("é" * 21, Rejection.NAME_LENGTH),
        ("e\u0301" * 21, Rejection.NAME_LENGTH),
        ("e" + "\u0301" * 80, Rejection.NAME_LENGTH),
        ("a b", Rejection.NAME_INVALID),
        ("a\u00a0b", Rejection.NAME_INVALID),
        ("a\u202eb", Rejection.NAME_INVALID),
        ("a\u200bb", Rejection.NAME_INVALID),
        ("a\x00", Rejection.NAME_INVALID),
        ("<a>", Rejection.NAME_INVALID),
        ("\u0301a", Rejection.NAME_INVALID),
        ("א1a", Rejection.NAME_INVALID),
        ("1א", Rejection.NAME_INVALID),
        ("\u0661\u06f1", Rejection.NAME_INVALID),
        ("☃", Rejection.NAME_INVALID),
        ("\u3164", Rejection.NAME_INVALID),
        ("ﬁ", Rejection.NAME_INVALID),
        ("q" + "\u0323" * 5, Rejection.NAME_INVALID),
        # Three marks as typed, six when normalised.
        ("q" + "\u0344" * 3, Rejection.NAME_INVALID),
    ],
)
def test_a_rejection_says_why(typed: str, reason: Rejection):
    with pytest.raises(InvalidName) as rejected:
        parse_name(typed)
    assert rejected.value.reason is reason


def test_length_counts_the_shown_characters():
    assert parse_name("e\u0301" * 20).shown == "é" * 20
    assert parse_name("a" * 20).shown == "a" * 20


def test_four_marks_in_a_row_are_allowed():
    assert parse_name("q" + "\u0323" * 4).shown == "q" + "\u0323" * 4
    assert (
        parse_name("q\u0323\u0324\u0325\u0331a\u0323\u0324").shown == "q\u0323\u0324\u0325\u0331\u1ea1\u0324"
    )


def test_more_than_eighty_code_points_are_not_normalised():
    # Four for each character of the name, which compose into one.
    longest = "\u03b1\u0313\u0301\u0345" * 20
    assert len(longest) == MAX_TYPED
    assert parse_name(longest).shown == "\u1f84" * 20
    assert key_of(longest) == parse_name(longest).key
    assert key_of(longest + "a") == ""
    with pytest.raises(InvalidName):
        parse_name(longest + "\u0345")


def test_no_name_has_the_empty_key():
    for typed in ("", "a" * 81):
        assert key_of(typed) == ""
        with pytest.raises(InvalidName):
            parse_name(typed)


@pytest.mark.parametrize(
    "typed",
    ["q" + "\u0323\u0344" * 39, "\ufdfa" * 80, "\u0344" * 80, "\uff9e" * 80, "\U0001d160" * 80, "x" * 10**6],
    ids=range(6),
)
def test_no_name_is_expensive_to_look_at(typed: str):
    seconds = []
    for _ in range(5):
        began = time.thread_time()
        by_us(typed)
        key_of(typed)
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.001
