"""The three dialects: how they parse lines and encode events."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from datetime import datetime, timezone
from typing import get_args

import pytest

from geventchat.chat.commands import (
    Command,
    Help,
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
    Pong,
    Rejected,
    Rejection,
    RoomList,
    Roster,
    Said,
    TokenIssued,
    Topic,
    TopicChanged,
    Typing,
    Welcome,
)
from geventchat.chat.passwords import Secret
from geventchat.dialects import DIALECTS
from geventchat.dialects.framing import TOO_LONG, FramingAnswer
from geventchat.dialects.json_objects import MAX_DIGITS, MAX_VALUES
from tests.geventchat.model import dialects as model
from tests.geventchat.model.requests import Past, Refusal

BROADCASTS = get_args(Broadcast)
EACH_DIALECT = pytest.mark.parametrize("name", DIALECTS)

REFUSALS = {
    Rejection.NAME_LENGTH: Refusal.NAME_LENGTH,
    Rejection.NAME_INVALID: Refusal.NAME_INVALID,
    Rejection.NAME_TAKEN: Refusal.NAME_TAKEN,
    Rejection.NOT_LOGGED_IN: Refusal.NOT_LOGGED_IN,
    Rejection.EMPTY_MESSAGE: Refusal.EMPTY_MESSAGE,
    Rejection.EMPTY_DIRECT_MESSAGE: Refusal.EMPTY_DIRECT_MESSAGE,
    Rejection.NO_RECIPIENT: Refusal.EMPTY_DIRECT_MESSAGE,
    Rejection.USER_NOT_FOUND: Refusal.USER_NOT_FOUND,
    ParseError.UNKNOWN_COMMAND: Refusal.UNKNOWN_COMMAND,
    ParseError.TOO_LONG: Refusal.LINE_TOO_LONG,
    ParseError.NOT_UTF8: Refusal.NOT_UTF8,
    ParseError.NOT_JSON: Refusal.NOT_JSON,
}
# The messages of each dialect there.
UNREACHABLE_TEXTS = {
    "line": "",
    "json": '{"type": "error", "message": "Invalid field"}\n',
    "slash": "[error] Not possible.\n",
}
LINE_WORDS = {ParseError.NOT_JSON: "invalid-json", ParseError.INVALID_FIELD: "invalid-field"}
# Where a dialect has no row in the protocol's table, because its reader never leads there.
UNREACHABLE = {
    "line": {ParseError.NOT_JSON, ParseError.INVALID_FIELD},
    "json": {ParseError.INVALID_FIELD},
    "slash": {
        ParseError.NOT_JSON,
        ParseError.INVALID_FIELD,
        Rejection.NOT_LOGGED_IN,
        Rejection.EMPTY_MESSAGE,
    },
}
NOTICES = {
    "line": {
        NoticeReason.IDLE: "idle-timeout",
        NoticeReason.SERVER_FULL: "server-full",
        NoticeReason.ADDRESS_FULL: "too-many-connections",
        NoticeReason.SHUTDOWN: "server-shutdown",
        NoticeReason.KICKED: "kicked",
        NoticeReason.BANNED: "banned",
        NoticeReason.REPLACED: "logged-in-elsewhere",
    },
    "json": {
        NoticeReason.IDLE: "Idle timeout",
        NoticeReason.SERVER_FULL: "Server full",
        NoticeReason.ADDRESS_FULL: "Too many connections",
        NoticeReason.SHUTDOWN: "Server shutting down",
        NoticeReason.KICKED: "Kicked",
        NoticeReason.BANNED: "Banned",
        NoticeReason.REPLACED: "Logged in elsewhere",
    },
    "slash": {
        NoticeReason.IDLE: "[error] Idle timeout.",
        NoticeReason.SERVER_FULL: "[error] Server full.",
        NoticeReason.ADDRESS_FULL: "[error] Too many connections.",
        NoticeReason.SHUTDOWN: "[info] Server is shutting down.",
        NoticeReason.KICKED: "[error] You were kicked.",
        NoticeReason.BANNED: "[error] You are banned.",
        NoticeReason.REPLACED: "[error] You have logged in elsewhere.",
    },
}


# Refusals that the model does not know: in `line`, `slash` and `json`.
OTHER_REFUSALS = {
    Rejection.ROOM_NAME_INVALID: (
        "invalid-room-name",
        "[error] Room names have 1-32 characters: letters, digits and _ - .",
        "Invalid room name",
    ),
    Rejection.NO_SUCH_ROOM: (
        "no-such-room",
        "No room named '{}'. Use /rooms to see the rooms.",
        "No such room",
    ),
    Rejection.NOT_IN_ROOM: ("not-in-room", "[error] You are not in '{}'.", "Not in the room"),
    Rejection.ALREADY_IN_LOBBY: (
        "already-in-lobby",
        "[error] You are in the lobby already.",
        "Already in the lobby",
    ),
    Rejection.TOO_MANY_ROOMS: ("too-many-rooms", "[error] Too many rooms.", "Too many rooms"),
    Rejection.TOPIC_TOO_LONG: ("topic-too-long", "[error] Topic too long.", "Topic too long"),
    Rejection.NOT_PERMITTED: (
        "not-permitted",
        "[error] You are not allowed to do that.",
        "Not permitted",
    ),
    Rejection.WRONG_KEY: (
        "wrong-key",
        "[error] '{}' needs another key: /join <room> <key>",
        "Wrong key",
    ),
    Rejection.INVITATION_REQUIRED: (
        "invitation-required",
        "[error] '{}' is private: you need an invitation or its key.",
        "Invitation required",
    ),
    Rejection.BANNED_FROM_ROOM: ("banned", "[error] You are banned from '{}'.", "Banned from the room"),
    Rejection.MUTED: ("muted", "[error] You are muted.", "Muted"),
    Rejection.NO_VOICE: (
        "muted",
        "[error] '{}' is moderated: only people with voice can speak.",
        "The room is moderated",
    ),
    Rejection.KEY_TOO_LONG: ("key-too-long", "[error] Key too long.", "Key too long"),
    Rejection.PASSWORD_REQUIRED: (
        "password-required",
        "[error] Password required: /login NAME PASSWORD",
        "Password required",
    ),
    Rejection.WRONG_PASSWORD: ("wrong-password", "[error] Wrong password.", "Wrong password"),
    Rejection.WEAK_PASSWORD: ("weak-password", "[error] Passwords have 8-128 characters.", "Weak password"),
    Rejection.NAME_RESERVED: ("name-reserved", "[error] This name is reserved already.", "Name reserved"),
    Rejection.TOO_MANY_ATTEMPTS: (
        "too-many-attempts",
        "[error] Too many attempts. Try again later.",
        "Too many attempts",
    ),
    Rejection.MAILBOX_FULL: ("mailbox-full", "[error] The mailbox of '{}' is full.", "Mailbox full"),
    Rejection.ALREADY_LOGGED_IN: (
        "already-logged-in",
        "[error] You are logged in already.",
        "Already joined",
    ),
    Rejection.LIST_FULL: ("list-full", "[error] The list is full.", "List full"),
    Rejection.NO_SUCH_MESSAGE: (
        "no-such-message",
        "[error] No message {}. Use /ids to see the ids.",
        "No such message",
    ),
    ParseError.INVALID_ARGUMENT: ("invalid-argument", "Usage: {}", "Invalid argument"),
}
# The texts of `slash` for commands that were carried out, on `it` in the room `dev`.
ACCEPTED = {
    Action.KICKED: "it was kicked.",
    Action.BANNED: "it is banned.",
    Action.UNBANNED: "it is no longer banned.",
    Action.MUTED: "it is muted.",
    Action.UNMUTED: "it is no longer muted.",
    Action.INVITED: "it is invited to dev.",
    Action.MADE_PRIVATE: "dev is private.",
    Action.MADE_PUBLIC: "dev is no longer private.",
    Action.KEY_SET: "dev has a new key.",
    Action.KEY_REMOVED: "dev has no key.",
    Action.MODERATION_ON: "dev is moderated.",
    Action.MODERATION_OFF: "dev is no longer moderated.",
    Action.VOICE_GIVEN: "it has voice.",
    Action.VOICE_TAKEN: "it has no voice.",
    Action.MODERATOR_ADDED: "it is a moderator of dev.",
    Action.MODERATOR_REMOVED: "it is no longer a moderator of dev.",
    Action.OWNERSHIP_PASSED: "it owns dev.",
    Action.DELETED: "Message it is deleted.",
    Action.IGNORED: "You ignore it.",
    Action.HEARD_AGAIN: "You no longer ignore it.",
    Action.TOPIC_SET: "Topic: it",
    Action.REGISTERED: "it is your name now. Log in with: /login it PASSWORD",
    Action.PASSWORD_CHANGED: "Your password is changed.",
    Action.TOKENS_REVOKED: "Your tokens are useless now.",
}


def read(name: str, line: bytes, logged_in: bool = True) -> Command | str | None:
    """Parse a line; a plain message is returned as its text."""
    return DIALECTS[name].interpreter().read(line, logged_in)


def encode(name: str, event: Event) -> bytes:
    dialect = DIALECTS[name]
    return dialect.encode(event) if isinstance(event, BROADCASTS) else dialect.encode_private(event)


def expected(name: str, event: Event) -> str:
    """The text by the tables of the protocol; a Welcome without the newcomer's own join notice."""
    spelling = model.DIALECTS[name]
    match event:
        case Joined(_, user, time_ms):
            return spelling.joined(user, time_ms // 1000, False)
        case Said(_, user, texts, _, time_ms):
            return "".join(spelling.said(user, text, time_ms // 1000, False) for text in texts)
        case Left(_, user, time_ms, how):
            return spelling.left(user, model.Gone[how.name], time_ms // 1000)
        case TopicChanged(_, user, topic):
            return spelling.topic_changed(user, topic)
        case Announcement(text, time_ms):
            return {
                "line": f"INFO announcement {text}\n",
                "json": spelling.said("server", text, time_ms // 1000, False),
                "slash": f"[announcement] {text}\n",
            }[name]
        case Entered(room, users, topic):
            return spelling.entered(room, len(users), topic)
        case LeftRoom(_, now_in):
            return spelling.left_room(now_in)
        case RoomList(rooms):
            return spelling.room_list([(one.room, one.people, one.topic) for one in rooms])
        case Topic(_, topic):
            return spelling.topic(topic)
        case HistoryPage(_, messages, _, with_ids):
            past = [Past(one.id, one.name, one.text, one.time_ms) for one in messages]
            return spelling.history(past, with_ids)
        case Missed():
            return ""
        case Kicked(room, reason, _, now_in):
            why = f": {reason}" if reason else "."
            back = f"[info] You are in {now_in} again.\n" if now_in else ""
            return {
                "line": f"INFO kicked {reason}".rstrip() + "\n",
                "json": "",
                "slash": f"[info] You were kicked from {room}{why}\n{back}",
            }[name]
        case Invited(room, by):
            return {
                "line": f"INFO {by} invites you to {room}\n",
                "json": "",
                "slash": f"[info] {by} invites you to {room}: /join {room}\n",
            }[name]
        case BanList(_, bans):
            return _expected_bans(name, bans)
        case Accepted(Action.TOPIC_SET, _, topic):
            return spelling.topic_set(topic)
        case Welcome(_, user, users, time_ms):
            return spelling.welcome(user, users, time_ms // 1000)
        case DirectMessage(sender, recipient, text, time_ms):
            return spelling.direct_message_received(sender, recipient, text, time_ms // 1000)
        case DirectMessageSent(DirectMessage(sender, recipient, text, time_ms), typed):
            return spelling.direct_message_sent(sender, typed, recipient, text, time_ms // 1000)
        case Roster(users):
            return spelling.roster(users)
        case Pong(token):
            return spelling.pong(token)
        case MessageKept(DirectMessage(recipient=recipient)):
            return {
                "line": f"INFO {recipient} is offline, message kept\n",
                "slash": f"[info] {recipient} is offline, message kept.\n",
                "json": "",
            }[name]
        case TokenIssued(token):
            return {
                "line": f"TOKEN {token.reveal()}\n",
                "slash": f"[info] Your token, shown only once: {token.reveal()}\n",
                "json": "",
            }[name]
        case HelpText(everything):
            return "" if name == "json" else spelling.help(everything)
        case Goodbye():
            return spelling.goodbye()
        case Greeting(text):
            return {"line": f"INFO {text}\n", "json": "", "slash": f"[info] {text}\n"}[name]
        case Rejected(reason, subject) if reason in OTHER_REFUSALS:
            line, slash, message = OTHER_REFUSALS[reason]
            words = {
                "line": f"ERR {line}",
                "slash": slash.format(subject),
                "json": json.dumps({"type": "error", "message": message}),
            }
            return words[name] + "\n"
        case Rejected(reason, subject) if reason not in UNREACHABLE[name]:
            refusal = REFUSALS[reason]
            if reason is Rejection.NO_RECIPIENT and name == "json":
                refusal = Refusal.USER_NOT_FOUND
            return spelling.error(refusal, subject)
        case Rejected(reason):
            return UNREACHABLE_TEXTS[name] or f"ERR {LINE_WORDS[reason]}\n"
        case Typing() | MessageDeleted() | Confirmed():
            # Only version 2 of json shows them.
            return ""
        case DisconnectNotice(reason, as_error):
            words = NOTICES[name][reason]
            if name == "line":
                return f"{'ERR' if as_error else 'INFO'} {words}\n"
            return words + "\n" if name == "slash" else json.dumps({"type": "error", "message": words}) + "\n"
    raise AssertionError(event)


def _expected_bans(name: str, bans: Collection[BanListing]) -> str:
    rows = []
    for ban in bans:
        until = None
        if ban.until_ms is not None:
            until = datetime.fromtimestamp(ban.until_ms // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        if name == "line":
            rows.append(f"BAN {ban.who} {until or 'forever'} {ban.reason}".rstrip())
        else:
            when = f" until {until}" if until else ""
            rows.append(f"{ban.who}{when}" + (f": {ban.reason}" if ban.reason else ""))
    if name == "json":
        return ""
    if name == "line":
        return "".join(f"{row}\n" for row in [*rows, "OK"])
    return "".join([f"=== Bans ({len(rows)}) ===\n", *(f"{row}\n" for row in rows), "\n"])


@EACH_DIALECT
@pytest.mark.parametrize("reason", [*Rejection, *ParseError], ids=lambda reason: reason.name)
def test_every_rejection_has_its_words(name: str, reason):
    assert encode(name, Rejected(reason, "it")).decode() == expected(name, Rejected(reason, "it"))


@EACH_DIALECT
@pytest.mark.parametrize("action", Action, ids=lambda action: action.name)
def test_whatever_has_been_done_is_confirmed(name: str, action: Action):
    confirmed = {"line": "OK\n", "slash": f"[info] {ACCEPTED[action]}\n", "json": ""}
    assert encode(name, Accepted(action, "dev", "it")).decode() == confirmed[name]


@EACH_DIALECT
def test_every_error_is_one_line_however_its_subject_looks(name: str):
    for reason in (*Rejection, *ParseError):
        frame = encode(name, Rejected(reason, "a 'b' {c} \\ \U0001f600"))
        assert frame.count(b"\n") == 1
        assert frame.endswith(b"\n")


@EACH_DIALECT
def test_who_receives_their_own_events_differs_between_dialects(name: str):
    joined, said, left = (
        Joined("lobby", "a", 0),
        Said("lobby", "a", ["hi"], 1, 0),
        Left("lobby", "a", 0),
    )
    echoes = [DIALECTS[name].echoes(event) for event in (joined, said, left)]
    assert (
        echoes
        == {
            "line": [False, False, False],
            # Only a person who removes someone else is the author of a departure.
            "json": [False, True, True],
            "slash": [True, False, True],
        }[name]
    )
    spelling = model.DIALECTS[name]
    assert (spelling.joined("a", 0, True) != "") == echoes[0]
    assert (spelling.said("a", "hi", 0, True) != "") == echoes[1]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"type": ' * 50_000,
        b'{"type": "chat", "message": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"type": "chat", "n": ' + b"9" * 5000 + b"}",
        b'{"type": "chat", "n": 1e' + b"9" * 5000 + b"}",
        b'{"type": "chat", "n": ' + b"9" * (MAX_DIGITS + 1) + b"}",
        b'{"type": "chat", "n": Infinity}',
        b'{"type": "chat", "n": NaN}',
        b'{"type": "chat", "type": "chat"}',
        b'{"type": "ping", "token": ":", "token": ":"}',
        b'{"type": "ping", "n": {"a": 1, "a": 2}}',
        b'{"type": "ping", "n": [[{"a": 1, "a": 2}]]}',
        b'{"type": "chat", "message": "\\udc00"}',
        b'{"type": "chat", "message": 5}',
        b'{"type": "chat", "message": null}',
        b'{"type": "chat", "message": "a"}x',
        b'\xef\xbb\xbf{"type": "ping"}',
        b'{"type": "chat", "message": "tab\there"}',
        b'\x1c{"type": "ping"}',
        b"\x1c",
    ],
    ids=lambda line: line[:24].decode("latin-1"),
)
def test_bad_json_is_invalid(line: bytes):
    assert read("json", line) == InvalidCommand(ParseError.NOT_JSON)


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "ping", "token": "::"}',
        b'{"type": "ping", "token": "::", "n": {"a": [{"a": 1}, {"a": 2}]}}',
    ],
)
def test_colons_and_inner_objects_are_not_taken_for_a_key_that_comes_twice(line: bytes):
    assert read("json", line) == Ping("::")


def test_a_json_number_of_the_most_digits_is_ignored():
    line = b'{"type": "ping", "n": ' + b"9" * MAX_DIGITS + b"}"
    assert read("json", line) == Ping("")


@pytest.mark.parametrize(
    "filler",
    [b'"k%d": 1', b'"k%d": {}', b'"k%d": [1, 2]', b'"k%d": [[[]]]'],
    ids=["members", "objects", "arrays", "nested arrays"],
)
def test_json_can_have_two_hundred_values_and_no_more(filler: bytes):
    line, values = b'{"type": "ping"', 1
    each = filler.count(b"{") + filler.count(b"[") + filler.count(b",") + 1
    n = 0
    while values + each <= MAX_VALUES:
        line += b", " + filler % n
        values += each
        n += 1
    while values < MAX_VALUES:
        line += b', "l%d": 0' % values
        values += 1
    assert read("json", line + b"}") == Ping("")
    assert read("json", line + b', "one more": 0}') == InvalidCommand(ParseError.NOT_JSON)


@pytest.mark.parametrize("text", [",[{" * 500, '\\"' * 3 + "," * 600, "\\\\" + "[" * 600])
def test_brackets_and_commas_inside_a_string_are_text(text: str):
    command = read("json", b'{"type": "chat", "message": "' + text.encode() + b'"}')
    assert command == json.loads(f'"{text}"')


@EACH_DIALECT
@pytest.mark.parametrize(
    "line",
    [
        b"{" * 201 + b'"\\' * 1_900,
        b"{" * 201 + b'"' * 3_895,
        b'{"type": "chat", "x": [' + b"{}," * 1_300 + b"1]}",
        b'{"type": "chat", "message": "' + b"\\ud800" * 650 + b'"}',
        b'{"type": "join", "username": "' + "q\u0323\u0344".encode() * 800 + b'"}',
        b"LOGIN " + "\u0344".encode() * 2_000,
        b"MSG " + ("a" + "\u0323" * 4).encode() * 450,
        b"MSG " + "\U0001f3f4\U000e0067".encode() * 500,
        b"DM " + "\ufdfa".encode() * 1_300 + b" hi",
        b"\xff\xfa" * 2_000,
        b"\xff\xfd\x06\xff\xfa\x18" * 680,
    ],
    ids=range(11),
)
def test_no_line_is_expensive_to_read(name: str, line: bytes):
    assert 3_500 < len(line) <= 4_096
    reader = DIALECTS[name].interpreter()
    seconds = []
    for _ in range(5):
        began = time.thread_time()
        reader.read(line, False)
        reader.read(line, True)
        seconds.append(time.thread_time() - began)
    # Anything quadratic takes more than ten times as long.
    assert min(seconds) < 0.005


@EACH_DIALECT
def test_a_megabyte_of_spaces_asks_for_nothing(name: str):
    assert read(name, b" " * 1_000_000) is None


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"LOGIN alice", Login("alice")),
        (b"  login   a b ", Login("a", password=Secret("b"))),
        (b"LOGIN alice  a b", Login("alice", password=Secret("a b"))),
        (b"LOGIN", Login("")),
        (b"MSG hi  all", "hi  all"),
        (b"MSG\thi", "hi"),
        (b"MSG", ""),
        (b"DM bob  psst psst ", SendDirectMessage("bob", "psst psst")),
        (b"DM bob", SendDirectMessage("bob", "")),
        (b"DM", SendDirectMessage("", "")),
        (b"PING a b", Ping("a b")),
        (b"WHO", Who()),
        (b"WHO now", Who()),
        (b"quit", Quit()),
        (b"EXIT", Quit()),
        # Letters of other scripts that upper() turns into I and S.
        ("PıNG".encode(), InvalidCommand(ParseError.UNKNOWN_COMMAND)),
        ("MſG hi".encode(), InvalidCommand(ParseError.UNKNOWN_COMMAND)),
        (b"", None),
        (b" \t ", None),
        (b"HELP", Help()),
        (b"NONSENSE", InvalidCommand(ParseError.UNKNOWN_COMMAND)),
        (b"MSG \xff", ""),
        (b"MSG \xfe", InvalidCommand(ParseError.NOT_UTF8)),
        # Names keep what was typed, so that the chat can refuse it; texts lose what cannot be seen.
        ("LOGIN a\u200bb".encode(), Login("a\u200bb")),
        ("MSG a\u200bb".encode(), "ab"),
        ("MSG \u200b".encode(), ""),
        ("DM a\u200bb c\u200bd".encode(), SendDirectMessage("a\u200bb", "cd")),
    ],
)
def test_line(line: bytes, command):
    assert read("line", line) == command


@pytest.mark.parametrize(
    ("line", "logged_in", "command"),
    [
        (b"alice", False, Login("alice")),
        (b"", False, Login("")),
        (b"/quit", False, Login("/quit")),
        (b"hello", True, "hello"),
        (b"", True, None),
        (b"/HELP", True, Help()),
        (b"/dm bob hi", True, SendDirectMessage("bob", "hi")),
        (b"/nope x", True, InvalidCommand(ParseError.UNKNOWN_COMMAND, "/nope")),
        (b" /ping", True, Ping("")),
        ("a\u200bb".encode(), False, Login("a\u200bb")),
        ("a\u200bb".encode(), True, "ab"),
        ("\u200b".encode(), True, None),
        ("/dm a\u200bb c\u200bd".encode(), True, SendDirectMessage("a\u200bb", "cd")),
    ],
)
def test_slash(line: bytes, logged_in: bool, command):
    assert read("slash", line, logged_in) == command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b'{"type": "join"}', Login("")),
        (b'{"type": "join", "username": " a b "}', Login("a b")),
        (b'{"type": "chat", "message": "hi", "more": [1, {}]}', "hi"),
        (b'{"type": "dm", "to": "bob", "message": "psst"}', SendDirectMessage("bob", "psst")),
        (b'{"type": "dm"}', SendDirectMessage("", "")),
        (b'{"type": "users"}', Who()),
        (b'{"type": "ping", "token": "x"}', Ping("x")),
        (b'{"type": "quit"}', Quit()),
        (b'  {"type": "quit"}\t', Quit()),
        (b"", None),
        (b" \t ", None),
        (b'{"type": "nope"}', InvalidCommand(ParseError.UNKNOWN_COMMAND)),
        (b'{"type": "\xff"}', InvalidCommand(ParseError.NOT_UTF8)),
        (b'{"type": "chat", "message": "a\\u0000b\\u202ec"}', "a\ufffdb\ufffdc"),
        (b'{"type": "chat", "message": "\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"type": "join", "username": "a\\u200bb"}', Login("a\u200bb")),
        (b'{"type": "chat", "message": "a\\u200bb"}', "ab"),
        (b'{"type": "dm", "to": "a\\u200bb", "message": "c\\u200bd"}', SendDirectMessage("a\u200bb", "cd")),
    ],
)
def test_json(line: bytes, command):
    assert read("json", line) == command


PLAIN = b'{"type": "chat", "message": "hi, you"}'


def test_plain_messages_of_json_are_read_together():
    lines = [PLAIN, b'{"type":"chat","message":"~ 1 ]"}']
    assert DIALECTS["json"].read_texts(lines) == ["hi, you", "~ 1 ]"]


@pytest.mark.parametrize(
    "other",
    [
        TOO_LONG,
        FramingAnswer(b"pong"),
        b"",
        b'{"type": "ping"}',
        b'{"type": "chat", "message": ""}',
        b'{"type": "chat", "message": " hi"}',
        b'{"type": "chat", "message": "hi "}',
        b'{"type": "chat", "message": "a\\u200bb"}',
        b'{"type": "chat", "message": "a\tb"}',
        b'{"type": "chat", "message": "a\x7fb"}',
        '{"type": "chat", "message": "é"}'.encode(),
        b'{"type": "chat", "message": "\xff"}',
        # One message of WebSocket, which is not JSON.
        PLAIN + b"\n" + PLAIN,
        b"\n" + PLAIN,
    ],
)
def test_what_is_no_plain_message_is_read_alone(other: bytes):
    for lines in ([PLAIN, other], [other, PLAIN], [other]):
        assert DIALECTS["json"].read_texts(lines) is None


def test_as_many_plain_messages_as_lines_are_not_enough():
    assert DIALECTS["json"].read_texts([PLAIN + b"\n" + PLAIN, b""]) is None
    assert DIALECTS["json"].read_texts([PLAIN + b"\n" + PLAIN, b"{}"]) is None


@pytest.mark.parametrize("name", ["line", "slash"])
def test_telnet_is_removed(name: str):
    reader = DIALECTS[name].interpreter()
    assert reader.read(b"\xff\xfb\x01" + model.DIALECTS[name].who()[:-1].encode(), True) == Who()
    assert reader.read(b"\xff\xf4\xff\xfd\x06", True) is None
    assert reader.read(b"\xff\xfd\x06\xfe", True) == InvalidCommand(ParseError.NOT_UTF8)
