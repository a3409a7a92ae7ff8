"""Texts: nothing that moves a cursor, recolours a terminal or fakes a line leaves the server."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.text import clean

BIDI = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


@given(st.text())
def test_nothing_unsafe_is_left(raw: str):
    text = clean(raw)
    assert not [char for char in text if unicodedata.category(char) in {"Cc", "Cs"} or char in BIDI]
    assert len(text.splitlines()) <= 1
    assert text == text.strip()
    text.encode()


@given(st.text())
def test_cleaning_twice_is_cleaning_once(raw: str):
    assert clean(clean(raw)) == clean(raw)


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_what_is_safe_is_not_touched(raw: str):
    assert clean(raw) == raw


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
        ("👩\u200d👧 ok", "👩\u200d👧 ok"),
        ("", ""),
    ],
)
def test_texts(raw: str, text: str):
    assert clean(raw) == text
