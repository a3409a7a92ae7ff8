"""Whatever the text and the width, nothing is lost or too wide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.client.cells import Span, following, graphemes, previous, row_width, wrap
from geventchat.client.render import row_text

TEXTS = st.text(st.sampled_from("ab  日👋\u0301\u200d🇩🇪🏽\ufe0fé"), max_size=60)


@given(st.text())
def test_the_graphemes_of_a_text_are_the_text(text: str) -> None:
    pieces = graphemes(text)
    assert "".join(pieces) == text
    assert all(pieces)


@given(TEXTS)
def test_a_cursor_goes_through_a_text_in_both_directions_by_the_same_steps(text: str) -> None:
    forward, position = [0], 0
    while position < len(text):
        position = following(text, position)
        forward.append(position)
    backward = [position]
    while position:
        position = previous(text, position)
        backward.append(position)
    assert forward == backward[::-1]


@given(TEXTS, st.integers(4, 30), st.integers(0, 20), st.booleans())
def test_a_wrapped_line_keeps_everything_but_blanks_at_its_breaks(
    text: str, columns: int, indent: int, words: bool
) -> None:
    rows = wrap([Span("1", text)], columns, indent, words=words)
    assert "".join("".join(map(row_text, rows)).split()) == "".join(text.split())
    widest = max((len(piece) * 2 for piece in graphemes(text)), default=0)
    assert all(row_width(row) <= max(columns, widest) for row in rows)
