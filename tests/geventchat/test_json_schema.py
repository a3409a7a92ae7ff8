"""Everything that version 2 sends is an object of docs/json-v2.schema.json, and it reads what the schema allows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from geventchat.chat.commands import InvalidCommand, ParseError
from geventchat.chat.events import (
    Accepted,
    Action,
    BanList,
    BanListing,
    Broadcast,
    Confirmed,
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
from geventchat.dialects import ALL_DIALECTS
from geventchat.dialects.dialect import Request
from geventchat.dialects.json2 import Json2Dialect, Json2Interpreter
from geventchat.dialects.json_objects import MAX_INTEGER
from harness import InProcess, play
from harness.language.loading import load
from tests.app import serve
from tests.geventchat.model.json2 import Conversation
from tests.geventchat.test_json2 import joined, objects
from tests.geventchat.test_json_page import EXAMPLES, types_of

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "json-v2.schema.json").read_text(encoding="utf-8"))
TRANSCRIPTS = sorted(
    path
    for path in (ROOT / "tests" / "transcripts").glob("*.chat")
    if not path.name.startswith("with-")
    and ('"v": 2' in path.read_text() or "with-json2" in path.read_text())
)
JSON2 = ALL_DIALECTS["json2"]


class Validator:
    """Accepts the objects of these groups: what the schema accepts, in a tenth of the time.

    Each definition of a group requires a type. Only those with the type of an object are tried, since no other accepts it.
    """

    def __init__(self, *groups: str) -> None:
        whole = [SCHEMA["$defs"][group] for group in groups]
        types: defaultdict[str, list[list[dict[str, str]]]] = defaultdict(lambda: [[] for _ in groups])
        for at, group in enumerate(whole):
            for reference in group["oneOf"]:
                definition = SCHEMA["$defs"][reference["$ref"].removeprefix("#/$defs/")]
                assert "type" in definition["required"]
                types[definition["properties"]["type"]["const"]][at].append(reference)
        self._any = _one_of(whole)
        self._of_type = {
            kind: _one_of([{**group, "oneOf": some} for group, some in zip(whole, references, strict=True)])
            for kind, references in types.items()
        }

    def of(self, one: Any) -> Draft202012Validator:
        kind = one.get("type") if isinstance(one, dict) else None
        return self._of_type.get(kind, self._any) if isinstance(kind, str) else self._any

    def is_valid(self, one: Any) -> bool:
        return self.of(one).is_valid(one)

    def validate(self, one: Any) -> None:
        self.of(one).validate(one)


def _one_of(groups: list[dict[str, Any]]) -> Draft202012Validator:
    return Draft202012Validator(
        {"$defs": SCHEMA["$defs"], "anyOf": [group for group in groups if group["oneOf"]]}
    )


SENT, REQUESTS = Validator("answer", "event"), Validator("request")


def check(frame: bytes) -> None:
    """Every line of a frame is an object that the server can send, in ASCII, as the standard library writes it."""
    assert frame.isascii()
    assert not frame or frame.endswith(b"\n")
    for line in frame.decode().splitlines():
        one = json.loads(line)
        SENT.validate(one)
        assert json.dumps(one) == line


# --- The schema itself -----------------------------------------------------------------------------------------------


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "chat", "room": "lobby", "id": 0, "username": "a", "message": "hi", "timestamp_ms": 1},
        {"type": "chat", "room": "lobby", "username": "a", "message": "hi", "timestamp_ms": 1},
        {"type": "chat", "room": "lobby", "id": 1, "username": "a", "message": "", "timestamp_ms": 1},
        {
            "type": "chat",
            "room": "lobby",
            "id": 1,
            "username": "a",
            "message": "hi",
            "timestamp_ms": 1,
            "ref": "1",
        },
        {"type": "user_joined", "room": "lobby", "username": "a", "timestamp": 1},
        {"type": "ok"},
        {"type": "ok", "ref": "1", "id": 1},
        {"type": "error", "message": "Join first"},
        {"type": "error", "code": "join-first", "message": "Join first"},
        {"type": "users", "users": ["a"], "user_count": 1},
        {"type": "users", "room": "a", "users": ["a"] * 501, "user_count": 501},
        {"type": "nope"},
        {"type": ["chat"]},
        [],
    ],
    ids=repr,
)
def test_the_schema_refuses_what_is_wrong(wrong: object):
    assert not SENT.is_valid(wrong)


# --- What the server sends -------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """All frames that version 2 makes."""
    frames: list[bytes] = []
    encode, encode_private = Json2Dialect.encode, Json2Interpreter.encode_private

    def recorded(method: Any) -> Any:
        def call(self: Any, event: Event) -> bytes:
            frames.append(method(self, event))
            return frames[-1]

        return call

    monkeypatch.setattr(Json2Dialect, "encode", recorded(encode))
    monkeypatch.setattr(Json2Interpreter, "encode_private", recorded(encode_private))
    return frames


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_everything_in_a_transcript_is_in_the_schema(path: Path, sent: list[bytes]):
    assert play(load(path), InProcess(serve)).passed
    assert any(sent)
    for frame in sent:
        check(frame)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.partition("\n")[0][:80])
def test_everything_in_an_example_of_the_page_is_in_the_schema(example: str):
    for line in example.splitlines():
        step, _, one = line.partition(" {")
        if one and step.endswith("<"):
            SENT.validate(json.loads("{" + one))
        elif one:
            assert REQUESTS.is_valid(json.loads("{" + one)) is ("invalid-field" not in example)


NAMES = st.text(st.characters(categories=["L"], max_codepoint=0x7FF), min_size=1, max_size=20)
TEXTS = st.text(min_size=1, max_size=60).map(clean).filter(bool)
TOPICS = st.text(max_size=60).map(clean)
TIMES_MS, IDS, COUNTS = st.integers(0, 2**43), st.integers(1, MAX_INTEGER), st.integers(0)
DIRECT = st.builds(DirectMessage, NAMES, NAMES, TEXTS, TIMES_MS)
ENTERED = st.builds(
    Entered, NAMES, st.lists(NAMES, max_size=3), TOPICS, COUNTS, st.integers(0, MAX_INTEGER), IDS
)
BY_TYPE = {
    Joined: st.builds(Joined, NAMES, NAMES, TIMES_MS),
    Said: st.builds(
        Said, NAMES, NAMES, st.lists(TEXTS, min_size=1, max_size=3), st.integers(1, 2**50), TIMES_MS
    ),
    Left: st.builds(Left, NAMES, NAMES, TIMES_MS),
    TopicChanged: st.builds(TopicChanged, NAMES, NAMES, TOPICS, TIMES_MS),
    Typing: st.builds(Typing, NAMES, NAMES, TIMES_MS),
    MessageDeleted: st.builds(MessageDeleted, NAMES, IDS, TIMES_MS),
    Welcome: st.builds(
        Welcome,
        st.just(""),
        NAMES,
        st.just(()),
        TIMES_MS,
        st.text(max_size=9),
        st.lists(ENTERED, max_size=3),
        TOPICS,
    ),
    DirectMessage: DIRECT,
    DirectMessageSent: st.builds(DirectMessageSent, DIRECT, TEXTS),
    Roster: st.builds(Roster, st.lists(NAMES, max_size=3), NAMES, COUNTS),
    Entered: ENTERED,
    LeftRoom: st.builds(LeftRoom, NAMES),
    RoomList: st.builds(RoomList, st.lists(st.builds(RoomListing, NAMES, COUNTS, TOPICS), max_size=3)),
    Topic: st.builds(Topic, NAMES, TOPICS),
    Accepted: st.builds(Accepted, st.sampled_from(Action), NAMES, TEXTS),
    HistoryPage: st.builds(
        HistoryPage,
        NAMES,
        st.lists(
            st.builds(PastMessage, IDS, NAMES, TEXTS, TIMES_MS)
            | st.builds(PastMessage, IDS, NAMES, st.just(""), TIMES_MS, st.just(True)),
            max_size=3,
        ),
        st.booleans(),
    ),
    # Deleted texts are empty.
    Missed: st.builds(
        Missed,
        st.lists(
            st.builds(
                Said,
                NAMES,
                NAMES,
                st.lists(TEXTS | st.just(""), min_size=1, max_size=3),
                st.integers(1, 2**50),
                TIMES_MS,
            )
            | st.builds(Joined, NAMES, NAMES, TIMES_MS)
            | st.builds(MessageDeleted, NAMES, IDS, TIMES_MS),
            max_size=3,
        ),
    ),
    MessageKept: st.builds(MessageKept, DIRECT),
    TokenIssued: st.builds(TokenIssued, TEXTS.map(Secret)),
    Confirmed: st.one_of(st.builds(Confirmed, NAMES, IDS), st.just(Confirmed())),
    Kicked: st.builds(Kicked, NAMES, TOPICS, TIMES_MS),
    Invited: st.builds(Invited, NAMES, NAMES, TIMES_MS),
    BanList: st.builds(
        BanList,
        NAMES,
        st.lists(st.builds(BanListing, TEXTS, st.none() | TIMES_MS, TOPICS), max_size=3),
        st.booleans(),
    ),
    Pong: st.builds(Pong, TOPICS),
    HelpText: st.just(HelpText()),
    Goodbye: st.just(Goodbye()),
    Greeting: st.builds(Greeting, TEXTS),
    Rejected: st.builds(Rejected, st.sampled_from([*Rejection, *ParseError]), TEXTS, TOPICS),
    DisconnectNotice: st.builds(DisconnectNotice, st.sampled_from(NoticeReason), st.booleans(), TOPICS),
}
# They come while a request is handled, without being its answer.
NOTICES = (DirectMessage, DirectMessageSent, MessageKept, DisconnectNotice, Missed, Kicked, Invited)
REFS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=16)


def test_every_type_of_event_is_tested():
    assert set(BY_TYPE) == set(get_args(Event))


@pytest.mark.parametrize("kind", BY_TYPE, ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(data=st.data(), ref=REFS)
def test_every_event_is_in_the_schema_and_answers_have_the_ref(
    kind: type, data: st.DataObject, ref: str | None
):
    event = data.draw(BY_TYPE[kind])
    if kind in get_args(Broadcast):
        check(JSON2.encode(event))
        return
    interpreter = JSON2.interpreter()
    assert isinstance(interpreter, Json2Interpreter)
    interpreter._answer_to(ref)
    frame = interpreter.encode_private(event)
    check(frame)
    if frame:
        assert {json.loads(line).get("ref") for line in frame.splitlines()} == {
            None if kind in NOTICES else ref
        }
    elif kind not in (DirectMessageSent, Missed):
        # There is nothing to say without a ref.
        assert kind in (HelpText, Greeting) or (ref is None and kind in (Accepted, Confirmed))


# --- What clients send -----------------------------------------------------------------------------------------------

STRINGS = (
    "username",
    "epoch",
    "room",
    "message",
    "key",
    "to",
    "topic",
    "token",
    "ref",
    "reason",
    "password",
    "new",
    "x",
)
VALID = {
    **dict.fromkeys(STRINGS, "a"),
    "v": 2,
    "rooms": {"a": None},
    **dict.fromkeys(("before", "limit", "id", "seconds"), 3),
    "on": True,
    "revoke": True,
}
VALUES: list[object] = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        MAX_INTEGER,
        MAX_INTEGER + 1,
        10**20,
        1.0,
        0.5,
        "",
        "a",
        "x" * 64,
        "x" * 65,
    ),
    *(
        [],
        ["a"],
        {},
        {"a": None},
        {"a": 3},
        {"a": -1},
        {"a": 1.5},
        {"a": "3"},
        {"a": []},
        {"a": {}},
        {"a": {"x": []}},
    ),
    *(
        {"a": {"after": 3}},
        {"a": {"after": None}},
        {"a": {"after": -1}},
        {"a": {"key": "k"}},
        {"a": {"key": None}},
    ),
]


@pytest.mark.parametrize("kind", [*sorted(types_of("request")), "welcome"])
def test_a_request_is_read_if_and_only_if_it_is_in_the_schema(kind: str):
    """With all fields, and each value in each of them; the server takes a missing one as empty."""
    valid = {"type": kind, **VALID, "after": "a" if kind in ("users", "bans") else 3}
    assert REQUESTS.is_valid(valid) is (kind != "welcome")
    for field in (*VALID, "after"):
        for value in VALUES:
            request = {**valid, field: value}
            reading = JSON2.interpreter().read(json.dumps(request).encode(), False)
            command = reading.command if isinstance(reading, Request) else reading
            is_refused = isinstance(command, InvalidCommand)
            if value == 1 and (kind, field) == ("join", "v"):
                # Left to version 1.
                continue
            if type(value) is float and value.is_integer():
                # An integer for JSON Schema, but not for the server.
                assert is_refused or REQUESTS.is_valid(request)
                continue
            assert is_refused is not REQUESTS.is_valid(request), (field, value)


# --- Conversations ---------------------------------------------------------------------------------------------------

PEOPLE = ("alice", "bob", "carol")
ROOM = {"room": st.sampled_from(["lobby", "dev", "dev", "#DEV", "ops", "one", "a b", ""])}
DEV = {"room": st.sampled_from(["dev", "dev", "dev", "lobby"])}
WHO = {"username": st.sampled_from([*PEOPLE, *PEOPLE, "BOB", "dave", ""])}
REASON = {"reason": st.sampled_from(["", "spam"])}
KEY = {"key": st.sampled_from(["", "k1", "k2"])}
TEXT = {"message": st.sampled_from(["hi", "hi", ""])}
SPOKEN = st.one_of(
    *[
        st.fixed_dictionaries({"type": st.just(kind), **fields}, optional=optional)
        for kind, fields, optional in (
            ("chat", {**TEXT, **ROOM}, KEY),
            ("chat", {**TEXT, **ROOM}, {}),
            ("chat", {"message": st.just("hi"), "room": st.just("lobby")}, {"key": st.just("k1")}),
            ("dm", {"message": st.just("hi"), "to": st.just("bob")}, {"key": st.just("k1")}),
            ("dm", {"to": st.sampled_from([*PEOPLE, "BOB", "dave", ""]), **TEXT}, KEY),
            ("enter", ROOM, {"after": st.none()}),
            ("enter", ROOM, {}),
            ("leave", {}, ROOM),
            ("users", {}, {**ROOM, "after": st.sampled_from([*PEOPLE, "CAROL"])}),
            ("rooms", {}, {}),
            ("topic", {}, {**ROOM, "topic": st.sampled_from(["", "tea", "x" * 301])}),
            ("typing", {}, ROOM),
            ("history", {}, ROOM),
            ("enter", {"room": st.just("dev"), "key": st.sampled_from(["k", "x"])}, {}),
            *[(kind, WHO, {**DEV, **REASON}) for kind in ("kick", "invite", "owner", "voice", "unvoice")],
            *[
                (kind, WHO, {**DEV, **REASON, "seconds": st.sampled_from([None, 60])})
                for kind in ("ban", "mute")
            ],
            *[(kind, WHO, DEV) for kind in ("unban", "unmute", "mod", "unmod")],
            *[(kind, {"on": st.booleans()}, DEV) for kind in ("private", "moderated")],
            ("bans", {}, DEV),
            ("key", {"key": st.sampled_from(["k", "", "k" * 65])}, DEV),
            ("delete", {"id": st.integers(1, 5)}, DEV),
            ("ignore", WHO, {}),
            ("unignore", WHO, {}),
            ("ping", {}, {"token": st.sampled_from(["", "t"])}),
            ("join", {"v": st.just(2), "username": st.just("dave")}, {}),
            ("nope", {}, {}),
            ("chat", {"message": st.just(5)}, {}),
        )
    ]
)


def sorted_rooms(one: dict[str, Any]) -> dict[str, Any]:
    """The order of the rooms behind the lobby is not part of the protocol."""
    if one["type"] != "rooms":
        return one
    lobby, *others = one["rooms"]
    return {**one, "rooms": [lobby, *sorted(others, key=lambda room: str(room["room"]))]}


# Who sends these requests at once, and which of them have a ref.
TURN = st.tuples(st.sampled_from(PEOPLE), st.lists(st.tuples(SPOKEN, st.booleans()), min_size=1, max_size=6))


@settings(max_examples=100)
@given(st.lists(TURN, max_size=15))
def test_in_any_conversation_everyone_receives_what_the_model_says(
    turns: list[tuple[str, list[tuple[dict[str, Any], bool]]]],
):
    with joined(*PEOPLE, lines_per_s=0, rooms_per_client=3) as (simulation, clients):
        model = Conversation(PEOPLE, int(simulation.clock.time() * 1000), max_rooms=3)
        for number, (speaker, spoken) in enumerate(turns):
            requests = [
                {**request, "ref": f"{number}.{at}"} if named else request
                for at, (request, named) in enumerate(spoken)
            ]
            clients[PEOPLE.index(speaker)].send_lines(*map(json.dumps, requests))
            simulation.run_until_idle()
            for request in requests:
                model.handle(speaker, request)
            for name, client in zip(PEOPLE, clients, strict=True):
                received = objects(client)
                assert list(map(sorted_rooms, received)) == list(map(sorted_rooms, model.received[name]))
                for one in received:
                    SENT.validate(one)
                model.received[name].clear()


MISSED = st.lists(
    st.tuples(
        st.sampled_from(["enter", "leave", "chat", "chat", "history"]),
        st.sampled_from(["lobby", "dev"]),
        st.integers(0, 9),
        st.integers(0, 2),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(MISSED)
def test_what_was_missed_is_in_the_schema_and_no_message_is_missing(
    requests: list[tuple[str, str, int, int]],
):
    with joined(*PEOPLE, lines_per_s=0) as (simulation, clients):
        latest: dict[tuple[int, str], int] = {}
        for kind, room, number, speaker in requests:
            fields = {"enter": {"after": number}, "history": {"before": number, "limit": 3}}
            request = {"type": kind, "room": room, "message": "hi", **fields.get(kind, {})}
            clients[speaker].send_lines(json.dumps(request))
            simulation.run_until_idle()
            for at, client in enumerate(clients):
                for one in objects(client):
                    SENT.validate(one)
                    if one["type"] == "entered":
                        latest[at, one["room"]] = one["replay_from"] - 1
                    elif one["type"] == "chat":
                        # None is missing, and none comes twice.
                        assert one["id"] == latest.get((at, one["room"]), 0) + 1
                        latest[at, one["room"]] = one["id"]
