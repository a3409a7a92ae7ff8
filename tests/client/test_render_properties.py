"""Whatever somebody writes, no control character reaches the terminal but those of the client's own styles and links."""

from __future__ import annotations

import re
from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st

from geventchat.client.options import Options
from geventchat.client.render import drawn, look_of, paint, waiting
from geventchat.client.windows import Entry, Kind, Outgoing, Window
from tests.client.test_render import AT

LOOKS = [
    look_of(Options(symbols=symbols), {}, colour=True, links=True) for symbols in ("emoji", "plain", "words")
]
OWN_SEQUENCES = re.compile(r"\x1b\[[0-9;]+m|\x1b\]8;;[!-~]*\x1b\\")
TEXTS = st.one_of(st.text(), st.text(st.sampled_from("\x1b\x07\x9b\x9c]8;;[m\\*`│> http://a.b/")))


@given(st.sampled_from(list(Kind)), TEXTS, TEXTS, st.booleans(), st.sampled_from(LOOKS))
def test_no_text_acts_on_the_terminal_or_fakes_a_second_line(
    kind: Kind, text: str, name: str, code: bool, look: object
) -> None:
    entry = Entry(kind, text, AT, name=name, to=name, code=code)
    outgoing = Outgoing(Window(name, name), text, to=name)
    for spans in (drawn(entry, look).spans, waiting(outgoing, name, look).spans):
        painted = OWN_SEQUENCES.sub("", paint(spans))
        assert not any(category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in painted)
        painted.encode("utf-8")
