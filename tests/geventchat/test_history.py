"""The log of a room: its limits, its pages, and the room's other events while someone reads it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from geventchat.chat.events import Broadcast, Joined, PastMessage, Said
from geventchat.chat.history import History, RoomLog, _size
from geventchat.settings import Limits
from tests.geventchat.recording import memory


def history(messages: int = 10, kbytes: int = 100, total_kbytes: int = 1_000) -> History:
    limits = Limits(
        history_messages=messages, history_bytes=kbytes * 1024, history_total_bytes=total_kbytes * 1024
    )
    return History(limits.chat, memory())


class Writer:
    """Says texts in one room, and keeps its log."""

    def __init__(self, kept: History) -> None:
        self.kept = kept
        self.log = RoomLog()
        self.last_id = 0

    def say(self, *texts: str) -> None:
        self.kept.add("dev", self.log, Said("dev", "ann", texts, self.last_id + 1, self.last_id))
        self.last_id += len(texts)

    def ids(self) -> list[int]:
        return [message.id for message in self.log.before(10**9, 10**9)]


@pytest.mark.parametrize("texts", [["a"], ["a", "b", "c"], ["a"] * 7])
def test_the_latest_messages_are_kept_to_the_number(texts: Sequence[str]):
    writer = Writer(history(messages=10))
    for _ in range(20):
        writer.say(*texts)
        assert writer.ids() == list(range(max(0, writer.last_id - 10) + 1, writer.last_id + 1))
        assert writer.log.messages == len(writer.ids())
        assert writer.log.first_id in (0, writer.ids()[0])
    assert writer.log.first_id == writer.last_id - 9


def test_a_page_holds_the_messages_before_an_id_oldest_first():
    writer = Writer(history())
    writer.say("a", "b", "c")
    writer.say("d")
    writer.say("e", "f")
    assert [(m.id, m.text, m.time_ms) for m in writer.log.before(6, 3)] == [
        (3, "c", 0),
        (4, "d", 3),
        (5, "e", 4),
    ]
    assert [m.id for m in writer.log.before(3, 200)] == [1, 2]
    assert writer.log.before(1, 200) == []
    assert writer.log.before(6, 0) == []


def test_the_bytes_of_a_room_are_limited():
    writer = Writer(history(messages=1_000, kbytes=10))
    for _ in range(100):
        writer.say("x" * 1_000)
        assert writer.log.bytes <= 10 * 1024
    assert len(writer.ids()) == 7
    writer.say("x" * 20_000)
    assert writer.ids() == []
    assert writer.log.first_id == writer.last_id + 1
    assert writer.kept.bytes == writer.log.bytes == 0


def test_the_quietest_room_makes_way_when_all_rooms_together_have_too_much():
    kept = history(messages=1_000, kbytes=50, total_kbytes=100)
    quiet, middle, loud = Writer(kept), Writer(kept), Writer(kept)
    for writer in (quiet, middle):
        for _ in range(30):
            writer.say("x" * 1_000)
    whole = middle.ids()
    for _ in range(200):
        loud.say("x" * 1_000)
        assert kept.bytes <= 100 * 1024
        assert kept.bytes == quiet.log.bytes + middle.log.bytes + loud.log.bytes
    assert len(quiet.ids()) < 30
    assert middle.ids() == whole
    assert len(loud.ids()) > 30


def test_a_deleted_message_keeps_its_place():
    writer = Writer(history())
    writer.say("a", "secret", "c")
    before = writer.kept.bytes
    deletions = writer.log.deletions
    writer.kept.delete("dev", writer.log, 2)
    assert writer.log.deletions == deletions + 1, "so that what was read before it is read again"
    assert writer.log.find(2) == PastMessage(2, "ann", "", 0, deleted=True)
    assert writer.log.find(4) is None
    assert [(m.id, m.text, m.deleted) for m in writer.log.before(9, 9)] == [
        (1, "a", False),
        (2, "", True),
        (3, "c", False),
    ]
    assert writer.kept.bytes == writer.log.bytes == before - len("secret")
    for missing in (0, 2, 4):
        writer.kept.delete("dev", writer.log, missing)
        assert writer.kept.bytes == writer.log.bytes == before - len("secret")
        assert writer.log.messages == 3


def test_other_events_are_kept_while_someone_follows():
    writer = Writer(history())
    writer.say("a")
    writer.log.follow()
    writer.log.follow()
    position = writer.log.position_after(0)
    joined = Joined("dev", "bob", 0)
    writer.kept.add("dev", writer.log, joined)
    writer.say("b")
    events: list[Broadcast] = list(writer.log.since(position))
    assert [type(event) for event in events] == [Said, Joined, Said]
    assert [m.id for m in writer.log.before(9, 9)] == [1, 2]
    writer.kept.unfollow(writer.log)
    assert writer.log.end == 3
    writer.kept.unfollow(writer.log)
    assert [type(event) for event in writer.log.since(writer.log.start)] == [Said, Said]
    assert writer.kept.bytes == writer.log.bytes == sum(map(_size, writer.log.since(writer.log.start)))


def test_a_position_is_where_the_missed_messages_begin():
    writer = Writer(history())
    writer.say("a", "b", "c")
    writer.say("d")
    assert [writer.log.position_after(id) for id in range(6)] == [0, 0, 0, 1, 2, 2]


def test_a_follower_that_is_too_slow_finds_its_position_gone():
    writer = Writer(history(messages=3))
    writer.log.follow()
    position = writer.log.end
    for _ in range(6):
        writer.say("x")
    assert position == writer.log.start
    writer.say("x")
    assert position < writer.log.start


def test_the_message_before_the_latest_ones_is_found_within_those_said_together():
    writer = Writer(history())
    writer.say("a", "b")
    writer.say("c", "d", "e")
    assert [writer.log.id_before_latest(n) for n in range(7)] == [5, 4, 3, 2, 1, 0, 0]


def test_a_log_is_twice_as_long_while_it_is_followed():
    kept = history(messages=3)
    writer = Writer(kept)
    writer.say("a", "b", "c")
    writer.log.follow()
    writer.say("d", "e")
    assert writer.log.messages == 5
    kept.unfollow(writer.log)
    assert writer.log.messages == 3
    assert kept.bytes == writer.log.bytes


def test_a_forgotten_log_takes_nothing():
    kept = history()
    writer, other = Writer(kept), Writer(kept)
    writer.say("a")
    other.say("b")
    kept.forget(writer.log)
    assert kept.bytes == other.log.bytes == _size(Said("", "", ("b",), 1, 0))
    assert writer.ids() == []
