"""Permissions to see, enter and speak: private and moderated rooms, keys, invitations, voice."""

from __future__ import annotations

import pytest

from geventchat.chat.commands import (
    AnnounceTyping,
    AskTopic,
    EnterRoom,
    Impose,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListRooms,
    Login,
    Quit,
    Register,
    Sanction,
    Say,
    SendDirectMessage,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
    Who,
)
from geventchat.chat.events import Accepted, Action, Invited, Rejected, Rejection, RoomList, Said
from geventchat.chat.passwords import Secret
from geventchat.chat.records import RoomRecord
from tests.geventchat.moderated_chat import LOBBY, NOW_MS, Client, ModeratedChat

DAY_S = 86_400


@pytest.fixture
def scene() -> ModeratedChat:
    return ModeratedChat()


@pytest.fixture
def alice(scene: ModeratedChat) -> Client:
    """The owner of a room `dev` with `bob` in it."""
    alice = scene.login("alice", "dev")
    scene.login("bob", "dev")
    alice.take()
    return alice


def listed(client: Client) -> list[str]:
    (event,) = client.do(ListRooms())
    assert isinstance(event, RoomList)
    return [one.room for one in event.rooms]


# --- Private rooms ---------------------------------------------------------------------------------------------------


def test_a_private_room_is_listed_for_those_who_are_in_it_and_for_its_owner_alone(scene, alice):
    assert alice.succeeds(SetPrivate(on=True)) is Action.MADE_PRIVATE
    alice.do(LeaveRoom())
    carol, op = scene.login("carol"), scene.login("op", account=True)
    bob = scene.chat._sessions["bob"]
    assert listed(carol) == [LOBBY]
    assert listed(alice) == listed(op) == [LOBBY, "dev"]
    assert [one.room for one in scene.chat._listings(bob)] == [LOBBY, "dev"]
    alice.enters("dev")
    carol.enters("ops")
    for _ in range(2):
        # It is where it was.
        assert alice.succeeds(SetPrivate(on=False)) is Action.MADE_PUBLIC
        assert listed(carol) == [LOBBY, "dev", "ops"]


def test_a_list_of_rooms_has_a_limited_length():
    scene = ModeratedChat(listed_rooms=4)
    people = [scene.login(f"p{n}", f"room{n}") for n in range(6)]
    carol, op = people[5], scene.login("op", account=True)
    assert listed(people[0]) == [LOBBY, "room0", "room1", "room2"]
    carol.do(SetPrivate(on=True))
    assert listed(carol) == [LOBBY, "room0", "room1", "room5"]
    assert listed(op) == [LOBBY, "room0", "room1", "room2"]


def test_people_in_a_room_that_becomes_private_stay(scene, alice):
    alice.do(SetPrivate(on=True))
    alice.do(Say(["hi"]))
    bob = scene.chat._sessions["bob"]
    assert isinstance(bob.subscriber.take()[-1], Said)


@pytest.mark.parametrize("secret", ["", "sesame"])
def test_a_stranger_learns_of_a_private_room_only_that_it_is_private(scene, alice, secret):
    """The answers are the same whether the room has a key or not, and whether the stranger is banned or not."""
    alice.do(SetPrivate(on=True))
    alice.do(SetKey(secret))
    carol = scene.login("carol")
    for _ in range(2):
        assert carol.refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED
        assert carol.refused(EnterRoom("dev", "wrong")) is Rejection.WRONG_KEY
        assert carol.refused(AskTopic("dev")) is Rejection.NO_SUCH_ROOM
        assert carol.refused(AskTopic("nowhere")) is Rejection.NO_SUCH_ROOM
        alice.do(Impose(Sanction.BAN, "carol"))


def test_commands_about_a_room_that_one_can_see_say_that_one_is_not_in_it(scene, alice):
    carol, op = scene.login("carol"), scene.login("op", account=True)
    assert carol.refused(Who("dev")) is Rejection.NOT_IN_ROOM
    alice.do(SetPrivate(on=True))
    assert carol.refused(Who("dev")) is Rejection.NO_SUCH_ROOM
    assert op.refused(Who("dev")) is Rejection.NOT_IN_ROOM
    alice.do(LeaveRoom())
    assert alice.refused(Who("dev")) is Rejection.NOT_IN_ROOM


def test_the_owner_moderators_and_operators_enter_a_private_room_at_any_time(scene):
    alice, mod = scene.login("alice", "dev", account=True), scene.login("mod", "dev", account=True)
    alice.do(SetModerator("mod", on=True))
    alice.do(SetPrivate(on=True))
    op = scene.login("op", account=True)
    for client in (alice, mod):
        client.do(LeaveRoom())
    for client in (alice, mod, op):
        client.enters("dev")


def test_the_operators_name_without_the_account_cannot_be_used(scene):
    assert scene.connect().refused(Login("OP")) is Rejection.NAME_INVALID
    assert scene.connect(account="op2").refused(Login("op")) is Rejection.NAME_INVALID
    scene.login("op", account=True)


def test_a_reserved_name_can_be_that_of_an_operator():
    scene = ModeratedChat(operators=["admin"])
    assert scene.connect().refused(Login("admin")) is Rejection.NAME_INVALID
    assert scene.connect(account="root").refused(Login("root")) is Rejection.NAME_INVALID
    scene.login("admin", account=True)


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_a_private_room_is_entered_with_its_key(scene, alice):
    alice.do(SetPrivate(on=True))
    assert alice.succeeds(SetKey("open sesame")) is Action.KEY_SET
    carol = scene.login("carol")
    assert carol.refused(EnterRoom("dev", "sesame")) is Rejection.WRONG_KEY
    carol.enters("dev", "open sesame")
    carol.do(LeaveRoom())
    assert alice.succeeds(SetKey("")) is Action.KEY_REMOVED
    assert carol.refused(EnterRoom("dev", "open sesame")) is Rejection.WRONG_KEY


def test_a_room_with_a_key_that_is_not_private_is_listed_and_asks_for_the_key(scene, alice):
    alice.do(SetKey("sesame"))
    carol = scene.login("carol")
    assert listed(carol) == [LOBBY, "dev"]
    assert carol.refused(EnterRoom("dev")) is Rejection.WRONG_KEY
    assert carol.refused(EnterRoom("dev", "Sesame")) is Rejection.WRONG_KEY
    carol.enters("dev", "sesame")


def test_a_key_of_invisible_characters_is_none(scene, alice):
    assert alice.succeeds(SetKey("\u200b")) is Action.KEY_REMOVED
    alice.do(SetKey("a\u200bb"))
    carol = scene.login("carol")
    carol.enters("dev", "a\u200bb")
    carol.do(LeaveRoom())
    carol.enters("dev", "ab")


def test_a_key_that_is_too_long_is_refused(scene):
    alice = scene.login("alice", "dev")
    alice.do(SetKey("x" * 64))
    assert alice.refused(SetKey("y" * 65)) is Rejection.KEY_TOO_LONG
    assert scene.room("dev").room_key == "x" * 64


# --- Invitations -----------------------------------------------------------------------------------------------------


def test_an_invitation_opens_a_private_room_and_one_with_a_key(scene, alice):
    carol = scene.login("carol")
    for close in (SetPrivate(on=True), SetKey("sesame")):
        alice.do(close)
        carol.take()
        assert alice.do(Invite("CAROL")) == [Accepted(Action.INVITED, "dev", "carol")]
        assert carol.take() == [Invited("dev", "alice", NOW_MS)]
        carol.enters("dev")
        carol.do(LeaveRoom())
        carol.enters("dev")
        alice.do(Kick("carol"))
        alice.do(SetPrivate(on=False))
    assert carol.refused(EnterRoom("dev")) is Rejection.WRONG_KEY


def test_a_kick_or_a_ban_cancels_an_invitation(scene, alice):
    alice.do(SetPrivate(on=True))
    carol = scene.login("carol")
    for remove in (Kick("carol"), Impose(Sanction.BAN, "carol")):
        alice.do(Invite("carol"))
        carol.enters("dev")
        alice.do(remove)
        assert carol.refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED
    alice.do(Invite("carol"))
    assert carol.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    alice.do(Lift(Sanction.BAN, "carol"))
    carol.enters("dev")


@pytest.mark.parametrize("who", ["carol", "account:carol", "name:carol"])
def test_a_ban_of_someone_who_is_away_cancels_the_invitation_of_the_account(scene, alice, who):
    op = scene.login("op", "dev", account=True)
    alice.do(SetPrivate(on=True))
    carol = scene.login("carol", account=True)
    alice.do(Invite("carol"))
    carol.do(Quit())
    op.do(Impose(Sanction.MUTE, who, 600))
    assert invited_to(scene, "dev") == ["carol"]
    op.do(Impose(Sanction.BAN, who, 600))
    assert invited_to(scene, "dev") == []
    scene.now_s += 600
    carol = scene.login("carol", account=True)
    assert carol.refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED


def invited_to(scene: ModeratedChat, key: str) -> list[str]:
    """The accounts that are invited to the room, as the storage has it."""
    records = [one for one in scene.storage.saved if isinstance(one, RoomRecord) and one.key == key]
    return [guest for guest, _ in records[-1].invited]


def test_an_invitation_is_good_for_a_week(scene, alice):
    alice.do(SetPrivate(on=True))
    carol = scene.login("carol")
    alice.do(Invite("carol"))
    scene.now_s += 7 * DAY_S - 1
    carol.enters("dev")
    carol.do(LeaveRoom())
    scene.now_s += 1
    assert carol.refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED


def test_an_invitation_without_an_account_ends_with_the_session_and_with_one_it_does_not(scene, alice):
    alice.do(SetPrivate(on=True))
    guest, member = scene.login("guest"), scene.login("member", account=True)
    for client in (guest, member):
        alice.do(Invite(client.session.name.shown))
        client.do(Quit())
    assert scene.login("guest").refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED
    assert scene.login("another", account=True).refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED
    scene.login("member", "dev", account=True)


def test_the_oldest_invitations_are_forgotten():
    scene = ModeratedChat(invitations=2)
    alice = scene.login("alice", "dev")
    alice.do(SetPrivate(on=True))
    guests = [scene.login(name) for name in ("a", "b", "c")]
    for name in ("a", "b", "b"):
        alice.do(Invite(name))
    guests[0].enters("dev")
    guests[0].do(LeaveRoom())
    for name in ("a", "c"):
        alice.do(Invite(name))
    assert len(scene.room("dev").invitations) == 2
    guests[0].enters("dev")
    guests[2].enters("dev")
    assert guests[1].refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED


def test_an_invitation_to_an_open_room_is_remembered_no_longer_than_it_is_read(scene, alice):
    carol = scene.login("carol")
    alice.do(Invite("carol"))
    assert carol.take() == [Invited("dev", "alice", NOW_MS)]
    alice.do(SetPrivate(on=True))
    assert carol.refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED


def test_everyone_can_invite_to_an_open_room_and_only_moderators_to_a_closed_one(scene, alice):
    scene.login("carol")
    bob = scene.login("bobby", "dev")
    assert bob.succeeds(Invite("carol")) is Action.INVITED
    alice.do(SetPrivate(on=True))
    assert bob.refused(Invite("carol")) is Rejection.NOT_PERMITTED
    alice.do(SetPrivate(on=False))
    alice.do(SetKey("sesame"))
    assert bob.refused(Invite("carol")) is Rejection.NOT_PERMITTED


def test_a_user_in_the_room_receives_no_invitation_to_it(scene, alice):
    carol = scene.login("carol", "dev")
    assert alice.succeeds(Invite("carol")) is Action.INVITED
    assert carol.take() == []


def test_an_invitation_of_an_absent_person_is_refused(alice):
    assert alice.refused(Invite("absent")) is Rejection.USER_NOT_FOUND


def test_an_invitation_waits_for_its_recipient_as_a_direct_message_does(scene, alice):
    carol = scene.login("carol")
    gate = carol.subscriber.stranger_gate
    gate.open = False
    assert scene.chat.handle(alice.session, Invite("carol")).gate is gate
    assert carol.take() == alice.take() == []
    assert not scene.storage.acts_noted
    carol.do(SendDirectMessage("alice", "hello"))
    alice.do(Invite("carol"))
    assert carol.subscriber.strangers == [False], "she has written to alice"


# --- Moderated rooms -------------------------------------------------------------------------------------------------


def test_in_a_moderated_room_only_people_with_voice_and_those_who_moderate_speak(scene, alice):
    bob, mod = scene.login("bobby", "dev"), scene.login("mod", "dev", account=True)
    op = scene.login("op", "dev", account=True)
    alice.do(SetModerator("mod", on=True))
    assert alice.succeeds(SetModerated(on=True)) is Action.MODERATION_ON
    assert bob.refused(Say(["hi"])) is Rejection.NO_VOICE
    assert bob.refused(SetTopic("hi")) is Rejection.NO_VOICE
    for client in (alice, mod, op):
        assert client.do(Say(["hi"])) == []
    assert alice.succeeds(SetVoice("bobby", on=True)) is Action.VOICE_GIVEN
    assert bob.do(Say(["hi"])) == []
    assert alice.succeeds(SetVoice("bobby", on=False)) is Action.VOICE_TAKEN
    assert bob.refused(Say(["hi"])) is Rejection.NO_VOICE
    assert alice.succeeds(SetModerated(on=False)) is Action.MODERATION_OFF
    assert bob.do(Say(["hi"])) == []


def test_people_without_voice_can_write_to_each_other(scene, alice):
    bob = scene.login("bobby", "dev")
    alice.do(SetModerated(on=True))
    assert len(bob.do(SendDirectMessage("alice", "may I?"))) == 1


def test_voice_without_an_account_ends_when_the_room_is_left(scene, alice):
    bob = scene.login("bobby", "dev")
    alice.do(SetModerated(on=True))
    alice.do(SetVoice("bobby", on=True))
    bob.do(LeaveRoom())
    bob.enters("dev")
    assert bob.refused(Say(["hi"])) is Rejection.NO_VOICE


def test_voice_with_an_account_lasts(scene, alice):
    bob = scene.login("bobby", "dev", account=True)
    alice.do(SetModerated(on=True))
    alice.do(SetVoice("bobby", on=True))
    bob.do(Quit())
    bob = scene.login("bobby", "dev", account=True)
    assert bob.do(Say(["hi"])) == []
    bob.do(Quit())
    assert alice.succeeds(SetVoice("bobby", on=False)) is Action.VOICE_TAKEN, "although he is away"
    bob = scene.login("bobby", "dev", account=True)
    assert bob.refused(Say(["hi"])) is Rejection.NO_VOICE


def test_voice_that_was_given_before_and_after_registering_is_taken_at_once(scene, alice):
    bob = scene.login("bobby", "dev")
    alice.do(SetModerated(on=True))
    alice.do(SetVoice("bobby", on=True))
    assert bob.succeeds(Register(Secret("correct horse"))) is Action.REGISTERED
    alice.do(SetVoice("bobby", on=True))
    assert bob.do(Say(["hi"])) == []
    assert alice.succeeds(SetVoice("bobby", on=False)) is Action.VOICE_TAKEN
    assert bob.refused(Say(["hi"])) is Rejection.NO_VOICE


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("who", ["absent", "carol"])
def test_voice_is_for_those_who_are_there(scene, alice, who, on):
    scene.login("carol")
    assert alice.refused(SetVoice(who, on)) is Rejection.USER_NOT_FOUND


def test_accounts_with_voice_and_moderators_have_a_limit():
    scene = ModeratedChat(room_roles=2)
    alice = scene.login("alice", "dev")
    for name in ("a", "b", "c"):
        scene.login(name, "dev", account=True)
    for command in (SetVoice, SetModerator):
        for name in ("a", "b", "a"):
            alice.succeeds(command(name, on=True))
        assert alice.refused(command("c", on=True)) is Rejection.LIST_FULL
        alice.succeeds(command("a", on=False))
        alice.succeeds(command("c", on=True))
    scene.login("guest", "dev")
    alice.succeeds(SetVoice("guest", on=True))


# --- Moderators ------------------------------------------------------------------------------------------------------


def test_a_moderator_needs_an_account_and_need_not_be_in_the_room(scene, alice):
    scene.login("carol", account=True)
    assert alice.refused(SetModerator("bob", on=True)) is Rejection.NOT_PERMITTED
    assert alice.refused(SetModerator("absent", on=True)) is Rejection.USER_NOT_FOUND
    assert alice.succeeds(SetModerator("carol", on=True)) is Action.MODERATOR_ADDED
    assert scene.room("dev").moderators == {"carol"}


def test_a_moderator_stays_one_until_the_owner_says_otherwise(scene, alice):
    mod = scene.login("mod", "dev", account=True)
    alice.do(SetModerator("mod", on=True))
    mod.do(Quit())
    mod = scene.login("mod", "dev", account=True)
    assert mod.succeeds(Kick("bob")) is Action.KICKED
    mod.do(Quit())
    assert alice.succeeds(SetModerator("mod", on=False)) is Action.MODERATOR_REMOVED
    assert alice.refused(SetModerator("mod", on=False)) is Rejection.USER_NOT_FOUND
    mod = scene.login("mod", "dev", account=True)
    scene.login("carol", "dev")
    assert mod.refused(Kick("carol")) is Rejection.NOT_PERMITTED


def test_the_name_of_a_moderator_without_the_account_gives_no_rights(scene, alice):
    scene.room("dev").moderators.add("mod")
    mod = scene.login("mod", "dev")
    assert mod.refused(Kick("bob")) is Rejection.NOT_PERMITTED


def test_roles_in_one_room_are_none_in_another(scene, alice):
    mod = scene.login("mod", "dev", account=True)
    alice.do(SetModerator("mod", on=True))
    alice.do(SetVoice("mod", on=True))
    carol = scene.login("carol", "ops")
    carol.do(SetModerated(on=True))
    for client in (mod, alice):
        client.enters("ops")
        (refused,) = client.do(Say(["hi"]))
        assert refused == Rejected(Rejection.NO_VOICE, "ops")
        assert client.refused(Kick("carol")) is Rejection.NOT_PERMITTED


# --- Clients that are in many rooms ----------------------------------------------------------------------------------


def test_a_login_to_many_rooms_is_refused_by_those_that_it_may_not_enter(scene, alice):
    alice.do(SetPrivate(on=True))
    other = scene.login("other", "ops")
    other.do(SetKey("sesame"))
    carol = scene.connect()
    asked = (EnterRoom("dev"), EnterRoom("ops", "wrong"), EnterRoom("new"), EnterRoom(LOBBY))
    welcome, *refused = carol.do(Login("carol", rooms=asked))
    assert [entered.room for entered in welcome.rooms] == ["new", LOBBY]
    assert refused == [
        Rejected(Rejection.INVITATION_REQUIRED, "dev", "dev"),
        Rejected(Rejection.WRONG_KEY, "ops", "ops"),
    ]
    assert scene.owner("new") == "carol"
    assert carol.session.login_number > other.session.login_number


def test_a_login_to_many_rooms_enters_those_that_it_has_the_key_of(scene, alice):
    alice.do(SetKey("sesame"))
    carol = scene.connect()
    (welcome,) = carol.do(Login("carol", rooms=(EnterRoom("dev", "sesame"),)))
    assert [entered.room for entered in welcome.rooms] == ["dev"]
    assert scene.owner("dev") == "alice"


def test_a_login_to_many_rooms_creates_no_more_rooms_than_allowed(scene):
    carol = scene.connect()
    carol.peer.rooms_left = 1
    welcome, *refused = carol.do(Login("carol", rooms=(EnterRoom("one"), EnterRoom("two"))))
    assert [entered.room for entered in welcome.rooms] == ["one"]
    assert refused == [Rejected(Rejection.TOO_MANY_ROOMS, "two", "two")]


def test_a_room_that_one_is_in_can_be_entered_again_whatever_has_changed(scene, alice):
    carol = scene.login("carol", "dev", many=True)
    alice.do(SetPrivate(on=True))
    assert [entered.room for entered in carol.do(EnterRoom("dev"))] == ["dev"]


def test_each_text_that_is_refused_is_answered(scene, alice):
    bob = scene.login("bobby", "dev", many=True)
    alice.do(SetModerated(on=True))
    refused = Rejected(Rejection.NO_VOICE, "dev", "dev")
    assert bob.do(Say(["one", "two"], room="dev")) == [refused, refused]
    assert bob.do(AnnounceTyping("dev")) == [refused]


def test_refusals_name_the_room_that_was_named(scene, alice):
    carol = scene.login("carol", "dev", many=True)
    assert carol.do(Kick("alice", room="DEV")) == [Rejected(Rejection.NOT_PERMITTED, "", "DEV")]
