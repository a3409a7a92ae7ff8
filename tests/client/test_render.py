"""The rendering of every kind of line; control characters are replaced."""

from __future__ import annotations

from datetime import datetime

import pytest

from geventchat.client import render
from geventchat.client.render import MAX_CHARACTERS, Line, Style, name_style, paint, safe

AT = datetime(2024, 1, 15, 14, 30, 15)

LOOKS: list[tuple[Line, str]] = [
    (render.message(AT, "alice", "Hello"), "[14:30:15] alice: Hello"),
    (render.message(AT, "alice", "Hello", own=True), "[14:30:15] alice: Hello"),
    (render.message(AT, "alice", "Hello", mention=True), "[14:30:15] alice: Hello"),
    (render.direct_message(AT, "bob", "you", "psst"), "[14:30:15] bob → you: psst"),
    (render.joined("bob"), "🟢 bob joined the chat"),
    (render.left("bob"), "🔴 bob left the chat"),
    (render.roster(["bob", "alice"], None), "👥 2 here: bob, alice"),
    (render.roster(["bob", "alice", "eve"], 2), "👥 3 here: bob, alice and 1 more"),
    (render.ping(0.00042), "🏓 The server answered in 0.4 ms"),
    (render.ping(0.042), "🏓 The server answered in 42 ms"),
    (render.ping(4.2), "🏓 The server answered in 4.2 s"),
    (render.success("Back."), "✅ Back."),
    (render.goodbye("bob"), "👋 Goodbye, bob!"),
    (render.hint("By the way."), "💡 By the way."),
    (render.error("No."), "❌ No."),
    (render.offline("Lost."), "🔌 Lost."),
    (render.help_lines()[2], "/dm NAME TEXT  send a direct message"),
]


@pytest.mark.parametrize(("line", "look"), LOOKS)
def test_each_kind_of_line_has_its_look(line: Line, look: str) -> None:
    assert paint(line, colour=False) == look


@pytest.mark.parametrize(("line", "look"), LOOKS)
def test_colour_adds_colour_and_nothing_else(line: Line, look: str) -> None:
    painted = paint(line, colour=True)
    assert "\x1b" in painted or all(style is Style.PLAIN for style, _ in line)
    assert "\x1b[m" not in painted
    for style in Style:
        painted = painted.replace(f"\x1b[{style.value}m", "")
    assert painted.replace("\x1b[0m", "") == look


def test_own_messages_and_mentions_stand_out() -> None:
    _, name, text = render.message(AT, "bob", "hi")
    assert (name[0], text[0]) == (name_style("bob"), Style.PLAIN)
    _, name, text = render.message(AT, "bob", "hi", own=True)
    assert (name[0], text[0]) == (Style.BOLD, Style.PLAIN)
    _, name, text = render.message(AT, "bob", "hi", mention=True)
    assert (name[0], text[0]) == (name_style("bob"), Style.MENTION)


def test_a_name_keeps_its_colour_in_any_spelling() -> None:
    assert name_style("Alice") is name_style("alice")
    assert len({name_style(f"user{number}") for number in range(50)}) > 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a b"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("\x9b2J", "\ufffd2J"),
        ("a\rb\nc\x08d", "a\ufffdb\ufffdc\ufffdd"),
        ("evil \u202etxt.exe", "evil \ufffdtxt.exe"),
        ("\u2066x\u2069", "\ufffdx\ufffd"),
        ("a\u2028b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("👩‍👩‍👧 नमस्ते שלום", "👩‍👩‍👧 नमस्ते שלום"),
    ],
)
def test_control_characters_and_direction_overrides_are_replaced(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_a_very_long_text_is_cut_and_says_so() -> None:
    assert safe("x" * (MAX_CHARACTERS + 5)) == "x" * MAX_CHARACTERS + " … (5 characters more)"
