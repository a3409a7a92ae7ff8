"""A client is sent in parts what it missed, and is then subscribed: no event is lost, and none comes twice."""

from __future__ import annotations

import pytest

from geventchat.chat.chat import DONE, LEAVE, More, Session
from geventchat.chat.commands import AskHistory, EnterRoom, Ignore, LeaveRoom, Login, Say, SetTopic
from geventchat.chat.events import (
    Broadcast,
    Entered,
    Event,
    HistoryPage,
    Joined,
    Left,
    Missed,
    Said,
    TopicChanged,
    Welcome,
)
from tests.geventchat.recording import RecordingSubscriber
from tests.geventchat.test_chat import Scene


class Returning:
    """A client that comes back to a room with many messages, part by part."""

    def __init__(self, scene: Scene, after: int, name: str = "reader") -> None:
        self.scene = scene
        self.session, self.subscriber = scene.connect()
        self.result = scene.chat.handle(self.session, Login(name, (EnterRoom("lobby", after=after),)))
        (welcome,) = self.subscriber.take()
        assert isinstance(welcome, Welcome)
        self.entered: Entered = welcome.rooms[0]
        self.heard: list[Event] = []
        self.parts = 0

    def go_on(self) -> None:
        assert isinstance(self.result, More)
        self.result = self.result.go_on()
        self.parts += 1
        self._take()

    def finish(self) -> None:
        while self.result is not DONE:
            self.go_on()

    def _take(self) -> None:
        for event in self.subscriber.take():
            self.heard += event.events if isinstance(event, Missed) else [event]

    def ids(self) -> list[int]:
        self._take()
        return [
            said.first_id + n for said in self.heard if isinstance(said, Said) for n in range(len(said.texts))
        ]


def talk(scene: Scene, session: Session, messages: int, text: str = "x" * 1_000) -> None:
    for _ in range(messages):
        assert scene.chat.handle(session, Say([text])) is DONE


def logged_in(scene: Scene, name: str = "talker") -> tuple[Session, RecordingSubscriber]:
    return scene.login(name)


def test_a_client_that_has_missed_nothing_hears_the_room_at_once(scene_of_talk: tuple[Scene, Session]):
    scene, talker = scene_of_talk
    reader = Returning(scene, after=200)
    assert reader.result is DONE
    assert (reader.entered.last_id, reader.entered.replay_from) == (200, 201)
    talk(scene, talker, 1)
    assert reader.ids() == [201]


def test_what_was_missed_comes_in_bounded_parts_and_only_then_the_room_is_heard(scene_of_talk):
    scene, talker = scene_of_talk
    reader = Returning(scene, after=50)
    assert (reader.entered.last_id, reader.entered.replay_from) == (200, 51)
    while reader.result is not DONE:
        before = len(reader.ids())
        reader.go_on()
        assert sum(len(e.texts[0]) for e in reader.heard[before:] if isinstance(e, Said)) <= 34_000
        # Messages that come meanwhile are received in their turn.
        if reader.parts < 3:
            talk(scene, talker, 2)
    assert reader.parts == 6
    talk(scene, talker, 1)
    assert reader.ids() == list(range(51, 206))


def test_at_most_the_latest_thousand_messages_are_replayed():
    scene = Scene(history_messages=30)
    talker, _ = logged_in(scene)
    talk(scene, talker, 100, "short")
    reader = Returning(scene, after=0)
    assert (reader.entered.last_id, reader.entered.replay_from) == (100, 71)
    reader.finish()
    assert reader.ids() == list(range(71, 101))


def test_that_others_catch_up_does_not_let_the_next_one_have_more():
    scene = Scene(history_messages=30)
    talker, _ = logged_in(scene)
    talk(scene, talker, 100, "short")
    first = Returning(scene, after=0, name="first")
    talk(scene, talker, 20, "short")
    second = Returning(scene, after=0, name="second")
    assert second.entered.replay_from == 91
    first.finish()
    second.finish()
    assert first.ids() == list(range(71, 121))
    assert second.ids() == list(range(91, 121))


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 6, 100])
def test_a_part_of_what_one_event_said_can_have_been_seen(after: int):
    scene = Scene()
    talker, _ = logged_in(scene)
    assert scene.chat.handle(talker, Say(["a", "b", "c"])) is DONE
    assert scene.chat.handle(talker, Say(["d", "e"])) is DONE
    reader = Returning(scene, after)
    assert reader.entered.replay_from == min(after, 5) + 1
    reader.finish()
    assert reader.ids() == list(range(min(after, 5) + 1, 6))


def test_who_comes_and_goes_meanwhile_is_heard_in_order(scene_of_talk):
    scene, talker = scene_of_talk
    first = Returning(scene, after=0, name="first")
    first.go_on()
    reader = Returning(scene, after=0)
    assert list(reader.entered.users) == ["talker", "first", "reader"]
    reader.go_on()
    other, _ = scene.connect()
    assert scene.chat.handle(other, Login("other")) is DONE
    assert scene.chat.handle(talker, SetTopic("tea")) is DONE
    scene.chat.leave(other)
    talk(scene, talker, 1)
    reader.finish()
    others: list[Broadcast] = [event for event in reader.heard if not isinstance(event, Said)]
    assert [type(event) for event in others] == [Joined, TopicChanged, Left]
    assert reader.ids() == list(range(1, 202))
    # The one that began earlier does not know of the second reader.
    first.finish()
    assert [type(event) for event in first.heard if not isinstance(event, Said)] == [
        *(Joined, Joined, TopicChanged, Left)
    ]
    assert first.ids() == list(range(1, 202))
    assert all(isinstance(event, Said) for event in scene.chat.lobby.log.since(scene.chat.lobby.log.start))


def test_a_client_that_leaves_in_the_middle_is_forgotten(scene_of_talk):
    scene, _ = scene_of_talk
    reader = Returning(scene, after=0)
    reader.go_on()
    scene.chat.leave(reader.session)
    assert scene.chat.lobby.log.followers == 0
    assert list(scene.chat.lobby.names) == ["talker"]


def test_a_client_that_cannot_follow_is_disconnected_and_has_no_gap():
    scene = Scene(history_messages=50)
    talker, _ = logged_in(scene)
    talk(scene, talker, 50)
    reader = Returning(scene, after=0)
    reader.go_on()
    received = reader.ids()
    talk(scene, talker, 100)
    reader.go_on()
    assert reader.result is LEAVE
    assert reader.session.name is None
    assert reader.ids() == received == list(range(1, len(received) + 1))
    assert scene.chat.lobby.log.followers == 0


def test_a_client_that_has_lost_a_part_of_joined_messages_is_disconnected_too():
    scene = Scene(history_messages=10)
    talker, _ = logged_in(scene)
    for first in (1, 6):
        assert scene.chat.handle(talker, Say([f"text {first + n}" for n in range(5)])) is DONE
    reader = Returning(scene, after=0)
    assert reader.entered.replay_from == 1
    # Two of the first five are forgotten: while it is read, the log keeps twice as many.
    talk(scene, talker, 12)
    reader.go_on()
    assert reader.result is LEAVE
    assert reader.ids() == []


def test_other_rooms_are_heard_while_one_is_replayed(scene_of_talk):
    scene, _ = scene_of_talk
    reader = Returning(scene, after=0)
    other, _ = scene.connect()
    assert scene.chat.handle(other, Login("other")) is DONE
    assert scene.chat.handle(other, EnterRoom("dev")) is DONE
    # Its own commands wait until the replay is over; others cannot move it, so it enters by hand.
    reader.session.go_to(scene.chat.rooms.find("dev"))
    reader.subscriber.take()
    assert scene.chat.handle(other, Say(["in dev"])) is DONE
    assert [event.texts for event in reader.subscriber.take()] == [["in dev"]]
    reader.finish()
    assert reader.ids() == list(range(1, 201))


def test_a_room_that_is_left_is_not_replayed_any_more(scene_of_talk):
    scene, _ = scene_of_talk
    reader = Returning(scene, after=0)
    reader.go_on()
    assert scene.chat.handle(reader.session, LeaveRoom("lobby")) is DONE
    heard = len(reader.ids())
    reader.finish()
    assert len(reader.ids()) == heard
    assert scene.chat.lobby.log.followers == 0


def test_an_ignored_person_is_neither_in_what_was_missed_nor_in_the_history(scene_of_talk):
    scene, talker = scene_of_talk
    reader = Returning(scene, after=200)
    other, _ = scene.login("other")
    reader.subscriber.take()
    assert scene.chat.handle(reader.session, Ignore("talker", on=True)) is DONE
    assert scene.chat.handle(reader.session, LeaveRoom("lobby")) is DONE
    assert scene.chat.handle(talker, Say(["not for all"])) is DONE
    assert scene.chat.handle(other, Say(["for all"])) is DONE
    reader.subscriber.take()
    reader.result = scene.chat.handle(reader.session, EnterRoom("lobby", after=200))
    reader.subscriber.take()
    # Messages before it hears the room leave no hole elsewhere.
    assert scene.chat.handle(talker, Say(["meanwhile"])) is DONE
    reader.finish()
    assert [said.texts for said in reader.heard if isinstance(said, Said)] == [["for all"]]
    assert scene.chat.handle(reader.session, AskHistory(2)) is DONE
    (page,) = reader.subscriber.take()
    assert isinstance(page, HistoryPage)
    assert [message.text for message in page.messages] == ["for all"]


@pytest.fixture
def scene_of_talk() -> tuple[Scene, Session]:
    """A room with 200 messages of 1,000 characters."""
    scene = Scene()
    talker, _ = logged_in(scene)
    talk(scene, talker, 200)
    return scene, talker
