"""Names: which may be, how they are shown, and when two are the same."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from precis_i18n import get_profile

from geventchat.chat.events import Reason
from geventchat.chat.names import LONGEST, Refusal, accept, key_of

PROFILE = get_profile("UsernameCasePreserved")
# Letters, digits and marks, and the four signs: what a name may hold of all that the profile would let in.
NARROWED = {"Ll", "Lu", "Lo", "Lm", "Nd", "Mn", "Mc"}


def by_the_reference(typed: str) -> str | None:
    """What an independent implementation of RFC 8265 makes of it, narrowed as ours is; None where it refuses."""
    try:
        shown = PROFILE.enforce(typed)
    except UnicodeEncodeError:
        return None
    if not 1 <= len(shown) <= LONGEST or unicodedata.category(shown[0])[0] == "M":
        return None
    if any(unicodedata.category(char) not in NARROWED and char not in "_-.\u3007" for char in shown):
        return None
    return shown


def ours(typed: str) -> str | None:
    try:
        return accept(typed).shown
    except Refusal:
        return None


def test_every_code_point_is_let_in_exactly_where_the_profile_lets_it_in():
    differ = []
    for code in range(sys.maxunicode + 1):
        typed = "a" + chr(code)
        if unicodedata.category(chr(code)) in {"Cn", "Co"}:
            # Neither assigned nor anyone's but its user's: no table says yes, and there are a million of them.
            assert ours(typed) is None
        elif ours(typed) != by_the_reference(typed):
            differ.append(f"U+{code:04X} {unicodedata.name(chr(code), '?')}")
    assert not differ


TRICKY = st.sampled_from(
    "aZ09_-.éÅß\u0301\u0308\u200d\u05d0\u0627\u0661\u06f1\u3007\uff21\uff76\uff9e\u0390\u1e9e\u212b "
)


@given(st.text(st.one_of(TRICKY, st.characters()), max_size=24))
def test_names_agree_with_the_profile(typed: str):
    assert ours(typed) == by_the_reference(typed)


@given(st.text(st.one_of(TRICKY, st.characters()), max_size=24))
def test_an_accepted_name_is_accepted_as_it_is_shown_and_is_found_by_it(typed: str):
    try:
        name = accept(typed)
    except Refusal:
        return
    assert accept(name.shown) == name
    assert key_of(typed) == key_of(name.shown) == name.key
    assert key_of(name.shown.upper()) == key_of(name.shown.lower()) or not name.shown.isascii()


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
def test_names_that_differ_in_case_or_width_are_one(one: str, other: str):
    assert accept(one).key == accept(other).key == key_of(other)


@pytest.mark.parametrize(("one", "other"), [("alice", "alice1"), ("a.b", "a-b"), ("e", "é"), ("ı", "l")])
def test_other_names_are_others(one: str, other: str):
    assert accept(one).key != accept(other).key


def test_a_name_is_shown_as_its_owner_typed_it_normalised():
    assert accept("ZoE\u0308").shown == "ZoË"
    assert accept("Ａｌｉｃｅ").shown == "Alice"


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", Reason.NAME_LENGTH),
        ("a" * 21, Reason.NAME_LENGTH),
        ("é" * 21, Reason.NAME_LENGTH),
        ("a b", Reason.NAME_INVALID),
        ("a\u00a0b", Reason.NAME_INVALID),
        ("a\u202eb", Reason.NAME_INVALID),
        ("a\u200bb", Reason.NAME_INVALID),
        ("a\x00", Reason.NAME_INVALID),
        ("<a>", Reason.NAME_INVALID),
        ("\u0301a", Reason.NAME_INVALID),
        ("א1a", Reason.NAME_INVALID),
        ("1א", Reason.NAME_INVALID),
        ("\u0661\u06f1", Reason.NAME_INVALID),
        ("☃", Reason.NAME_INVALID),
        ("\u3164", Reason.NAME_INVALID),
        ("ﬁ", Reason.NAME_INVALID),
    ],
)
def test_a_refusal_says_why(typed: str, why: Reason):
    with pytest.raises(Refusal) as refused:
        accept(typed)
    assert refused.value.why is why


def test_length_counts_what_is_shown():
    assert accept("e\u0301" * 20).shown == "é" * 20
    assert accept("a" * 20).shown == "a" * 20
