"""Deleting a message: permission, what remains, who receives a notice, and that a deleted text is not sent."""

from __future__ import annotations

from typing import Any

from geventchat.chat.commands import AskHistory, Delete, EnterRoom, Login, Say, SetModerator
from geventchat.chat.events import (
    Accepted,
    Action,
    HistoryPage,
    MessageDeleted,
    Missed,
    PastMessage,
    Rejected,
    Rejection,
    Said,
    Welcome,
)
from geventchat.chat.records import Act
from geventchat.chat.results import DONE, More, Pending
from geventchat.chat.sessions import Session
from tests.geventchat.moderated_chat import LOBBY, NOW_MS, ModeratedChat
from tests.geventchat.test_chat import NOW_S, Scene
from tests.geventchat.test_keeping import Keeper, again, keeping, talk


class Archive(Keeper):
    """Keeps messages, deletes them, and notes the acts."""

    def __init__(self) -> None:
        super().__init__()
        self.acts_noted: list[Act] = []

    def delete(self, room: str, id: int) -> None:
        kept = self.messages.get(room, [])
        self.messages[room] = [
            PastMessage(one.id, one.name, "", one.time_ms, deleted=True) if one.id == id else one
            for one in kept
        ]

    def audit(self, act: Act) -> None:
        self.acts_noted.append(act)


def done(result: Any) -> None:
    """Do the jobs and the parts of a command."""
    while result is not DONE:
        assert isinstance(result, Pending | More)
        result = result.finish(result.job()) if isinstance(result, Pending) else result.go_on()


def texts(page: object) -> list[tuple[int, str, bool]]:
    assert isinstance(page, HistoryPage)
    return [(one.id, one.text, one.deleted) for one in page.messages]


def test_the_place_of_a_message_stays_everyone_is_notified_and_the_act_is_noted():
    scene = ModeratedChat()
    alice = scene.login("alice", "dev")
    bob = scene.login("bob", "dev")
    bob.do(Say(["secret"]))
    bob.do(Say(["fine"]))
    told = MessageDeleted("dev", 1, NOW_MS)
    assert alice.do(Delete(1)) == [told, Accepted(Action.DELETED, "dev", "1")]
    assert bob.take() == [told]
    assert bob.do(AskHistory(9)) == [
        HistoryPage(
            "dev",
            [PastMessage(1, "bob", "", NOW_MS, deleted=True), PastMessage(2, "bob", "fine", NOW_MS)],
            more=False,
        )
    ]
    assert scene.storage.acts_noted[-1] == Act(NOW_MS, "alice", "delete", "dev", "1", "bob")
    assert "secret" not in repr(list(scene.room("dev").log.since(0)))


def test_deleting_again_has_the_same_answer_and_is_not_an_act():
    scene = ModeratedChat()
    alice = scene.login("alice", "dev")
    alice.do(Say(["secret"]))
    alice.do(Delete(1))
    acts = list(scene.storage.acts_noted)
    assert alice.do(Delete(1)) == [Accepted(Action.DELETED, "dev", "1")]
    assert scene.storage.acts_noted == acts


def test_only_those_who_moderate_a_room_delete_and_in_the_lobby_only_operators():
    scene = ModeratedChat()
    alice = scene.login("alice", "dev")
    bob = scene.login("bob", "dev")
    mia = scene.login("mia", "dev", account=True)
    bob.do(Say(["mine"]))
    assert bob.refused(Delete(1)) is Rejection.NOT_PERMITTED, "not even the author"
    assert bob.refused(Delete(9)) is Rejection.NOT_PERMITTED
    assert mia.refused(Delete(1)) is Rejection.NOT_PERMITTED
    alice.do(SetModerator("mia", on=True))
    assert mia.do(Delete(1))[-1] == Accepted(Action.DELETED, "dev", "1")
    alice.enters(LOBBY)
    alice.do(Say(["hi"]))
    assert alice.refused(Delete(1)) is Rejection.NOT_PERMITTED
    operator = scene.login("op", account=True)
    assert operator.do(Delete(1))[-1] == Accepted(Action.DELETED, LOBBY, "1")
    assert scene.storage.acts_noted[-1] == Act(NOW_MS, "op", "delete", "", "1", "alice")


def test_an_id_that_no_message_has_is_refused():
    scene = ModeratedChat(history_messages=2)
    alice = scene.login("alice", "dev")
    for text in ("one", "two", "three"):
        alice.do(Say([text]))
    for missing in (0, 1, 4, 10**15):
        assert alice.do(Delete(missing)) == [Rejected(Rejection.NO_SUCH_MESSAGE, str(missing))]
    assert alice.do(Delete(2))[-1] == Accepted(Action.DELETED, "dev", "2")


def test_nothing_is_deleted_while_the_storage_is_behind():
    scene = ModeratedChat()
    alice = scene.login("alice", "dev")
    alice.do(Say(["secret"]))
    alice.take()
    scene.storage.ready = False
    assert scene.chat.handle(alice.session, Delete(1)).gate is scene.room("dev").gate  # type: ignore[union-attr]
    assert alice.take() == []


# --- With a storage --------------------------------------------------------------------------------------------------


def owned(scene: Scene, name: str = "ann") -> tuple[Session, Any]:
    """The owner of `dev`."""
    session, subscriber = scene.login(name)
    assert scene.chat.handle(session, EnterRoom("dev")) is DONE
    subscriber.take()
    return session, subscriber


def archived(messages: int = 5, **limits: int) -> tuple[Scene, Archive, Session, Any]:
    """A room of which only the storage has the messages."""
    keeper = Archive()
    scene = keeping(keeper, **limits)
    session, _ = owned(scene)
    talk(scene, session, messages)
    scene = again(keeper, **limits)
    keeper.reads = 0
    session, subscriber = owned(scene)
    return scene, keeper, session, subscriber


def test_a_message_that_only_the_storage_has_is_deleted_there():
    scene, keeper, session, subscriber = archived()
    keeper.acts_noted.clear()
    done(scene.chat.handle(session, Delete(2)))
    now_ms = int(NOW_S * 1000)
    assert subscriber.take() == [MessageDeleted("dev", 2, now_ms), Accepted(Action.DELETED, "dev", "2")]
    assert keeper.acts_noted == [Act(now_ms, "ann", "delete", "dev", "2", "ann")]
    done(scene.chat.handle(session, AskHistory(2, before=4)))
    assert texts(*subscriber.take()) == [(2, "", True), (3, "text 2", False)]
    done(scene.chat.handle(session, Delete(2)))
    assert subscriber.take() == [Accepted(Action.DELETED, "dev", "2")]
    # Ids can skip, and the oldest messages do not stay.
    del keeper.messages["dev"][3]
    for missing in (0, 4, 6):
        done(scene.chat.handle(session, Delete(missing)))
        assert subscriber.take() == [Rejected(Rejection.NO_SUCH_MESSAGE, str(missing))]


def test_who_may_not_delete_makes_the_storage_read_nothing():
    scene, keeper, _, _ = archived()
    guest, subscriber = scene.login("bob")
    assert scene.chat.handle(guest, EnterRoom("dev")) is DONE
    subscriber.take()
    assert scene.chat.handle(guest, Delete(2)) is DONE
    assert subscriber.take() == [Rejected(Rejection.NOT_PERMITTED)]
    assert keeper.reads == 0


def test_the_permission_to_delete_is_checked_again_when_the_storage_answers():
    scene, keeper, session, subscriber = archived()
    pending = scene.chat.handle(session, Delete(2))
    assert isinstance(pending, Pending)
    found = pending.job()
    room = session.room
    assert room is not None
    scene.chat._owners.release(room)
    assert pending.finish(found) is DONE
    assert subscriber.take() == [Rejected(Rejection.NOT_PERMITTED)]
    assert scene.chat.handle(session, EnterRoom(LOBBY)) is DONE
    subscriber.take()
    assert pending.finish(found) is DONE
    assert subscriber.take() == [Rejected(Rejection.NOT_IN_ROOM, "dev")]
    assert keeper.messages["dev"][1].text == "text 1"


def test_a_page_that_was_read_before_a_deletion_is_read_again():
    scene, _, session, _ = archived()
    reader, received = scene.login("bob")
    assert scene.chat.handle(reader, EnterRoom("dev")) is DONE
    received.take()
    pending = scene.chat.handle(reader, AskHistory(9))
    assert isinstance(pending, Pending)
    page = pending.job()
    done(scene.chat.handle(session, Delete(2)))
    received.take()
    done(pending.finish(page))
    assert texts(*received.take())[1] == (2, "", True)


def coming_back(scene: Scene) -> tuple[Session, Any, Any]:
    """A client that has missed everything; its login reads the storage."""
    reader, received = scene.connect()
    login = Login("reader", (EnterRoom("dev", after=0),))
    pending = scene.chat.handle(reader, login)
    assert isinstance(pending, Pending)
    return reader, received, pending


def said(received: Any) -> list[Any]:
    events: list[Any] = []
    for event in received.take():
        events += event.events if isinstance(event, Missed) else [event]
    return [
        (one.first_id, list(one.texts)) if isinstance(one, Said) else one
        for one in events
        if not isinstance(one, Welcome)
    ]


def test_a_text_that_is_deleted_while_a_login_reads_is_not_sent():
    scene, _, session, _ = archived()
    _, received, pending = coming_back(scene)
    earlier = pending.job()
    done(scene.chat.handle(session, Delete(2)))
    done(pending.finish(earlier))
    assert said(received)[:3] == [(1, ["text 0"]), (2, [""]), (3, ["text 2"])]


def test_a_text_that_is_deleted_during_a_replay_is_not_sent():
    scene, _, session, _ = archived(messages=5)
    reader, received, pending = coming_back(scene)
    more = pending.finish(pending.job())
    assert isinstance(more, More)
    done(scene.chat.handle(session, Delete(2)))
    done(more)
    told = MessageDeleted("dev", 2, int(NOW_S * 1000))
    assert said(received) == [
        (1, ["text 0"]),
        (2, [""]),
        (3, ["text 2"]),
        (4, ["text 3"]),
        (5, ["text 4"]),
        told,
    ]
    assert reader.name is not None


def test_a_text_that_has_been_replayed_already_is_followed_by_its_deletion():
    keeper = Archive()
    scene = keeping(keeper)
    session, _ = owned(scene)
    for _ in range(40):
        assert scene.chat.handle(session, Say(["x" * 1_000])) is DONE
    reader, received = scene.connect()
    more = scene.chat.handle(reader, Login("reader", (EnterRoom("dev", after=0),)))
    assert isinstance(more, More)
    more = more.go_on()
    assert isinstance(more, More), "there is a second part"
    before = said(received)
    for id in (1, 40):
        done(scene.chat.handle(session, Delete(id)))
    done(more)
    after = said(received)
    now_ms = int(NOW_S * 1000)
    assert before[0] == (1, ["x" * 1_000])
    assert after[-3:] == [(40, [""]), MessageDeleted("dev", 1, now_ms), MessageDeleted("dev", 40, now_ms)]
