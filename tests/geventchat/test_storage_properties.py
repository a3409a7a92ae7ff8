"""Random operations on a storage compared with a model, and random failures that must not make an id be used twice."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from geventchat.chat.events import DirectMessage
from geventchat.chat.records import AccountRecord, Act, KeptMessage, Restriction, RoomRecord
from geventchat.log import LogEvent
from geventchat.services.storage import schema
from geventchat.settings import Limits
from tests.geventchat.storage_worlds import WORLDS, Disk, account, act, ban, say

STEPS = settings(max_examples=20, stateful_step_count=30)
ROOMS = st.sampled_from(["lobby", "dev", "é"])
ACCOUNTS = st.sampled_from(["alice", "bob", "carol"])
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=5)


@pytest.fixture(autouse=True, scope="module")
def fast_commits() -> Iterator[None]:
    """Commits that do not wait for the disk: nothing here cuts the power."""
    connect = schema.connect

    def fast(database: Path, *, query_only: bool = False) -> sqlite3.Connection:
        connection = connect(database, query_only=query_only)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "connect", fast)
        yield


class StorageMachine(RuleBasedStateMachine):
    """Any operations and restarts; what is read is what a model holds."""

    world_type: type[Disk]
    limits = Limits(mail_per_account=4, mail_per_sender=3, mail_bytes=2_000, mail_s=1_000.0)

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="storage-"))
        self.world = self.world_type(self.folder)
        self.storage = self.world.open(self.limits)
        self.epoch = self.storage.load().epoch
        self.floor_id = 0
        self.rooms: dict[str, RoomRecord] = {}
        self.messages: dict[str, dict[int, str]] = {}
        self.accounts: dict[str, AccountRecord] = {}
        self.restrictions: dict[tuple[str, ...], Restriction] = {}
        self.mail: dict[str, list[tuple[str, KeptMessage]]] = defaultdict(list)
        self.acts: list[Act] = []
        self.numbers = 0

    def teardown(self) -> None:
        self.world.end()
        shutil.rmtree(self.folder)

    @rule(key=ROOMS, topic=st.text(max_size=5), owner=ACCOUNTS)
    def save_room(self, key: str, topic: str, owner: str) -> None:
        known = self.rooms.get(key) or RoomRecord(key, key, last_id=self.floor_id)
        room = replace(known, topic=topic.encode("utf-8", "replace").decode(), owner=owner)
        self.rooms[key] = room
        self.messages.setdefault(key, {})
        self.storage.save(room)

    @rule(key=ROOMS, texts=TEXTS)
    def append(self, key: str, texts: list[str]) -> None:
        if key in self.rooms:
            first_id = self.rooms[key].last_id + 1
            assert self.storage.is_ready(key, first_id + len(texts) - 1)
            self.rooms[key] = replace(self.rooms[key], last_id=first_id + len(texts) - 1)
            self.messages[key] |= dict(enumerate(texts, first_id))
            say(self.storage, first_id, *texts, room=key)

    @rule(key=ROOMS)
    def forget_room(self, key: str) -> None:
        if key in self.rooms:
            room = self.rooms.pop(key)
            self.floor_id = max(self.floor_id, room.last_id)
            del self.messages[key]
            self.restrictions = {one: ban for one, ban in self.restrictions.items() if ban.room != key}
            self.storage.forget(room)

    @rule(key=ROOMS, back=st.integers(0, 5))
    def delete(self, key: str, back: int) -> None:
        if key in self.rooms:
            id = self.rooms[key].last_id - back
            if id in self.messages[key]:
                self.messages[key][id] = ""
            self.storage.delete(key, id)

    @rule(key=ACCOUNTS, ignored=st.lists(ACCOUNTS, max_size=3), login=st.integers(0, 9))
    def save_account(self, key: str, ignored: list[str], login: int) -> None:
        self.accounts[key] = account(key, ignored=tuple(ignored), last_login_ms=login)
        self.storage.save(self.accounts[key])

    @rule(key=ACCOUNTS)
    def forget_account(self, key: str) -> None:
        self.accounts.pop(key, None)
        self.mail.pop(key, None)
        self.storage.forget(account(key))

    @rule(room=ROOMS | st.just(""), name=ACCOUNTS, reason=st.text(max_size=3), end=st.booleans())
    def restrict(self, room: str, name: str, reason: str, end: bool) -> None:
        one = ban(room, name, reason=reason.encode("utf-8", "replace").decode())
        if end:
            self.restrictions.pop(one.identity, None)
            self.storage.forget(one)
        else:
            self.restrictions[one.identity] = one
            self.storage.save(one)

    @rule()
    def audit(self) -> None:
        self.numbers += 1
        self.acts.append(act(self.numbers, room="dev" if self.numbers % 2 else ""))
        self.storage.audit(self.acts[-1])

    @rule(key=ACCOUNTS, sender=ACCOUNTS, size=st.integers(0, 300))
    def keep(self, key: str, sender: str, size: int) -> None:
        # Messages that are too old, and what is taken, take place until the writer has removed them.
        self.storage.acts(1)
        message = DirectMessage(sender.title(), key.title(), "x" * size, self.world.now_ms())
        kept = self.storage.keep(key, sender, message)
        mailbox = self.mail[key]
        full = (
            len(mailbox) >= 4
            or sum(by == sender for by, _ in mailbox) >= 3
            or not self._make_way(sender, size + 200)
        )
        assert (kept is None) == full
        if kept is not None:
            assert kept.message == message
            mailbox.append((sender, kept))

    def _make_way(self, sender: str, size: int) -> bool:
        """Whoever has the most makes way for those who have less."""
        while True:
            sizes: Counter[str] = Counter()
            for mail in self.mail.values():
                for by, one in mail:
                    sizes[by] += len(one.message.text) + 200
            if sizes.total() + size <= 2_000:
                return True
            most, largest = max((sizes[by], by) for by in sizes)
            if most <= sizes[sender] + size:
                return False
            _, key = min(
                (one.number, key) for key, mail in self.mail.items() for by, one in mail if by == largest
            )
            oldest = min(one.number for by, one in self.mail[key] if by == largest)
            self.mail[key] = [(by, one) for by, one in self.mail[key] if one.number != oldest]

    @rule(key=ACCOUNTS, first=st.booleans())
    def take(self, key: str, first: bool) -> None:
        waiting = self.storage.mailbox(key, 0, 100)
        taken = waiting[:1] if first else waiting
        assert self.storage.take(taken) == taken
        assert self.storage.take(taken) == []
        self.mail[key] = self.mail[key][len(taken) :]

    @rule()
    def restart(self) -> None:
        self.storage = self.world.reopened(self.storage, self.limits)
        self.compare_records(exactly=True)

    @rule()
    def be_killed(self) -> None:
        if self.world.survives:
            self.world.killed(self.storage)
            self.storage = self.world.open(self.limits)
            self.compare_records(exactly=False)

    def compare_records(self, *, exactly: bool) -> None:
        stored = self.storage.load()
        if not self.world.survives:
            assert (stored.rooms, stored.accounts, stored.restrictions) == ((), (), ())
            self.mail.clear()
            self.acts.clear()
            return
        assert stored.epoch == self.epoch
        rooms = {room.key: room for room in stored.rooms}
        assert len(rooms) == len(stored.rooms)
        if exactly:
            assert rooms == self.rooms
            assert stored.floor_id == self.floor_id
        else:
            assert {key: replace(room, last_id=0) for key, room in rooms.items()} == {
                key: replace(room, last_id=0) for key, room in self.rooms.items()
            }
            assert all(rooms[key].last_id >= room.last_id for key, room in self.rooms.items())
            assert stored.floor_id >= self.floor_id
        self.rooms, self.floor_id = rooms, stored.floor_id
        assert {one.key: one for one in stored.accounts} == self.accounts
        assert {one.identity: one for one in stored.restrictions} == self.restrictions

    @invariant()
    def what_is_read_is_what_is_there(self) -> None:
        if not hasattr(self, "storage"):
            return
        for key in ("lobby", "dev", "é"):
            found = [(one.id, one.text) for one in self.storage.after(key, 0, 10_000)]
            kept = sorted(self.messages.get(key, {}).items()) if self.world.keeps_messages else []
            assert found == kept
            middle = kept[len(kept) // 2][0] if kept else 0
            around = [
                one.id for one in self.storage.before(key, middle, 2) + self.storage.after(key, middle, 2)
            ]
            below, above = [id for id, _ in kept if id < middle], [id for id, _ in kept if id > middle]
            assert around == below[-2:] + above[:2]
        for key in ("alice", "bob", "carol"):
            waiting = [kept for _, kept in self.mail.get(key, [])]
            assert [one for one in self.storage.mailbox(key, 0, 100) if one in waiting] == waiting
            assert self.storage.has_mail(key) or not waiting
        assert self.storage.acts(1_000) == self.acts


class UsedIds(RuleBasedStateMachine):
    """A disk that is full at times, kills, and files that are damaged, lost or replaced by older ones: within an epoch, no id
    of a room is used twice."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="storage-"))
        self.disk = Disk(self.folder)
        self.used: dict[tuple[str, str], int] = {}
        self.full = False
        self.running = True
        self.copies = 0
        self.start()

    def teardown(self) -> None:
        self.disk.end()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        self.storage = self.disk.open()
        stored = self.storage.load()
        self.epoch, self.floor_id = stored.epoch, stored.floor_id
        self.last_ids = {room.key: room.last_id for room in stored.rooms}
        self.running, self.full = True, False

    @precondition(lambda self: self.running)
    @rule(key=ROOMS, ids=st.integers(1, 70_000), big=st.booleans(), settle=st.booleans())
    def use(self, key: str, ids: int, big: bool, settle: bool) -> None:
        """Use many ids, as if so much had been said, of which only the last is a message."""
        if key not in self.last_ids:
            self.last_ids[key] = self.floor_id
            self.storage.save(RoomRecord(key, key, last_id=self.floor_id))
        last_id = self.last_ids[key] + ids
        if not self.storage.is_ready(key, last_id):
            return
        assert self.last_ids[key] >= self.used.get((self.epoch, key), 0), "an id was used twice"
        self.last_ids[key] = self.used[self.epoch, key] = last_id
        say(self.storage, last_id, "x" * (500_000 if big else 1), room=key)
        if settle:
            self.storage.acts(1)

    @precondition(lambda self: self.running)
    @rule(key=ROOMS)
    def forget(self, key: str) -> None:
        if key in self.last_ids:
            self.floor_id = max(self.floor_id, self.last_ids.pop(key))
            self.storage.forget(RoomRecord(key, key))

    @precondition(lambda self: self.running)
    @rule()
    def fill_or_free(self) -> None:
        self.full = not self.full
        if self.full:
            self.disk.fill(self.storage)
            self.disk.connection(self.storage).execute("PRAGMA query_only = ON")
        else:
            self.disk.free(self.storage)

    @precondition(lambda self: self.running)
    @rule()
    def copy(self) -> None:
        """Copy the database as an operator does."""
        self.copies += 1
        target = sqlite3.connect(self.folder / f"copy{self.copies}.db")
        source = sqlite3.connect(self.disk.database)
        source.backup(target)
        source.close()
        target.close()

    @precondition(lambda self: self.running)
    @rule(orderly=st.booleans())
    def stop(self, orderly: bool) -> None:
        if orderly:
            self.storage.close(20)
            self.disk._open.clear()
        else:
            self.disk.killed(self.storage)
        self.running = False

    @precondition(lambda self: not self.running)
    @rule()
    def begin_again(self) -> None:
        self.start()

    @precondition(lambda self: not self.running)
    @rule(name=st.sampled_from(["ids-reserved", "ids-unreserved", "chat.db-wal", "chat.db-shm"]))
    def lose(self, name: str) -> None:
        (self.disk.path / name).unlink(missing_ok=True)
        if name == "chat.db-wal":
            (self.disk.path / "chat.db-shm").unlink(missing_ok=True)

    @precondition(lambda self: not self.running)
    @rule(
        name=st.sampled_from(["ids-reserved", "ids-unreserved"]),
        at=st.integers(0, 60),
        byte=st.binary(min_size=1),
    )
    def damage(self, name: str, at: int, byte: bytes) -> None:
        path = self.disk.path / name
        content = path.read_bytes() if path.exists() else b""
        path.write_bytes(content[:at] + byte + content[at + len(byte) :])

    @precondition(lambda self: not self.running and self.copies)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.copies))
        for name in ("chat.db-wal", "chat.db-shm"):
            (self.disk.path / name).unlink(missing_ok=True)
        shutil.copy(self.folder / f"copy{number}.db", self.disk.database)

    @invariant()
    def nothing_failed(self) -> None:
        if hasattr(self, "disk"):
            assert not self.disk.logged(LogEvent.FAULT)


for _name, _world in {**WORLDS, "sqlite": Disk}.items():

    class _Machine(StorageMachine):
        world_type = _world  # type: ignore[assignment]

    _Machine.TestCase.settings = STEPS
    globals()[f"Test_{_name}_is_what_the_model_says"] = _Machine.TestCase

UsedIds.TestCase.settings = STEPS
TestNoIdIsUsedTwice = UsedIds.TestCase
