"""Accounts that say and read something with a token and without logging in."""

from __future__ import annotations

from dataclasses import replace

from geventchat.chat.commands import AskToken, Post, ReadMessages, RevokeTokens, Say
from geventchat.chat.events import Accepted, Confirmed, HistoryPage, PastMessage, Rejected, Rejection
from geventchat.chat.passwords import Secret, token_from
from geventchat.chat.records import AccountRecord, Stored
from geventchat.chat.results import DONE, Busy, Pending
from geventchat.chat.storage import LOOKUP_BYTES
from tests.geventchat.test_chat import NOW_S, Scene
from tests.geventchat.test_keeping import Keeper, ids, run

TOKEN, STORED_TOKEN = token_from(b"t" * 32)
DAY_MS = 86_400_000
NOW_MS = int(NOW_S * 1000)
RECORD = AccountRecord("ci", "CI", "hash", (STORED_TOKEN,), last_login_ms=NOW_MS)


class Disk(Keeper):
    """Has one account, and answers what comes behind an id, too."""

    def __init__(self, record: AccountRecord = RECORD) -> None:
        super().__init__(Stored("e1", accounts=(record,)))

    def after(self, room: str, id: int, limit: int) -> list[PastMessage]:
        self.reads += 1
        return [message for message in self.messages.get(room, ()) if message.id > id][:limit]


def test_a_visitor_is_neither_in_the_room_nor_in_the_chat():
    scene = Scene(Disk())
    session, visitor = scene.connect()
    assert scene.chat.handle(session, Post(TOKEN, "hi", "lobby")) is DONE
    assert visitor.take() == [Confirmed("lobby", 1)]
    assert (session.name, len(scene.chat), list(scene.chat.lobby.names)) == (None, 0, [])
    assert [said.name for said in scene.observed] == ["CI"]


def test_a_visitor_waits_at_the_gate_of_the_room():
    scene = Scene(Disk())
    session, visitor = scene.connect()
    scene.gate.open = False
    assert isinstance(scene.chat.handle(session, Post(TOKEN, "hi", "lobby")), Busy)
    assert visitor.take() == []
    assert not scene.observed


def test_messages_that_the_log_has_lost_are_read_from_the_storage():
    disk = Disk()
    scene = Scene(disk, history_messages=2)
    session, visitor = scene.connect()
    for number in range(1, 8):
        scene.chat.handle(session, Post(TOKEN, f"m{number}", "lobby"))
    visitor.take()
    run(scene.chat.handle(session, ReadMessages(TOKEN, 3, "lobby", after=1)))
    (page,) = visitor.take()
    assert (ids(page), page.more, disk.reads) == ([2, 3, 4], True, 1)
    run(scene.chat.handle(session, ReadMessages(TOKEN, 3, "lobby", after=5)))
    (page,) = visitor.take()
    assert (ids(page), page.more, disk.reads) == ([6, 7], False, 1)
    run(scene.chat.handle(session, ReadMessages(TOKEN, 3, "lobby")))
    (page,) = visitor.take()
    assert (ids(page), page.more) == ([5, 6, 7], True)
    assert session.cost_bytes == disk.reads * LOOKUP_BYTES == 2 * LOOKUP_BYTES


def test_what_only_the_log_has_is_read_from_its_beginning_on():
    disk = Disk()
    disk.keeps_messages = False
    scene = Scene(disk, history_messages=3)
    session, visitor = scene.connect()
    for number in range(1, 8):
        scene.chat.handle(session, Post(TOKEN, f"m{number}", "lobby"))
    visitor.take()
    scene.chat.handle(session, ReadMessages(TOKEN, 2, "lobby", after=1))
    scene.chat.handle(session, ReadMessages(TOKEN, 0, "lobby"))
    first, empty = visitor.take()
    assert (ids(first), first.more) == ([5, 6], True)
    assert (ids(empty), empty.more) == ([], True)


def test_whoever_can_no_longer_enter_is_not_sent_what_was_being_read():
    scene = Scene(Disk(), history_messages=1)
    session, visitor = scene.connect()
    for number in range(1, 4):
        scene.chat.handle(session, Post(TOKEN, f"m{number}", "lobby"))
    visitor.take()
    pending = scene.chat.handle(session, ReadMessages(TOKEN, 9, "lobby"))
    assert isinstance(pending, Pending)
    read = pending.job()
    scene.chat.lobby.private = True
    assert pending.finish(read) is DONE
    assert visitor.take() == [Rejected(Rejection.NO_SUCH_ROOM, "lobby", "lobby")]


def test_a_page_that_was_read_while_a_message_was_deleted_is_read_again():
    scene = Scene(Disk(), history_messages=1)
    session, visitor = scene.connect()
    for number in range(1, 4):
        scene.chat.handle(session, Post(TOKEN, f"m{number}", "lobby"))
    visitor.take()
    pending = scene.chat.handle(session, ReadMessages(TOKEN, 9, "lobby", after=0))
    assert isinstance(pending, Pending)
    read = pending.job()
    scene.chat.lobby.delete(2, NOW_MS)
    assert isinstance(pending.finish(read), Pending)
    assert visitor.take() == []


def test_pages_have_a_limited_length():
    scene = Scene(Disk(), history_page_messages=2)
    session, visitor = scene.connect()
    for number in range(1, 6):
        scene.chat.handle(session, Post(TOKEN, f"m{number}", "lobby"))
    visitor.take()
    scene.chat.handle(session, ReadMessages(TOKEN, 1_000_000, "lobby", after=0))
    assert visitor.take() == [HistoryPage("lobby", list(map(_message, (1, 2))), more=True)]


def test_pages_have_a_limited_number_of_bytes():
    scene = Scene(Disk())
    session, visitor = scene.connect()
    for _ in range(80):
        scene.chat.handle(session, Post(TOKEN, "m" * 4_000, "lobby"))
    visitor.take()
    most = 262_144 // 4_100
    scene.chat.handle(session, ReadMessages(TOKEN, 200, "lobby", after=0))
    scene.chat.handle(session, ReadMessages(TOKEN, 200, "lobby", after=most))
    scene.chat.handle(session, ReadMessages(TOKEN, 200, "lobby"))
    first, second, latest = visitor.take()
    assert (ids(first), first.more) == (list(range(1, most + 1)), True)
    assert (ids(second), second.more) == (list(range(most + 1, 81)), False)
    assert (ids(latest), latest.more) == (list(range(81 - most, 81)), True)


def _message(number: int) -> PastMessage:
    return PastMessage(number, "CI", f"m{number}", NOW_MS)


def test_an_account_that_only_visits_is_in_use():
    scene = Scene(Disk(replace(RECORD, last_login_ms=NOW_MS - 2 * DAY_MS)))
    session, _ = scene.connect()
    scene.chat.handle(session, Post(TOKEN, "hi", "lobby"))
    record = scene.chat._accounts.find("ci")
    assert record is not None
    assert record.last_login_ms == NOW_MS


def test_a_token_is_good_from_when_it_is_made_until_it_is_revoked():
    scene = Scene(Disk(replace(RECORD, token_hashes=())))
    owner, _ = scene.connect()
    owner.account = scene.chat._accounts.find_account("ci")
    name = scene.login("guest")[0].name
    session, visitor = scene.connect()

    def posted() -> object:
        scene.chat.handle(session, Post(TOKEN, "hi", "lobby"))
        return visitor.take()

    assert posted() == [Rejected(Rejection.WRONG_PASSWORD)]
    credentials = scene.chat._credentials
    credentials._random_bytes = lambda size: b"t" * size
    credentials.carry_out(owner, name, AskToken())
    assert posted() == [Confirmed("lobby", 1)]
    credentials.carry_out(owner, name, RevokeTokens())
    assert posted() == [Rejected(Rejection.WRONG_PASSWORD)]


def test_one_token_can_be_revoked_and_the_others_stay():
    other, stored_other = token_from(b"o" * 32)
    scene = Scene(Disk(replace(RECORD, token_hashes=(STORED_TOKEN, stored_other))))
    owner, listener = scene.connect()
    owner.account = scene.chat._accounts.find_account("ci")
    name = scene.login("guest")[0].name
    scene.chat._credentials.carry_out(owner, name, RevokeTokens(other))
    session, visitor = scene.connect()
    for token in (TOKEN, other):
        scene.chat.handle(session, Post(token, "hi", "lobby"))
    assert visitor.take() == [Confirmed("lobby", 1), Rejected(Rejection.WRONG_PASSWORD)]
    scene.chat._credentials.carry_out(owner, name, RevokeTokens(Secret("not a token")))
    scene.chat.handle(session, Post(TOKEN, "hi", "lobby"))
    assert visitor.take() == [Confirmed("lobby", 2)]
    assert [type(answer) for answer in listener.take() if isinstance(answer, Accepted)] == [
        Accepted,
        Accepted,
    ]


def test_no_one_visits_under_a_name_that_is_reserved_meanwhile():
    scene = Scene(Disk(replace(RECORD, key="admin", name="admin")))
    session, visitor = scene.connect()
    scene.chat.handle(session, Post(TOKEN, "hi", "lobby"))
    assert visitor.take() == [Rejected(Rejection.NAME_INVALID)]


def test_the_token_is_in_no_text_about_the_command():
    assert TOKEN.reveal() not in repr(Post(TOKEN, "hi", "lobby"))
    assert "gct_" not in repr(ReadMessages(Secret("gct_x"), 1, "lobby"))


def test_a_login_afterwards_is_an_ordinary_one():
    scene = Scene(Disk())
    session, visitor = scene.connect()
    scene.chat.handle(session, Post(TOKEN, "hi", "lobby"))
    visitor.take()
    scene.chat.handle(session, Say(["hi"]))
    assert visitor.take() == [Rejected(Rejection.NOT_LOGGED_IN)]
