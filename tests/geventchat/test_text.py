"""Texts: nothing that moves a cursor, recolours a terminal, fakes a line, hides words or covers other lines gets through."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geventchat.chat.text import _MAX_MARKS, clean, clean_line, visible

OVERRIDES = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
DIRECTION_MARKS = {"\u061c", "\u200e", "\u200f"}
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
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


def is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


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
def test_a_clean_line_is_safe_but_keeps_what_cannot_be_seen(raw: str):
    line = clean_line(raw)
    assert not [char for char in line if unicodedata.category(char) in {"Cc", "Cs"} or char in OVERRIDES]
    assert clean_line(line) == line
    assert visible(line) == clean(raw)
    kept = [char for char in raw.strip() if char in INVISIBLE | TAGS or is_mark(char)]
    assert kept == [char for char in line if char in INVISIBLE | TAGS or is_mark(char)]


@given(st.text(st.sampled_from(sorted(BLANK | INVISIBLE | TAGS | DIRECTION_MARKS | {" ", "\u3000"}))))
def test_what_shows_nothing_is_no_text_by_itself_and_can_be_part_of_one(raw: str):
    assert clean(raw) == ""
    assert clean(f"a{raw}b")[0] == "a"
    kept = [char for char in raw if char in BLANK]
    found = [char for char in clean(f"a{raw}b") if char in BLANK]
    assert found == kept or any(map(is_mark, kept))


SAFE = st.characters(exclude_categories=["C", "Z", "M"], exclude_characters=["\u3164", "\uffa0", *BLANK])


@given(st.text(SAFE, min_size=1))
def test_what_is_safe_is_not_touched(raw: str):
    assert clean(raw) == raw


@given(st.text(SAFE, min_size=1), st.text(SAFE, min_size=1))
def test_white_space_is_dropped_at_the_ends_and_kept_inside(first: str, second: str):
    assert clean(f" \u3000{first} \u00a0 {second}\u2003\n") == f"{first} \u00a0 {second}"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("  hi  all\t", "hi  all"),
        ("a\tb", "a b"),
        ("a\x1b[31mb", "a\ufffd[31mb"),
        ("a\r\nb", "a\ufffd\ufffdb"),
        ("a\x85b\u2028c", "a\ufffdb\ufffdc"),
        ("\u202eabc", "\ufffdabc"),
        ("\x1ca\x1f", "\ufffda\ufffd"),
        ("\u3000a\u3000b\u3000", "a\u3000b"),
        ("\ud800", "\ufffd"),
        ("a\u200bb\u2060c\ufeffd\u00ade", "abcde"),
        ("\u200b\u2060", ""),
        ("\u3164", ""),
        ("a\u3164\uffa0b", "ab"),
        ("\u200d", ""),
        ("\u115f\u1160", ""),
        ("\u200d \ufe0f\u2800", ""),
        ("\u200d.", "\u200d."),
        ("\u1160\u1161", "\u1160\u1161"),
        ("", ""),
    ],
)
def test_texts(raw: str, text: str):
    assert clean(raw) == text


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d👧 ok",
        "❤\ufe0f",
        "नमस्\u200dते",
        "می\u200cخواهم",
        "e\u0301a\u0308",
        "ก\u0e34\u0e48",
        ENGLAND,
        f"{ENGLAND} a {ENGLAND}{ENGLAND}",
    ],
)
def test_what_scripts_and_emoji_need_stays(text: str):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (f"a\U000e0041{ENGLAND}\U000e007f", f"a{ENGLAND}"),
        ("\U0001f3f4\U000e0067x\U000e007f", "\U0001f3f4x"),
        ("\U0001f3f4" + "\U000e0067" * 7 + "\U000e007f", "\U0001f3f4"),
        ("\U0001f3f4\U000e007f", "\U0001f3f4"),
        ("secret".translate({ord(c): 0xE0000 + ord(c) for c in "secret"}), ""),
    ],
    ids=["tags beside a flag", "an interrupted flag", "too many tags", "no tags", "a hidden word"],
)
def test_tags_are_dropped_outside_flags(raw: str, text: str):
    assert clean(raw) == text


@pytest.mark.parametrize("mark", sorted(DIRECTION_MARKS))
def test_direction_marks_stay_only_in_texts_written_from_right_to_left(mark: str):
    assert clean(f"a{mark}b") == "ab"
    assert clean(f"é{mark}b") == "éb"
    for letter in ("\u05d0", "\u0627", "\u07ca", "\ufb1d", "\ufefc", "\U00010800", "\U0001e900"):
        assert clean(f"a{mark}{letter}") == f"a{mark}{letter}"
    # The Arabic letter mark is no letter.
    assert clean(f"1{mark}\u061c2") == "12"


@pytest.mark.parametrize(
    "mark", ["\u0301", "\u0489", "\u20dd", "\u0e38", "\u3099", "\U0001d165", "\U00010a0d"]
)
def test_stacked_marks_are_dropped_from_the_fifth_on(mark: str):
    assert is_mark(mark)
    assert clean("Z" + mark * 200 + "a") == "Z" + mark * 4 + "a"
    assert clean("Z" + mark * 4 + "a" + mark * 4) == "Z" + mark * 4 + "a" + mark * 4


def test_marks_of_different_planes_stack_together():
    raw = "Z" + "\u0301\U0001d165" * 10
    assert clean(raw) == "Z" + "\u0301\U0001d165" * 2


def test_every_combining_mark_counts():
    missed = []
    for code in range(0x110000):
        char = chr(code)
        if is_mark(char) and clean("x" + char * 6 + "x") != "x" + char * 4 + "x":
            missed.append(f"U+{code:04X}")
    assert not missed
