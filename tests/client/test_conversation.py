"""Rooms, what is new, what is not confirmed, history and resuming: what is shown and sent for any input and any event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from geventchat.chat.commands import ParseError
from geventchat.chat.events import Rejection
from geventchat.client.conversation import (
    AUTOMATIC,
    MAX_TYPING,
    PAGE,
    SEARCHED_PAGES,
    TYPING_EVERY_S,
    TYPING_S,
    ReadMarks,
)
from geventchat.client.editor import Completions
from geventchat.client.entries import FENCED_LINES
from geventchat.client.options import Options
from geventchat.client.outgoing_queue import MAX_UNDER_WAY
from geventchat.client.sentences import rejection_text
from geventchat.client.session import Plan
from geventchat.client.window_list import MAX_WINDOWS
from geventchat.client.windows import MAX_ENTRIES, Kind, Window
from geventchat.dialects import DIALECTS
from tests.client.recorders import DEFAULTS, Run

NO_SCROLLBACK = Options(scrollback=0)

LOGINS = {
    "line": ["OK"],
    "json": [
        '{"type": "welcome", "message": "Welcome to the chat, alice!", "users": ["alice"], "timestamp": 1}'
    ],
    "slash": ["[join] alice has joined the chat.", "Connected! Type /help for commands", ""],
}
ANSWERS = {
    "line": ["USER alice", "PONG end-of-users", "OK"],
    "json": [],
    "slash": ["=== Online Users (1) ===", "alice", "", "pong", "=== History (0) ===", "", "pong"],
}
by_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def one_room(dialect: str = "line", *, echoes_input: bool = False, options: Options = DEFAULTS) -> Run:
    """A session that has just logged in, in a dialect in which a client is in one room."""
    run = Run(Plan("h", 1, dialect, "alice"), echoes_input=echoes_input, options=options)
    run.accept()
    run.receive(*LOGINS[dialect])
    run.receive(*ANSWERS[dialect])
    run.sent()
    return run


def state(
    last_id: int = 0, *, users: tuple[str, ...] = ("alice",), replay_from: int | None = None, topic: str = ""
) -> dict[str, Any]:
    """A room in a welcome."""
    first = last_id + 1 if replay_from is None else replay_from
    return {
        "users": users,
        "user_count": len(users),
        "last_id": last_id,
        "replay_from": first,
        "topic": topic,
    }


class Many:
    """A session in version 2 of json, and objects in place of lines."""

    def __init__(
        self,
        *,
        options: Options = NO_SCROLLBACK,
        interactive: bool = True,
        marks: ReadMarks | None = None,
        rooms: dict[str, Any] | None = None,
        epoch: str = "e1",
        echoes_input: bool = False,
    ) -> None:
        self.run = Run(
            Plan("h", 1, "json", "alice"), interactive=interactive, options=options, echoes_input=echoes_input
        )
        if marks is not None:
            self.run.session._marks = lambda _: marks
        self.login = json.loads(self.run.accept())
        self.welcome(rooms, epoch=epoch)
        self.run.terminal.shown()

    @property
    def talk(self) -> Any:
        return self.run.session.conversation

    def welcome(self, rooms: dict[str, Any] | None = None, *, epoch: str = "e1") -> list[str]:
        rooms = {"lobby": state()} if rooms is None else rooms
        return self.receive(type="welcome", v=2, username="alice", epoch=epoch, rooms=rooms)

    def receive(self, **fields: Any) -> list[str]:
        """The server sends an object; what is shown."""
        return self.run.receive(json.dumps(fields))

    def say(self, id: int, text: str, name: str = "bob", room: str = "lobby") -> list[str]:
        """Someone says something."""
        return self.receive(type="chat", room=room, id=id, username=name, message=text)

    def ok(self, ref: str, **fields: Any) -> list[str]:
        """The server confirms a request."""
        return self.receive(type="ok", ref=ref, **fields)

    def sent(self) -> list[dict[str, Any]]:
        """The requests sent since the last call."""
        return [json.loads(line) for line in self.run.sent().splitlines()]

    def type(self, text: str, *, literal: bool = False) -> list[str]:
        return self.run.type(text, literal=literal)

    def join(self, room: str, last_id: int = 0) -> None:
        """Enter a room."""
        self.type(f"/join {room}")
        ref = self.sent()[-1]["ref"]
        self.receive(type="entered", room=room, ref=ref, **state(last_id))
        self.sent()

    def reconnect(self, rooms: dict[str, Any] | None = None, *, epoch: str = "e1") -> list[str]:
        """Lose the connection and get it back."""
        self.run.hang_up()
        self.run.wait(1)
        self.login = json.loads(self.run.accept())
        return self.welcome(rooms, epoch=epoch)

    def texts(self, window: Window | None = None) -> list[str]:
        """The messages of a window, in order."""
        window = window or self.talk.current
        return [entry.text for entry in window.entries if entry.kind in {Kind.MESSAGE, Kind.DIRECT}]

    def window(self, title: str) -> Window:
        (found,) = [window for window in self.talk.windows if window.title == title]
        assert isinstance(found, Window)
        return found

    def titles(self) -> list[str]:
        return [window.title for window in self.talk.windows]


def test_a_room_whose_people_are_not_listed_has_their_number() -> None:
    many = Many(echoes_input=True)
    many.type("/join dev")
    (request,) = many.sent()
    crowded = {**state(), "users": [], "user_count": 700}
    shown = many.receive(type="entered", room="dev", ref=request["ref"], **crowded)
    assert shown == ["👥 700 here", "💡 You are in dev."]


def test_without_a_status_bar_it_is_said_which_window_is_the_current_one() -> None:
    many = Many(echoes_input=True)
    assert many.type("/join dev") == []
    (request,) = many.sent()
    shown = many.receive(type="entered", room="dev", ref=request["ref"], **state())
    assert shown == ["👥 1 here: alice", "💡 You are in dev."]
    assert many.type("/msg bob") == ["💡 You are in @bob."]
    assert many.type("/leave") == ["💡 You are in dev."]
    assert many.type("/join ops") == []
    (request,) = many.sent()
    shown = many.receive(
        type="error", code="wrong-key", message="another text", room="ops", ref=request["ref"]
    )
    assert shown == ["❌ The room needs another key.", "💡 You are not in ops. /join enters a room."]
    assert many.type("/leave") == ["💡 You are in dev."]
    many.type("/leave")
    (request,) = many.sent()
    assert many.receive(type="left", room="dev", ref=request["ref"]) == ["💡 You are in lobby."]


# In every dialect.


@pytest.mark.parametrize(
    ("dialect", "lines"),
    [
        ("line", ["MSG bob hi alice", "DM bob psst", "INFO bob disconnected"]),
        (
            "json",
            [
                '{"type": "chat", "username": "bob", "message": "hi alice"}',
                '{"type": "dm", "username": "bob", "to": "alice", "message": "psst"}',
                '{"type": "user_left", "username": "bob", "message": "bob left the chat"}',
            ],
        ),
        ("slash", ["bob: hi alice", "[DM from bob] psst", "[leave] bob has left the chat."]),
    ],
)
def test_every_dialect_looks_the_same(dialect: str, lines: list[str]) -> None:
    assert one_room(dialect).receive(*lines) == [
        "[12:00:00] bob: hi alice",
        "*",
        "[12:00:00] bob → you: psst",
        "*",
        "🔴 bob left the chat",
    ]


OWN_MESSAGE = {
    "line": ["PONG"],
    "json": ['{"type": "chat", "username": "alice", "message": "hello"}', '{"type": "pong"}'],
    "slash": ["pong"],
}
OWN_DIRECT_MESSAGE = {
    "line": ["PONG"],
    "json": ['{"type": "dm", "username": "alice", "to": "bob", "message": "psst"}', '{"type": "pong"}'],
    "slash": ["[DM to bob] psst", "pong"],
}


@by_dialect
@pytest.mark.parametrize("echoes_input", [False, True])
def test_own_messages_are_shown_once_and_when_the_server_has_them(dialect: str, echoes_input: bool) -> None:
    run = one_room(dialect, echoes_input=echoes_input)
    window = run.session.conversation.current
    assert run.type("hello") == []
    assert [outgoing.text for outgoing in window.pending] == ["hello"]
    shown = run.receive(*OWN_MESSAGE[dialect])
    assert window.pending == []
    assert run.type("/dm bob psst") == []
    shown += run.receive(*OWN_DIRECT_MESSAGE[dialect])
    assert shown == ([] if echoes_input else ["[12:00:00] alice: hello", "[12:00:00] you → bob: psst"])
    assert run.session.conversation.waiting == 0


NOT_FOUND = {
    "line": ["ERR user-not-found", "PONG"],
    "json": ['{"type": "error", "message": "User not found"}', '{"type": "pong"}'],
    "slash": ["No user named 'zoe'. Use /users to see online users.", "pong"],
}


@by_dialect
def test_a_direct_message_to_somebody_unknown_is_not_shown_as_sent(dialect: str) -> None:
    run = one_room(dialect)
    assert run.type("/dm zoe psst") == []
    assert run.receive(*NOT_FOUND[dialect]) == ["❌ zoe is not here. Not sent: psst"]
    assert run.session.conversation.waiting == 0
    assert len(run.session.conversation.windows) == 1


@pytest.mark.parametrize(
    ("dialect", "answers"),
    [
        ("line", ["DM alice note", "PONG"]),
        (
            "json",
            ['{"type": "dm", "username": "alice", "to": "alice", "message": "note"}', '{"type": "pong"}'],
        ),
        ("slash", ["[DM to alice] note", "[DM from alice] note", "pong"]),
    ],
)
def test_a_message_to_yourself_is_shown_once_and_does_not_ring(dialect: str, answers: list[str]) -> None:
    run = one_room(dialect)
    assert [*run.type("/dm Alice note"), *run.receive(*answers)] == ["[12:00:00] alice → you: note"]
    assert run.session.conversation.current.pending == []


@pytest.mark.parametrize(
    ("dialect", "answers"),
    [
        ("line", ["USER bob", "USER alice", "PONG end-of-users"]),
        ("json", ['{"type": "users", "users": ["bob", "alice"]}', '{"type": "pong"}']),
        ("slash", ["=== Online Users (2) ===", "bob", "alice", "", "pong"]),
    ],
)
def test_the_users_are_shown_and_learned(dialect: str, answers: list[str]) -> None:
    run = one_room(dialect)
    assert run.type("/users") == []
    assert run.receive(*answers) == ["👥 2 here: bob, alice"]
    assert list(run.session.conversation.others) == ["bob"]


def test_a_crowd_is_shown_in_part_on_arrival_and_in_full_on_request() -> None:
    crowd = tuple(f"user{number}" for number in range(100))
    run = Run(Plan("h", 1, "line", "alice"))
    run.accept()
    run.receive("OK")
    answers = [f"USER {name}" for name in crowd]
    assert run.receive(*answers, "PONG end-of-users") == [f"👥 100 here: {', '.join(crowd[:30])} and 70 more"]
    run.receive("OK")
    run.type("/users")
    assert run.receive(*answers, "PONG end-of-users") == [f"👥 100 here: {', '.join(crowd)}"]


@by_dialect
def test_a_ping_shows_its_time_and_a_keep_alive_nothing(dialect: str) -> None:
    pong = {"line": "PONG", "json": '{"type": "pong"}', "slash": "pong"}[dialect]
    run = one_room(dialect)
    assert run.type("/ping") == []
    run.ticking.seconds += 0.25
    assert run.receive(pong) == ["🏓 The server answered in 250 ms"]
    run.wait(20)
    assert run.receive(pong) == []
    assert run.receive(pong) == []


def test_people_are_known_once_they_write_and_forgotten_when_they_leave() -> None:
    run = one_room()
    run.receive("MSG bob hi", "DM eve psst")
    assert list(run.session.conversation.others) == ["bob", "eve"]
    run.receive("INFO bob disconnected")
    assert list(run.session.conversation.others) == ["eve"]


@pytest.mark.parametrize("text", ["malice", "alices", "al ice"])
def test_a_name_inside_another_word_is_not_a_mention(text: str) -> None:
    assert one_room().receive(f"MSG bob {text}") == [f"[12:00:00] bob: {text}"]


@pytest.mark.parametrize("text", ["alice", "ALICE!", "hey, Alice: look", "@alice", "the Release is out"])
def test_a_mention_rings_in_any_spelling(text: str) -> None:
    run = one_room(options=Options(highlight=("release",)))
    assert run.receive(f"MSG bob {text}")[-1] == "*"


def test_the_bell_and_notifications_are_settings() -> None:
    run = one_room(options=Options(bell=False, notify="osc9"))
    assert run.receive("MSG bob alice!", "DM bob psst")[1::2] == [
        "[geventchat] bob in lobby: alice!",
        "[bob] bob → you: psst",
    ]


def test_refusals_and_unknown_lines_are_shown() -> None:
    run = one_room()
    assert run.receive("ERR teapot", "220 ready", "ERR list-full") == [
        "❌ The server reports an error: teapot",
        "💡 220 ready",
        "❌ The list is full.",
    ]


@pytest.mark.parametrize("reason", [*Rejection, *ParseError])
def test_every_refusal_is_a_sentence(reason: Rejection | ParseError) -> None:
    text = rejection_text(reason, "bob")
    assert text[0].isupper()
    assert text.endswith(".")
    assert ("bob" in text) == reason.name.startswith(("NAME_", "ROOM_NAME_"))


def test_in_line_tab_asks_who_has_come_and_completes_when_it_is_known() -> None:
    run = one_room()
    talk = run.session.conversation
    arrived: list[str] = []
    talk.people_arrived = lambda: arrived.append("people")
    # The list in the answer to the login lacks a user who came just after it.
    run.wait(0.6)
    assert talk.complete("@bo") == Completions("@bo", [], complete=False)
    assert run.sent() == b"WHO\nPING end-of-users\n"
    run.receive("USER bob", "USER alice", "PONG end-of-users")
    assert arrived == ["people"]
    assert talk.complete("@bo") == Completions("@bo", ["@bob "])
    # The list is fresh: it is not asked for with every key.
    run.wait(4)
    talk.complete("@bo")
    assert run.sent() == b""
    assert talk.complete("/jo").candidates == ["/join "]


def test_in_json_the_list_of_people_is_not_requested() -> None:
    many = Many()
    many.receive(type="user_joined", room="lobby", username="bob")
    assert many.talk.complete("b") == Completions("b", ["bob: "])
    assert many.sent() == []


# Many rooms.


def test_messages_go_where_they_belong_and_others_are_counted() -> None:
    many = Many()
    many.join("dev")
    assert many.titles() == ["lobby", "dev"]
    assert many.say(1, "hello") == ["[12:00:00] #lobby bob: hello"]
    many.say(2, "alice, look")
    many.say(1, "here", room="dev")
    assert many.texts() == ["here"]
    lobby = many.window("lobby")
    assert (lobby.unread, lobby.mentions, many.talk.current.unread) == (2, 1, 0)
    many.talk.select_next(1)
    assert many.talk.current is lobby
    assert (lobby.unread, lobby.mentions) == (0, 0)
    # A line shows where the new ones begin, until one leaves again.
    assert lobby.first_unread is not None
    assert lobby.first_unread.text == "hello"
    many.talk.select_number(2)
    assert lobby.first_unread is None
    many.type("in dev")
    assert many.sent()[-1]["room"] == "dev"


def test_the_most_urgent_window_is_one_key_away() -> None:
    many = Many()
    for room in ("a", "b", "c"):
        many.join(room)
    many.say(1, "x", room="a")
    many.say(2, "x", room="a")
    many.say(1, "alice!", room="b")
    many.talk.select_active()
    assert many.talk.current.name == "b"
    many.talk.select_active()
    assert many.talk.current.name == "a"
    many.talk.select_active()
    assert many.talk.current.name == "a"
    many.talk.select_number(99)
    assert many.talk.current.name == "a"


def test_direct_messages_have_a_window_and_are_seen_at_once() -> None:
    many = Many()
    many.receive(type="dm", username="bob", to="alice", message="psst")
    assert many.texts() == ["psst"]
    bob = many.window("@bob")
    assert (bob.unread, bob.mentions) == (1, 1)
    many.type("/reply what?")
    chat = many.sent()[-1]
    assert (chat["type"], chat["to"], chat["message"]) == ("dm", "bob", "what?")
    assert bob.unread == 0
    # In the window of a person, what is typed is for that person.
    many.type("/msg bob")
    assert many.talk.current is bob
    many.type("hello")
    assert many.sent()[-1]["to"] == "bob"
    many.type("/leave")
    assert many.titles() == ["lobby"]


def test_a_reply_needs_a_message_to_answer() -> None:
    assert Many().type("/reply hi") == ["❌ Nobody has written to you yet."]


def test_a_room_is_typed_for_before_it_is_entered() -> None:
    many = Many()
    many.type("/join dev")
    many.type("hello dev")
    (request,) = many.sent()
    assert request["type"] == "enter"
    many.receive(type="entered", room="dev", ref=request["ref"], **state())
    (chat,) = many.sent()
    assert (chat["room"], chat["message"]) == ("dev", "hello dev")


def test_what_was_typed_for_a_room_that_refuses_is_not_said_elsewhere() -> None:
    many = Many()
    many.type("/join dev")
    many.type("secret of dev")
    (request,) = many.sent()
    shown = many.receive(
        type="error", code="banned", message="Banned from the room", room="dev", ref=request["ref"]
    )
    assert many.sent() == []
    assert "Not sent: secret of dev" in shown[0]
    assert shown[-1] == "❌ You are banned from the room."
    # Nor is what was begun before the answer, and typed on behind it.
    many.type("another secret of dev")
    (chat,) = many.sent()
    assert chat["room"] == "dev"
    many.type("/leave")
    assert (many.titles(), many.talk.current.name) == (["lobby"], "lobby")


def test_a_room_that_refuses_while_the_user_is_elsewhere_leaves_no_window() -> None:
    many = Many()
    many.type("/join dev")
    many.talk.select_number(1)
    (request,) = many.sent()
    many.receive(type="error", code="banned", message="Banned", room="dev", ref=request["ref"])
    assert (many.titles(), many.talk.current.name) == (["lobby"], "lobby")


@pytest.mark.parametrize(
    ("dialect", "answer"), [("line", "OK"), ("slash", "[info] You are in dev (1)."), ("line", "ERR banned")]
)
def test_the_answer_of_a_room_does_not_take_the_user_out_of_another_window(dialect: str, answer: str) -> None:
    run = one_room(dialect)
    run.type("/join dev")
    run.type("/msg bob")
    run.receive(answer)
    run.sent()
    assert run.session.conversation.current.title == "@bob"
    run.type("between us")
    assert run.sent().startswith({"line": b"DM bob between us\n", "slash": b"/dm bob between us\n"}[dialect])


def test_leaving_a_room_closes_its_window() -> None:
    many = Many()
    many.join("dev")
    many.type("/leave")
    (request,) = many.sent()
    assert (request["type"], request["room"]) == ("leave", "dev")
    many.receive(type="left", room="dev", ref=request["ref"])
    assert many.titles() == ["lobby"]
    many.type("/leave lobby")
    (request,) = many.sent()
    assert many.receive(type="left", room="lobby", ref=request["ref"]) == [
        "💡 You have left lobby. /join enters a room."
    ]
    assert many.type("/leave nowhere") == ["❌ You are not in nowhere."]


def test_a_kick_is_explained_and_the_window_stays() -> None:
    many = Many()
    many.join("dev")
    assert many.receive(type="kicked", room="dev", reason="for shouting") == [
        "❌ You were kicked from dev: for shouting"
    ]
    assert not many.window("dev").joined


@pytest.mark.parametrize(
    ("dialect", "entered", "kicked"),
    [
        ("line", ["OK", "PONG end-of-users", "OK"], ["INFO kicked"]),
        ("slash", ["[info] You are in dev (1).", "pong"], ["[info] You are in lobby again."]),
    ],
)
def test_what_was_begun_before_a_kick_is_not_said_in_the_lobby(
    dialect: str, entered: list[str], kicked: list[str]
) -> None:
    run = one_room(dialect)
    run.type("/join dev")
    run.receive(*entered)
    run.receive(*kicked)
    run.sent()
    assert run.type("secret of dev") == ["❌ You are in lobby now. Not sent: secret of dev"]
    assert run.sent() == b""


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("/join !!", "❌ The server does not allow the room name !!."),
        ("/join", "❌ Usage: /join ROOM [KEY]"),
    ],
)
def test_a_room_that_cannot_be_is_not_asked_for(typed: str, error: str) -> None:
    many = Many()
    assert many.type(typed) == [error]
    assert many.sent() == []
    assert many.titles() == ["lobby"]


def test_the_first_rooms_are_those_of_the_settings() -> None:
    many = Many(options=Options(rooms=("dev", "#ops"), scrollback=0), rooms={"dev": state(), "ops": state()})
    assert many.login["rooms"] == {"dev": None, "ops": None}
    assert many.titles() == ["dev", "ops"]
    run = one_room(options=Options(rooms=("dev",)))
    assert run.session.conversation.current.name == "dev"


def test_a_room_that_refuses_at_the_login_is_named() -> None:
    many = Many(options=Options(rooms=("lobby", "ops"), scrollback=0))
    assert many.receive(
        type="error", code="invitation-required", message="Invitation required", room="ops"
    ) == ["❌ ops: The room is private: you need an invitation or its key."]
    assert many.talk.current.name == "lobby"


def test_in_line_another_window_is_another_room() -> None:
    run = one_room()
    talk = run.session.conversation
    run.type("/join dev")
    assert run.sent() == b"JOIN dev\n"
    run.receive("OK", "USER alice", "PONG end-of-users", "OK")
    assert talk.current.name == "dev"
    run.sent()
    run.type("in dev")
    assert run.sent().startswith(b"MSG in dev\n")
    run.receive("PONG")
    talk.select_number(1)
    assert run.sent() == b"JOIN lobby\n"
    # What is typed meanwhile waits for the answer.
    run.type("in the lobby")
    assert run.sent() == b""
    run.receive("OK")
    assert b"MSG in the lobby\n" in run.sent()


# Sending.


def test_a_paste_of_200_lines_is_sent_as_fast_as_the_server_follows_and_none_is_lost() -> None:
    many = Many()
    many.type("\n".join(f"line {number}" for number in range(200)), literal=True)
    said: list[str] = []
    while requests := many.sent():
        assert len(requests) <= MAX_UNDER_WAY
        for request in requests:
            said.append(request["message"])
            many.say(len(said), request["message"], name="alice")
            many.ok(request["ref"], room="lobby", id=len(said))
    assert said == [f"line {number}" for number in range(200)]
    assert many.texts() == said
    assert many.talk.waiting == 0
    assert len(set(said)) == 200


def test_a_message_is_confirmed_by_its_answer_whichever_comes_first() -> None:
    for echo_first in (True, False):
        many = Many()
        many.type("hello")
        (request,) = many.sent()
        assert request["key"] == "k1"
        if echo_first:
            many.say(1, "hello", name="alice")
            many.ok(request["ref"], room="lobby", id=1)
        else:
            many.ok(request["ref"], room="lobby", id=1)
            many.say(1, "hello", name="alice")
        assert many.texts() == ["hello"]
        assert many.talk.waiting == 0


def test_a_refused_message_says_why_and_what_it_was() -> None:
    many = Many()
    many.type("hello")
    (request,) = many.sent()
    assert many.receive(type="error", code="muted", message="Muted", room="lobby", ref=request["ref"]) == [
        "❌ You are muted. Not sent: hello"
    ]
    assert many.talk.current.pending == []


def test_a_line_that_the_server_could_not_read_is_the_oldest_unanswered_one() -> None:
    many = Many()
    many.type("first")
    many.type("second")
    _, second = many.sent()
    assert many.receive(type="error", code="line-too-long", message="Line too long") == [
        "❌ The message is too long for the server and was not delivered. Not sent: first"
    ]
    many.ok(second["ref"], room="lobby", id=1)
    assert many.talk.waiting == 0


def test_a_kept_direct_message_says_so() -> None:
    many = Many()
    many.type("/msg bob hi")
    (request,) = many.sent()
    shown = many.receive(type="dm", username="alice", to="bob", message="hi", kept=True)
    shown += many.ok(request["ref"])
    assert shown == ["[12:00:00] you → bob: hi", "💡 bob is away and gets the message at the next login."]
    run = one_room()
    run.type("/msg bob hi")
    assert run.receive("INFO bob is offline, message kept", "PONG") == [
        "💡 bob is away and gets the message at the next login.",
        "[12:00:00] you → bob: hi",
    ]


def test_a_text_that_begins_with_a_slash_cannot_be_sent_in_slash_but_in_a_block() -> None:
    run = one_room("slash")
    (error,) = run.type("//etc/hosts")
    assert error.startswith("❌ The slash dialect treats every line that begins with /")
    assert error.endswith("Not sent: /etc/hosts")
    run.type("  /quit\nmore", literal=True)
    assert run.sent().startswith("│   /quit\n".encode())


# Resuming.


def test_what_was_missed_comes_in_order_and_once_behind_a_line() -> None:
    many = Many()
    many.say(1, "one")
    assert many.reconnect({"lobby": state(3, replay_from=2)}) == ["✅ Reconnected as alice."]
    assert many.login["rooms"] == {"lobby": 1}
    assert many.login["epoch"] == "e1"
    many.say(2, "two")
    many.say(3, "three")
    many.say(3, "three")
    many.say(4, "four")
    assert many.texts() == ["one", "two", "three", "four"]
    first = many.talk.current.first_unread
    assert first is not None
    assert first.text == "two"
    # It is on the screen, so it is not counted as unread.
    assert many.talk.current.unread == 0


def test_every_room_is_resumed_where_it_was() -> None:
    many = Many()
    many.join("dev", last_id=7)
    many.type("/msg bob")
    many.reconnect({"lobby": state(), "dev": state(9, replay_from=8)})
    assert many.login["rooms"] == {"lobby": 0, "dev": 7}
    many.say(8, "missed", room="dev")
    assert many.window("dev").unread == 1


def test_rooms_for_which_the_login_has_no_space_are_resumed_behind_it() -> None:
    many = Many()
    many.join("dev", 4)
    many.join("ops")
    many.talk.select_number(2)
    many.run.hang_up()
    many.type("hello dev")
    many.run.wait(1)
    many.run.accept()
    many.receive(type="error", message="Line too long")
    assert many.sent()[0]["rooms"] == {"lobby": 0}
    assert "You are no longer in" not in "".join(many.welcome())
    dev, ops = many.sent()
    assert (dev["type"], dev["room"], dev["after"]) == ("enter", "dev", 4)
    many.receive(type="entered", room="dev", ref=dev["ref"], **state(5, replay_from=5))
    assert [one["message"] for one in many.sent()] == ["hello dev"]
    assert many.say(5, "meanwhile", room="dev") == ["[12:00:00] bob: meanwhile"]
    refusal = many.receive(type="error", code="banned", message="Banned", room="ops", ref=ops["ref"])
    assert refusal == ["❌ ops: You are banned from the room."]
    assert [window.joined for window in many.talk.windows] == [True, True, False]


def test_a_message_that_was_said_before_the_connection_was_lost_is_not_said_again() -> None:
    many = Many()
    many.type("hello")
    many.type("world")
    many.sent()
    many.reconnect({"lobby": state(1, replay_from=1)})
    assert [request["type"] for request in many.sent()] == []
    # What was missed shows that the first one was said; the second one was not.
    many.say(1, "hello", name="alice")
    (request,) = many.sent()
    assert (request["message"], request["key"]) == ("world", "k2")
    many.say(2, "world", name="alice")
    many.ok(request["ref"], room="lobby", id=2)
    assert many.texts() == ["hello", "world"]
    assert many.talk.waiting == 0
    assert many.talk.current.pending == []


def test_a_message_whose_echo_arrived_is_not_said_again() -> None:
    many = Many()
    many.type("hello")
    many.sent()
    many.say(1, "hello", name="alice")
    many.reconnect({"lobby": state(1)})
    assert many.sent() == []
    assert many.talk.waiting == 0


def test_a_direct_message_is_sent_again_with_its_key() -> None:
    many = Many()
    many.type("/msg bob psst")
    many.sent()
    many.reconnect()
    (request,) = many.sent()
    assert (request["to"], request["key"]) == ("bob", "k1")
    many.ok(request["ref"])
    assert many.texts() == ["psst"]


def test_a_new_epoch_shows_nothing_twice() -> None:
    many = Many()
    many.say(5, "old")
    many.reconnect({"lobby": state(2, replay_from=1)}, epoch="e2")
    many.say(1, "old")
    many.say(2, "new")
    assert many.texts() == ["old", "new"]
    many.say(3, "newer")
    assert many.talk.read_marks() == ReadMarks("e2", {"lobby": 3})


def test_a_gap_is_filled_as_far_as_the_window_reaches_and_what_is_left_is_noted() -> None:
    many = Many(options=Options())
    many.sent()
    many.say(1, "one")
    many.reconnect({"lobby": state(2000, replay_from=1001)})
    (request,) = many.sent()
    assert (request["before"], request["limit"]) == (1001, 50)
    for id in (1001, 2000):
        many.say(id, str(id))
    shown = many.receive(type="history", room="lobby", messages=past(8, 9), more=True, ref=request["ref"])
    assert shown == ["💡 Older messages were missed: /history loads them."]
    many.type("/history 5")
    (request,) = many.sent()
    assert (request["before"], request["limit"]) == (8, 5)
    shown = many.receive(type="history", room="lobby", messages=past(1, 7), more=True, ref=request["ref"])
    assert shown == ["💡 1 older message loaded: PageUp scrolls."]
    assert many.texts() == ["one", "m7", "m8", "m9", "1001", "2000"]
    assert not many.talk.current.gap_id


def test_numbers_that_the_server_has_left_out_are_no_gap() -> None:
    many = Many(options=Options())
    many.sent()
    many.say(1, "one")
    many.reconnect({"lobby": state(1000, replay_from=1001)})
    (request,) = many.sent()
    assert many.receive(type="history", room="lobby", messages=past(1), more=True, ref=request["ref"]) == []
    assert many.texts() == ["one"]
    assert not many.talk.current.gap_id


def test_a_room_that_is_gone_is_named() -> None:
    many = Many()
    many.join("dev")
    assert "❌ You are no longer in dev." in many.reconnect({"lobby": state()})
    # What was begun before is not said elsewhere.
    many.type("secret of dev")
    assert [one["room"] for one in many.sent() if one["type"] == "chat"] == ["dev"]


def test_a_first_room_that_cannot_be_entered_gives_way_to_one_that_can() -> None:
    many = Many(options=Options(rooms=("ops", "lobby"), scrollback=0))
    assert many.talk.current.name == "lobby"


def test_in_line_the_history_decides_what_was_said() -> None:
    run = one_room()
    run.receive("MSG bob before")
    run.type("hello")
    run.type("world")
    run.sent()
    run.hang_up()
    run.wait(1)
    run.accept()
    run.receive("OK")
    assert run.sent() == b"WHO\nPING end-of-users\nHISTORY 200\n"
    run.receive("PONG end-of-users")
    assert run.sent() == b""
    hist = [
        f"HIST {id} 2024-01-15T12:00:0{id}Z {rest}"
        for id, rest in enumerate(["bob before", "alice hello", "eve meanwhile"])
    ]
    shown = run.receive(*hist, "OK")
    assert [line.partition("] ")[2] for line in shown] == ["alice: hello", "eve: meanwhile"]
    # Only what is not in it is said again.
    assert run.sent().startswith(b"MSG world\n")
    run.receive("PONG")
    assert run.session.conversation.waiting == 0


def test_in_line_a_server_that_has_forgotten_everything_has_not_said_it() -> None:
    run = one_room()
    run.receive("MSG bob before")
    run.type("hello")
    run.hang_up()
    run.wait(1)
    run.accept()
    run.receive("OK", "PONG end-of-users")
    run.sent()
    run.receive("OK")
    assert run.sent().startswith(b"MSG hello\n")


def test_without_a_history_a_person_decides() -> None:
    for command, sent in (("/resend", b"MSG hello\n"), ("/resend drop", b"")):
        run = one_room()
        run.type("hello")
        run.sent()
        run.hang_up()
        run.wait(1)
        run.accept()
        run.receive("OK", "PONG end-of-users")
        run.sent()
        shown = run.receive("ERR unknown-command")
        assert shown == ["💡 1 message perhaps not said: /resend sends it again, /resend drop forgets."]
        assert run.status == ["1 perhaps not said: /resend"]
        # What is typed now does not wait for that.
        run.type("next")
        assert run.sent().startswith(b"MSG next\n")
        run.receive("PONG")
        run.type(command)
        assert run.sent()[:10] == sent
        assert run.session.conversation.held == 0
        run.receive("PONG")
        assert run.session.conversation.current.pending == []
        assert run.type("/resend") == ["❌ Every message was said, or will be sent by itself."]


def test_in_line_the_room_is_entered_again() -> None:
    run = one_room()
    run.type("/join dev key")
    run.receive("OK", "PONG end-of-users", "OK")
    run.sent()
    run.hang_up()
    run.wait(1)
    run.accept()
    run.receive("OK")
    assert run.sent() == b"JOIN dev key\n"
    run.type("hello")
    run.receive("OK", "PONG end-of-users", "OK")
    assert b"MSG hello\n" in run.sent()
    assert run.session.conversation.current.name == "dev"


def test_a_command_that_was_not_answered_is_not_forgotten_silently() -> None:
    many = Many()
    many.type("/topic tea")
    shown = many.run.hang_up()
    assert shown[0] == "❌ The connection was lost before the server had answered the last command."


# History.


def past(*ids: int) -> list[dict[str, Any]]:
    return [
        {"type": "chat", "room": "lobby", "id": id, "username": "bob", "message": f"m{id}", "timestamp_ms": 1}
        for id in ids
    ]


def test_entering_a_room_loads_what_was_said_before() -> None:
    many = Many(options=Options(scrollback=3), rooms={"lobby": state(10)})
    (request,) = many.sent()
    assert (request["type"], request["before"], request["limit"]) == ("history", 11, 3)
    many.say(11, "live")
    many.receive(type="history", room="lobby", messages=past(8, 9, 10), more=True, ref=request["ref"])
    assert many.texts() == ["m8", "m9", "m10", "live"]
    # Older messages stand above what has been shown since.
    assert many.talk.current.entries[0].text == "m8"
    assert many.talk.current.unread == 0
    # Scrolling up loads more, once.
    many.talk.older(many.talk.current)
    many.talk.older(many.talk.current)
    (request,) = many.sent()
    assert (request["before"], request["limit"]) == (8, PAGE)
    many.receive(type="history", room="lobby", messages=past(6, 7), more=False, ref=request["ref"])
    many.talk.older(many.talk.current)
    assert many.sent() == []
    assert many.texts()[:3] == ["m6", "m7", "m8"]


def test_what_was_said_since_the_last_session_is_marked() -> None:
    marks = ReadMarks("e1", {"lobby": 8})
    many = Many(marks=marks, rooms={"lobby": state(10, replay_from=9)})
    assert many.login["rooms"] == {"lobby": 8}
    many.say(9, "while you were away")
    many.say(10, "alice?")
    assert many.talk.current.first_unread is many.talk.current.entries[-2]
    # Messages that were missed do not ring the bell.
    assert "*" not in many.run.terminal.shown()
    assert many.talk.read_marks() == ReadMarks("e1", {"lobby": 10})


def test_what_one_has_said_is_read() -> None:
    many = Many()
    many.say(1, "hello")
    many.say(2, "hi bob", name="alice")
    assert many.talk.read_marks() == ReadMarks("e1", {"lobby": 2})


def test_marks_of_another_epoch_mean_nothing() -> None:
    many = Many(marks=ReadMarks("e0", {"lobby": 8}), rooms={"lobby": state(2)})
    many.say(3, "hello")
    assert many.talk.current.first_unread is None


def test_a_deleted_message_loses_its_text() -> None:
    many = Many()
    many.say(1, "regrettable")
    many.receive(type="deleted", room="lobby", id=1)
    assert many.run.entries()[-1] == "[12:00:00] bob: (deleted)"
    many.receive(type="deleted", room="lobby", id=99)
    many.receive(type="chat", room="lobby", id=2, username="bob", deleted=True)
    assert many.run.entries()[-1] == "[12:00:00] bob: (deleted)"


def test_in_slash_the_history_has_no_ids_and_nothing_is_shown_twice() -> None:
    run = Run(Plan("h", 1, "slash", "alice"))
    run.accept()
    run.receive(*LOGINS["slash"])
    run.receive("=== Online Users (1) ===", "alice", "", "pong", "bob: live")
    history = [
        "=== History (2) ===",
        "[2024-01-15T11:00:00Z] bob: old",
        "[2024-01-15T12:00:00Z] bob: live",
        "",
        "pong",
    ]
    run.receive(*history)
    assert [
        entry.text for entry in run.session.conversation.current.entries if entry.kind is Kind.MESSAGE
    ] == ["old", "live"]


def test_a_search_goes_back_through_the_history_and_ends() -> None:
    many = Many(rooms={"lobby": state(10_000)})
    many.say(10_001, "the NEEDLE here")
    # In any case.
    assert many.type("/search Needle") == []
    for page in range(SEARCHED_PAGES):
        (request,) = many.sent()
        older = [10_000 - page * 2 - 1, 10_000 - page * 2]
        shown = many.receive(
            type="history", room="lobby", messages=past(*older), more=True, ref=request["ref"]
        )
    assert shown == ["💡 1 message with “Needle” in lobby:", "2024-01-15 12:00 bob: the NEEDLE here"]
    assert many.sent() == []


def test_what_was_cleared_can_be_loaded_and_searched_again() -> None:
    for typed, shown in (
        ("/history", "💡 1 older message loaded: PageUp scrolls."),
        ("/search needle", "💡 1 message with “needle” in lobby:"),
    ):
        many = Many(rooms={"lobby": state()})
        many.say(1, "the needle")
        many.type("/clear")
        assert many.texts() == []
        many.type(typed)
        (request,) = many.sent()
        assert (request["type"], request["before"]) == ("history", 2)
        needle = {"type": "chat", "room": "lobby", "id": 1, "username": "bob", "message": "the needle"}
        answer = many.receive(type="history", room="lobby", messages=[needle], more=False, ref=request["ref"])
        assert shown in answer
        assert many.texts() == ["the needle"]


def test_a_search_without_a_result_says_so() -> None:
    assert one_room().type("/search needle") == ["💡 Nothing with “needle” in lobby."]


# What is not in the protocol.


def test_an_action_is_a_text_that_everyone_can_read() -> None:
    many = Many()
    many.type("/me waves")
    (request,) = many.sent()
    assert request["message"] == "* alice waves"
    many.say(1, "* bob nods")
    assert many.run.entries()[-1] == "[12:00:00] * bob nods"
    # An action under another name is shown as an ordinary message.
    many.say(2, "* eve nods")
    assert many.run.entries()[-1] == "[12:00:00] bob: * eve nods"


def test_an_ignored_person_is_not_seen_and_does_not_ring() -> None:
    run = one_room()
    assert run.type("/ignore bob") == ["💡 You no longer see what bob writes. /unignore bob shows it again."]
    assert run.receive("MSG BOB alice!", "DM bob psst", "INFO bob invites you to dev") == []
    assert run.type("/ignore") == ["💡 You ignore:", "bob"]
    assert run.type("/unignore bob") == ["💡 You see what bob writes."]
    assert run.type("/unignore bob") == ["❌ You do not ignore bob."]
    assert run.type("/ignore alice") == ["❌ You cannot ignore yourself."]
    assert run.receive("MSG bob hi") == ["[12:00:00] bob: hi"]
    assert one_room(options=Options(ignore=("Bob",))).receive("MSG bob hi") == []


def test_away_answers_each_person_once() -> None:
    run = one_room()
    run.type("/away at lunch")
    assert run.status == ["away"]
    run.receive("DM bob are you there?", "DM bob hello?", "DM eve hi")
    sent = [line for line in run.sent().splitlines() if line.startswith(b"DM")]
    assert sent == [f"DM {name} {AUTOMATIC} at lunch".encode() for name in ("bob", "eve")]
    assert run.type("/back") == ["💡 You are back."]
    assert run.type("/back") == ["❌ Usage: /away TEXT. You are not away."]
    run.receive("DM zoe hi")
    assert b"DM zoe" not in run.sent()


def test_an_automatic_reply_reads_nothing_and_is_not_answered() -> None:
    many = Many()
    many.type("/away at lunch")
    many.receive(type="dm", username="bob", to="alice", message="are you there?")
    (request,) = many.sent()
    assert many.window("@bob").unread == 1
    reply = f"{AUTOMATIC} at lunch"
    many.receive(type="dm", username="alice", to="bob", message=reply)
    many.ok(request["ref"])
    # Whoever comes back sees that somebody has written.
    assert (many.window("@bob").unread, many.window("@bob").mentions) == (1, 1)
    many.receive(type="dm", username="eve", to="alice", message=f"{AUTOMATIC} on holiday")
    assert many.sent() == []


def test_a_quote_is_a_message_and_never_of_a_private_one_in_a_room() -> None:
    many = Many()
    many.say(1, "tea?")
    many.receive(type="dm", username="bob", to="alice", message="a secret")
    many.type("/quote bob yes")
    first, second = many.sent()
    assert (first["message"], second["message"]) == ("> bob: tea?", "yes")
    many.type("/quote")
    assert many.talk.draft == "> bob: tea?\n"
    many.type("/quote good idea")
    assert [request["message"] for request in many.sent()] == ["> bob: tea?", "good idea"]
    assert one_room().type("/quote bob") == ["❌ There is no message to quote."]


def test_a_quote_is_one_line_that_cannot_act_on_a_terminal() -> None:
    many = Many()
    many.say(1, "a\x1b]0;owned\x07\n\u202eb")
    many.type("/quote")
    assert many.talk.draft == "> bob: a\ufffd]0;owned\ufffd\ufffd\ufffdb\n"
    many.type("/quote indeed")
    assert [chat["message"] for chat in many.sent()] == [
        "> bob: a\ufffd]0;owned\ufffd\ufffd\ufffdb",
        "indeed",
    ]


def test_settings_are_shown_and_changed() -> None:
    many = Many()
    (line,) = many.type("/set bell")
    assert line.startswith("bell = on    ring for")
    assert many.type("/set bell off") == ["💡 bell = off until the end of this session."]
    assert many.run.terminal.options[-1].bell is False
    assert many.type("/set timestamps %H:%M") == ["💡 timestamps = %H:%M until the end of this session."]
    assert many.type("/set bell maybe") == ["❌ Bell: 'maybe' is not on or off."]
    assert many.type("/set bel off") == ["❌ Unknown setting bel; did you mean bell?"]
    assert many.type("/set name bob") == ["❌ name is only read at the start: put it into client.toml."]
    assert len(many.type("/set")) > 20


def test_help_is_for_all_commands_or_one() -> None:
    run = one_room("slash")
    shown = run.type("/help")
    assert shown[0].startswith("/join ROOM [KEY]")
    assert shown[-1].startswith("//TEXT")
    assert run.type("/help /r") == ["/reply TEXT  answer the last direct message; also /r"]
    assert run.type("/help teapot") == ["❌ Unknown command /teapot. /help lists the commands."]
    assert run.sent() == b""


@pytest.mark.parametrize(
    ("typed", "line", "answer", "shown"),
    [
        ("/topic", "TOPIC", ["TOPIC all about dev"], "📌 Topic: all about dev"),
        ("/topic tea", "TOPIC tea", ["OK"], "✅ The topic of lobby is: tea"),
        ("/kick bob for shouting", "KICK bob for shouting", ["OK"], "✅ bob was kicked."),
        (
            "/ban bob 10m spam",
            "BAN bob 600 spam",
            ["ERR not-permitted"],
            "❌ The server does not allow you to do that.",
        ),
        ("/rooms", "ROOMS", ["ROOM lobby 3", "OK"], "lobby (3)"),
        ("/bans", "BANS", ["BAN bob forever spam", "OK"], "bob for good: spam"),
        ("/token", "TOKEN", ["TOKEN gct_x"], "✅ Your token, shown only once: gct_x"),
        ("/invite bob", "INVITE bob", ["OK"], "✅ bob is invited to lobby."),
        ("/private on", "PRIVATE on", ["OK"], "✅ lobby is private."),
        ("/key -", "KEY -", ["OK"], "✅ lobby has no key."),
        ("/delete 17", "DELETE 17", ["ERR no-such-message"], "❌ No such message."),
    ],
)
def test_what_the_server_offers_can_be_typed(typed: str, line: str, answer: list[str], shown: str) -> None:
    run = one_room()
    run.type(typed)
    assert run.sent() == f"{line}\n".encode()
    assert run.receive(*answer)[-1] == shown


def test_a_command_of_a_room_is_about_the_room_that_is_shown() -> None:
    many = Many()
    many.join("dev")
    many.type("/kick bob")
    assert many.sent()[-1] == {"type": "kick", "room": "dev", "username": "bob", "ref": "2"}
    many.type("/msg bob")
    assert many.type("/kick bob") == ["❌ This is a conversation with one person. Go to a room first."]


def test_the_rooms_the_people_of_another_one_and_the_topic_can_be_asked_for() -> None:
    many = Many()
    many.join("dev")
    many.type("/rooms")
    (request,) = many.sent()
    rooms = [{"room": "lobby", "users": 3, "topic": ""}, {"room": "dev", "users": 1, "topic": "tea"}]
    shown = many.receive(type="rooms", rooms=rooms, ref=request["ref"])
    assert (request["type"], shown) == ("rooms", ["💡 Rooms:", "lobby (3)", "dev (1) tea"])
    many.type("/who lobby")
    (request,) = many.sent()
    assert (request["type"], request["room"]) == ("users", "lobby")
    shown = many.receive(type="users", room="lobby", users=["bob", "eve"], user_count=2, ref=request["ref"])
    assert shown == ["👥 2 in lobby: bob, eve"]
    # They are in that room, and not in the one that is shown.
    assert list(many.window("lobby").people.values()) == ["bob", "eve"]
    assert list(many.window("dev").people.values()) == ["alice"]
    many.type("/topic")
    (request,) = many.sent()
    assert (request["type"], request["room"]) == ("topic", "dev")
    assert many.receive(type="topic", room="dev", topic="tea", ref=request["ref"]) == ["📌 Topic: tea"]
    assert many.talk.current.topic == "tea"


def test_in_line_older_messages_can_be_loaded() -> None:
    run = one_room()
    run.receive("MSG bob live")
    run.type("/history 5")
    assert run.sent() == b"HISTORY 5\n"
    run.receive("HIST 1 2024-01-15T11:00:00Z bob old", "HIST 2 2024-01-15T12:00:00Z bob live", "OK")
    entries = run.session.conversation.current.entries
    assert [entry.text for entry in entries if entry.kind is Kind.MESSAGE] == ["old", "live"]


def test_typing_is_known_for_a_while() -> None:
    many = Many()
    many.receive(type="typing", room="lobby", username="bob")
    assert many.talk.writers() == ["bob"]
    many.run.wait(TYPING_S)
    assert many.talk.writers() == []
    # Nothing is left that has to be looked at every moment.
    assert many.run.session.deadline is not None
    assert many.run.session.deadline > many.run.ticking.seconds + TYPING_S
    many.talk.typed("hel")
    many.talk.typed("hell")
    assert [request["type"] for request in many.sent()] == ["typing"]
    many.run.wait(TYPING_EVERY_S)
    many.talk.typed("/nick")
    assert many.sent() == []


def test_those_who_no_longer_write_do_not_count_against_those_who_do() -> None:
    many = Many()
    for number in range(MAX_TYPING + 1):
        many.receive(type="typing", room="lobby", username=f"user{number}")
    assert len(many.talk.writers()) == MAX_TYPING
    many.run.ticking.seconds += TYPING_S / 2
    many.receive(type="typing", room="lobby", username="user0")
    many.run.ticking.seconds += TYPING_S / 2
    assert many.talk.writers() == ["user0"]
    many.receive(type="typing", room="lobby", username="bob")
    assert many.talk.writers() == ["user0", "bob"]


@pytest.mark.parametrize(
    ("options", "typed", "literal", "said"),
    [
        (NO_SCROLLBACK, "hi :wave:", False, "hi 👋"),
        (NO_SCROLLBACK, "/me waves :wave:", False, "* alice waves 👋"),
        (NO_SCROLLBACK, "/msg bob :tada:", False, "🎉"),
        # A paste can be anything, such as a log.
        (NO_SCROLLBACK, "hi :wave:", True, "hi :wave:"),
        (Options(scrollback=0, emoji=False), "hi :wave:", False, "hi :wave:"),
    ],
)
def test_codes_of_emoji_are_sent_as_emoji_where_they_were_typed(
    options: Options, typed: str, literal: bool, said: str
) -> None:
    many = Many(options=options)
    many.type(typed, literal=literal)
    (request,) = many.sent()
    assert request["message"] == said


def test_a_script_sends_codes_of_emoji_as_they_are() -> None:
    many = Many(interactive=False)
    many.type("at 10:30: :wave:")
    assert many.sent()[-1]["message"] == "at 10:30: :wave:"


def test_who_enters_and_leaves_can_be_hidden() -> None:
    for options, shown in ((NO_SCROLLBACK, True), (Options(scrollback=0, joins=False), False)):
        many = Many(options=options)
        assert (
            many.receive(type="user_joined", room="lobby", username="bob")
            == ["🟢 bob joined the room"] * shown
        )
        assert list(many.talk.others) == ["bob"]
        assert (
            many.receive(type="user_left", room="lobby", username="bob") == ["🔴 bob left the room"] * shown
        )
        assert list(many.talk.others) == []


def test_in_json_somebody_leaves_a_room_and_perhaps_not_the_chat() -> None:
    many = Many()
    many.join("dev")
    for room in ("dev", "lobby"):
        where = f"#{room} " * (room == "lobby")
        assert many.receive(type="user_joined", room=room, username="bob") == [
            f"{where}🟢 bob joined the room"
        ]
        assert many.receive(type="user_left", room=room, username="bob") == [f"{where}🔴 bob left the room"]
    # In `line` it is said how someone has left.
    run = one_room()
    run.type("/join dev")
    run.receive("OK", "USER bob", "PONG end-of-users", "OK")
    assert run.receive("INFO bob disconnected") == ["🔴 bob left the chat"]
    assert run.receive("INFO eve left", "INFO zoe kicked") == ["🔴 eve left the room", "🔴 zoe was kicked"]


def test_who_is_typing_is_neither_said_nor_shown_when_that_is_off() -> None:
    many = Many(options=Options(scrollback=0, typing=False))
    many.receive(type="typing", room="lobby", username="bob")
    assert many.talk.writers() == []
    many.talk.typed("hel")
    assert many.sent() == []


# Code.


def test_lines_between_fences_and_behind_bars_are_code() -> None:
    many = Many()
    for id, text in enumerate(["```python", "def f():", "```", "text", "│     return 1"], 1):
        many.say(id, text)
    many.say(6, "me too", name="eve")
    code = {entry.text: entry.code for entry in many.talk.current.entries if entry.kind is Kind.MESSAGE}
    assert code == {
        "```python": True,
        "def f():": True,
        "```": True,
        "text": False,
        "│     return 1": True,
        "me too": False,
    }


def test_a_fence_that_is_never_closed_ends_by_itself() -> None:
    many = Many()
    for id in range(1, FENCED_LINES + 3):
        many.say(id, "```" if id == 1 else "x")
    assert not many.talk.current.entries[-1].code


# Bounds.


def test_nothing_that_a_server_sends_grows_without_end() -> None:
    many = Many()
    for number in range(MAX_WINDOWS + 20):
        many.receive(type="dm", username=f"u{number}", to="alice", message="hi")
    assert len(many.talk.windows) == MAX_WINDOWS
    for number in range(MAX_WINDOWS + 20):
        many.say(1, "hi", room=f"r{number}")
    assert len(many.talk.windows) == MAX_WINDOWS
    for number in range(MAX_ENTRIES + 100):
        many.say(number + 1, "x")
    assert len(many.window("lobby").entries) <= MAX_ENTRIES
    assert len(many.window("lobby").ids) <= MAX_ENTRIES


def hostile() -> Iterator[dict[str, Any]]:
    yield {"type": "welcome", "v": 2, "username": "eve", "rooms": {}}
    yield {"type": "entered", "room": ""}
    yield {
        "type": "chat",
        "room": "\x1b[2J",
        "id": -5,
        "username": "",
        "message": "\x1b]0;x\x07",
        "timestamp_ms": 10**300,
    }
    yield {
        "type": "chat",
        "room": "lobby",
        "id": 2**80,
        "username": "a" * 9999,
        "message": "x" * 99999,
        "timestamp_ms": -(10**18),
    }
    yield {"type": "history", "room": "lobby", "messages": [{}, 7, {"id": 1}], "more": True}
    yield {"type": "users", "room": "lobby", "users": ["\x07" * 50], "user_count": -1}
    yield {"type": "topic", "room": "lobby", "username": "x", "topic": "\x9b2J"}
    yield {"type": "kicked", "room": "nowhere"}
    yield {"type": "left", "room": "nowhere"}
    yield {"type": "deleted", "room": "lobby", "id": "x"}
    yield {"type": "ok", "ref": "999"}
    yield {"type": "ok", "ref": ["x"]}
    yield {"type": "error", "code": "x", "message": "\x1b[31m", "ref": "1"}
    yield {"type": "bans", "room": "lobby", "bans": [{"until_ms": 10**30}]}


def test_a_hostile_server_cannot_break_the_client_or_reach_the_terminal() -> None:
    many = Many()
    many.type("hello")
    for fields in hostile():
        shown = many.receive(**fields)
        assert not any(
            character < " " or "\x7f" <= character < "\xa0" for line in shown for character in line
        )
    for window in many.talk.windows:
        assert window.title.isprintable()
