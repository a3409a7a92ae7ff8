"""Ignoring: what the listener does not hear, what the ignored person notices, and what it costs."""

from __future__ import annotations

import pytest

from geventchat.chat.commands import (
    AnnounceTyping,
    AskHistory,
    EnterRoom,
    Ignore,
    Invite,
    LeaveRoom,
    Login,
    Quit,
    Register,
    Say,
    SendDirectMessage,
    SetTopic,
)
from geventchat.chat.events import (
    Accepted,
    Action,
    Departure,
    DirectMessage,
    DirectMessageSent,
    HistoryPage,
    Left,
    MessageKept,
    Missed,
    Rejection,
    Said,
    TopicChanged,
    Typing,
    Welcome,
)
from geventchat.chat.passwords import Secret
from geventchat.chat.records import AccountRecord
from geventchat.chat.results import More, Pending
from tests.geventchat.moderated_chat import LOBBY, NOW_MS, Client, ModeratedChat
from tests.geventchat.recording import RecordingSubscriber


@pytest.fixture
def scene() -> ModeratedChat:
    return ModeratedChat()


@pytest.fixture
def alice(scene: ModeratedChat) -> Client:
    return scene.login("alice")


@pytest.fixture
def bob(scene: ModeratedChat, alice: Client) -> Client:
    """A user that alice ignores."""
    bob = scene.login("bob")
    assert alice.do(Ignore("BOB", on=True)) == [Accepted(Action.IGNORED, "", "bob")]
    return bob


def said(name: str, text: str, number: int, room: str = LOBBY) -> Said:
    return Said(room, name, [text], number, NOW_MS)


def test_what_an_ignored_person_says_is_heard_by_everyone_else(scene, alice, bob):
    carol = scene.login("carol")
    alice.take()
    bob.do(Say(["one"]))
    carol.do(Say(["two"]))
    bob.do(Say(["three"]))
    assert alice.take() == [said("carol", "two", 2)]
    assert carol.take() == [said("bob", "three", 3)]
    assert bob.take() == []


def test_the_ignored_person_is_not_notified_and_hears_the_other(scene, alice, bob):
    assert bob.take() == []
    alice.do(Say(["hi"]))
    assert bob.take() == [said("alice", "hi", 1)]


def test_a_direct_message_of_an_ignored_person_looks_delivered(scene, alice, bob):
    alice.subscriber.stranger_gate.open = False
    message = DirectMessage("bob", "alice", "psst", NOW_MS)
    assert bob.do(SendDirectMessage("alice", "psst")) == [DirectMessageSent(message, "alice")]
    assert alice.take() == []
    alice.do(SendDirectMessage("bob", "no"))
    assert bob.take() == [DirectMessage("alice", "bob", "no", NOW_MS)]


def test_an_invitation_of_an_ignored_person_is_not_heard(scene, alice, bob):
    bob.enters("dev")
    alice.take()
    assert bob.succeeds(Invite("alice")) is Action.INVITED
    assert alice.take() == []


def test_comings_goings_and_topics_of_an_ignored_person_are_heard(scene, alice, bob):
    bob.do(SetTopic("news"))
    bob.do(Quit())
    assert alice.take() == [
        TopicChanged(LOBBY, "bob", "news", NOW_MS),
        Left(LOBBY, "bob", NOW_MS, Departure.DISCONNECTED),
    ]


def test_after_unignore_messages_are_delivered_again(scene, alice, bob):
    assert alice.do(Ignore("Bob", on=False)) == [Accepted(Action.HEARD_AGAIN, "", "Bob")]
    bob.do(Say(["hi"]))
    assert alice.take() == [said("bob", "hi", 1)]
    assert alice.refused(Ignore("bob", on=False)) is Rejection.USER_NOT_FOUND


def test_a_name_stays_ignored_when_its_holder_changes(scene, alice, bob):
    bob.do(Quit())
    again = scene.login("Bob")
    alice.take()
    again.do(Say(["hi"]))
    assert alice.take() == []
    again.do(Quit())
    alice.do(Ignore("bob", on=False))


def test_yourself_and_absent_people_cannot_be_ignored(alice):
    assert alice.refused(Ignore("Alice", on=True)) is Rejection.NOT_PERMITTED
    assert alice.refused(Ignore("absent", on=True)) is Rejection.USER_NOT_FOUND


def test_ignoring_someone_in_another_room_hides_nothing_here(scene, alice, bob):
    """The hole is only for clients that hear the room at all."""
    carol = scene.login("carol", "dev")
    bob.enters("dev")
    alice.do(Say(["before"]))
    alice.subscriber.received.append("kept")
    bob.do(Say(["hi"]))
    assert alice.subscriber.received == ["kept"]
    assert carol.take()[-1] == said("bob", "hi", 1, "dev")


def test_someone_in_many_rooms_ignores_in_each_of_them(scene, bob):
    dave = scene.login("dave", many=True)
    dave.enters("dev")
    bob.enters("dev")
    dave.do(Ignore("bob", on=True))
    bob.do(Say(["hi"]))
    bob.do(LeaveRoom())
    dave.take()
    bob.do(Say(["hi"]))
    assert dave.take() == []


def test_ignoring_twice_is_ignoring_once(alice, bob):
    alice.do(Ignore("bob", on=True))
    alice.do(Ignore("bob", on=False))
    bob.do(Say(["hi"]))
    assert alice.take() == [said("bob", "hi", 1)]


def test_one_client_ignores_a_limited_number_of_names():
    scene = ModeratedChat(ignored=2)
    alice = scene.login("alice")
    for name in ("a", "b", "c"):
        scene.login(name)
    alice.take()
    for name in ("a", "b", "a"):
        assert alice.succeeds(Ignore(name, on=True)) is Action.IGNORED
    assert alice.refused(Ignore("c", on=True)) is Rejection.LIST_FULL
    alice.do(Ignore("a", on=False))
    assert alice.succeeds(Ignore("c", on=True)) is Action.IGNORED


def test_a_client_that_leaves_is_forgotten(scene, alice, bob):
    ignores = scene.chat._ignores
    alice.do(Quit())
    assert "bob" not in ignores
    assert not ignores._listeners
    scene.login("alice")
    bob.do(Say(["hi"]))
    assert bob.session.cost_bytes == 0


def test_only_the_ignored_person_pays_for_the_holes(scene, alice, bob):
    for number in range(9):
        other = scene.login(f"l{number}")
        other.do(Ignore("bob", on=True))
    bob.do(Say(["hi", "again"]))
    assert bob.session.cost_bytes == 10 * 4
    alice.do(Say(["hi"]))
    assert alice.session.cost_bytes == 0


def test_a_client_that_has_not_logged_in_can_ignore_no_one(scene, bob):
    assert scene.connect().refused(Ignore("bob", on=True)) is Rejection.NOT_LOGGED_IN


def test_whether_an_ignored_person_is_typing_is_not_heard(scene, alice, bob):
    carol = scene.login("carol")
    alice.take()
    bob.do(AnnounceTyping())
    assert alice.take() == []
    assert carol.take() == [Typing(LOBBY, "bob", NOW_MS)]


# --- Earlier messages ------------------------------------------------------------------------------------------------


def history(client: Client, limit: int, before: int | None = None) -> tuple[list[str], bool]:
    """The texts of a page, and whether there is more."""
    (page,) = client.do(AskHistory(limit, before))
    assert isinstance(page, HistoryPage)
    return [message.text for message in page.messages], page.more


def test_the_history_leaves_out_what_an_ignored_person_said(scene, alice, bob):
    carol = scene.login("carol")
    for number in range(3):
        bob.do(Say([f"hidden {number}"]))
        carol.do(Say([f"seen {number}"]))
    assert history(alice, 20) == (["seen 0", "seen 1", "seen 2"], False)
    assert history(alice, 2) == (["seen 2"], True)
    assert history(carol, 2) == (["hidden 2", "seen 2"], True)
    alice.do(Ignore("bob", on=False))
    assert history(alice, 2) == (["hidden 2", "seen 2"], True)


def test_a_page_of_history_is_empty_only_if_no_page_follows(scene, alice, bob):
    """The next page is asked for by an id of this one."""
    carol = scene.login("carol")
    carol.do(Say(["first"]))
    for number in range(50):
        bob.do(Say([f"hidden {number}"]))
    assert history(alice, 3) == (["first"], False)
    assert history(alice, 1) == (["first"], False)
    assert history(alice, 0) == ([], True)
    assert history(alice, 3, before=1) == ([], False)


def test_a_history_of_ignored_people_alone_is_empty_and_not_for_free(scene, alice, bob):
    bob.do(Say([f"text {number}" for number in range(100)]))
    assert history(alice, 20) == ([], False)
    assert alice.session.cost_bytes == 100 * 50 + 4 * 1_024


def test_what_an_ignored_person_said_is_not_replayed(scene, alice, bob):
    carol = scene.login("carol", "dev")
    dave = scene.login("dave", many=True)
    dave.do(Ignore("bob", on=True))
    bob.enters("dev")
    bob.do(Say(["hidden"]))
    carol.do(Say(["seen"]))
    entered, missed = dave.do(EnterRoom("dev", after=0))
    assert missed == Missed([said("carol", "seen", 2, "dev")])
    assert dave.session.cost_bytes == 50
    assert entered.last_id == 2


def test_while_someone_is_sent_what_was_missed_no_hole_is_made_elsewhere(scene, alice, bob):
    """A client that does not hear a room yet has no hole there; what happens meanwhile comes with the replay."""
    carol = scene.login("carol", "dev")
    carol.do(Say(["old"]))
    dave = scene.login("dave", many=True)
    dave.do(Ignore("bob", on=True))
    bob.enters("dev")
    more = scene.chat.handle(dave.session, EnterRoom("dev", after=0))
    carol.enters("ops")
    alice.do(Say(["in the lobby"]))
    dave.subscriber.received.append("kept")
    bob.do(Say(["hidden"]))
    assert dave.subscriber.received[-1] == "kept"
    while isinstance(more, More):
        more = more.go_on()
    events = [event for missed in dave.take() if isinstance(missed, Missed) for event in missed.events]
    assert [event.texts for event in events if isinstance(event, Said)] == [["old"]]


# --- Accounts --------------------------------------------------------------------------------------------------------


def saved_ignored(scene: ModeratedChat, account: str) -> tuple[str, ...]:
    records = [one for one in scene.storage.saved if isinstance(one, AccountRecord) and one.key == account]
    return records[-1].ignored if records else ()


def test_an_account_continues_to_ignore_accounts_and_no_one_else(scene):
    alice = scene.login("alice", account=True)
    scene.login("bob", account=True)
    guest = scene.login("guest")
    for who in ("guest", "bob"):
        alice.succeeds(Ignore(who, on=True))
    assert saved_ignored(scene, "alice") == ("bob",)
    alice.do(Quit())
    alice = scene.login("alice", account=True)
    assert alice.session.ignored == {"bob"}
    guest.do(Say(["hi"]))
    assert alice.take() == [said("guest", "hi", 1)]
    alice.succeeds(Ignore("bob", on=False))
    assert saved_ignored(scene, "alice") == ()


def test_somebody_who_registers_after_being_ignored_stays_ignored(scene):
    alice = scene.login("alice", account=True)
    bob = scene.login("bob")
    alice.succeeds(Ignore("bob", on=True))
    bob.do(Register(Secret("correct horse")))
    alice.do(Quit())
    assert saved_ignored(scene, "alice") == ("bob",)


def test_a_restart_and_a_replay_hide_whom_an_account_ignores(scene):
    alice = scene.login("alice", account=True)
    bob, carol = scene.login("bob", account=True), scene.login("carol")
    alice.succeeds(Ignore("bob", on=True))
    alice.do(Quit())
    for client in (bob, carol):
        client.do(Say(["hi"]))
    session = scene.connect(account="alice").session
    result = scene.chat.handle(session, Login("alice", (EnterRoom(LOBBY, after=0),)))
    while isinstance(result, More):
        result = result.go_on()
    assert isinstance(session.subscriber, RecordingSubscriber)
    heard = [event for event in session.subscriber.take() if isinstance(event, Missed)]
    assert [event for missed in heard for event in missed.events] == [said("carol", "hi", 2)]
    scene.chat.leave(session)
    scene.storage.save(AccountRecord("bob", "bob", "", last_login_ms=NOW_MS))
    again = ModeratedChat(storage=scene.storage.restarted())
    assert again.login("alice", account=True).session.ignored == {"bob"}


def test_messages_of_an_ignored_user_to_an_offline_account_are_not_delivered(scene):
    alice = scene.login("alice", account=True)
    bob, carol = scene.login("bob", account=True), scene.login("carol", account=True)
    alice.succeeds(Ignore("bob", on=True))
    alice.do(Quit())
    for client in (bob, carol):
        (kept,) = client.do(SendDirectMessage("alice", "hi"))
        assert isinstance(kept, MessageKept)
    (welcome, *mail) = scene.connect(account="alice").do(Login("alice"))
    assert isinstance(welcome, Welcome)
    assert mail == [DirectMessage("carol", "alice", "hi", NOW_MS)]
    assert not scene.storage.has_mail("alice")


def test_a_message_that_is_kept_while_its_recipient_comes_back_and_ignores_the_sender_is_not_delivered(scene):
    scene.login("alice", account=True).do(Quit())
    bob = scene.login("bob", account=True)
    pending = scene.chat.handle(bob.session, SendDirectMessage("alice", "hi"))
    assert isinstance(pending, Pending)
    alice = scene.login("alice", account=True)
    alice.succeeds(Ignore("bob", on=True))
    bob.take()
    pending.finish(pending.job())
    assert [type(event) for event in bob.take()] == [DirectMessageSent]
    assert alice.take() == []
    assert not scene.storage.has_mail("alice")
