"""The owner of a room, for how long, and the next owner."""

from __future__ import annotations

import pytest

from geventchat.chat.commands import Command, EnterRoom, LeaveRoom, PassOwnership, Quit
from geventchat.chat.events import Action, Rejection
from tests.geventchat.moderated_chat import LOBBY, NOW_S, ModeratedChat


@pytest.fixture
def scene() -> ModeratedChat:
    return ModeratedChat()


def test_the_first_to_enter_owns_the_room_and_the_next_does_not(scene: ModeratedChat):
    scene.login("alice", "dev")
    scene.login("bob", "dev")
    assert scene.owner("dev") == "alice"


def test_the_lobby_has_no_owner(scene: ModeratedChat):
    alice = scene.login("alice")
    assert scene.owner(LOBBY) == ""
    alice.enters("dev")
    alice.do(LeaveRoom())
    assert scene.owner(LOBBY) == ""


def test_without_an_account_one_still_owns_the_room_after_leaving_it(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    scene.login("bob", "dev")
    alice.do(LeaveRoom())
    assert scene.owner("dev") == "alice"
    scene.login("carol", "dev")
    assert scene.owner("dev") == "alice"


def test_without_an_account_ownership_ends_with_the_session_and_passes_to_the_one_who_has_been_there_longest(
    scene: ModeratedChat,
):
    alice = scene.login("alice", "dev")
    carol = scene.login("carol", "dev")
    scene.login("bob", "dev")
    carol.do(LeaveRoom())
    carol.enters("dev")
    alice.do(LeaveRoom())
    alice.do(Quit())
    assert scene.owner("dev") == "bob"


def test_a_lost_connection_passes_ownership_on_as_a_quit_does(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    scene.login("bob", "dev")
    scene.chat.leave(alice.session)
    assert scene.owner("dev") == "bob"


def test_an_empty_room_whose_owner_left_belongs_to_the_next_person_who_enters(
    scene: ModeratedChat,
):
    alice = scene.login("alice", "dev")
    alice.do(Quit())
    assert scene.owner("dev") == ""
    scene.login("bob", "dev")
    assert scene.owner("dev") == "bob"


def test_a_newcomer_with_the_name_of_the_last_owner_owns_nothing(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    scene.login("bob", "dev")
    alice.do(Quit())
    scene.login("alice", "dev")
    assert scene.owner("dev") == "bob"


def test_all_rooms_of_a_session_are_passed_on(scene: ModeratedChat):
    alice = scene.login("alice", many=True)
    for room, heir in [("dev", "bob"), ("ops", "carol")]:
        alice.enters(room)
        scene.login(heir, room)
    alice.enters("empty")
    alice.do(Quit())
    assert [scene.owner(room) for room in ("dev", "ops", "empty")] == ["bob", "carol", ""]


def test_an_owner_with_an_account_keeps_the_room_while_away(scene: ModeratedChat):
    alice = scene.login("alice", "dev", account=True)
    scene.login("bob", "dev")
    alice.do(Quit())
    assert scene.owner("dev") == "alice@"
    scene.login("alice", "dev", account=True)
    assert scene.owner("dev") == "alice@"


def test_an_heir_with_an_account_owns_the_room_by_it(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    bob = scene.login("bob", "dev", account=True)
    alice.do(Quit())
    bob.do(Quit())
    assert scene.owner("dev") == "bob@"


def test_closing_the_server_passes_nothing_on(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    scene.login("bob", "dev", account=True)
    scene.chat.close(alice.session)
    assert not scene.room("dev").kept


# --- Passing it on ---------------------------------------------------------------------------------------------------


def test_ownership_is_passed_to_someone_in_the_room(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    scene.login("bob", "dev")
    assert alice.succeeds(PassOwnership("BOB")) is Action.OWNERSHIP_PASSED
    assert scene.owner("dev") == "bob"
    assert alice.refused(PassOwnership("alice")) is Rejection.NOT_PERMITTED


@pytest.mark.parametrize("who", ["absent", "carol"])
def test_ownership_cannot_be_passed_to_a_user_outside_the_room(scene: ModeratedChat, who: str):
    alice = scene.login("alice", "dev")
    scene.login("carol")
    assert alice.refused(PassOwnership(who)) is Rejection.USER_NOT_FOUND
    assert scene.owner("dev") == "alice"


def test_an_owner_who_passes_the_room_to_himself_keeps_it(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    alice.succeeds(PassOwnership("alice"))
    assert scene.owner("dev") == "alice"


# --- Limits ----------------------------------------------------------------------------------------------------------


def test_an_account_keeps_a_limited_number_of_rooms_and_owns_further_ones_as_anyone_does():
    scene = ModeratedChat(kept_rooms=2)
    alice = scene.login("alice", account=True)
    for room in ("one", "two", "three"):
        alice.enters(room)
    assert [scene.owner(room) for room in ("one", "two", "three")] == ["alice@", "alice@", "alice"]
    scene.login("bob", "three")
    alice.do(Quit())
    assert [scene.owner(room) for room in ("one", "two", "three")] == ["alice@", "alice@", "bob"]


def test_an_account_that_gives_a_room_away_can_keep_another():
    scene = ModeratedChat(kept_rooms=1)
    alice = scene.login("alice", "one", account=True)
    scene.login("bob", "one", account=True)
    alice.succeeds(PassOwnership("bob"))
    alice.enters("two")
    assert [scene.owner(room) for room in ("one", "two")] == ["bob@", "alice@"]


def test_a_session_owns_no_more_rooms_than_it_can_be_in():
    scene = ModeratedChat(rooms_per_client=2)
    alice = scene.login("alice")
    alice.enters("one")
    alice.enters("two")
    assert alice.refused(EnterRoom("three")) is Rejection.TOO_MANY_ROOMS
    assert scene.chat.rooms.find("three") is None
    bob = scene.login("bob", "four")
    alice.enters("four")
    assert bob.refused(PassOwnership("alice")) is Rejection.TOO_MANY_ROOMS
    bob.do(Quit())
    assert scene.owner("four") == "", "the only person in it owns too many rooms already"
    scene.login("carol", "four")
    assert scene.owner("four") == "carol"


def test_new_rooms_are_counted_by_the_connection(scene: ModeratedChat):
    alice = scene.login("alice")
    bob = scene.login("bob", "dev")
    alice.peer.rooms_left = 1
    alice.enters("one")
    alice.enters("dev")
    alice.enters("one")
    assert alice.refused(EnterRoom("two")) is Rejection.TOO_MANY_ROOMS
    bob.enters("two")
    alice.enters("two")


def test_a_room_that_is_not_created_for_another_reason_is_not_counted():
    scene = ModeratedChat(rooms=2)
    alice = scene.login("alice", "one")
    left = alice.peer.rooms_left
    assert alice.refused(EnterRoom("two")) is Rejection.TOO_MANY_ROOMS
    assert alice.refused(EnterRoom("a b")) is Rejection.ROOM_NAME_INVALID
    assert alice.peer.rooms_left == left


# --- How long rooms are kept -----------------------------------------------------------------------------------------


def test_an_empty_room_is_kept_for_ten_minutes_and_one_of_an_account_for_ninety_days(scene: ModeratedChat):
    scene.login("alice", "dev", account=True).do(Quit())
    scene.login("bob", "ops").do(Quit())
    rooms = scene.chat.rooms
    scene.now_s = NOW_S + 599
    assert rooms.find("ops") is not None
    scene.now_s = NOW_S + 600
    assert rooms.find("ops") is None
    assert [room.key for room in rooms.listed()] == [LOBBY, "dev"]
    scene.now_s = NOW_S + 90 * 86_400 - 1
    assert scene.owner("dev") == "alice@"
    scene.now_s = NOW_S + 90 * 86_400
    assert rooms.find("dev") is None
    assert [room.key for room in rooms.listed()] == [LOBBY]


def test_a_kept_room_that_is_used_again_is_kept_as_long_again(scene: ModeratedChat):
    alice = scene.login("alice", "dev", account=True)
    alice.do(LeaveRoom())
    scene.now_s += 89 * 86_400
    scene.login("bob", "dev").do(LeaveRoom())
    scene.now_s += 2 * 86_400
    assert scene.owner("dev") == "alice@"


def test_a_kept_room_is_not_deleted_while_someone_is_there(scene: ModeratedChat):
    alice = scene.login("alice", "dev", account=True)
    alice.do(LeaveRoom())
    scene.login("bob", "dev")
    scene.now_s += 91 * 86_400
    assert scene.owner("dev") == "alice@"


def test_a_room_that_is_deleted_makes_way_for_another_of_the_same_owner():
    scene = ModeratedChat(kept_rooms=1, rooms_per_client=1)
    alice = scene.login("alice", "one", account=True)
    alice.enters("two")
    alice.do(LeaveRoom())
    assert alice.refused(EnterRoom("three")) is Rejection.TOO_MANY_ROOMS
    scene.now_s += 600
    alice.enters("three")
    assert [scene.owner(room) for room in ("one", "three")] == ["alice@", "alice"]
    alice.do(LeaveRoom())
    scene.now_s += 90 * 86_400
    alice.enters("four")
    assert scene.owner("four") == "alice@"


def keeps(scene: ModeratedChat, name: str, *rooms: str) -> None:
    """An account that has left these rooms, the first one first."""
    client = scene.login(name, account=True)
    for room in rooms:
        client.enters(room)
        scene.now_s += 0.01
    client.do(Quit())


def rooms_of(scene: ModeratedChat) -> set[str]:
    return {room.key for room in scene.chat.rooms} - {LOBBY}


def test_when_all_rooms_are_taken_whoever_keeps_the_most_empty_ones_loses_the_longest_empty_of_them():
    scene = ModeratedChat(rooms=9)
    keeps(scene, "eve", "e1", "e2", "e3", "e4")
    keeps(scene, "bob", "b1", "b2", "b3")
    scene.login("amy", "a1")
    kept = {"e1", "e2", "e3", "e4", "b1", "b2", "b3", "a1"}
    for number, lost in enumerate(("e1", "e2", "b1")):
        assert rooms_of(scene) == kept
        scene.login(f"n{number}", f"n{number}")
        kept = kept - {lost} | {f"n{number}"}
    assert rooms_of(scene) == kept


def test_a_room_that_is_used_again_makes_no_way_for_another():
    scene = ModeratedChat(rooms=8)
    keeps(scene, "eve", "e1", "e2", "e3")
    keeps(scene, "bob", "b1", "b2", "b3", "b4")
    scene.login("n1", "n1")
    assert rooms_of(scene) == {"e1", "e2", "e3", "b2", "b3", "b4", "n1"}
    scene.login("amy", "e1")
    scene.login("n2", "n2")
    assert rooms_of(scene) == {"e1", "e2", "e3", "b3", "b4", "n1", "n2"}


def test_rooms_that_are_kept_while_they_are_empty_make_way_only_while_they_are_more_than_half_of_all():
    scene = ModeratedChat(rooms=7)
    keeps(scene, "eve", "e1", "e2", "e3", "e4")
    scene.login("n1", "n1")
    scene.login("n2", "n2")
    hasty = scene.login("hasty")
    hasty.peer.rooms_left = 0
    assert hasty.refused(EnterRoom("n3")) is Rejection.TOO_MANY_ROOMS
    assert rooms_of(scene) == {"e1", "e2", "e3", "e4", "n1", "n2"}
    scene.login("n3", "n3")
    assert rooms_of(scene) == {"e2", "e3", "e4", "n1", "n2", "n3"}
    assert scene.login("n4").refused(EnterRoom("n4")) is Rejection.TOO_MANY_ROOMS


def test_an_owner_who_quits_after_the_room_is_gone_leaves_nothing_behind(scene: ModeratedChat):
    alice = scene.login("alice", "dev")
    alice.do(LeaveRoom())
    scene.now_s += 600
    bob = scene.login("bob", "dev")
    alice.do(Quit())
    assert scene.owner("dev") == "bob"
    bob.do(Quit())
    assert scene.owner("dev") == ""


@pytest.mark.parametrize("command", [PassOwnership("bob"), Quit()])
def test_a_room_that_should_be_gone_does_not_count_against_its_owner(command: Command):
    scene = ModeratedChat(rooms_per_client=1)
    alice = scene.login("alice", "dev")
    bob = scene.login("bob", "old")
    bob.enters("dev")
    scene.now_s += 601
    # The rooms have not been looked at since.
    alice.do(command)
    assert scene.owner("dev") == "bob"
