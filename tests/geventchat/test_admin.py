"""The admin socket: what each act does, who can ask, and that a bad peer never delays others."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import select
import socket as plain
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket

from geventchat import Config, Limits, Listen, Server, daemon, handover
from geventchat.admin import acts, command
from geventchat.admin import listener as listening
from geventchat.admin.acts import BURST_ANNOUNCEMENTS, Acts
from geventchat.admin.command import main
from geventchat.admin.listener import MOST_PEERS, AdminSocket, CannotOpenSocket
from geventchat.admin.protocol import ACTS, MOST_ANSWER_BYTES, BadRequest, encode, read_request
from geventchat.chat.commands import SetModerated
from geventchat.chat.names import Name
from geventchat.chat.storage import StorageUnavailable
from geventchat.clock import SystemClock
from geventchat.log import LogEvent
from geventchat.services.passwords import Cost, Hasher, derive_here
from tests.geventchat.processes import MODULE, called, environment, port_of, ready_lines, running
from tests.geventchat.test_upgrade import world_of
from tests.patience import HANG_S


class Controls:
    """The process, in tests."""

    log_level = "info"
    started_ms = 0
    backing_up = False

    def reload(self) -> dict[str, Any]:
        return {"done": {}}


class World:
    """A server, its acts, and people in the line dialect."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.logged: list[tuple[LogEvent, dict[str, object]]] = []
        self.controls = Controls()
        self.acts = Acts(server, self.controls, self._log, SystemClock())
        self._sockets: list[Any] = []

    def _log(self, event: LogEvent, /, **fields: object) -> None:
        self.logged.append((event, fields))

    def person(self, name: str, dialect: str = "line") -> Any:
        lines = self.connect(dialect)
        if dialect == "line":
            assert self.ask(lines, f"LOGIN {name}") == "OK"
        return lines

    def connect(self, dialect: str = "line") -> Any:
        sock = socket.create_connection(self.server.addresses[dialect], HANG_S)
        self._sockets.append(sock)
        lines = sock.makefile("rwb")
        self._sockets.append(lines)
        return lines

    def ask(self, lines: Any, line: str) -> str:
        lines.write(line.encode() + b"\n")
        lines.flush()
        return self.hear(lines)

    def hear(self, lines: Any) -> str:
        return lines.readline().decode().rstrip("\n")

    def do(self, act: str, **fields: Any) -> dict[str, Any]:
        """Carry out an act, and return the content of `done` or `error`; rows as `rows`."""
        rows: list[Any] = []
        for answer in self.acts.carry_out(read_request(encode({"act": act, **fields})), "a test", list):
            rows += answer.get("rows", ())
            last = answer
        if "error" in last:
            return last["error"]
        return {"rows": rows, **last["done"]} if "rows" not in last["done"] else {"rows": rows}

    def audited(self) -> list[tuple[str, str, str, str]]:
        return [(act.by, act.action, act.target, act.detail) for act in self.server.storage.acts(99)]

    def close(self) -> None:
        for one in reversed(self._sockets):
            one.close()


@pytest.fixture
def world() -> Iterator[World]:
    listen = tuple(Listen(dialect, "127.0.0.1", 0) for dialect in ("line", "json", "slash"))
    config = Config(listen=listen, limits=Limits(linger_s=0), operators=("boss",))
    hasher = Hasher(Cost(1, 1, 1), derive=derive_here)
    with Server(config, log=lambda event, **fields: None, hasher=hasher) as server:
        world = World(server)
        yield world
        world.close()


# --- Acts ------------------------------------------------------------------------------------------------------------


def test_every_act_of_the_protocol_is_carried_out_and_has_a_command(world: World, capsys: Any):
    assert {*world.acts._acts, "upgrade"} >= set(ACTS)
    for act in ACTS:
        with pytest.raises(SystemExit) as ended:
            main([act, "--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: geventchat admin {act} ")


def test_an_announcement_reaches_everyone_in_the_form_of_each_dialect(world: World):
    alice, bob, carol = world.person("alice"), world.person("bob", "json"), world.person("carol", "slash")
    robot = world.person("robot", "json")
    assert json.loads(world.ask(bob, '{"type": "join", "username": "bob"}'))["users"] == ["alice", "bob"]
    # In no room at all.
    world.ask(robot, '{"type": "join", "username": "robot", "v": 2, "rooms": {}}')
    assert world.ask(carol, "carol").startswith("[join] carol")
    assert [world.hear(carol), world.hear(carol)] == ["Connected! Type /help for commands", ""]
    assert json.loads(world.hear(bob))["type"] == "user_joined"
    assert world.do("announce", text="tea is\x07 ready")["people"] == 4
    assert world.hear(alice) == "INFO announcement tea is\ufffd ready"
    assert world.hear(carol) == "[announcement] tea is\ufffd ready"
    said = json.loads(world.hear(bob))
    assert (said["type"], said["username"], said["message"]) == ("chat", "server", "tea is\ufffd ready")
    announced = json.loads(world.hear(robot))
    assert announced.pop("timestamp_ms") > 0
    assert announced == {"type": "announcement", "message": "tea is\ufffd ready"}
    assert world.audited() == [("geventchat admin", "announce", "", "tea is\ufffd ready")]
    assert world.do("announce", text="two\nlines")["code"] == "refused"


def test_announcements_have_a_rate(world: World):
    for _ in range(BURST_ANNOUNCEMENTS):
        assert "people" in world.do("announce", text="again")
    assert world.do("announce", text="again")["code"] == "busy"


def test_someone_is_banned_and_unbanned_by_name_account_address_and_range(world: World):
    bob = world.person("bob")
    assert world.do("ban", who="bob", seconds=600, reason="too \n loud")["rows"] == []
    assert world.hear(bob) == "ERR banned"
    assert world.do("ban", who="absent")["message"].endswith("name:absent bans the name alone")
    assert world.do("ban", who="account:absent")["code"] == "refused"
    assert world.do("ban", who="name:eve")["rows"] == []
    assert world.do("ban", who="192.0.2.0/24")["rows"] == []
    assert world.do("ban", who="2001:db8::1")["rows"] == []
    rows = world.do("bans")["rows"]
    assert [(row["who"], row["network"], row["reason"], row["until"] is None) for row in rows] == [
        ("bob", "127.0.0.1/32", "too loud", False),
        ("name:eve", None, "", True),
        ("192.0.2.0/24", "192.0.2.0/24", "", True),
        ("2001:db8::1", "2001:db8::1/128", "", True),
    ]
    for who in ("bob", "name:eve", "192.0.2.0/24", "2001:db8::1"):
        assert world.do("unban", who=who)["rows"] == []
    assert world.do("bans")["rows"] == []
    assert "`geventchat admin bans`" in world.do("unban", who="bob")["message"]
    assert [action for _, action, _, _ in world.audited()] == ["ban"] * 4 + ["unban"] * 4
    assert [fields["act"] for _, fields in world.logged] == ["ban"] * 4 + ["unban"] * 4


def test_a_ban_of_a_range_removes_everyone_there(world: World):
    people = [world.person(f"n{number}") for number in range(3)]
    world.do("ban", who="127.0.0.0/8")
    for one in people:
        assert "ERR banned" in [world.hear(one) for _ in range(3)]


def test_someone_is_kicked_from_the_server_or_a_room_with_a_reason(world: World):
    bob, alice = world.person("bob"), world.person("alice")
    assert world.ask(bob, "JOIN dev") == "OK"
    assert world.hear(alice) == "INFO bob left"
    assert world.do("kick", who="bob", room="dev", reason="why")["rows"] == []
    assert world.hear(bob) == "INFO kicked why"
    assert world.do("kick", who="alice", room="dev")["code"] == "refused"
    assert world.do("kick", who="alice", room="nowhere")["message"] == "unknown room 'nowhere'"
    assert world.do("kick", who="BOB")["rows"] == []
    assert world.hear(bob) == "INFO kicked"
    assert world.audited()[-1] == ("geventchat admin", "kick", "bob", "")


def test_people_are_removed_with_a_reason_where_only_those_with_voice_can_speak(world: World):
    bob, alice, eve, zoe = (world.person(name) for name in ("bob", "alice", "eve", "zoe"))
    world.server.administer(Name("x", ""), "lobby", SetModerated(on=True))
    assert world.do("kick", who="bob", reason="too loud") == {"rows": []}
    assert world.hear(bob) == "INFO kicked too loud"
    world.server.kick("alice", "why")
    assert [world.hear(alice), world.hear(alice)] == ["INFO bob kicked", "INFO kicked why"]
    assert world.do("ban", who="eve", seconds=600, reason="flooding") == {"rows": []}
    assert [world.hear(eve) for _ in range(3)] == ["INFO bob kicked", "INFO alice kicked", "ERR banned"]
    assert [world.hear(zoe) for _ in range(3)] == [f"INFO {name} kicked" for name in ("bob", "alice", "eve")]
    assert world.ask(zoe, "JOIN dev") == "OK"
    world.server.administer(Name("x", ""), "dev", SetModerated(on=True))
    assert world.do("kick", who="zoe", room="dev", reason="why") == {"rows": []}
    assert world.hear(zoe) == "INFO kicked why"


def test_roles_are_granted_and_revoked(world: World):
    alice, bob = world.person("alice"), world.person("bob")
    assert world.ask(alice, "JOIN dev") == "OK"
    assert [world.ask(bob, "JOIN dev"), world.hear(bob)] == ["INFO alice left", "OK"]
    assert world.do("grant", who="bob", role="owner", room="dev")["rows"] == []
    assert world.do("grant", who="bob", role="voice", room="dev")["rows"] == []
    assert world.do("grant", who="alice", role="moderator", room="dev")["code"] == "refused"
    assert world.do("grant", who="bob", role="owner", revoke=True)["code"] == "refused"
    assert (
        world.do("grant", who="bob", role="operator")["message"]
        == "bob has no account; an operator needs one"
    )
    chat = world.server.context.chat
    chat._accounts.add(next(iter(chat.sessions)).name, "hash", "")
    assert "until" in world.do("grant", who="Alice", role="operator")
    assert chat.operators == {"alice", "boss"}
    assert "until" in world.do("grant", who="alice", role="operator", revoke=True)
    assert chat.operators == {"boss"}
    assert world.do("grant", who="alice", role="operator", revoke=True)["code"] == "refused"


def test_a_reserved_name_that_is_an_operators_no_longer_is_reserved_again():
    config = Config(listen=(Listen("line", "127.0.0.1", 0),), operators=("admin", "boss"))
    with Server(config, log=lambda event, **fields: None) as server:
        world = World(server)
        for name in ("admin", "boss"):
            assert "until" in world.do("grant", who=name, role="operator", revoke=True)
        client = world.connect()
        for name in ("admin", "\u0430dmin", "server"):
            assert world.ask(client, f"LOGIN {name}") == "ERR invalid-username"
        assert world.ask(client, "LOGIN boss") == "OK"
        world.close()


def test_a_password_makes_an_account_and_replaces_what_proved_it_before(world: World):
    boss, other = world.connect(), world.connect()
    assert world.ask(boss, "LOGIN boss") == "ERR invalid-username"
    assert world.do("password", who="Boss", password="first password") == {
        "account": "Boss",
        "made": True,
        "rows": [],
    }
    assert world.ask(boss, "LOGIN boss first password") == "OK"
    token = world.ask(boss, "TOKEN").removeprefix("TOKEN ")
    assert world.do("password", who="BOSS", password="second password")["made"] is False
    for wrong in ("first password", token, "first password"):
        assert world.ask(other, f"LOGIN boss {wrong}") == "ERR wrong-password"
    assert world.ask(other, "LOGIN boss second password") == "ERR too-many-attempts"
    # The failures were guesses of the old password.
    world.do("password", who="boss", password="second password")
    assert world.ask(other, "LOGIN boss second password") == "OK"
    assert world.hear(boss) == "INFO logged-in-elsewhere"
    assert world.audited()[-1] == ("geventchat admin", "password", "boss", "")
    assert [fields for event, fields in world.logged] == [
        {"act": "password", "by": "a test", "who": who} for who in ("Boss", "BOSS", "boss")
    ]


@pytest.mark.parametrize(
    ("who", "password", "message"),
    [
        ("boss", "short", "a password has at least 8 characters"),
        ("a b", "long enough", "'a b' cannot be a name: 1 to 20 letters, digits, '_', '-' or '.'"),
        ("SERVER", "long enough", "the name SERVER is reserved (--reserved-names)"),
    ],
)
def test_a_password_or_a_name_that_cannot_be_is_refused(world: World, who: str, password: str, message: str):
    assert world.do("password", who=who, password=password) == {"code": "refused", "message": message}
    assert world.server.context.chat.accounts == 0
    assert not world.logged


def test_questions_list_everything_in_pieces_and_are_not_audited(world: World):
    alice = world.person("alice")
    world.ask(alice, "JOIN dev")
    socket.create_connection(world.server.addresses["json"], HANG_S).close()
    (row,) = [row for row in world.do("who")["rows"] if row["name"]]
    row.pop("idle_s")
    assert row == {
        "conn": 1,
        "name": "alice",
        "account": None,
        "address": "127.0.0.1",
        "dialect": "line",
        "rooms": ["dev"],
        "waiting_bytes": 0,
    }
    assert [(row["room"], row["people"]) for row in world.do("rooms")["rows"]] == [("lobby", 0), ("dev", 1)]
    status = world.do("status")
    host, port = world.server.addresses["json"]
    assert f"json://{host}:{port}" in status["listening"]
    assert (status["people"], status["pid"]) == (1, os.getpid())
    assert world.do("log-level") == {"level": "info", "rows": []}
    assert world.do("backup", file="/nowhere/x")["message"] == "the server has no data directory (--data DIR)"
    assert world.do("backup", file="relative")["code"] == "refused"
    assert world.audited() == []


QUESTIONS = ("status", "who", "rooms", "bans", "audit")
# Each act that changes something, in an order in which all of them succeed.
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("announce", {"text": "tea"}),
    ("password", {"who": "boss", "password": "first password"}),
    ("grant", {"who": "boss", "role": "operator", "revoke": True}),
    ("grant", {"who": "boss", "role": "operator"}),
    ("grant", {"who": "bob", "role": "owner", "room": "dev"}),
    ("kick", {"who": "alice", "room": "dev"}),
    ("kick", {"who": "alice"}),
    ("ban", {"who": "192.0.2.0/24", "seconds": 60}),
    ("unban", {"who": "192.0.2.0/24"}),
    ("reload", {}),
    ("backup", {"file": "/copy"}),
    ("log-level", {"level": "error"}),
]


def test_every_act_that_changes_something_is_in_both_logs_and_no_question_is(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(type(world.server.storage), "back_up", lambda storage, target: 7)
    for name in ("alice", "bob"):
        assert world.ask(world.person(name), "JOIN dev") == "OK"
    for done, (act, fields) in enumerate(CHANGES, 1):
        answer = world.do(act, **fields)
        assert "code" not in answer, (act, answer)
        assert (len(world.audited()), len(world.logged)) == (done, done), act
        assert world.logged[-1][1]["act"] == act
    for act in (*QUESTIONS, "log-level"):
        assert "code" not in world.do(act)
    assert (len(world.audited()), len(world.logged)) == (len(CHANGES), len(CHANGES))
    # An upgrade ends the process: tests/geventchat/test_upgrade.py.
    assert {act for act, _ in CHANGES} == {*ACTS} - {*QUESTIONS, "upgrade"}


def test_a_backup_is_finished_and_audited_when_whoever_asked_for_it_has_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    go_on = threading.Event()
    monkeypatch.setattr(acts, "_PROGRESS_S", 0.001)
    monkeypatch.setattr(acts, "_size_or_error", lambda storage, target: go_on.wait(HANG_S) and 1)
    answer = world.acts.carry_out(read_request(encode({"act": "backup", "file": "/copy"})), "a test", list)
    assert next(answer) == {"progress": "copying"}
    answer.close()
    assert world.do("backup", file="/another")["message"] == "another backup is running"
    go_on.set()
    with gevent.Timeout(HANG_S):
        while world.controls.backing_up:
            gevent.sleep(0.001)
    assert world.audited() == [("geventchat admin", "backup", "/copy", "")]


def test_the_audit_log_is_listed_with_the_latest_act_at_the_end(world: World):
    alice, bob = world.person("alice"), world.person("bob")
    assert world.ask(alice, "JOIN dev") == "OK"
    assert [world.ask(bob, "JOIN dev"), world.hear(bob)] == ["INFO alice left", "OK"]
    assert world.ask(alice, "KICK bob too loud") == "OK"
    world.do("ban", who="name:eve")
    rows = world.do("audit")["rows"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row.pop("time")) for row in rows)
    assert rows == [
        {"by": "alice", "act": "kick", "room": "dev", "target": "bob", "detail": "too loud"},
        {"by": "geventchat admin", "act": "ban", "room": None, "target": "name:eve", "detail": ""},
    ]
    for number in range(60):
        world.server.context.chat.audit("a test", "count", str(number))
    for asked, listed in (({}, 50), ({"limit": 1}, 1), ({"limit": 1_000}, 62)):
        rows = world.do("audit", **asked)["rows"]
        assert (len(rows), rows[-1]["target"]) == (listed, "59"), asked


def test_a_line_of_the_audit_log_is_no_longer_than_a_line_of_an_answer_can_be(world: World):
    # The longest that fits into a request.
    for _ in range(25):
        world.server.context.chat.audit("a test", "announce", "", "\u00e9" * 8_000)
    request = read_request(encode({"act": "audit"}))
    lines = [encode(answer) for answer in world.acts.carry_out(request, "a test", list)]
    assert sum(line.count(b'"announce"') for line in lines) == 25
    assert 300_000 < max(map(len, lines)) < MOST_ANSWER_BYTES


def test_others_go_on_while_the_audit_log_is_read(world: World, monkeypatch: pytest.MonkeyPatch):
    go_on = threading.Event()
    monkeypatch.setattr(type(world.server.storage), "acts", lambda storage, limit: go_on.wait(HANG_S) and [])
    asked = gevent.spawn(world.do, "audit")
    alice = world.person("alice")
    assert world.ask(alice, "PING") == "PONG"
    assert not asked.ready()
    go_on.set()
    assert asked.get(timeout=HANG_S) == {"rows": []}


def test_an_audit_log_that_cannot_be_read_is_an_answer(world: World, monkeypatch: pytest.MonkeyPatch):
    def unavailable(storage: Any, limit: int) -> None:
        raise StorageUnavailable("the storage is closed")

    monkeypatch.setattr(type(world.server.storage), "acts", unavailable)
    assert world.do("audit") == {"code": "failed", "message": "the storage is closed"}


def test_an_act_is_logged_before_its_answer_is_sent(world: World):
    next(world.acts.carry_out(read_request(encode({"act": "announce", "text": "hi"})), "a test", list))
    assert [fields["act"] for _, fields in world.logged] == ["announce"]


def test_someone_who_leaves_while_everyone_is_listed_is_listed(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acts, "ROWS_AT_ONCE", 1)
    people = [world.person(name) for name in ("alice", "bob")]
    answers = world.acts.carry_out(read_request(encode({"act": "who"})), "a test", lambda answer: None)
    listed = [next(answers)["rows"][0]["name"]]
    people[1].write(b"QUIT\n")
    people[1].flush()
    with gevent.Timeout(HANG_S):
        while world.server.clients > 1:
            gevent.sleep(0.01)
    listed += [row["name"] for answer in answers for row in answer.get("rows", ())]
    assert listed in (["alice", "bob"], ["alice", None])


# --- Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b"", "invalid", "not a JSON object on one line"),
        (b"\xff", "invalid", "not a JSON object on one line"),
        (b"[" * 9_000, "invalid", "not a JSON object on one line"),
        (b"9" * 9_000, "invalid", "not a JSON object on one line"),
        (b"{}", "version", "this server speaks version 1 of the protocol, not None"),
        (b'{"v": 2, "act": "status"}', "version", "this server speaks version 1 of the protocol, not 2"),
        (
            b'{"v": true, "act": "status"}',
            "version",
            "this server speaks version 1 of the protocol, not True",
        ),
        (b'{"v": 1, "act": ["status"]}', "invalid", "unknown act ['status']; known: status, who, "),
        (b'{"v": 1, "act": "kick"}', "invalid", "kick: who is missing"),
        (b'{"v": 1, "act": "kick", "who": 7}', "invalid", "kick: who is 7, not a text"),
        (b'{"v": 1, "act": "kick", "who": "\\ud800"}', "invalid", "kick: who is not Unicode"),
        (
            b'{"v": 1, "act": "ban", "who": "a", "seconds": true}',
            "invalid",
            "ban: seconds is True, not a whole",
        ),
        (b'{"v": 1, "act": "ban", "who": "a", "seconds": -1}', "invalid", "ban: seconds is -1, out of range"),
        (
            b'{"v": 1, "act": "audit", "limit": 0}',
            "invalid",
            "audit: limit is 0, out of range 1 to 1000",
        ),
        (b'{"v": 1, "act": "audit", "limit": 1001}', "invalid", "audit: limit is 1001, out of range 1 to"),
        (b'{"v": 1, "act": "audit", "limit": "9"}', "invalid", "audit: limit is '9', not a whole number"),
        (b'{"v": 1, "act": "status", "more": 1}', "invalid", "status: unknown field 'more'"),
        (
            b'{"v": 1, "act": "grant", "who": "a", "role": "king"}',
            "invalid",
            "grant: role is 'king', not operator or",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_not_a_request_is_refused(line: bytes, code: str, message: str):
    with pytest.raises(BadRequest) as refused:
        read_request(line)
    assert refused.value.code == code
    assert str(refused.value).startswith(message)


# --- The socket ------------------------------------------------------------------------------------------------------


class Peer:
    """A local program."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(plain.AF_UNIX)
        self._socket.settimeout(HANG_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hear(self) -> Any:
        line = self._lines.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminSocket]:
    def carry_out(request: Any, by: str, at_once: Any) -> Iterator[dict[str, Any]]:
        if request["act"] == "reload":
            raise RuntimeError("a mistake")
        yield {"done": {"act": request["act"], "by": by}}

    opened = AdminSocket(tmp_path / "admin.sock", carry_out, lambda event, **fields: None)
    yield opened
    opened.close()


def test_only_the_owner_can_connect_and_requests_of_one_connection_are_answered_in_order(admin: AdminSocket):
    assert admin.path.stat().st_mode & 0o777 == 0o600
    peer = Peer(admin.path)
    peer.send(encode({"act": "status"}) + encode({"act": "reload"}) + b"garbage\n" + encode({"act": "who"}))
    assert peer.hear() == {"v": 1, "done": {"act": "status", "by": f"pid {os.getpid()}, uid {os.geteuid()}"}}
    assert peer.hear()["error"] == {"code": "failed", "message": "RuntimeError; the server's log says more"}
    assert peer.hear()["error"]["code"] == "invalid"
    assert peer.hear()["done"]["act"] == "who"
    peer.close()


@pytest.mark.parametrize("fault", [FileNotFoundError, gevent.Timeout])
def test_every_fault_of_an_act_is_logged_and_answered(tmp_path: Path, fault: type[BaseException]):
    def carry_out(request: Any, by: str, at_once: Any) -> Iterator[dict[str, Any]]:
        raise fault
        yield {}

    logged: list[tuple[LogEvent, str]] = []
    admin = AdminSocket(
        tmp_path / "admin.sock", carry_out, lambda event, **fields: logged.append((event, fields["error"]))
    )
    peer = Peer(admin.path)
    peer.send(encode({"act": "reload"}))
    assert peer.hear()["error"] == {
        "code": "failed",
        "message": f"{fault.__name__}; the server's log says more",
    }
    ((event, error),) = logged
    assert event is LogEvent.FAULT
    assert "carry_out" in error
    peer.close()
    admin.close()


def test_another_user_is_refused(admin: AdminSocket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listening, "_CREDENTIALS", _Someone())
    peer = Peer(admin.path)
    assert peer.hear()["error"] == {
        "code": "permission",
        "message": "user 4242 cannot administer this server",
    }
    assert peer.hear() is None
    peer.close()


class _Someone:
    size = 12

    def unpack(self, credentials: bytes) -> tuple[int, int, int]:
        return 1, 4242, 4242


def test_a_request_that_is_too_long_ends_the_connection(admin: AdminSocket):
    for line in (b"x" * 100_000, b"x" * 20_000 + b"\n"):
        peer = Peer(admin.path)
        peer.send(line)
        assert peer.hear()["error"] == {"code": "invalid", "message": "a request has at most 16384 bytes"}
        peer.close()


def test_peers_that_say_nothing_hold_a_bounded_number_of_places_for_a_bounded_time(
    admin: AdminSocket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listening, "REQUEST_S", 0.05)
    silent = [Peer(admin.path) for _ in range(MOST_PEERS)]
    gevent.sleep(0)
    late = Peer(admin.path)
    assert late.hear()["error"]["code"] == "busy"
    assert [peer.hear() for peer in silent] == [None] * MOST_PEERS
    peer = Peer(admin.path)
    peer.send(encode({"act": "who"}))
    assert peer.hear()["done"]["act"] == "who"
    for one in (*silent, late, peer):
        one.close()


def test_others_go_on_between_requests_that_come_together(tmp_path: Path):
    ran: list[str] = []

    def carry_out(request: Any, by: str, at_once: Any) -> Iterator[dict[str, Any]]:
        ran.append("act")
        yield {"done": {}}

    def go_on() -> None:
        while True:
            ran.append("other")
            gevent.sleep(0)

    admin = AdminSocket(tmp_path / "admin.sock", carry_out, lambda event, **fields: None)
    peer = Peer(admin.path)
    other = gevent.spawn(go_on)
    peer.send(encode({"act": "status"}) * 20 + b"\n" + encode({"act": "who"}) * 20)
    answers = [peer.hear() for _ in range(41)]
    other.kill()
    assert [at for at, answer in enumerate(answers) if "error" in answer] == [20]
    acts = [at for at, what in enumerate(ran) if what == "act"]
    assert len(acts) == 40
    assert all(second - first > 1 for first, second in pairwise(acts))
    peer.close()
    admin.close()


def test_a_peer_that_reads_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listening, "SEND_S", 0.05)
    ended: list[bool] = []

    def endless(request: Any, by: str, at_once: Any) -> Iterator[dict[str, Any]]:
        try:
            while True:
                yield {"rows": ["x" * 100_000]}
        finally:
            ended.append(True)

    admin = AdminSocket(tmp_path / "admin.sock", endless, lambda event, **fields: None)
    peer = Peer(admin.path)
    peer.send(encode({"act": "who"}))
    with gevent.Timeout(HANG_S):
        while admin._peers or not ended:
            gevent.sleep(0.01)
    peer.close()
    admin.close()


def test_others_are_answered_while_a_peer_reads_nothing(tmp_path: Path):
    lines = 0

    def endless_for_some(request: Any, by: str, at_once: Any) -> Iterator[dict[str, Any]]:
        nonlocal lines
        while request["act"] == "who":
            lines += 1
            yield {"rows": ["x" * 100_000]}
        yield {"done": {}}

    admin = AdminSocket(tmp_path / "admin.sock", endless_for_some, lambda event, **fields: None)
    silent, other = Peer(admin.path), Peer(admin.path)
    silent.send(encode({"act": "who"}))
    before = -1
    # Until the answer no longer fits into the socket.
    while not lines or lines > before:
        before = lines
        other.send(encode({"act": "status"}))
        assert other.hear()["done"] == {}
    assert len(admin._peers) == 2
    silent.close()
    other.close()
    admin.close()


@pytest.mark.parametrize(("function", "times"), [("gevent.spawn", 1), ("_send", 2)])
def test_a_lack_of_memory_costs_one_peer_its_connection(
    admin: AdminSocket, monkeypatch: pytest.MonkeyPatch, capfd: Any, function: str, times: int
):
    missing = [MemoryError()] * times
    where = f"{listening.__name__}.{function}"
    real = gevent.spawn if function == "gevent.spawn" else listening._send

    def lacking(*arguments: Any) -> Any:
        if missing:
            raise missing.pop()
        return real(*arguments)

    monkeypatch.setattr(where, lacking)
    monkeypatch.setattr(listening, "_PAUSE_S", 0)
    first, second = Peer(admin.path), Peer(admin.path)
    with suppress(BrokenPipeError):
        first.send(encode({"act": "who"}))
    with suppress(ConnectionResetError):
        assert first.hear() is None
    second.send(encode({"act": "who"}))
    assert second.hear()["done"]["act"] == "who"
    first.close()
    second.close()
    assert capfd.readouterr().err == ""


def test_a_socket_that_a_killed_server_has_left_and_that_cannot_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "admin.sock"
    with plain.socket(plain.AF_UNIX) as left:
        left.bind(str(path))

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CannotOpenSocket, match=re.escape(f"cannot replace {path}: Permission denied")):
        AdminSocket(path, lambda request, by, at_once: iter(()), lambda event, **fields: None)


def test_a_socket_that_a_killed_server_has_left_is_replaced_and_one_of_a_running_server_is_not(
    tmp_path: Path,
):
    path = tmp_path / "admin.sock"
    with plain.socket(plain.AF_UNIX) as left:
        left.bind(str(path))
    first = AdminSocket(path, lambda request, by, at_once: iter(()), lambda event, **fields: None)
    with pytest.raises(CannotOpenSocket, match="another server does"):
        AdminSocket(path, lambda request, by, at_once: iter(()), lambda event, **fields: None)
    first.close()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(CannotOpenSocket, match="another file is there"):
        AdminSocket(path, lambda request, by, at_once: iter(()), lambda event, **fields: None)
    link = tmp_path / "link.sock"
    for target in (path, tmp_path / "nowhere"):
        # Nothing behind a link is opened, made or removed.
        link.symlink_to(target)
        with pytest.raises(CannotOpenSocket, match="another file is there"):
            AdminSocket(link, lambda request, by: iter(()), lambda event, **fields: None)
        link.unlink()
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(CannotOpenSocket, match="No such file"):
        AdminSocket(
            tmp_path / "no" / "x", lambda request, by, at_once: iter(()), lambda event, **fields: None
        )
    assert path.read_text() == "mine"


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_command_finds_the_server_by_its_data_directory_however_long_its_name_is(tmp_path: Path):
    data = tmp_path / ("d" * 120)
    with running("0", "--host", "127.0.0.1", "--data", str(data)) as server:
        ready_lines(server)
        words = [sys.executable, *MODULE, "admin", "status", "--json"]
        for found in (["--data", str(data)], ["--pid", str(server.pid)]):
            ended = subprocess.run(
                [*words, *found],
                capture_output=True,
                text=True,
                timeout=HANG_S,
                env=environment(),
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            assert json.loads(ended.stdout)["pid"] == server.pid
        server.terminate()
        assert server.wait(HANG_S) == 0
        assert not (data / "admin.sock").exists()


def test_the_first_password_of_an_operator_is_set_while_the_server_runs(tmp_path: Path):
    password = "correct horse battery"
    words = [sys.executable, *MODULE, "admin", "password", "--data", str(tmp_path), "boss"]

    def run(*more: str) -> tuple[int, str, str]:
        ended = subprocess.run(
            [*words, *more],
            input=password + "\n",
            capture_output=True,
            text=True,
            timeout=HANG_S,
            env=environment(),
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr

    with running("0", "--host", "127.0.0.1", "--operators", "boss", "--data", str(tmp_path)) as server:
        address = ("127.0.0.1", port_of(ready_lines(server)[0]))
        assert run() == (0, "account: boss\nmade: yes\n", "")
        with plain.create_connection(address, HANG_S) as boss, boss.makefile("rb") as lines:
            boss.sendall(f"LOGIN boss {password}\nBANS\n".encode())
            assert [lines.readline(), lines.readline()] == [b"OK\n", b"OK\n"]
        code, shown, error = run("a password that is typed here")
        assert (code, shown) == (2, "")
        assert error == "geventchat admin: unexpected arguments behind NAME; the password is asked for\n"
        server.terminate()
        assert server.wait(HANG_S) == 0


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Any]:
    """Answer one request at `path` with these bytes, and later with others unless the command has given up by then."""
    threads: list[threading.Thread] = []
    path = tmp_path / "s"

    def answer(data: bytes, later: bytes = b"") -> list[str]:
        server = plain.socket(plain.AF_UNIX)
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with server, server.accept()[0] as peer:
                peer.recv(100_000)
                peer.sendall(data)
                if later and not select.select([peer], [], [], 0.5)[0]:
                    peer.sendall(later)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return ["--admin-socket", str(path)]

    yield answer
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b'{"v": 2, "done": {}}\n', 6, "the server speaks version 2 of the protocol"),
        (b'{"v": 2, "error": {"code": "version", "message": "speak 2"}}\n', 6, "speak 2"),
        (b'{"v": 1, "error": {"code": "refused", "message": "no \\u001b[31m"}}\n', 1, "no \ufffd[31m"),
        (b'{"v": 1, "error": {"code": "permission", "message": "not you"}}\n', 5, "not you"),
        (b"HTTP/1.1 400 Bad Request\r\n", 4, "something else than a geventchat server answers there"),
        (b'{"v": 1, "progress": "x"}\n', 4, "the server has closed the connection"),
        (b"", 4, "the server has closed the connection"),
    ],
)
def test_an_answer_that_is_none_has_its_exit_code(
    answering: Any, capsys: Any, data: bytes, code: int, message: str
):
    assert main(["status", *answering(data)]) == code
    assert capsys.readouterr().err.endswith(f"{message}\n")


def test_a_ban_of_nothing_is_wrong_usage(capsys: Any, tmp_path: Path):
    assert main(["ban", "", "2h", "--admin-socket", str(tmp_path / "s")]) == 2
    assert capsys.readouterr().err == "geventchat admin: WHO is empty; name someone, an address or a range\n"


def test_lists_are_tables_or_json(answering: Any, capsys: Any, tmp_path: Path):
    row = {"room": "dev", "people": 3, "topic": "\x1b]0;x", "private": False, "waiting_bytes": 12345}
    data = encode({"rows": [row]}) + encode({"done": {"rows": 1}})
    assert main(["rooms", *answering(data)]) == 0
    assert capsys.readouterr().out == (
        "ROOM  PEOPLE  TOPIC  PRIVATE  WAITING\ndev   3       \ufffd]0;x  no       12,345\n"
    )
    (tmp_path / "s").unlink()
    assert main(["rooms", "--json", *answering(data)]) == 0
    assert json.loads(capsys.readouterr().out) == [row]
    (tmp_path / "s").unlink()
    status = encode({"done": {"pid": 7, "started_ms": 1_234_567_890_000, "memory_bytes": 12_345_678}})
    assert main(["status", *answering(status)]) == 0
    assert capsys.readouterr().out == ("pid: 7\nstarted: 2009-02-13T23:31:30Z\nmemory bytes: 12,345,678\n")


def test_the_log_level_is_shown_and_changed_while_the_server_runs(tmp_path: Path):
    def log_level(*words: str) -> str:
        done = called("admin", "log-level", *words, "--data", str(tmp_path))
        assert done.returncode == 0, done.stderr
        return done.stdout

    with running("0", "--host", "127.0.0.1", "--data", str(tmp_path)) as server:
        address = ("127.0.0.1", port_of(ready_lines(server)[0]))

        def log_in(name: bytes) -> None:
            with plain.create_connection(address, HANG_S) as client:
                client.sendall(b"LOGIN " + name + b"\n")
                assert client.recv(10) == b"OK\n"

        assert log_level() == "level: info\n"
        log_in(b"first")
        assert log_level("error") == "level: error\n"
        log_in(b"second")
        assert log_level("info") == "level: info\n"
        log_in(b"third")
        server.terminate()
        _, log = server.communicate(timeout=HANG_S)
    assert re.findall(r"INFO login conn=\d+ name=(\w+)", log) == ["first", "third"]


def test_the_audit_log_is_read_while_the_server_runs_and_after_it_was_started_again(tmp_path: Path):
    def audit(*words: str) -> tuple[int, str, str]:
        done = called("admin", "audit", *words, "--data", str(tmp_path))
        return done.returncode, done.stdout, done.stderr

    with running("0", "--host", "127.0.0.1", "--data", str(tmp_path)) as server:
        ready_lines(server)
        assert audit() == (0, "none\n", "")
        assert called("admin", "ban", "name:eve", "loud", "--data", str(tmp_path)).returncode == 0
        server.terminate()
        assert server.wait(HANG_S) == 0
    with running("0", "--host", "127.0.0.1", "--data", str(tmp_path)) as server:
        ready_lines(server)
        assert called("admin", "unban", "name:eve", "--data", str(tmp_path)).returncode == 0
        code, shown, _ = audit()
        head, *rows = [line.split(maxsplit=1)[1] for line in shown.splitlines()]
        assert (code, re.split("  +", head)) == (0, ["BY", "ACT", "ROOM", "TARGET", "DETAIL"])
        assert [re.split("  +", row) for row in rows] == [
            ["geventchat admin", "ban", "-", "name:eve", "loud"],
            ["geventchat admin", "unban", "-", "name:eve", "-"],
        ]
        assert audit("1")[1].splitlines()[1:] == shown.splitlines()[2:]
        for wrong in ("0", "1001", "-1"):
            refused = f"geventchat admin: audit: limit is {wrong}, out of range 1 to 1000\n"
            assert audit(wrong) == (1, "", refused)
        code, shown, error = audit("many")
        assert (code, shown) == (2, "")
        assert "invalid int value: 'many'" in error
        server.terminate()
        assert server.wait(HANG_S) == 0


# How each act is asked for, and what has to be done before.
WORDS = {
    **dict.fromkeys((*QUESTIONS, "reload", "log-level", "upgrade"), ""),
    "announce": "tea is ready",
    "kick": "kick-er",
    "ban": "name:eve 2h loud",
    "unban": "name:mallory",
    "grant": "boss operator",
    "password": "ann",
    "backup": "copy.db",
}
BEFORE = {
    "unban": "ban name:mallory",
    "bans": "ban name:trent",
    "audit": "ban name:peggy",
    "grant": "password boss",
}


@pytest.fixture(scope="module")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("server")
    with world_of(folder, "--data", str(folder / "data")) as server:
        yield server


def documented() -> dict[str, set[str]]:
    """The fields of each act, as docs/operations.md has them."""
    page = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
    table = page.partition("| act | fields with `--json` |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?`) \| (.*) \|$", table, re.MULTILINE)
    return {
        act: set(re.findall(r"`(\w+)`", fields))
        for names, fields in rows
        for act in re.findall(r"`([\w-]+)`", names)
    }


def test_the_fields_of_every_act_are_documented():
    assert set(documented()) == set(ACTS)


@pytest.mark.parametrize("act", ACTS)
def test_the_json_of_every_act_has_the_documented_fields(
    running_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
):
    def admin(words: str) -> str:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"correct horse\n")))
        ended = called("admin", *words.split(), "--json", "--admin-socket", running_server.path)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    monkeypatch.chdir(tmp_path)
    running_server.connect(name=f"{act}-er")
    if act in BEFORE:
        admin(BEFORE[act])
    answer = json.loads(admin(f"{act} {WORDS[act]}"))
    if act in ("who", "rooms", "bans", "audit"):
        assert answer
        for row in answer:
            assert set(row) == documented()[act]
    else:
        assert set(answer) == documented()[act]


def test_an_upgrade_can_say_nothing_for_longer_than_another_act(
    answering: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "_SILENCE_S", 0.01)
    why = "the new program was not ready within 30 s"
    words = answering(
        encode({"progress": "starting the new program"}),
        encode({"error": {"code": "failed", "message": why}}),
    )
    assert main(["upgrade", *words]) == 1
    assert why in capsys.readouterr().err


def test_an_upgrade_is_waited_for_longer_than_it_can_take():
    steps = (
        *(2 * [handover._READY_S]),  # Until the new program is ready, and prepared.
        daemon._MOMENT_S,
        *(2 * [handover._UNDERSTOOD_S]),  # To send the state, and until it has been read.
        handover._SERVING_S,
        *(4 * [handover._END_S]),  # To read three answers, and to end the new program.
    )
    assert sum(steps) < command._UPGRADE_SILENCE_S


def test_a_refusal_is_json_too(running_server: Any):
    ended = called("admin", "kick", "nobody", "--json", "--admin-socket", running_server.path)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["error"].keys() == {"code", "message"}


def test_an_address_is_shown_as_it_is_written():
    listen = (Listen("line", "::1", 0), Listen("json", "127.0.0.1", 0))
    with Server(Config(listen=listen), log=lambda event, **fields: None) as server:
        (_, (_, port)), _ = server.listening
        assert World(server).do("status")["listening"][0] == f"line://[::1]:{port}"


def test_times_are_times_and_how_long_something_took_is_not(answering: Any, capsys: Any):
    assert main(["upgrade", *answering(encode({"done": {"pid": 7, "pause_ms": 20, "started_ms": 0}}))]) == 0
    assert capsys.readouterr().out == "pid: 7\npause ms: 20\nstarted: 1970-01-01T00:00:00Z\n"


def test_without_a_server_the_command_says_so(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GEVENTCHAT_DATA", raising=False)
    assert main(["status"]) == 3
    assert "--data DIR" in capsys.readouterr().err
    assert main(["status", "--data", str(tmp_path)]) == 4
    assert capsys.readouterr().err.endswith(": no server listens there\n")
    assert main(["status", "--pid", str(2**30)]) == 3
    assert "cannot read /proc/" in capsys.readouterr().err
