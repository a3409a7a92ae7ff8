"""Accounts over connections: hang-ups, stops and floods while passwords are hashed; in virtual time."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from geventchat import Config, Limits, Listen, Server
from geventchat.chat.passwords import HashingFailed
from geventchat.log import LogEvent
from geventchat.services.passwords import Cost, Hasher, derive_here
from tests.fire.clients import State
from tests.fire.leaks import leftovers
from tests.fire.simulation import SimulatedClient, Simulation, simulate
from tests.geventchat.recording import at_once

PASSWORD = "correct horse battery"
HASH_S = 5.0
COST = Cost(4, 1, 1)


def config(*dialects: str, data: str = "", operators: tuple[str, ...] = (), **limits: Any) -> Config:
    listen = tuple(Listen(dialect, "127.0.0.1", 0) for dialect in dialects or ("line",))
    return Config(listen=listen, idle_s=0, limits=Limits(**limits), data=data, operators=operators)


class SlowDerive:
    """scrypt that takes five seconds of virtual time."""

    def __init__(self) -> None:
        self.running = self.finished = 0
        self.takes_s = HASH_S

    def __call__(self, password: bytes, salt: bytes, cost: Cost) -> bytes:
        self.running += 1
        try:
            gevent.sleep(self.takes_s)
        finally:
            self.running -= 1
        self.finished += 1
        return derive_here(password, salt, cost)


def taken(client: SimulatedClient) -> str:
    received = bytes(client.received).decode()
    client.received.clear()
    return received


def asks(simulation: Simulation, client: SimulatedClient, *lines: str) -> str:
    client.send_lines(*lines)
    simulation.run_until_idle()
    return taken(client)


def register(simulation: Simulation, name: str, host: str = "127.0.0.1") -> SimulatedClient:
    client = simulation.connect(host=host)
    assert asks(simulation, client, f"LOGIN {name}") == "OK\n"
    client.send_lines(f"REGISTER {PASSWORD}")
    simulation.run_until_idle()
    simulation.advance(HASH_S)
    assert taken(client) == "OK\n"
    return client


@pytest.mark.parametrize("end", [SimulatedClient.close, SimulatedClient.half_close])
def test_a_client_that_hangs_up_while_its_password_is_verified_holds_nothing_up(
    end: Callable[[SimulatedClient], None],
):
    derive = SlowDerive()
    with simulate(config(), Hasher(COST, derive=derive)) as simulation:
        alice = register(simulation, "alice")
        thief = simulation.connect()
        thief.send_lines(f"LOGIN alice {PASSWORD}")
        simulation.run_until_idle()
        assert derive.running == 1
        end(thief)
        simulation.run_until_idle()
        bob = simulation.connect()
        assert asks(simulation, bob, "LOGIN bob", "PING") == "OK\nPONG\n"
        simulation.advance(HASH_S)
        for client in (bob, alice, thief):
            client.close()
        simulation.advance(HASH_S)
        assert leftovers(simulation) == []
        assert not simulation.faults
        assert not simulation.context.chat._credentials._guessing._known


def test_a_reset_while_a_password_is_verified_takes_nothing_over():
    derive = SlowDerive()
    with simulate(config(), Hasher(COST, derive=derive)) as simulation:
        alice = register(simulation, "alice")
        thief = simulation.connect()
        thief.send_lines("WHO", f"LOGIN alice {PASSWORD}")
        thief.stop_reading()
        simulation.run_until_idle()
        # With an answer unread it is a reset.
        thief.reads = True
        simulation.register(thief, thief._sock)
        thief.close()
        simulation.advance(HASH_S)
        assert asks(simulation, alice, "PING") == "PONG\n"


def test_messages_to_someone_who_is_away_do_not_keep_another_program_from_taking_over(
    monkeypatch: pytest.MonkeyPatch,
):
    with simulate(config(), Hasher(COST, derive=SlowDerive())) as simulation:
        chat, state = simulation.context.chat, simulation.server.state
        assert asks(simulation, register(simulation, "bob"), "QUIT") == "Goodbye!\n"
        alice, carol = register(simulation, "alice"), register(simulation, "carol")

        def slowly(read: Callable[[], Any]) -> Any:
            gevent.sleep(1)
            return read()

        monkeypatch.setattr(chat._mailboxes, "_in_thread", slowly)
        # Each begins at the moment at which the one before is kept.
        alice.send_lines(*[f"DM bob {number}" for number in range(5)])
        simulation.run_until_idle()
        simulation.advance(1)
        assert not state.can_be_handed_over
        chat.hold(True)
        simulation.advance(2)
        assert state.can_be_handed_over
        kept = taken(alice).splitlines()
        assert 0 < len(kept) < 5
        assert asks(simulation, carol, "PING") == "PONG\n"
        simulation.advance(10)
        assert taken(alice) == ""
        # It has failed to.
        chat.hold(False)
        simulation.run_until_idle()
        simulation.advance(5)
        assert len(kept + taken(alice).splitlines()) == 5


def test_two_hundred_hashes_wait_and_the_next_is_refused_at_once():
    derive = SlowDerive()
    with simulate(config(), Hasher(COST, derive=derive)) as simulation:
        clients = [simulation.connect(host=f"10.0.{number}.1") for number in range(1, 204)]
        for number, client in enumerate(clients):
            assert asks(simulation, client, f"LOGIN n{number}") == "OK\n"
        for client in clients:
            client.send_lines(f"REGISTER {PASSWORD}")
        simulation.run_until_idle()
        (refused,) = [client for client in clients if client.received]
        assert taken(refused) == "ERR too-many-attempts\n"
        assert derive.running == 2
        # Others do not wait.
        bob = simulation.connect(host="10.0.1.1")
        assert asks(simulation, bob, "LOGIN bob", "MSG hi") == "OK\n"
        assert [taken(client) for client in clients] == ["MSG bob hi\n"] * 203
        simulation.advance(101 * HASH_S)
        assert [taken(client) for client in clients if client is not refused] == ["OK\n"] * 202


def test_the_old_connection_of_an_account_that_reads_nothing_holds_nothing_up():
    with simulate(config(queue_bytes=100_000)) as simulation:
        alice = register(simulation, "alice")
        bob = simulation.connect()
        assert asks(simulation, bob, "LOGIN bob") == "OK\n"
        alice.stop_reading()
        for _ in range(100):
            bob.send_lines("MSG " + "x" * 500)
        simulation.run_until_idle()
        again = simulation.connect(host="10.0.0.1")
        assert asks(simulation, again, f"LOGIN alice {PASSWORD}", "WHO") == "OK\nUSER bob\nUSER alice\n"
        assert taken(bob) == "INFO alice disconnected\n"
        simulation.advance(20)
        assert alice.server_closed
        assert simulation.logged["replaced"] + simulation.logged["slow"] == 1


def test_logins_that_wait_for_their_hashes_do_not_keep_the_server_from_stopping():
    derive = SlowDerive()
    with simulate(config(), Hasher(COST, derive=derive)) as simulation:
        alice = register(simulation, "alice")
        waiting = [simulation.connect(host=f"10.0.0.{number}") for number in range(1, 11)]
        for client in waiting:
            client.send_lines(f"LOGIN alice {PASSWORD}")
        simulation.run_until_idle()
        stopping = gevent.spawn(simulation.server.stop)
        simulation.run_until_idle()
        for client in (alice, *waiting):
            assert taken(client) == "INFO server-shutdown\n"
            assert client.state is not State.OPEN
        simulation.advance(1)
        assert stopping.dead
        assert stopping.value is True
        assert not simulation.faults


def test_a_login_that_takes_longer_than_the_time_to_log_in_is_given_up():
    derive = SlowDerive()
    with simulate(config(login_s=20.0), Hasher(COST, derive=derive)) as simulation:
        register(simulation, "alice")
        client = simulation.connect(host="10.0.0.1")
        derive.takes_s = 100
        client.send_lines(f"LOGIN alice {PASSWORD}")
        simulation.run_until_idle()
        simulation.advance(20)
        assert client.state is not State.OPEN
        assert simulation.logged["idle"] == 1


def test_each_address_registers_a_limited_number_of_accounts():
    with simulate(config(address_burst_accounts=2, address_accounts_per_min=1.0)) as simulation:
        for number in range(2):
            register(simulation, f"a{number}")
        third = simulation.connect()
        assert asks(simulation, third, "LOGIN c", f"REGISTER {PASSWORD}") == "OK\nERR too-many-attempts\n"
        register(simulation, "other", host="10.0.0.1")
        simulation.advance(60)
        taken(third)
        assert asks(simulation, third, f"REGISTER {PASSWORD}") == "OK\n"


def test_a_hash_that_fails_is_logged_and_the_client_can_try_again():
    def derive(password: bytes, salt: bytes, cost: Cost) -> bytes:
        raise HashingFailed("no memory")

    with simulate(config(), Hasher(COST, derive=derive)) as simulation:
        alice = simulation.connect()
        answers = asks(simulation, alice, "LOGIN alice", f"REGISTER {PASSWORD}", "PING")
        assert answers == "OK\nERR too-many-attempts\nPONG\n"
        assert simulation.faults == ["no memory"]
        simulation.faults.clear()


@pytest.mark.parametrize("burst", [100, 20])
def test_failed_logins_are_logged_with_their_address_within_its_limit(burst: int):
    events: list[dict[str, object]] = []

    def log(event: LogEvent, /, **fields: object) -> None:
        if event is LogEvent.LOGIN_FAILED:
            events.append(fields)

    with simulate(config(address_burst_log_lines=burst)) as simulation:
        register(simulation, "alice", "192.0.2.1").close()
        simulation.context.log._log = log
        guesser = simulation.connect(host="192.0.2.2")
        for _ in range(25):
            asks(simulation, guesser, "LOGIN ALICE wrong password")
        # It has not guessed anything.
        asks(simulation, guesser, "LOGIN alice", "LOGIN bob wrong password")
    failed = {"conn": 2, "address": "192.0.2.2", "name": "ALICE", "reason": "wrong-password"}
    assert events[:3] == [failed] * 3
    assert events[3] == {**failed, "reason": "too-many-attempts"}
    # One line is that the client has connected.
    assert len(events) == min(25, burst - 1)


def test_a_wrong_password_on_changing_it_is_a_failed_login():
    with simulate(config()) as simulation:
        alice = register(simulation, "alice")
        assert asks(simulation, alice, "PASSWORD wrong-one another-one") == "ERR wrong-password\n"
        assert simulation.logged["login-failed"] == 1


def test_hashes_that_fail_are_logged_within_the_limit_of_the_address():
    def derive(password: bytes, salt: bytes, cost: Cost) -> bytes:
        raise HashingFailed("no memory")

    limits = {"address_burst_log_lines": 10, "address_accounts_per_min": 0}
    with simulate(config(**limits), Hasher(COST, derive=derive)) as simulation:
        client = simulation.connect()
        asks(simulation, client, "LOGIN alice", *[f"REGISTER {PASSWORD}"] * 30)
        # Two lines are that it has connected and logged in.
        assert len(simulation.faults) == 8
        simulation.faults.clear()


def test_what_cannot_be_read_from_the_data_directory_is_logged_within_a_limit(tmp_path: Path):
    with simulate(config(data=str(tmp_path / "data"), address_burst_log_lines=10)) as simulation:
        storage: Any = simulation.server._storage
        for _ in range(30):
            storage._log(LogEvent.FAULT, error="reading chat.db: disk I/O error")
        # One line is that it is open.
        assert len(simulation.faults) == 9
        simulation.faults.clear()


def test_the_server_closes_the_hasher_when_it_stops():
    closed = []

    class Closing(Hasher):
        def close(self) -> None:
            closed.append(True)
            super().close()

    with simulate(config(), Closing(COST, derive=derive_here)):
        assert closed == []
    assert closed == [True]


# --- Secrets ---------------------------------------------------------------------------------------------------------

MARKER = "marker-7f3a9c-marker"


def test_no_password_and_no_token_is_in_a_log_an_error_an_answer_or_the_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Each way to send one, right and wrong, and then a fault in the middle of each command."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    secret_lines = [
        *(f"LOGIN alice {MARKER}", f"REGISTER {MARKER}", f"PASSWORD {MARKER} {MARKER}2", f"TOKEN {MARKER}"),
        *(f"LOGIN {MARKER} {MARKER}", f"REGISTER {MARKER[:5]}", f"PASSWORD {MARKER}", f"LOGIN bob {MARKER}"),
    ]
    requests = [
        {"type": "join", "v": 2, "username": "carol", "password": MARKER, "token": MARKER},
        {"type": "join", "v": 2, "username": "alice", "password": MARKER, "ref": 5},
        {"type": "register", "password": MARKER},
        {"type": "password", "password": MARKER, "new": MARKER},
        {"type": "token", "revoke": MARKER},
    ]
    with simulate(config("line", "json", "slash", data=str(tmp_path / "data"))) as simulation:
        log = simulation.server._log
        simulation.server._log = lambda event, **fields: (seen.append(repr(fields)), log(event, **fields))  # type: ignore[assignment,func-returns-value]
        listener = simulation.connect()
        asks(simulation, listener, "LOGIN listener")
        alice = simulation.connect()
        assert asks(simulation, alice, "LOGIN alice", f"REGISTER {MARKER}") == "OK\nOK\n"
        token = asks(simulation, alice, "TOKEN").removeprefix("TOKEN ").strip()
        assert token.startswith("gct_")
        tries = [("line", line) for line in secret_lines]
        tries += [
            ("slash", "/" + line[0].lower() + line[1:].replace("OGIN", "ogin")) for line in secret_lines
        ]
        tries += [("json", json.dumps(request)) for request in requests]
        tries += [("line", f"LOGIN alice {token}")]
        for broken in (False, True):
            if broken:
                monkeypatch.setattr("geventchat.chat.credentials.prepare", fault)
                monkeypatch.setattr("geventchat.chat.credentials.is_token", fault)
            for dialect, line in tries:
                for first in ("", "LOGIN x\n" if dialect == "line" else "x\n" if dialect == "slash" else ""):
                    client = simulation.connect(dialect)
                    client.send((first + line + "\n").encode())
                    simulation.run_until_idle()
                    seen.append(taken(client).replace("gct_", "") if "TOKEN" not in line else "")
                    client.close()
                    simulation.run_until_idle()
        if not any("broken on purpose" in one for one in simulation.faults):
            raise AssertionError("no fault was caused")
        seen += simulation.faults
        seen.append(taken(listener))
        simulation.faults.clear()
    seen.append(caplog.text)
    seen += [path.read_bytes().decode("latin-1") for path in (tmp_path / "data").iterdir()]
    for text in seen:
        assert MARKER not in text
        assert token not in text
    assert len(seen) > 40


def fault(typed: str) -> Any:
    raise RuntimeError("broken on purpose")


# --- In the clear ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "warns"),
    [
        (("127.0.0.1", "::1", "localhost", "127.0.0.2"), False),
        (("127.0.0.1", "0.0.0.0"), True),
        (("",), True),
    ],
)
def test_a_server_that_others_can_reach_warns_once_that_passwords_travel_in_the_clear(
    hosts: tuple[str, ...], warns: bool, monkeypatch: pytest.MonkeyPatch
):
    logged: list[LogEvent] = []
    listen = tuple(Listen("line", host, 0) for host in hosts)
    server = Server(Config(listen=listen), log=lambda event, **fields: logged.append(event))
    try:
        server.start()
    finally:
        server.stop(0)
    assert logged.count(LogEvent.PASSWORDS_IN_CLEAR) == warns


# --- Mail ------------------------------------------------------------------------------------------------------------


def test_a_login_is_over_before_all_that_was_kept_has_been_read(monkeypatch: pytest.MonkeyPatch):
    # The storage is in memory, and virtual time does not wait for threads.
    monkeypatch.setattr("geventchat.server.in_thread", at_once)
    with simulate(config(login_s=20.0, answer_bytes=1_000)) as simulation:
        bob = register(simulation, "bob")
        bob.close()
        simulation.run_until_idle()
        for name in ("alice", "carol"):
            sender = register(simulation, name)
            for number in range(10):
                answer = asks(simulation, sender, f"DM bob {number} " + "x" * 3_000)
                assert answer == "INFO bob is offline, message kept\n"
            sender.close()
            simulation.run_until_idle()
        before = simulation.logged["login"]
        bob = simulation.connect(buffer_bytes=1)
        bob.send_lines(f"LOGIN bob {PASSWORD}")
        bob.stop_reading()
        simulation.run_until_idle()
        assert simulation.logged["login"] == before + 1
        simulation.advance(60)
        assert not bob.server_closed
        bob.resume_reading()
        simulation.run_until_idle()
        simulation.advance(60)
        received = taken(bob).splitlines()
        assert received[0] == "OK"
        assert [line.split()[1:3] for line in received[1:]] == [
            [name, str(number)] for name in ("alice", "carol") for number in range(10)
        ]
