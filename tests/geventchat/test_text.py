"""Texts: nothing that moves a cursor, recolours a terminal, fakes a line, hides words or covers other lines gets through."""

from __future__ import annotations

import unicodedata

import pytest

from geventchat.chat.text import clean

DIRECTION_MARKS = {"\u061c", "\u200e", "\u200f"}
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


def is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


# Unicode's Default_Ignorable_Code_Point, without the bidirectional controls, which are shown as U+FFFD.
DEFAULT_IGNORABLE = (
    "ad 34f 61c 115f-1160 17b4-17b5 180b-180f 200b-200f 2060-2065 206a-206f 3164 fe00-fe0f feff ffa0 fff0-fff8 "
    "1bca0-1bca3 1d173-1d17a e0000-e0fff"
)
WHITE_SPACE = "9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000"
# Dropped for another reason, or blank without being ignorable: annotations, a Braille pattern, a note without a head.
OTHERS = "fff9-fffb 2800 1d159"


def characters(ranges: str) -> set[str]:
    return {
        chr(code)
        for each in ranges.split()
        for code in range(int(each.partition("-")[0], 16), int(each.rpartition("-")[2], 16) + 1)
    }


def test_a_text_is_empty_if_and_only_if_it_shows_nothing():
    blank = characters(f"{DEFAULT_IGNORABLE} {WHITE_SPACE} {OTHERS}")
    # The planes between them have ideographs alone.
    assert {
        char for char in map(chr, (*range(0x20000), *range(0xE0000, 0xE2000))) if not clean(char)
    } == blank


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
def test_characters_that_scripts_and_emoji_need_stay(text: str):
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
    # The Arabic letter mark is not a letter.
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
