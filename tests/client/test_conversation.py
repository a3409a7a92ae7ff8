"""A logged-in connection: its output for any input and any event, the same in every dialect."""

from __future__ import annotations

import pytest

from geventchat.chat.commands import Login, ParseError, Ping, Who
from geventchat.chat.events import Rejected, Rejection, Welcome
from geventchat.client.conversation import Conversation, Shown, rejection_text
from geventchat.client.input import parse_input
from geventchat.dialects import DIALECTS
from geventchat.dialects.codec import NO_ROOM, NO_TIME, UnknownError, UnknownLine
from tests.client.recorders import RecordingTerminal, TickingClock

LOGINS = {
    "line": "OK",
    "json": '{"type": "welcome", "message": "Welcome to the chat, alice!", "users": ["alice"], "timestamp": 1}',
    "slash": "[join] alice has joined the chat.\nConnected! Type /help for commands\n",
}
by_dialect = pytest.mark.parametrize("dialect", DIALECTS)


class Talk:
    """A conversation, what it sends and what it shows."""

    def __init__(self, dialect: str = "line", *, echoes_input: bool = False) -> None:
        self.terminal = RecordingTerminal(echoes_input=echoes_input)
        self.ticking = TickingClock()
        self.codec = DIALECTS[dialect].client()
        self.codec.encode(Login("alice"))
        for line in LOGINS[dialect].splitlines():
            self.codec.decode(line.encode())
        self._sent = b""
        self.conversation = Conversation(
            "alice", self.codec, self._send, self.terminal, self.terminal.show_error, self.ticking.clock()
        )

    def _send(self, data: bytes) -> None:
        self._sent += data

    def sent(self) -> bytes:
        """The bytes sent since the last call."""
        sent, self._sent = self._sent, b""
        return sent

    def type(self, line: str) -> list[str]:
        """Type a line; what is shown at once."""
        command = parse_input(line)
        assert command is not None
        self.conversation.perform(command)
        return self.terminal.shown()

    def receive(self, *lines: str) -> list[str]:
        """Receive lines; what is shown."""
        for line in lines:
            event = self.codec.decode(line.encode())
            if event is not None:
                self.conversation.receive(event)
        return self.terminal.shown()


@pytest.mark.parametrize(
    ("dialect", "lines"),
    [
        ("line", ["MSG bob hi alice", "DM bob psst", "INFO bob disconnected"]),
        (
            "json",
            [
                '{"type": "chat", "username": "bob", "message": "hi alice", "timestamp": 1}',
                '{"type": "dm", "username": "bob", "to": "alice", "message": "psst", "timestamp": 1}',
                '{"type": "user_left", "username": "bob", "message": "bob left the chat", "timestamp": 1}',
            ],
        ),
        ("slash", ["bob: hi alice", "[DM from bob] psst", "[leave] bob has left the chat."]),
    ],
)
def test_every_dialect_looks_the_same(dialect: str, lines: list[str]) -> None:
    assert Talk(dialect).receive(*lines) == [
        "[12:00:00] bob: hi alice",
        "*",
        "[12:00:00] bob → you: psst",
        "*",
        "🔴 bob left the chat",
    ]


OWN_MESSAGE = {
    "line": [],
    "json": ['{"type": "chat", "username": "alice", "message": "hello", "timestamp": 1}'],
    "slash": [],
}
OWN_DIRECT_MESSAGE = {
    "line": [],
    "json": ['{"type": "dm", "username": "alice", "to": "bob", "message": "psst", "timestamp": 1}'],
    "slash": ["[DM to bob] psst"],
}


@by_dialect
@pytest.mark.parametrize("echoes_input", [False, True])
def test_own_messages_are_shown_once(dialect: str, echoes_input: bool) -> None:
    talk = Talk(dialect, echoes_input=echoes_input)
    shown = [
        *talk.type("hello"),
        *talk.receive(*OWN_MESSAGE[dialect]),
        *talk.type("/dm bob psst"),
        *talk.receive(*OWN_DIRECT_MESSAGE[dialect]),
    ]
    own = ["[12:00:00] alice: hello", "[12:00:00] you → bob: psst"]
    assert shown == ([] if echoes_input else own)


@pytest.mark.parametrize(
    ("dialect", "answers"),
    [
        ("line", ["DM alice note"]),
        ("json", ['{"type": "dm", "username": "alice", "to": "alice", "message": "note"}']),
        ("slash", ["[DM to alice] note", "[DM from alice] note"]),
    ],
)
def test_a_message_to_yourself_is_shown_once_and_does_not_ring(dialect: str, answers: list[str]) -> None:
    talk = Talk(dialect)
    shown = [*talk.type("/dm Alice note"), *talk.receive(*answers)]
    assert shown == ["[12:00:00] alice → you: note"]


@pytest.mark.parametrize(
    ("dialect", "answers"),
    [
        ("line", ["USER bob", "USER alice", "PONG end-of-users"]),
        ("json", ['{"type": "users", "users": ["bob", "alice"]}']),
        ("slash", ["=== Online Users (2) ===", "bob", "alice", ""]),
    ],
)
def test_the_users_are_shown_and_learned(dialect: str, answers: list[str]) -> None:
    talk = Talk(dialect)
    assert talk.type("/users") == []
    assert talk.sent() == talk.codec.encode(Who())
    assert talk.receive(*answers) == ["👥 2 here: bob, alice"]
    assert list(talk.conversation.others) == ["bob"]


def test_users_can_be_learned_without_being_shown() -> None:
    talk = Talk("line")
    talk.conversation.learn_users(Welcome(NO_ROOM, "alice", (), NO_TIME), Shown.NOTHING)
    assert talk.sent() == b"WHO\nPING end-of-users\n"
    assert talk.receive("USER bob", "USER alice", "PONG end-of-users") == []
    assert list(talk.conversation.others) == ["bob"]


def test_users_that_the_welcome_tells_are_not_asked_for() -> None:
    talk = Talk("json")
    talk.conversation.learn_users(Welcome(NO_ROOM, "alice", ("bob", "alice"), NO_TIME), Shown.SHORT)
    assert talk.terminal.shown() == ["👥 2 here: bob, alice"]
    assert talk.sent() == b""


def test_a_crowd_is_shown_in_part_on_arrival_and_in_full_on_request() -> None:
    crowd = tuple(f"user{number}" for number in range(100))
    talk = Talk("line")
    talk.conversation.learn_users(Welcome(NO_ROOM, "alice", crowd, NO_TIME), Shown.SHORT)
    assert talk.terminal.shown() == [f"👥 100 here: {', '.join(crowd[:30])} and 70 more"]
    assert len(talk.conversation.others) == 100
    talk.type("/users")
    answers = [f"USER {name}" for name in crowd]
    assert talk.receive(*answers, "PONG end-of-users") == [f"👥 100 here: {', '.join(crowd)}"]


@by_dialect
def test_a_ping_shows_its_time_and_a_keep_alive_nothing(dialect: str) -> None:
    pong = {"line": "PONG", "json": '{"type": "pong"}', "slash": "pong"}[dialect]
    talk = Talk(dialect)
    talk.conversation.ping()
    assert talk.sent() == talk.codec.encode(Ping(""))
    talk.ticking.seconds = 10.0
    assert talk.type("/ping") == []
    assert talk.conversation.unanswered_pings == 2
    talk.ticking.seconds = 10.25
    assert talk.receive(pong) == []
    assert talk.receive(pong) == ["🏓 The server answered in 250 ms"]
    assert talk.receive(pong) == []


@pytest.mark.parametrize(
    ("dialect", "line"),
    [
        ("json", '{"type": "user_joined", "username": "bob", "message": "bob joined the chat"}'),
        ("slash", "[join] bob has joined the chat."),
    ],
)
def test_a_join_is_shown_and_the_newcomer_is_known(dialect: str, line: str) -> None:
    talk = Talk(dialect)
    assert talk.receive(line) == ["🟢 bob joined the chat"]
    assert list(talk.conversation.others) == ["bob"]


def test_people_are_known_once_they_write_and_forgotten_when_they_leave() -> None:
    talk = Talk("line")
    talk.receive("MSG bob hi", "DM eve psst")
    assert list(talk.conversation.others) == ["bob", "eve"]
    talk.receive("INFO bob disconnected")
    assert list(talk.conversation.others) == ["eve"]


@pytest.mark.parametrize("text", ["malice", "alices", "al ice"])
def test_a_name_inside_another_word_is_not_a_mention(text: str) -> None:
    assert Talk().receive(f"MSG bob {text}") == [f"[12:00:00] bob: {text}"]


@pytest.mark.parametrize("text", ["alice", "ALICE!", "hey, Alice: look", "@alice"])
def test_a_mention_rings_in_any_spelling(text: str) -> None:
    assert Talk().receive(f"MSG bob {text}")[-1] == "*"


def test_help_and_invalid_input_send_nothing() -> None:
    talk = Talk("slash")
    assert talk.type("/help")[0] == "/help          show this list"
    assert talk.type("/foo") == ["! Unknown command /foo. /help lists the commands."]
    assert talk.type("//foo")[0].startswith("! The slash dialect treats every line that begins with /")
    assert talk.sent() == b""


def test_refusals_and_unknown_lines_are_shown() -> None:
    talk = Talk("line")
    talk.conversation.receive(Rejected(Rejection.USER_NOT_FOUND))
    talk.conversation.receive(Rejected(Rejection.NAME_TAKEN, "bob"))
    talk.conversation.receive(Rejected(Rejection.NAME_TAKEN))
    talk.conversation.receive(UnknownError("teapot"))
    talk.conversation.receive(UnknownLine("220 ready"))
    assert talk.terminal.shown() == [
        "! No such user. /users lists everyone online.",
        "! The name bob is taken.",
        "! The name alice is taken.",
        "! The server reports an error: teapot",
        "💡 220 ready",
    ]


@pytest.mark.parametrize("reason", [*Rejection, *ParseError])
def test_every_refusal_is_a_sentence(reason: Rejection | ParseError) -> None:
    text = rejection_text(reason, "bob")
    assert text[0].isupper()
    assert text.endswith(".")
    assert ("bob" in text) == reason.name.startswith(("NAME_", "ROOM_NAME_"))
