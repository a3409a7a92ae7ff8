"""What is seen: the look of each note, and that nothing from outside acts on the terminal."""

from __future__ import annotations

import unicodedata
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.client.cleaning import SHOWN_CHARACTERS, clean
from geventchat.client.lines import LineCutter
from geventchat.client.notes import (
    CameIn,
    Commands,
    Greeting,
    Note,
    Offline,
    OwnPrivateWords,
    Parting,
    People,
    PingTook,
    PrivateWords,
    Problem,
    Remark,
    WentAway,
    Words,
)
from geventchat.client.pauses import FIRST_S, LONGEST_S, pauses, scattered
from geventchat.client.rendering import Look, name_paint, render

AT = datetime(2024, 1, 15, 14, 30, 15)
PLAIN = Look(colour=False)
COLOUR = Look(colour=True)

SEEN: list[tuple[Note, str]] = [
    (Words(AT, "alice", "Hello"), "[14:30:15] alice: Hello"),
    (Words(AT, "alice", "Hello", own=True), "[14:30:15] alice: Hello"),
    (PrivateWords(AT, "bob", "psst"), "[14:30:15] bob → you: psst"),
    (OwnPrivateWords(AT, "bob", "psst"), "[14:30:15] you → bob: psst"),
    (CameIn("bob"), "🟢 bob joined the chat"),
    (WentAway("bob"), "🔴 bob left the chat"),
    (People(("bob", "alice")), "👥 2 here: bob, alice"),
    (People(("bob", "alice"), more=5), "👥 7 here: bob, alice and 5 more"),
    (PingTook(0.00042), "🏓 The server answered after 0.4 ms"),
    (PingTook(0.042), "🏓 The server answered after 42 ms"),
    (PingTook(4.2), "🏓 The server answered after 4.2 s"),
    (Greeting("Back."), "✅ Back."),
    (Parting("bob"), "👋 Goodbye, bob!"),
    (Remark("By the way."), "💡 By the way."),
    (Problem("No."), "❌ No."),
    (Offline("Lost."), "🔌 Lost."),
    (Commands((("/a", "one"), ("/bcd", "two"))), "  /a    one\n  /bcd  two"),
]


@pytest.mark.parametrize(("note", "seen"), SEEN)
def test_each_kind_of_note_has_its_own_look(note: Note, seen: str) -> None:
    assert render(note, PLAIN) == seen


@pytest.mark.parametrize(("note", "seen"), SEEN)
def test_colour_adds_colour_and_nothing_else(note: Note, seen: str) -> None:
    painted = render(note, COLOUR)
    assert "\x1b" not in render(note, PLAIN)
    without, inside = "", False
    for character in painted:
        inside = inside or character == "\x1b"
        without += "" if inside else character
        inside = inside and character != "m"
    assert without == seen


def test_ones_own_private_words_and_mentions_stand_out() -> None:
    assert render(Words(AT, "bob", "hi alice"), COLOUR) != render(
        Words(AT, "bob", "hi alice", mentions_me=True), COLOUR
    )
    assert render(Words(AT, "bob", "hi"), COLOUR) != render(Words(AT, "bob", "hi", own=True), COLOUR)


def test_a_name_keeps_its_colour_however_it_is_written() -> None:
    assert name_paint("Alice") is name_paint("alice")
    assert len({name_paint(f"user{number}") for number in range(50)}) > 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a b"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("\x9b2J", "\ufffd2J"),
        ("a\rb\nc\x08", "a\ufffdb\ufffdc\ufffd"),
        ("evil \u202etxt.exe", "evil \ufffdtxt.exe"),
        ("\u2066x\u2069", "\ufffdx\ufffd"),
        ("a\u2028b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("👩‍👩‍👧 नमस्ते שלום", "👩‍👩‍👧 नमस्ते שלום"),
    ],
)
def test_nothing_that_acts_on_a_terminal_gets_through(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_cleaned_text_is_harmless_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in cleaned)
    cleaned.encode("utf-8")


def test_an_endless_line_is_cut_and_says_so() -> None:
    shown = clean("x" * (SHOWN_CHARACTERS + 5))
    assert shown == "x" * SHOWN_CHARACTERS + " … (5 characters more)"


@given(st.text())
def test_no_word_of_anyone_can_fake_a_second_line(text: str) -> None:
    assert "\n" not in render(Words(AT, text, text), PLAIN)
    assert "\n" not in render(Problem(text), COLOUR)


@given(st.lists(st.binary(max_size=20)))
def test_lines_are_the_same_however_the_bytes_were_cut(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    at_once, cut = LineCutter(), LineCutter()
    lines = [line for chunk in chunks for line in cut.feed(chunk)]
    assert lines == at_once.feed(whole)
    assert lines == [line.removesuffix(b"\r") for line in whole.split(b"\n")[:-1]]
    assert lines + cut.end() == [*at_once.feed(b""), *lines, *at_once.end()]


def test_a_line_over_the_limit_leaves_a_gap_and_the_next_one_comes() -> None:
    cutter = LineCutter(limit_bytes=5)
    assert cutter.feed(b"12345\n123456\nabc\n12") == [b"12345", None, b"abc"]
    assert cutter.feed(b"34567890") == []
    assert cutter.feed(b"x" * 100) == []
    assert cutter.feed(b"\nok\n") == [None, b"ok"]
    assert cutter.end() == []


def test_the_last_line_of_a_stream_needs_no_line_end() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"one\ntwo") == [b"one"]
    assert cutter.end() == [b"two"]


def test_pauses_grow_to_a_longest_one_and_are_scattered() -> None:
    growing = pauses()
    first = [next(growing) for _ in range(9)]
    assert first == [FIRST_S, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_S, LONGEST_S, LONGEST_S]
    assert scattered(8.0, lambda: 0.0) == 8.0
    assert scattered(8.0, lambda: 1.0) == 6.0
