"""The chat: permissions, order, and that a command refused as busy changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from geventchat.chat.chat import Chat
from geventchat.chat.commands import (
    AskHistory,
    Command,
    EnterRoom,
    Help,
    InvalidCommand,
    LeaveRoom,
    Login,
    ParseError,
    Ping,
    Quit,
    Say,
    SendDirectMessage,
    SetTopic,
    Who,
)
from geventchat.chat.events import (
    Accepted,
    Action,
    DirectMessage,
    DirectMessageSent,
    Event,
    Goodbye,
    HelpText,
    HistoryPage,
    Joined,
    Left,
    LoggedIn,
    LoggedOut,
    Observed,
    PastMessage,
    Pong,
    Rejected,
    Rejection,
    Roster,
    Said,
    TopicChanged,
    Welcome,
)
from geventchat.chat.results import DONE, LEAVE, Busy
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.chat.storage import Storage
from geventchat.settings import Limits
from tests.geventchat.recording import (
    RecordingAudiences,
    RecordingSubscriber,
    SwitchedGate,
    at_once,
    memory,
    tools,
)

LOBBY = "lobby"
NOW_S = 1_234_567_890.5
NOW_MS = 1_234_567_890_500


class Scene:
    """A chat with one audience, and its clients."""

    def __init__(
        self, storage: Storage | None = None, time: Callable[[], float] | None = None, **limits: int
    ) -> None:
        self.observed: list[Said | DirectMessage] = []
        self.presence: list[LoggedIn | LoggedOut | Joined | Left] = []
        self.gate = SwitchedGate()
        self.now_s = NOW_S
        # Rooms in which departures have to wait.
        self.announced_later: list[Room] = []
        self.chat = Chat(
            time or (lambda: self.now_s),
            new_gate=lambda delay_s: self.gate,
            storage=storage or memory(),
            in_thread=at_once,
            tools=tools(monotonic=lambda: self.now_s),
            announce_later=self.announced_later.append,
            limits=Limits(**{"contacts": 10, **limits}).chat,
            observer=self.observe,
        )
        self.audiences = RecordingAudiences()
        self.sessions: list[Session] = []

    def observe(self, event: Observed) -> None:
        # Arrivals and departures are seen by the people in the room.
        if isinstance(event, Said | DirectMessage):
            self.observed.append(event)
        elif isinstance(event, LoggedIn | LoggedOut | Joined | Left):
            self.presence.append(event)

    def connect(self) -> tuple[Session, RecordingSubscriber]:
        subscriber = RecordingSubscriber(self.audiences)
        session = Session(subscriber)
        self.sessions.append(session)
        return session, subscriber

    def login(self, name: str) -> tuple[Session, RecordingSubscriber]:
        session, subscriber = self.connect()
        assert self.chat.handle(session, Login(name)) is DONE
        subscriber.take()
        return session, subscriber

    def snapshot(self) -> object:
        """Everything that a command can change."""
        lobby = self.chat.lobby
        return (
            list(lobby.names),
            lobby.last_id,
            list(lobby._departures),
            dict(self.chat._sessions),
            [(session.name, dict(session.contacts or {})) for session in self.sessions],
            [list(session.subscriber.received) for session in self.sessions],
            [list(audience.members) for audience in self.audiences.audiences.values()],
            list(self.observed),
        )


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- Login -----------------------------------------------------------------------------------------------------------


def test_a_login_is_welcomed_and_announced_to_the_others(scene: Scene):
    _, alice = scene.login("Alice")
    session, bob = scene.connect()
    assert scene.chat.handle(session, Login("bob")) is DONE
    assert bob.take() == [Welcome(LOBBY, "bob", ("Alice", "bob"), NOW_MS)]
    assert alice.take() == [Joined(LOBBY, "bob", NOW_MS)]
    assert len(scene.chat) == 2


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", Rejection.NAME_LENGTH),
        ("a b", Rejection.NAME_INVALID),
        ("ALICE", Rejection.NAME_TAKEN),
        ("Ａｌｉｃｅ", Rejection.NAME_TAKEN),
    ],
)
def test_a_login_that_is_refused_leaves_the_client_outside(scene: Scene, typed: str, reason: Rejection):
    _, alice = scene.login("alice")
    session, other = scene.connect()
    assert scene.chat.handle(session, Login(typed)) is DONE
    assert other.take() == [Rejected(reason)]
    assert session.name is None
    assert alice.take() == []
    assert scene.chat.handle(session, Login("other")) is DONE
    assert session.name is not None


def test_a_second_login_is_refused(scene: Scene):
    session, alice = scene.login("alice")
    assert scene.chat.handle(session, Login("bob")) is DONE
    assert alice.take() == [Rejected(Rejection.ALREADY_LOGGED_IN)]
    assert list(scene.chat.lobby.names) == ["alice"]


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (Say(["hi"]), Rejected(Rejection.NOT_LOGGED_IN)),
        (SendDirectMessage("alice", "hi"), Rejected(Rejection.NOT_LOGGED_IN)),
        (Who(), Rejected(Rejection.NOT_LOGGED_IN)),
        (Ping("x"), Rejected(Rejection.NOT_LOGGED_IN)),
        (Help(), Rejected(Rejection.NOT_LOGGED_IN)),
        (InvalidCommand(ParseError.UNKNOWN_COMMAND, "x"), Rejected(Rejection.NOT_LOGGED_IN)),
        (InvalidCommand(ParseError.TOO_LONG), Rejected(ParseError.TOO_LONG)),
        (InvalidCommand(ParseError.NOT_UTF8), Rejected(ParseError.NOT_UTF8)),
        (InvalidCommand(ParseError.NOT_JSON), Rejected(ParseError.NOT_JSON)),
    ],
)
def test_before_login_only_logging_in_and_leaving_work(scene: Scene, command: Command, answer: Rejected):
    _, alice = scene.login("alice")
    session, unnamed = scene.connect()
    assert scene.chat.handle(session, command) is DONE
    assert unnamed.take() == [answer]
    assert alice.take() == []


def test_a_client_without_a_name_can_quit(scene: Scene):
    _, alice = scene.login("alice")
    session, unnamed = scene.connect()
    assert scene.chat.handle(session, Quit()) is LEAVE
    assert unnamed.take() == [Goodbye()]
    assert alice.take() == []


# --- Commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (Who(), Roster(("alice", "bob"), LOBBY, 2)),
        (Ping("x"), Pong("x")),
        (Help(), HelpText()),
        (InvalidCommand(ParseError.UNKNOWN_COMMAND, "x"), Rejected(ParseError.UNKNOWN_COMMAND, "x")),
        (Say([""]), Rejected(Rejection.EMPTY_MESSAGE)),
        (Say(["a", "", "b"]), Rejected(Rejection.EMPTY_MESSAGE)),
        (SendDirectMessage("bob", ""), Rejected(Rejection.EMPTY_DIRECT_MESSAGE)),
        (SendDirectMessage("", "hi"), Rejected(Rejection.NO_RECIPIENT)),
        (SendDirectMessage("", ""), Rejected(Rejection.EMPTY_DIRECT_MESSAGE)),
        (SendDirectMessage("carol", "hi"), Rejected(Rejection.USER_NOT_FOUND, "carol")),
        (SendDirectMessage("x" * 81, "hi"), Rejected(Rejection.USER_NOT_FOUND, "x" * 81)),
    ],
)
def test_an_answer_is_for_its_client_alone(scene: Scene, command: Command, answer: Event):
    session, alice = scene.login("alice")
    _, bob = scene.login("bob")
    alice.take()
    assert scene.chat.handle(session, command) is DONE
    assert alice.take() == [answer]
    assert bob.take() == []
    assert not scene.observed


def test_texts_have_consecutive_ids_across_speakers(scene: Scene):
    first, _ = scene.login("alice")
    second, bob = scene.login("bob")
    _, carol = scene.login("carol")
    bob.take()
    scene.chat.handle(first, Say(["one", "two"]))
    scene.chat.handle(first, Say([""]))
    scene.chat.handle(second, Say(["three"]))
    scene.chat.handle(first, Say(["four"]))
    said = [
        Said(LOBBY, "alice", ["one", "two"], 1, NOW_MS),
        Said(LOBBY, "bob", ["three"], 3, NOW_MS),
        Said(LOBBY, "alice", ["four"], 4, NOW_MS),
    ]
    assert carol.take() == said
    assert bob.take() == [said[0], said[2]]
    assert scene.observed == said


def test_a_direct_message_reaches_its_recipient_and_is_confirmed(scene: Scene):
    session, alice = scene.login("alice")
    _, bob = scene.login("Bob")
    _, carol = scene.login("carol")
    for subscriber in (alice, bob):
        subscriber.take()
    assert scene.chat.handle(session, SendDirectMessage("BOB", "psst")) is DONE
    message = DirectMessage("alice", "Bob", "psst", NOW_MS)
    assert alice.take() == [DirectMessageSent(message, "BOB")]
    assert bob.take() == [message]
    assert carol.take() == []
    assert scene.observed == [message]


def test_a_direct_message_to_oneself_is_confirmed_and_received_and_not_from_a_stranger(scene: Scene):
    session, alice = scene.login("alice")
    scene.chat.handle(session, SendDirectMessage("Alice", "note"))
    message = DirectMessage("alice", "alice", "note", NOW_MS)
    assert alice.take() == [DirectMessageSent(message, "Alice"), message]
    assert alice.strangers == [False]


# --- Leaving ---------------------------------------------------------------------------------------------------------


def test_quitting_says_goodbye_and_the_others_hear_of_it_once(scene: Scene):
    session, alice = scene.login("alice")
    _, bob = scene.login("bob")
    alice.take()
    assert scene.chat.handle(session, Quit()) is LEAVE
    scene.chat.leave(session)
    assert alice.take() == [Goodbye()]
    assert bob.take() == [Left(LOBBY, "alice", NOW_MS)]
    assert list(scene.chat.lobby.names) == ["bob"]
    assert len(scene.chat) == 1


def test_a_departure_happens_at_one_time_for_the_program():
    scene = Scene(time=count(NOW_S).__next__)
    session, _ = scene.login("alice")
    scene.login("bob")
    scene.presence.clear()
    scene.chat.leave(session)
    logged_out, left = scene.presence
    assert isinstance(logged_out, LoggedOut)
    assert isinstance(left, Left)
    assert logged_out.time_ms == left.time_ms


def test_a_name_is_free_as_soon_as_its_holder_has_left(scene: Scene):
    session, _ = scene.login("alice")
    scene.chat.leave(session)
    again, _ = scene.login("ALICE")
    assert again.name is not None


def test_departures_wait_while_the_gate_is_closed_and_come_before_the_name_is_used_again(scene: Scene):
    sessions = [scene.login(name)[0] for name in ("alice", "bob", "carol")]
    _, watcher = scene.login("watcher")
    scene.gate.open = False
    for session in sessions:
        scene.chat.leave(session)
    assert watcher.take() == []
    assert list(scene.chat.lobby.names) == ["watcher"]
    assert set(scene.announced_later) == {scene.chat.lobby}
    assert not scene.chat.lobby.announce_departures()
    scene.gate.open = True
    newcomer, _ = scene.connect()
    assert scene.chat.handle(newcomer, Login("bob")) is DONE
    assert watcher.take() == [Left(LOBBY, "bob", NOW_MS), Joined(LOBBY, "bob", NOW_MS)]
    assert scene.chat.lobby.announce_departures()
    assert watcher.take() == [Left(LOBBY, "alice", NOW_MS), Left(LOBBY, "carol", NOW_MS)]


def test_closing_is_silent(scene: Scene):
    session, alice = scene.login("alice")
    _, bob = scene.login("bob")
    alice.take()
    scene.chat.close(session)
    scene.chat.leave(session)
    assert alice.take() == bob.take() == []
    assert list(scene.chat.lobby.names) == ["bob"]
    assert [audience.members for audience in scene.audiences.audiences.values()] == [[bob]]


# --- Rooms -----------------------------------------------------------------------------------------------------------


def test_a_topic_has_a_limited_length(scene: Scene):
    session, alice = scene.login("alice")
    _, bob = scene.login("bob")
    alice.take()
    assert scene.chat.handle(session, SetTopic("x" * 300)) is DONE
    assert alice.take() == [Accepted(Action.TOPIC_SET, LOBBY, "x" * 300)]
    assert bob.take() == [TopicChanged(LOBBY, "alice", "x" * 300, NOW_MS)]
    assert scene.chat.handle(session, SetTopic("x" * 301)) is DONE
    assert alice.take() == [Rejected(Rejection.TOPIC_TOO_LONG)]
    assert bob.take() == []
    assert scene.chat.lobby.topic == "x" * 300


@pytest.mark.parametrize(
    ("limit", "before", "ids", "more"),
    [
        (2, None, [4, 5], True),
        (5, None, [1, 2, 3, 4, 5], False),
        (900, 4, [1, 2, 3], False),
        (2, 4, [2, 3], True),
        (2, 1, [], False),
        (0, None, [], True),
        (2, 10**9, [4, 5], True),
    ],
)
def test_a_page_of_history(scene: Scene, limit: int, before: int | None, ids: list[int], more: bool):
    session, alice = scene.login("alice")
    assert scene.chat.handle(session, Say(["1", "2", "3"])) is DONE
    assert scene.chat.handle(session, Say(["4", "5"])) is DONE
    alice.take()
    assert scene.chat.handle(session, AskHistory(limit, before)) is DONE
    messages = [PastMessage(id, "alice", f"{id}", NOW_MS) for id in ids]
    assert alice.take() == [HistoryPage(LOBBY, messages, more)]


def test_history_is_listed_in_pages_of_a_limited_length():
    scene = Scene(history_page_messages=3)
    session, alice = scene.login("alice")
    assert scene.chat.handle(session, Say([str(n) for n in range(10)])) is DONE
    alice.take()
    assert scene.chat.handle(session, AskHistory(1_000_000)) is DONE
    (page,) = alice.take()
    assert isinstance(page, HistoryPage)
    assert [message.id for message in page.messages] == [8, 9, 10]
    assert page.more


def test_a_page_of_history_has_a_limited_number_of_bytes():
    scene = Scene()
    session, alice = scene.login("alice")
    # Each counts 100 bytes besides its text, and this letter has two.
    each = 262_144 // 40 - 100
    assert scene.chat.handle(session, Say(["ä" * (each // 2)] * 50)) is DONE
    alice.take()
    for before, ids in ((None, range(11, 51)), (11, range(1, 11))):
        assert scene.chat.handle(session, AskHistory(200, before)) is DONE
        (page,) = alice.take()
        assert isinstance(page, HistoryPage)
        assert [message.id for message in page.messages] == list(ids)
        assert page.more == (before is None)


def test_a_page_of_history_has_a_message_however_long_it_is():
    scene = Scene()
    session, alice = scene.login("alice")
    assert scene.chat.handle(session, Say(["one", "x" * 300_000])) is DONE
    alice.take()
    for before, id in ((None, 2), (2, 1)):
        assert scene.chat.handle(session, AskHistory(200, before)) is DONE
        (page,) = alice.take()
        assert isinstance(page, HistoryPage)
        assert [message.id for message in page.messages] == [id]
        assert page.more == (id == 2)


@pytest.mark.parametrize("command", [EnterRoom("dev"), SetTopic("tea")], ids=["enter", "topic"])
def test_a_room_whose_gate_is_closed_is_busy(scene: Scene, command: Command):
    session, alice = scene.login("alice")
    other, _ = scene.login("bob")
    assert scene.chat.handle(other, EnterRoom("dev")) is DONE
    alice.take()
    scene.gate.open = False
    before = scene.snapshot()
    assert scene.chat.handle(session, command) == Busy(scene.gate)
    assert scene.snapshot() == before
    scene.gate.open = True
    assert scene.chat.handle(session, command) is DONE


def test_leaving_the_room_waits_for_the_gate_of_the_lobby(scene: Scene):
    session, alice = scene.login("alice")
    assert scene.chat.handle(session, EnterRoom("dev")) is DONE
    alice.take()
    scene.gate.open = False
    before = scene.snapshot()
    assert scene.chat.handle(session, LeaveRoom()) == Busy(scene.gate)
    assert scene.snapshot() == before


# --- Busy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [Say(["hi", "again"]), Login("dora")], ids=["say", "login"])
def test_a_command_refused_by_a_closed_gate_changes_nothing_and_works_later(scene: Scene, command: Command):
    session, _ = scene.login("alice") if isinstance(command, Say) else scene.connect()
    scene.login("bob")
    scene.gate.open = False
    before = scene.snapshot()
    for _ in range(3):
        result = scene.chat.handle(session, command)
        assert result == Busy(scene.gate)
        assert scene.snapshot() == before
    scene.gate.open = True
    assert scene.chat.handle(session, command) is DONE
    assert scene.snapshot() != before


@pytest.mark.parametrize("stranger", [True, False])
def test_a_direct_message_that_its_recipient_cannot_take_changes_nothing(scene: Scene, stranger: bool):
    session, alice = scene.login("alice")
    other, bob = scene.login("bob")
    if not stranger:
        scene.chat.handle(other, SendDirectMessage("alice", "hello"))
    gate = bob.stranger_gate if stranger else bob.contact_gate
    gate.open = False
    before = scene.snapshot()
    assert scene.chat.handle(session, SendDirectMessage("bob", "hi")) == Busy(gate)
    assert scene.snapshot() == before
    gate.open = True
    assert scene.chat.handle(session, SendDirectMessage("bob", "hi")) is DONE
    assert bob.strangers == [stranger]
    assert alice.strangers == ([] if stranger else [True])


@pytest.mark.parametrize(
    "command",
    [
        Ping("x"),
        Who(),
        Help(),
        Quit(),
        Login("again"),
        Say([""]),
        SendDirectMessage("absent", "hi"),
        InvalidCommand(ParseError.TOO_LONG),
    ],
    ids=lambda command: type(command).__name__,
)
def test_commands_that_concern_no_other_client_never_wait(scene: Scene, command: Command):
    session, alice = scene.login("alice")
    scene.gate.open = alice.stranger_gate.open = alice.contact_gate.open = False
    assert scene.chat.handle(session, command) in (DONE, LEAVE)
    assert alice.take()


def test_a_name_that_is_taken_or_invalid_is_refused_even_while_the_gate_is_closed(scene: Scene):
    scene.login("alice")
    scene.gate.open = False
    session, other = scene.connect()
    for typed in ("alice", "a b"):
        assert scene.chat.handle(session, Login(typed)) is DONE
    assert [type(event) for event in other.take()] == [Rejected, Rejected]


# --- Contacts --------------------------------------------------------------------------------------------------------


def test_a_person_you_have_written_to_is_not_a_stranger(scene: Scene):
    first, alice = scene.login("alice")
    second, bob = scene.login("bob")
    scene.chat.handle(first, SendDirectMessage("bob", "one"))
    scene.chat.handle(second, SendDirectMessage("alice", "two"))
    scene.chat.handle(first, SendDirectMessage("bob", "three"))
    assert bob.strangers == [True, False]
    assert alice.strangers == [False]


def test_the_oldest_contacts_are_forgotten():
    scene = Scene(contacts=2)
    session, reader = scene.login("reader")
    others = {name: scene.login(name)[0] for name in ("a", "b", "c")}
    for name in ("a", "b", "a", "c"):
        scene.chat.handle(session, SendDirectMessage(name, "hello"))
    assert list(session.contacts) == ["a", "c"], (
        "the latest last, and a recipient who was written to again moves to the end"
    )
    for other in others.values():
        scene.chat.handle(other, SendDirectMessage("reader", "hello"))
    assert reader.strangers == [False, True, False]


def test_contacts_are_by_name_and_survive_its_holder(scene: Scene):
    session, reader = scene.login("reader")
    first, _ = scene.login("Bob")
    scene.chat.handle(session, SendDirectMessage("bob", "hello"))
    scene.chat.leave(first)
    second, _ = scene.login("BOB")
    scene.chat.handle(second, SendDirectMessage("reader", "hello"))
    assert reader.strangers == [False]
