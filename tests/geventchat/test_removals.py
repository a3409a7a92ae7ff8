"""Kicked, banned, refused: what a real connection of someone who has to go does; in virtual time."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from geventchat import Config, Limits, Listen
from geventchat.chat.accounts import Account
from geventchat.chat.chat import Chat
from geventchat.chat.commands import Command, Login
from geventchat.chat.sessions import Session
from tests.fire.clients import State
from tests.fire.leaks import leftovers
from tests.fire.simulation import SimulatedClient, Simulation, simulate

ELSEWHERE = "198.51.100.7"
OPERATOR = "192.0.2.1"


class ChatWithAccount(Chat):
    """A chat in which `op` logs in with an account."""

    def handle(self, session: Session, command: Command) -> Any:
        if isinstance(command, Login) and command.name == "op":
            session.account = Account("op", "op")
        return super().handle(session, command)


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geventchat.server.Chat", ChatWithAccount)


def config(*dialects: str, **limits: Any) -> Config:
    listen = tuple(Listen(dialect, "127.0.0.1", 0) for dialect in dialects or ("line",))
    return Config(listen=listen, idle_s=0, operators=("op",), limits=Limits(**limits))


def log_in(simulation: Simulation, name: str, host: str = "127.0.0.1") -> SimulatedClient:
    client = simulation.connect(host=host)
    client.send_lines(f"LOGIN {name}")
    simulation.run_until_idle()
    assert taken(client) == b"OK\n"
    return client


def operator(simulation: Simulation) -> SimulatedClient:
    return log_in(simulation, "op", OPERATOR)


def taken(client: SimulatedClient) -> bytes:
    """The bytes received since the last call."""
    received = bytes(client.received)
    client.received.clear()
    return received


def say(simulation: Simulation, client: SimulatedClient, *lines: str) -> bytes:
    client.send_lines(*lines)
    simulation.run_until_idle()
    return taken(client)


@pytest.mark.parametrize(
    ("command", "last_words", "reason"),
    [
        ("KICK bob for shouting", b"INFO kicked for shouting\n", "kicked"),
        ("KICK bob", b"INFO kicked\n", "kicked"),
        ("BAN bob 1h for shouting", b"ERR banned\n", "banned"),
        (f"BAN {ELSEWHERE}", b"ERR banned\n", "banned"),
    ],
)
def test_a_removed_client_gets_what_was_sent_before_and_a_notice(command, last_words, reason):
    with simulate(config()) as simulation:
        bob, carol, op = (
            log_in(simulation, "bob", ELSEWHERE),
            log_in(simulation, "carol"),
            operator(simulation),
        )
        op.send_lines("MSG before", command, "MSG after")
        simulation.run_until_idle()
        assert taken(op) == b"OK\n"
        assert taken(bob) == b"MSG op before\n" + last_words
        assert bob.state is State.FIN
        assert taken(carol) == b"MSG op before\nINFO bob kicked\nMSG op after\n"
        assert simulation.logged[reason] == 1


def test_a_kicked_person_can_come_back_and_a_banned_one_cannot():
    with simulate(config()) as simulation:
        log_in(simulation, "bob", ELSEWHERE)
        op = operator(simulation)
        say(simulation, op, "KICK bob")
        log_in(simulation, "bob", ELSEWHERE)
        say(simulation, op, "BAN bob 60")
        again = simulation.connect()
        assert say(simulation, again, "LOGIN bob") == b"ERR banned\n"
        assert again.state is State.FIN
        simulation.advance(60)
        log_in(simulation, "bob", ELSEWHERE)


def test_nothing_that_follows_a_refused_login_is_handled():
    with simulate(config()) as simulation:
        op = operator(simulation)
        say(simulation, op, "BAN name:bob")
        client = simulation.connect()
        assert say(simulation, client, "LOGIN bob", "LOGIN bobby", "PING") == b"ERR banned\n"
        assert client.state is State.FIN
        assert taken(op) == b""
        assert simulation.logged["banned"] == 1


def test_lines_of_a_kicked_client_that_wait_for_its_rate_are_not_handled():
    with simulate(config(burst_lines=2, lines_per_s=1)) as simulation:
        bob, carol, op = log_in(simulation, "bob"), log_in(simulation, "carol"), operator(simulation)
        bob.send_lines("MSG one", "MSG two", "MSG three", "LOGIN bob")
        simulation.run_until_idle()
        assert b"two" not in taken(carol)
        say(simulation, op, "KICK bob")
        simulation.advance(60)
        assert taken(carol) == b"INFO bob kicked\n"
        assert bob.state is State.FIN
        assert taken(bob) == b"INFO kicked\n"


@pytest.mark.parametrize("waits_for", ["its rate", "the room"])
def test_what_somebody_had_sent_to_a_room_before_being_kicked_does_not_land_in_the_lobby(waits_for: str):
    limits = {"burst_lines": 6, "lines_per_s": 1} if waits_for == "its rate" else {}
    with simulate(config("line", "slash", **limits)) as simulation:
        alice, bob, carol = (log_in(simulation, name) for name in ("alice", "bob", "carol"))
        for client in (alice, bob):
            say(simulation, client, "JOIN dev")
        if waits_for == "the room":
            dev = simulation.context.chat.rooms.find("dev")
            assert dev is not None
            dev.gate._delay_s = lambda: math.inf
        taken(alice)
        bob.send_lines(*[f"MSG flood {number}" for number in range(10)], "TOPIC flood", "PING")
        simulation.run_until_idle()
        said = taken(alice).count(b"MSG")
        assert said == (4 if waits_for == "its rate" else 0)
        taken(bob)
        say(simulation, alice, "KICK bob")
        if waits_for == "the room":
            dev.gate._delay_s = lambda: 0.0
            dev.gate.pump()
        simulation.advance(60)
        assert taken(bob) == b"INFO kicked\n" + b"ERR not-in-room\n" * (11 - said) + b"PONG\n"
        assert taken(carol) == b"INFO alice left\nINFO bob left\n"
        # Lines sent from now on are for the lobby.
        say(simulation, bob, "MSG sorry")
        assert taken(carol) == b"MSG bob sorry\n"


def test_somebody_who_has_sent_nothing_before_being_kicked_speaks_in_the_lobby_at_once():
    with simulate(config()) as simulation:
        alice, bob, carol = (log_in(simulation, name) for name in ("alice", "bob", "carol"))
        for client in (alice, bob):
            say(simulation, client, "JOIN dev", "MSG hi")
        say(simulation, alice, "KICK bob")
        taken(carol)
        say(simulation, bob, "MSG sorry")
        assert taken(carol) == b"MSG bob sorry\n"


def test_whoever_goes_back_before_being_kicked_is_known_goes_on_there():
    with simulate(config(burst_lines=4, lines_per_s=1)) as simulation:
        alice, bob = (log_in(simulation, name) for name in ("alice", "bob"))
        for client in (alice, bob):
            say(simulation, client, "JOIN dev")
        bob.send_lines(*["PING"] * 4, "JOIN dev", "MSG back")
        simulation.run_until_idle()
        say(simulation, alice, "KICK bob")
        taken(alice)
        simulation.advance(60)
        assert taken(alice) == b"MSG bob back\n"


def test_nothing_that_arrives_together_with_the_removal_is_handled_after_it():
    """Lines that arrive at the same moment can come first or not, depending on the order in which the loop reads."""
    with simulate(config()) as simulation:
        first, carol, op = log_in(simulation, "first"), log_in(simulation, "carol"), operator(simulation)
        last = log_in(simulation, "last")
        first.send_lines("LOGIN other", "MSG hi")
        op.send_lines("KICK first", "KICK last")
        last.send_lines("LOGIN other", "MSG hi")
        simulation.run_until_idle()
        received = [taken(first), taken(last)]
        handled = [answers.count(b"ERR already-logged-in\n") for answers in received]
        assert 0 in handled, "one of them is read after the operator"
        assert all(answers.endswith(b"INFO kicked\n") for answers in received)
        assert taken(carol).count(b"MSG") == sum(handled)
        assert list(simulation.context.chat.lobby.names) == ["carol", "op"]


def test_an_address_that_is_banned_is_refused_when_it_connects():
    with simulate(config()) as simulation:
        op = operator(simulation)
        say(simulation, op, "BAN 198.51.100.0/24 60 flood")
        refused = simulation.connect(host=ELSEWHERE)
        simulation.run_until_idle()
        assert taken(refused) == b"ERR banned\n"
        assert refused.state is State.FIN
        assert simulation.logged["refused"] == 1
        log_in(simulation, "bob", "198.51.101.7")
        simulation.advance(60)
        log_in(simulation, "carol", ELSEWHERE)


def test_a_range_with_many_people_is_cleared():
    with simulate(config()) as simulation:
        carol, op = log_in(simulation, "carol"), operator(simulation)
        many = [log_in(simulation, f"n{number}", f"10.0.{number}.1") for number in range(250)]
        assert say(simulation, op, "BAN 10.0.0.0/8", "MSG done").startswith(b"OK\n")
        assert all(taken(client).endswith(b"ERR banned\n") for client in many)
        assert {client.state for client in many} == {State.FIN}
        assert taken(carol).count(b"kicked") == 250
        assert list(simulation.context.chat.lobby.names) == ["carol", "op"]


@pytest.mark.parametrize(
    ("dialect", "last_words"),
    [
        ("slash", b"[error] You are banned.\n"),
        ("json", b'{"type": "error", "message": "Banned"}\n'),
    ],
)
def test_other_dialects_have_their_own_words(dialect: str, last_words: bytes):
    with simulate(config("line", dialect)) as simulation:
        op = operator(simulation)
        bob = simulation.connect(dialect, ELSEWHERE)
        bob.send_lines("bob" if dialect == "slash" else '{"type": "join", "username": "bob"}')
        simulation.run_until_idle()
        taken(bob)
        say(simulation, op, f"BAN {ELSEWHERE}")
        assert taken(bob) == last_words
        refused = simulation.connect(dialect, ELSEWHERE)
        simulation.run_until_idle()
        assert taken(refused) == last_words


@pytest.mark.parametrize(
    ("dialect", "last_words"),
    [
        ("slash", b"[error] You were kicked: for shouting\n"),
        ("json", b'{"type": "error", "message": "Kicked: for shouting"}\n'),
    ],
)
def test_other_dialects_name_the_reason_of_a_kick(dialect: str, last_words: bytes):
    with simulate(config("line", dialect)) as simulation:
        op = operator(simulation)
        bob = simulation.connect(dialect)
        bob.send_lines("bob" if dialect == "slash" else '{"type": "join", "username": "bob"}')
        simulation.run_until_idle()
        taken(bob)
        say(simulation, op, "KICK bob for shouting")
        assert taken(bob) == last_words


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({"type": "ban", "username": "bob", "reason": "spam"}, "banned", "Banned"),
        ({"type": "ban", "username": f"{ELSEWHERE}/32", "seconds": 60}, "banned", "Banned"),
        ({"type": "kick", "username": "bob", "reason": "spam"}, "kicked", "Kicked: spam"),
    ],
)
def test_an_operator_of_version_2_throws_someone_out_of_many_rooms(
    request_: dict[str, Any], code: str, message: str
):
    with simulate(config("json")) as simulation:
        clients = {}
        for name, host in (("bob", ELSEWHERE), ("carol", "127.0.0.1"), ("op", OPERATOR)):
            clients[name] = simulation.connect("json", host)
            rooms = {"lobby": None} if name == "op" else {"dev": None, "lobby": None, "ops": None}
            join = {"type": "join", "v": 2, "username": name, "rooms": rooms}
            say(simulation, clients[name], json.dumps(join))
        for client in clients.values():
            taken(client)
        answer = say(
            simulation, clients["op"], json.dumps({**request_, "room": "lobby", "ref": "1"})
        ).splitlines()
        assert [json.loads(one)["type"] for one in answer] == ["ok", "user_left"]
        # One object, without a ref, and then the end.
        assert json.loads(taken(clients["bob"])) == {"type": "error", "code": code, "message": message}
        assert clients["bob"].state is State.FIN
        left = [json.loads(one) for one in taken(clients["carol"]).splitlines()]
        assert [(one["type"], one["username"], one["room"]) for one in left] == [
            ("user_left", "bob", room) for room in ("dev", "lobby", "ops")
        ]


def test_a_removed_client_that_does_not_read_is_dropped_after_a_while():
    with simulate(config(flush_s=10)) as simulation:
        bob = simulation.connect(buffer_bytes=2_000)
        bob.send_lines("LOGIN bob")
        simulation.run_until_idle()
        op = operator(simulation)
        bob.stop_reading()
        for _ in range(20):
            op.send_lines(*["MSG " + "x" * 1_000] * 10)
            simulation.advance(1)
        say(simulation, op, "KICK bob")
        assert simulation.server.clients == 2
        simulation.advance(10)
        assert simulation.server.clients == 1
        assert simulation.logged["slow"] == 1


def test_nothing_is_left_of_people_who_were_thrown_out():
    with simulate(config(empty_room_s=60)) as simulation:
        op = operator(simulation)
        for number in range(10):
            client = log_in(simulation, f"n{number}", f"198.51.100.{number}")
            client.send_lines("IGNORE op", f"JOIN r{number}", "MSG hi")
            simulation.run_until_idle()
            say(simulation, op, f"IGNORE n{number}", f"INVITE n{number}", f"BAN n{number}")
        say(simulation, op, "QUIT")
        simulation.advance(300)
        assert not leftovers(simulation), leftovers(simulation)


# --- New rooms -------------------------------------------------------------------------------------------------------


def test_the_clients_of_each_address_create_a_limited_number_of_rooms():
    with simulate(config(address_burst_rooms=3, address_rooms_per_min=2)) as simulation:
        alice, bob, carol = (
            log_in(simulation, "alice"),
            log_in(simulation, "bob"),
            log_in(simulation, "c", ELSEWHERE),
        )
        assert say(simulation, alice, "JOIN a1", "JOIN a2", "JOIN a1") == b"OK\n" * 3
        taken(bob)
        assert say(simulation, bob, "JOIN b1", "JOIN b2") == b"OK\nERR too-many-rooms\n"
        assert say(simulation, bob, "JOIN a2", "LEAVE") == b"OK\n" * 2, "rooms that exist can be entered"
        taken(carol)
        assert (
            say(simulation, carol, "JOIN c1", "JOIN c2", "JOIN c3", "JOIN c4")
            == b"OK\n" * 3 + b"ERR too-many-rooms\n"
        )
        simulation.advance(30)
        assert say(simulation, alice, "JOIN a3", "JOIN a4") == b"OK\nERR too-many-rooms\n"


def test_an_address_is_remembered_until_it_can_create_as_many_rooms_again():
    with simulate(config(address_burst_rooms=3, address_rooms_per_min=2)) as simulation:
        alice = log_in(simulation, "alice", ELSEWHERE)
        say(simulation, alice, "JOIN a1", "JOIN a2", "JOIN a3", "QUIT")
        simulation.advance(20)
        log_in(simulation, "bob")
        again = log_in(simulation, "alice", ELSEWHERE)
        assert say(simulation, again, "JOIN a4") == b"ERR too-many-rooms\n"


def test_a_rate_of_zero_lets_anyone_create_rooms():
    with simulate(config(lines_per_s=0, address_burst_rooms=1)) as simulation:
        alice = log_in(simulation, "alice")
        assert say(simulation, alice, "JOIN a1", "JOIN a2", "JOIN a3") == b"OK\n" * 3


# --- Ignoring --------------------------------------------------------------------------------------------------------


def test_someone_whom_many_ignore_is_charged_for_it_and_read_more_slowly():
    """A hole in what one listener hears costs the server about as much as a few bytes do."""
    limits = {"lines_per_s": 1_000, "burst_lines": 1_000, "bytes_per_s": 100, "burst_bytes": 1_000}
    heard = {}
    for ignored in (False, True):
        with simulate(config(**limits)) as simulation:
            bob, carol = log_in(simulation, "bob", ELSEWHERE), log_in(simulation, "carol")
            for number in range(100):
                listener = log_in(simulation, f"l{number}")
                if ignored:
                    assert say(simulation, listener, "IGNORE bob") == b"OK\n"
            for _ in range(20):
                bob.send_lines("MSG hi")
                simulation.run_until_idle()
            heard[ignored] = taken(carol).count(b"MSG bob hi")
    assert heard == {False: 20, True: 3}


def test_ignoring_leaves_nothing_behind_in_what_is_sent():
    with simulate(config("line", "slash")) as simulation:
        listener = simulation.connect("slash")
        listener.send_lines("listener")
        bob, carol = log_in(simulation, "bob"), log_in(simulation, "carol")
        listener.send_lines("/ignore bob")
        simulation.run_until_idle()
        taken(listener)
        for number in range(5):
            bob.send_lines(f"MSG hidden {number}")
            carol.send_lines(f"MSG seen {number}")
        simulation.run_until_idle()
        assert taken(listener) == "".join([f"carol: seen {number}\n" for number in range(5)]).encode()
        bob.send_lines("MSG hidden")
        simulation.run_until_idle()
        assert taken(listener) == b""
