"""Any text: it is a password or refused with a reason, and how it was typed makes no difference."""

from __future__ import annotations

import time
from unicodedata import category, normalize

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.passwords import WeakPassword, prepare
from geventchat.chat.text import clean

MARKS = "\u0301\u0316\u0327\u0345\u05b0\u0e38\u0e48\u3099\U0001d165\U0001e8d0"
HANDED_IN = "".join(("aé ẹ각α", MARKS, "\t\x00\x1b\u200b\u200d\u2028\u2066\ufeff\ud800\U000e0041\u0600אع🐎ﬁ"))
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(HANDED_IN)), max_size=200)


def prepared(typed: str) -> str | None:
    try:
        return prepare(typed).reveal()
    except WeakPassword:
        return None


@given(TEXTS)
def test_a_password_is_clean_normalised_and_of_a_bounded_length(typed):
    text = prepared(typed)
    if text is not None:
        assert 8 <= len(text) <= 128
        assert text == normalize("NFC", text) == normalize("NFC", clean(typed))
        assert text.encode(), "it can be encoded"


@given(TEXTS)
def test_a_text_that_is_short_enough_and_shows_enough_is_a_password(typed):
    shown = normalize("NFC", clean(typed))
    if 8 <= len(shown) <= 128 and len(typed.encode("utf-8", "surrogatepass")) <= 1_536:
        assert prepared(typed) == shown


@given(TEXTS)
def test_the_form_in_which_it_is_typed_makes_no_difference(typed):
    decomposed = normalize("NFD", typed)
    marks = 0
    for char in decomposed:
        marks = marks + 1 if category(char)[0] == "M" else 0
        if marks > 4:
            return  # Of a stack, the first marks are kept, and which those are depends on the form.
    if len(decomposed.encode("utf-8", "surrogatepass")) <= 1_536:
        assert prepared(typed) == prepared(decomposed) == prepared(normalize("NFC", typed))


@given(st.lists(st.sampled_from([*HANDED_IN, MARKS * 40]), max_size=400), st.integers(1, 50))
def test_no_text_takes_long(pieces, times):
    typed = "".join(pieces) * times
    began = time.thread_time()
    prepared(typed)
    # Normalising a stack of this size takes seconds.
    assert time.thread_time() - began < 0.1
