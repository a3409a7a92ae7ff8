"""Any text and any bytes can be decoded."""

from __future__ import annotations

import json
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.commands import Say
from geventchat.chat.events import DirectMessage, Said
from geventchat.chat.text import clean
from geventchat.dialects import ALL_DIALECTS
from geventchat.dialects.dialect import Dialect
from tests.client.test_codecs import JSON, SLASH, TIME_MS, decode_all, logged_in, private


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_carries_any_text_in_one_line_of_ascii(text: str) -> None:
    data = JSON.client().encode(Say((text,)))
    assert data.isascii()
    assert data.count(b"\n") == 1
    assert json.loads(data) == {"type": "chat", "message": text}


@given(
    dialect=st.sampled_from(list(ALL_DIALECTS.values())),
    name=st.sampled_from(["bob", "Usage", "pong", "MSG", "Zoë", "日本", "a_b-c.d"]),
    text=st.text().map(clean).filter(bool),
)
def test_a_message_is_decoded_whatever_its_name_and_text(dialect: Dialect, name: str, text: str) -> None:
    if dialect is SLASH and (name, text) == ("Usage", "/dm <username> <message>"):
        # The one line with two meanings in the slash dialect.
        return
    codec = logged_in(dialect)
    (said,) = decode_all(codec, dialect.encode(Said("lobby", name, (text,), 1, TIME_MS)))
    assert isinstance(said, Said)
    assert (said.name, tuple(said.texts)) == (name, (text,))
    (direct,) = decode_all(codec, private(dialect, DirectMessage(name, "alice", text, TIME_MS)))
    assert isinstance(direct, DirectMessage)
    assert (direct.sender, direct.recipient, direct.text) == (name, "alice", text)


@given(
    dialect=st.sampled_from(list(ALL_DIALECTS.values())),
    lines=st.lists(st.binary(max_size=80).filter(lambda line: b"\n" not in line)),
)
def test_decoding_never_fails(dialect: Dialect, lines: Iterable[bytes]) -> None:
    for codec in (dialect.client(), logged_in(dialect)):
        for line in lines:
            codec.decode(line)
