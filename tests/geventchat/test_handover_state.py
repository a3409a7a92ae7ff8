"""The handed-over state: it has every attribute that is not listed as transient, and a new server continues from it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from enum import Enum
from functools import reduce
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest
from gevent import socket

from geventchat import Config, Limits, Listen, Server
from geventchat.chat import states
from geventchat.chat.chat import Chat
from geventchat.chat.events import Announcement, Departure, Joined, Left, Rejection, Said
from geventchat.chat.guessing import Guessing, _Counters
from geventchat.chat.history import History, RoomLog
from geventchat.chat.message_keys import MessageKeys
from geventchat.chat.names import Name
from geventchat.chat.ownership import Owners
from geventchat.chat.presence import Presence
from geventchat.chat.records import Act, Restriction, RestrictionKind, RoomRecord
from geventchat.chat.replay import Replay
from geventchat.chat.room_list import Rooms
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.chat.states import BadState, pack, unpack
from geventchat.clock import SystemClock
from geventchat.dialects.framing import LineFraming
from geventchat.dialects.telnet import TelnetFraming
from geventchat.dialects.websocket import WebSocketFraming
from geventchat.handover import STATE_VERSION, Buffers, HandedOver, KeptBuffers, Part
from geventchat.handover_state import _Alike
from geventchat.net import admission
from geventchat.net.admission import Address, Admission, Network, Refusal
from geventchat.net.connection import Connection
from geventchat.net.costs import Costs
from geventchat.net.delivery import Subscriber, _DirectGates
from geventchat.net.sniffing import Sniffer
from geventchat.net.turns import Turns
from geventchat.net.waiter import CloseReason, Waiter
from geventchat.rate import TokenBucket
from geventchat.services.passwords import Cost, Hasher, derive_here
from geventchat.services.storage.memory import MemoryStorage
from tests.patience import HANG_S

LISTEN = tuple(Listen(scheme, "127.0.0.1", 0) for scheme in ("line", "json", "slash"))


def make(hasher: Callable[[], Hasher] = Hasher, **limits: Any) -> Server:
    config = Config(listen=LISTEN, limits=Limits(linger_s=0, **limits))
    return Server(config, log=lambda event, **fields: None, hasher=hasher())


def through_json(one: Any) -> Any:
    return json.loads(json.dumps(one))


def handed(server: Server) -> HandedOver:
    """The state as a new process gets it: through JSON, with duplicates of the descriptors."""
    buffers, kept = Buffers(), KeptBuffers()

    def parts() -> Iterator[Part]:
        for state, descriptors in server.state.to_parts(buffers.keep):
            new = [bytes(one) for one in buffers.take_new()]
            kept.add(b"".join(new), map(len, new))
            yield through_json(state), [os.dup(one) for one in descriptors]

    return HandedOver(parts(), kept)


class World:
    """A server that is replaced again and again, and its clients, which must not notice."""

    def __init__(self, **limits: Any) -> None:
        self.limits = limits
        self.server = make(**limits)
        self.server.start()
        self._addresses = self.server.addresses
        self._retired: list[Server] = []
        self._open: list[Any] = []

    def connect(self, scheme: str = "line") -> Client:
        client = Client(self._addresses[scheme])
        self._open.append(client)
        return client

    def login(self, name: str) -> Client:
        client = self.connect()
        assert client.ask(f"LOGIN {name}") == "OK"
        return client

    def replace(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Replace the server by a new one between two callbacks. The old one never runs again.

        `meanwhile` is called after the state that goes ahead has been taken.
        """
        old = self.server
        ahead = [through_json(one) for one in old.state.ahead()]
        meanwhile()
        gevent.sleep(0)
        self.server = make(**self.limits)
        self.server.prepare(ahead)
        self.server.start(handed(old))
        _silence(old)
        self._retired.append(old)
        self.server.go_on()

    def connection(self, name: str) -> Connection:
        return next(one for one in self.server.connections if one._name == name)

    def close(self) -> None:
        for client in self._open:
            client.close()
        self.server.stop(5)


# The connections of servers that are gone.
RETIRED: set[Connection] = set()


@pytest.fixture(autouse=True)
def _no_end_of_the_retired(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    end = Connection._end
    run = Connection._run
    monkeypatch.setattr(Connection, "_end", lambda one, *why: None if one in RETIRED else end(one, *why))
    monkeypatch.setattr(Connection, "_run", lambda one, body: None if one in RETIRED else run(one, body))
    yield
    RETIRED.clear()


def _silence(server: Server) -> None:
    """Take a server out of the loop, as the end of its process would."""
    RETIRED.update(server.connections)
    for one in server.connections:
        serving = one._waiter._greenlet
        if serving is not None:
            # The greenlet ends in this one, so that no other greenlet runs.
            serving.parent = gevent.getcurrent()
            serving.throw(gevent.GreenletExit)
        one._readable.close()
        one._waiter._stop_timer()
        one._subscriber._unwatch()
        one._transport.close()
    server._close_listeners()
    server._hangups.close()


class Client:
    """A client that sends and receives lines, like nc."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, HANG_S)
        self._lines = self.socket.makefile("rb")

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def hear(self) -> str:
        return self._lines.readline().decode().rstrip("\n")

    def ask(self, line: str) -> str:
        self.send(line + "\n")
        return self.hear()

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@contextmanager
def world_of(**limits: Any) -> Iterator[World]:
    world = World(**limits)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def world() -> Iterator[World]:
    with world_of() as world:
        yield world


# --- Nothing is forgotten --------------------------------------------------------------------------------------------


def attributes(one: Any) -> set[str]:
    slots = {name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())}
    return slots | set(getattr(one, "__dict__", ()))


def no_buffer(buffer: Any) -> Any:
    raise AssertionError("nothing waits")


def parts(world: World) -> dict[str, tuple[Any, dict[str, Any]]]:
    """An object of each class that has state, with its state."""
    alice = world.login("alice")
    alice.ask("JOIN dev")
    connection = world.connection("alice")
    context = world.server.context
    chat, session, subscriber = context.chat, connection.session, connection._subscriber
    room = session.room
    assert room is not None
    replay = Replay(room, 0)
    gates = subscriber._direct_gates()
    address = context.admission._addresses["127.0.0.1"]
    guessing = chat._credentials.guessing
    network = context.admission._network("192.0.2.0/24")
    lines, websocket = LineFraming(100), WebSocketFraming(100)
    found: list[tuple[Any, Any]] = [
        (chat, chat.to_state()),
        (chat.rooms, chat.rooms.to_state()),
        (room, room.to_state(True)),
        (room.log, room.log.to_state()),
        (chat.rooms.history, chat.rooms.history.to_state([])),
        (chat._owners, chat._owners.to_state()),
        (session, session.to_state()),
        (replay, replay.to_state()),
        (chat._message_keys, chat._message_keys.to_state()),
        (guessing, guessing.to_state()),
        (guessing._strange, guessing._strange.to_state()),
        (connection, connection.to_state(no_buffer)),
        (subscriber, subscriber.to_state(no_buffer)),
        (gates, gates.to_state()),
        (connection._waiter, connection._waiter.to_state()),
        (connection._costs, connection._costs.to_state()),
        (connection._framing, connection._framing.to_state()),
        (websocket, websocket.to_state()),
        (lines, lines.to_state()),
        (chat._presence, chat._presence.to_state()),
        (Sniffer(1), Sniffer(1).to_state()),
        (address, address.to_state()),
        (network, network.to_state()),
        (context.admission, context.admission.to_state()),
        (connection._costs._line_bucket, connection._costs._line_bucket.to_state()),
        (world.server.storage, world.server.storage.to_state()),
    ]
    return {type(one).__name__: (one, state) for one, state in found}


# Keys of the state that are not attributes.
ALSO = {"Session": {"owned"}, "Connection": {"dialect"}}
# Attributes that are in the state of the server instead.
ELSEWHERE = {"Connection": {"_service"}, "Chat": {"_sessions"}}


def test_every_attribute_is_handed_over_or_said_not_to_be(world: World):
    kinds = (
        *(Chat, Rooms, Room, RoomLog, History, Owners, Session, Replay, MessageKeys, Guessing),
        *(
            _Counters,
            Connection,
            Subscriber,
            _DirectGates,
            Waiter,
            Costs,
            LineFraming,
            TelnetFraming,
            WebSocketFraming,
        ),
        *(Presence, Sniffer, Address, Admission, Network, TokenBucket, MemoryStorage),
    )
    found = parts(world)
    assert set(found) == {kind.__name__ for kind in kinds}
    for name, (one, state) in found.items():
        transient = one.TRANSIENT | ELSEWHERE.get(name, set())
        keys = set(state) - ALSO.get(name, set())
        there = attributes(one)
        assert transient <= there, f"{name}: {sorted(transient - there)} is gone"
        plain = {one if one in keys else one.removeprefix("_") for one in there - transient}
        assert plain == keys, f"{name}: {sorted(plain ^ keys)} is neither in its state nor in TRANSIENT"


@pytest.mark.parametrize(
    "value",
    [
        Said("dev", "alice", ("a", "b"), 7, 8),
        Left("dev", "alice", 8, Departure.KICKED),
        Announcement("hi", 1),
        Name("Alice", "alice"),
        Restriction(RestrictionKind.BAN, "", "a", "", "", "a", None, "", "x", 1),
        ("a", 1, None, True, 1.5),
        frozenset({"b", "a"}),
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_survive_json(value: object):
    assert unpack(json.loads(json.dumps(pack(value)))) == value


def test_what_is_unknown_is_refused():
    with pytest.raises(TypeError, match="object cannot be handed over"):
        pack(object())
    with pytest.raises(BadState, match="unknown kind of value 'Popen'"):
        unpack(["Popen", "rm"])


# --- A changed state has another version -----------------------------------------------------------------------------

# The version and the shape of the state. `python -m tests.geventchat.test_handover_state` writes it.
RECORDED = Path(__file__).with_name("handed_over.json")
# Keys that are data.
DATA = {
    *("alice", "bob", "carol", "dan", "dev", "lobby", "tea"),
    *(member.name for kind in (CloseReason, Refusal, Rejection) for member in kind),
}


def fill(world: World) -> None:
    """Have something of nearly everything that can be handed over."""

    def say(client: Client, *lines: str) -> None:
        client.send("".join([f"{line}\n" for line in (*lines, "PING")]))
        while (heard := client.hear()) != "PONG":
            assert not heard.startswith("ERR"), (heard, lines)

    context = world.server.context
    neighbour = context.admission.enter("192.0.2.1")
    assert isinstance(neighbour, Address)
    context.admission.leave(neighbour)
    context.counts.refused[Refusal.BANNED] += 1
    context.counts.closed[CloseReason.RESET] += 1
    alice, bob, carol = (world.login(name) for name in ("alice", "bob", "carol"))
    for one in (alice, bob):
        say(one, "REGISTER correct-horse")
    say(alice, "JOIN dev", "PRIVATE on", "KEY x", "TOPIC tea", "INVITE carol")
    for one in (bob, carol):
        say(one, "JOIN dev x")
    say(
        alice,
        "MOD bob",
        "UNMOD bob",
        "VOICE bob",
        "VOICE carol",
        "BAN carol",
        "MUTE bob",
        "IGNORE bob",
        "MSG hi",
    )
    for _ in range(2):
        assert world.connect().ask("LOGIN bob wrong-horse") == "ERR wrong-password"
    say(carol, "JOIN tea", "JOIN lobby")
    say(bob, "DM carol hi")
    bob.send("QUIT\n")
    while alice.hear() != "INFO bob disconnected":
        pass
    say(alice, "DM bob later")
    page = world.connect("json")
    page.send('{"type": "join", "v": 2, "username": "dan", "rooms": {"lobby": 0}}\n')
    page.send('{"type": "chat", "room": "lobby", "message": "hi", "key": "k", "ref": "sent"}\n')
    while json.loads(page.hear()).get("ref") != "sent":
        pass


def shape(state: Any) -> Any:
    """The keys of a state and how they are nested: `-` is a plain value, and the name of a class a packed one."""
    if isinstance(state, dict):
        if state and state.keys() <= DATA:
            return {"*": reduce(merged, map(shape, state.values()))}
        return {key: shape(value) for key, value in state.items()}
    if isinstance(state, list):
        if state and isinstance(state[0], str) and state[0] in states._VALUES:
            return state[0]
        return reduce(merged, [[shape(value)] for value in state], [])
    return "-"


def merged(one: Any, other: Any) -> Any:
    """The shape of a list with values of both shapes, or of a value that has sometimes the one and sometimes the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: merged(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(one, list) and isinstance(other, list):
        plain = sorted({value for value in (*one, *other) if isinstance(value, str)})
        nested = [[value for value in (*one, *other) if isinstance(value, kind)] for kind in (list, dict)]
        return plain + [reduce(merged, alike) for alike in nested if alike]
    # What can be missing is there.
    return max((one, other), key=lambda value: (not isinstance(value, str), str(value)))


def shape_now() -> dict[str, Any]:
    """The shape of the state that this program hands over."""
    # A network of which nobody is connected is forgotten once it could open as many connections as ever.
    slow = {"network_connections_per_s": 0.001}
    with world_of(hasher=lambda: Hasher(Cost(4, 1, 1), derive=derive_here), **slow) as world:
        fill(world)
        ahead = [through_json(one) for one in world.server.state.ahead()]
        whole = list(handed(world.server).parts)
        for _, descriptors in whole:
            for one in descriptors:
                os.close(one)
        first, *rest = (state for state, _ in whole)
        clients = [[*_Alike.read(part[kind])] for part in rest for kind in ("connections", "sessions")]
    with world_of() as world:
        # Of some of them there is nothing in that world.
        classes = {name: list(state) for name, (_, state) in parts(world).items()}
    return {
        "ahead": shape(ahead),
        "first": shape(first),
        "clients": [shape(alike) for alike in clients],
        "classes": classes,
        # Their fields are packed in this order.
        "values": {
            name: list(kind.__members__) if issubclass(kind, Enum) else [one.name for one in fields(kind)]
            for name, kind in states._VALUES.items()
        },
    }


def test_the_shape_of_the_state_changes_only_with_its_version():
    recorded = json.loads(RECORDED.read_text())
    now = shape_now()
    changed = [part for part in now if now[part] != recorded["shape"].get(part)]
    how = "increase STATE_VERSION in geventchat/handover.py, and run python -m tests.geventchat.test_handover_state"
    assert not changed, f"the state has changed ({', '.join(changed)}): {how}"
    assert recorded["version"] == STATE_VERSION, "run python -m tests.geventchat.test_handover_state"


def test_a_shape_is_not_recorded_in_place_of_another_one_of_the_same_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recorded = tmp_path / "recorded"
    monkeypatch.setitem(globals(), "RECORDED", recorded)
    monkeypatch.setitem(globals(), "shape_now", lambda: {"first": {"b": "-"}})
    for version, code in ((STATE_VERSION, 1), (STATE_VERSION - 1, 0)):
        before = json.dumps({"version": version, "shape": {"first": {"a": "-"}}})
        recorded.write_text(before)
        assert main() == code
        assert (recorded.read_text() == before) is (code == 1)
    assert json.loads(recorded.read_text()) == {"version": STATE_VERSION, "shape": {"first": {"b": "-"}}}
    assert (
        capsys.readouterr().err
        == f"the state has changed since version {STATE_VERSION}: increase STATE_VERSION\n"
    )


def test_the_shape_of_a_state_shows_what_has_changed_in_it_and_not_what_it_contains():
    act = pack(Act(1, "alice", "ban", "", "eve"))
    before = {"a": [[1, act]], "b": {"alice": [], "bob": [{"x": 1}]}, "c": [None, {"y": 2}]}
    assert shape(before) == {"a": [["-", "Act"]], "b": {"*": [{"x": "-"}]}, "c": ["-", {"y": "-"}]}
    alike = {"a": [[7, act], [8, act]], "b": {"dan": [{"x": "z"}]}, "c": [{"y": 0}, 5]}
    assert shape(alike) == shape(before)
    for other in ({"a": [1, act]}, {"b": [{"x": 1}]}, {"c": [None, {"z": 2}]}, {"d": 1}):
        assert shape({**before, **other}) != shape(before)


# --- Clients notice nothing ------------------------------------------------------------------------------------------


def test_people_and_half_a_line_move(world: World):
    alice, bob = world.login("alice"), world.login("bob")
    assert bob.ask("JOIN dev") == "OK"
    assert alice.hear() == "INFO bob left"
    assert alice.ask("JOIN dev") == "OK"
    assert alice.ask("TOPIC tea") == "OK"
    assert bob.hear() == "TOPIC tea"
    alice.send("MSG half ")
    strange = world.connect()
    strange.send("LOG")
    for _ in range(3):
        world.replace()
    alice.send("a line\n")
    assert bob.hear() == "MSG alice half a line"
    assert [bob.ask("WHO"), bob.hear()] == ["USER bob", "USER alice"]
    assert strange.ask("IN carol") == "OK"
    assert bob.ask("TOPIC") == "TOPIC tea"
    assert [alice.ask("HISTORY"), alice.hear()][0].endswith(" alice half a line")
    alice.send("QUIT\n")
    assert alice.hear() == "Goodbye!"
    assert bob.hear() == "INFO alice disconnected"
    assert world.login("alice").ask("PING") == "PONG"


@pytest.mark.parametrize("part", ["GE", "GET / HT", "\r\n\r\nGET /"])
def test_a_foreign_protocol_is_recognised_across_the_change(world: World, part: str):
    client = world.connect()
    client.send(part)
    gevent.sleep(0.01)
    world.replace()
    client.send("GET / HTTP/1.1\r\nLOGIN x\r\n\r\n"[len(part.strip()) :])
    with suppress(ConnectionResetError):
        assert client.socket.recv(10) == b""


def test_a_request_longer_than_a_line_is_recognised_across_the_change(world: World):
    client = world.connect()
    client.send("M" * (world.server.context.limits.line_bytes + 1))
    while not (world.server.connections and knows_that_it_is_too_long(world.server.connections[0])):
        gevent.sleep(0)
    for _ in range(2):
        world.replace()
    client.send(" /\r\nLOGIN x\r\n")
    with suppress(ConnectionResetError):
        assert client.socket.recv(10) == b""


def knows_that_it_is_too_long(connection: Connection) -> bool:
    return connection._sniffer is not None and connection._sniffer._too_long


def test_what_a_client_has_not_read_moves_in_order(world: World):
    alice, bob = world.login("alice"), world.login("bob")
    text = "x" * 3000
    sent = 0
    while not world.connection("bob").backlog_bytes:
        assert alice.ask(f"MSG {sent} {text}\nPING") == "PONG"
        sent += 1
    waiting = world.connection("bob").backlog_bytes
    world.replace()
    assert world.connection("bob").backlog_bytes == waiting
    for number in range(sent, sent + 3):
        assert alice.ask(f"MSG {number} {text}\nPING") == "PONG"
    world.replace()
    for number in range(sent + 3):
        assert bob.hear() == f"MSG alice {number} {text}"
    assert bob.ask("PING") == "PONG"


@pytest.mark.parametrize("last", ["QUIT", "kick"])
def test_what_a_client_that_leaves_has_not_read_moves(world: World, last: str):
    bob, alice = world.login("bob"), world.login("alice")
    texts = [f"{number} {'x' * 1_500}" for number in range(30)]
    for text in texts:
        assert bob.ask(f"MSG {text}\nPING") == "PONG"
        assert alice.hear() == f"MSG bob {text}"
    alice.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection = world.connection("alice")
    connection._transport.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    alice.send("HISTORY 200\n" + ("QUIT\n" if last == "QUIT" else ""))
    while not connection.backlog_bytes:
        gevent.sleep(0)
    if last == "kick":
        world.server.kick("alice")
    while connection._leaving is None:
        gevent.sleep(0)
    assert connection.backlog_bytes
    for _ in range(2):
        world.replace()
        gevent.sleep(0)
    heard = list(iter(alice.hear, ""))
    assert [line.partition("bob ")[2] for line in heard[: len(texts)]] == texts
    assert heard[-1] == ("Goodbye!" if last == "QUIT" else "INFO kicked")
    assert bob.hear() == ("INFO alice disconnected" if last == "QUIT" else "INFO alice kicked")


def test_lines_that_wait_for_a_rate_are_handled_once_and_in_order(world: World):
    with world_of(lines_per_s=20, burst_lines=2) as world:
        alice, bob = world.login("alice"), world.login("bob")
        alice.send("".join(f"MSG {number}\n" for number in range(12)) + "PING end\nMSG ha")
        gevent.sleep(0.01)
        heard = []
        for _ in range(4):
            world.replace()
            heard.append(bob.hear())
        heard += [bob.hear() for _ in range(8)]
        assert heard == [f"MSG alice {number}" for number in range(12)]
        assert alice.hear() == "PONG end"
        assert alice.ask("lf\nPING") == "PONG"
        assert bob.hear() == "MSG alice half"


def test_a_large_chunk_that_has_been_read_in_part_moves(world: World):
    with world_of(lines_per_s=1000, burst_lines=70) as world:
        alice, bob = world.login("alice"), world.login("bob")
        alice.send("".join(f"MSG {number}\n" for number in range(300)))
        heard = [bob.hear()]
        assert world.connection("alice")._framing.to_state()["ahead"]
        world.replace()
        heard += [bob.hear() for _ in range(299)]
        assert heard == [f"MSG alice {number}" for number in range(300)]


def test_a_login_that_waits_is_made_by_the_new_server(world: World, monkeypatch: pytest.MonkeyPatch):
    client = world.connect()
    turns = world.server.context.turns
    started = Turns._start
    monkeypatch.setattr(Turns, "_start", lambda one: None if one is turns else started(one))
    client.send("LOGIN alice\nPING x\n")
    gevent.sleep(0.01)
    assert len(turns._waiting) == 1
    world.replace()
    assert [client.hear(), client.hear()] == ["OK", "PONG x"]


def test_a_login_that_waits_for_its_network_is_charged_once_however_often_it_moves(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(admission, "network_of", lambda origin: "192.0.2.0/24")
    limits = {"network_logins_per_s": 0.001, "network_burst_logins": 1}
    limits |= {"address_logins_per_s": 0.001, "address_burst_logins": 3}
    with world_of(**limits) as world:
        world.login("alice")
        client = world.connect()
        client.send("LOGIN bob\nPING x\n")
        for _ in range(3):
            while not address(world).reserved_logins:
                gevent.sleep(0)
            world.replace()
        world.server.context.admission.network_rates.logins.change(0, 0)
        world.server.context.admission._networks["192.0.2.0/24"].login_gate.pump()
        assert [client.hear(), client.hear()] == ["OK", "PONG x"]
        world.login("carol")
        # All three are used up.
        client = world.connect()
        client.send("LOGIN dan\n")
        chat = world.server.context.chat
        while not address(world).login_gate._waiting and len(chat.people) < 4:
            gevent.sleep(0)
        assert chat.people == ["alice", "bob", "carol"]
        assert not address(world).reserved_logins


def address(world: World) -> Address:
    return world.server.context.admission._addresses["127.0.0.1"]


def test_version_2_of_json_moves_with_its_rooms_keys_and_what_it_has_missed(world: World):
    alice = world.login("alice")
    for number in range(100):
        alice.send(f"MSG {number} {'x' * 1000}\n")
        if number % 20 == 19:
            assert alice.ask("PING") == "PONG"
    robot = world.connect("json")
    robot.send('{"type": "join", "v": 2, "username": "robot", "rooms": {"lobby": 0, "dev": null}}\n')
    welcome = json.loads(robot.hear())
    while not world.connection("robot")._took_effect:
        gevent.sleep(0)
    assert world.connection("robot").session.replays
    world.replace()
    assert alice.ask("MSG late\nPING") == "PONG"
    said = [json.loads(robot.hear()) for _ in range(101)]
    assert [one["id"] for one in said] == list(range(1, 102))
    assert said[-1]["message"] == "late"
    robot.send('{"type": "chat", "room": "dev", "message": "hi", "key": "k1", "ref": "1"}\n')
    assert json.loads(robot.hear())["id"] == 1
    assert json.loads(robot.hear()) == {"type": "ok", "ref": "1", "room": "dev", "id": 1}
    world.replace()
    robot.send('{"type": "chat", "room": "dev", "message": "hi", "key": "k1", "ref": "2"}\n')
    assert json.loads(robot.hear()) == {"type": "ok", "ref": "2", "room": "dev", "id": 1}
    assert welcome["epoch"] == world.server.context.chat.epoch


@pytest.mark.parametrize("moves", [1, 2])
@pytest.mark.parametrize("at_once", [True, False], ids=["lines with the login", "lines later"])
def test_no_line_is_lost_behind_a_login_that_moves_while_it_is_answered(moves: int, at_once: bool):
    with world_of(lines_per_s=100, burst_lines=10) as world:
        alice = world.login("alice")
        for _ in range(20):
            alice.send(f"MSG {'x' * 1000}\n" * 5)
            assert alice.ask("PING") == "PONG"
        robot = world.connect("json")
        chat = "".join([f'{{"type": "chat", "message": "{number}"}}\n' for number in range(30)])
        join = '{"type": "join", "v": 2, "username": "robot", "rooms": {"lobby": 0}}\n'
        robot.send(join + chat if at_once else join)
        assert json.loads(robot.hear())["type"] == "welcome"
        for _ in range(moves):
            while not (world.connection("robot").session.replays and world.connection("robot")._took_effect):
                gevent.sleep(0)
            world.replace()
        while json.loads(robot.hear()).get("id") != 100:
            pass
        if not at_once:
            robot.send(chat)
        heard = [alice.hear()]
        while not any(line.startswith("MSG ") for line in heard):
            heard.append(alice.hear())
        # The others still wait for the rate of the client.
        world.replace()
        while len(heard) < 30:
            heard.append(alice.hear())
        assert [line for line in heard if line.startswith("MSG ")] == [f"MSG robot {n}" for n in range(30)]


def test_a_history_moves_ahead_of_the_rest(world: World):
    with world_of(history_messages=6) as world:
        alice = world.login("alice")

        def say(*numbers: int) -> None:
            for number in numbers:
                assert alice.ask(f"MSG {number}\nPING") == "PONG"

        def history() -> list[str]:
            alice.send("HISTORY\nPING\n")
            lines = [alice.hear()]
            while lines[-1] != "PONG":
                lines.append(alice.hear())
            return [line.rpartition(" ")[2] for line in lines if " alice" in line]

        say(1, 2, 3)
        world.replace(meanwhile=lambda: say(4, 5))
        assert history() == ["1", "2", "3", "4", "5"]
        # Some of the handed-over events are dropped meanwhile, and then all of them.
        world.replace(meanwhile=lambda: say(6, 7, 8))
        assert history() == ["3", "4", "5", "6", "7", "8"]
        world.replace(meanwhile=lambda: say(*range(9, 20)))
        assert history() == ["14", "15", "16", "17", "18", "19"]
        # A text is deleted meanwhile.
        lobby = world.server.context.chat.lobby
        world.replace(meanwhile=lambda: lobby.delete(16, 0))
        assert "16" not in history()
        world.replace()
        assert [one for one in history() if one.isdigit()] == ["14", "15", "17", "18", "19"]


def test_the_entries_of_a_log_that_someone_follows_move_ahead_and_are_dropped_later(world: World):
    log, limits = RoomLog(), 100
    joined = Joined("dev", "bob", 1)
    log.follow()
    for event in (Said("dev", "alice", ("a",), 1, 1), joined):
        log.add(event)
    ahead = through_json(log.ahead())
    log.unfollow()
    log.add(Said("dev", "alice", ("b",), 2, 1))
    copy = RoomLog()
    copy.take_ahead(ahead)
    copy.take_state(through_json(log.to_state()))
    assert [one.text for one in copy.before(9, limits)] == ["a", "b"]
    assert list(copy.since(0)) == list(log.since(0))


def test_a_room_that_is_due_to_be_deleted_moves_with_its_owner(world: World):
    alice = world.login("alice")
    for room in ("dev", "lobby"):
        alice.send(f"JOIN {room}\n")
        while alice.hear() != "OK":
            pass
    room = world.server.context.chat.rooms.find("dev")
    assert room is not None
    assert room.owner is not None
    world.server.context.chat.rooms._empty_since[room] -= 1e6
    world.replace()
    assert alice.ask("PING") == "PONG"
    assert world.server.context.chat.rooms.find("dev") is None


def test_a_password_that_is_being_hashed_is_hashed_again(world: World):
    gate = Gate()

    def derive(password: bytes, salt: bytes, cost: Cost) -> bytes:
        gate.hashes += 1
        gate.opened.wait()
        return derive_here(password, salt, Cost(1, 1, 1))

    with world_of(hasher=lambda: Hasher(derive=derive)) as world:
        alice = world.login("alice")
        gate.opened.set()
        assert alice.ask("REGISTER correct-horse") == "OK"
        alice.send("QUIT\n")
        assert alice.hear() == "Goodbye!"
        gate.opened.clear()
        client = world.connect()
        client.send("LOGIN alice correct-horse\nPING\n")
        while gate.hashes < 2:
            gevent.sleep(0)
        world.replace()
        gate.opened.set()
        assert [client.hear(), client.hear()] == ["OK", "PONG"]
        assert gate.hashes == 3


class Gate:
    def __init__(self) -> None:
        self.opened = gevent.event.Event()
        self.hashes = 0


def test_what_only_the_memory_has_moves(world: World):
    alice, bob = world.login("alice"), world.login("bob")
    chat = world.server.context.chat
    first, second = chat.sessions
    assert first.name is not None
    first.account = chat._accounts.add(first.name, "hash", "")
    assert second.name is not None
    second.account = chat._accounts.add(second.name, "hash", "")
    assert [alice.ask("JOIN dev"), bob.hear()] == ["OK", "INFO alice left"]
    assert [alice.ask("PRIVATE on"), alice.ask("KEY x"), alice.ask("MOD bob"), alice.ask("IGNORE bob")] == [
        "OK"
    ] * 4
    assert bob.ask("JOIN dev x") == "OK"
    bob.send("QUIT\n")
    assert bob.hear() == "Goodbye!"
    assert alice.hear() == "INFO bob disconnected"
    assert alice.ask("DM bob later") == "INFO bob is offline, message kept"
    world.server.administer(Name("x", ""), "lobby", _ban("name:eve"))
    numbers = chat.logins
    world.replace()
    chat = world.server.context.chat
    assert (chat.accounts, chat.logins) == (2, numbers)
    room = chat.rooms.find("dev")
    assert room is not None
    assert (room.private, room.room_key, room.moderators, room.kept) == (True, "x", {"bob"}, True)
    assert [ban.shown for ban in chat.bans_of(chat.lobby)] == ["name:eve"]
    assert [act.target for act in world.server.storage.acts(9) if act.action == "ban"] == ["name:eve"]
    assert [kept.message.text for kept in world.server.storage.mailbox("bob", 0, 9)] == ["later"]
    assert next(iter(chat.sessions)).ignores("bob")
    assert chat._look_alikes.resembles(Name("аlice", "аlice"))


def test_the_audit_log_in_memory_goes_on_within_its_bounds():
    def audit(storage: MemoryStorage, number: int, room: str) -> None:
        storage.audit(Act(number, "alice", "kick", room, "bob"))

    limits = Limits(room_acts=6)
    old, new = MemoryStorage(limits, SystemClock()), MemoryStorage(limits, SystemClock())
    for number, room in enumerate(("", "ops", "dev", "ops", "ops", "ops", "")):
        audit(old, number, room)
    # Its acts make way first.
    old.forget(RoomRecord("ops", "ops"))
    new.take_state(through_json(old.to_state()))
    for number in range(7, 20):
        assert new.acts(99) == old.acts(99)
        for storage in (old, new):
            audit(storage, number, "dev" if number % 2 else "tea")
    assert [act.time_ms for act in new.acts(99)] == [0, 6, 14, 15, 16, 17, 18, 19]


def _ban(who: str) -> Any:
    from geventchat.chat.commands import Impose, Sanction

    return Impose(Sanction.BAN, who, None)


def test_who_cannot_be_handed_over_leaves_as_usual(world: World, monkeypatch: pytest.MonkeyPatch):
    alice, bob = world.login("alice"), world.login("bob")
    stays: Callable[[Connection], bool] = lambda one: one._name != "bob"  # noqa: E731
    monkeypatch.setattr(Connection, "can_be_handed_over", property(stays))
    world.replace()
    assert alice.hear() == "INFO bob disconnected"
    assert world.login("bob").ask("PING") == "PONG"
    bob.close()


@pytest.mark.parametrize("end", ["stop", "kick"])
def test_nothing_is_answered_behind_the_last_notice_of_a_client_that_is_not_served_again_yet(end: str):
    with world_of(lines_per_s=20, burst_lines=5) as world:
        bob = world.login("bob")
        bob.send("PING\n" * 10)
        assert bob.hear() == "PONG"
        world.replace()
        # Its lines have moved with it, and have not been handled.
        assert world.connection("bob")._units
        # They need not wait for a rate any longer.
        world.connection("bob")._costs._line_bucket._full_at = 0.0
        if end == "stop":
            world.connection("bob").shut_down()
        else:
            world.server.kick("bob")
        heard = [line for line in iter(bob.hear, "") if line != "PONG"]
        assert heard == ["INFO server-shutdown" if end == "stop" else "INFO kicked"]


def test_the_lines_of_a_client_that_is_removed_before_it_is_served_are_not_handled(world: World):
    with world_of(lines_per_s=1000, burst_lines=70) as world:
        alice, bob = world.login("alice"), world.login("bob")
        alice.send("".join(f"MSG {number}\n" for number in range(300)))
        assert bob.hear() == "MSG alice 0"
        world.replace()
        world.server.administer(Name("x", ""), "lobby", _ban("name:alice"))
        assert [alice.hear(), alice.hear()] == ["ERR banned", ""]
        assert bob.ask("PING").startswith("MSG alice ")


def test_deadlines_and_rates_go_on(world: World):
    with world_of(login_s=0.3, address_burst_connections=3, address_connections_per_s=0.001) as world:
        client, _, _ = (world.connect() for _ in range(3))
        client.send("PING\n")
        assert client.hear() == "ERR must-login-first"
        world.replace()
        assert world.connect().hear() == "ERR too-many-connections"
        assert client.hear() == "INFO idle-timeout"


def main() -> int:
    """Record the shape of the state with its version, which has to be another one if the shape is."""
    recorded = json.loads(RECORDED.read_text())
    now = {"version": STATE_VERSION, "shape": shape_now()}
    if now["shape"] != recorded["shape"] and recorded["version"] >= STATE_VERSION:
        print(
            f"the state has changed since version {recorded['version']}: increase STATE_VERSION",
            file=sys.stderr,
        )
        return 1
    RECORDED.write_text(json.dumps(now, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
