"""The three dialects from the client's side, and that they look alike from the conversation on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.client.conversation import Clock, Conversation, Effect, Ring, Send, Show, Shown
from geventchat.client.heard import (
    Cut,
    CutReason,
    Farewell,
    Heard,
    Joined,
    Left,
    NameFault,
    NameRefused,
    Pong,
    Refused,
    Roster,
    Said,
    TellConfirmed,
    Told,
    Unclear,
    Welcomed,
)
from geventchat.client.notes import (
    CameIn,
    Commands,
    Note,
    OwnPrivateWords,
    People,
    PingTook,
    PrivateWords,
    Problem,
    WentAway,
    Words,
)
from geventchat.client.rendering import Look, render
from geventchat.client.speech import Dialect, Speech, Unsayable, looks_like
from geventchat.client.speeches import dialect_of_port, speak

NOON = datetime(2024, 1, 15, 12, 0, 0)

LOGINS = {
    Dialect.LINE: b"OK\n",
    Dialect.JSON: b'{"type": "welcome", "message": "Welcome to the chat, alice!", "users": ["alice"], "timestamp": 1}\n',
    Dialect.SLASH: b"[join] alice has joined the chat.\nConnected! Type /help for commands\n\n",
}


def everything(speech: Speech, data: bytes) -> list[Heard]:
    return [heard for line in data.splitlines() for heard in speech.hear(line)]


def inside(dialect: Dialect) -> Speech:
    speech = speak(dialect)
    speech.login("alice")
    welcomed = everything(speech, LOGINS[dialect])
    assert [type(heard) for heard in welcomed] == [Welcomed]
    return speech


@pytest.mark.parametrize(
    ("dialect", "sent"),
    [
        (
            Dialect.LINE,
            [
                b"LOGIN alice\n",
                b"MSG hi  all\n",
                b"DM bob psst\n",
                b"WHO\nPING end-of-users\n",
                b"PING\n",
                b"QUIT\n",
            ],
        ),
        (
            Dialect.JSON,
            [
                b'{"type": "join", "username": "alice"}\n',
                b'{"type": "chat", "message": "hi  all"}\n',
                b'{"type": "dm", "to": "bob", "message": "psst"}\n',
                b'{"type": "users"}\n',
                b'{"type": "ping"}\n',
                b'{"type": "quit"}\n',
            ],
        ),
        (Dialect.SLASH, [b"alice\n", b"hi  all\n", b"/dm bob psst\n", b"/users\n", b"/ping\n", b"/quit\n"]),
    ],
)
def test_what_a_person_does_is_said_in_the_dialect(dialect: Dialect, sent: list[bytes]) -> None:
    speech = speak(dialect)
    assert [
        speech.login("alice"),
        speech.say("hi  all"),
        speech.tell("bob", "psst"),
        speech.ask_users(),
        speech.ping(),
        speech.leave(),
    ] == sent


@pytest.mark.parametrize(
    ("line", "heard"),
    [
        (b"MSG bob hi  all", Said("bob", "hi  all")),
        (b"DM bob psst", Told("bob", "psst")),
        (b"PONG", Pong()),
        (b"PONG token", Pong()),
        (b"Goodbye!", Farewell()),
        (b"INFO bob disconnected", Left("bob")),
        (b"INFO idle-timeout", Cut(CutReason.IDLE)),
        (b"ERR idle-timeout", Cut(CutReason.IDLE)),
        (b"INFO server-shutdown", Cut(CutReason.SHUTDOWN)),
        (b"ERR server-full", Cut(CutReason.FULL)),
        (b"ERR too-many-connections", Cut(CutReason.CROWDED)),
        (b"ERR username-taken", NameRefused(NameFault.TAKEN)),
        (b"ERR invalid-username", NameRefused(NameFault.INVALID)),
        (b"ERR user-not-found", Refused("Nobody of that name is here. /users lists who is.")),
        (b"ERR new-fangled", Refused("The server says: new-fangled")),
        (b"\xff\xfe", Unclear("\ufffd\ufffd")),
        (b"OK then", Unclear("OK then")),
    ],
)
def test_a_line_of_the_line_dialect_is_understood(line: bytes, heard: Heard) -> None:
    assert inside(Dialect.LINE).hear(line) == (heard,)


def test_the_roster_of_the_line_dialect_ends_where_our_ping_is_answered() -> None:
    speech = inside(Dialect.LINE)
    data = b"USER bob\nMSG bob hi\nUSER alice\nPONG\nPONG end-of-users\nPONG end-of-users\n"
    assert everything(speech, data) == [Said("bob", "hi"), Pong(), Roster(("bob", "alice")), Roster(())]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"type": "chat", "username": "bob", "message": "hi", "timestamp": 1}, Said("bob", "hi")),
        ({"type": "dm", "username": "bob", "to": "alice", "message": "psst"}, Told("bob", "psst")),
        ({"type": "dm", "username": "alice", "to": "bob", "message": "psst"}, TellConfirmed("bob", "psst")),
        ({"type": "dm", "username": "alice", "to": "alice", "message": "note"}, Told("alice", "note")),
        ({"type": "user_joined", "username": "bob", "message": "bob joined the chat"}, Joined("bob")),
        ({"type": "user_left", "username": "bob", "message": "bob left the chat"}, Left("bob")),
        ({"type": "users", "users": ["bob", "alice"]}, Roster(("bob", "alice"))),
        ({"type": "users", "users": ["bob", 7, None]}, Roster(("bob",))),
        ({"type": "pong"}, Pong()),
        ({"type": "goodbye"}, Farewell()),
        ({"type": "error", "message": "Username already taken"}, NameRefused(NameFault.TAKEN)),
        ({"type": "error", "message": "Invalid username"}, NameRefused(NameFault.INVALID)),
        ({"type": "error", "message": "Idle timeout"}, Cut(CutReason.IDLE)),
        ({"type": "error", "message": "Server shutting down"}, Cut(CutReason.SHUTDOWN)),
        ({"type": "error", "message": "Teapot"}, Refused("The server says: Teapot")),
    ],
)
def test_an_object_of_the_json_dialect_is_understood(said: object, heard: Heard) -> None:
    assert inside(Dialect.JSON).hear(json.dumps(said).encode()) == (heard,)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hi",
        b"[]",
        b"7",
        b"null",
        b'{"type": 7}',
        b'{"type": "chat"}',
        b'{"type": "chat", "message": "x"}',
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"type": "users", "users": "bob"}',
        b'{"type":',
    ],
)
def test_what_no_json_server_says_is_shown_and_breaks_nothing(line: bytes) -> None:
    (heard,) = inside(Dialect.JSON).hear(line)
    assert heard == Unclear(line.decode())


def test_the_welcome_of_the_json_dialect_spells_our_name_as_others_see_it() -> None:
    speech = speak(Dialect.JSON)
    speech.login("Ａｌｉｃｅ")
    welcome = {"type": "welcome", "message": "Welcome to the chat, Alice!", "users": ["bob", "Alice"]}
    assert speech.hear(json.dumps(welcome).encode()) == (Welcomed("Alice", ("bob", "Alice")),)


@pytest.mark.parametrize(
    ("line", "heard"),
    [
        ("bob: hi  all", Said("bob", "hi  all")),
        ("bob: [join] eve has joined the chat.", Said("bob", "[join] eve has joined the chat.")),
        ("bob: alice: hi", Said("bob", "alice: hi")),
        ("[DM from bob] psst: you", Told("bob", "psst: you")),
        ("[DM to bob] psst: you", TellConfirmed("bob", "psst: you")),
        ("[join] bob has joined the chat.", Joined("bob")),
        ("[leave] bob has left the chat.", Left("bob")),
        ("pong", Pong()),
        ("Disconnecting...", Farewell()),
        (
            "No user named 'x'. Use /users to see online users.",
            Refused("Nobody of that name is here. /users lists who is."),
        ),
        ("[error] Line too long.", Refused("That was too long for the server; it was not delivered.")),
        ("[error] Teapot.", Refused("The server says: Teapot.")),
        ("[error] Idle timeout.", Cut(CutReason.IDLE)),
        ("[error] Server full.", Cut(CutReason.FULL)),
        ("[info] Server is shutting down.", Cut(CutReason.SHUTDOWN)),
        ("hello there", Unclear("hello there")),
    ],
)
def test_a_line_of_the_slash_dialect_is_understood(line: str, heard: Heard) -> None:
    assert inside(Dialect.SLASH).hear(line.encode()) == (heard,)


def test_the_roster_of_the_slash_dialect_ends_at_the_blank_line() -> None:
    speech = inside(Dialect.SLASH)
    data = b"=== Online Users (2) ===\nbob\nalice\n\nbob: hi\n"
    assert everything(speech, data) == [Roster(("bob", "alice")), Said("bob", "hi")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"[error] Username already taken. Try another.", NameFault.TAKEN),
        (b"[error] Invalid username.", NameFault.INVALID),
        (b"[error] Username must be 1-20 characters.", NameFault.LENGTH),
    ],
)
def test_the_slash_dialect_refuses_a_name_in_three_ways(line: bytes, fault: NameFault) -> None:
    speech = speak(Dialect.SLASH)
    speech.login("alice")
    assert speech.hear(line) == (NameRefused(fault),)


def test_text_that_begins_with_a_slash_cannot_be_said_in_slash() -> None:
    with pytest.raises(Unsayable, match="begins with / is a command"):
        inside(Dialect.SLASH).say("/etc/passwd")


@given(st.sampled_from(Dialect), st.lists(st.binary(max_size=80).filter(lambda line: b"\n" not in line)))
def test_no_server_can_break_a_speech_or_reach_the_terminal(dialect: Dialect, lines: list[bytes]) -> None:
    speech = inside(dialect)
    conversation = Conversation(speech, "alice", Clock(lambda: NOON, lambda: 0.0), shows_own=True)
    for line in lines:
        for heard in speech.hear(line):
            for effect in conversation.heard(heard):
                if isinstance(effect, Show):
                    assert render(effect.note, Look(colour=False)).isprintable() or all(
                        ord(character) >= 0xA0 or 0x20 <= ord(character) < 0x7F
                        for character in render(effect.note, Look(colour=False))
                    )


@given(st.sampled_from([Dialect.LINE, Dialect.JSON]), st.text().filter(lambda text: "\n" not in text))
def test_what_is_said_is_one_line_on_the_wire(dialect: Dialect, text: str) -> None:
    sent = speak(dialect).say(text)
    assert sent.endswith(b"\n")
    assert sent.count(b"\n") == 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_carries_any_text_in_ascii(text: str) -> None:
    sent = speak(Dialect.JSON).say(text)
    assert sent.isascii()
    assert json.loads(sent) == {"type": "chat", "message": text}


@pytest.mark.parametrize(
    ("line", "dialect"),
    [
        (b"ERR must-login-first", Dialect.LINE),
        (b'{"type": "error", "message": "Invalid JSON"}', Dialect.JSON),
        (b"[error] Invalid username.", Dialect.SLASH),
        (b"OK", None),
        (b"HTTP/1.1 400 Bad Request", None),
    ],
)
def test_an_error_gives_away_what_the_server_speaks(line: bytes, dialect: Dialect | None) -> None:
    assert looks_like(line) is dialect


def test_a_port_suggests_its_dialect() -> None:
    assert [dialect_of_port(port) for port in (4000, 12345, 5000, 6667)] == [
        Dialect.LINE,
        Dialect.JSON,
        Dialect.SLASH,
        Dialect.LINE,
    ]


# From here on: one evening, told in each dialect, looks the same.

EVENING = {
    Dialect.LINE: [b"MSG bob hi alice", b"DM bob psst", b"INFO bob disconnected"],
    Dialect.JSON: [
        b'{"type": "chat", "username": "bob", "message": "hi alice", "timestamp": 1}',
        b'{"type": "dm", "username": "bob", "to": "alice", "message": "psst", "timestamp": 1}',
        b'{"type": "user_left", "username": "bob", "message": "bob left the chat", "timestamp": 1}',
    ],
    Dialect.SLASH: [b"bob: hi alice", b"[DM from bob] psst", b"[leave] bob has left the chat."],
}


def a_conversation(
    dialect: Dialect, *, shows_own: bool = True, ticks: Iterable[float] = ()
) -> tuple[Speech, Conversation]:
    speech = inside(dialect)
    seconds = iter(ticks)
    return speech, Conversation(
        speech, "alice", Clock(lambda: NOON, lambda: next(seconds)), shows_own=shows_own
    )


def heard_by(speech: Speech, conversation: Conversation, lines: Iterable[bytes]) -> list[Effect]:
    return [effect for line in lines for heard in speech.hear(line) for effect in conversation.heard(heard)]


def notes(effects: Iterable[Effect]) -> list[Note]:
    return [effect.note for effect in effects if isinstance(effect, Show)]


@pytest.mark.parametrize("dialect", Dialect)
def test_an_evening_looks_the_same_in_every_dialect(dialect: Dialect) -> None:
    speech, conversation = a_conversation(dialect)
    assert heard_by(speech, conversation, EVENING[dialect]) == [
        Show(Words(NOON, "bob", "hi alice", mentions_me=True)),
        Ring(),
        Show(PrivateWords(NOON, "bob", "psst")),
        Ring(),
        Show(WentAway("bob")),
    ]


OWN_ECHO = {
    Dialect.LINE: [],
    Dialect.JSON: [b'{"type": "chat", "username": "alice", "message": "hello", "timestamp": 1}'],
    Dialect.SLASH: [],
}
OWN_TELL = {
    Dialect.LINE: [],
    Dialect.JSON: [b'{"type": "dm", "username": "alice", "to": "bob", "message": "psst", "timestamp": 1}'],
    Dialect.SLASH: [b"[DM to bob] psst"],
}


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("shows_own", [True, False])
def test_ones_own_words_are_shown_once_in_every_dialect(dialect: Dialect, shows_own: bool) -> None:
    speech, conversation = a_conversation(dialect, shows_own=shows_own)
    seen = [
        *conversation.typed("hello"),
        *heard_by(speech, conversation, OWN_ECHO[dialect]),
        *conversation.typed("/dm bob psst"),
        *heard_by(speech, conversation, OWN_TELL[dialect]),
    ]
    own = [Words(NOON, "alice", "hello", own=True), OwnPrivateWords(NOON, "bob", "psst")]
    assert notes(seen) == (own if shows_own else [])
    assert not any(isinstance(effect, Ring) for effect in seen)


@pytest.mark.parametrize(
    ("dialect", "answers"),
    [
        (Dialect.LINE, [b"DM alice note"]),
        (Dialect.JSON, [b'{"type": "dm", "username": "alice", "to": "alice", "message": "note"}']),
        (Dialect.SLASH, [b"[DM to alice] note", b"[DM from alice] note"]),
    ],
)
def test_a_note_to_oneself_is_shown_once(dialect: Dialect, answers: list[bytes]) -> None:
    speech, conversation = a_conversation(dialect)
    seen = [*conversation.typed("/dm Alice note"), *heard_by(speech, conversation, answers)]
    assert notes(seen) == [PrivateWords(NOON, "alice", "note")]


@pytest.mark.parametrize(
    ("dialect", "answers"),
    [
        (Dialect.LINE, [b"USER bob", b"USER alice", b"PONG end-of-users"]),
        (Dialect.JSON, [b'{"type": "users", "users": ["bob", "alice"]}']),
        (Dialect.SLASH, [b"=== Online Users (2) ===", b"bob", b"alice", b""]),
    ],
)
def test_the_roster_is_shown_and_learnt(dialect: Dialect, answers: list[bytes]) -> None:
    speech, conversation = a_conversation(dialect)
    assert conversation.people() == ["alice"]
    seen = [*conversation.typed("/users"), *heard_by(speech, conversation, answers)]
    assert seen == [Send(speech.ask_users()), Show(People(("bob", "alice")))]
    assert conversation.people() == ["bob", "alice"]


def test_a_roster_that_nobody_asked_to_see_is_learnt_in_silence() -> None:
    speech, conversation = a_conversation(Dialect.LINE)
    asked = list(conversation.learn_people(None, Shown.NOTHING))
    assert asked == [Send(b"WHO\nPING end-of-users\n")]
    assert heard_by(speech, conversation, [b"USER bob", b"USER alice", b"PONG end-of-users"]) == []
    assert conversation.people() == ["bob", "alice"]


def test_a_roster_in_the_welcome_needs_no_question() -> None:
    _, conversation = a_conversation(Dialect.JSON)
    assert list(conversation.learn_people(("bob", "alice"), Shown.A_LOOK_AROUND)) == [
        Show(People(("bob", "alice")))
    ]


@pytest.mark.parametrize("dialect", Dialect)
def test_a_ping_tells_how_long_it_took_and_a_sign_of_life_tells_nothing(dialect: Dialect) -> None:
    pong = {Dialect.LINE: b"PONG", Dialect.JSON: b'{"type": "pong"}', Dialect.SLASH: b"pong"}[dialect]
    speech, conversation = a_conversation(dialect, ticks=[10.0, 10.25])
    assert conversation.keep_alive() == Send(speech.ping())
    assert list(conversation.typed("/ping")) == [Send(speech.ping())]
    assert heard_by(speech, conversation, [pong]) == []
    assert heard_by(speech, conversation, [pong]) == [Show(PingTook(0.25))]


def test_joins_are_shown_where_the_dialect_tells_them() -> None:
    for dialect, line in [
        (Dialect.JSON, b'{"type": "user_joined", "username": "bob", "message": "bob joined the chat"}'),
        (Dialect.SLASH, b"[join] bob has joined the chat."),
    ]:
        speech, conversation = a_conversation(dialect)
        assert heard_by(speech, conversation, [line]) == [Show(CameIn("bob"))]
        assert "bob" in conversation.people()


@pytest.mark.parametrize("text", ["malice", "alices", "al ice"])
def test_a_name_inside_another_word_is_no_mention(text: str) -> None:
    speech, conversation = a_conversation(Dialect.LINE)
    assert heard_by(speech, conversation, [b"MSG bob " + text.encode()]) == [Show(Words(NOON, "bob", text))]


@pytest.mark.parametrize("text", ["alice", "ALICE!", "hey, Alice: look", "@alice"])
def test_a_mention_rings_however_it_is_written(text: str) -> None:
    speech, conversation = a_conversation(Dialect.LINE)
    assert Ring() in heard_by(speech, conversation, [b"MSG bob " + text.encode()])


def test_help_and_mistakes_send_nothing() -> None:
    _, conversation = a_conversation(Dialect.SLASH)
    effects = [
        *conversation.typed("/help"),
        *conversation.typed("/foo"),
        *conversation.typed("//foo"),
        *conversation.typed(""),
    ]
    assert [type(note) for note in notes(effects)] == [Commands, Problem, Problem]
    assert not any(isinstance(effect, Send) for effect in effects)


def test_who_comes_into_a_crowd_sees_a_few_names_and_can_ask_for_all() -> None:
    crowd = tuple(f"user{number}" for number in range(100))
    speech, conversation = a_conversation(Dialect.JSON)
    assert notes(conversation.learn_people(crowd, Shown.A_LOOK_AROUND)) == [People(crowd[:30], more=70)]
    assert len(conversation.people()) == 100
    asked = [*conversation.typed("/users"), *conversation.heard(Roster(crowd))]
    assert notes(asked) == [People(crowd)]
    assert asked[0] == Send(speech.ask_users())


def test_who_speaks_is_known_and_who_left_is_forgotten() -> None:
    speech, conversation = a_conversation(Dialect.LINE)
    heard_by(speech, conversation, [b"MSG bob hi", b"DM eve psst"])
    assert conversation.people() == ["alice", "bob", "eve"]
    heard_by(speech, conversation, [b"INFO bob disconnected"])
    assert conversation.people() == ["alice", "eve"]
