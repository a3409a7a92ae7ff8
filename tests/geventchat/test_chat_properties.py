"""Any sequence of direct messages keeps the contacts within their limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.commands import SendDirectMessage
from tests.geventchat.test_chat import Scene


@given(st.integers(0, 3), st.lists(st.integers(0, 5), max_size=30))
def test_contacts_never_exceed_their_limit(limit: int, recipients: list[int]):
    scene = Scene(contacts=limit)
    session, _ = scene.login("reader")
    for number in range(6):
        scene.login(f"p{number}")
    for number in recipients:
        scene.chat.handle(session, SendDirectMessage(f"p{number}", "hello"))
        assert len(session.contacts or ()) <= limit
    latest = list(dict.fromkeys(reversed([f"p{number}" for number in recipients])))[:limit]
    assert list(session.contacts or ()) == latest[::-1]
