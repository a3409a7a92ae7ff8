"""Any event is encoded as the protocol says, and any line can be read."""

from __future__ import annotations

import json
import unicodedata
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geventchat.chat.commands import (
    Command,
    InvalidCommand,
    Login,
    ParseError,
    Ping,
    Quit,
    SendDirectMessage,
    Who,
)
from geventchat.chat.events import (
    Accepted,
    Action,
    Announcement,
    BanList,
    BanListing,
    Confirmed,
    Departure,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Entered,
    Event,
    Goodbye,
    Greeting,
    HelpText,
    HistoryPage,
    Invited,
    Joined,
    Kicked,
    Left,
    LeftRoom,
    MessageDeleted,
    MessageKept,
    Missed,
    NoticeReason,
    PastMessage,
    Pong,
    Rejected,
    Rejection,
    RoomList,
    RoomListing,
    Roster,
    Said,
    TokenIssued,
    Topic,
    TopicChanged,
    Typing,
    Welcome,
)
from geventchat.chat.passwords import Secret
from geventchat.chat.text import clean
from geventchat.dialects import DIALECTS
from tests.geventchat.model import dialects as model
from tests.geventchat.test_dialects import EACH_DIALECT, encode, expected, read

COMMANDS = get_args(Command)
NAMES = st.text(st.characters(categories=["L"], max_codepoint=0x7FF), min_size=1, max_size=20)
TEXTS = st.text(max_size=60).map(clean)
TIMES_MS = st.integers(0, 2**43)

DIRECT = st.builds(DirectMessage, NAMES, NAMES, TEXTS, TIMES_MS)
PAST = st.one_of(
    st.builds(PastMessage, st.integers(1, 2**40), NAMES, TEXTS.filter(bool), TIMES_MS),
    st.builds(PastMessage, st.integers(1, 2**40), NAMES, st.just(""), TIMES_MS, st.just(True)),
)
SAID = st.builds(Said, NAMES, NAMES, st.lists(TEXTS, min_size=1, max_size=3), st.integers(1, 2**40), TIMES_MS)
BY_TYPE = {
    Joined: st.builds(Joined, st.just("lobby"), NAMES, TIMES_MS),
    Said: st.builds(
        Said, st.just("lobby"), NAMES, st.lists(TEXTS, min_size=1, max_size=3), st.integers(1), TIMES_MS
    ),
    Left: st.builds(Left, st.just("lobby"), NAMES, TIMES_MS, st.sampled_from(Departure)),
    TopicChanged: st.builds(TopicChanged, NAMES, NAMES, TEXTS, TIMES_MS),
    Typing: st.builds(Typing, NAMES, NAMES, TIMES_MS),
    MessageDeleted: st.builds(MessageDeleted, NAMES, st.integers(1), TIMES_MS),
    Announcement: st.builds(Announcement, TEXTS, TIMES_MS),
    Welcome: st.builds(Welcome, st.just("lobby"), NAMES, st.lists(NAMES), TIMES_MS),
    DirectMessage: DIRECT,
    DirectMessageSent: st.builds(DirectMessageSent, DIRECT, TEXTS),
    MessageKept: st.builds(MessageKept, DIRECT),
    TokenIssued: st.builds(TokenIssued, TEXTS.map(Secret)),
    Roster: st.builds(Roster, st.lists(NAMES)),
    Entered: st.builds(Entered, NAMES, st.lists(NAMES), TEXTS),
    LeftRoom: st.builds(LeftRoom, NAMES, NAMES),
    RoomList: st.builds(RoomList, st.lists(st.builds(RoomListing, NAMES, st.integers(0), TEXTS))),
    Topic: st.builds(Topic, NAMES, TEXTS),
    HistoryPage: st.builds(HistoryPage, NAMES, st.lists(PAST, max_size=3), st.booleans(), st.booleans()),
    Missed: st.builds(Missed, st.lists(SAID, max_size=3)),
    Kicked: st.builds(Kicked, NAMES, TEXTS, TIMES_MS, NAMES),
    Invited: st.builds(Invited, NAMES, NAMES, TIMES_MS),
    BanList: st.builds(
        BanList, NAMES, st.lists(st.builds(BanListing, NAMES, st.none() | TIMES_MS, TEXTS), max_size=3)
    ),
    Accepted: st.builds(Accepted, st.just(Action.TOPIC_SET), NAMES, TEXTS),
    Confirmed: st.builds(Confirmed, NAMES, st.integers(1)),
    Pong: st.builds(Pong, TEXTS),
    HelpText: st.builds(HelpText, st.booleans()),
    Goodbye: st.just(Goodbye()),
    Greeting: st.builds(Greeting, TEXTS),
    Rejected: st.builds(Rejected, st.sampled_from([*Rejection, *ParseError]), TEXTS),
    DisconnectNotice: st.builds(DisconnectNotice, st.sampled_from(NoticeReason), st.booleans()),
}
EVENTS = st.one_of(*BY_TYPE.values())


def test_every_type_of_event_is_tested():
    assert set(BY_TYPE) == set(get_args(Event))


@EACH_DIALECT
@pytest.mark.parametrize("kind", BY_TYPE, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_every_event_is_spelt_as_the_protocol_says(name: str, kind: type, data):
    event = data.draw(BY_TYPE[kind])
    assert encode(name, event).decode() == expected(name, event)


@EACH_DIALECT
@given(event=EVENTS)
def test_a_frame_is_whole_lines_without_anything_unsafe(name: str, event: Event):
    text = encode(name, event).decode()
    assert text == "" or text.endswith("\n")
    assert not [char for char in text if unicodedata.category(char) in {"Cc", "Cs"} and char != "\n"]
    if isinstance(event, Said):
        one_by_one = [Said(event.room, event.name, (said,), 1, event.time_ms) for said in event.texts]
        assert text == "".join(encode(name, said).decode() for said in one_by_one)


@given(event=EVENTS)
def test_json_is_one_ascii_object_per_line_as_the_standard_library_writes_it(event: Event):
    frame = encode("json", event)
    assert frame.isascii()
    for line in frame.decode().splitlines():
        assert json.dumps(json.loads(line)) == line


@EACH_DIALECT
@given(line=st.binary(max_size=200), logged_in=st.booleans())
def test_any_line_is_a_command_a_text_or_nothing(name: str, line: bytes, logged_in: bool):
    reading = DIALECTS[name].interpreter().read(line.replace(b"\n", b""), logged_in)
    assert reading is None or isinstance(reading, (str, *COMMANDS))


@EACH_DIALECT
@given(user=NAMES, text=TEXTS.filter(bool))
def test_requests_of_the_protocol_are_parsed(name: str, user: str, text: str):
    spelling = model.DIALECTS[name]
    user = clean(user)
    if not user or (name == "slash" and text.startswith("/")):
        return
    requests: list[tuple[str, bool, Command | str]] = [
        (spelling.login(user), False, Login(user)),
        (spelling.say(text), True, text),
        (spelling.direct_message(user, text), True, SendDirectMessage(user, text)),
        (spelling.who(), True, Who()),
        (spelling.ping(), True, Ping("")),
        (spelling.quit(), True, Quit()),
    ]
    for line, logged_in, command in requests:
        assert read(name, line[:-1].encode(), logged_in) == command


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "username", "message", "to", "token"]), inner, max_size=4
            )
        ),
    )
)
def test_any_json_is_a_command_or_invalid(value):
    command = read("json", json.dumps(value).encode())
    assert isinstance(command, (str, *COMMANDS))
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        assert command == InvalidCommand(ParseError.NOT_JSON)


@given(
    head=st.sampled_from(
        ['{"type": "chat", "message": "', '{"type":"chat","message":"', '{"type": "dm", "message": "']
    ),
    text=st.text(alphabet="a :,{}[]~!#", max_size=8)
    | st.text(alphabet='ab \\"\t\x00\x7f\xa0é', min_size=1, max_size=4),
    tail=st.sampled_from(['"}', '"} ', '", "message": "b"}', '"', "}"]),
)
@example(head='{"type": "chat", "message": "', text=" a ", tail='"}')
@example(head='{"type": "chat", "message": "', text="a\x01", tail='"}')
@example(head='{"type": "chat", "message": "', text="a\x7f", tail='"}')
@example(head='{"type": "chat", "message": "', text="\\\\n", tail='"}')
def test_plain_messages_are_read_together_like_each_alone(head: str, text: str, tail: str):
    lines = [f"{head}{text}{tail}".encode(), b'{"type":"chat","message":"a"}']
    for together in (lines, lines[::-1], lines[:1]):
        texts = DIALECTS["json"].read_texts(together)
        assert texts is None or texts == [read("json", line) for line in together]


@given(
    texts=st.lists(
        st.text(
            alphabet=st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'), max_size=8
        ),
        min_size=1,
        max_size=4,
    ),
    separators=st.sampled_from([(", ", ": "), (",", ":")]),
)
def test_plain_messages_are_those_of_printable_ascii(texts: list[str], separators: tuple[str, str]):
    lines = [json.dumps({"type": "chat", "message": text}, separators=separators).encode() for text in texts]
    plain = all(text.strip() == text != "" for text in texts)
    assert DIALECTS["json"].read_texts(lines) == (texts if plain else None)


@given(st.text(alphabet='\\",[{a', min_size=1, max_size=12))
def test_no_escape_makes_a_text_look_like_values(text: str):
    text *= 210
    assert read("json", json.dumps({"type": "chat", "message": text}).encode()) == text
    assert read("json", json.dumps({text: [0] * 210}).encode()) == InvalidCommand(ParseError.NOT_JSON)
