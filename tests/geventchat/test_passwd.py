"""`geventchat passwd`: what it keeps, what it refuses, and where the password never appears."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from geventchat.chat.events import DirectMessage
from geventchat.chat.passwords import Secret, prepare, stored_token
from geventchat.chat.records import AccountRecord
from geventchat.clock import SystemClock
from geventchat.services.passwords import Hasher, derive_here
from geventchat.services.storage.sqlite import SqliteStorage
from geventchat.settings import Limits
from tests.geventchat.processes import MODULE, environment, ready_lines, running
from tests.geventchat.storage_worlds import LOBBY, act, say
from tests.patience import HANG_S

PASSWORD = "correct horse battery"


def passwd(*words: str, typed: str | bytes = PASSWORD + "\n") -> subprocess.CompletedProcess[bytes]:
    """Run the command with this standard input."""
    return subprocess.run(
        [sys.executable, *MODULE, "passwd", *words],
        input=typed.encode() if isinstance(typed, str) else typed,
        capture_output=True,
        timeout=HANG_S,
        env=environment(),
        check=False,
    )


def accounts(path: Path) -> dict[str, AccountRecord]:
    storage = opened(path)
    found = {record.key: record for record in storage.load().accounts}
    assert storage.close(HANG_S)
    return found


def opened(path: Path, limits: Limits | None = None) -> SqliteStorage:
    return SqliteStorage(
        path, limits or Limits(), SystemClock(), lambda event, **fields: None, lambda call: call()
    )


def matches(record: AccountRecord, password: str) -> bool:
    return bool(Hasher(derive=derive_here).verify(prepare(password), record.password_hash, ""))


def test_it_makes_an_account_and_changes_its_password_later(tmp_path: Path):
    made = passwd("--data", str(tmp_path), "Boss")
    assert (made.returncode, made.stdout, made.stderr) == (0, b"made the account Boss\n", b"")
    first = accounts(tmp_path)["boss"]
    assert first.name == "Boss"
    assert matches(first, PASSWORD)
    changed = passwd("--data", str(tmp_path), "BOSS", typed="another password\r\nmore\n")
    assert (changed.returncode, changed.stdout) == (0, b"changed the password of BOSS\n")
    second = accounts(tmp_path)["boss"]
    assert matches(second, "another password")
    assert (second.name, second.created_ms) == ("Boss", first.created_ms)
    storage = opened(tmp_path)
    assert [(act.by, act.action, act.target) for act in storage.acts(9)] == [
        ("geventchat passwd", "password", "Boss"),
        ("geventchat passwd", "password", "BOSS"),
    ]
    storage.close(HANG_S)


def test_it_makes_a_token_for_a_bot_whose_password_stays_what_it_is(tmp_path: Path):
    made = passwd("--data", str(tmp_path), "--token", "CI", typed="")
    assert (made.returncode, made.stderr) == (0, b"")
    token = made.stdout.decode().strip()
    first = accounts(tmp_path)["ci"]
    assert (first.name, first.token_hashes) == ("CI", (stored_token(Secret(token)),))
    passwd("--data", str(tmp_path), "ci")
    again = passwd("--data", str(tmp_path), "--token", "ci", typed="")
    second = accounts(tmp_path)["ci"]
    assert second.token_hashes == (stored_token(Secret(again.stdout.decode().strip())),)
    assert matches(second, PASSWORD)


def test_an_account_has_as_many_tokens_as_it_can_have(tmp_path: Path):
    storage = opened(tmp_path)
    storage.load()
    storage.save(AccountRecord("ci", "ci", "hash", tuple(f"{number:064x}" for number in range(20))))
    assert storage.close(HANG_S)
    refused = passwd("--data", str(tmp_path), "--token", "ci")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert (
        refused.stderr == b"geventchat passwd: ci has 20 tokens; log in and revoke them with TOKEN revoke\n"
    )


def test_a_new_password_revokes_the_tokens_and_keeps_the_rest(tmp_path: Path):
    storage = opened(tmp_path)
    storage.load()
    storage.save(AccountRecord("boss", "Boss", "x", ("0" * 64,), 5, 6, ("bob",), ("10.0.0.1",)))
    storage.close(HANG_S)
    assert passwd("--data", str(tmp_path), "boss").returncode == 0
    record = accounts(tmp_path)["boss"]
    assert record.token_hashes == ()
    assert (record.created_ms, record.ignored, record.origins) == (5, ("bob",), ("10.0.0.1",))


def rows(path: Path) -> dict[str, int]:
    """How many rows there are of what a server's limits remove."""
    with closing(sqlite3.connect(path / "chat.db")) as database:
        tables = ("messages", "mail", "audit WHERE room <> ''")
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


MORE_ACTS = """
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?)
    INSERT INTO audit (time_ms, by, action, room, target, detail)
    SELECT time_ms, by, action, room, target, detail FROM counted, audit
"""


@pytest.mark.parametrize("words", [(), ("--token",)], ids=["password", "token"])
def test_nothing_is_removed_that_the_server_keeps_by_its_own_limits(tmp_path: Path, words: tuple[str, ...]):
    usual = Limits()
    limits = replace(usual, stored_messages=10**6, mail_s=10 * usual.mail_s, room_acts=10**6)
    storage = opened(tmp_path, limits)
    storage.load()
    storage.save(LOBBY)
    for id in range(0, usual.stored_messages, 1_000):
        say(storage, id + 1, *["hi"] * 1_000)
    say(storage, usual.stored_messages + 1, *["too many by default"] * 10)
    storage.save(AccountRecord("boss", "Boss", "x"))
    old_ms = int(1000 * (SystemClock().time() - 2 * usual.mail_s))
    assert storage.keep("boss", "alice", DirectMessage("alice", "Boss", "old by default", old_ms))
    storage.audit(act(1, "lobby"))
    assert storage.close(HANG_S)
    with closing(sqlite3.connect(tmp_path / "chat.db")) as database, database:
        database.execute(MORE_ACTS, (usual.room_acts + 10,))
    before = rows(tmp_path)
    assert before["messages"] > usual.stored_messages
    assert passwd("--data", str(tmp_path), *words, "boss").returncode == 0
    assert rows(tmp_path) == before


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("short\n", "a password has at least 8 characters"),
        ("", "no password on standard input"),
        ("x" * 129, "a password has at most 128 characters"),
        ("x" * 100_000, "a password has at most 128 characters"),
        (b"\xff\xfe password\n", "the password on standard input is not UTF-8"),
    ],
)
def test_what_cannot_be_a_password_is_refused(tmp_path: Path, typed: str | bytes, message: str):
    refused = passwd("--data", str(tmp_path), "boss", typed=typed)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.decode() == f"geventchat passwd: {message}\n"
    assert accounts(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "missing", "boss"), "geventchat passwd: no such directory: missing\n"),
        (("boss",), "the following arguments are required: --data"),
        (("--data", "."), "the following arguments are required: NAME"),
        (("--data", ".", "a b"), "'a b' cannot be a name: 1 to 20 letters, digits, '_', '-' or '.'"),
        (("--data", ".", "boss", PASSWORD), "unexpected arguments behind NAME; the password is asked for"),
    ],
)
def test_wrong_usage_is_explained(words: tuple[str, ...], message: str):
    refused = passwd(*words)
    assert refused.returncode == 2
    assert message in refused.stderr.decode()
    assert PASSWORD not in refused.stderr.decode()


def test_it_does_nothing_while_a_server_uses_the_directory(tmp_path: Path):
    data = tmp_path / "data"
    with running("-p", "0", "--host", "127.0.0.1", "--data", str(data)) as server:
        ready_lines(server)
        refused = passwd("--data", str(data), "boss")
        assert refused.returncode == 3
        assert f"is in use by process {server.pid}" in refused.stderr.decode()
        server.terminate()
        assert server.wait(HANG_S) == 0
    assert accounts(data) == {}


def asked_on_a_terminal(path: Path, *typed: bytes) -> tuple[int, bytes]:
    """Type these answers, one for each question; the exit code and everything that was shown."""
    pid, terminal = pty.fork()
    if not pid:
        words = [sys.executable, *MODULE, "passwd", "--data", str(path), "boss"]
        os.execve(sys.executable, words, environment())
    shown = b""

    def read_until(end: bytes) -> None:
        nonlocal shown
        while end not in shown:
            try:
                chunk = os.read(terminal, 4_096)
            except OSError:
                # The other side has been closed.
                return
            shown += chunk

    for question, answer in zip((b"Password of boss: ", b"The same again: "), typed, strict=False):
        read_until(question)
        os.write(terminal, answer)
    read_until(b"never")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown


@pytest.mark.parametrize(("again", "code"), [(PASSWORD, 0), ("something else", 1)])
def test_on_a_terminal_it_asks_twice_and_shows_nothing(tmp_path: Path, again: str, code: int):
    typed = (f"{PASSWORD}\n".encode(), f"{again}\n".encode())
    ended, shown = asked_on_a_terminal(tmp_path, *typed)
    assert ended == code
    assert PASSWORD.encode() not in shown
    assert (b"the two passwords differ" in shown) is bool(code)
    assert bool(accounts(tmp_path)) is not bool(code)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([b"\x04"], b"no password was typed"),
        ([PASSWORD.encode() + b"\n", b"\x04"], b"no password was typed"),
        ([b"pass\xffword\n"], b"the typed password is not UTF-8"),
    ],
    ids=["end", "end-at-the-second-question", "not-utf-8"],
)
def test_on_a_terminal_what_is_not_a_password_is_explained(
    tmp_path: Path, typed: list[bytes], message: bytes
):
    ended, shown = asked_on_a_terminal(tmp_path, *typed)
    assert ended == 1
    assert shown.endswith(b"\r\ngeventchat passwd: " + message + b"\r\n")
    assert accounts(tmp_path) == {}
