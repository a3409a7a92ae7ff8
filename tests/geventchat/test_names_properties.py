"""Any name agrees with an independent implementation of the profile, and is allowed as it is shown."""

from __future__ import annotations

import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from precis_i18n import get_profile

from geventchat.chat.names import (
    MAX_LENGTH,
    MAX_ROOM_LENGTH,
    InvalidName,
    Name,
    key_of,
    parse_name,
    parse_room_name,
)
from tests.geventchat.test_names import MAX_TYPED, by_us

PROFILE = get_profile("UsernameCasePreserved")
# The part of the profile that names can have: letters, digits, marks and four signs.
KINDS = {"Ll", "Lu", "Lo", "Lm", "Nd", "Mn", "Mc"}
SIGNS = "_-.\u3007"
MAX_MARKS = 4


def by_reference(typed: str) -> str | None:
    """The name by an independent implementation of RFC 8265, narrowed like ours; None if it refuses."""
    if len(typed) > MAX_TYPED:
        return None
    try:
        shown = PROFILE.enforce(typed)
    except UnicodeEncodeError:
        return None
    if not 1 <= len(shown) <= MAX_LENGTH or unicodedata.category(shown[0])[0] == "M":
        return None
    if any(unicodedata.category(char) not in KINDS and char not in SIGNS for char in shown):
        return None
    marks = "".join("M" if unicodedata.category(char)[0] == "M" else "-" for char in shown)
    return None if "M" * (MAX_MARKS + 1) in marks else shown


def test_every_code_point_is_allowed_exactly_where_the_profile_allows_it():
    differ = []
    for code in range(sys.maxunicode + 1):
        typed = "a" + chr(code)
        if unicodedata.category(chr(code)) in {"Cn", "Co"}:
            # Unassigned or for private use: never allowed. There are a million of them, so only some are tried.
            assert code % 17 or by_us(typed) is None
        elif by_us(typed) != by_reference(typed):
            differ.append(f"U+{code:04X} {unicodedata.name(chr(code), '?')}")
    assert not differ


TRICKY = st.sampled_from(
    "aZ09_-.éÅß\u0301\u0308\u0344\u0323\u200d\u05d0\u0627\u0661\u06f1\u3007\uff21\uff76\uff9e\u0390\u1e9e\u212b "
)
TYPED = st.text(st.one_of(TRICKY, st.characters()), max_size=24)
MARKED = st.text(st.sampled_from("aé\u0301\u0323\u0344"), max_size=90)


@given(st.one_of(TYPED, MARKED))
def test_names_agree_with_the_profile(typed: str):
    assert by_us(typed) == by_reference(typed)


@given(st.one_of(TYPED, MARKED))
def test_a_name_is_allowed_as_it_is_shown_and_found_however_it_is_typed(typed: str):
    try:
        name = parse_name(typed)
    except InvalidName:
        return
    assert parse_name(name.shown) == name
    assert key_of(typed) == key_of(name.shown) == name.key
    assert key_of(name.shown.upper()) == key_of(name.shown.lower()) or not name.shown.isascii()


@given(st.one_of(TYPED, MARKED))
def test_a_name_shows_at_most_four_marks_in_a_row(typed: str):
    try:
        shown = parse_name(typed).shown
    except InvalidName:
        return
    kinds = "".join(unicodedata.category(char)[0] for char in shown)
    assert "M" * (MAX_MARKS + 1) not in kinds


def room(typed: str) -> Name | None:
    try:
        return parse_room_name(typed)
    except InvalidName:
        return None


@given(st.one_of(TYPED, MARKED))
def test_a_room_name_is_a_longer_name_with_or_without_one_number_sign(typed: str):
    name = room(typed.lstrip("#"))
    assert room("#" + typed.lstrip("#")) == name
    assert room("##" + typed) is None
    if name is None:
        assert by_us(typed.lstrip("#")) is None
    else:
        assert 1 <= len(name.shown) <= MAX_ROOM_LENGTH
        assert room(name.shown) == name
        assert by_us(name.shown) == (name.shown if len(name.shown) <= MAX_LENGTH else None)
