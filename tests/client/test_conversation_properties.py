"""Whatever a server sends, no control character reaches the terminal."""

from __future__ import annotations

from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st

from tests.client.test_conversation import Talk


@given(
    st.lists(st.tuples(st.sampled_from(["MSG", "DM", "INFO", "ERR", "USER", "PONG", ""]), st.text())),
)
def test_nothing_that_a_server_sends_acts_on_the_terminal(lines: list[tuple[str, str]]) -> None:
    talk = Talk()
    for word, text in lines:
        shown = talk.receive(f"{word} {text}".replace("\n", " "))
        for seen in [*shown, *talk.conversation.others]:
            assert not any(category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in seen)
