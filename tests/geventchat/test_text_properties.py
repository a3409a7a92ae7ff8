"""Any text is safe to print after it is cleaned."""

from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from geventchat.chat.text import _MAX_MARKS, clean, clean_line, visible
from tests.geventchat.test_text import DIRECTION_MARKS, ENGLAND, is_mark

OVERRIDES = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# Unicode's Default_Ignorable_Code_Point, less variation selectors, joiners and fillers that scripts need.
INVISIBLE = {
    *map(chr, (0xAD, 0x180E, 0x200B, 0x3164, 0xFEFF, 0xFFA0)),
    *map(chr, range(0x2060, 0x2066)),
    *map(chr, range(0x206A, 0x2070)),
    *map(chr, range(0xFFF9, 0xFFFC)),
}
TAGS = set(map(chr, range(0xE0000, 0xE0080)))
# Show nothing by themselves, but stay in texts that show something.
BLANK = {
    *map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x200C, 0x200D, 0x2800, 0x1D159)),
    *"\u180b\u180c\u180d\u180f",
    *map(chr, range(0xFE00, 0xFE10)),
    *map(chr, range(0xFFF0, 0xFFF9)),
    *map(chr, range(0x1BCA0, 0x1BCA4)),
    *map(chr, range(0x1D173, 0x1D17B)),
    *map(chr, range(0xE0080, 0xE1000)),
}
# Plain characters, and every kind that is treated specially, side by side.
SPECIAL = st.sampled_from(
    [
        *"a \t\n\x1b\x85\u00a0\u3000", *DIRECTION_MARKS, "\u202e", "\u2066", "\u2028", "\ud800", "\u200b", "\u2060", "\ufeff",
        "\u05d0", "\u0627", "\U00010a00", "\u0301", "\u0323", "\u0e38", "\U0001e8d0", "\u3099", "\U0001f3f4", "\U000e0067",
        "\U000e007f", "\U0001f600", "\u200d", "\ufe0f", "\u1160", "\u2800", "\U000e0100",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.text(SPECIAL, max_size=30), st.lists(SPECIAL, max_size=30).map("".join))


def longest_stack(text: str) -> int:
    longest = current = 0
    for char in text:
        current = current + 1 if is_mark(char) else 0
        longest = max(longest, current)
    return longest


@given(TEXTS)
def test_nothing_unsafe_is_left(raw: str):
    text = clean(raw)
    assert not [char for char in text if unicodedata.category(char) in {"Cc", "Cs"} or char in OVERRIDES]
    assert len(text.splitlines()) <= 1
    assert text == text.strip()
    text.encode()


@given(TEXTS)
@example("a\u0301\u200b\u0301\u200b\u0301\u200b\u0301\u200b\u0301")
def test_nothing_invisible_and_no_stack_of_marks_is_left(raw: str):
    text = clean(raw)
    assert not INVISIBLE & set(text)
    assert longest_stack(text) <= _MAX_MARKS
    without_flags = text.replace(ENGLAND, "")
    if "\U0001f3f4" not in without_flags:
        assert not TAGS & set(without_flags)


@given(TEXTS)
@example("\u3000\u200b a")
@example("a \u0301\u0301\u0301\u0301\u0301\u200b")
@example("\u200e\t")
@example("\U0001f3f4\U000e0067\u200b\U000e007f")
@example("\U0001f3f4\U0001f3f4\u2060\U000e0067\U000e0067\U000e007f")
def test_cleaning_twice_is_cleaning_once(raw: str):
    once = clean(raw)
    assert clean(once) == once


@given(TEXTS)
def test_a_clean_line_is_safe_but_keeps_invisible_characters(raw: str):
    line = clean_line(raw)
    assert not [char for char in line if unicodedata.category(char) in {"Cc", "Cs"} or char in OVERRIDES]
    assert clean_line(line) == line
    assert visible(line) == clean(raw)
    kept = [char for char in raw.strip() if char in INVISIBLE | TAGS or is_mark(char)]
    assert kept == [char for char in line if char in INVISIBLE | TAGS or is_mark(char)]


@given(st.text(st.sampled_from(sorted(BLANK | INVISIBLE | TAGS | DIRECTION_MARKS | {" ", "\u3000"}))))
def test_characters_that_show_nothing_are_no_text_by_themselves_and_can_be_part_of_one(raw: str):
    assert clean(raw) == ""
    assert clean(f"a{raw}b")[0] == "a"
    kept = [char for char in raw if char in BLANK]
    found = [char for char in clean(f"a{raw}b") if char in BLANK]
    assert found == kept or any(map(is_mark, kept))


SAFE = st.characters(exclude_categories=["C", "Z", "M"], exclude_characters=["\u3164", "\uffa0", *BLANK])


@given(st.text(SAFE, min_size=1))
def test_safe_text_is_unchanged(raw: str):
    assert clean(raw) == raw


@given(st.text(SAFE, min_size=1), st.text(SAFE, min_size=1))
def test_white_space_is_dropped_at_the_ends_and_kept_inside(first: str, second: str):
    assert clean(f" \u3000{first} \u00a0 {second}\u2003\n") == f"{first} \u00a0 {second}"
