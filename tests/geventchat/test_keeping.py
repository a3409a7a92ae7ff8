"""The chat with a storage: what it writes, what it reads, and that it waits when the storage is behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from geventchat.chat.commands import (
    AskHistory,
    EnterRoom,
    Impose,
    Kick,
    LeaveRoom,
    Login,
    Sanction,
    Say,
    SetTopic,
)
from geventchat.chat.events import (
    HistoryPage,
    Missed,
    PastMessage,
    Rejected,
    Rejection,
    RoomListing,
    Said,
    Welcome,
)
from geventchat.chat.history import past
from geventchat.chat.records import Record, Restriction, RestrictionKind, RoomRecord, Stored
from geventchat.chat.replay import READ_AT_ONCE
from geventchat.chat.results import DONE, LEAVE, Busy, More, Pending
from geventchat.chat.sessions import Session
from geventchat.chat.storage import LOOKUP_BYTES, StorageUnavailable
from geventchat.services.storage.memory import MemoryStorage
from geventchat.settings import Limits
from tests.geventchat.manual_clock import ManualClock
from tests.geventchat.test_chat import NOW_S, Scene


class Keeper(MemoryStorage):
    """Keeps everything it is given, and can be behind, out of ids or broken."""

    def __init__(self, stored: Stored | None = None) -> None:
        super().__init__(Limits(), ManualClock())
        self.stored = stored or Stored("e1")
        self.messages: dict[str, list[PastMessage]] = {}
        self.rooms: dict[str, RoomRecord] = {}
        self.ready = True
        self.broken = False
        self.reads = 0
        # The most messages that were read at a time for a client that comes back.
        self.most_read = 0
        self.tell: Callable[[], None] = lambda: None

    keeps_messages = True

    def load(self) -> Stored:
        return self.stored

    def append(self, room: str, said: Said) -> None:
        assert room in self.rooms, "the room has not been saved"
        self.messages.setdefault(room, []).extend(past(said))

    def save(self, record: Record) -> None:
        if isinstance(record, RoomRecord):
            self.rooms[record.key] = record

    def forget(self, record: Record) -> None:
        if isinstance(record, RoomRecord):
            self.rooms.pop(record.key)
            self.messages.pop(record.key, None)

    def is_ready(self, room: str = "", last_id: int = 0) -> bool:
        return self.ready

    def when_ready(self, callback: Callable[[], None]) -> None:
        self.tell = callback

    def before(self, room: str, id: int, limit: int) -> list[PastMessage]:
        self.reads += 1
        if self.broken:
            raise StorageUnavailable
        return [message for message in self.messages.get(room, ()) if message.id < id][-limit:]

    def after(self, room: str, id: int, limit: int) -> list[PastMessage]:
        if self.broken:
            raise StorageUnavailable
        found = [message for message in self.messages.get(room, ()) if message.id > id][:limit]
        self.most_read = max(self.most_read, len(found))
        return found

    def first_between(self, wanted: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
        if self.broken:
            raise StorageUnavailable
        found = {
            room: [one.id for one in self.before(room, before, limit) if one.id > after]
            for room, (after, before, limit) in wanted.items()
        }
        return {room: ids[0] for room, ids in found.items() if ids}


def keeping(keeper: Keeper, **limits: Any) -> Scene:
    return Scene(storage=keeper, **limits)


def again(keeper: Keeper, **limits: Any) -> Scene:
    """The same storage after a restart."""
    last = {key: max((one.id for one in keeper.messages.get(key, ())), default=0) for key in keeper.rooms}
    rooms = tuple(replace(record, last_id=last[key]) for key, record in keeper.rooms.items())
    keeper.stored = replace(keeper.stored, rooms=rooms)
    return keeping(keeper, **limits)


def run(result: Any) -> None:
    """Do the jobs and parts of a command."""
    while result is not DONE:
        result = result.finish(result.job()) if isinstance(result, Pending) else result.go_on()


def ids(page: object) -> list[int]:
    assert isinstance(page, HistoryPage)
    return [message.id for message in page.messages]


def talk(scene: Scene, session: Session, messages: int) -> None:
    for n in range(messages):
        assert scene.chat.handle(session, Say([f"text {n}"])) is DONE


def test_rooms_are_kept_with_their_settings_and_while_they_are_empty():
    keeper = Keeper()
    scene = keeping(keeper)
    assert list(keeper.rooms) == ["lobby"]
    session, _ = scene.login("ann")
    assert scene.chat.handle(session, EnterRoom("Dev")) is DONE
    assert scene.chat.handle(session, SetTopic("tea")) is DONE
    assert (keeper.rooms["dev"].name, keeper.rooms["dev"].topic) == ("Dev", "tea")
    assert keeper.rooms["dev"].empty_since_ms is None
    assert scene.chat.handle(session, LeaveRoom()) is DONE
    assert keeper.rooms["dev"].empty_since_ms == int(NOW_S * 1000)
    assert scene.chat.handle(session, EnterRoom("dev")) is DONE
    assert keeper.rooms["dev"].empty_since_ms is None
    assert scene.chat.handle(session, LeaveRoom()) is DONE
    scene.now_s += 600
    assert len(scene.chat.rooms) == 1
    assert list(keeper.rooms) == ["lobby"]


def test_rooms_go_on_after_a_restart_and_an_empty_one_expires_when_it_would_have():
    keeper = Keeper()
    scene = keeping(keeper)
    session, _ = scene.login("ann")
    assert scene.chat.handle(session, EnterRoom("dev")) is DONE
    assert scene.chat.handle(session, SetTopic("tea")) is DONE
    talk(scene, session, 3)
    assert scene.chat.handle(session, LeaveRoom()) is DONE
    talk(scene, session, 2)
    scene = again(keeper)
    scene.now_s += 599
    assert [RoomListing(room.name, room.last_id, room.topic) for room in scene.chat.rooms] == [
        RoomListing("lobby", 2, ""),
        RoomListing("dev", 3, "tea"),
    ]
    scene.now_s += 1
    assert len(scene.chat.rooms) == 1


def test_a_start_counts_no_time_after_the_latest_that_the_storage_knows():
    keeper = Keeper()
    scene = keeping(keeper)
    session, _ = scene.login("ann")
    assert scene.chat.handle(session, EnterRoom("dev")) is DONE
    assert scene.chat.handle(session, LeaveRoom()) is DONE
    keeper.stored = replace(keeper.stored, latest_ms=1000 * NOW_S + 100_000)
    # A year has passed, or the clock is wrong.
    scene = again(keeper, time=lambda: NOW_S + 365 * 86_400)
    scene.now_s += 499
    assert scene.chat.rooms.find("dev") is not None
    scene.now_s += 1
    assert scene.chat.rooms.find("dev") is None


def test_the_ids_of_new_rooms_are_above_the_floor_that_was_kept():
    scene = keeping(Keeper(Stored("e1", floor_id=70)))
    session, _ = scene.login("ann")
    assert scene.chat.handle(session, EnterRoom("dev")) is DONE
    talk(scene, session, 1)
    dev = scene.chat.rooms.find("dev")
    assert dev is not None
    assert dev.last_id == 71


def test_the_ids_of_a_lobby_that_was_not_kept_are_above_the_floor_too():
    keeper = Keeper(Stored("e1", floor_id=70))
    scene = keeping(keeper)
    session, _ = scene.login("alice")
    run(scene.chat.handle(session, Say(["hi"])))
    assert [message.id for message in keeper.messages["lobby"]] == [71]


def test_bans_and_settings_of_rooms_go_on_after_a_restart():
    def restriction(kind: RestrictionKind, room: str, name: str) -> Restriction:
        return Restriction(kind, room, name, "", "", name, None, "", "ann", 0)

    record = RoomRecord(
        "dev",
        "dev",
        topic="tea",
        private=True,
        entry_key="k",
        moderated=True,
        empty_since_ms=int(NOW_S * 1000),
    )
    stored = Stored(
        "e1",
        rooms=(record,),
        restrictions=(
            restriction(RestrictionKind.BAN, "", "bob"),
            restriction(RestrictionKind.BAN, "dev", "cid"),
            restriction(RestrictionKind.MUTE, "dev", "dan"),
        ),
    )
    scene = keeping(Keeper(stored))
    session, _ = scene.connect()
    assert scene.chat.handle(session, Login("bob")) is LEAVE
    for name in ("cid", "dan"):
        session, subscriber = scene.login(name)
        assert scene.chat.handle(session, EnterRoom("dev", "wrong")) is DONE
        assert scene.chat.handle(session, EnterRoom("dev", "k")) is DONE
        reasons = [event.reason for event in subscriber.take() if isinstance(event, Rejected)]
        assert reasons == (
            [Rejection.WRONG_KEY, Rejection.BANNED_FROM_ROOM] if name == "cid" else [Rejection.WRONG_KEY]
        )
    assert scene.chat.handle(session, Say(["hi"])) is DONE
    (rejected,) = subscriber.take()
    assert isinstance(rejected, Rejected)
    assert rejected.reason is Rejection.MUTED


def test_older_messages_than_the_log_has_are_read_from_the_storage():
    keeper = Keeper()
    scene = keeping(keeper, history_messages=3)
    session, ann = scene.login("ann")
    talk(scene, session, 10)
    ann.take()
    # The log is enough, and is not asked for more than it has.
    run(scene.chat.handle(session, AskHistory(2)))
    assert keeper.reads == session.cost_bytes == 0
    assert ids(ann.take()[0]) == [9, 10]
    for limit, before, expected, more in [
        (5, None, [6, 7, 8, 9, 10], True),
        (200, None, list(range(1, 11)), False),
        (3, 5, [2, 3, 4], True),
        (3, 3, [1, 2], False),
    ]:
        run(scene.chat.handle(session, AskHistory(limit, before)))
        (page,) = ann.take()
        assert ids(page) == expected
        assert isinstance(page, HistoryPage)
        assert page.more is more
    assert session.cost_bytes == keeper.reads * LOOKUP_BYTES == 4 * LOOKUP_BYTES


def test_after_a_restart_what_was_missed_is_read_from_the_storage():
    keeper = Keeper()
    scene = keeping(keeper)
    session, _ = scene.login("ann")
    talk(scene, session, 6)
    scene = again(keeper)
    session, _ = scene.login("ann")
    talk(scene, session, 2)
    reader, subscriber = scene.connect()
    result = scene.chat.handle(reader, Login("bob", (EnterRoom("lobby", after=4),)))
    assert isinstance(result, Pending)
    # Messages that come meanwhile are not lost.
    read = result.job()
    talk(scene, session, 1)
    result = result.finish(read)
    welcome, *_ = subscriber.take()
    assert isinstance(welcome, Welcome)
    assert (welcome.rooms[0].last_id, welcome.rooms[0].replay_from) == (9, 5)
    assert isinstance(result, More)
    run(result)
    heard = [said for missed in subscriber.take() if isinstance(missed, Missed) for said in missed.events]
    assert [said.first_id for said in heard if isinstance(said, Said)] == [5, 6, 7, 8, 9]
    # The same on entering a room.
    assert scene.chat.handle(reader, LeaveRoom("lobby")) is DONE
    run(scene.chat.handle(reader, EnterRoom("lobby", after=5)))
    heard = [said for missed in subscriber.take() if isinstance(missed, Missed) for said in missed.events]
    assert [said.first_id for said in heard if isinstance(said, Said)] == [6, 7, 8, 9]


def test_the_search_for_what_was_missed_costs_a_lookup_for_each_room_that_is_searched():
    keeper = Keeper()
    rooms = ("lobby", "dev", "new")
    scene = keeping(keeper)
    session, _ = scene.connect()
    run(scene.chat.handle(session, Login("ann", tuple(EnterRoom(room) for room in rooms))))
    for room in rooms[:2]:
        assert scene.chat.handle(session, Say(["text"], room)) is DONE
    scene = again(keeper)
    session, _ = scene.connect()
    run(scene.chat.handle(session, Login("bob", tuple(EnterRoom(room, after=0) for room in rooms))))
    assert session.cost_bytes == 2 * LOOKUP_BYTES
    assert scene.chat.handle(session, LeaveRoom("dev")) is DONE
    for after, cost in ((0, 3), (1, 3)):
        run(scene.chat.handle(session, EnterRoom("dev", after=after)))
        assert session.cost_bytes == cost * LOOKUP_BYTES


def test_at_most_the_latest_are_replayed_also_from_the_storage():
    keeper = Keeper()
    scene = keeping(keeper, history_messages=4)
    session, _ = scene.login("ann")
    talk(scene, session, 10)
    scene = again(keeper, history_messages=4)
    session, _ = scene.login("ann")
    talk(scene, session, 1)
    reader, subscriber = scene.connect()
    run(scene.chat.handle(reader, Login("bob", (EnterRoom("lobby", after=0),))))
    heard = [said for missed in subscriber.take() if isinstance(missed, Missed) for said in missed.events]
    assert [said.first_id for said in heard if isinstance(said, Said)] == [8, 9, 10, 11]


class Reader:
    """A client that has missed everything in a room, and is sent it part by part."""

    def __init__(self, scene: Scene, name: str = "reader", room: str = "lobby") -> None:
        self.session, self._subscriber = scene.connect()
        self.result: Any = scene.chat.handle(self.session, Login(name, (EnterRoom(room, after=0),)))
        self.ids: list[int] = []
        self.texts: list[str] = []

    def go_on(self) -> None:
        """Do the next job, or send the next part."""
        result = self.result
        self.result = result.finish(result.job()) if isinstance(result, Pending) else result.go_on()
        for event in self._subscriber.take():
            if isinstance(event, Missed):
                said = [one for one in event.events if isinstance(one, Said)]
                self.ids += [one.first_id + n for one in said for n in range(len(one.texts))]
                self.texts += [text for one in said for text in one.texts]

    def finish(self) -> None:
        while self.result not in (DONE, LEAVE):
            self.go_on()


def said_before_a_restart(messages: int, **limits: int) -> tuple[Keeper, Scene]:
    keeper = Keeper()
    scene = keeping(keeper, **limits)
    session, _ = scene.login("ann")
    talk(scene, session, messages)
    return keeper, again(keeper, **limits)


def test_what_many_have_missed_is_not_held_for_each_of_them():
    keeper, scene = said_before_a_restart(900)
    readers = [Reader(scene, f"reader{n}") for n in range(3)]
    while any(reader.result is not DONE for reader in readers):
        for reader in readers:
            if reader.result is not DONE:
                reader.go_on()
    assert [reader.ids for reader in readers] == [list(range(1, 901))] * 3
    assert keeper.most_read == READ_AT_ONCE


def test_what_the_log_loses_meanwhile_comes_from_the_storage():
    _, scene = said_before_a_restart(100, history_messages=100)
    session, _ = scene.login("ann")
    talk(scene, session, 50)
    reader = Reader(scene)
    reader.go_on()
    # The log keeps twice as many as long as somebody reads it, and what the reader has not been sent is among the others.
    talk(scene, session, 190)
    assert scene.chat.lobby.log.first_id > 101
    reader.finish()
    assert reader.ids == list(range(51, 341))


def test_what_is_said_and_leaves_the_log_while_the_storage_is_read_is_read_as_well():
    _, scene = said_before_a_restart(100, history_messages=10)
    session, _ = scene.login("ann")
    reader = Reader(scene)
    reader.go_on()
    assert isinstance(reader.result, More)
    reader.go_on()
    assert isinstance(reader.result, Pending)
    read = reader.result.job()
    # In one piece, so that the log has lost a part of an event and no whole one.
    assert scene.chat.handle(session, Say([f"pasted {n}" for n in range(64)])) is DONE
    assert scene.chat.lobby.log.first_id > 101
    reader.result = reader.result.finish(read)
    reader.finish()
    assert reader.result is DONE
    assert reader.ids == list(range(91, 165))


def test_a_client_that_has_lost_arrivals_cannot_follow_even_with_a_storage():
    _, scene = said_before_a_restart(100, history_messages=100)
    session, _ = scene.login("ann")
    reader = Reader(scene)
    reader.go_on()
    talk(scene, session, 201)
    reader.finish()
    assert reader.result is LEAVE


def test_a_text_that_is_deleted_after_it_was_read_is_not_sent():
    _, scene = said_before_a_restart(100)
    reader = Reader(scene)
    reader.go_on()
    assert isinstance(reader.result, More)
    reader.go_on()
    assert isinstance(reader.result, Pending)
    read = reader.result.job()
    scene.chat.lobby.delete(70, 0)
    reader.result = reader.result.finish(read)
    reader.finish()
    assert [text for text in reader.texts if not text] == [""]


def test_a_client_whose_storage_cannot_answer_is_disconnected_and_has_no_gap():
    keeper, scene = said_before_a_restart(100)
    reader = Reader(scene)
    for _ in range(3):
        reader.go_on()
    assert isinstance(reader.result, More)
    keeper.broken = True
    reader.finish()
    assert reader.result is LEAVE
    assert reader.ids == list(range(1, READ_AT_ONCE + 1))


def test_without_the_storage_the_history_is_what_the_log_has():
    keeper = Keeper()
    scene = keeping(keeper, history_messages=3)
    session, ann = scene.login("ann")
    talk(scene, session, 10)
    ann.take()
    keeper.broken = True
    run(scene.chat.handle(session, AskHistory(200)))
    assert ids(ann.take()[0]) == [8, 9, 10]


@pytest.mark.parametrize("many", [False, True], ids=["in one room", "in many"])
@pytest.mark.parametrize("removal", [Kick("bob"), Impose(Sanction.BAN, "bob")], ids=["kick", "ban"])
def test_whoever_is_removed_while_history_is_read_does_not_get_it(removal: Kick | Impose, many: bool):
    keeper = Keeper()
    scene = keeping(keeper, history_messages=3)
    owner, _ = scene.login("ann")
    assert scene.chat.handle(owner, EnterRoom("dev")) is DONE
    talk(scene, owner, 10)
    session, bob = scene.connect()
    assert scene.chat.handle(session, Login("bob", (EnterRoom("lobby"),) if many else None)) is DONE
    assert scene.chat.handle(session, EnterRoom("dev")) is DONE
    pending = scene.chat.handle(session, AskHistory(9, room="dev" if many else ""))
    assert isinstance(pending, Pending)
    read = pending.job()
    assert scene.chat.handle(owner, removal) is DONE
    bob.take()
    assert pending.finish(read) is DONE
    assert bob.take() == [Rejected(Rejection.NOT_IN_ROOM, "dev", "dev" if many else "")]


@pytest.mark.parametrize("removal", [Kick("reader"), Impose(Sanction.BAN, "reader")], ids=["kick", "ban"])
def test_whoever_is_removed_while_missed_messages_are_read_gets_no_more_of_them(removal: Kick | Impose):
    keeper = Keeper()
    scene = keeping(keeper)
    owner, _ = scene.login("ann")
    assert scene.chat.handle(owner, EnterRoom("dev")) is DONE
    talk(scene, owner, 200)
    scene = again(keeper)
    owner, _ = scene.login("ann")
    assert scene.chat.handle(owner, EnterRoom("dev")) is DONE
    reader = Reader(scene, room="dev")
    for _ in range(3):
        reader.go_on()
    assert isinstance(reader.result, More)
    reader.go_on()
    assert isinstance(reader.result, Pending)
    assert scene.chat.handle(owner, removal) is DONE
    reader.finish()
    assert reader.ids == list(range(1, READ_AT_ONCE + 1))


@pytest.mark.parametrize("command", [Say(["hi"]), SetTopic("tea")], ids=["say", "topic"])
def test_while_the_storage_is_behind_speakers_wait_and_then_go_on(command: Say | SetTopic):
    keeper = Keeper()
    scene = keeping(keeper)
    session, _ = scene.login("ann")
    scene.gate.delay_s = scene.chat.lobby._delay_s
    keeper.ready = False
    assert scene.chat.handle(session, command) == Busy(scene.gate)
    pumped = scene.gate.pumped
    keeper.ready = True
    keeper.tell()
    assert scene.gate.pumped == pumped + 1
    assert scene.chat.handle(session, command) is DONE
