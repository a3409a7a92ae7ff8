"""Any line can be read in version 2 of json, and whatever a request carries, its answers are whole lines of ASCII."""

from __future__ import annotations

import json
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.commands import Command, InvalidCommand, ParseError
from geventchat.dialects.dialect import OtherDialect, Request, TextInRoom
from tests.fuzz.targets import UNSAFE
from tests.geventchat.test_json2 import JSON2, joined, objects, read

READINGS = (*get_args(Command), TextInRoom, Request, OtherDialect, type(None))
KEYS = ["type", "v", "username", "rooms", "room", "message", "to", "key", "after", "ref", "before", "topic"]
KEYS += ["seconds", "reason", "on", "id"]
TYPES = [
    "join",
    "chat",
    "dm",
    "enter",
    "leave",
    "users",
    "rooms",
    "topic",
    "history",
    "typing",
    "ping",
    "quit",
    *(f"{un}{verb}" for verb in ("ban", "mute", "voice", "mod", "ignore") for un in ("", "un")),
    *("kick", "bans", "invite", "private", "key", "moderated", "owner", "delete"),
]
ANY_TEXT = st.text(max_size=20)


@given(line=st.binary(max_size=200), logged_in=st.booleans())
def test_any_line_is_read(line: bytes, logged_in: bool):
    reading = JSON2.interpreter().read(line.replace(b"\n", b""), logged_in)
    assert isinstance(reading, READINGS)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(TYPES) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    ),
    st.booleans(),
)
def test_any_json_is_read_and_named_by_its_ref(value: object, logged_in: bool):
    reading = read(value, logged_in)
    assert isinstance(reading, READINGS)
    if not isinstance(value, dict):
        assert reading == InvalidCommand(ParseError.NOT_JSON)
    elif isinstance(value.get("ref"), str) and not isinstance(reading, OtherDialect):
        assert isinstance(reading, Request)
        assert reading.ref == value["ref"]


@given(st.text(alphabet='\\",[{a', min_size=1, max_size=12))
def test_no_escape_makes_a_text_look_like_values(text: str):
    text *= 210
    assert read({"type": "chat", "message": text}) == TextInRoom("", text)
    assert read({text: [0] * 210}) == InvalidCommand(ParseError.NOT_JSON)


@given(text=ANY_TEXT, room=ANY_TEXT, name=ANY_TEXT, ref=ANY_TEXT.filter(lambda ref: len(ref.encode()) <= 64))
def test_whatever_a_request_carries_its_answers_are_objects_with_its_ref(
    text: str, room: str, name: str, ref: str
):
    requests = [
        {"type": "chat", "room": room, "message": text},
        {"type": "chat", "message": text, "key": ref},
        {"type": "dm", "to": name, "message": text},
        {"type": "dm", "to": "alice", "message": text},
        {"type": "enter", "room": room, "key": text},
        {"type": "topic", "room": "lobby", "topic": text},
        {"type": "users", "room": room, "after": name},
        {"type": "ping", "token": text},
        {"type": text},
        *[
            {"type": kind, "room": where, "username": name, "reason": text}
            for kind in ("kick", "ban", "unmute", "invite", "voice", "mod", "owner", "ignore")
            for where in ("dev", room)
        ],
        {"type": "bans", "room": "dev", "after": name},
        {"type": "ban", "room": "dev", "username": "bob", "reason": text},
        {"type": "bans", "room": "dev"},
        {"type": "key", "room": "dev", "key": text},
    ]
    with joined("alice", "bob", lines_per_s=0) as (simulation, (alice, _)):
        alice.send_lines('{"type": "enter", "room": "dev"}')
        simulation.run_until_idle()
        alice.received.clear()
        for request in requests:
            alice.send_lines(json.dumps({**request, "ref": ref}))
            simulation.run_until_idle()
            assert bytes(alice.received).isascii()
            assert alice.received.endswith(b"\n")
            received = objects(alice)
            assert [one["ref"] for one in received if "ref" in one] == [ref]
            # No typed text is unsafe to print; errors repeat it, too.
            bans = [ban for one in received for ban in one.get("bans", ())]
            for one in (*received, *bans):
                for key in {"message", "topic", "token", "room", "reason", "username"} & one.keys():
                    assert not UNSAFE.search(one[key]), one
