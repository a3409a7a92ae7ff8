"""Graphemes, widths, and lines that break between words."""

from __future__ import annotations

import pytest

from geventchat.client.cells import Span, cut, following, graphemes, previous, row_width, width, wrap
from geventchat.client.render import row_text


@pytest.mark.parametrize(
    ("text", "pieces", "columns"),
    [
        ("abc", ["a", "b", "c"], 3),
        ("日本", ["日", "本"], 4),
        ("e\u0301x", ["e\u0301", "x"], 2),
        ("👋hi", ["👋", "h", "i"], 4),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"], 4),
        ("👩‍👩‍👧", ["👩‍👩‍👧"], 6),
        ("👍🏽", ["👍🏽"], 4),
        ("❤️", ["❤️"], 2),
        ("1️⃣", ["1️⃣"], 2),
        ("\u1112\u1161\u11ab", ["\u1112\u1161\u11ab"], 2),
        ("a\u200db", ["a\u200d", "b"], 2),
        ("", [], 0),
    ],
)
def test_a_text_is_graphemes_and_each_has_a_width(text: str, pieces: list[str], columns: int) -> None:
    assert graphemes(text) == pieces
    assert width(text) == columns
    if pieces:
        assert previous(text, len(text)) == len(text) - len(pieces[-1])
        assert following(text, 0) == len(pieces[0])


def rows(text: str, columns: int, indent: int = 0, *, words: bool = True) -> list[str]:
    return [row_text(row) for row in wrap([Span("", text)], columns, indent, words=words)]


@pytest.mark.parametrize(
    ("text", "columns", "indent", "expected"),
    [
        ("short", 10, 0, ["short"]),
        ("exactly 10", 10, 0, ["exactly 10"]),
        ("no word breaks in the middle", 12, 0, ["no word", "breaks in", "the middle"]),
        ("name: and the rest is indented", 14, 6, ["name: and the", "      rest is", "      indented"]),
        ("see averyverylongword", 8, 2, ["see", "  averyv", "  erylon", "  gword"]),
        ("a  b   c", 4, 0, ["a  b", "  c"]),
        ("日本語のテキスト", 7, 2, ["日本語", "  のテ", "  キス", "  ト"]),
        ("👋👋", 1, 0, ["👋", "👋"]),
        ("wide indent", 5, 30, ["wide", " inde", " nt"]),
    ],
)
def test_a_line_breaks_between_words(text: str, columns: int, indent: int, expected: list[str]) -> None:
    assert rows(text, columns, indent) == expected


def test_code_breaks_anywhere_and_keeps_its_blanks() -> None:
    assert rows("    if x: return", 8, 2, words=False) == ["    if x", "  : retu", "  rn"]


def test_styles_and_links_survive_a_break() -> None:
    spans = [Span("1", "bold words "), Span("4", "http://a.b/c", "http://a.b/c"), Span("", " end")]
    wrapped = wrap(spans, 12, 0)
    assert [[(span.style, span.text, span.link) for span in row] for row in wrapped] == [
        [("1", "bold words", "")],
        [("4", "http://a.b/c", "http://a.b/c")],
        [("", "end", "")],
    ]
    assert all(row_width(row) <= 12 for row in wrapped)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本", 3, "日…"), ("x", 0, ""), ("", 0, "")],
)
def test_a_text_without_room_is_cut(text: str, columns: int, expected: str) -> None:
    assert cut(text, columns) == expected
