"""Light Markdown, blocks of code, addresses and emoji."""

from __future__ import annotations

import unicodedata

import pytest

from geventchat.client.emoji import EMOJI, with_emoji
from geventchat.client.markup import MAX_LINK_CHARACTERS, Piece, block, code_line, pieces

A = "https://a.example/b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [Piece("plain")]),
        ("a **b c** d", [Piece("a "), Piece("b c", bold=True), Piece(" d")]),
        ("run `ls -l **x**` now", [Piece("run "), Piece("ls -l **x**", code=True), Piece(" now")]),
        ("``a ` b``", [Piece("a ` b", code=True)]),
        ("2**3**4", [Piece("2**3**4")]),
        ("** no **", [Piece("** no **")]),
        ("one ` alone", [Piece("one ` alone")]),
        (f"see {A}.", [Piece("see "), Piece(A, link=A), Piece(".")]),
        (f"({A})", [Piece("("), Piece(A, link=A), Piece(")")]),
        (f"{A}(c)", [Piece(f"{A}(c)", link=f"{A}(c)")]),
        (f"**{A}**", [Piece(A, bold=True, link=A)]),
        (f"`{A}`", [Piece(A, code=True)]),
        ("http://é.example/ü", [Piece("http://é.example/ü", link="http://%C3%A9.example/%C3%BC")]),
        ("ftp://a.example javascript:alert(1)", [Piece("ftp://a.example javascript:alert(1)")]),
    ],
)
def test_a_text_has_parts(text: str, expected: list[Piece]) -> None:
    assert pieces(text, markdown=True, links=True) == expected


def test_markup_can_be_turned_off() -> None:
    assert pieces(f"**b** `c` {A}", markdown=False, links=False) == [Piece(f"**b** `c` {A}")]


def test_nothing_in_an_address_ends_an_escape_sequence() -> None:
    (piece,) = pieces("http://a.example/\x1b\\\x07\x9c;x", markdown=True, links=True)
    assert piece.link.isascii()
    assert piece.link.isprintable()
    assert "\\" not in piece.link
    too_long = "http://a.example/" + "x" * MAX_LINK_CHARACTERS
    assert pieces(too_long, markdown=True, links=True) == [Piece(too_long)]


def test_a_block_is_a_message_for_each_line_and_can_be_read_back() -> None:
    lines = ["def f():", "    return 1", "", "f()"]
    said = block(lines)
    assert said == ["│ def f():", "│     return 1", "│", "│ f()"]
    assert [code_line(one) for one in said] == lines
    assert code_line("a │ b") is None
    assert code_line("│x") is None


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("hi :wave:", "hi 👋"),
        (":tada::fire: :+1:", "🎉🔥 👍"),
        (":WAVE:", "👋"),
        ("at 10:30:15 :nope:", "at 10:30:15 :nope:"),
        ("`:wave:` :wave:", "`:wave:` 👋"),
        ("http://x:100:y", "http://x:100:y"),
        ("std::wave::x", "std::wave::x"),
    ],
)
def test_a_code_becomes_an_emoji(typed: str, sent: str) -> None:
    assert with_emoji(typed) == sent


def test_every_code_stands_for_an_emoji() -> None:
    assert len(EMOJI) > 300
    for code, emoji in EMOJI.items():
        assert code.strip(":") == code
        assert not emoji.isascii()
        assert all(unicodedata.category(char) != "Cn" for char in emoji)
