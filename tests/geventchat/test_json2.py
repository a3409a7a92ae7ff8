"""Version 2 of the json dialect: what it reads, what it writes, and its refs when commands have to wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from geventchat import Config, Limits, Listen
from geventchat.chat.chat import Chat
from geventchat.chat.commands import (
    AnnounceTyping,
    AskTopic,
    Command,
    EnterRoom,
    InvalidCommand,
    LeaveRoom,
    ListRooms,
    Login,
    ParseError,
    Ping,
    Quit,
    Say,
    SendDirectMessage,
    SetTopic,
    Who,
)
from geventchat.chat.events import (
    Entered,
    HistoryPage,
    PastMessage,
    Pong,
    PrivateEvent,
    RoomList,
    RoomListing,
    Said,
    Welcome,
)
from geventchat.chat.history import fitting
from geventchat.chat.results import Pending
from geventchat.chat.sessions import Session
from geventchat.dialects import ALL_DIALECTS
from geventchat.dialects.dialect import OtherDialect, Reading, Request, TextInRoom
from geventchat.dialects.json_objects import MAX_DIGITS, MAX_INTEGER, MAX_VALUES
from tests.fire.attacks.bounds import ANSWER_BYTES
from tests.fire.clients import State
from tests.fire.simulation import SimulatedClient, Simulation, simulate

JSON, JSON2 = ALL_DIALECTS["json"], ALL_DIALECTS["json2"]
LOBBY = (EnterRoom("lobby"),)


def read(request: object, logged_in: bool = True) -> Reading:
    line = request if isinstance(request, bytes) else json.dumps(request).encode()
    return JSON2.interpreter().read(line, logged_in)


def invalid(field: str) -> InvalidCommand:
    return InvalidCommand(ParseError.INVALID_FIELD, field)


# --- Reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        ({"type": "chat", "message": "hi"}, TextInRoom("", "hi")),
        ({"type": "chat", "room": " #Dev\t", "message": " hi\u200b "}, TextInRoom("#Dev", "hi")),
        ({"type": "chat", "room": "dev", "message": ""}, Say(("",), "dev")),
        ({"type": "chat"}, Say(("",), "")),
        ({"type": "chat", "message": "hi", "key": ""}, Say(("hi",), "", "")),
        ({"type": "chat", "message": "hi", "key": " k\x00 "}, Say(("hi",), "", " k\x00 ")),
        ({"type": "chat", "message": "hi", "key": "k" * 64}, Say(("hi",), "", "k" * 64)),
        ({"type": "dm", "to": "bob", "message": "psst"}, SendDirectMessage("bob", "psst")),
        ({"type": "dm", "to": "bob", "message": "psst", "key": "k"}, SendDirectMessage("bob", "psst", "k")),
        ({"type": "enter", "room": "dev"}, EnterRoom("dev")),
        ({"type": "enter", "room": "dev", "key": "k", "after": 0}, EnterRoom("dev", "k", 0)),
        ({"type": "enter", "room": "dev", "after": MAX_INTEGER}, EnterRoom("dev", "", MAX_INTEGER)),
        ({"type": "enter", "room": "dev", "after": None}, EnterRoom("dev")),
        ({"type": "leave", "room": "dev"}, LeaveRoom("dev")),
        ({"type": "rooms"}, ListRooms()),
        ({"type": "users", "room": "dev", "after": "bob"}, Who("dev", "bob")),
        ({"type": "topic", "room": "dev"}, AskTopic("dev")),
        ({"type": "topic", "room": "dev", "topic": " tea "}, SetTopic("tea", "dev")),
        ({"type": "topic", "topic": ""}, SetTopic("")),
        ({"type": "typing"}, AnnounceTyping()),
        ({"type": "ping", "token": "x"}, Ping("x")),
        ({"type": "quit"}, Quit()),
        ({"type": "nope"}, InvalidCommand(ParseError.UNKNOWN_COMMAND)),
        ({"type": 1}, invalid("type")),
        ({}, invalid("type")),
        ({"type": "enter", "room": "dev", "after": True}, invalid("after")),
        ({"type": "enter", "room": "dev", "after": 1.0}, invalid("after")),
        ({"type": "enter", "room": "dev", "after": MAX_INTEGER + 1}, invalid("after")),
        ({"type": "enter", "room": "dev", "after": 10**20}, invalid("after")),
        ({"type": "chat", "message": "hi", "key": "\u20ac" * 22}, invalid("key")),
        ({"type": "chat", "message": "hi", "key": None}, invalid("key")),
        ({"type": "chat", "message": "\ud800"}, invalid("message")),
        ({"type": "join", "v": 2, "username": "al"}, Login("al", LOBBY)),
        ({"type": "join", "username": "al"}, Login("al", LOBBY)),
        ([], InvalidCommand(ParseError.NOT_JSON)),
        (b'{"type": "ping", "type": "ping"}', InvalidCommand(ParseError.NOT_JSON)),
        (b'{"type": "\xff"}', InvalidCommand(ParseError.NOT_UTF8)),
        (b" \t ", None),
    ],
    ids=repr,
)
def test_a_request_is_read(request_: object, command: Command | TextInRoom | None):
    assert read(request_) == command


@pytest.mark.parametrize("value", [True, False, 1.0, "1", [1]], ids=repr)
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"type": "join", "username": "al"}, "v"),
        ({"type": "enter", "room": "dev"}, "after"),
        ({"type": "history"}, "limit"),
        ({"type": "history"}, "before"),
        ({"type": "ban", "username": "al"}, "seconds"),
        ({"type": "mute", "username": "al"}, "seconds"),
        ({"type": "delete"}, "id"),
    ],
    ids=repr,
)
def test_only_integers_are_integers(request_: dict[str, object], field: str, value: object):
    for logged_in in (False, True):
        assert read({**request_, field: value}, logged_in=logged_in) == invalid(field)


@pytest.mark.parametrize("value", [True, False], ids=repr)
def test_a_truth_value_is_not_the_last_id_of_a_room(value: bool):
    for rooms in ({"lobby": value}, {"lobby": {"after": value}}):
        request = {"type": "join", "v": 2, "username": "al", "rooms": rooms}
        assert read(request, logged_in=False) == invalid("after")


@pytest.mark.parametrize(
    ("rooms", "asked"),
    [
        ({}, ()),
        ({"lobby": None}, LOBBY),
        ({" lobby\t": 0}, (EnterRoom("lobby", after=0),)),
        (
            {"a": 17, "b": {"after": 3, "key": "k"}, "c": {}, "d": {"after": None}},
            (EnterRoom("a", after=17), EnterRoom("b", "k", 3), EnterRoom("c"), EnterRoom("d")),
        ),
    ],
    ids=repr,
)
def test_a_login_names_its_rooms(rooms: object, asked: tuple[EnterRoom, ...]):
    login = read({"type": "join", "v": 2, "username": "al", "epoch": "e", "rooms": rooms}, logged_in=False)
    assert login == Login("al", asked, "e")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"rooms": None}, "rooms"),
        ({"rooms": []}, "rooms"),
        ({"rooms": {"\ud800": None}}, "rooms"),
        ({"rooms": {"a": "1"}}, "after"),
        ({"rooms": {"a": False}}, "after"),
        ({"rooms": {"a": [1]}}, "after"),
        ({"rooms": {"a": {"after": -1}}}, "after"),
        ({"rooms": {"a": {"key": None}}}, "key"),
        ({"epoch": 1}, "epoch"),
        ({"epoch": "e" * 65}, "epoch"),
        ({"username": 5}, "username"),
        ({"v": 3}, "v"),
        ({"v": []}, "v"),
        ({"v": 2.0}, "v"),
    ],
    ids=repr,
)
def test_a_login_with_an_invalid_field_is_refused(fields: dict[str, Any], field: str):
    request = {"type": "join", "v": 2, "username": "al", **fields}
    assert read(request, logged_in=False) == invalid(field)
    named = read({**request, "ref": "1"}, logged_in=False)
    assert isinstance(named, Request)
    assert (named.command, named.ref) == (invalid(field), "1")


def test_a_join_decides_about_the_version_until_the_login():
    def other(version: int, logged_in: bool, **fields: object) -> Reading:
        line = json.dumps({"type": "join", "username": "al", **fields}).encode()
        return (JSON if version == 1 else JSON2).interpreter().read(line, logged_in)

    assert other(1, False, v=2) == OtherDialect(JSON2.name)
    assert other(1, True, v=2) == other(1, False) == other(1, False, v=1) == Login("al")
    assert other(2, False) == other(2, False, v=1) == OtherDialect(JSON.name)
    assert other(2, True) == other(2, True, v=1) == other(2, True, v=2) == Login("al", LOBBY)
    for version in (0, 3, "2", 2.0, True, None, [], {}):
        assert other(1, False, v=version) == InvalidCommand(ParseError.NOT_JSON)


def test_a_ref_is_kept_as_it_is():
    for ref in ("", "1", " \x00\u202e\ufeff ", "\U0001f600" * 16):
        request = read({"type": "chat", "message": "hi", "ref": ref})
        assert isinstance(request, Request)
        assert (request.command, request.ref) == (Say(("hi",), confirm=True), ref)
    for ref in (1, None, [], "\ud800", "x" * 65, "\U0001f600" * 17):
        assert read({"type": "chat", "message": "hi", "ref": ref}) == invalid("ref")


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"type": ' * 50_000,
        b'{"type": "chat", "message": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"type": "join", "v": 2, "rooms": ' + b'{"a": ' * 300 + b"1" + b"}" * 301,
        b'{"type": "enter", "after": ' + b"9" * 5000 + b"}",
        b'{"type": "enter", "after": 1e' + b"9" * 5000 + b"}",
        b'{"type": "enter", "after": ' + b"9" * (MAX_DIGITS + 1) + b"}",
        b'{"type": "enter", "after": Infinity}',
        b'{"type": "enter", "after": NaN}',
        b'{"type": "chat", "message": "a"}x',
        b'\xef\xbb\xbf{"type": "ping"}',
        b'{"type": "chat", "message": "tab\there"}',
        b"\x1c",
    ],
    ids=lambda line: line[:24].decode("latin-1"),
)
def test_bad_json_is_invalid(line: bytes):
    assert read(line) == InvalidCommand(ParseError.NOT_JSON)


def test_a_join_can_name_as_many_rooms_as_it_has_values():
    def join(rooms: int) -> Reading:
        return read({"type": "join", "v": 2, "rooms": {str(n): None for n in range(rooms)}}, logged_in=False)

    # Two commas and two braces are not of rooms.
    login = join(MAX_VALUES - 3)
    assert isinstance(login, Login)
    assert len(login.rooms or ()) == MAX_VALUES - 3
    assert join(MAX_VALUES - 2) == InvalidCommand(ParseError.NOT_JSON)


@pytest.mark.parametrize(
    "line",
    [
        b"{" * 201 + b'"\\' * 1_900,
        b"{" * 201 + b'"' * 3_895,
        b'{"type": "chat", "x": [' + b"{}," * 1_300 + b"1]}",
        b'{"type": "chat", "ref": "1", "message": "' + b"\\ud800" * 650 + b'"}',
        b'{"type": "chat", "ref": "' + b"\\ud800" * 650 + b'"}',
        b'{"type": "chat", "key": "' + "\u0344".encode() * 1_950 + b'"}',
        b'{"type": "join", "v": 2, "username": "' + "q\u0323\u0344".encode() * 780 + b'"}',
        b'{"type": "join", "v": 2, "rooms": {"' + "q\u0323\u0344".encode() * 780 + b'": 1}}',
        b'{"type": "join", "v": 2, "rooms": {'
        + b'"\\u0344": {"key": "x", "after": 99999999}, ' * 90
        + b'"x": 1}}',
        b'{"type": "enter", "room": "' + "\ufdfa".encode() * 1_300 + b'"}',
        b'{"type": "users", "after": "' + "q\u0323\u0344".encode() * 780 + b'"}',
        b'{"type": "topic", "topic": "' + ("a" + "\u0323" * 4).encode() * 440 + b'"}',
        b'{"type": "chat", "message": "' + "\U0001f3f4\U000e0067".encode() * 500 + b'"}',
    ],
    ids=range(13),
)
def test_no_line_is_expensive_to_read(line: bytes):
    assert 3_500 < len(line) <= 4_096
    interpreter = JSON2.interpreter()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        interpreter.read(line, False)
        interpreter.read(line, True)
        seconds.append(time.perf_counter() - began)
    # Anything quadratic takes more than ten times as long.
    assert min(seconds) < 0.005


def test_a_megabyte_of_spaces_asks_for_nothing():
    assert read(b" " * 1_000_000) is None


# --- Writing ---------------------------------------------------------------------------------------------------------


def test_several_texts_have_consecutive_ids():
    said = Said('d"ev', "al\u00e9", ("one", "two \U0001f600"), 9, 1_000_001)
    assert JSON2.encode(said) == b"".join(
        json.dumps(
            {
                "type": "chat",
                "room": 'd"ev',
                "id": id,
                "username": "al\u00e9",
                "message": text,
                "timestamp_ms": 1_000_001,
            }
        ).encode()
        + b"\n"
        for id, text in [(9, "one"), (10, "two \U0001f600")]
    )


# A letter that has four bytes in UTF-8, and twelve in JSON.
WIDE = "\U00020000"
NAME, ROOM, TOPIC = 20 * WIDE, 32 * WIDE, 300 * WIDE
# Two hundred texts like this one are as much as one page can have.
PAGE = [PastMessage(2**53, NAME, "ä" * 605, 2**40) for _ in range(200)]


@pytest.mark.parametrize(
    "answer",
    [
        HistoryPage(ROOM, PAGE, more=True),
        RoomList([RoomListing(ROOM, 10_000, TOPIC)] * (196_608 // (4 * 332))),
        RoomList([RoomListing("ä" * 10, 10_000, "ä" * 186)] * 500),
        # Fifty rooms, and 2,500 names in all.
        Welcome(
            "",
            NAME,
            (),
            2**40,
            "e" * 16,
            [Entered(31 * WIDE + f"{n}", [NAME] * 50, TOPIC) for n in range(50)],
        ),
    ],
    ids=["a page of history", "few rooms", "many rooms", "a login"],
)
def test_no_answer_that_does_not_list_everyone_has_more_bytes_than_is_published(answer: PrivateEvent):
    assert fitting(PAGE * 2, 1_000) == len(PAGE)
    assert ANSWER_BYTES / 2 < len(JSON2.interpreter().encode_private(answer)) < ANSWER_BYTES


def test_each_connection_has_its_own_interpreter():
    first, second = JSON2.interpreter(), JSON2.interpreter()
    request = first.read(b'{"type": "ping", "ref": "1"}', True)
    assert isinstance(request, Request)
    request.answer_to(request.ref)
    assert json.loads(first.encode_private(Pong(""))) == {"type": "pong", "ref": "1"}
    assert json.loads(second.encode_private(Pong(""))) == {"type": "pong"}
    request.answer_to(None)
    assert json.loads(first.encode_private(Pong(""))) == {"type": "pong"}


# --- Connections -----------------------------------------------------------------------------------------------------


def objects(client: SimulatedClient) -> list[dict[str, Any]]:
    """The objects received since the last call."""
    received = bytes(client.received)
    client.received.clear()
    return [json.loads(line) for line in received.splitlines()]


@contextmanager
def joined(*names: str, **limits: Any) -> Iterator[tuple[Simulation, list[SimulatedClient]]]:
    """A server, and clients that have joined its lobby with version 2."""
    config = Config(listen=(Listen("json", "127.0.0.1", 0),), limits=Limits(**limits))
    with simulate(config) as simulation:
        clients = [simulation.connect("json") for _ in names]
        for client, name in zip(clients, names, strict=True):
            client.send_lines(json.dumps({"type": "join", "v": 2, "username": name}))
            simulation.run_until_idle()
        for client in clients:
            client.received.clear()
        yield simulation, clients


def close_gate(simulation: Simulation, room: str = "lobby") -> Callable[[], None]:
    """Close the gate of a room; returns what opens it."""
    found = simulation.context.chat.rooms.find(room)
    assert found is not None
    gate: Any = found.gate
    delay_s, gate._delay_s = gate._delay_s, lambda: 1e9

    def open_gate() -> None:
        gate._delay_s = delay_s
        gate.pump()
        simulation.run_until_idle()

    return open_gate


def test_refs_are_kept_while_messages_wait_at_a_gate():
    with joined("alice", "bob") as (simulation, (alice, bob)):
        open_gate = close_gate(simulation)
        alice.send_lines(
            '{"type": "ping", "ref": "1"}',
            '{"type": "chat", "message": "one", "ref": "2"}',
            '{"type": "chat", "message": "two"}',
            '{"type": "chat", "message": "three"}',
            '{"type": "ping", "ref": "3"}',
        )
        simulation.run_until_idle()
        assert objects(alice) == [{"type": "pong", "ref": "1"}]
        # Objects that are not an answer to the waiting request have no ref.
        bob.send_lines(
            '{"type": "dm", "to": "alice", "message": "psst"}', '{"type": "topic", "topic": "tea"}'
        )
        simulation.run_until_idle()
        (dm,) = objects(alice)
        assert dm["type"] == "dm"
        assert "ref" not in dm
        open_gate()
        simulation.run_until_idle()
        answers = objects(alice)
        assert [(one["type"], one.get("ref")) for one in answers if one["type"] != "topic"] == [
            ("chat", None),
            ("ok", "2"),
            ("chat", None),
            ("chat", None),
            ("pong", "3"),
        ]
        assert [one["message"] for one in objects(bob) if one["type"] == "chat"] == ["one", "two", "three"]


def test_a_ref_is_kept_while_a_login_waits_at_two_gates():
    with joined("alice") as (simulation, (alice,)):
        alice.send_lines('{"type": "enter", "room": "dev"}')
        simulation.run_until_idle()
        objects(alice)
        open_lobby, open_dev = close_gate(simulation), close_gate(simulation, "dev")
        bob = simulation.connect("json")
        bob.send_lines(
            '{"type": "join", "v": 2, "username": "bob", "rooms": {"dev": null, "lobby": null}, "ref": "j"}',
            '{"type": "ping"}',
        )
        simulation.run_until_idle()
        open_dev()
        # It has passed this one, and does not have to again.
        close_gate(simulation, "dev")
        assert objects(bob) == objects(alice) == []
        open_lobby()
        welcome, pong = objects(bob)
        assert (welcome["ref"], list(welcome["rooms"])) == ("j", ["dev", "lobby"])
        assert pong == {"type": "pong"}
        assert [one["room"] for one in objects(alice)] == ["dev", "lobby"]


def test_a_ref_is_kept_while_a_job_runs(monkeypatch: pytest.MonkeyPatch):
    class SlowChat(Chat):
        def handle(self, session: Session, command: Command) -> Any:
            if not isinstance(command, Ping):
                return super().handle(session, command)
            return Pending(lambda: gevent.sleep(5), lambda _: super(SlowChat, self).handle(session, command))

    monkeypatch.setattr("geventchat.server.Chat", SlowChat)
    with joined("alice", "bob") as (simulation, (alice, bob)):
        alice.send_lines('{"type": "ping", "ref": "1"}', '{"type": "nope"}')
        simulation.advance(4.9)
        bob.send_lines('{"type": "dm", "to": "alice", "message": "psst"}')
        simulation.run_until_idle()
        assert [sorted(one) for one in objects(alice)] == [
            ["message", "timestamp_ms", "to", "type", "username"]
        ]
        simulation.advance(0.1)
        assert [one.get("ref") for one in objects(alice)] == ["1", None]


def test_the_notice_before_the_end_has_no_ref():
    with joined("alice", login_s=0) as (simulation, (alice,)):
        close_gate(simulation)
        alice.send_lines('{"type": "chat", "message": "hi", "ref": "1"}')
        simulation.run_until_idle()
        simulation.finish(gevent.spawn(simulation.server.stop, 1))
        assert objects(alice) == [
            {"type": "error", "code": "server-shutdown", "message": "Server shutting down"}
        ]
        assert alice.state is State.FIN


def test_consecutive_messages_to_one_room_are_one_event(monkeypatch: pytest.MonkeyPatch):
    events: list[tuple[str, list[str]]] = []
    handle = Chat.handle

    def recorded(chat: Chat, session: Session, command: Command) -> Any:
        if isinstance(command, Say):
            events.append((command.room, list(command.texts)))
        return handle(chat, session, command)

    monkeypatch.setattr(Chat, "handle", recorded)
    with joined("alice") as (simulation, (alice,)):
        chat = '{"type": "chat", "room": "%s", "message": "%d"}'
        rooms = ("lobby", "lobby", "Lobby", "dev", "dev", "lobby")
        alice.send_lines(*[chat % (room, n) for n, room in enumerate(rooms)])
        alice.send_lines('{"type": "chat", "room": "lobby", "message": "6", "ref": "1"}', chat % ("lobby", 7))
        simulation.run_until_idle()
        assert events == [
            ("lobby", ["0", "1"]),
            ("Lobby", ["2"]),
            ("dev", ["3", "4"]),
            ("lobby", ["5"]),
            ("lobby", ["6"]),
            ("lobby", ["7"]),
        ]


def test_a_login_is_charged_for_each_of_its_rooms():
    def charged(rooms: int) -> int:
        limits = {"lines_per_s": 10, "bytes_per_s": 1, "burst_bytes": 10_000, "address_bytes_per_s": 0}
        with joined(**limits) as (simulation, _):
            client = simulation.connect("json")
            named = {f"r{n:02}": None for n in range(rooms)}
            line = json.dumps({"type": "join", "v": 2, "username": "al", "rooms": named, "x": ""})
            client.send_lines(json.dumps({**json.loads(line), "x": "x" * (2_000 - len(line))}))
            simulation.run_until_idle()
            (connection,) = simulation.server._connections.open.values()
            return connection._costs.charged_bytes

    assert charged(40) - charged(0) == 40 * 96
