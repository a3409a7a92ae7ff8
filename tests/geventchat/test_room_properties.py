"""The ids of any messages are consecutive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.names import parse_name
from tests.geventchat.test_room import Scene


@given(st.lists(st.lists(st.text("ab", min_size=1), min_size=1, max_size=4), max_size=20))
def test_ids_are_consecutive(batches: list[list[str]]):
    scene = Scene()
    alice, bob = scene.enter("alice"), scene.enter("bob", "second")
    ids: list[int] = []
    for number, texts in enumerate(batches):
        speaker, name = ((alice, "alice"), (bob, "bob"))[number % 2]
        said = scene.room.say(parse_name(name), texts, speaker, 0)
        ids += range(said.first_id, said.first_id + len(said.texts))
    assert ids == list(range(1, len(ids) + 1))
    assert scene.room.last_id == len(ids)
