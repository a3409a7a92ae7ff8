"""The promises of every storage. A new implementation joins by an entry in WORLDS."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from geventchat.chat.events import DirectMessage, PastMessage, Said
from geventchat.chat.records import KeptMessage, RestrictionKind, RoomRecord
from geventchat.chat.storage import Storage
from geventchat.settings import Limits
from tests.geventchat.storage_worlds import LOBBY, WORLDS, World, account, act, ban, say, texts

ALL = sorted(WORLDS)
KEEPING_MESSAGES = [name for name in ALL if WORLDS[name].keeps_messages]
SURVIVING = [name for name in ALL if WORLDS[name].survives]
keeping_messages = pytest.mark.parametrize("world", KEEPING_MESSAGES, indirect=True)
surviving = pytest.mark.parametrize("world", SURVIVING, indirect=True)


@pytest.fixture(params=ALL)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    one = WORLDS[request.param](tmp_path)
    yield one
    one.end()


def direct(world: World, text: str = "hi", sender: str = "Alice") -> DirectMessage:
    return DirectMessage(sender, "Bob", text, world.now_ms())


def with_lobby(world: World, limits: Limits | None = None) -> Storage:
    storage = world.open(limits)
    storage.load()
    storage.save(LOBBY)
    return storage


# --- The beginning ---


def test_a_new_storage_is_empty_and_has_an_epoch(world: World):
    storage = world.open()
    stored = storage.load()
    assert stored.epoch
    assert (stored.rooms, stored.accounts, stored.restrictions, stored.floor_id) == ((), (), (), 0)
    assert (storage.after("lobby", 0, 10), storage.mailbox("bob", 0, 100), storage.acts(10)) == ([], [], [])
    assert not storage.has_mail("bob")
    assert storage.behind_bytes == 0


def test_a_storage_that_starts_again_with_nothing_has_another_epoch(tmp_path: Path, world: World):
    epoch = world.open().load().epoch
    other = type(world)(tmp_path / "other")
    (tmp_path / "other").mkdir()
    try:
        assert other.open().load().epoch != epoch
    finally:
        other.end()


# --- Messages ---


@pytest.mark.parametrize("world", [name for name in ALL if name not in KEEPING_MESSAGES], indirect=True)
def test_a_storage_that_keeps_no_messages_says_so_by_having_none(world: World):
    storage = with_lobby(world)
    say(storage, 1, "hi")
    storage.delete("lobby", 1)
    assert (storage.after("lobby", 0, 10), storage.before("lobby", 10, 10)) == ([], [])


@keeping_messages
def test_messages_are_read_as_they_were_said_oldest_first(world: World):
    storage = with_lobby(world)
    say(storage, 1, "one", "two")
    say(storage, 3, "three", name="Zoë")
    assert storage.after("lobby", 0, 10) == [
        PastMessage(1, "alice", "one", 1_000),
        PastMessage(2, "alice", "two", 1_000),
        PastMessage(3, "Zoë", "three", 3_000),
    ]
    assert storage.before("lobby", 4, 10) == storage.after("lobby", 0, 10)


@keeping_messages
def test_before_and_after_exclude_the_id_and_are_limited_to_the_nearest(world: World):
    storage = with_lobby(world)
    say(storage, 1, *map(str, range(1, 11)))
    assert [message.id for message in storage.before("lobby", 8, 3)] == [5, 6, 7]
    assert [message.id for message in storage.after("lobby", 8, 1)] == [9]
    assert [message.id for message in storage.after("lobby", 8, 100)] == [9, 10]
    assert (storage.before("lobby", 1, 3), storage.after("lobby", 10, 3)) == ([], [])
    assert (storage.before("lobby", 8, 0), storage.after("lobby", 0, 0)) == ([], [])


@keeping_messages
def test_the_first_of_the_last_messages_between_two_ids_is_found(world: World):
    storage = with_lobby(world)
    say(storage, 1, *map(str, range(1, 11)))
    storage.save(RoomRecord("dev", "dev"))
    say(storage, 100, "a", "b", room="dev")
    assert storage.first_between({"lobby": (2, 9, 100), "dev": (100, 200, 5)}) == {"lobby": 3, "dev": 101}
    assert storage.first_between({"lobby": (2, 9, 4), "nowhere": (0, 9, 5)}) == {"lobby": 5}
    for ids in ((8, 9), (10, 50), (0, 1)):
        assert storage.first_between({"lobby": (*ids, 5)}) == {}


@keeping_messages
def test_rooms_have_separate_histories(world: World):
    storage = with_lobby(world)
    storage.save(RoomRecord("dev", "dev"))
    say(storage, 1, "in the lobby")
    say(storage, 1, "in dev", room="dev")
    assert (texts(storage), texts(storage, "dev")) == ([(1, "in the lobby")], [(1, "in dev")])
    assert texts(storage, "nowhere") == []


@keeping_messages
def test_a_read_sees_everything_that_was_queued_before_it(world: World):
    storage = with_lobby(world)
    for id in range(1, 200):
        say(storage, id, str(id))
        if id % 20 == 0:
            assert len(texts(storage)) == id


@keeping_messages
def test_texts_come_back_as_they_were(world: World):
    storage = with_lobby(world)
    odd = [
        "\0",
        "",
        " ",
        '"',
        "\\",
        "'); DROP TABLE messages; --",
        "\U0010ffff",
        "e\u0301",
        "x" * 100_000,
        "[1]",
        "null",
    ]
    say(storage, 1, *odd, name="'\"\0")
    assert [text for _, text in texts(storage)] == odd
    assert storage.after("lobby", 0, 1)[0].name == "'\"\0"


@keeping_messages
def test_a_deleted_message_keeps_its_place_and_loses_its_text(world: World):
    storage = with_lobby(world)
    say(storage, 1, "one", "two")
    storage.delete("lobby", 2)
    storage.delete("lobby", 7)
    storage.delete("nowhere", 1)
    say(storage, 3, "three")
    assert storage.after("lobby", 0, 10) == [
        PastMessage(1, "alice", "one", 1_000),
        PastMessage(2, "alice", "", 1_000, deleted=True),
        PastMessage(3, "alice", "three", 3_000),
    ]
    storage.delete("lobby", 2)
    assert texts(storage) == [(1, "one"), (2, ""), (3, "three")]


@keeping_messages
def test_messages_of_a_room_that_was_never_saved_are_reported(world: World):
    storage = with_lobby(world)
    say(storage, 1, "one", "two", room="dev")
    say(storage, 1, "hi")
    assert (texts(storage), texts(storage, "dev")) == ([(1, "hi")], [])
    world.run_loop()
    assert [fields["messages"] for event, fields in world.log if event.value == "history-lost"] == [2]


@keeping_messages
def test_an_id_that_is_used_twice_costs_no_other_message(world: World):
    storage = with_lobby(world)
    say(storage, 1, "one", "two")
    say(storage, 2, "another two", "three")
    assert texts(storage) == [(1, "one"), (2, "two"), (3, "three")]
    world.run_loop()
    assert [fields["messages"] for event, fields in world.log if event.value == "history-lost"] == [1]


@keeping_messages
def test_a_room_keeps_its_latest_messages_up_to_the_limit(world: World):
    storage = with_lobby(world, Limits(stored_messages=50))
    storage.save(RoomRecord("dev", "dev"))
    say(storage, 1, "of another room", room="dev")
    for id in range(1, 500, 10):
        say(storage, id, *map(str, range(id, id + 10)))
        kept = texts(storage)
        assert kept[-1][0] == id + 9
        assert min(50, id + 9) - 10 <= len(kept) <= 50
        assert [at for at, _ in kept] == list(range(kept[0][0], id + 10))
    assert texts(storage, "dev") == [(1, "of another room")]


# --- Rooms ---


@surviving
def test_rooms_survive_with_all_their_settings(world: World):
    storage = world.open()
    room = RoomRecord(
        key="dev",
        name="Dev",
        owner="alice",
        moderators=frozenset({"bob", "zoë"}),
        voiced=frozenset({"carol"}),
        invited=(("dave", 7), ('e"\\', 5)),
        topic="all about\tdev",
        private=True,
        entry_key="k",
        moderated=True,
        last_id=17,
        empty_since_ms=5,
        last_used_ms=6,
    )
    storage.save(LOBBY)
    storage.save(room)
    storage = world.reopened(storage)
    assert set(storage.load().rooms) == {LOBBY, room}


@surviving
def test_the_last_record_of_a_room_counts(world: World):
    storage = world.open()
    storage.save(RoomRecord("dev", "Dev", topic="first", owner="alice"))
    storage.save(RoomRecord("dev", "DEV", topic="second"))
    storage = world.reopened(storage)
    storage.save(RoomRecord("dev", "dev", topic="third"))
    storage = world.reopened(storage)
    assert storage.load().rooms == (RoomRecord("dev", "dev", topic="third"),)


@surviving
def test_the_last_id_of_a_room_comes_from_its_messages(world: World):
    storage = world.open()
    storage.save(replace(LOBBY, last_id=10))
    say(storage, 11, "one", "two")
    storage.save(replace(LOBBY, topic="new", last_id=3))
    storage = world.reopened(storage)
    assert storage.load().rooms == (replace(LOBBY, topic="new", last_id=12),)


@surviving
def test_ids_and_the_epoch_go_on_after_an_orderly_restart(world: World):
    storage = world.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    say(storage, 1, *"abc")
    for _ in range(3):
        storage = world.reopened(storage)
        stored = storage.load()
        assert (stored.epoch, stored.rooms[0].last_id) == (epoch, 3)


@surviving
def test_a_forgotten_room_is_gone_and_its_ids_are_below_those_of_new_rooms(world: World):
    storage = with_lobby(world)
    dev = RoomRecord("dev", "dev", last_id=0)
    storage.save(dev)
    storage.save(ban(room="dev"))
    storage.save(ban(room="lobby"))
    say(storage, 1, *map(str, range(300)), room="dev")
    storage.forget(dev)
    assert texts(storage, "dev") == []
    storage = world.reopened(storage)
    stored = storage.load()
    assert (stored.floor_id, stored.rooms, stored.restrictions) == (300, (LOBBY,), (ban(room="lobby"),))


@keeping_messages
def test_a_room_that_is_saved_again_after_it_was_forgotten_inherits_nothing(world: World):
    storage = with_lobby(world)
    old, new = RoomRecord("dev", "dev", topic="old"), RoomRecord("dev", "Dev", last_id=2)
    # At once, and after the first has been written.
    for settle in (lambda: None, lambda: storage.before("lobby", 1, 1)):
        storage.save(old)
        storage.save(ban(room="dev"))
        say(storage, 1, "old", "old", room="dev")
        settle()
        storage.forget(old)
        storage.save(new)
        say(storage, 3, "new", room="dev")
        assert texts(storage, "dev") == [(3, "new")]
        storage.forget(new)
    storage.save(new)
    storage = world.reopened(storage)
    stored = storage.load()
    assert (set(stored.rooms), stored.restrictions) == ({LOBBY, new}, ())
    assert texts(storage, "dev") == []


# --- Accounts ---


@surviving
def test_accounts_survive(world: World):
    storage = world.open()
    alice = account(
        "alice",
        password_hash="scrypt$1$é",
        token_hashes=("b", "a"),
        created_ms=1,
        last_login_ms=2,
        ignored=("bob",),
        origins=("192.0.2.1", "2001:db8::/64"),
    )
    storage.save(replace(alice, password_hash="old"))
    storage.save(alice)
    storage.save(account("gone"))
    storage.forget(account("gone"))
    storage = world.reopened(storage)
    assert storage.load().accounts == (alice,)
    storage.forget(alice)
    storage.save(account("alice", name="another"))
    storage = world.reopened(storage)
    assert storage.load().accounts == (account("alice", name="another"),)


# --- Bans and mutes ---


@surviving
def test_restrictions_survive_and_those_on_the_same_target_replace_each_other(world: World):
    storage = world.open()
    kept = [
        ban(),
        ban(room="dev"),
        ban(kind=RestrictionKind.MUTE, until_ms=9),
        ban(name="", account="bob"),
        ban(name="", network="2001:db8::/32"),
    ]
    for one in kept:
        storage.save(replace(one, reason="first"))
    for one in kept:
        storage.save(one)
    storage.save(ban(name="carol"))
    storage.forget(ban(name="carol", reason="whatever"))
    storage.forget(ban(name="absent"))
    storage = world.reopened(storage)
    restrictions = storage.load().restrictions
    assert len(restrictions) == len(kept)
    assert set(restrictions) == set(kept)


# --- Mailboxes ---


def test_kept_messages_wait_in_order_until_they_are_taken(world: World):
    storage = world.open()
    first = storage.keep("bob", "alice", direct(world, "one"))
    second = storage.keep("bob", "carol", direct(world, "two", "Carol"))
    other = storage.keep("dave", "alice", direct(world, "three"))
    assert first is not None
    assert second is not None
    assert other is not None
    assert first == KeptMessage(first.number, "bob", direct(world, "one"))
    assert first.number < second.number < other.number
    assert storage.has_mail("bob")
    assert storage.mailbox("bob", 0, 2) == storage.mailbox("bob", 0, 9) == [first, second]
    assert storage.take(storage.mailbox("bob", 0, 100)) == [first, second]
    assert storage.mailbox("dave", 0, 100) == [other]
    storage.before("lobby", 1, 1)
    assert storage.mailbox("bob", 0, 100) == []
    assert not storage.has_mail("bob")


def test_of_two_that_read_a_mailbox_one_takes_each_message(world: World):
    storage = world.open()
    storage.keep("bob", "alice", direct(world, "one"))
    early = storage.mailbox("bob", 0, 100)
    storage.keep("bob", "alice", direct(world, "two"))
    late = storage.mailbox("bob", 0, 100)
    assert [one.message.text for one in storage.take(late)] == ["one", "two"]
    assert storage.take(early) == []
    assert storage.take(late) == []


def test_a_message_that_is_taken_at_once_leaves_the_others(world: World):
    storage = world.open()
    kept = [storage.keep("bob", "alice", direct(world, text)) for text in "abc"]
    assert kept[1] is not None
    assert storage.take([kept[1]]) == [kept[1]]
    assert storage.take(storage.mailbox("bob", 0, 100)) == [kept[0], kept[2]]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (Limits(mail_per_sender=3), 3),
        (Limits(mail_per_account=4), 4),
        (Limits(mail_bytes=5 * (200 + len("é 1".encode()))), 5),
        (Limits(mail_per_account=0), 0),
    ],
    ids=["sender", "account", "all", "none"],
)
def test_a_full_mailbox_takes_nothing_until_it_is_emptied(world: World, limits: Limits, kept: int):
    storage = world.open(limits)
    for _ in range(2):
        found = [storage.keep("bob", "alice", direct(world, f"é {number}")) for number in range(10)]
        assert found[kept:] == [None] * (10 - kept)
        assert storage.take(storage.mailbox("bob", 0, 100)) == found[:kept]
        storage.before("lobby", 1, 1)


def test_a_mailbox_is_read_in_pages(world: World):
    storage = world.open()
    kept = [storage.keep("bob", "alice", direct(world, text)) for text in "abcde"]
    first = storage.mailbox("bob", 0, 2)
    assert first == kept[:2]
    storage.take(first)
    assert storage.mailbox("bob", first[-1].number, 2) == kept[2:4]
    assert storage.mailbox("bob", kept[3].number, 2) == kept[4:]


def test_limits_count_senders_and_recipients_separately(world: World):
    storage = world.open(Limits(mail_per_sender=1, mail_per_account=2))
    assert storage.keep("bob", "alice", direct(world)) is not None
    assert storage.keep("bob", "alice", direct(world)) is None
    assert storage.keep("carol", "alice", direct(world)) is not None
    assert storage.keep("bob", "carol", direct(world)) is not None
    assert storage.keep("bob", "dave", direct(world)) is None


def test_old_messages_are_not_delivered_and_take_no_place(world: World):
    storage = world.open(Limits(mail_per_account=1, mail_s=60.0))
    storage.keep("bob", "alice", direct(world, "old"))
    world.clock.now += 59
    assert len(storage.mailbox("bob", 0, 100)) == 1
    world.clock.now += 2
    assert storage.mailbox("bob", 0, 100) == []
    assert storage.keep("bob", "alice", direct(world, "new")) is not None
    assert [kept.message.text for kept in storage.mailbox("bob", 0, 100)] == ["new"]


def test_a_clock_that_is_set_ahead_makes_no_message_old(world: World):
    limits = Limits(mail_per_account=2, mail_s=60.0)
    storage = world.open(limits)
    storage.keep("bob", "alice", direct(world, "kept"))
    world.clock.ahead = 1e6
    world.clock.now += 59
    for _ in range(2):
        storage.audit(act(world.now_ms()))
        storage.acts(1)
        assert [kept.message.text for kept in storage.mailbox("bob", 0, 100)] == ["kept"]
        if world.survives:
            # A start does not make it old either: the storage knows of nothing so late.
            world.clock.ahead = 0.0
            storage.audit(act(world.now_ms()))
            world.close(storage)
            world.clock.ahead = 1e6
            storage = world.open(limits)
    world.clock.ahead = 0.0
    world.clock.now += 2
    assert storage.mailbox("bob", 0, 100) == []
    # Nor does one that was ahead and is set right.
    storage.keep("bob", "alice", direct(world, "new"))
    assert [kept.message.text for kept in storage.mailbox("bob", 0, 100)] == ["new"]


@surviving
@pytest.mark.parametrize("what", ["message", "mail", "act", "room", "empty room", "account"])
def test_the_latest_time_that_it_knows_is_there_after_a_restart(world: World, what: str):
    storage = world.open()
    storage.save(replace(LOBBY, last_used_ms=5))
    storage.save(account("alice", last_login_ms=6))
    match what:
        case "message":
            storage.append("lobby", Said("lobby", "alice", ("hi",), 1, 77))
        case "mail":
            storage.keep("alice", "bob", DirectMessage("bob", "alice", "hi", 77))
        case "act":
            storage.audit(act(77))
        case "room":
            storage.save(RoomRecord("dev", "dev", last_used_ms=77))
        case "empty room":
            storage.save(RoomRecord("dev", "dev", last_used_ms=7, empty_since_ms=77))
        case "account":
            storage.save(account("bob", last_login_ms=77))
    assert world.reopened(storage).load().latest_ms == 77


def test_whoever_has_the_most_kept_messages_makes_way_for_those_who_have_fewer(world: World):
    storage = world.open(Limits(mail_bytes=4 * 201))
    kept = [storage.keep(to, "alice", direct(world, "x")) for to in ("bob", "carol", "bob", "carol")]
    assert storage.keep("bob", "alice", direct(world, "x")) is None
    assert storage.keep("bob", "eve", direct(world, "x", "Eve")) is not None
    assert storage.mailbox("bob", 0, 100)[0] == kept[2]
    assert storage.mailbox("carol", 0, 100) == [kept[1], kept[3]]
    assert storage.keep("carol", "eve", direct(world, "x", "Eve")) is not None
    assert storage.mailbox("carol", 0, 100)[0] == kept[3]
    # Both have as much now.
    for sender in ("alice", "eve"):
        assert storage.keep("bob", sender, direct(world, "x")) is None
    storage = world.reopened(storage, Limits(mail_bytes=4 * 201))
    if world.survives:
        assert storage.keep("bob", "eve", direct(world, "x", "Eve")) is None
        assert storage.keep("bob", "frank", direct(world, "x", "Frank")) is not None


def test_old_messages_take_no_space_for_all(world: World):
    storage = world.open(Limits(mail_bytes=500, mail_s=60.0))
    assert storage.keep("bob", "alice", direct(world, "x" * 200)) is not None
    assert storage.keep("carol", "alice", direct(world, "x" * 200)) is None
    world.clock.now += 3_700
    storage.audit(act(1))
    storage.acts(1)
    assert storage.keep("carol", "alice", direct(world, "x" * 200)) is not None


def test_a_forgotten_account_leaves_no_mail_to_its_successor(world: World):
    storage = world.open()
    storage.save(account("bob"))
    storage.keep("bob", "alice", direct(world))
    storage.forget(account("bob"))
    storage.save(account("bob"))
    storage.acts(1)
    assert storage.mailbox("bob", 0, 100) == []
    assert not storage.has_mail("bob")


def test_threads_that_keep_at_the_same_time_do_not_exceed_the_limit(world: World):
    storage = world.open(Limits(mail_per_account=30, mail_per_sender=7))
    with ThreadPoolExecutor(8) as pool:
        senders = [f"sender{number % 8}" for number in range(80)]
        kept = list(pool.map(lambda sender: storage.keep("bob", sender, direct(world)), senders))
    numbers = [one.number for one in kept if one is not None]
    assert len(set(numbers)) == len(numbers) == 30
    assert [one.number for one in storage.mailbox("bob", 0, 100)] == sorted(numbers)


@pytest.mark.parametrize("settled", [False, True], ids=["at once", "later"])
def test_messages_that_are_put_back_are_where_they_were(world: World, settled: bool):
    storage = world.open(Limits(mail_per_sender=3))
    kept = [storage.keep("alice", "bob", direct(world, text, "Bob")) for text in "abc"]
    taken = storage.take(storage.mailbox("alice", 0, 100))
    if settled:
        storage.settle()
        assert not storage.has_mail("alice")
    storage.put_back(taken[1:])
    assert storage.has_mail("alice")
    assert storage.mailbox("alice", 0, 100) == kept[1:]
    # They count, for their sender too.
    assert storage.keep("alice", "bob", direct(world, "d", "Bob")) is not None
    assert storage.keep("alice", "bob", direct(world, "e", "Bob")) is None
    assert [one.message.text for one in storage.take(storage.mailbox("alice", 0, 100))] == ["b", "c", "d"]
    storage.settle()
    assert not storage.has_mail("alice")
    assert storage.mailbox("alice", 0, 100) == []


def test_what_is_put_back_and_taken_again_at_once_is_gone(world: World):
    storage = world.open()
    storage.keep("alice", "bob", direct(world, "one", "Bob"))
    taken = storage.take(storage.mailbox("alice", 0, 100))
    for _ in range(3):
        storage.put_back(taken)
        assert storage.take(taken) == taken
    storage.settle()
    assert storage.mailbox("alice", 0, 100) == []
    assert storage.take(taken) == []


@surviving
def test_what_was_put_back_survives(world: World):
    storage = world.open()
    kept = storage.keep("alice", "bob", direct(world, "one", "Bob"))
    taken = storage.take(storage.mailbox("alice", 0, 100))
    storage.settle()
    storage.put_back(taken)
    storage = world.reopened(storage)
    assert storage.mailbox("alice", 0, 100) == [kept]


@surviving
def test_mail_survives_and_what_was_taken_does_not_return(world: World):
    storage = world.open()
    first = storage.keep("bob", "alice", direct(world, "one"))
    second = storage.keep("bob", "alice", direct(world, "two"))
    assert first is not None
    storage.take([first])
    storage = world.reopened(storage)
    assert storage.has_mail("bob")
    assert not storage.has_mail("alice")
    assert storage.mailbox("bob", 0, 100) == [second]
    third = storage.keep("bob", "alice", direct(world, "three"))
    assert second is not None
    assert third is not None
    assert third.number > second.number
    storage.take(storage.mailbox("bob", 0, 100))
    storage = world.reopened(storage)
    fourth = storage.keep("bob", "alice", direct(world, "four"))
    assert fourth is not None
    assert fourth.number > third.number


# --- The audit log ---


def test_the_latest_acts_are_read_oldest_first(world: World):
    storage = world.open()
    for number in range(5):
        storage.audit(act(number, room="dev" if number % 2 else ""))
    assert storage.acts(3) == [act(2), act(3, "dev"), act(4)]
    assert storage.acts(0) == []
    assert len(storage.acts(100)) == 5


@surviving
def test_acts_survive_and_those_on_the_whole_server_are_all_kept(world: World):
    storage = world.open(Limits(room_acts=10))
    for number in range(0, 100, 2):
        storage.audit(act(number))
        storage.audit(act(number + 1, room="dev"))
    storage = world.reopened(storage, Limits(room_acts=10))
    storage.audit(act(100))
    kept = storage.acts(1_000)
    assert [one for one in kept if not one.room] == [act(number) for number in range(0, 102, 2)]
    assert [one for one in kept if one.room] == [act(number, "dev") for number in range(81, 100, 2)]


def kept_acts(storage: Storage) -> dict[str, list[int]]:
    """The times of the acts of each room, oldest first, once those that are too many have been removed."""
    storage.settle()
    storage.audit(act(0))
    found: dict[str, list[int]] = {}
    for one in storage.acts(1_000):
        if one.room:
            found.setdefault(one.room, []).append(one.time_ms)
    return found


def test_the_acts_of_one_room_do_not_displace_those_of_another(world: World):
    storage = world.open(Limits(room_acts=10))
    for key in ("dev", "ops"):
        storage.save(RoomRecord(key, key))
    for number in range(3):
        storage.audit(act(number, room="dev"))
    for number in range(3, 60):
        storage.audit(act(number, room="ops"))
    assert kept_acts(storage) == {"dev": [0, 1, 2], "ops": list(range(53, 60))}


def test_the_acts_of_a_room_that_is_gone_make_way_first(world: World):
    storage = world.open(Limits(room_acts=10))
    for key in ("dev", "ops"):
        storage.save(RoomRecord(key, key))
    for number in range(10):
        storage.audit(act(number, room="dev" if number % 2 else "ops"))
    storage.forget(RoomRecord("ops", "ops"))
    storage.settle()
    for number in range(10, 14):
        storage.audit(act(number, room="dev"))
    assert kept_acts(storage) == {"ops": [8], "dev": [1, 3, 5, 7, 9, 10, 11, 12, 13]}


# --- Being ready ---


def test_a_storage_that_has_written_everything_is_ready_for_ids_in_old_and_new_rooms(world: World):
    storage = with_lobby(world)
    assert storage.is_ready()
    assert storage.is_ready("lobby", 1)
    assert storage.is_ready("new", 20_000)


def test_ids_can_be_used_as_fast_as_they_are_said(world: World):
    storage = with_lobby(world)
    last_id = 0
    for _ in range(50):
        # Half of what is reserved, without a pause in between that would need one.
        assert storage.is_ready("lobby", last_id + 30_000)
        last_id += 30_000
        say(storage, last_id, "hi")
        storage.before("lobby", 1, 1)
    stored = storage.before("lobby", last_id + 1, 1)
    assert [message.id for message in stored] == ([last_id] if world.keeps_messages else [])


def test_everything_is_kept_at_the_end(world: World):
    storage = with_lobby(world)
    for id in range(1, 5_000):
        say(storage, id, str(id))
    world.close(storage)
    if world.survives:
        storage = world.open()
        assert storage.load().rooms[0].last_id == 4_999
        assert [id for id, _ in texts(storage, limit=10_000)] == list(range(1, 5_000))
