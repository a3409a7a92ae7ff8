"""Accounts in the chat: registering, proving, taking a name over, and what a restart keeps. Without sockets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from geventchat.chat.commands import (
    AskToken,
    ChangePassword,
    Command,
    EnterRoom,
    Impose,
    Kick,
    Login,
    Quit,
    Register,
    RevokeTokens,
    Sanction,
    SendDirectMessage,
)
from geventchat.chat.events import (
    Accepted,
    Action,
    DirectMessage,
    DisconnectNotice,
    Joined,
    Left,
    MessageKept,
    NoticeReason,
    Rejected,
    Rejection,
    TokenIssued,
    Welcome,
)
from geventchat.chat.names import Name
from geventchat.chat.passwords import DamagedHash, HasherFull, HashingFailed, Secret
from geventchat.chat.records import AccountRecord, RoomRecord
from geventchat.chat.results import DONE, Busy, Pending
from geventchat.chat.storage import StorageUnavailable
from tests.geventchat.moderated_chat import NOW_MS, NOW_S, Client, ModeratedChat, RecordingStorage
from tests.geventchat.recording import SwitchedGate

PASSWORD, OTHER = "correct horse", "battery staple"
YEAR_S = 365 * 86_400


@pytest.fixture
def scene() -> ModeratedChat:
    return ModeratedChat()


def with_password(name: str, password: str = PASSWORD) -> Login:
    return Login(name, password=Secret(password))


def registered(scene: ModeratedChat, name: str, host: str = "127.0.0.1", room: str = "") -> Client:
    client = scene.login(name, room, host)
    assert client.succeeds(Register(Secret(PASSWORD))) is Action.REGISTERED
    return client


def logs_in(scene: ModeratedChat, login: Login, host: str = "127.0.0.1") -> Client:
    client = scene.connect(host)
    events = client.do(login)
    assert any(isinstance(event, Welcome) for event in events), events
    return client


def begun(client: Client, command: Command) -> Pending[Any]:
    """A command that waits for its job."""
    result = client.chat.handle(client.session, command)
    assert isinstance(result, Pending)
    return result


def saved_accounts(scene: ModeratedChat) -> list[AccountRecord]:
    return [record for record in scene.storage.saved if isinstance(record, AccountRecord)]


# --- Registering -----------------------------------------------------------------------------------------------------


def test_a_registered_account_is_saved_with_a_hash_and_the_address(scene):
    registered(scene, "Alice", "10.0.0.1")
    (record,) = saved_accounts(scene)
    assert record == AccountRecord(
        "alice", "Alice", f"plain:{PASSWORD}", (), NOW_MS, NOW_MS, (), ("10.0.0.1",)
    )


def test_nothing_is_registered_by_someone_who_has_left_meanwhile(scene):
    alice = scene.login("alice")
    pending = begun(alice, Register(Secret(PASSWORD)))
    scene.chat.leave(alice.session)
    assert pending.finish(pending.job()) is DONE
    assert saved_accounts(scene) == []
    assert scene.login("alice").session.account is None


def test_of_two_who_use_a_name_one_after_the_other_only_the_second_registers_it(scene):
    first = scene.login("alice")
    pending = begun(first, Register(Secret(OTHER)))
    scene.chat.leave(first.session)
    registered(scene, "alice")
    assert pending.finish(pending.job()) is DONE
    assert [record.password_hash for record in saved_accounts(scene)] == [f"plain:{PASSWORD}"]


def test_a_second_registration_that_waits_changes_nothing(scene):
    alice = scene.login("alice")
    first, second = (begun(alice, Register(Secret(text))) for text in (PASSWORD, OTHER))
    first.finish(first.job())
    alice.take()
    second.finish(second.job())
    assert alice.take() == [Rejected(Rejection.NAME_RESERVED)]
    assert len(saved_accounts(scene)) == 1


@pytest.mark.parametrize("names", [{"operators": ["bob"]}, {"reserved_names": ["Bob"]}], ids=str)
def test_a_name_that_becomes_an_operators_or_reserved_is_registered_by_no_client(scene, names):
    bob, carol = scene.login("bob"), scene.login("carol")
    waiting = begun(bob, Register(Secret(PASSWORD)))
    scene.chat.change_names(**{"operators": [], "reserved_names": [], **names})
    assert bob.refused(Register(Secret(PASSWORD))) is Rejection.NAME_RESERVED
    waiting.finish(waiting.job())
    assert bob.take() == [Rejected(Rejection.NAME_RESERVED)]
    assert saved_accounts(scene) == []
    # Nor is bob an operator without an account.
    assert bob.refused(Kick("carol")) is Rejection.NOT_PERMITTED
    carol.succeeds(Register(Secret(PASSWORD)))


@pytest.mark.parametrize("names", [{"operators": ["bob"]}, {"reserved_names": ["Bob"]}, {}], ids=str)
def test_a_name_that_looks_like_one_that_has_become_anothers_is_registered_by_no_client(scene, names):
    imitator = scene.login("b\u043eb")
    waiting = begun(imitator, Register(Secret(PASSWORD)))
    if names:
        scene.chat.change_names(**{"operators": [], "reserved_names": [], **names})
    else:
        scene.chat.set_password(Name("bob", "bob"), "plain:x")
    assert imitator.refused(Register(Secret(PASSWORD))) is Rejection.NAME_RESERVED
    waiting.finish(waiting.job())
    assert imitator.take() == [Rejected(Rejection.NAME_RESERVED)]
    imitator.do(Quit())
    assert scene.connect().refused(Login("b\u043eb")) is Rejection.NAME_INVALID


def test_no_more_accounts_are_made_than_the_limit_allows():
    scene = ModeratedChat(accounts=1)
    alice, bob = scene.login("alice"), scene.login("bob")
    waiting = begun(bob, Register(Secret(PASSWORD)))
    alice.succeeds(Register(Secret(PASSWORD)))
    waiting.finish(waiting.job())
    assert bob.take() == [Rejected(Rejection.LIST_FULL)]
    assert bob.refused(Register(Secret(PASSWORD))) is Rejection.LIST_FULL


def test_registering_is_refused_without_a_hash_when_an_address_has_registered_too_many(scene):
    alice = scene.login("alice")
    alice.peer.accounts_left = 0
    assert alice.refused(Register(Secret(PASSWORD))) is Rejection.TOO_MANY_ATTEMPTS
    assert alice.refused(Register(Secret("short"))) is Rejection.WEAK_PASSWORD


@pytest.mark.parametrize(("error", "reported"), [(HasherFull("full"), 0), (HashingFailed("no memory"), 1)])
def test_a_hash_that_cannot_be_made_registers_nothing(scene, error: Exception, reported: int):
    alice = scene.login("alice")
    scene.hasher.error = error
    assert alice.refused(Register(Secret(PASSWORD))) is Rejection.TOO_MANY_ATTEMPTS
    assert scene.reported == [("127.0.0.1", error)] * reported
    assert saved_accounts(scene) == []


def test_a_user_muted_on_the_server_cannot_register(scene):
    operator = scene.login("op", account=True)
    alice = scene.login("alice", host="10.0.0.1")
    operator.succeeds(Impose(Sanction.MUTE, "alice"))
    assert alice.refused(Register(Secret(PASSWORD))) is Rejection.MUTED


def test_registering_waits_for_a_storage_that_is_behind(scene):
    alice = scene.login("alice")
    scene.storage.ready = False
    assert scene.chat.handle(alice.session, Register(Secret(PASSWORD))) == Busy(scene.chat.lobby.gate)


def test_the_rooms_of_the_session_belong_to_the_account_as_far_as_it_can_own_them():
    scene = ModeratedChat(kept_rooms=2)
    alice = scene.login("alice")
    for room in ("one", "two", "three"):
        alice.enters(room)
    alice.succeeds(Register(Secret(PASSWORD)))
    assert [scene.owner(room) for room in ("one", "two", "three")] == ["alice@", "alice@", "alice"]
    scene.now_s += 86_400
    assert scene.chat.rooms.find("one") is not None, "it is empty, and kept"
    assert scene.storage.restarted().load().rooms[1].owner == "alice"


# --- Logging in ------------------------------------------------------------------------------------------------------


def test_a_login_waits_for_its_proof_and_changes_nothing_before(scene):
    registered(scene, "alice").do(Quit())
    client = scene.connect()
    pending = begun(client, with_password("ALICE"))
    assert len(scene.chat) == 0
    assert client.take() == []
    pending.finish(pending.job())
    assert client.session.account is not None
    assert client.session.account.key == "alice"


def test_a_missing_password_is_neither_verified_nor_a_failure(scene):
    registered(scene, "alice").do(Quit())
    client = scene.connect()
    for _ in range(10):
        assert client.refused(Login("alice")) is Rejection.PASSWORD_REQUIRED
    assert scene.hasher.verified == 0
    assert any(isinstance(event, Welcome) for event in client.do(with_password("alice")))


def test_strangers_do_not_lock_out_a_known_address(scene):
    registered(scene, "alice", "10.0.0.1").do(Quit())
    for number in range(40):
        stranger = scene.connect(f"10.1.0.{number}")
        for _ in range(3):
            stranger.do(with_password("alice", OTHER))
    assert not scene.hasher.known
    assert scene.connect("10.2.0.1").refused(with_password("alice")) is Rejection.TOO_MANY_ATTEMPTS
    logs_in(scene, with_password("alice"), "10.0.0.1")
    assert scene.hasher.known, "so it does not wait for the others"


def test_an_address_is_known_once_it_has_logged_in(scene):
    registered(scene, "alice", "10.0.0.1").do(Quit())
    logs_in(scene, with_password("alice"), "2001:db8::1:2:3:4").do(Quit())
    assert saved_accounts(scene)[-1].origins == ("10.0.0.1", "2001:db8::")


def test_wrong_passwords_over_a_unix_socket_are_those_of_their_user(scene):
    registered(scene, "alice", "uid:1000").do(Quit())
    guesser = scene.connect("uid:1001")
    for _ in range(3):
        assert guesser.refused(with_password("alice", OTHER)) is Rejection.WRONG_PASSWORD
    assert guesser.refused(with_password("alice")) is Rejection.TOO_MANY_ATTEMPTS
    logs_in(scene, with_password("alice"), "uid:1000")
    assert scene.hasher.known
    assert saved_accounts(scene)[-1].origins == ("uid:1000",)


@pytest.mark.parametrize("text", ["short", "x" * 200, "é" * 5_000])
def test_what_cannot_be_a_password_is_a_wrong_one(scene, text: str):
    registered(scene, "alice").do(Quit())
    assert scene.connect().refused(with_password("alice", text)) is Rejection.WRONG_PASSWORD


@pytest.mark.parametrize(
    ("error", "reported"), [(HasherFull("full"), 0), (HashingFailed("?"), 1), (DamagedHash("?"), 1)]
)
def test_what_cannot_be_verified_is_not_a_failure(scene, error: Exception, reported: int):
    registered(scene, "alice").do(Quit())
    client = scene.connect()
    scene.hasher.error = error
    for _ in range(5):
        assert client.refused(with_password("alice")) is Rejection.TOO_MANY_ATTEMPTS
    assert len(scene.reported) == 5 * reported
    scene.hasher.error = None
    assert any(isinstance(event, Welcome) for event in client.do(with_password("alice")))


def test_someone_who_was_banned_while_the_password_was_verified_is_notified(scene):
    registered(scene, "alice").do(Quit())
    operator = scene.login("op", account=True)
    client = scene.connect()
    pending = begun(client, with_password("alice"))
    operator.succeeds(Impose(Sanction.BAN, "alice"))
    pending.finish(pending.job())
    assert client.take() == [DisconnectNotice(NoticeReason.BANNED, as_error=True)]
    assert client.peer.disconnected == [NoticeReason.BANNED]


def test_a_password_that_was_changed_while_it_was_verified_is_verified_again(scene):
    alice = registered(scene, "alice")
    thief = scene.connect()
    pending = begun(thief, with_password("alice"))
    proof = pending.job()
    alice.succeeds(ChangePassword(Secret(PASSWORD), Secret(OTHER)))
    again = pending.finish(proof)
    assert isinstance(again, Pending)
    assert again.finish(again.job()) is DONE
    assert thief.take() == [Rejected(Rejection.WRONG_PASSWORD)]
    assert alice.session.name is not None


def test_a_token_that_is_revoked_while_its_login_waits_at_a_gate_is_of_no_use(scene):
    alice = registered(scene, "alice")
    (issued,) = alice.do(AskToken())
    assert isinstance(issued, TokenIssued)
    thief = scene.connect()
    pending = begun(thief, Login("alice", password=issued.token))
    gate = scene.chat.lobby.gate
    assert isinstance(gate, SwitchedGate)
    gate.open = False
    busy = pending.finish(pending.job())
    assert isinstance(busy, Busy)
    assert busy.go_on is not None, "the command again would be another guess"
    alice.succeeds(RevokeTokens())
    gate.open = True
    again = busy.go_on()
    assert isinstance(again, Pending)
    again.finish(again.job())
    assert thief.take() == [Rejected(Rejection.WRONG_PASSWORD)]
    assert thief.session.account is None


def test_a_login_that_waits_at_a_gate_takes_over_when_it_passes(scene):
    alice = registered(scene, "alice")
    client = scene.connect()
    gate = scene.chat.lobby.gate
    assert isinstance(gate, SwitchedGate)
    gate.open = False
    pending = begun(client, with_password("alice"))
    busy = pending.finish(pending.job())
    assert alice.take() == []
    gate.open = True
    assert isinstance(busy, Busy)
    assert busy.go_on is not None
    busy.go_on()
    assert alice.peer.disconnected == [NoticeReason.REPLACED]
    assert scene.hasher.verified == 1


def test_a_hash_of_another_cost_is_replaced(scene, monkeypatch: pytest.MonkeyPatch):
    registered(scene, "alice").do(Quit())
    verify = scene.hasher.verify
    monkeypatch.setattr(
        scene.hasher, "verify", lambda *args: replace(verify(*args), replacement=f"plain:{PASSWORD}!")
    )
    logs_in(scene, with_password("alice"))
    assert saved_accounts(scene)[-1].password_hash == f"plain:{PASSWORD}!"


# --- Taking over -----------------------------------------------------------------------------------------------------


def test_every_room_hears_a_departure_before_the_arrival(scene):
    alice = registered(scene, "alice", room="dev")
    bob, carol = scene.login("bob", "dev"), scene.login("carol")
    for client in (alice, bob, carol):
        client.take()
    client = logs_in(scene, with_password("Alice"))
    assert alice.take() == [DisconnectNotice(NoticeReason.REPLACED)]
    assert bob.take() == [Left("dev", "alice", NOW_MS)]
    assert carol.take() == [Joined("lobby", "Alice", NOW_MS)]
    assert alice.session.name is None
    assert client.session.name is not None
    assert alice.peer.disconnected == [NoticeReason.REPLACED]


def test_a_departure_that_cannot_be_announced_yet_comes_before_the_arrival(scene):
    alice = registered(scene, "alice")
    bob = scene.login("bob")
    alice.take()
    gate = scene.chat.lobby.gate
    assert isinstance(gate, SwitchedGate)
    client = scene.connect()
    pending = begun(client, Login("alice", [EnterRoom("dev")], password=Secret(PASSWORD)))
    gate.open = False
    pending.finish(pending.job())
    assert alice.take() == [DisconnectNotice(NoticeReason.REPLACED)]
    assert bob.take() == []
    gate.open = True
    client.do(EnterRoom("lobby"))
    assert bob.take() == [Left("lobby", "alice", NOW_MS), Joined("lobby", "alice", NOW_MS)]


# --- Tokens and passwords --------------------------------------------------------------------------------------------


def test_tokens_are_stored_hashed_and_shown_once(scene):
    alice = registered(scene, "alice")
    (issued,) = alice.do(AskToken())
    assert isinstance(issued, TokenIssued)
    token = issued.token.reveal()
    assert token not in repr(issued)
    assert token not in repr(scene.storage.saved)
    (stored,) = saved_accounts(scene)[-1].token_hashes
    assert len(stored) == 64


def test_an_account_has_a_limited_number_of_tokens():
    scene = ModeratedChat(tokens=2)
    alice = registered(scene, "alice")
    for _ in range(2):
        assert isinstance(alice.do(AskToken())[0], TokenIssued)
    assert alice.refused(AskToken()) is Rejection.LIST_FULL
    alice.succeeds(RevokeTokens())
    assert isinstance(alice.do(AskToken())[0], TokenIssued)


def test_wrong_tokens_are_counted_like_wrong_passwords_and_take_no_hash(scene):
    registered(scene, "alice").do(Quit())
    client = scene.connect("10.0.0.9")
    wrong = with_password("alice", "gct_" + "A" * 43)
    assert [client.refused(wrong) for _ in range(4)] == [Rejection.WRONG_PASSWORD] * 3 + [
        Rejection.TOO_MANY_ATTEMPTS
    ]
    assert scene.hasher.verified == 0


def test_a_password_is_changed_only_from_what_it_was_when_it_was_verified(scene):
    alice = registered(scene, "alice")
    first = begun(alice, ChangePassword(Secret(PASSWORD), Secret(OTHER)))
    second = begun(alice, ChangePassword(Secret(PASSWORD), Secret("third password")))
    results = [first.job(), second.job()]
    first.finish(results[0])
    assert alice.take() == [Accepted(Action.PASSWORD_CHANGED, subject="alice")]
    second.finish(results[1])
    assert alice.take() == [Rejected(Rejection.WRONG_PASSWORD)]
    assert saved_accounts(scene)[-1].password_hash == f"plain:{OTHER}"


# --- Restarts --------------------------------------------------------------------------------------------------------


def test_accounts_and_their_roles_survive_a_restart(scene):
    alice = registered(scene, "alice", room="dev")
    (issued,) = alice.do(AskToken())
    assert isinstance(issued, TokenIssued)
    alice.do(Quit())
    again = ModeratedChat(storage=scene.storage.restarted(), time_s=NOW_S + 1)
    assert again.connect().refused(Login("alice")) is Rejection.PASSWORD_REQUIRED
    bob = again.login("bob", "dev")
    alice = logs_in(again, Login("alice", password=issued.token))
    alice.enters("dev")
    assert alice.succeeds(Kick("bob")) is Action.KICKED
    assert bob.room == "lobby"


def test_an_account_that_was_not_used_for_a_year_is_deleted_at_the_start_with_its_roles():
    old = AccountRecord("old", "old", "plain:x", last_login_ms=NOW_MS)
    storage = RecordingStorage(
        [
            RoomRecord("dev", "dev", owner="old", empty_since_ms=NOW_MS + 1000 * YEAR_S),
            RoomRecord(
                "ops",
                "ops",
                owner="new",
                moderators=frozenset({"old", "new"}),
                voiced=frozenset({"old"}),
                invited=(("old", 1000 * NOW_MS),),
                empty_since_ms=NOW_MS + 1000 * YEAR_S,
            ),
        ],
        accounts=[
            old,
            AccountRecord("new", "new", "plain:x", last_login_ms=NOW_MS + 1_000),
            AccountRecord("op", "op", "plain:x", last_login_ms=NOW_MS),
        ],
    )
    scene = ModeratedChat(storage=storage, time_s=NOW_S + YEAR_S + 1)
    assert scene.storage.forgotten == [old]
    assert scene.room("dev").owner is None
    assert {record.key: record.owner for record in storage.saved if isinstance(record, RoomRecord)} == {
        "dev": "",
        "ops": "new",
        "lobby": "",
    }
    ops = scene.room("ops")
    assert (ops.moderators, ops.voices, ops.invitations.of_accounts()) == ({"new"}, set(), ())
    assert scene.login("old").session.account is None
    assert scene.connect().refused(Login("op")) is Rejection.PASSWORD_REQUIRED
    assert scene.connect().refused(Login("new")) is Rejection.PASSWORD_REQUIRED


def test_a_start_with_a_clock_that_is_years_ahead_deletes_no_account(scene):
    registered(scene, "alice").do(Quit())
    storage = scene.storage.restarted()
    storage._stored = replace(storage.load(), latest_ms=NOW_MS + 1_000)
    again = ModeratedChat(storage=storage, time_s=NOW_S + 10 * YEAR_S)
    assert again.storage.forgotten == []
    assert again.connect().refused(Login("alice")) is Rejection.PASSWORD_REQUIRED


def test_a_login_while_the_clock_is_behind_does_not_make_an_account_look_unused(scene):
    registered(scene, "alice").do(Quit())
    scene.now_s -= 40 * YEAR_S
    logs_in(scene, with_password("alice"))
    assert saved_accounts(scene)[-1].last_login_ms == NOW_MS


def test_an_account_is_not_deleted_that_was_used_a_moment_ago_however_short_the_time_is():
    scene = ModeratedChat(unused_account_s=43_200.0)
    alice = registered(scene, "alice")
    scene.now_s += 13 * 3_600
    alice.do(Quit())
    again = ModeratedChat(
        storage=scene.storage.restarted(), time_s=scene.now_s + 60, unused_account_s=43_200.0
    )
    assert again.storage.forgotten == []


def test_with_a_time_of_zero_no_account_is_ever_deleted(scene):
    registered(scene, "alice").do(Quit())
    again = ModeratedChat(storage=scene.storage.restarted(), time_s=NOW_S + 10 * YEAR_S, unused_account_s=0.0)
    assert again.storage.forgotten == []
    assert again.connect().refused(Login("alice")) is Rejection.PASSWORD_REQUIRED


def test_an_account_that_was_in_use_all_the_time_is_not_unused(scene):
    alice = registered(scene, "alice")
    scene.now_s += 2 * YEAR_S
    alice.do(Quit())
    assert saved_accounts(scene)[-1].last_login_ms == NOW_MS + 2_000 * YEAR_S


# --- Messages to people who are away ---------------------------------------------------------------------------------


def test_a_message_is_delivered_once_and_with_the_time_at_which_it_was_sent(scene):
    registered(scene, "bob").do(Quit())
    alice = registered(scene, "alice")
    message = DirectMessage("alice", "bob", "hi", NOW_MS)
    assert alice.do(SendDirectMessage("BOB", "hi")) == [MessageKept(message)]
    assert alice.session.cost_bytes == 1_024
    scene.now_s += 60
    bob = scene.connect()
    assert bob.do(with_password("bob"))[1:] == [message]
    bob.do(Quit())
    assert len(scene.connect().do(with_password("bob"))) == 1


def test_a_message_to_someone_who_logs_in_meanwhile_is_delivered_at_once(scene):
    registered(scene, "bob").do(Quit())
    alice = registered(scene, "alice")
    pending = begun(alice, SendDirectMessage("bob", "hi"))
    bob = logs_in(scene, with_password("bob"))
    alice.take()
    bob.take()
    kept = pending.job()
    pending.finish(kept)
    assert [type(event).__name__ for event in alice.take()] == ["DirectMessageSent"]
    assert bob.take() == [DirectMessage("alice", "bob", "hi", NOW_MS)]
    bob.do(Quit())
    assert len(scene.connect().do(with_password("bob"))) == 1, "it was delivered"


def test_a_login_that_ends_before_its_messages_are_delivered_loses_none(scene):
    registered(scene, "bob").do(Quit())
    alice = registered(scene, "alice")
    for number in range(3):
        alice.do(SendDirectMessage("bob", str(number)))
    bob = scene.connect()
    login = begun(bob, with_password("bob"))
    reading = login.finish(login.job())
    assert isinstance(reading, Pending)
    taking = reading.finish(reading.job())
    assert isinstance(taking, Pending), "it waits until the storage has noted what is taken"
    assert [type(event) for event in bob.take()] == [Welcome]
    scene.chat.leave(bob.session)
    texts = [event.text for event in scene.connect().do(with_password("bob"))[1:]]
    assert texts == ["0", "1", "2"]


def test_many_messages_are_delivered_in_parts_and_the_rest_stays_in_the_mailbox(scene):
    registered(scene, "bob").do(Quit())
    for sender in ("alice", "carol"):
        client = registered(scene, sender)
        for number in range(10):
            client.do(SendDirectMessage("bob", f"{sender} {number}"))
    bob = scene.connect()
    result = scene.chat.handle(bob.session, with_password("bob"))
    while isinstance(result, Pending):
        result = result.finish(result.job())
    assert len(bob.take()) == 1 + 10
    assert not bob.session.mail
    assert len(scene.storage.mailbox("bob", 0, 100)) == 10
    scene.chat.leave(bob.session)
    texts = [event.text for event in scene.connect().do(with_password("bob"))[1:]]
    assert texts == [f"carol {number}" for number in range(10)]


def test_someone_who_takes_over_gets_what_the_old_connection_was_not_sent(scene):
    registered(scene, "bob").do(Quit())
    registered(scene, "alice").do(SendDirectMessage("bob", "hi"))
    first = scene.connect()
    login = begun(first, with_password("bob"))
    reading = login.finish(login.job())
    assert isinstance(reading, Pending)
    reading.finish(reading.job())
    second = scene.connect()
    assert [event.text for event in second.do(with_password("bob")) if isinstance(event, DirectMessage)] == [
        "hi"
    ]


def test_a_muted_user_cannot_leave_messages(scene):
    registered(scene, "bob").do(Quit())
    alice = registered(scene, "alice")
    scene.login("op", account=True).succeeds(Impose(Sanction.MUTE, "alice"))
    assert alice.refused(SendDirectMessage("bob", "hi")) is Rejection.MUTED


def test_a_storage_that_cannot_keep_a_message_is_like_a_full_mailbox(scene, monkeypatch: pytest.MonkeyPatch):
    registered(scene, "bob").do(Quit())
    alice = registered(scene, "alice")
    monkeypatch.setattr(scene.storage, "keep", unavailable)
    assert alice.refused(SendDirectMessage("bob", "hi")) is Rejection.MAILBOX_FULL


def test_a_storage_that_cannot_be_read_prevents_no_login(scene, monkeypatch: pytest.MonkeyPatch):
    registered(scene, "bob").do(Quit())
    registered(scene, "alice").do(SendDirectMessage("bob", "hi"))
    with monkeypatch.context() as broken:
        broken.setattr(scene.storage, "mailbox", unavailable)
        bob = logs_in(scene, with_password("bob"))
    bob.do(Quit())
    assert len(scene.connect().do(with_password("bob"))) == 2


def unavailable(*args: object) -> None:
    raise StorageUnavailable("the disk is full")
