"""Settings that change while the server runs: each reaches what it is about, and a wrong one changes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket

from geventchat import Config, ConfigError, IdleNotice, Limits, Listen, Server
from geventchat.chat.bans import read_ban_list
from geventchat.clock import SystemClock
from geventchat.daemon import Process
from geventchat.log import LogWriter
from geventchat.net.connection import ChatService
from geventchat.settings import Reload, Setting, resolve, settings_of
from tests.certificates import made_certificate
from tests.patience import HANG_S, until

LISTEN = (Listen("line", "127.0.0.1", 0), Listen("slash", "127.0.0.1", 0))
# A value of each setting that is not its default.
OTHER: dict[str, Any] = {
    "operators": ("bob",),
    "greeting": "hi",
    "idle_notice": IdleNotice.NONE,
    "reserved_names": ("me", "ann"),
    "log_messages": True,
    "web_origins": ("chat.example",),
    "ban_list": "",
    "proxy_from": (ip_network("192.0.2.0/24"),),
}


def other(table: Any) -> dict[str, Any]:
    """All settings of a table, changed."""
    return {row.field: OTHER.get(row.field, 1234) for row in settings_of(table) if is_reloaded(row)}


def is_reloaded(row: Setting) -> bool:
    return row.table == "Limits" or row.reload is not Reload.RESTART


def make(config: Config) -> Server:
    return Server(config, log=lambda event, **fields: None)


def state(server: Server) -> dict[str, Any]:
    """Everything in a running server that follows from its settings."""
    context = server.context
    chat, delivery, log = context.chat, context.delivery, context.log
    quotas = [context.admission.rates, context.admission.network_rates]
    buckets = [
        context.line_rate,
        context.byte_rate,
        *delivery._floors.values(),
        log.address_rate,
        log.network_rate,
    ]
    for rates in quotas:
        buckets += [rates.connects, rates.logins, rates.traffic, rates.accounts, rates.rooms]
    return {
        "config": server.config,
        "limits": context.limits,
        "held": [context.admission._limits, delivery.limits, server.storage._limits],
        "chat": chat.rooms._limits,
        "rates": [[getattr(rate, name) for name in rate.__slots__] for rate in buckets],
        "delivery": (delivery.behind_bytes, delivery.outgoing_bytes, delivery.floor_burst),
        "slots": [rates.connections for rates in quotas],
        "greeting": chat.greeting,
        "origins": server._origins.listed,
        "names": (chat.operators, chat.reserved_names, chat._visits._reserved),
        "look-alikes": chat._look_alikes._held.keys(),
        "bans": [(one.name, one.account, one.network) for one in chat.bans_of(chat.lobby)],
        "services": [
            (service.encoding.dialect.name, service.idle_s, service.idle_notice)
            for service in server._services.values()
            if isinstance(service, ChatService)
        ],
    }


def test_after_a_reload_everything_is_as_if_the_server_had_been_started_with_the_settings(tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("10.0.0.0/8\naccount:eve\n")
    limits = Limits(**other(Limits))
    wanted = Config(**{**other(Config), "ban_list": str(bans), "limits": limits, "listen": LISTEN})
    for row in (*settings_of(Limits), *settings_of(Config)):
        if is_reloaded(row):
            assert getattr(limits if row.table == "Limits" else wanted, row.field) != row.default, row.field
    kept = {row.field: row.default for row in settings_of(Limits) if row.reload is Reload.RESTART}
    expected = replace(wanted, limits=replace(limits, **kept))
    with make(Config(listen=LISTEN)) as server, make(expected) as fresh:
        before = state(server)
        server.change(wanted)
        assert state(server) == state(fresh)
        server.change(Config(listen=LISTEN))
        assert state(server) == before


def test_whatever_holds_limits_holds_those_that_a_reload_changes():
    with make(Config(listen=LISTEN)) as server:
        context = server.context
        assert all(one is context.limits for one in state(server)["held"])
        chat = context.chat
        chat_limits = chat.rooms._limits
        holders = (
            chat,
            chat._owners,
            chat._accounts,
            chat._moderation,
            chat.rooms.history,
            chat._message_keys,
        )
        assert all(one._limits is chat_limits for one in holders)
        assert {one.name for one in fields(chat_limits)} <= {one.name for one in fields(Limits)}


def test_lower_limits_apply_to_the_history_of_a_room_that_is_quiet(tmp_path: Path):
    def kept() -> int:
        with closing(sqlite3.connect(tmp_path / "chat.db")) as database:
            return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])

    config = Config(listen=LISTEN, data=str(tmp_path))
    with make(config) as server:
        for number in range(150):
            server.say(str(number))
        server.storage.settle()
        assert kept() == 150
        server.change(replace(config, limits=Limits(stored_messages=100)))
        assert until(lambda: kept() <= 100)
        assert kept() > 90
        server.change(replace(config, limits=Limits(stored_bytes=1)))
        assert until(lambda: kept() == 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(operators=("boss",), greeting="hi"), "name: 'boss' is the name of an operator"),
        (
            Config(ban_list="/nowhere/bans", greeting="hi"),
            "ban-list: cannot read /nowhere/bans: No such file",
        ),
    ],
)
def test_what_is_wrong_changes_nothing(config: Config, message: str):
    with Server(Config(listen=LISTEN), log=lambda event, **fields: None, name="boss") as server:
        before = state(server)
        with pytest.raises(ConfigError, match=message):
            server.change(config)
        assert state(server) == before


def test_certificates_are_read_again_and_a_broken_one_changes_nothing(tmp_path: Path):
    made = made_certificate()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(Path(made.cert).read_bytes())
    key.write_bytes(Path(made.key).read_bytes())
    key.chmod(0o600)
    listen = (Listen("line+tls", "127.0.0.1", 0, cert=str(cert), key=str(key)),)
    with make(Config(listen=listen)) as server:
        (certificate,) = server._certificates.values()
        first = certificate.context
        key.write_text("garbage")
        with pytest.raises(ConfigError, match=r"^tls-key: .*key\.pem"):
            server.change(replace(server.config, greeting="hi"))
        assert (certificate.context, server.context.chat.greeting) == (first, "")
        key.write_bytes(Path(made.key).read_bytes())
        server.change(replace(server.config, greeting="hi"))
        assert certificate.context is not first
        assert server.context.chat.greeting == "hi"


# --- The ban list ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with make(Config(listen=LISTEN, limits=Limits(linger_s=0))) as server:
        yield server


def connect(server: Server, *said: str) -> Any:
    sock = socket.create_connection(server.addresses["line"], HANG_S)
    lines = sock.makefile("rb")
    sock.sendall("".join([f"{line}\n" for line in said]).encode())
    return sock, lines


def test_a_ban_list_removes_whom_it_concerns_and_an_empty_one_lets_them_back(server: Server, tmp_path: Path):
    bans = tmp_path / "bans"
    people = {name: connect(server, f"LOGIN {name}") for name in ("alice", "eve")}
    assert [lines.readline() for _, lines in people.values()] == [b"OK\n"] * 2
    bans.write_text("# banned people\n\nEVE too loud # since May\n192.0.2.0/24\n")
    server.change(replace(server.config, ban_list=str(bans)))
    assert people["eve"][1].readline() == b"ERR banned\n"
    assert people["alice"][1].readline() == b"INFO eve kicked\n"
    late = connect(server, "LOGIN eve")
    assert late[1].readline() == b"ERR banned\n"
    rows = server.context.chat.bans_of(server.context.chat.lobby)
    assert [(row.shown, row.reason, row.by) for row in rows] == [
        ("name:EVE", "too loud", "the ban list"),
        ("192.0.2.0/24", "", "the ban list"),
    ]
    bans.write_text("127.0.0.0/8\n")
    server.change(server.config)
    assert people["alice"][1].readline() == b"ERR banned\n"
    refused = connect(server)
    assert refused[1].readline() == b"ERR banned\n"
    bans.write_text("")
    server.change(server.config)
    back = connect(server, "LOGIN eve")
    assert back[1].readline() == b"OK\n"
    for sock, lines in (*people.values(), late, refused, back):
        lines.close()
        sock.close()
    gevent.sleep(0)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a b c\n no/name", "line 2: 'no/name'"),
        ("ok\r\n\r\naccount:", "line 3: 'account:'"),
        ("name:\x00", r"line 1: 'name:\\x00'"),
        ("account:name:eve", "line 1: 'account:name:eve'"),
        # Lines of some editors, but of this list they are one.
        ("a b\u2028c\x0bd\n10.0.0.300 floods", "line 2: '10.0.0.300'"),
        ("10.0.0.0/33", "line 1: '10.0.0.0/33'"),
    ],
)
def test_a_line_that_is_not_a_ban_is_named(text: str, wrong: str):
    with pytest.raises(ValueError, match=f"^{wrong} is neither a name nor an address$"):
        read_ban_list(text, 0, 9)


def test_what_a_line_bans_and_why_is_divided_by_any_blanks():
    bans = read_ban_list("\t192.0.2.7 \t  floods  a lot\t# since May\nname:10.0.0.300\n", 0, 9)
    assert [(ban.label, ban.record.reason) for ban in bans] == [
        ("192.0.2.7/32", "floods  a lot"),
        ("name:10.0.0.300", ""),
    ]


def test_a_ban_list_is_bounded(server: Server, tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("a\n# b\nb\n\nc\nnot/a/ban\n")
    limits = replace(server.config.limits, server_bans=2)
    # Nothing behind that line is read.
    with pytest.raises(
        ConfigError, match=rf"^ban-list: {bans}: line 5: more than 2 bans \(max-server-bans\)$"
    ):
        server.change(replace(server.config, ban_list=str(bans), limits=limits))
    bans.write_text("#" + "x" * 5_000_000)
    with pytest.raises(ConfigError, match=r"more than 4,194,304 characters"):
        server.change(replace(server.config, ban_list=str(bans)))


def test_a_ban_list_that_cannot_be_read_is_refused_without_a_traceback_in_the_log(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(ConfigError, match=r"No such file or directory$"):
        server.change(replace(server.config, ban_list=str(tmp_path / "bans")))
    assert capfd.readouterr() == ("", "")


def test_a_hangup_while_the_settings_are_being_read_has_them_read_once_more(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    settings = resolve({}, {}, None)
    log = LogWriter(os.open(os.devnull, os.O_WRONLY), "text", "info", SystemClock())
    nothing: Any = None
    process = Process(server, settings, lambda: settings, (), log, nothing, SystemClock(), nothing)
    changes: list[Config] = []

    def change(config: Config) -> None:
        changes.append(config)
        if len(changes) == 1:
            process.hang_up()
            process.hang_up()
            assert "error" in process.reload()

    monkeypatch.setattr(server, "change", change)
    process.hang_up()
    for _ in range(3):
        gevent.sleep(0)
    assert len(changes) == 2
    assert log.close(HANG_S)


def test_a_hangup_is_in_the_audit_log_if_it_has_changed_something(server: Server):
    wanted: list[Any] = [ConfigError("port", "port: wrong"), resolve({}, {}, None)]

    def read_settings() -> Any:
        if isinstance(wanted[0], ConfigError):
            raise wanted.pop(0)
        return wanted.pop(0)

    log = LogWriter(os.open(os.devnull, os.O_WRONLY), "text", "info", SystemClock())
    nothing: Any = None
    process = Process(server, resolve({}, {}, None), read_settings, (), log, nothing, SystemClock(), nothing)
    for expected in ([], [("SIGHUP", "reload", "", "")]):
        process.hang_up()
        acts = server.storage.acts(9)
        assert [(act.by, act.action, act.target, act.detail) for act in acts] == expected
    assert log.close(HANG_S)
