"""The storage in a directory: its files, what opening refuses, full disks, crashes, and ids that are never used twice."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from geventchat import CannotListen, Config, Limits, Listen, Server
from geventchat.chat.events import DirectMessage, Said
from geventchat.chat.records import RoomRecord
from geventchat.chat.storage import StorageUnavailable
from geventchat.clock import SystemClock
from geventchat.log import LogEvent
from geventchat.services.storage import schema
from geventchat.services.storage.directory import CannotOpenStorage
from geventchat.services.storage.sqlite import SqliteStorage
from tests.geventchat.processes import ready_lines, run, running
from tests.geventchat.storage_worlds import LOBBY, TIMEOUT_S, Disk, account, act, ban, say, texts

STOPPED, RESUMED, LOST = LogEvent.HISTORY_STOPPED, LogEvent.HISTORY_RESUMED, LogEvent.HISTORY_LOST


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    world = Disk(tmp_path)
    yield world
    world.end()


def refusal(disk: Disk) -> str:
    """Why the directory cannot be opened, without its path."""
    with pytest.raises(CannotOpenStorage) as refused:
        disk.open()
    assert refused.value.key == "data"
    return str(refused.value).replace(str(disk.path), "DIR")


def query(disk: Disk, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(disk.database)) as connection, connection:
        return connection.execute(sql).fetchall()


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


# --- The files ---


def test_only_the_owner_can_read_the_directory_and_its_files(disk: Disk):
    old = os.umask(0)
    try:
        storage = disk.open()
        storage.save(LOBBY)
        storage.acts(1)
    finally:
        os.umask(old)
    assert mode(disk.path) == "0o700"
    files = {path.name: mode(path) for path in disk.path.iterdir()}
    assert files.keys() == {"chat.db", "chat.db-shm", "chat.db-wal", "ids-reserved", "lock"}
    assert set(files.values()) == {"0o600"}
    disk.close(storage)
    assert {path.name for path in disk.path.iterdir()} == {"chat.db", "ids-reserved", "lock"}


def test_an_empty_directory_and_one_of_a_storage_are_closed_to_others(disk: Disk):
    disk.path.mkdir(mode=0o755)
    (disk.path / "lost+found").mkdir()
    disk.close(disk.open())
    assert mode(disk.path) == "0o700"
    disk.path.chmod(0o755)
    disk.database.chmod(0o644)
    disk.close(disk.open())
    assert (mode(disk.path), mode(disk.database)) == ("0o700", "0o600")


def test_a_directory_of_something_else_is_refused_and_not_changed(disk: Disk):
    disk.path.mkdir()
    disk.path.chmod(0o755)
    (disk.path / "notes.txt").touch()
    assert refusal(disk) == (
        "data: DIR has other files in it and is open to other users (drwxr-xr-x); "
        "name an empty directory, or run: chmod 700 DIR"
    )
    assert mode(disk.path) == "0o755"
    assert [path.name for path in disk.path.iterdir()] == ["notes.txt"]


def test_a_directory_of_another_user_is_refused_if_everybody_can_write_to_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    disk.path.mkdir()
    disk.path.chmod(0o1777)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert refusal(disk) == "data: every user can write to DIR; name another directory"
    disk.path.chmod(0o775)
    disk.close(disk.open())
    assert mode(disk.path) == "0o775"


def test_a_directory_that_is_missing_with_its_parent_is_not_created(disk: Disk):
    parent = disk.path.parent / "missing"
    disk.path = parent / "data"
    assert refusal(disk) == f"data: cannot use DIR: No such file or directory; create {parent} first"
    assert not parent.exists()


def test_a_file_in_place_of_the_directory_is_refused(disk: Disk):
    disk.path.touch()
    assert refusal(disk) == "data: cannot use DIR: Not a directory; name another directory"


def test_a_directory_in_place_of_the_database_is_refused(disk: Disk):
    disk.database.mkdir(parents=True)
    assert refusal(disk) == "data: cannot use DIR: Is a directory; name another directory"


READ_ONLY = """
import os, sys
from pathlib import Path
from geventchat.clock import SystemClock
from geventchat.services.storage.sqlite import SqliteStorage
from geventchat.settings import ConfigError, Limits
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    SqliteStorage(Path(sys.argv[1]), Limits(), SystemClock(), print, print)
except ConfigError as error:
    print(error)
    raise SystemExit(f"user {os.geteuid()}")
"""


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_a_directory_that_cannot_be_written_is_refused(disk: Disk, existing: bool):
    if existing:
        disk.close(disk.open())
        for path in disk.path.iterdir():
            path.chmod(0o444)
    else:
        disk.path.mkdir()
    disk.path.chmod(0o555)
    for parent in disk.path.parents:
        if parent.owner() == Path.home().owner() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    tried = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(disk.path)], capture_output=True, text=True, check=False
    )
    user = tried.stderr.strip().rpartition(" ")[2]
    assert tried.stdout == (
        f"data: cannot use {disk.path}: Permission denied; let user {user} write there, or name another directory\n"
    ), tried.stderr


# --- One process at a time ---


def test_a_second_server_on_the_same_directory_is_refused_until_the_first_has_ended(disk: Disk):
    storage = disk.open()
    in_use = f"data: DIR is in use by process {os.getpid()}; stop it first, or name another directory"
    assert refusal(disk) == in_use
    disk.close(storage)
    disk.database.write_bytes(b"damaged" * 1_000)
    assert "is damaged" in refusal(disk)
    assert "is damaged" in refusal(disk)


def test_a_directory_in_use_by_another_process_is_refused_and_its_end_frees_it(disk: Disk):
    disk.close(disk.open())
    holder = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, disk.path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert "DIR is in use by process" in refusal(disk)
        other.kill()
    disk.close(disk.open())


# --- Versions and damage ---


def versions(disk: Disk) -> list[int]:
    return [version for (version,) in query(disk, "SELECT version FROM migrations")]


def test_the_schema_has_a_version_and_each_step_is_made_once(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    storage = disk.open()
    storage.save(LOBBY)
    say(storage, 1, "kept")
    disk.close(storage)
    assert versions(disk) == list(range(1, len(schema.MIGRATIONS) + 1))
    step = ("CREATE TABLE added (value TEXT)", "INSERT INTO added SELECT text FROM messages")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    for _ in range(2):
        storage = disk.open()
        assert texts(storage) == [(1, "kept")]
        disk.close(storage)
    assert query(disk, "SELECT * FROM added") == [("kept",)]
    assert versions(disk) == list(range(1, len(schema.MIGRATIONS) + 1))


def test_invitations_of_an_earlier_version_are_good_for_seven_days(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        storage = disk.open()
        for key in ("dev", "ops"):
            storage.save(RoomRecord(key, key))
        disk.close(storage)
    query(disk, """UPDATE rooms SET invited = '["bob", "zoë"]' WHERE key = 'dev'""")
    storage = disk.open()
    dev, ops = sorted(storage.load().rooms, key=lambda room: room.key)
    until_ms = disk.now_ms() + 7 * 86_400_000
    assert dev.invited == (("bob", until_ms), ("zoë", until_ms))
    assert ops.invited == ()


def test_a_step_that_fails_changes_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    disk.close(disk.open())
    step = ("CREATE TABLE added (value TEXT)", "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
        assert "no such table: nowhere" in refusal(disk)
    disk.close(disk.open())
    assert query(disk, "SELECT name FROM sqlite_master WHERE name = 'added'") == []


def test_a_database_of_a_newer_version_is_refused_and_not_changed(disk: Disk):
    disk.close(disk.open())
    query(disk, "INSERT INTO migrations VALUES (77, 0)")
    before = disk.database.read_bytes()
    assert refusal(disk) == (
        "data: DIR/chat.db was written by a newer geventchat "
        f"(its schema has version 77, this one knows {len(schema.MIGRATIONS)}); "
        "start the program that wrote it, or name another directory"
    )
    assert disk.database.read_bytes() == before


def test_a_database_of_another_program_is_refused(disk: Disk):
    disk.path.mkdir(mode=0o700)
    query(disk, "CREATE TABLE theirs (value TEXT)")
    assert refusal(disk) == (
        "data: DIR/chat.db was not written by geventchat; start the program that wrote it, or name another directory"
    )


def filled(disk: Disk) -> None:
    storage = disk.open()
    storage.save(LOBBY)
    storage.save(account("alice"))
    storage.save(ban())
    for id in range(1, 2_000):
        say(storage, id, f"message {id}")
    disk.close(storage)


def overwrite(at: int, with_: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:at] + with_ + content[at + len(with_) :]


@pytest.mark.parametrize(
    "damage",
    [
        overwrite(0, b"not a database at all"),
        overwrite(16, b"\x00\x01"),
        overwrite(100, b"\xff" * 200),
        overwrite(3 * 4096, b"\xff" * 4096),
        overwrite(10 * 4096, b"\xff" * 8),
        overwrite(15 * 4096, b"\x00" * 4096),
        lambda content: content[: len(content) // 2],
        lambda content: content[:4096],
        lambda content: content[:-1_000],
        lambda content: content[:50],
    ],
    ids=["magic", "page size", "schema", "page", "page header", "zeros", "half", "one page", "end", "header"],
)
def test_a_damaged_database_is_refused_with_ways_out(disk: Disk, damage: Callable[[bytes], bytes]):
    filled(disk)
    damaged = damage(disk.database.read_bytes())
    disk.database.write_bytes(damaged)
    message = refusal(disk)
    assert message.startswith("data: DIR/chat.db is damaged (")
    assert message.endswith(
        "); put a copy of it into an empty directory and name that one, save what can be read with: "
        "sqlite3 DIR/chat.db .recover, or move it away to start with nothing"
    )
    assert disk.database.read_bytes()[:50] == damaged[:50]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE rooms SET moderators = 'bob'",
        "UPDATE rooms SET moderators = '[1]'",
        "UPDATE rooms SET topic = x'00'",
        "UPDATE counters SET last_id = 'many'",
        "DELETE FROM counters",
        "UPDATE accounts SET ignored = '{}'",
        "UPDATE restrictions SET kind = 'curse'",
        "UPDATE restrictions SET until_ms = 'soon'",
        "DELETE FROM state",
        "UPDATE state SET reservations = 'many'",
        "DROP TABLE mail",
    ],
)
def test_contents_that_the_server_would_not_have_written_are_damage(disk: Disk, sql: str):
    filled(disk)
    query(disk, sql)
    assert "DIR/chat.db is damaged (" in refusal(disk)


def test_damage_that_is_found_later_stops_reading_and_is_logged(disk: Disk):
    filled(disk)
    storage = disk.open()
    with disk.database.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * (disk.database.stat().st_size - 5 * 4096))
    with pytest.raises(
        StorageUnavailable, match="the database cannot be read: database disk image is malformed"
    ):
        storage.before("lobby", 1_000, 100)
    disk.run_loop()
    event, fields = disk.log[-1]
    assert event is LogEvent.FAULT
    assert "database disk image is malformed" in fields["error"]


def test_a_running_server_can_be_copied_with_sqlites_own_tools(disk: Disk, tmp_path: Path):
    storage = disk.open()
    storage.save(LOBBY)
    say(storage, 1, "one")
    storage.acts(1)
    copy = tmp_path / "copy"
    copy.mkdir()
    with (
        closing(sqlite3.connect(disk.database)) as source,
        closing(sqlite3.connect(copy / "chat.db")) as target,
    ):
        source.backup(target)
    say(storage, 2, "two")
    assert texts(storage) == [(1, "one"), (2, "two")]
    restored = Disk(tmp_path)
    restored.path = copy
    try:
        assert texts(restored.open()) == [(1, "one")]
    finally:
        restored.end()


# --- Deletion ---


def bytes_of(disk: Disk) -> bytes:
    return b"".join(path.read_bytes() for path in disk.path.iterdir())


def test_the_text_of_a_deleted_message_is_in_no_file(disk: Disk):
    storage = disk.open()
    storage.save(LOBBY)
    secrets = {id: f"secret {id} " + "é" * (id * 37 % 5_000) for id in range(1, 400, 2)}
    for id, text in secrets.items():
        say(storage, id, text, "harmless" * (id % 50))
    storage.acts(1)
    assert all(f"secret {id} ".encode() in bytes_of(disk) for id in secrets)
    for id in secrets:
        if id % 3:
            storage.delete("lobby", id)
    disk.clock.now += 2
    storage.acts(1)
    left = bytes_of(disk)
    assert [id for id in secrets if f"secret {id} ".encode() in left] == [id for id in secrets if not id % 3]
    disk.close(storage)


def test_a_reader_delays_the_removal_from_the_log_but_does_not_prevent_it(disk: Disk):
    storage = disk.open()
    storage.save(LOBBY)
    say(storage, 1, "secret words", "others")
    storage.acts(1)
    with closing(sqlite3.connect(disk.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM messages").fetchall()
        storage.delete("lobby", 1)
        disk.clock.now += 2
        assert texts(storage) == [(1, ""), (2, "others")]
        assert b"secret words" in bytes_of(disk)
        reader.execute("COMMIT")
    disk.clock.now += 2
    storage.audit(act(1))
    storage.acts(1)
    assert b"secret words" not in bytes_of(disk)


def test_the_history_of_a_forgotten_room_is_removed_in_pieces_and_after_a_restart_too(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    statements: list[str] = []
    connect = schema.connect

    def traced(database: Path, *, query_only: bool = False) -> sqlite3.Connection:
        connection = connect(database, query_only=query_only)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(schema, "connect", traced)
    storage = disk.open()
    dev = RoomRecord("dev", "dev")
    storage.save(LOBBY)
    storage.save(dev)
    say(storage, 1, "kept")
    say(storage, 1, *["secret words"] * 5_000, room="dev")
    storage.acts(1)
    storage.forget(dev)
    disk.killed(storage)
    storage = disk.open()
    for _ in range(100):
        disk.clock.now += 2
        storage.audit(act(1))
        storage.acts(1)
        if b"secret words" not in bytes_of(disk):
            break
    assert b"secret words" not in bytes_of(disk)
    # 1,000 in a transaction.
    assert len([one for one in statements if "DELETE FROM messages" in one]) >= 6
    assert query(disk, "SELECT * FROM removed") == []
    assert texts(storage) == [(1, "kept")]


# --- Limits ---


def test_the_database_keeps_its_size_at_the_cost_of_the_largest_room(disk: Disk):
    storage = disk.open(Limits(stored_bytes=1_000_000))
    storage.save(LOBBY)
    storage.save(RoomRecord("dev", "dev"))
    say(storage, 1, *["quiet"] * 100)
    for id in range(1, 10_000, 50):
        say(storage, id, *["x" * 500] * 50, room="dev")
        storage.acts(1)
        assert disk.database.stat().st_size < 1_200_000
    assert len(texts(storage)) == 100
    kept = texts(storage, "dev", limit=10_000)
    assert 500 < len(kept) < 2_000
    assert kept[-1][0] == 10_000


def test_an_id_that_is_used_twice_is_counted_once(disk: Disk):
    storage = disk.open(Limits(stored_messages=100))
    storage.save(LOBBY)
    say(storage, 1, *["hi"] * 90)
    say(storage, 1, *["again"] * 90)
    assert [id for id, _ in texts(storage)] == list(range(1, 91))
    say(storage, 91, *["hi"] * 10)
    assert len(texts(storage)) == 100
    assert query(disk, "SELECT messages FROM counters") == [(100,)]


def test_a_wrong_counter_causes_no_endless_work(disk: Disk):
    filled(disk)
    query(disk, "UPDATE counters SET messages = 1000000")
    storage = disk.open(Limits(stored_messages=500_000))
    storage.audit(act(1))
    storage.acts(1)
    while storage._writer._pause_s() == 0:
        storage.audit(act(1))
        storage.acts(1)
    assert query(disk, "SELECT messages FROM counters") == [(0,)]


def test_a_lower_limit_applies_to_what_is_there(disk: Disk):
    filled(disk)
    storage = disk.open(Limits(stored_messages=100))
    for _ in range(10):
        storage.audit(act(1))
        storage.acts(1)
    assert [id for id, _ in texts(storage)] == list(range(1_901, 2_000))


def test_a_limit_on_the_size_that_nothing_can_meet_costs_the_messages_alone(disk: Disk):
    filled(disk)
    storage = disk.open(Limits(stored_bytes=1))
    for _ in range(10):
        storage.audit(act(1))
        storage.acts(1)
    assert texts(storage) == []
    storage = disk.reopened(storage)
    stored = storage.load()
    assert (stored.rooms[0].last_id, stored.accounts) == (1_999, (account("alice"),))


# --- Waiting for the disk ---


def test_the_chat_is_slowed_down_while_too_much_waits_and_never_waits_itself(disk: Disk):
    storage = disk.open(Limits(behind_bytes=50_000))
    storage.save(LOBBY)
    storage.acts(1)
    ready: list[bool] = []
    storage.when_ready(lambda: ready.append(storage.is_ready("lobby", 1)))
    with closing(sqlite3.connect(disk.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        id = 0
        while storage.is_ready("lobby", id + 1):
            id += 1
            say(storage, id, "x" * 100)
        assert 50_000 <= storage.behind_bytes < 51_000
        assert 100 < id < 500
        disk.run_loop()
        assert ready == []
        other.execute("COMMIT")
    while True not in ready:
        disk.await_call()
    assert storage.behind_bytes == 0
    assert len(texts(storage)) == id
    assert disk.logged(STOPPED) == []


def test_a_search_in_many_rooms_waits_for_the_disk_once(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    storage = disk.open()
    rooms = [f"room{number}" for number in range(50)]
    for room in rooms:
        storage.save(RoomRecord(room, room))
        say(storage, 1, "old", room=room)
    catch_up, waits = storage._writer.catch_up, []

    def busy() -> None:
        # Somebody talks all the time.
        waits.append(len(waits))
        say(storage, 2 + len(waits), "new", room=rooms[0])
        catch_up()

    monkeypatch.setattr(storage._writer, "catch_up", busy)
    assert storage.first_between(dict.fromkeys(rooms, (0, 2, 5))) == dict.fromkeys(rooms, 1)
    assert waits == [0]


def test_a_room_without_reserved_ids_is_not_ready_until_more_are_reserved(disk: Disk):
    storage = disk.open()
    storage.save(LOBBY)
    storage.acts(1)
    ready: list[bool] = []
    storage.when_ready(lambda: ready.append(storage.is_ready("lobby", 65_537)))
    assert storage.is_ready("lobby", 65_536)
    assert not storage.is_ready("lobby", 65_537)
    say(storage, 65_536, "the last one")
    while True not in ready:
        disk.await_call()


def test_a_storage_that_cannot_be_closed_in_time_says_so_and_keeps_its_directory(disk: Disk):
    storage = disk.open()
    storage.save(LOBBY)
    storage.acts(1)
    with closing(sqlite3.connect(disk.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        say(storage, 1, "late")
        assert not storage.close(0.01)
        assert "in use by process" in refusal(disk)
        other.execute("COMMIT")
    disk._open.clear()
    storage._writer._thread.join(TIMEOUT_S)
    storage._directory.close()
    assert texts(disk.open()) == [(1, "late")]


def test_jobs_of_a_closed_storage_fail(disk: Disk):
    storage = disk.open()
    disk.close(storage)
    jobs = [
        lambda: storage.before("lobby", 1, 1),
        lambda: storage.after("lobby", 1, 1),
        lambda: storage.mailbox("bob", 0, 100),
        lambda: storage.keep("bob", "alice", DirectMessage("alice", "bob", "hi", 0)),
        lambda: storage.acts(1),
    ]
    for job in jobs:
        with pytest.raises(StorageUnavailable, match="the storage is closed"):
            job()


def test_a_lack_of_memory_costs_the_message_and_is_reported(disk: Disk):
    storage = disk.open()
    storage.save(LOBBY)

    def without_memory(*item: object) -> None:
        raise MemoryError

    put, storage._put = storage._put, without_memory
    say(storage, 1, "lost", "too")
    with pytest.raises(MemoryError):
        storage.save(LOBBY)
    storage._put = put
    say(storage, 3, "kept")
    assert texts(storage) == [(3, "kept")]
    disk.run_loop()
    assert disk.log[-1] == (LOST, {"messages": 2, "changes": 0})


def test_the_thread_survives_a_lack_of_memory_and_loses_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    storage = disk.open()
    storage.save(LOBBY)
    storage.acts(1)
    failures = iter([True, True])
    collect = storage._writer._collect_change

    def sometimes(change: object) -> None:
        if next(failures, False):
            raise MemoryError
        collect(change)

    class Costly(tuple[str, ...]):
        """The first to read it gets to its end, the next ones once more get to the second text."""

        readers = iter([False, True, True])

        def __iter__(self) -> Iterator[str]:
            costly = next(self.readers, False)
            for number, text in enumerate(super().__iter__()):
                if costly and number:
                    raise MemoryError
                yield text

    monkeypatch.setattr(storage._writer, "_collect_change", sometimes)
    say(storage, 1, "before")
    storage.audit(act(1))
    storage.append("lobby", Said("lobby", "alice", Costly(["in", "between"]), 2, 1))
    say(storage, 4, "after")
    storage.audit(act(2))
    assert texts(storage) == [(1, "before"), (2, "in"), (3, "between"), (4, "after")]
    assert storage.acts(9) == [act(1), act(2)]
    assert disk.logged(STOPPED, LOST, LogEvent.FAULT) == []


def test_it_works_beside_gevents_loop_without_patches(tmp_path: Path):
    hub = gevent.get_hub()
    limits = Limits(behind_bytes=1)
    storage = SqliteStorage(
        tmp_path, limits, SystemClock(), lambda event, **fields: None, hub.loop.run_callback_threadsafe
    )
    storage.load()
    ready = Event()
    storage.when_ready(ready.set)
    storage.save(LOBBY)
    for id in range(1, 4):
        say(storage, id, str(id))
        while not storage.is_ready("lobby", id + 1):
            assert ready.wait(TIMEOUT_S)
            ready.clear()
        say(storage, id + 10, "in the queue while jobs read")
        # In the pool's threads, while the loop runs.
        jobs = [hub.threadpool.spawn(storage.after, "lobby", 0, 10) for _ in range(3)]
        assert {len(job.get(timeout=TIMEOUT_S)) for job in jobs} == {2 * id}
    assert storage.close(TIMEOUT_S)


# --- When another process takes over ---


def test_a_storage_goes_on_after_the_other_process_had_begun(disk: Disk):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    say(storage, 1, "before")
    storage.suspend()
    lock = os.dup(storage.lock or 0)
    other = SqliteStorage(disk.path, Limits(), disk.clock, lambda event, **fields: None, print, lock=lock)
    other._directory.take_over()
    other._write_run()
    # It ends here, and has not written what it has read.
    storage.resume()
    assert (disk.path / "lock").read_text() == f"{os.getpid()}\n"
    # More than are reserved at once, so that both the database and the mark change.
    for id, text in ((2, "after"), (2 * schema.AHEAD_IDS, "much later"), (4 * schema.AHEAD_IDS, "latest")):
        say(storage, id, text)
        storage.acts(1)
    disk.killed(storage)
    storage = disk.open()
    assert storage.load().epoch == epoch
    assert [text for _, text in texts(storage)] == ["before", "after", "much later", "latest"]


def test_a_storage_that_rests_too_late_goes_on(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    storage = disk.open()
    storage.save(LOBBY)

    def suspend_without_patience() -> None:
        with pytest.raises(StorageUnavailable, match="has not answered"):
            storage.suspend()

    with monkeypatch.context() as patched, disk._at_work:
        patched.setattr("geventchat.services.storage.writer._ANSWER_S", 0.0)
        patched.setattr("geventchat.services.storage.writer._POLL_S", 0.01)
        suspend_without_patience()
        storage.resume()
        suspend_without_patience()
    say(storage, 1, "kept")
    assert texts(storage) == [(1, "kept")]
    storage.suspend()
    storage.resume()
    say(storage, 2, "too")
    assert texts(storage) == [(1, "kept"), (2, "too")]


def write_nothing(disk: Disk, storage: SqliteStorage) -> None:
    disk.connection(storage).execute("PRAGMA query_only = ON")


def test_a_storage_goes_on_if_the_lock_cannot_be_rewritten(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    storage = disk.open()
    storage.save(LOBBY)
    storage.suspend()

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage._directory, "take_over", full)
    storage.resume()
    say(storage, 1, "kept")
    assert texts(storage) == [(1, "kept")]


def test_a_storage_that_could_not_be_suspended_can_be_later(disk: Disk):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    say(storage, 1, "before")
    storage.acts(1)
    write_nothing(disk, storage)
    with pytest.raises(StorageUnavailable, match="the storage cannot write now"):
        storage.suspend()
    storage.resume()
    assert disk.logged(STOPPED, RESUMED) == [STOPPED]
    disk.free(storage)
    say(storage, 2, "after")
    assert texts(storage) == [(1, "before"), (2, "after")]
    storage.suspend()
    disk.killed_at_rest(storage)
    storage = disk.open()
    assert (storage.load().epoch, disk.log[-1][1]["end"]) == (epoch, "clean")
    assert texts(storage) == [(1, "before"), (2, "after")]


def test_a_storage_without_a_place_for_a_new_mark_goes_on_when_there_is_one(disk: Disk):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    storage.suspend()
    (disk.path / "ids-new").mkdir()
    storage.resume()
    assert disk.logged(STOPPED, RESUMED) == [STOPPED]
    say(storage, 1, "meanwhile")
    other = disk.path / "other"
    with other.open("xb", buffering=0) as file:
        # Beyond the descriptors that were closed.
        others = [os.dup(file.fileno()) for _ in range(10)]
        disk.free(storage)
        say(storage, 2, "still none")
        storage.acts(1)
        (disk.path / "ids-new").rmdir()
        disk.free(storage)
        for id in (schema.AHEAD_IDS, 3 * schema.AHEAD_IDS):
            say(storage, id, "later")
            storage.acts(1)
        for descriptor in others:
            os.close(descriptor)
    assert other.read_bytes() == b""
    assert disk.logged(STOPPED, RESUMED, LOST) == [STOPPED, RESUMED]
    disk.killed(storage)
    storage = disk.open()
    assert storage.load().epoch == epoch
    assert [text for _, text in texts(storage)] == ["meanwhile", "still none", "later", "later"]


def test_a_kill_while_a_storage_that_was_suspended_cannot_write_begins_a_new_epoch(disk: Disk):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    storage.suspend()
    (disk.path / "ids-new").mkdir()
    storage.resume()
    say(storage, 1, "lost")
    disk.killed(storage)
    (disk.path / "ids-new").rmdir()
    assert disk.open().load().epoch != epoch


# --- A full disk ---


def test_a_full_disk_stops_history_once_and_history_resumes_by_itself(disk: Disk):
    storage, _ = disk.stopped()
    for id in range(201, 221):
        disk.clock.now += 61
        say(storage, id, "x" * 100_000)
        storage.acts(1)
    assert disk.logged(STOPPED, RESUMED) == [STOPPED]
    [fields] = [fields for event, fields in disk.log if event is STOPPED]
    assert fields == {"directory": disk.path, "error": "database or disk is full"}
    assert storage.behind_bytes == 0
    disk.free(storage)
    say(storage, 221, "kept again")
    kept = [id for id, _ in texts(storage)]
    assert disk.logged(STOPPED, RESUMED, LOST) == [STOPPED, RESUMED, LOST]
    # The latest 1 MiB at most has been held.
    assert kept[:100] == list(range(1, 101))
    assert kept[100:] == list(range(kept[100], 222))
    assert 210 < kept[100] < 221
    assert disk.log[-1] == (LOST, {"messages": kept[100] - 101, "changes": 0})
    assert query(disk, "SELECT messages FROM counters") == [(len(kept),)]


def test_a_disk_that_is_full_for_a_moment_costs_nothing(disk: Disk):
    storage, _ = disk.stopped()
    say(storage, 201, "during")
    storage.acts(1)
    disk.free(storage)
    say(storage, 202, "after")
    assert [id for id, _ in texts(storage)] == list(range(1, 203))
    assert disk.logged(STOPPED, RESUMED, LOST) == [STOPPED, RESUMED]
    storage = disk.reopened(storage, Limits(stored_messages=150))
    storage.audit(act(1))
    storage.acts(1)
    # The counters were not changed twice.
    assert [id for id, _ in texts(storage)] == list(range(54, 203))


def test_what_a_limit_removes_is_counted_once_if_it_cannot_be_written_at_first(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    storage = disk.open(Limits(stored_messages=1_000))
    storage.save(LOBBY)
    say(storage, 1, *["hi"] * 1_000)
    storage.acts(1)
    reserve = storage._writer._reserve
    failures = iter([True] * 3)

    def sometimes(*arguments: Any) -> object:
        if next(failures, False):
            raise sqlite3.OperationalError("disk I/O error")
        return reserve(*arguments)

    monkeypatch.setattr(storage._writer, "_reserve", sometimes)
    for id in range(1_001, 1_005):
        say(storage, id, "hi")
        storage.acts(1)
        disk.clock.now += 61
    assert disk.logged(STOPPED, RESUMED, LOST) == [STOPPED, RESUMED]
    assert [id for id, _ in texts(storage)] == list(range(15, 1_005))
    assert query(disk, "SELECT messages FROM counters") == [(990,)]


def test_what_is_not_a_message_is_kept_when_the_disk_has_space_again(disk: Disk):
    storage, _ = disk.stopped()
    storage.delete("lobby", 1)
    dev = RoomRecord("dev", "dev", last_id=5)
    storage.save(dev)
    say(storage, 6, "kept too", room="dev")
    for topic in "ab":
        storage.save(RoomRecord("lobby", "Lobby", topic=topic))
    storage.save(account("alice"))
    storage.save(account("bob"))
    storage.forget(account("bob"))
    storage.save(ban())
    storage.audit(act(1))
    storage.save(RoomRecord("short", "short"))
    storage.forget(RoomRecord("short", "short"))
    with pytest.raises(StorageUnavailable, match="the storage cannot write now"):
        storage.keep("bob", "alice", DirectMessage("alice", "bob", "hi", disk.now_ms()))
    disk.free(storage)
    say(storage, 201, "kept")
    assert texts(storage)[0] == (1, "")
    storage = disk.reopened(storage)
    stored = storage.load()
    assert {room.key: (room.topic, room.last_id) for room in stored.rooms} == {
        "lobby": ("b", 201),
        "dev": ("", 6),
    }
    assert (stored.accounts, stored.restrictions) == ((account("alice"),), (ban(),))
    assert storage.acts(9) == [act(1)]


def test_changes_that_wait_for_a_full_disk_are_bounded(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("geventchat.services.storage.writer._MOST_HELD", 10)
    storage, _ = disk.stopped()
    for number in range(1, 31):
        storage.audit(act(number))
        storage.save(ban(name=str(number)))
        storage.delete("lobby", number)
    storage.acts(1)
    disk.free(storage)
    storage.audit(act(31))
    assert storage.acts(99) == [act(number) for number in range(21, 32)]
    assert [id for id, text in texts(storage) if not text] == list(range(21, 31))
    disk.run_loop()
    assert disk.log[-1] == (LOST, {"messages": 0, "changes": 60})
    storage = disk.reopened(storage)
    assert {one.name for one in storage.load().restrictions} == {str(number) for number in range(21, 31)}


def test_ids_go_on_while_the_disk_is_full_and_a_crash_then_begins_a_new_epoch(disk: Disk):
    storage, epoch = disk.stopped()
    assert storage.is_ready("lobby", 10_000_000)
    assert {path.name for path in disk.path.iterdir()} >= {"ids-unreserved"}
    disk.killed(storage)
    stored = disk.open().load()
    assert stored.epoch != epoch
    assert stored.rooms[0].last_id >= 100


def test_a_crash_after_the_disk_had_space_again_keeps_the_epoch(disk: Disk):
    storage, epoch = disk.stopped()
    say(storage, 1_000_000, "before")
    storage.acts(1)
    disk.free(storage)
    say(storage, 1_000_001, "kept")
    storage.acts(1)
    assert not storage.is_ready("lobby", 10_000_000)
    assert "ids-unreserved" not in {path.name for path in disk.path.iterdir()}
    disk.killed(storage)
    stored = disk.open().load()
    assert stored.epoch == epoch
    assert stored.rooms[0].last_id >= 1_000_001


def test_an_orderly_end_with_a_full_disk_is_not_complete_and_begins_a_new_epoch(disk: Disk):
    storage, epoch = disk.stopped()
    assert not storage.close(TIMEOUT_S)
    disk._open.clear()
    storage = disk.open()
    stored = storage.load()
    assert stored.epoch != epoch
    assert [id for id, _ in texts(storage)] == list(range(1, 101))


def test_an_orderly_end_after_the_disk_had_space_again_keeps_the_epoch(disk: Disk):
    storage, epoch = disk.stopped()
    disk.free(storage)
    storage = disk.reopened(storage)
    stored = storage.load()
    assert (stored.epoch, stored.rooms[0].last_id) == (epoch, 200)


def test_ids_stay_within_what_is_reserved_if_the_mark_cannot_be_set(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    disk.fill(storage)

    def broken() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage._directory, "leave_reservations", broken)
    say(storage, 1, *["x" * 1_000] * 100)
    storage.acts(1)
    disk.run_loop()
    assert disk.log[-1][0] is STOPPED
    assert disk.log[-1][1]["mark"] == "Input/output error"
    assert storage.is_ready("lobby", 65_000)
    assert not storage.is_ready("lobby", 100_000)
    disk.killed(storage)
    stored = disk.open().load()
    assert stored.epoch == epoch
    assert stored.rooms[0].last_id >= 65_000


def test_attempts_become_rare_when_each_is_followed_by_another_failure(disk: Disk):
    storage, _ = disk.stopped()
    id = 201
    for _ in range(6):
        disk.free(storage)
        disk.clock.now -= 61
        before = disk.clock.now
        while len(disk.logged(RESUMED)) < len(disk.logged(STOPPED)):
            disk.clock.now += 0.5
            say(storage, id, "hi")
            id += 1
            storage.acts(1)
        waited = disk.clock.now - before
        disk.fill(storage)
        say(storage, id, *["x" * 1_000] * 100)
        id += 100
        storage.acts(1)
    assert len(disk.logged(STOPPED)) == 7
    assert 16 <= waited <= 60


# --- Unclean ends ---


def test_after_a_kill_everything_is_there_and_ids_skip_what_was_reserved(disk: Disk):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    storage.save(account("alice"))
    say(storage, 1, *"abc")
    for last_id in (3 + 65_536, 3 + 2 * 65_536):
        disk.killed(storage)
        storage = disk.open()
        stored = storage.load()
        assert stored.epoch == epoch
        assert (stored.rooms[0].last_id, stored.accounts) == (last_id, (account("alice"),))
        assert texts(storage) == [(1, "a"), (2, "b"), (3, "c")]
        assert disk.log[-1][1]["end"] == "unclean"


def test_new_rooms_begin_above_ids_that_were_used_in_rooms_that_a_kill_lost(disk: Disk):
    storage = disk.open()
    assert storage.is_ready("lost", 65_536)
    assert not storage.is_ready("lost", 65_537)
    disk.killed(storage)
    storage = disk.open()
    assert storage.load().floor_id == 65_536
    assert storage.is_ready("lost", 2 * 65_536)


def test_a_room_that_takes_the_name_of_a_forgotten_one_has_separate_ids_after_a_kill(disk: Disk):
    storage = disk.open()
    storage.load()
    storage.save(RoomRecord("dev", "dev"))
    say(storage, 500_000, "old", room="dev")
    storage.acts(1)
    storage.forget(RoomRecord("dev", "dev"))
    assert storage.is_ready("dev", 500_064)
    disk.killed(storage)
    assert disk.open().load().floor_id >= 500_064


def test_ids_that_a_new_room_used_under_the_reservation_of_the_old_one_are_below_the_floor(disk: Disk):
    storage = disk.open()
    # The floor is well below 150,000 and reserved up to 200,000: no more will be reserved for it.
    storage.save(RoomRecord("gone", "gone", last_id=134_464))
    storage.forget(RoomRecord("gone", "gone"))
    storage.save(RoomRecord("dev", "dev", last_id=150_000))
    storage.acts(1)
    storage.forget(RoomRecord("dev", "dev"))
    assert storage.is_ready("dev", 215_536)
    disk.killed(storage)
    assert disk.open().load().floor_id >= 215_536


Damage = Callable[[Path], object]


def remove(name: str) -> Damage:
    return lambda path: (path / name).unlink(missing_ok=True)


def write(name: str, content: bytes) -> Damage:
    return lambda path: (path / name).write_bytes(content)


DAMAGED_MARKS = {
    "missing": remove("ids-reserved"),
    "empty": write("ids-reserved", b""),
    "zeros": write("ids-reserved", b"\0" * 54),
    "not ASCII": write("ids-reserved", b"\xff" * 54),
    "of another run": write("ids-reserved", b"0" * 32 + b" 00000000000000000001\n"),
    "long": lambda path: (path / "ids-reserved").write_bytes((path / "ids-reserved").read_bytes() + b"x"),
    "short": lambda path: (path / "ids-reserved").write_bytes((path / "ids-reserved").read_bytes()[:-3]),
    "another count": lambda path: (path / "ids-reserved").write_bytes(
        (path / "ids-reserved").read_bytes().replace(b"1\n", b"9\n")
    ),
}


@pytest.mark.parametrize("end", ["killed", "orderly"])
@pytest.mark.parametrize("damage", DAMAGED_MARKS.values(), ids=DAMAGED_MARKS)
def test_without_a_mark_that_fits_a_new_epoch_begins(disk: Disk, damage: Damage, end: str):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    say(storage, 1, "one")
    if end == "killed":
        disk.killed(storage)
    else:
        disk.close(storage)
    damage(disk.path)
    storage = disk.open()
    stored = storage.load()
    assert stored.epoch != epoch
    assert stored.rooms[0].last_id >= 1
    assert disk.log[-1][1]["epoch"] == "new"
    assert texts(storage) == [(1, "one")]
    storage = disk.reopened(storage)
    assert storage.load().epoch == stored.epoch


def test_a_log_that_is_lost_with_reservations_in_it_begins_a_new_epoch(disk: Disk):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    storage.acts(1)
    disk.connection(storage).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    say(storage, 50_000, "beyond half of what was reserved")
    storage.acts(1)
    assert storage.is_ready("lobby", 110_000)
    disk.killed(storage)
    (disk.path / "chat.db-wal").unlink()
    stored = disk.open().load()
    assert stored.epoch != epoch


def test_an_older_copy_begins_a_new_epoch(disk: Disk, tmp_path: Path):
    storage = disk.open()
    epoch = storage.load().epoch
    storage.save(LOBBY)
    disk.close(storage)
    shutil.copy(disk.database, tmp_path / "copy.db")
    storage = disk.open()
    say(storage, 1, "after the copy")
    disk.close(storage)
    shutil.copy(tmp_path / "copy.db", disk.database)
    assert disk.open().load().epoch != epoch


# --- The server ---


def test_the_server_opens_its_directory_and_closes_it_in_order(disk: Disk):
    with running("0", "--host", "127.0.0.1", "--data", str(disk.path)) as server:
        ready_lines(server)
        assert "in use by process" in refusal(disk)
        server.terminate()
        assert server.stderr is not None
        assert (
            f"storage-opened directory={disk.path} rooms=0 accounts=0 end=clean epoch=new"
            in server.stderr.read()
        )
        assert server.wait(TIMEOUT_S) == 0
    disk.open()
    assert disk.log[-1][1]["end"] == "clean"


def test_a_directory_that_cannot_be_used_is_a_wrong_setting(disk: Disk):
    disk.database.parent.mkdir()
    disk.database.write_bytes(b"x" * 5_000)
    ended = run("0", "--host", "127.0.0.1", "--data", str(disk.path))
    assert ended.returncode == 3
    assert ended.stderr.startswith(
        f"geventchat: data: {disk.path}/chat.db is damaged (file is not a database); "
    )
    assert ended.stdout == ""


def test_a_server_that_cannot_listen_releases_its_directory(disk: Disk):
    with Server(Config(listen=(Listen("line", "127.0.0.1", 0),))) as first:
        taken = Listen("line", *first.addresses["line"])
        with pytest.raises(CannotListen):
            Server(Config(listen=(taken,), data=str(disk.path))).start()
    disk.open()
