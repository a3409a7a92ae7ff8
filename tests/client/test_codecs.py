"""The client's half of each dialect encodes what its server reads, and decodes what its server encodes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from geventchat.chat.commands import (
    AnnounceTyping,
    AskHistory,
    AskToken,
    AskTopic,
    ChangePassword,
    Command,
    Delete,
    EnterRoom,
    Help,
    Ignore,
    Impose,
    InvalidCommand,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListBans,
    ListRooms,
    Login,
    ParseError,
    PassOwnership,
    Ping,
    Quit,
    Register,
    RevokeTokens,
    Sanction,
    Say,
    SendDirectMessage,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
    Who,
)
from geventchat.chat.events import (
    Announcement,
    BanList,
    BanListing,
    Broadcast,
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
    NoticeReason,
    PastMessage,
    Pong,
    PrivateEvent,
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
from geventchat.client.session import dialect_of_port, guess_dialect
from geventchat.dialects import ALL_DIALECTS, DIALECTS
from geventchat.dialects.codec import (
    NO_ID,
    NO_ROOM,
    NO_TIME,
    Answer,
    CannotEncode,
    ClientCodec,
    ServerEvent,
    UnknownError,
    UnknownLine,
)
from geventchat.dialects.dialect import Dialect, Request, TextInRoom
from geventchat.dialects.line import LineClient

NAMES = tuple(DIALECTS)
LINE, JSON, SLASH, JSON2 = (ALL_DIALECTS[name] for name in ("line", "json", "slash", "json2"))
TIME_MS = 1_705_320_000_000

by_dialect = pytest.mark.parametrize("dialect", ALL_DIALECTS.values(), ids=ALL_DIALECTS)


def server_bytes(dialect: Dialect, event: Event) -> bytes:
    """The bytes of a server for the client that is logged in as alice."""
    if isinstance(event, Broadcast):
        return dialect.encode(event)
    data = private(dialect, event)
    if dialect is LINE and isinstance(event, Roster):
        data += private(dialect, Pong("end-of-users"))
    return data


def private(dialect: Dialect, event: PrivateEvent) -> bytes:
    return dialect.interpreter().encode_private(event)


def decode_all(codec: ClientCodec, data: bytes) -> list[ServerEvent]:
    events = [codec.decode(line) for line in data.splitlines()]
    return [event for event in events if event is not None]


def logged_in(dialect: Dialect, name: str = "alice") -> ClientCodec:
    codec = dialect.client()
    codec.encode(Login(name))
    welcome = Welcome("lobby", name, [name], TIME_MS)
    data = private(dialect, welcome)
    if dialect.echoes(Joined("lobby", name, TIME_MS)):
        data = dialect.encode(Joined("lobby", name, TIME_MS)) + data
    (event,) = decode_all(codec, data)
    assert isinstance(event, Welcome)
    assert event.name == name
    return codec


COMMANDS: list[Command] = [
    Say(("hi  all",)),
    Say(("one", "two")),
    SendDirectMessage("bob", "psst ünïcode 🎉"),
    Who(),
    Ping(""),
    Quit(),
]


def read_all(dialect: Dialect, data: bytes, *, is_logged_in: bool) -> Iterator[object]:
    reader = dialect.interpreter()
    for line in data.splitlines():
        reading = reader.read(line, is_logged_in)
        match reading:
            case str(text):
                yield Say((text,))
            case TextInRoom(room, text):
                yield Say((text,), room)
            case Request():
                yield reading.command
            case _:
                yield reading


@by_dialect
def test_the_server_reads_each_command_that_the_client_encodes(dialect: Dialect) -> None:
    for command in COMMANDS:
        expected: list[Command] = [command]
        if isinstance(command, Say):
            expected = [Say((text,)) for text in command.texts]
        if dialect is LINE and isinstance(command, Who):
            expected.append(Ping("end-of-users"))
        data = dialect.client().encode(command)
        assert list(read_all(dialect, data, is_logged_in=True)) == expected


@by_dialect
def test_the_server_reads_the_login_that_the_client_encodes(dialect: Dialect) -> None:
    data = dialect.client().encode(Login("Zoë"))
    rooms = (EnterRoom("lobby"),) if dialect is JSON2 else None
    assert list(read_all(dialect, data, is_logged_in=False)) == [Login("Zoë", rooms)]


@pytest.mark.parametrize(
    "command",
    [
        Say(("hi",), "dev"),
        Say(("one",), "dev", "key"),
        SendDirectMessage("bob", "psst", "key"),
        Who("dev", "bob"),
        EnterRoom("dev"),
        EnterRoom("dev", "secret", 0),
        LeaveRoom("dev"),
        LeaveRoom(),
        ListRooms(),
        AskTopic("dev"),
        SetTopic("tea", "dev"),
        SetTopic(""),
        AnnounceTyping("dev"),
        Kick("bob"),
        Kick("bob", "for shouting", "dev"),
        Impose(Sanction.BAN, "bob", 60, "spam", "dev"),
        Impose(Sanction.MUTE, "10.0.0.0/8"),
        Lift(Sanction.BAN, "bob", "dev"),
        Lift(Sanction.MUTE, "bob"),
        ListBans("dev", "bob"),
        Invite("bob", "dev"),
        SetPrivate(True, "dev"),
        SetPrivate(False),
        SetKey("sesame", "dev"),
        SetKey(""),
        SetModerated(True, "dev"),
        SetModerated(False),
        *[command("bob", on, "dev") for command in (SetVoice, SetModerator) for on in (True, False)],
        PassOwnership("bob", "dev"),
        Delete(17, "dev"),
        Ignore("bob", on=True),
        Ignore("bob", on=False),
        Register(Secret("correct horse")),
        ChangePassword(Secret("old horse"), Secret("new horse")),
        AskToken(),
        RevokeTokens(),
    ],
    ids=repr,
)
def test_the_server_reads_each_command_of_version_2(command: Command) -> None:
    assert list(read_all(JSON2, JSON2.client().encode(command), is_logged_in=True)) == [command]


@pytest.mark.parametrize("epoch", ["", "e1"])
@pytest.mark.parametrize(
    "rooms",
    [(), (EnterRoom("dev"),), (EnterRoom("a", "secret", 3), EnterRoom("b", after=0), EnterRoom("c", "k"))],
)
def test_a_login_of_version_2_carries_its_rooms(rooms: tuple[EnterRoom, ...], epoch: str) -> None:
    login = Login("alice", rooms, epoch)
    assert list(read_all(JSON2, JSON2.client().encode(login), is_logged_in=False)) == [login]


TYPED_COMMANDS: list[Command] = [
    EnterRoom("dev"),
    EnterRoom("dev", "secret"),
    LeaveRoom(),
    ListRooms(),
    AskTopic(),
    SetTopic("all about dev"),
    SetTopic(""),
    AskHistory(7),
    Register(Secret("correct horse")),
    ChangePassword(Secret("old"), Secret("new")),
    AskToken(),
    RevokeTokens(),
    Ignore("bob", on=True),
    Ignore("bob", on=False),
    Invite("bob"),
    Kick("bob", "for shouting"),
    Impose(Sanction.BAN, "bob", 600, "spam"),
    Impose(Sanction.MUTE, "bob"),
    Lift(Sanction.BAN, "bob"),
    Lift(Sanction.MUTE, "bob"),
    ListBans(),
    SetPrivate(True),
    SetModerated(False),
    SetKey("sesame"),
    SetKey(""),
    *[command("bob", on=on) for command in (SetVoice, SetModerator) for on in (True, False)],
    PassOwnership("bob"),
    Delete(17),
]


@pytest.mark.parametrize("dialect", [LINE, SLASH])
@pytest.mark.parametrize("command", TYPED_COMMANDS, ids=repr)
def test_the_server_reads_each_command_that_is_typed(dialect: Dialect, command: Command) -> None:
    assert list(read_all(dialect, dialect.client().encode(command), is_logged_in=True)) == [command]


def test_a_request_of_version_2_with_a_reference_is_confirmed() -> None:
    data = JSON2.client().encode(Say(("one",), "dev"), "7")
    assert list(read_all(JSON2, data, is_logged_in=True)) == [Say(("one",), "dev", confirm=True)]
    assert json.loads(data)["ref"] == "7"


def test_version_2_sends_letters_as_they_are_and_half_pairs_as_question_marks() -> None:
    assert "日本".encode() in JSON2.client().encode(Say(("日本",)))
    assert json.loads(JSON2.client().encode(Say(("a\ud800b",))))["message"] == "a?b"


@pytest.mark.parametrize("dialect", [LINE, JSON, JSON2])
def test_a_ping_carries_its_token_where_the_dialect_has_tokens(dialect: Dialect) -> None:
    assert list(read_all(dialect, dialect.client().encode(Ping("7")), is_logged_in=True)) == [Ping("7")]
    assert decode_all(logged_in(dialect), private(dialect, Pong("7"))) == [Pong("7")]


@by_dialect
def test_a_line_that_is_not_a_command_cannot_be_encoded(dialect: Dialect) -> None:
    name = dialect.name.removesuffix("2")
    with pytest.raises(CannotEncode, match=f"The {name} dialect has no such command"):
        dialect.client().encode(InvalidCommand(ParseError.UNKNOWN_COMMAND))


@pytest.mark.parametrize("dialect", [LINE, SLASH, JSON2])
def test_a_login_can_have_a_password(dialect: Dialect) -> None:
    login = Login("alice", password=Secret("correct  horse"))
    (read,) = read_all(dialect, dialect.client().encode(login), is_logged_in=False)
    assert isinstance(read, Login)
    assert (read.name, read.password) == ("alice", Secret("correct  horse"))


def test_version_1_of_json_has_no_passwords() -> None:
    with pytest.raises(CannotEncode, match="knows no passwords"):
        JSON.client().encode(Login("alice", password=Secret("correct horse")))


def test_only_slash_has_a_help_command() -> None:
    assert list(read_all(SLASH, SLASH.client().encode(Help()), is_logged_in=True)) == [Help()]
    for dialect in (LINE, JSON, JSON2):
        with pytest.raises(CannotEncode):
            dialect.client().encode(Help())


@pytest.mark.parametrize("dialect", [LINE, SLASH])
def test_a_text_of_two_lines_cannot_be_encoded_as_one(dialect: Dialect) -> None:
    with pytest.raises(CannotEncode, match="A message is a single line"):
        dialect.client().encode(Say(("hi\nQUIT",)))


def test_a_text_that_begins_with_a_slash_cannot_be_encoded_in_slash() -> None:
    with pytest.raises(CannotEncode, match="every line that begins with / as a command"):
        SLASH.client().encode(Say(("/etc/passwd",)))


EVENTS: list[Event] = [
    Said("lobby", "bob", ("hi  all", "and alice: look"), 7, TIME_MS),
    Said("lobby", "alice", ("me",), 9, TIME_MS),
    Joined("lobby", "bob", TIME_MS),
    Left("lobby", "bob", TIME_MS),
    DirectMessage("bob", "alice", "psst: you", TIME_MS),
    DirectMessage("alice", "alice", "note", TIME_MS),
    DirectMessageSent(DirectMessage("alice", "bob", "psst: you", TIME_MS), "bob"),
    Roster(("bob", "alice")),
    Roster(()),
    Pong(""),
    HelpText(),
    Goodbye(),
    *[
        Rejected(reason, "/leave" if reason is ParseError.INVALID_ARGUMENT else "somebody")
        for reason in (*Rejection, *ParseError)
    ],
    *[DisconnectNotice(reason, as_error) for reason in NoticeReason for as_error in (False, True)],
    DisconnectNotice(NoticeReason.KICKED, text="for shouting"),
]


# The answers to what the client does not ask. `ERR banned` means the server to a client that does not know rooms.
NEVER_RECEIVED = [(LINE, HelpText()), (LINE, Rejected(Rejection.BANNED_FROM_ROOM, "somebody"))]


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        pytest.param(dialect, event, id=f"{event!r}-{dialect.name}")
        for dialect in (LINE, JSON, SLASH)
        for event in EVENTS
        if (dialect, event) not in NEVER_RECEIVED
    ],
)
def test_the_client_decodes_every_event_that_its_server_encodes(dialect: Dialect, event: Event) -> None:
    """Encoded again, the decoded event is the same bytes."""
    data = server_bytes(dialect, event)
    decoded = decode_all(logged_in(dialect), data)
    assert [type(one) for one in decoded] == [type(event)] * (
        len(event.texts) if isinstance(event, Said) else bool(data)
    )
    again = [server_bytes(dialect, one) for one in decoded if not isinstance(one, UnknownLine | UnknownError)]
    assert b"".join(again) == data


@by_dialect
def test_the_client_knows_what_its_server_sends_back_to_the_sender(dialect: Dialect) -> None:
    codec = dialect.client()
    assert codec.echoes_messages is dialect.echoes(Said("lobby", "alice", ("hi",), 1, TIME_MS))
    sent = DirectMessageSent(DirectMessage("alice", "bob", "psst", TIME_MS), "bob")
    assert codec.confirms_direct_messages is bool(private(dialect, sent))


ENTERED = Entered("dev", ("bob", "alice"), "tea", 7, 19, 18)


@pytest.mark.parametrize(
    "event",
    [
        Welcome("", "alice", (), TIME_MS, "e1", [ENTERED, Entered("lobby", ())]),
        Welcome("", "alice", (), TIME_MS, "e1", []),
        Said("dev", "bob", ("hi",), 7, TIME_MS),
        Joined("dev", "bob", TIME_MS),
        Left("dev", "bob", TIME_MS),
        TopicChanged("dev", "bob", "tea", TIME_MS),
        Typing("dev", "bob", TIME_MS),
        ENTERED,
        LeftRoom("dev"),
        RoomList([RoomListing("lobby", 7, ""), RoomListing("dev", 0, "tea")]),
        Roster(("bob",), "dev", 7),
        Topic("dev", "tea"),
        MessageKept(DirectMessage("alice", "bob", "hi", TIME_MS)),
        TokenIssued(Secret("gct_x")),
        DisconnectNotice(NoticeReason.REPLACED),
        MessageDeleted("dev", 17, TIME_MS),
        Announcement("tea is ready", TIME_MS),
        Kicked("dev", "for shouting", TIME_MS),
        Invited("dev", "bob", TIME_MS),
        BanList("dev", [BanListing("bob", None, ""), BanListing("eve", TIME_MS, "spam")], more=True),
        Rejected(Rejection.NO_SUCH_ROOM, "dev", "dev"),
        Rejected(Rejection.USER_NOT_FOUND),
        Rejected(ParseError.INVALID_FIELD, "after"),
    ],
    ids=repr,
)
def test_the_client_of_version_2_decodes_everything_that_is_in_an_event(event: Event) -> None:
    assert decode_all(logged_in(JSON2), server_bytes(JSON2, event)) == [event]


def test_an_answer_names_its_request() -> None:
    codec = logged_in(JSON2)
    assert codec.decode(b'{"type": "ok", "ref": "1", "room": "dev", "id": 20}') == Answer(
        "1", Confirmed("dev", 20)
    )
    assert codec.decode(b'{"type": "ok", "ref": "2"}') == Answer("2", Confirmed())


@pytest.mark.parametrize("code", ["line-too-long", "invalid-utf8", "invalid-json"])
def test_a_line_that_the_server_could_not_read_was_the_oldest(code: str) -> None:
    codec = logged_in(JSON2)
    message = {
        "line-too-long": "Line too long",
        "invalid-utf8": "Invalid UTF-8",
        "invalid-json": "Invalid JSON",
    }[code]
    error = f'{{"type": "error", "code": "{code}", "message": "{message}"}}'.encode()
    for ref in ("1", "2", "3"):
        codec.encode(Say(("x",)), ref)
    codec.decode(b'{"type": "ok", "ref": "1"}')
    answer = codec.decode(error)
    assert isinstance(answer, Answer)
    assert (answer.ref, type(answer.event)) == ("2", Rejected)


def test_one_can_be_banned_from_a_room_or_from_the_server() -> None:
    banned = b'"type": "error", "code": "banned", "message": "Banned from the room"'
    codec = logged_in(JSON2)
    assert codec.decode(b"{" + banned + b', "room": "dev"}') == Rejected(
        Rejection.BANNED_FROM_ROOM, "dev", "dev"
    )
    assert codec.decode(b"{" + banned + b', "room": "dev", "ref": "1"}') == Answer(
        "1", Rejected(Rejection.BANNED_FROM_ROOM, "dev", "dev")
    )
    assert codec.decode(b'{"type": "error", "code": "banned", "message": "Banned"}') == DisconnectNotice(
        NoticeReason.BANNED
    )
    line = logged_in(LINE)
    line.encode(EnterRoom("dev"), "1")
    assert line.decode(b"ERR banned") == Answer("1", Rejected(Rejection.BANNED_FROM_ROOM))
    assert line.decode(b"ERR banned") == DisconnectNotice(NoticeReason.BANNED, as_error=True)


# Answers where the dialect has none: a ping behind a message.

FENCED = {
    "line": ("PONG", "ERR muted"),
    "json": ('{"type": "pong"}', '{"type": "error", "message": "Muted"}'),
    "slash": ("pong", "[error] You are muted."),
}


@pytest.mark.parametrize("dialect", [LINE, JSON, SLASH])
def test_a_message_with_a_reference_is_answered_and_a_refusal_belongs_to_the_oldest(dialect: Dialect) -> None:
    pong, muted = (line.encode() for line in FENCED[dialect.name])
    codec = logged_in(dialect)
    for ref in ("1", "2"):
        assert codec.encode(Say(("hi",)), ref).count(b"\n") == 2
    codec.encode(Ping(""), "3")
    codec.encode(SendDirectMessage("bob", "psst"), "4")
    assert codec.decode(muted) is None
    first = codec.decode(pong)
    assert isinstance(first, Answer)
    assert (first.ref, type(first.event)) == ("1", Rejected)
    answers = [codec.decode(pong) for _ in range(3)]
    assert answers == [Answer("2", Confirmed()), Answer("3", Pong("")), Answer("4", Confirmed())]
    assert codec.decode(pong) == Pong("")


UNKNOWN = {
    "line": "ERR unknown-command",
    "json": '{"type": "error", "message": "Unknown message type"}',
    "slash": "Unknown command '/ping'. Type /help for commands.",
}


@pytest.mark.parametrize("dialect", [LINE, JSON, SLASH])
def test_a_server_that_does_not_know_pings_answers_all_the_same(dialect: Dialect) -> None:
    codec = logged_in(dialect)
    codec.encode(Say(("hi",)), "1")
    codec.encode(Ping(""), "2")
    unknown = UNKNOWN[dialect.name].encode()
    assert [codec.decode(unknown), codec.decode(unknown)] == [Answer("1", Confirmed()), Answer("2", Pong(""))]


def test_a_slash_server_that_knows_neither_a_command_nor_pings_refuses_the_command() -> None:
    codec = logged_in(SLASH)
    codec.encode(ListRooms(), "1")
    assert codec.decode(b"Unknown command '/rooms'. Type /help for commands.") is None
    answer = codec.decode(UNKNOWN["slash"].encode())
    assert answer == Answer("1", Rejected(ParseError.UNKNOWN_COMMAND, "/rooms"))


# Answers of `line` and `slash` that have several lines, or no line.


@pytest.mark.parametrize(
    ("command", "answer", "event"),
    [
        (EnterRoom("#dev"), b"OK", Entered("dev", ())),
        (LeaveRoom(), b"OK", LeftRoom("lobby", "lobby")),
        (
            ListRooms(),
            b"ROOM lobby 12\nROOM dev 3 all about dev\nOK",
            RoomList([RoomListing("lobby", 12, ""), RoomListing("dev", 3, "all about dev")]),
        ),
        (AskTopic(), b"TOPIC all about dev", Topic("", "all about dev")),
        (AskTopic(), b"TOPIC", Topic("", "")),
        (SetTopic("tea"), b"OK", Confirmed()),
        (
            AskHistory(2),
            b"HIST 7 2024-01-15T12:00:00Z bob hi  all\nHIST 8 2024-01-15T12:00:00Z eve\nOK",
            HistoryPage(
                "",
                [PastMessage(7, "bob", "hi  all", TIME_MS), PastMessage(8, "eve", "", TIME_MS, deleted=True)],
                False,
            ),
        ),
        (AskHistory(2), b"OK", HistoryPage("", [], False)),
        (
            ListBans(),
            b"BAN bob forever\nBAN eve 2024-01-15T12:00:00Z spam\nOK",
            BanList("", [BanListing("bob", None, ""), BanListing("eve", TIME_MS, "spam")]),
        ),
        (AskToken(), b"TOKEN gct_x", TokenIssued(Secret("gct_x"))),
        (Register(Secret("short")), b"ERR weak-password", Rejected(Rejection.WEAK_PASSWORD)),
        (Who(), b"USER bob\nUSER alice\nPONG end-of-users", Roster(("bob", "alice"))),
        (Who(), b"ERR unknown-command\nERR unknown-command", Roster(())),
    ],
    ids=repr,
)
def test_an_answer_of_line_is_recognised_by_what_was_asked(
    command: Command, answer: bytes, event: Event
) -> None:
    codec = logged_in(LINE)
    codec.encode(command, "7")
    # What others say meanwhile is no part of it.
    lines = answer.split(b"\n")
    decoded = [codec.decode(line) for line in (*lines[:-1], b"MSG bob hi", lines[-1])]
    assert isinstance(decoded[-2], Said)
    assert decoded[-1] == Answer("7", event)
    assert all(one is None for one in decoded[:-2])


def test_events_in_line_are_distinguished_from_answers() -> None:
    codec = logged_in(LINE)
    lines = [
        b"TOPIC tea",
        b"INFO bob left",
        b"INFO bob kicked",
        b"INFO bob invites you to dev",
        b"OK",
        b"HIST x",
        b"INFO kicked",
    ]
    assert [codec.decode(line) for line in lines] == [
        TopicChanged("", "", "tea", NO_TIME),
        Left("", "bob", NO_TIME, Departure.LEFT),
        Left("", "bob", NO_TIME, Departure.KICKED),
        Invited("dev", "bob", NO_TIME),
        UnknownLine("OK"),
        UnknownLine("HIST x"),
        DisconnectNotice(NoticeReason.KICKED),
    ]
    codec.encode(EnterRoom("dev"))
    codec.decode(b"OK")
    assert codec.decode(b"INFO kicked for shouting") == Kicked("dev", "for shouting", NO_TIME, "lobby")
    kept = codec.decode(b"INFO bob is offline, message kept")
    assert kept == MessageKept(DirectMessage("alice", "bob", "", NO_TIME))


def test_what_a_slash_server_says_in_prose_is_understood_where_it_matters() -> None:
    codec = logged_in(SLASH)
    data = (
        "[info] You are in dev (3).\n[info] Topic: tea\n[topic] bob: coffee\n[topic] bob removed the topic.\n[info] No topic.\n"
        "[info] You are in lobby again.\n"
        "=== Rooms (1) ===\ndev (3) all about: dev\n\n"
        "=== History (2) ===\n[2024-01-15T12:00:00Z] bob: hi\n[2024-01-15T12:00:00Z] bob: (deleted)\n\n"
        "[info] bob was kicked.\n"
    )
    assert decode_all(codec, data.encode()) == [
        Entered("dev", (), user_count=3),
        Topic("", "tea"),
        TopicChanged("", "bob", "coffee", NO_TIME),
        TopicChanged("", "bob", "", NO_TIME),
        Topic("", ""),
        LeftRoom("dev", "lobby"),
        RoomList([RoomListing("dev", 3, "all about: dev")]),
        HistoryPage(
            "",
            [PastMessage(0, "bob", "hi", TIME_MS), PastMessage(0, "bob", "", TIME_MS, deleted=True)],
            False,
        ),
        UnknownLine("[info] bob was kicked."),
    ]


def test_fields_that_a_dialect_does_not_transmit_are_marked_as_unknown() -> None:
    assert logged_in(LINE).decode(b"MSG bob hi") == Said(NO_ROOM, "bob", ("hi",), NO_ID, NO_TIME)
    chat = JSON.encode(Said("lobby", "bob", ("hi",), 7, TIME_MS))
    assert logged_in(JSON).decode(chat) == Said(NO_ROOM, "bob", ("hi",), NO_ID, TIME_MS)


def test_a_welcome_tells_the_name_as_everyone_else_sees_it() -> None:
    codec = JSON.client()
    codec.encode(Login("ALICE"))
    welcome = codec.decode(private(JSON, Welcome("lobby", "Alice", ["bob", "Alice"], TIME_MS)))
    assert welcome == Welcome(NO_ROOM, "Alice", ("bob", "Alice"), TIME_MS)


def test_a_slash_server_tells_the_name_with_the_clients_own_join() -> None:
    for join, name in ((b"", "ALICE"), (b"[join] Alice has joined the chat.\n", "Alice")):
        codec = SLASH.client()
        codec.encode(Login("ALICE"))
        (welcome,) = decode_all(codec, join + b"Connected! Type /help for commands\n\n")
        assert welcome == Welcome(NO_ROOM, name, (), NO_TIME)


def test_a_json_welcome_needs_no_users() -> None:
    codec = JSON.client()
    codec.encode(Login("alice"))
    for users in ("", ', "users": 7', ', "users": [7, null]'):
        line = f'{{"type": "welcome", "message": "hi"{users}}}'
        assert codec.decode(line.encode()) == Welcome(NO_ROOM, "alice", (), NO_TIME)


def test_the_users_of_the_line_dialect_end_with_the_answer_to_the_ping_behind_who() -> None:
    data = b"USER bob\nMSG bob hi\nUSER alice\nPONG\nPONG end-of-users\nPONG end-of-users\n"
    said, pong, roster, empty = decode_all(logged_in(LINE), data)
    assert isinstance(said, Said)
    assert (pong, roster, empty) == (Pong(""), Roster(("bob", "alice")), Roster(()))


def test_the_users_of_the_slash_dialect_end_with_a_blank_line() -> None:
    data = b"=== Online Users (2) ===\nbob\nalice\n\nbob: hi\n"
    roster, said = decode_all(logged_in(SLASH), data)
    assert roster == Roster(("bob", "alice"))
    assert isinstance(said, Said)


def test_joins_of_line_servers_that_announce_them_are_understood() -> None:
    for word in ("connected", "joined"):
        assert logged_in(LINE).decode(f"INFO bob {word}".encode()) == Joined(NO_ROOM, "bob", NO_TIME)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[error] Username already taken. Try another.", Rejection.NAME_TAKEN),
        (b"[error] Invalid username.", Rejection.NAME_INVALID),
        (b"[error] Username must be 1-20 characters.", Rejection.NAME_LENGTH),
    ],
)
def test_a_slash_server_refuses_a_name_before_the_login(line: bytes, reason: Rejection) -> None:
    assert SLASH.client().decode(line) == Rejected(reason)


def test_a_slash_server_names_the_subject_of_a_refusal() -> None:
    line = b"No user named 'x'. Use /users to see online users."
    assert logged_in(SLASH).decode(line) == Rejected(Rejection.USER_NOT_FOUND, "x")


@pytest.mark.parametrize(
    ("dialect", "line", "text"),
    [
        (LINE, b"ERR new-fangled", "new-fangled"),
        (JSON, b'{"type": "error", "message": "Teapot"}', "Teapot"),
        (JSON2, b'{"type": "error", "code": "teapot", "message": "Teapot"}', "Teapot"),
        (SLASH, b"[error] Teapot.", "Teapot."),
    ],
)
def test_an_unknown_error_is_still_an_error(dialect: Dialect, line: bytes, text: str) -> None:
    assert logged_in(dialect).decode(line) == UnknownError(text)


@pytest.mark.parametrize(
    ("dialect", "line"),
    [
        (LINE, b"OK then"),
        (LINE, b"INFO"),
        (LINE, b"\xff\xfe"),
        (SLASH, b"hello there"),
        (SLASH, b"Connected again"),
        (JSON, b""),
        (JSON, b"hi"),
        (JSON, b"[]"),
        (JSON, b"7"),
        (JSON, b"null"),
        (JSON, b"{}"),
        (JSON, b'{"type": 7}'),
        (JSON, b'{"type": "chat"}'),
        (JSON, b'{"type": "chat", "message": "x"}'),
        (JSON, b'{"type": "users", "users": "bob"}'),
        (JSON, b'{"type":'),
        (JSON, b"[" * 100_000),
        (JSON, b"9" * 10_000),
        (JSON2, b"[]"),
        (JSON2, b"{}"),
        (JSON2, b'{"type": "chat", "username": "bob", "message": "hi"}'),
        (JSON2, b'{"type": "welcome", "username": "alice", "rooms": []}'),
        (JSON2, b'{"type": "error", "message": "no code"}'),
        (JSON2, b'{"type": "topic", "room": "dev"}'),
        (JSON2, b"[" * 100_000),
    ],
)
def test_an_unknown_line_is_kept_as_it_is(dialect: Dialect, line: bytes) -> None:
    for codec in (dialect.client(), logged_in(dialect)):
        assert codec.decode(line) == UnknownLine(line.decode("utf-8", "replace"))


@pytest.mark.parametrize(
    ("dialect", "line"),
    [(LINE, b"INFO Be kind."), (LINE, b"INFO bob disconnected"), (SLASH, b"[info] Be kind.")],
)
def test_a_greeting_comes_before_the_answer_to_the_login_and_no_later(dialect: Dialect, line: bytes) -> None:
    codec = dialect.client()
    assert codec.decode(line) == Greeting(line.partition(b" ")[2].decode())
    assert not isinstance(logged_in(dialect).decode(line), Greeting)


@pytest.mark.parametrize(
    ("line", "dialect"),
    [
        (b"ERR must-login-first", LINE),
        (b'{"type": "error", "message": "Invalid JSON"}', JSON),
        (b"[error] Invalid username.", SLASH),
        (b"OK", None),
        (b"HTTP/1.1 400 Bad Request", None),
    ],
)
def test_an_answer_reveals_the_dialect_of_the_server(line: bytes, dialect: Dialect | None) -> None:
    assert guess_dialect(line) is dialect


@pytest.mark.parametrize(("own", "spoken"), [(a, b) for a in NAMES for b in NAMES if a != b])
def test_the_answer_to_a_login_in_the_wrong_dialect_reveals_the_right_one(own: str, spoken: str) -> None:
    line = DIALECTS[own].client().encode(Login("alice")).removesuffix(b"\n")
    reading = DIALECTS[spoken].interpreter().read(line, False)
    rejection = Rejected(Rejection.NAME_INVALID if isinstance(reading, Login) else Rejection.NOT_LOGGED_IN)
    if isinstance(reading, InvalidCommand):
        rejection = Rejected(reading.error)
    assert guess_dialect(private(DIALECTS[spoken], rejection)) is DIALECTS[spoken]


def test_a_port_suggests_a_dialect() -> None:
    assert [dialect_of_port(port) for port in (4000, 12345, 5000, 6667)] == [LINE, JSON, SLASH, LINE]


def test_each_connection_has_its_own_codec() -> None:
    first, second = LINE.client(), LINE.client()
    first.encode(Login("alice"))
    first.decode(b"USER bob")
    assert isinstance(second, LineClient)
    assert second.decode(b"PONG end-of-users") == Roster(())
