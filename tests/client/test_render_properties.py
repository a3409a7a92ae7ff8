"""Whatever the text and the kind of line, no control character reaches the terminal."""

from __future__ import annotations

from collections.abc import Callable
from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st

from geventchat.client import render
from geventchat.client.render import Line, paint
from tests.client.test_render import AT

MAKERS: list[Callable[[str], Line]] = [
    lambda text: render.message(AT, text, text),
    lambda text: render.direct_message(AT, text, text, text),
    lambda text: render.roster([text, text], 1),
    *[render.joined, render.left, render.success, render.goodbye, render.hint, render.error, render.offline],
]


@given(st.sampled_from(MAKERS), st.text())
def test_no_text_acts_on_the_terminal_or_fakes_a_second_line(make: Callable[[str], Line], text: str) -> None:
    painted = paint(make(text), colour=False)
    assert not any(category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in painted)
    painted.encode("utf-8")
