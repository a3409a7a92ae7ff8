"""Kick, ban and mute: who can act on whom, what happens to them, and what the storage receives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geventchat.chat.commands import (
    Command,
    Delete,
    EnterRoom,
    Impose,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListBans,
    ListRooms,
    Login,
    PassOwnership,
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
from geventchat.chat.events import (
    Accepted,
    Action,
    BanList,
    BanListing,
    Departure,
    DisconnectNotice,
    Joined,
    Kicked,
    Left,
    NoticeReason,
    Rejected,
    Rejection,
    Roster,
    Said,
)
from geventchat.chat.passwords import Secret
from geventchat.chat.records import Act, Restriction, RestrictionKind, RoomRecord
from geventchat.chat.results import DONE, LEAVE, Busy, More
from tests.geventchat.moderated_chat import LOBBY, NOW_MS, Client, ModeratedChat, RecordingStorage

BAN, MUTE = Sanction.BAN, Sanction.MUTE
BANNED = DisconnectNotice(NoticeReason.BANNED, as_error=True)
ELSEWHERE = "198.51.100.7"


@pytest.fixture
def scene() -> ModeratedChat:
    return ModeratedChat()


@pytest.fixture
def alice(scene: ModeratedChat) -> Client:
    """The owner of `dev`, in which `bob` and `carol` are, too."""
    return scene.login("alice", "dev")


@pytest.fixture
def bob(scene: ModeratedChat, alice: Client) -> Client:
    return scene.login("bob", "dev")


@pytest.fixture
def carol(scene: ModeratedChat, alice: Client, bob: Client) -> Client:
    carol = scene.login("carol", "dev")
    for client in (alice, bob):
        client.take()
    return carol


@pytest.fixture
def op(scene: ModeratedChat) -> Client:
    """An operator in the lobby."""
    return scene.login("op", account=True)


def bans(client: Client) -> list[BanListing]:
    (event,) = client.do(ListBans())
    assert isinstance(event, BanList)
    return list(event.bans)


def kicked(name: str, room: str = "dev") -> Left:
    return Left(room, name, NOW_MS, Departure.KICKED)


# --- Kick ------------------------------------------------------------------------------------------------------------


def test_a_kicked_person_learns_why_and_is_in_the_lobby_and_the_room_is_notified(scene, alice, bob, carol):
    watcher = scene.login("watcher")
    assert alice.do(Kick("BOB", "for shouting")) == [Accepted(Action.KICKED, "dev", "bob")]
    assert bob.take() == [Kicked("dev", "for shouting", NOW_MS, LOBBY)], (
        "and not his own arrival in the lobby"
    )
    assert bob.room == LOBBY
    assert carol.take() == [kicked("bob")]
    assert watcher.take() == [Joined(LOBBY, "bob", NOW_MS)]
    assert list(scene.room("dev").names) == ["alice", "carol"]
    bob.enters("dev")


def test_a_client_that_can_be_in_many_rooms_is_kicked_from_one_of_them(scene, alice):
    bob = scene.login("bob", "dev", many=True)
    bob.enters("ops")
    alice.do(Kick("bob"))
    assert bob.take() == [Kicked("dev", "", NOW_MS)]
    assert set(bob.session.rooms) == {LOBBY, "ops"}
    assert bob.subscriber.heard == {scene.room(LOBBY), scene.room("ops")}


@pytest.mark.parametrize("who", ["absent", "", "dave"])
def test_only_someone_in_the_room_is_kicked(scene, alice, who):
    scene.login("dave", "ops")
    assert alice.refused(Kick(who)) is Rejection.USER_NOT_FOUND


def test_a_kick_waits_for_the_lobby_and_changes_nothing_until_then(scene, alice, bob, carol):
    lobby = scene.chat.lobby
    for command in (Kick("bob"), Impose(BAN, "bob")):
        lobby.gate.open = False
        assert scene.chat.handle(alice.session, command) == Busy(lobby.gate)
        assert bob.room == "dev"
        assert alice.take() == bob.take() == carol.take() == []
        assert not scene.room("dev").bans.by_label
        assert not scene.storage.acts_noted
        lobby.gate.open = True
    assert alice.succeeds(Kick("bob")) is Action.KICKED


def test_a_kick_does_not_wait_for_those_who_flood_the_room(scene, alice, bob, carol):
    scene.room("dev").gate.open = False
    assert alice.succeeds(Kick("bob")) is Action.KICKED
    assert carol.take() == [kicked("bob")]


def test_a_long_reason_is_cut():
    scene = ModeratedChat(reason_characters=5)
    alice, bob = scene.login("alice", "dev"), scene.login("bob", "dev")
    alice.do(Impose(BAN, "bob", None, "far too long"))
    assert bob.take()[0] == Kicked("dev", "far t", NOW_MS, LOBBY)
    assert bans(alice) == [BanListing("bob", None, "far t")]


# --- Who can act on whom ---------------------------------------------------------------------------------------------

RANKS = ["guest", "voiced", "mod", "owner", "op"]


@pytest.mark.parametrize("command", [Kick, lambda who: Impose(BAN, who), lambda who: Impose(MUTE, who)])
@pytest.mark.parametrize("other", RANKS)
@pytest.mark.parametrize("actor", RANKS)
def test_people_act_on_lower_roles_and_only_operators_on_operators(scene, actor, other, command):
    people = {}
    for name in ("owner", "guest", "voiced", "mod", "op"):
        people[name] = scene.login(name, "dev", account=name in {"owner", "mod", "op"})
    people["owner"].do(SetModerator("mod", on=True))
    people["owner"].do(SetVoice("voiced", on=True))
    if other == actor:
        # Someone else of the same rank.
        other = scene.login(f"{actor}2", "dev", account=actor in {"mod", "op"}).session.name.shown
        if actor == "mod":
            people["owner"].do(SetModerator(other, on=True))
        if actor == "voiced":
            people["owner"].do(SetVoice(other, on=True))
        allowed = actor == "op"
        if actor == "owner":
            return  # A room has one.
    else:
        allowed = RANKS.index(actor) > max(RANKS.index(other), RANKS.index("voiced"))
    acted = people[actor].do(command(other))[0]
    assert isinstance(acted, Accepted) == allowed
    if not allowed:
        assert acted.reason is Rejection.NOT_PERMITTED


@pytest.mark.parametrize("command", [Kick, lambda who: Impose(BAN, who), lambda who: Impose(MUTE, who)])
def test_people_cannot_act_on_themselves(scene, alice, op, command):
    assert alice.refused(command("alice")) is Rejection.NOT_PERMITTED
    assert op.refused(command("op")) is Rejection.NOT_PERMITTED
    assert op.refused(Impose(BAN, "name:op")) is Rejection.NOT_PERMITTED
    assert op.refused(Impose(BAN, "account:op")) is Rejection.NOT_PERMITTED


OF_OWNERS = [
    SetPrivate(on=True),
    SetKey("x"),
    SetModerated(on=True),
    SetModerator("mod", on=True),
    SetModerator("mod", on=False),
    PassOwnership("bob"),
]
OF_MODERATORS = [
    Kick("bob"),
    Impose(BAN, "bob"),
    Impose(MUTE, "bob"),
    Lift(BAN, "bob"),
    Lift(MUTE, "bob"),
    ListBans(),
    SetVoice("bob", on=True),
    SetVoice("bob", on=False),
    Delete(1),
]
NOT_THERE = (Rejection.USER_NOT_FOUND, Rejection.NO_SUCH_MESSAGE)


@pytest.mark.parametrize("command", OF_OWNERS, ids=repr)
def test_what_only_owners_and_operators_can_do(scene, alice, bob, op, command: Command):
    mod = scene.login("mod", "dev", account=True)
    alice.do(SetModerator("mod", on=True))
    for client in (mod, bob):
        before = list(scene.storage.saved)
        assert client.refused(command) is Rejection.NOT_PERMITTED
        assert scene.storage.saved == before
    op.enters("dev")
    op.succeeds(command)


@pytest.mark.parametrize("command", OF_MODERATORS, ids=repr)
def test_what_only_moderators_owners_and_operators_can_do(scene, alice, bob, carol, command: Command):
    mod = scene.login("mod", "dev", account=True)
    alice.do(SetModerator("mod", on=True))
    assert carol.refused(command) is Rejection.NOT_PERMITTED
    allowed = mod.do(command)[0]
    assert not isinstance(allowed, Rejected) or allowed.reason in NOT_THERE


@pytest.mark.parametrize("command", [*OF_MODERATORS, SetModerated(on=True)], ids=repr)
def test_in_the_lobby_only_operators_can_do_any_of_this(scene, alice, bob, op, command: Command):
    alice.do(LeaveRoom())
    assert alice.refused(command) is Rejection.NOT_PERMITTED
    allowed = op.do(command)[0]
    assert not isinstance(allowed, Rejected) or allowed.reason in NOT_THERE


@pytest.mark.parametrize(
    "command",
    [SetPrivate(on=True), SetKey("x"), SetModerator("op2", on=True), PassOwnership("op2")],
    ids=repr,
)
def test_the_lobby_is_never_closed_and_has_neither_owner_nor_moderators(scene, op, command: Command):
    scene.login("op2", account=True)
    assert op.refused(command) is Rejection.NOT_PERMITTED


def test_voice_in_the_lobby_is_for_those_who_are_there(scene, bob, op):
    dave = scene.login("dave")
    op.do(SetModerated(on=True))
    assert op.refused(SetVoice("bob", on=True)) is Rejection.USER_NOT_FOUND
    assert dave.refused(Say(["hi"])) is Rejection.NO_VOICE
    op.succeeds(SetVoice("dave", on=True))
    assert dave.do(Say(["hi"])) == []


def test_commands_can_name_the_room(scene, alice, bob):
    owner = scene.login("owner", many=True)
    for room in ("ops", "web"):
        owner.enters(room)
    dave = scene.login("dave", "web")
    assert owner.refused(Kick("dave")) is Rejection.ROOM_NAME_INVALID
    assert owner.refused(Kick("dave", room="ops")) is Rejection.USER_NOT_FOUND
    assert owner.refused(Kick("bob", room="dev")) is Rejection.NOT_IN_ROOM
    assert owner.refused(Kick("bob", room="nowhere")) is Rejection.NO_SUCH_ROOM
    assert owner.do(Kick("dave", room="WEB"))[0] == Accepted(Action.KICKED, "web", "dave")
    assert dave.room == LOBBY


# --- Ban -------------------------------------------------------------------------------------------------------------


def test_a_ban_removes_like_a_kick_and_keeps_out_until_it_is_lifted(scene, alice, bob, carol):
    assert alice.do(Impose(BAN, "BOB", None, "spam")) == [Accepted(Action.BANNED, "dev", "bob")]
    assert bob.take() == [Kicked("dev", "spam", NOW_MS, LOBBY)]
    assert carol.take() == [kicked("bob")]
    assert bob.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    assert alice.do(Lift(BAN, "bOb")) == [Accepted(Action.UNBANNED, "dev", "bob")]
    assert alice.refused(Lift(BAN, "bob")) is Rejection.USER_NOT_FOUND
    bob.enters("dev")


def test_a_ban_ends_when_its_time_is_over(scene, alice, bob):
    alice.do(Impose(BAN, "bob", 60))
    assert bans(alice) == [BanListing("bob", NOW_MS + 60_000, "")]
    scene.now_s += 59.9
    assert bob.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    scene.now_s += 0.1
    bob.enters("dev")
    assert bans(alice) == []
    assert alice.refused(Lift(BAN, "bob")) is Rejection.USER_NOT_FOUND


def test_a_ban_for_more_than_a_century_is_one_without_an_end(scene, alice, bob):
    alice.do(Impose(BAN, "bob", 999_999_999 * 86_400))
    assert bans(alice) == [BanListing("bob", None, "")]


def test_a_later_ban_of_the_same_person_replaces_the_first(scene, alice, bob):
    alice.do(Impose(BAN, "bob", 60, "first"))
    alice.do(Impose(BAN, "bob", 120, "second"))
    assert bans(alice) == [BanListing("bob", NOW_MS + 120_000, "second")]


def test_a_user_outside_the_room_can_be_banned(scene, alice, bob):
    bob.do(LeaveRoom())
    assert alice.succeeds(Impose(BAN, "bob")) is Action.BANNED
    assert bob.room == LOBBY
    assert bob.take() == []
    assert bob.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM


def test_absent_people_cannot_be_banned(alice):
    for who in ("absent", "name:absent", "account:absent", "10.0.0.0/8", "127.0.0.1", ""):
        assert alice.refused(Impose(BAN, who)) is Rejection.USER_NOT_FOUND


def test_without_an_account_a_ban_applies_to_the_name_and_to_later_logins_from_the_address(scene, alice):
    bob, neighbour = scene.login("bob", "dev", ELSEWHERE), scene.login("dave", host=ELSEWHERE)
    alice.do(Impose(BAN, "bob"))
    bob.do(Quit())
    evading = scene.login("bobby", host=ELSEWHERE)
    assert evading.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    moved = scene.login("bob", host="192.0.2.200")
    assert moved.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    neighbour.enters("dev")
    scene.login("member", "dev", ELSEWHERE, account=True)
    scene.login("erin", "dev", "192.0.2.200")


def test_one_household_of_ipv6_is_one_address(scene, alice):
    scene.login("bob", "dev", "2001:db8:0:1::5")
    alice.do(Impose(BAN, "bob"))
    assert scene.login("b2", host="2001:db8:0:1:f::9").refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    scene.login("b3", "dev", "2001:db8:0:2::5")


def test_with_an_account_a_ban_sticks_to_the_account_alone(scene, alice):
    member = scene.login("member", "dev", ELSEWHERE, account=True)
    alice.do(Impose(BAN, "member"))
    member.do(Quit())
    again = scene.login("member", host="192.0.2.200", account=True)
    assert again.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    scene.login("dave", "dev", ELSEWHERE)


def test_a_banned_moderator_cannot_come_back(scene, alice):
    mod = scene.login("mod", "dev", account=True)
    alice.do(SetModerator("mod", on=True))
    alice.do(Impose(BAN, "mod"))
    assert mod.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM


def test_a_ban_in_one_room_is_none_in_another(scene, alice, bob):
    alice.do(Impose(BAN, "bob"))
    bob.enters("ops")


def test_bans_and_mutes_of_a_room_have_a_limit_and_those_that_are_over_make_way():
    scene = ModeratedChat(room_bans=2)
    alice = scene.login("alice", "dev")
    for name in ("a", "b", "c"):
        scene.login(name, "dev")
    for sanction in (BAN, MUTE):
        alice.do(Impose(sanction, "a", 60))
        alice.do(Impose(sanction, "b"))
        alice.do(Impose(sanction, "b", None, "again"))
        assert alice.refused(Impose(sanction, "c")) is Rejection.LIST_FULL
    assert scene.chat._sessions["c"].room.key == "dev", "refused as a whole"
    scene.now_s += 60
    for sanction in (BAN, MUTE):
        assert isinstance(alice.do(Impose(sanction, "c"))[0], Accepted)
    assert [record.name for record in scene.storage.forgotten if record.until_ms is not None] == ["a", "a"]


def test_all_rooms_together_have_a_limit_of_bans_and_mutes_and_each_can_have_a_few():
    scene = ModeratedChat(all_room_bans=6)
    names = [f"p{number}" for number in range(7)]
    alice, bob = scene.login("alice", "dev"), scene.login("bob", "ops")
    for name in names:
        scene.login(name)
    for name in names[:6]:
        assert alice.succeeds(Impose(MUTE, name, 60)) is Action.MUTED
    assert alice.refused(Impose(MUTE, "p6")) is Rejection.LIST_FULL
    for name in names[:5]:
        assert bob.succeeds(Impose(BAN, name)) is Action.BANNED
    assert bob.refused(Impose(BAN, "p5")) is Rejection.LIST_FULL
    assert ModeratedChat(storage=scene.storage.restarted()).chat.rooms.ban_total.bans == 11
    # One more in place of one that is there, of one that is over, and of those in a room that is gone.
    assert bob.succeeds(Impose(BAN, "p4", 60)) is Action.BANNED
    scene.now_s += 60
    assert alice.succeeds(Impose(MUTE, "p6")) is Action.MUTED
    bob.do(Quit())
    scene.now_s += 600
    assert scene.chat.rooms.find("ops") is None
    assert scene.chat.rooms.ban_total.bans == 1


# --- Mute ------------------------------------------------------------------------------------------------------------


def test_a_muted_person_hears_the_room_and_does_not_speak_there(scene, alice, bob):
    assert alice.do(Impose(MUTE, "bob", 600)) == [Accepted(Action.MUTED, "dev", "bob")]
    assert bob.take() == []
    assert bob.refused(Say(["hi"])) is Rejection.MUTED
    assert bob.refused(SetTopic("hi")) is Rejection.MUTED
    assert bob.do(SendDirectMessage("alice", "sorry"))
    alice.do(Say(["hi"]))
    assert isinstance(bob.take()[-1], Said)
    bob.enters("ops")
    assert bob.do(Say(["hi"])) == []
    bob.enters("dev")
    scene.now_s += 600
    assert bob.do(Say(["hi"])) == []


def test_voice_does_not_help_a_muted_person(scene, alice, bob):
    alice.do(SetVoice("bob", on=True))
    alice.do(Impose(MUTE, "bob"))
    assert bob.refused(Say(["hi"])) is Rejection.MUTED
    assert alice.do(Lift(MUTE, "bob")) == [Accepted(Action.UNMUTED, "dev", "bob")]
    assert bob.do(Say(["hi"])) == []


def test_a_mute_without_an_account_sticks_to_name_and_address_and_spares_those_who_were_there(scene, alice):
    bob, neighbour = scene.login("bob", "dev", ELSEWHERE), scene.login("dave", "dev", ELSEWHERE)
    alice.do(Impose(MUTE, "bob"))
    assert neighbour.do(Say(["hi"])) == []
    bob.do(Quit())
    assert scene.login("bobby", "dev", ELSEWHERE).refused(Say(["hi"])) is Rejection.MUTED


# --- Operators -------------------------------------------------------------------------------------------------------


def test_in_the_lobby_a_kick_is_from_the_server(scene, alice, bob, carol, op):
    watcher = scene.login("watcher")
    op.take()
    assert op.do(Kick("bob", "enough")) == [Accepted(Action.KICKED, LOBBY, "bob")]
    assert bob.take() == [DisconnectNotice(NoticeReason.KICKED, text="enough")]
    assert bob.peer.disconnected == [NoticeReason.KICKED]
    assert bob.session.name is None
    assert carol.take() == [kicked("bob")]
    assert watcher.take() == []
    scene.login("bob")


def test_those_in_the_lobby_hear_of_it_and_the_operator_does_not(scene, op):
    bob, watcher = scene.login("bob"), scene.login("watcher")
    op.take()
    assert op.do(Kick("bob")) == [Accepted(Action.KICKED, LOBBY, "bob")]
    assert watcher.take() == [kicked("bob", LOBBY)]
    assert bob.peer.disconnected == [NoticeReason.KICKED]


def test_a_removed_person_passes_on_owned_rooms(scene, alice, bob, op):
    op.do(Kick("alice"))
    assert scene.owner("dev") == "bob"


def test_a_departure_that_other_rooms_cannot_follow_is_announced_later(scene, bob, carol, op):
    scene.room("dev").gate.open = False
    op.do(Kick("bob"))
    assert carol.take() == []
    assert scene.announced_later == [scene.room("dev")]
    scene.room("dev").gate.open = True
    scene.room("dev").announce_departures()
    assert carol.take() == [kicked("bob")]


def test_a_person_banned_from_the_server_is_notified_disconnected_and_refused(scene, bob, carol, op):
    assert op.do(Impose(BAN, "bob", 3600, "spam")) == [Accepted(Action.BANNED, LOBBY, "bob")]
    assert bob.take() == [BANNED]
    assert bob.peer.disconnected == [NoticeReason.BANNED]
    assert carol.take() == [kicked("bob")]
    again = scene.connect("192.0.2.200")
    assert scene.chat.handle(again.session, Login("Bob")) is LEAVE
    assert again.take() == [BANNED]
    assert again.peer.disconnected == [NoticeReason.BANNED]
    assert again.session.name is None
    assert bans(op) == [BanListing("bob", NOW_MS + 3_600_000, "spam")]
    scene.now_s += 3600
    scene.login("bob", host="192.0.2.200")


def test_operators_choose_a_name_alone(scene, op):
    assert op.succeeds(Impose(BAN, "name:Bob")) is Action.BANNED
    assert bans(op) == [BanListing("name:Bob", None, "")]
    assert scene.connect().do(Login("bob")) == [BANNED]
    scene.login("bobby")
    assert op.succeeds(Lift(BAN, "name:bob")) is Action.UNBANNED
    bob = scene.login("bob")
    op.do(Impose(BAN, "name:bob"))
    assert bob.take() == [BANNED], "the holder of the name has to go"


def test_operators_choose_an_account(scene, op):
    member = scene.login("member", account=True)
    assert op.refused(Impose(BAN, "account:absent")) is Rejection.USER_NOT_FOUND
    assert op.succeeds(Impose(BAN, "account:Member")) is Action.BANNED
    assert member.take() == [BANNED]
    assert scene.connect(account="member").do(Login("member")) == [BANNED]
    assert op.succeeds(Lift(BAN, "account:member")) is Action.UNBANNED
    scene.login("member", account=True)


@pytest.mark.parametrize(
    ("typed", "shown", "inside", "outside"),
    [
        ("198.51.100.7", "198.51.100.7", "198.51.100.7", "198.51.100.8"),
        ("198.51.100.9/24", "198.51.100.0/24", "198.51.100.255", "198.51.101.0"),
        ("::ffff:198.51.100.0/120", "198.51.100.0/24", "198.51.100.1", "198.51.101.0"),
        ("2001:db8::/32", "2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("2001:DB8::1", "2001:db8::1", "2001:db8::1", "2001:db8::2"),
    ],
)
def test_operators_choose_an_address_or_a_range(scene, op, typed, shown, inside, outside):
    guest, member = scene.login("guest", host=inside), scene.login("member", host=inside, account=True)
    spared = scene.login("spared", host=outside)
    assert op.do(Impose(BAN, typed)) == [Accepted(Action.BANNED, LOBBY, shown)]
    assert guest.take()[-1] == member.take()[-1] == BANNED
    assert spared.peer.disconnected == []
    assert bans(op) == [BanListing(shown, None, "")]
    assert scene.chat.is_banned_address(inside)
    assert not scene.chat.is_banned_address(outside)
    assert scene.connect(inside).do(Login("new")) == [BANNED]
    scene.login("other", host=outside)
    assert op.succeeds(Lift(BAN, typed)) is Action.UNBANNED
    assert not scene.chat.is_banned_address(inside)


def test_a_ban_of_a_person_closes_no_address_to_those_who_have_an_account(scene, op):
    scene.login("bob", host=ELSEWHERE)
    op.do(Impose(BAN, "bob"))
    assert not scene.chat.is_banned_address(ELSEWHERE)
    assert scene.connect(ELSEWHERE).do(Login("other")) == [BANNED]
    scene.login("member", host=ELSEWHERE, account=True)


@pytest.mark.parametrize("sanction", [BAN, MUTE])
def test_on_the_server_an_account_is_banned_or_muted_alone_and_others_at_its_address_are_not(
    scene, op, sanction
):
    eve = scene.login("eve", host=ELSEWHERE, account=True)
    op.do(Impose(sanction, "eve"))
    eve.do(Quit())
    pupil = scene.login("pupil", host=ELSEWHERE)
    assert pupil.do(Say(["hi"])) == []
    assert pupil.succeeds(Register(Secret("correct horse"))) is Action.REGISTERED
    # Only operators can close the address, for all of them.
    op.do(Impose(sanction, ELSEWHERE))
    assert scene.chat.is_banned_address(ELSEWHERE) is (sanction is BAN)


@pytest.mark.parametrize("sanction", [BAN, MUTE])
def test_on_the_server_nobody_evades_a_ban_or_a_mute_without_an_account_by_registering(scene, op, sanction):
    bob = scene.login("bob", host=ELSEWHERE)
    op.do(Impose(sanction, "bob"))
    bob.do(Quit())
    again = scene.connect(ELSEWHERE)
    if sanction is BAN:
        assert again.do(Login("bob2")) == [BANNED]
    else:
        again.do(Login("bob2"))
        assert again.refused(Register(Secret("correct horse"))) is Rejection.MUTED


def test_an_operator_cannot_shut_himself_out_and_stays_where_others_have_to_go(scene, op):
    op2 = scene.login("op2", host=ELSEWHERE, account=True)
    for everyone in ("0.0.0.0/0", "127.0.0.1", "::ffff:127.0.0.1"):
        assert op.refused(Impose(BAN, everyone)) is Rejection.NOT_PERMITTED
    op.succeeds(Impose(BAN, ELSEWHERE))
    assert op2.peer.disconnected == []


def test_an_operator_banned_by_another_cannot_come_back(scene, op):
    op2 = scene.login("op2", account=True)
    op.succeeds(Impose(BAN, "op2"))
    assert op2.peer.disconnected == [NoticeReason.BANNED]
    assert scene.connect(account="op2").do(Login("op2")) == [BANNED]


def test_owners_neither_see_nor_lift_bans_of_addresses(scene, alice, bob, op):
    op.enters("dev")
    guest = scene.login("guest", "dev", ELSEWHERE)
    assert op.succeeds(Impose(BAN, "198.51.100.0/24")) is Action.BANNED
    assert guest.room == LOBBY
    assert guest.refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM
    alice.do(Impose(BAN, "bob"))
    assert bans(alice) == [BanListing("bob", None, "")]
    assert bans(op) == [BanListing("198.51.100.0/24", None, ""), BanListing("bob", None, "")]
    assert alice.refused(Lift(BAN, "198.51.100.0/24")) is Rejection.USER_NOT_FOUND
    assert alice.refused(Impose(BAN, "203.0.113.5")) is Rejection.USER_NOT_FOUND
    assert op.succeeds(Lift(BAN, "198.51.100.0/24")) is Action.UNBANNED


def test_a_ban_of_a_range_removes_people_in_parts_between_which_others_have_their_turn(scene, op):
    clients = [scene.login(f"n{number}", host=ELSEWHERE) for number in range(150)]
    op.take()
    result = scene.chat.handle(op.session, Impose(BAN, "198.51.100.0/24"))
    assert op.take() == [Accepted(Action.BANNED, LOBBY, "198.51.100.0/24")]
    clients[-1].do(Quit())
    counts = []
    while isinstance(result, More):
        counts.append(sum(bool(client.peer.disconnected) for client in clients))
        result = result.go_on()
    assert result is DONE
    assert counts == [99, 149], "the operator is among the first hundred, and one has left"
    assert list(scene.chat.lobby.names) == ["op"]


def test_people_who_are_sent_to_the_lobby_in_parts_wait_for_its_gate(scene, alice, op):
    op.enters("dev")
    clients = [scene.login(f"n{number}", "dev", ELSEWHERE) for number in range(150)]
    gate = scene.chat.lobby.gate
    gate.open = False
    waiting = scene.chat.handle(op.session, Impose(BAN, "198.51.100.0/24"))
    assert isinstance(waiting, Busy)
    assert waiting.gate is gate
    assert all(client.room == "dev" for client in clients)
    gate.open = True
    more = waiting.go_on()
    assert [client.room for client in clients].count(LOBBY) == 98
    assert more.go_on().go_on() is DONE
    assert all(client.room == LOBBY for client in clients)


def test_an_operator_who_has_left_the_room_goes_on_removing_people_without_losing_a_line(scene, alice, op):
    op.enters("dev")
    clients = [scene.login(f"n{number}", "dev", ELSEWHERE) for number in range(150)]
    result = scene.chat.handle(op.session, Impose(BAN, "198.51.100.0/24"))
    scene.login("op2", "dev", account=True).do(Kick("op"))
    op.take()
    while isinstance(result, More):
        result = result.go_on()
    assert clients[-1].room == LOBBY
    assert [event.name for event in op.take()] == [f"n{number}" for number in range(98, 150)], (
        "all arrivals in the lobby"
    )


def test_a_name_that_looks_like_an_address_can_be_unbanned(scene, alice, op):
    scene.login("10.0.0.1", "dev")
    alice.do(Impose(BAN, "10.0.0.1"))
    op.enters("dev")
    assert op.succeeds(Lift(BAN, "10.0.0.1")) is Action.UNBANNED


def test_in_the_lobby_a_mute_is_for_every_room_and_for_direct_messages(scene, alice, bob, op):
    assert op.succeeds(Impose(MUTE, "bob", 60)) is Action.MUTED
    for command in (Say(["hi"]), SetTopic("hi"), SendDirectMessage("alice", "hi")):
        assert bob.refused(command) is Rejection.MUTED
    bob.do(LeaveRoom())
    assert bob.refused(Say(["hi"])) is Rejection.MUTED
    scene.now_s += 60
    assert bob.do(Say(["hi"])) == []


def test_bans_of_the_server_have_a_separate_limit():
    scene = ModeratedChat(room_bans=1, server_bans=2)
    op = scene.login("op", account=True)
    for name in ("a", "b"):
        op.succeeds(Impose(BAN, f"name:{name}"))
    assert op.refused(Impose(BAN, "name:c")) is Rejection.LIST_FULL


def test_a_removed_client_can_be_in_many_rooms(scene, alice, carol, op):
    dave = scene.login("dave", "dev", many=True)
    dave.enters("ops")
    carol.take()
    op.do(Kick("dave"))
    assert dave.subscriber.heard is None
    assert carol.take() == [kicked("dave")]
    assert not scene.room("ops").names
    assert scene.owner("ops") == ""


# --- What a mute keeps from being said --------------------------------------------------------------------------------


@pytest.mark.parametrize("everywhere", [True, False], ids=["on the server", "in the room"])
def test_a_muted_person_reaches_no_one_by_inviting_or_giving_reasons(scene, alice, bob, op, everywhere):
    carol = scene.login("carol")
    if not everywhere:
        op.enters("dev")
    op.succeeds(Impose(MUTE, "alice"))
    for client in (bob, carol):
        client.take()
    for command in (Invite("carol"), Kick("bob", "text"), Impose(BAN, "bob", 60, "text"), SetTopic("text")):
        assert alice.refused(command) is Rejection.MUTED
    assert bob.take() == carol.take() == []
    assert not scene.room("dev").bans.by_label
    # Commands without a text for others are still possible.
    alice.do(Kick("bob"))
    assert [event.reason for event in bob.take() if isinstance(event, Kicked)] == [""]


def test_someone_without_voice_cannot_invite_to_a_moderated_room(scene, alice, bob):
    scene.login("carol")
    alice.do(SetModerated(on=True))
    assert bob.refused(Invite("carol")) is Rejection.NO_VOICE
    alice.do(SetVoice("bob", on=True))
    assert bob.succeeds(Invite("carol")) is Action.INVITED


# --- Records -----------------------------------------------------------------------------------------------------


def test_every_act_is_noted_with_who_did_it(scene, alice, bob, op):
    for command in (Kick("bob", "a"), Impose(BAN, "bob", 60, "b"), Lift(BAN, "bob"), SetKey("secret")):
        alice.do(command)
    op.do(Impose(MUTE, "bob"))
    assert scene.storage.acts_noted == [
        Act(NOW_MS, "alice", "kick", "dev", "bob", "a"),
        Act(NOW_MS, "alice", "ban", "dev", "bob", "b"),
        Act(NOW_MS, "alice", "unban", "dev", "bob"),
        Act(NOW_MS, "alice", "key", "dev", ""),
        Act(NOW_MS, "op", "mute", "", "bob"),
    ]


def test_refusals_and_questions_are_not_acts(scene, alice, bob):
    for command in (Kick("absent"), ListBans(), Lift(BAN, "absent")):
        alice.do(command)
    bob.do(Kick("alice"))
    assert scene.storage.acts_noted == []


def test_what_changes_nothing_is_not_an_act(scene, alice, bob):
    carol = scene.login("carol", "dev", account=True)
    for command in (
        SetPrivate(on=True),
        SetModerated(on=True),
        SetKey("secret"),
        SetVoice("bob", on=True),
        SetVoice("carol", on=True),
        SetVoice("carol", on=False),
        SetModerator("carol", on=True),
        PassOwnership("alice"),
    ):
        first = alice.succeeds(command)
        acts = len(scene.storage.acts_noted)
        assert alice.succeeds(command) is first
        assert len(scene.storage.acts_noted) == acts
    assert acts == 7
    assert carol.session.cost_bytes == 0


def test_an_invitation_is_an_act_only_where_one_is_needed(scene, alice, bob):
    carol = scene.login("carol")
    for client in (carol, bob):
        assert client.succeeds(Invite("alice")) is Action.INVITED
    assert scene.storage.acts_noted == []
    alice.do(SetKey("secret"))
    alice.do(Invite("carol"))
    assert scene.storage.acts_noted[-1] == Act(NOW_MS, "alice", "invite", "dev", "carol")


def test_acts_cost_whoever_asks_for_them_as_much_as_long_lines(scene, alice, bob):
    for on in (True, False, True):
        alice.do(SetModerated(on))
    assert alice.session.cost_bytes == 3 * 4_096


def restrictions(scene: ModeratedChat) -> list[Restriction]:
    return [record for record in scene.storage.saved if isinstance(record, Restriction)]


def test_bans_are_saved_and_forgotten(scene, alice):
    scene.login("bob", "dev", "2001:db8::7")
    alice.do(Impose(BAN, "bob", 60, "spam"))
    record = Restriction(
        RestrictionKind.BAN,
        "dev",
        name="bob",
        account="",
        network="2001:db8::/64",
        shown="bob",
        until_ms=NOW_MS + 60_000,
        reason="spam",
        by="alice",
        time_ms=NOW_MS,
    )
    assert restrictions(scene) == [record]
    alice.do(Lift(BAN, "bob"))
    assert scene.storage.forgotten == [record]


def test_a_ban_that_replaces_another_replaces_its_record(scene, alice, bob, op):
    alice.do(Impose(MUTE, "bob", 60))
    bob.do(Quit())
    scene.login("bob", "dev", ELSEWHERE)
    alice.do(Impose(MUTE, "bob"))
    first, second = restrictions(scene)
    assert first.identity != second.identity
    assert scene.storage.forgotten == [first]
    for sanction, who in ((BAN, "192.0.2.0/24"), (MUTE, "name:bob"), (BAN, "account:op2")):
        scene.login("op2", account=True) if who.endswith("op2") else None
        op.do(Impose(sanction, who))
    assert [
        (record.kind.value, record.room, record.name, record.account, record.network, record.shown)
        for record in restrictions(scene)[2:]
    ] == [
        ("ban", "", "", "", "192.0.2.0/24", "192.0.2.0/24"),
        ("mute", "", "bob", "", "", "name:bob"),
        ("ban", "", "", "op2", "", "account:op2"),
    ]


def room_records(scene: ModeratedChat) -> list[RoomRecord]:
    return [
        record for record in scene.storage.saved if isinstance(record, RoomRecord) and record.key != LOBBY
    ]


def test_rooms_are_saved_when_something_of_them_changes_and_forgotten_when_they_are_deleted(scene):
    alice = scene.login("alice", "dev", account=True)
    scene.login("bob", "dev", account=True)
    scene.login("carol", account=True)
    new = RoomRecord("dev", "dev", "alice", last_used_ms=NOW_MS)
    assert room_records(scene)[-1] == new
    created = len(room_records(scene))
    changes = (
        SetTopic("t"),
        SetPrivate(on=True),
        SetKey("k"),
        SetModerated(on=True),
        SetModerator("bob", on=True),
        SetVoice("bob", on=True),
        Invite("carol"),
        PassOwnership("bob"),
    )
    for command in changes:
        alice.do(command)
    both = frozenset({"bob"})
    invited = (("carol", NOW_MS + 7 * 86_400_000),)
    last = RoomRecord("dev", "dev", "bob", both, both, invited, "t", True, "k", True, last_used_ms=NOW_MS)
    assert room_records(scene)[-1] == last
    assert len(room_records(scene)) == created + len(changes)
    for command in (ListRooms(), Kick("absent"), SetTopic("t"), SetPrivate(on=False), Who()):
        alice.do(command)
    assert len(room_records(scene)) == created + len(changes), "nothing has changed"
    scene.now_s += 5
    for session in list(scene.chat._sessions.values()):
        scene.chat.leave(session)
    empty = replace(last, empty_since_ms=NOW_MS + 5_000, last_used_ms=NOW_MS + 5_000)
    assert room_records(scene)[-1] == empty
    scene.login("dave", "ops")
    scene.now_s += 90 * 86_400
    scene.login("erin").do(ListRooms())
    assert scene.storage.forgotten == [empty]


def restarted(scene: ModeratedChat) -> ModeratedChat:
    """The chat of a server that was stopped, and started a second later."""
    for session in list(scene.chat._sessions.values()):
        scene.chat.close(session)
    after = ModeratedChat(storage=scene.storage.restarted())
    after.now_s = scene.now_s + 1
    return after


def test_the_settings_of_a_room_survive_a_restart(scene):
    alice = scene.login("alice", "dev", account=True)
    for name in ("mod", "voiced", "invited"):
        scene.login(name, "dev", account=True)
    for command in (
        SetModerator("mod", on=True),
        SetVoice("voiced", on=True),
        SetModerated(on=True),
        SetKey("sesame"),
        SetPrivate(on=True),
    ):
        alice.do(command)
    scene.chat.leave(scene.chat._sessions["invited"])
    scene.login("invited", account=True)
    alice.do(Invite("invited"))
    scene = restarted(scene)
    assert scene.owner("dev") == "alice@"
    stranger = scene.login("stranger")
    assert stranger.refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED
    assert [one.room for one in stranger.do(ListRooms())[0].rooms] == [LOBBY]
    for name in ("alice", "mod", "invited"):
        scene.login(name, "dev", account=True)
    assert scene.chat._permissions.role(
        (voiced := scene.login("voiced", account=True)).session, voiced.session.name, scene.room("dev")
    )
    stranger.enters("dev", "sesame")
    assert stranger.refused(Say(["hi"])) is Rejection.NO_VOICE
    mod = scene.chat._sessions["mod"]
    scene.chat.handle(mod, Kick("stranger"))
    assert stranger.room == LOBBY
    scene.now_s += 89 * 86_400
    assert scene.owner("dev") == "alice@"


def test_without_an_account_ownership_ends_with_the_server(scene, alice, bob):
    alice.do(SetPrivate(on=True))
    scene = restarted(scene)
    assert scene.owner("dev") == ""
    assert scene.login("alice").refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED
    scene.now_s += 600
    scene.login("carol", "dev")
    assert not scene.room("dev").private


def test_an_account_keeps_its_rooms_after_a_restart_and_no_more_than_before():
    scene = ModeratedChat()
    alice = scene.login("alice", account=True)
    for number in range(21):
        alice.enters(f"r{number}")
    scene = restarted(scene)
    scene.now_s += 600
    assert [scene.owner(f"r{number}") for number in range(20)] == ["alice@"] * 20
    assert scene.chat.rooms.find("r20") is None


def test_bans_and_mutes_survive_a_restart(scene, alice, op):
    scene.login("carol", "dev", account=True)
    bob = scene.login("bob", "dev", ELSEWHERE)
    neighbour = scene.login("dave", "dev", ELSEWHERE)
    for sanction in (BAN, MUTE):
        alice.do(Impose(sanction, "carol", 60, "spam"))
        alice.do(Impose(sanction, "bob"))
        op.do(Impose(sanction, "192.0.2.0/24"))
    assert (bob.room, neighbour.room) == (LOBBY, "dev")
    scene = restarted(scene)
    assert scene.chat.is_banned_address("192.0.2.9")
    assert scene.login("dave", host=ELSEWHERE).refused(EnterRoom("dev")) is Rejection.BANNED_FROM_ROOM, (
        "who logged in before has been forgotten"
    )
    op = scene.login("op", "dev", account=True)
    assert bans(op) == [BanListing("carol", NOW_MS + 60_000, "spam"), BanListing("bob", None, "")]
    assert list(scene.room("dev").mutes.by_label) == ["carol", "bob"]
    scene.now_s += 59
    scene.login("carol", "dev", account=True)


def test_what_is_over_or_belongs_to_no_room_when_the_server_starts_is_forgotten(scene, alice, bob):
    alice.do(Impose(BAN, "bob", 1))
    alice.do(Impose(MUTE, "bob"))
    storage = scene.storage.restarted()
    over, mute = storage.load().restrictions
    stray = replace(mute, room="nowhere")
    storage = RecordingStorage(storage.load().rooms, [over, mute, stray])
    scene = ModeratedChat(storage=storage, time_s=scene.now_s + 1)
    assert storage.forgotten == [over, stray]


def test_commands_wait_while_the_storage_is_too_far_behind(scene, alice, bob, carol):
    scene.storage.ready = False
    gate = scene.room("dev").gate
    assert scene.chat.handle(alice.session, Impose(MUTE, "bob")) == Busy(gate)
    assert alice.take() == []
    assert bob.refused(Kick("alice")) is Rejection.NOT_PERMITTED
    scene.storage.ready = True
    assert alice.succeeds(Impose(MUTE, "bob")) is Action.MUTED


def test_a_room_is_saved_when_it_is_no_longer_empty(scene, alice):
    alice.do(LeaveRoom())
    scene.login("bob", "dev")
    assert [record.empty_since_ms for record in room_records(scene)] == [None, NOW_MS, None]


def test_an_invitation_ends_when_it_would_have_without_a_restart(scene):
    alice = scene.login("alice", "dev", account=True)
    for name in ("bob", "carol"):
        scene.login(name, account=True)
    alice.do(SetPrivate(on=True))
    for name in ("carol", "bob"):
        alice.do(Invite(name))
        scene.now_s += 3 * 86_400
    scene = restarted(scene)
    scene.now_s += 2 * 86_400
    assert scene.login("carol", account=True).refused(EnterRoom("dev")) is Rejection.INVITATION_REQUIRED
    scene.login("bob", "dev", account=True)


def test_a_kick_that_takes_an_invitation_back_is_saved(scene, alice):
    scene.login("carol", account=True)
    alice.do(SetPrivate(on=True))
    alice.do(Invite("carol"))
    scene.chat.handle(scene.chat._sessions["carol"], EnterRoom("dev"))
    alice.do(Kick("carol"))
    until_ms = NOW_MS + 7 * 86_400_000
    assert [record.invited for record in room_records(scene)[-2:]] == [(("carol", until_ms),), ()]


def test_a_room_that_an_account_inherits_is_saved(scene, alice):
    scene.login("bob", "dev", account=True)
    saved = len(scene.storage.saved)
    alice.do(Quit())
    assert [record.owner for record in scene.storage.saved[saved:]] == ["bob"]


def test_the_list_of_people_is_as_it_was(scene, alice, bob, carol):
    """A kick between two others changes neither the order nor anything else."""
    alice.do(Kick("bob"))
    assert carol.do(Who()) == [Roster(("alice", "carol"), "dev", 2)]


def test_a_client_that_can_be_in_many_rooms_gets_bans_in_pages():
    scene = ModeratedChat(listed_users=2)
    op = scene.login("op", account=True, many=True)
    for who in ("name:a", "10.0.0.0/8", "name:b"):
        op.do(Impose(BAN, who))
    a, network, b = [BanListing(who, None, "") for who in ("name:a", "10.0.0.0/8", "name:b")]
    assert op.do(ListBans()) == [BanList(LOBBY, [a, network], more=True)]
    assert op.do(ListBans(after="10.0.0.0/8")) == [BanList(LOBBY, [b])]
    assert op.do(ListBans(after="name:b")) == [BanList(LOBBY, [])]
    assert op.refused(ListBans(after="absent")) is Rejection.USER_NOT_FOUND
    # A client that is in one room at a time gets all of them.
    other = scene.login("op2", account=True)
    assert other.do(ListBans(after="name:a")) == [BanList(LOBBY, [a, network, b])]
