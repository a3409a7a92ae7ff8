"""One client's connection from start to end: its limits, its waits and its ends; in virtual time."""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD
from typing import Any

import gevent
import pytest

from geventchat import Config, Limits, Listen, Server
from geventchat.chat.chat import Chat
from geventchat.chat.commands import Command, Ping, Say
from geventchat.chat.events import Pong
from geventchat.chat.results import DONE, LEAVE, Busy, Done, Leave, Pending
from geventchat.chat.sessions import Session
from tests.fire.clients import State
from tests.fire.leaks import leftovers
from tests.fire.simulation import SimulatedClient, Simulation, simulate

ABORT = struct.pack("ii", 1, 0)
RATED_OR_NOT = pytest.mark.parametrize("lines_per_s", [50, 0], ids=["rated", "without rates"])


def config(idle_s: float | None = 0, **limits: Any) -> Config:
    return Config(listen=(Listen("line", "127.0.0.1", 0),), idle_s=idle_s, limits=Limits(**limits))


def log_in(simulation: Simulation, *names: str, host: str = "127.0.0.1") -> list[SimulatedClient]:
    clients = []
    for name in names:
        client = simulation.connect(host=host)
        client.send_lines(f"LOGIN {name}")
        simulation.run_until_idle()
        assert client.received == b"OK\n"
        client.received.clear()
        clients.append(client)
    return clients


def taken(client: SimulatedClient) -> bytes:
    """The bytes received since the last call."""
    received = bytes(client.received)
    client.received.clear()
    return received


def asks(simulation: Simulation, client: SimulatedClient, command: dict[str, Any]) -> str:
    """What the server answers to this object of json."""
    client.send_lines(json.dumps(command))
    simulation.run_until_idle()
    return taken(client).decode()


# --- Work that has to wait -------------------------------------------------------------------------------------------


class SlowChat(Chat):
    """A chat in which PING is answered by a job that takes 5 s, like a look into a database."""

    finished: list[str]
    next_result: Callable[[SlowChat, Session, Ping], Any]

    def handle(self, session: Session, command: Command) -> Any:
        if not isinstance(command, Ping):
            return super().handle(session, command)

        def job() -> str:
            gevent.sleep(5)
            return command.token

        def finish(token: str) -> Any:
            self.finished.append(token)
            return type(self).next_result(self, session, Ping(token.upper()))

        return Pending(job, finish)


def answer(chat: SlowChat, session: Session, ping: Ping) -> Done:
    session.subscriber.deliver(Pong(ping.token))
    return DONE


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("geventchat.server.Chat", SlowChat)
    monkeypatch.setattr(SlowChat, "finished", [], raising=False)
    monkeypatch.setattr(SlowChat, "next_result", answer, raising=False)
    return SlowChat.finished


def test_a_job_delays_only_its_own_client(finished: list[str]):
    with simulate(config()) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines("MSG before", "PING x", "MSG after")
        simulation.run_until_idle()
        assert taken(bob) == b"MSG alice before\n"
        simulation.advance(4.9)
        bob.send_lines("MSG meanwhile")
        simulation.run_until_idle()
        assert taken(alice) == b"MSG bob meanwhile\n"
        assert taken(bob) == b""
        simulation.advance(0.1)
        assert taken(alice) == b"PONG X\n"
        assert taken(bob) == b"MSG alice after\n"
        assert finished == ["x"]


def test_the_finish_of_a_job_can_request_another(finished: list[str], monkeypatch: pytest.MonkeyPatch):
    def once_more(chat: SlowChat, session: Session, ping: Ping) -> Any:
        SlowChat.next_result = answer
        return Pending(lambda: gevent.sleep(2) or "second", lambda token: answer(chat, session, Ping(token)))

    monkeypatch.setattr(SlowChat, "next_result", once_more)
    with simulate(config()) as simulation:
        (alice,) = log_in(simulation, "alice")
        alice.send_lines("PING x")
        simulation.advance(6.9)
        assert taken(alice) == b""
        simulation.advance(0.1)
        assert taken(alice) == b"PONG second\n"


def test_the_finish_of_a_job_can_end_the_connection(finished: list[str], monkeypatch: pytest.MonkeyPatch):
    def leave(chat: SlowChat, session: Session, ping: Ping) -> Leave:
        chat.leave(session)
        return LEAVE

    monkeypatch.setattr(SlowChat, "next_result", leave)
    with simulate(config()) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines("PING x", "MSG never")
        simulation.advance(5)
        assert alice.state is State.FIN
        assert taken(bob) == b"INFO alice disconnected\n"


def test_a_reset_abandons_the_job_and_frees_the_name_at_once(finished: list[str]):
    with simulate(config()) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines("PING x")
        simulation.advance(1)
        alice.close()
        simulation.run_until_idle()
        assert taken(bob) == b"INFO alice disconnected\n"
        assert simulation.logged["reset"] == 1
        simulation.advance(60)
        assert finished == []
        bob.close()
        simulation.advance(60)
        assert not leftovers(simulation)


def test_a_half_close_does_not_abandon_the_job(finished: list[str]):
    with simulate(config()) as simulation:
        (alice,) = log_in(simulation, "alice")
        alice.send_lines("PING x")
        simulation.advance(1)
        alice.half_close()
        simulation.advance(4)
        assert finished == ["x"]
        assert taken(alice) == b"PONG X\n"
        assert alice.state is State.FIN


def test_a_shutdown_abandons_the_job_and_the_client_gets_its_notice(finished: list[str]):
    with simulate(config()) as simulation:
        (alice,) = log_in(simulation, "alice")
        alice.send_lines("PING x")
        simulation.advance(1)
        stopping = gevent.spawn(simulation.server.stop)
        simulation.run_until_idle()
        assert taken(alice) == b"INFO server-shutdown\n"
        simulation.advance(60)
        assert stopping.get(block=False) is True
        assert finished == []


def test_a_job_before_login_ends_at_the_deadline_for_logging_in(finished: list[str]):
    with simulate(config(login_s=3)) as simulation:
        client = simulation.connect()
        client.send_lines("PING x")
        simulation.advance(2.999999)
        assert client.state is State.OPEN
        simulation.advance(0.000001)
        assert client.state is State.FIN
        assert client.received == b"INFO idle-timeout\n"
        simulation.advance(60)
        assert finished == []


@RATED_OR_NOT
def test_the_idle_time_counts_from_the_end_of_the_job(finished: list[str], lines_per_s: float):
    with simulate(config(idle_s=4, lines_per_s=lines_per_s)) as simulation:
        (alice,) = log_in(simulation, "alice")
        alice.send_lines("PING x")
        simulation.advance(5)
        assert taken(alice) == b"PONG X\n"
        simulation.advance(3.999999)
        assert alice.state is State.OPEN
        simulation.advance(0.000001)
        assert alice.state is State.FIN


def test_a_job_that_fails_ends_its_connection_alone(finished: list[str], monkeypatch: pytest.MonkeyPatch):
    def fail(chat: SlowChat, session: Session, ping: Ping) -> Any:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(SlowChat, "next_result", fail)
    with simulate(config()) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines("PING x")
        simulation.advance(5)
        assert alice.state is State.FIN
        assert taken(bob) == b"INFO alice disconnected\n"
        assert "planted" in simulation.faults[0]
        assert len(simulation.faults) == 1


# --- A chat that is busy ---------------------------------------------------------------------------------------------


class BusyChat(Chat):
    """A chat whose direct gate is closed to all messages, until the test opens it."""

    gate: Any = None
    refused = 0

    def handle(self, session: Session, command: Command) -> Any:
        if isinstance(command, Say) and self.gate is not None:
            type(self).refused += 1
            return Busy(self.gate)
        return super().handle(session, command)


@pytest.fixture
def busy_chat(monkeypatch: pytest.MonkeyPatch) -> type[BusyChat]:
    monkeypatch.setattr("geventchat.server.Chat", BusyChat)
    monkeypatch.setattr(BusyChat, "gate", None)
    monkeypatch.setattr(BusyChat, "refused", 0)
    return BusyChat


@pytest.mark.parametrize("way", ["half-close", "close"])
def test_a_client_that_hangs_up_at_a_gate_leaves_at_once_and_its_message_is_dropped(
    busy_chat: type[BusyChat], way: str
):
    with simulate(config()) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        open_now = [False]
        new_gate = simulation.context.delivery.new_gate
        busy_chat.gate = new_gate(lambda: 0.0 if open_now[0] else 1e9)
        alice.send_lines("MSG one", "MSG two")
        simulation.run_until_idle()
        assert busy_chat.refused == 1
        if way == "close":
            alice.close()
        else:
            alice.half_close()
        simulation.run_until_idle()
        assert taken(bob) == b"INFO alice disconnected\n"
        assert not busy_chat.gate._waiting
        assert simulation.logged["reset" if way == "close" else "closed"] == 1
        assert busy_chat.refused == 1


def test_a_command_that_is_busy_is_handled_once_when_the_gate_opens(busy_chat: type[BusyChat]):
    with simulate(config()) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        delay = [1e9]
        gate = busy_chat.gate = simulation.context.delivery.new_gate(lambda: delay[0])
        alice.send_lines("MSG one", "MSG two", "PING x")
        simulation.run_until_idle()
        assert taken(bob) == b""
        busy_chat.gate = None
        delay[0] = 0.0
        gate.pump()
        simulation.run_until_idle()
        assert taken(bob) == b"MSG alice one\nMSG alice two\n"
        assert taken(alice) == b"PONG x\n"


@RATED_OR_NOT
def test_a_client_at_a_gate_is_not_idle(busy_chat: type[BusyChat], lines_per_s: float):
    with simulate(config(idle_s=10, lines_per_s=lines_per_s)) as simulation:
        (alice,) = log_in(simulation, "alice")
        delay = [1e9]
        gate = busy_chat.gate = simulation.context.delivery.new_gate(lambda: delay[0])
        alice.send_lines("MSG one")
        simulation.advance(100)
        assert alice.state is State.OPEN
        busy_chat.gate = None
        delay[0] = 0.0
        gate.pump()
        simulation.run_until_idle()
        simulation.advance(9.9)
        assert alice.state is State.OPEN
        simulation.advance(0.1)
        assert alice.state is State.FIN


# --- Rates -----------------------------------------------------------------------------------------------------------

RATED = {"lines_per_s": 10, "burst_lines": 20, "bytes_per_s": 0, "address_bytes_per_s": 0}


def said(client: SimulatedClient) -> int:
    return client.received.count(b"MSG ")


def test_lines_beyond_the_burst_are_handled_at_the_rate_and_none_is_lost():
    with simulate(config(**RATED)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines(*[f"MSG {n}" for n in range(50)])
        simulation.run_until_idle()
        assert said(bob) == 20 - 1, "the login was a line, too"
        for second in range(1, 4):
            simulation.advance(1)
            assert said(bob) == 19 + 10 * second
        simulation.advance(10)
        assert taken(bob) == b"".join(b"MSG alice %d\n" % n for n in range(50))


@pytest.mark.parametrize("way", ["half-close", "close"])
def test_a_hang_up_while_lines_wait_ends_the_connection_at_once(way: str):
    with simulate(config(**RATED)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines(*[f"MSG {n}" for n in range(50)])
        simulation.advance(1)
        if way == "close":
            alice.close()
        else:
            alice.half_close()
        simulation.run_until_idle()
        received = taken(bob)
        assert received.endswith(b"INFO alice disconnected\n")
        assert received.count(b"MSG ") == 29
        simulation.advance(60)
        assert taken(bob) == b""
        bob.send_lines("LOGIN alice")
        other = simulation.connect()
        other.send_lines("LOGIN alice")
        simulation.run_until_idle()
        assert other.received == b"OK\n"


def test_a_pasted_half_close_within_the_limits_arrives_whole():
    with simulate(config(**RATED)) as simulation:
        (bob,) = log_in(simulation, "bob")
        alice = simulation.connect()
        alice.send_lines("LOGIN alice", *[f"MSG {n}" for n in range(19)])
        alice.half_close()
        simulation.run_until_idle()
        assert said(bob) == 19
        assert alice.received == b"OK\n"
        assert alice.state is State.FIN


def test_a_reset_while_lines_wait_ends_within_an_iteration_of_the_loop():
    with Server(config(lines_per_s=1, burst_lines=2)) as server:
        sock = socket.create_connection(server.addresses["line"])
        sock.sendall(b"LOGIN alice\n" + b"PING\n" * 10)
        with gevent.Timeout(20):
            while not server._connections.open or not next(iter(server._connections.open.values()))._name:
                gevent.sleep(0.001)
        gevent.idle()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        sock.close()
        for _ in range(3):
            gevent.sleep(0)
        gevent.idle()
        assert server.clients == 0


def test_bytes_beyond_the_burst_wait_and_the_burst_comes_back():
    limits = {"bytes_per_s": 1_000, "burst_bytes": 4_000, "lines_per_s": 1e6, "burst_lines": 10**6}
    with simulate(config(address_bytes_per_s=0, chunk_bytes=1_000, **limits)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        line = "MSG " + "x" * 95
        alice.send_lines(*[line] * 150)
        simulation.run_until_idle()
        assert 25 <= said(bob) <= 40
        simulation.advance(5)
        assert 75 <= said(bob) <= 90
        simulation.advance(60)
        assert said(bob) == 150


def test_answers_are_paid_for_like_requests():
    limits = {"bytes_per_s": 1_000, "burst_bytes": 4_000, "lines_per_s": 1e6, "burst_lines": 10**6}
    with simulate(config(address_bytes_per_s=0, clients_per_address=100, **limits)) as simulation:
        members = [simulation.connect() for _ in range(50)]
        for n, member in enumerate(members):
            member.send_lines(f"LOGIN a-long-name-{n:03d}")
        simulation.run_until_idle()
        roster = sum(len(f"USER a-long-name-{n:03d}\n") for n in range(50))
        requester = members[0]
        taken(requester)
        requester.send_lines(*["WHO"] * 100)
        simulation.run_until_idle()
        simulation.advance(20)
        assert len(requester.received) <= 4_000 + 20 * 1_000 + 2 * roster
        assert len(requester.received) >= 15_000


def test_single_answers_are_paid_for_too():
    limits = {"bytes_per_s": 1, "burst_bytes": 4_000, "lines_per_s": 1e6, "burst_lines": 10**6}
    with simulate(config(address_bytes_per_s=0, **limits)) as simulation:
        (alice,) = log_in(simulation, "alice")
        request = "PING " + "x" * 500
        for _ in range(10):
            alice.send_lines(request)
            simulation.run_until_idle()
        # Each costs its request and its answer.
        assert alice.received.count(b"PONG") == 4_000 // (2 * len(request) + 2) + 1


def test_an_endless_line_is_paid_for_too():
    limits = {"bytes_per_s": 1_000, "burst_bytes": 10_000, "lines_per_s": 1e6, "burst_lines": 10**6}
    with simulate(config(address_bytes_per_s=0, **limits)) as simulation:
        (alice,) = log_in(simulation, "alice")
        began = simulation.now_s
        alice.send(b"x" * 500_000 + b"\n")
        # The bytes in the socket's buffers have not been read yet.
        assert simulation.now_s - began > 100
        simulation.advance(600)
        assert alice.received == b"ERR line-too-long\n"


def test_clients_of_one_address_share_its_bytes_and_another_address_has_its_own():
    limits = {"address_bytes_per_s": 2_000, "address_burst_bytes": 8_000, "bytes_per_s": 0}
    limits |= {"lines_per_s": 1e6, "burst_lines": 10**6, "login_chunk_bytes": 100, "chunk_bytes": 500}
    with simulate(config(clients_per_address=100, **limits)) as simulation:
        busy = log_in(simulation, *[f"busy{n}" for n in range(5)], host="192.0.2.1")
        (other,) = log_in(simulation, "other", host="192.0.2.2")
        for client in busy:
            client.send_lines(*["MSG " + "x" * 95] * 100)
        simulation.run_until_idle()
        mark = len(busy[0].received)
        other.send_lines("MSG from another address")
        simulation.run_until_idle()
        assert b"MSG other from another address\n" in busy[0].received[mark:]
        before = said(other)
        simulation.advance(10)
        per_client = [other.received.count(b"MSG busy%d " % n) for n in range(5)]
        assert 150 <= said(other) - before <= 250
        assert max(per_client) - min(per_client) <= 10, (
            "one client of an address is served at the cost of another"
        )


def test_clients_of_one_address_that_talk_at_the_same_moment_get_no_more_than_its_bytes():
    limits = {"address_bytes_per_s": 2_000, "address_burst_bytes": 8_000, "bytes_per_s": 0}
    limits |= {"lines_per_s": 1e6, "burst_lines": 10**6, "login_chunk_bytes": 100}
    with simulate(config(clients_per_address=100, **limits)) as simulation:
        crowd = log_in(simulation, *[f"crowd{n}" for n in range(50)], host="192.0.2.1")
        (listener,) = log_in(simulation, "listener", host="192.0.2.2")
        simulation.advance(10)
        for _ in range(2):
            for client in crowd:
                client.send_lines(*["MSG " + "x" * 95] * 40)
            simulation.run_until_idle()
            simulation.advance(20)
        # The burst, what has come back, and one chunk; those that still wait can have paid a burst and a chunk already.
        assert 100 * said(listener) <= 8_000 + 40 * 2_000 + 4_000
        assert 100 * said(listener) >= 40 * 2_000 - 8_000 - 4_000


def test_clients_of_many_addresses_of_one_network_get_no_more_than_its_bytes():
    limits = {"network_bytes_per_s": 2_000, "network_burst_bytes": 8_000, "bytes_per_s": 0}
    limits |= {"lines_per_s": 1e6, "burst_lines": 10**6, "login_chunk_bytes": 100, "address_bytes_per_s": 0}
    with simulate(config(**limits)) as simulation:
        crowd = [
            client for n in range(50) for client in log_in(simulation, f"crowd{n}", host=f"2001:db8:0:{n}::1")
        ]
        speaker, listener = log_in(simulation, "speaker", "listener", host="2001:db8:1::1")
        simulation.advance(10)
        for _ in range(2):
            for client in crowd:
                client.send_lines(*["MSG " + "x" * 95] * 40)
            simulation.run_until_idle()
            # Another network does not wait for them.
            speaker.send_lines("MSG " + "y" * 95)
            simulation.run_until_idle()
            assert b"speaker" in listener.received or b"y" * 95 in listener.received
            simulation.advance(20)
        assert 100 * said(listener) <= 8_000 + 40 * 2_000 + 4_000
        assert 100 * said(listener) >= 40 * 2_000 - 8_000 - 4_000


def test_a_newcomer_of_a_busy_address_can_log_in():
    limits = {"address_bytes_per_s": 100, "address_burst_bytes": 1_000, "bytes_per_s": 0}
    with simulate(config(lines_per_s=1e6, burst_lines=10**6, **limits)) as simulation:
        (busy,) = log_in(simulation, "busy")
        busy.send_lines(*["MSG " + "x" * 95] * 200)
        simulation.run_until_idle()
        newcomer = simulation.connect()
        newcomer.send_lines("LOGIN newcomer")
        simulation.run_until_idle()
        assert newcomer.received.startswith(b"OK\n")


def test_a_newcomer_of_a_busy_address_waits_for_what_it_asks():
    limits = {"address_bytes_per_s": 100, "address_burst_bytes": 20_000, "bytes_per_s": 0}
    with simulate(config(lines_per_s=1e6, burst_lines=10**6, **limits)) as simulation:
        (alice,) = log_in(simulation, "alice", host="127.0.0.2")
        alice.send_lines(*["MSG " + "x" * 1_000] * 10)
        simulation.run_until_idle()
        newcomers = [simulation.connect() for _ in range(10)]
        for number, newcomer in enumerate(newcomers):
            newcomer.send_lines(f"LOGIN p{number}", "HISTORY", "QUIT")
            simulation.run_until_idle()
        assert all(newcomer.received.startswith(b"OK\n") for newcomer in newcomers)
        answered = sum(1 for newcomer in newcomers if len(newcomer.received) > 10_000)
        assert 2 <= answered <= 3


def test_clients_that_come_and_go_do_not_silence_their_address_once_they_have_gone():
    limits = {"address_bytes_per_s": 20_000, "address_burst_bytes": 100_000}
    with simulate(config(**limits)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        for _ in range(500):
            client = simulation.connect()
            client._push(memoryview(b"x" * 8_000))
            simulation.run_until_idle()
            client.close()
            simulation.advance(0.05)
        # They were charged two megabytes, and half a megabyte has come back.
        simulation.advance(6)
        alice.send_lines(*["MSG " + "x" * 3_000] * 3, "MSG still here")
        simulation.run_until_idle()
        assert bob.received.endswith(b"MSG alice still here\n")


def test_a_read_that_completes_no_line_costs_as_much_as_a_line():
    limits = {"bytes_per_s": 32, "burst_bytes": 3_200, "address_bytes_per_s": 0}
    with simulate(config(**limits)) as simulation:
        (alice,) = log_in(simulation, "alice")
        simulation.advance(3_200)
        for _ in range(150):
            alice.send(b"x")
            simulation.run_until_idle()
        alice.send(b"\n")
        simulation.run_until_idle()
        assert alice.received == b""
        simulation.advance(10)
        assert alice.received.startswith(b"ERR")


def test_logins_of_one_address_have_a_rate_and_those_of_another_do_not_wait_for_it():
    limits = {"address_logins_per_s": 1, "address_burst_logins": 2}
    with simulate(config(**limits)) as simulation:
        log_in(simulation, "a", "b", host="192.0.2.1")
        waiting = [simulation.connect(host="192.0.2.1") for _ in range(3)]
        for n, client in enumerate(waiting):
            client.send_lines(f"LOGIN waiting{n}")
        simulation.run_until_idle()
        assert [bytes(client.received) for client in waiting] == [b""] * 3
        log_in(simulation, "other", host="192.0.2.2")
        for n in range(3):
            simulation.advance(1)
            assert sum(client.received.startswith(b"OK\n") for client in waiting) == n + 1


def test_a_failed_login_is_charged_as_well():
    with simulate(config(address_logins_per_s=1, address_burst_logins=2)) as simulation:
        client = simulation.connect()
        client.send_lines("LOGIN a b", "LOGIN a b", "LOGIN a b")
        simulation.run_until_idle()
        assert client.received == b"ERR invalid-username\n" * 2
        simulation.advance(1)
        assert client.received == b"ERR invalid-username\n" * 3


def test_a_rate_of_zero_lines_turns_off_every_rate():
    limits = {
        "bytes_per_s": 1,
        "burst_bytes": 1,
        "address_bytes_per_s": 1,
        "address_burst_bytes": 1,
        "address_logins_per_s": 0.001,
        "address_burst_logins": 1,
        "address_connections_per_s": 0.001,
        "address_burst_connections": 1,
    }
    with simulate(config(lines_per_s=0, burst_lines=1, **limits)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines(*["MSG " + "x" * 95] * 1_000)
        simulation.run_until_idle()
        assert said(bob) == 1_000
        assert simulation.now_us == 0


# --- Login and idleness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [[], ["PING"], ["LOGIN a b"]], ids=["silent", "talking", "failing"])
def test_a_client_has_to_log_in_in_time(lines: list[str]):
    with simulate(config(login_s=60)) as simulation:
        client = simulation.connect()
        for _ in range(59):
            client.send_lines(*lines)
            simulation.advance(1)
        simulation.advance_to(59_999_999)
        assert client.state is State.OPEN
        simulation.advance_to(60_000_000)
        assert (client.state, client.ended_us) == (State.FIN, 60_000_000)
        assert client.received.endswith(b"INFO idle-timeout\n")


def test_without_a_deadline_a_client_can_stay_unnamed_for_ever():
    with simulate(config(login_s=0)) as simulation:
        client = simulation.connect()
        simulation.advance(1_000_000)
        assert client.state is State.OPEN


def test_a_client_that_waits_for_the_login_rate_still_has_to_log_in_in_time():
    limits = {"address_logins_per_s": 0.001, "address_burst_logins": 1, "login_s": 60}
    with simulate(config(**limits)) as simulation:
        log_in(simulation, "first")
        client = simulation.connect()
        client.send_lines("LOGIN second")
        simulation.advance(60)
        assert client.state is State.FIN


def test_lines_that_arrived_while_the_process_stood_still_are_handled():
    with simulate(config(idle_s=60)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        simulation.advance(59)
        alice.send(b"MSG in time\n")
        simulation.stand_still(3_600)
        simulation.advance(0)
        assert b"MSG alice in time\n" in bob.received
        assert alice.state is State.OPEN
        assert bob.state is State.FIN
        assert bob.received.endswith(b"INFO idle-timeout\n")


def test_half_a_line_that_arrived_while_the_process_stood_still_is_not_activity():
    with simulate(config(idle_s=60)) as simulation:
        (alice,) = log_in(simulation, "alice")
        simulation.advance(59)
        alice.send(b"MSG not finished")
        simulation.stand_still(3_600)
        simulation.advance(0)
        assert alice.state is State.FIN


def test_a_telnet_that_only_asks_for_timing_marks_is_idle():
    with simulate(config(idle_s=60)) as simulation:
        (alice,) = log_in(simulation, "alice")
        for _ in range(6):
            assert alice.state is State.OPEN
            alice.send(b"\xff\xfd\x06")
            simulation.advance(10)
        assert alice.received.endswith(6 * b"\xff\xfb\x06" + b"INFO idle-timeout\n")
        assert alice.state is State.FIN


def test_a_client_that_never_pauses_and_never_finishes_a_line_is_idle():
    with simulate(config(idle_s=60, lines_per_s=0)) as simulation:
        client = simulation.connect()
        simulation.run_until_idle()
        simulation.stand_still(60)
        sent = 0

        def flood() -> None:
            nonlocal sent
            while sent < 20_000_000 and not client.received:
                client.read()
                sent += client._push(memoryview(b"x" * 10_000)) or 0
                gevent.sleep(0)

        flooding = gevent.spawn(flood)
        simulation.advance(0)
        assert flooding.ready()
        assert client.received == b"INFO idle-timeout\n"
        assert sent < 1_000_000


def test_a_client_that_is_slowed_down_by_its_rate_is_not_idle_meanwhile():
    with simulate(config(idle_s=10, **RATED)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines(*[f"MSG {n}" for n in range(219)])
        for _ in range(20):
            simulation.advance(1)
            bob.send_lines("PING")
        assert said(bob) == 219
        assert alice.state is State.OPEN
        simulation.advance(10)
        assert alice.state is State.FIN


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_a_client_that_reads_no_answers_is_not_read_until_it_does():
    with simulate(config(lines_per_s=0, answer_bytes=10_000)) as simulation:
        client = simulation.connect(buffer_bytes=4_096)
        client.send_lines("LOGIN alice")
        simulation.run_until_idle()
        client.stop_reading()
        sent = 0
        while client.try_send_line(f"PING {sent:06d}"):
            sent += 1
            simulation.run_until_idle()
        connection = next(iter(simulation.server._connections.open.values()))
        assert 10_000 < connection._subscriber.unsent_answer_bytes < 10_000 + 16_384 + 1_000
        client.resume_reading()
        simulation.run_until_idle()
        assert client.received == b"OK\n" + b"".join(b"PONG %06d\n" % n for n in range(sent))


def test_a_login_is_not_charged_for_the_list_it_is_answered_with():
    limits = {"bytes_per_s": 100, "burst_bytes": 200, "address_bytes_per_s": 0}
    listen = (Listen("json", "127.0.0.1", 0),)
    with simulate(Config(listen=listen, idle_s=0, limits=Limits(**limits))) as simulation:
        for n in range(100):
            client = simulation.connect("json")
            client.send_lines(f'{{"type": "join", "username": "somebody-{n}"}}')
        simulation.run_until_idle()
        taken(client)
        client.send_lines('{"type": "ping"}')
        simulation.run_until_idle()
        assert client.received == b'{"type": "pong"}\n'


def test_what_clients_are_sent_at_their_login_costs_their_address_nothing():
    limits = Limits(address_bytes_per_s=1, address_burst_bytes=20_000)
    with replaying(limits) as (simulation, clients):
        assert [client.received.count(b'"chat"') for client in clients] == [15] * 3
        for client in clients:
            taken(client)
            client.send_lines('{"type": "ping"}')
        simulation.run_until_idle()
        assert [b'"pong"' in client.received for client in clients] == [True] * 3


def test_the_search_for_what_clients_have_missed_costs_their_address_nothing_at_their_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The simulated loop knows no threads.
    monkeypatch.setattr("geventchat.server.in_thread", lambda work: work())
    rooms = {"lobby": 0, **{f"room{n}": 0 for n in range(10)}}
    limits = Limits(address_bytes_per_s=1, address_burst_bytes=12_000)
    listen = (Listen("json", "127.0.0.1", 0),)
    with simulate(Config(listen=listen, idle_s=0, data=str(tmp_path / "data"))) as simulation:
        alice = simulation.connect("json", host="192.0.2.9")
        asks(simulation, alice, {"type": "join", "v": 2, "username": "alice", "rooms": rooms})
        for room in rooms:
            asks(simulation, alice, {"type": "chat", "room": room, "message": "hi"})
    with simulate(Config(listen=listen, idle_s=0, limits=limits, data=str(tmp_path / "data"))) as simulation:
        clients = [simulation.connect("json") for _ in range(3)]
        for n, client in enumerate(clients):
            join = {"type": "join", "v": 2, "username": f"bob{n}", "rooms": rooms}
            assert asks(simulation, client, join).count('"chat"') == 11
        assert all("pong" in asks(simulation, client, {"type": "ping"}) for client in clients)
        # Later it costs as much as any other lookup.
        for client in clients:
            for room in rooms:
                asks(simulation, client, {"type": "leave", "room": room})
                asks(simulation, client, {"type": "enter", "room": room, "after": 0})
        assert "pong" not in asks(simulation, clients[0], {"type": "ping"})


@pytest.mark.parametrize("whose", ["bytes", "address"])
def test_what_a_client_has_missed_costs_a_quarter_of_an_answer(whose: str):
    limits = Limits(bytes_per_s=1, burst_bytes=20_000)
    if whose == "address":
        # Alice has used up the rest.
        limits = Limits(address_bytes_per_s=1, address_burst_bytes=20_000 + 15_000)
    with replaying(limits) as (simulation, clients):
        client, replay = clients[0], len(clients[0].received)
        times = 0
        while client.received:
            taken(client)
            client.send_lines('{"type": "leave", "room": "lobby"}')
            client.send_lines('{"type": "enter", "room": "lobby", "after": 0}')
            simulation.run_until_idle()
            times += b'"chat"' in client.received
        assert 4 * 20_000 / replay - 1 < times < 4 * 20_000 / replay + 1


@contextmanager
def replaying(limits: Limits) -> Iterator[tuple[Simulation, list[SimulatedClient]]]:
    """Three clients that are sent at their login what they have missed: fifteen messages of a thousand characters."""
    listen = (Listen("line", "127.0.0.1", 0), Listen("json", "127.0.0.1", 0))
    with simulate(Config(listen=listen, idle_s=0, limits=limits)) as simulation:
        (alice,) = log_in(simulation, "alice")
        alice.send_lines(*["MSG " + "x" * 1_000] * 15)
        simulation.run_until_idle()
        clients = [simulation.connect("json") for _ in range(3)]
        for n, client in enumerate(clients):
            client.send_lines(f'{{"type": "join", "v": 2, "username": "bob{n}", "rooms": {{"lobby": 0}}}}')
        simulation.run_until_idle()
        yield simulation, clients


def test_every_answer_is_sent_before_the_connection_closes():
    with simulate(config(lines_per_s=0)) as simulation:
        client = simulation.connect(buffer_bytes=4_096)
        client.stop_reading()
        client.send_lines("LOGIN alice", *["PING " + "x" * 90] * 300, "QUIT")
        simulation.run_until_idle()
        client.resume_reading()
        simulation.run_until_idle()
        assert client.received == b"OK\n" + (b"PONG " + b"x" * 90 + b"\n") * 300 + b"Goodbye!\n"
        assert client.state is State.FIN


def test_a_client_that_does_not_read_its_last_answers_is_dropped_after_a_while():
    with simulate(config(lines_per_s=0, flush_s=10)) as simulation:
        (bob,) = log_in(simulation, "bob")
        client = simulation.connect(buffer_bytes=4_096)
        client.stop_reading()
        client.send_lines("LOGIN alice", *["PING " + "x" * 90] * 300, "QUIT")
        simulation.run_until_idle()
        assert b"INFO alice disconnected\n" in bob.received
        simulation.advance(9.9)
        assert simulation.server.clients == 2
        simulation.advance(0.1)
        assert simulation.server.clients == 1
        assert simulation.logged["slow"] == 1


def test_a_connection_beyond_the_slots_of_its_address_is_refused():
    with simulate(config(clients_per_address=2)) as simulation:
        log_in(simulation, "a", "b")
        refused = simulation.connect()
        simulation.run_until_idle()
        assert refused.received == b"ERR too-many-connections\n"
        assert refused.state is State.FIN


@pytest.mark.parametrize("way", ["refused", "quit"])
def test_a_client_that_does_not_close_its_side_lingers_for_a_second(way: str):
    with simulate(config(clients_per_address=1, linger_s=1)) as simulation:
        (client,) = log_in(simulation, "alice")
        if way == "quit":
            client.stop_reading()
            client.send_lines("QUIT")
        else:
            client = simulation.connect()
            client.stop_reading()
        connection = connection_of(simulation, -1)
        simulation.advance(0.9)
        assert connection_of(simulation, -1) is connection
        simulation.advance(0.1)
        assert simulation.server.clients == (0 if way == "quit" else 1)


@pytest.mark.parametrize("way", ["refused", "quit"])
def test_a_client_that_goes_on_sending_while_it_is_disconnected_is_read_no_further_than_a_burst(way: str):
    limits = {"clients_per_address": 1, "burst_bytes": 10_000, "chunk_bytes": 1_000, "linger_s": 1}
    with simulate(config(**limits)) as simulation:
        if way == "quit":
            (client,) = log_in(simulation, "alice")
            client.stop_reading()
            client.send_lines("QUIT")
        else:
            log_in(simulation, "alice")
            client = simulation.connect()
            client.stop_reading()
        connection = connection_of(simulation, -1)
        client._push(memoryview(b"x" * 50_000))
        simulation.run_until_idle()
        assert 39_000 <= unread(connection._transport) <= 40_000
        simulation.advance(0.9)
        assert connection_of(simulation, -1) is connection, "it had no time to read"
        simulation.advance(0.1)
        assert simulation.server.clients == (0 if way == "quit" else 1)


@pytest.mark.parametrize("when", ["before it gets the reason", "while it lingers"])
def test_a_refused_client_that_breaks_off_is_not_logged_as_disconnected(when: str):
    limits = {"clients_per_address": 1, "burst_bytes": 1_000, "linger_s": 1}
    with simulate(config(**limits)) as simulation:
        log_in(simulation, "alice")
        client = simulation.connect()
        client._push(memoryview(b"x" * 5_000))
        if when == "while it lingers":
            client.stop_reading()
            simulation.run_until_idle()
        client.close()
        simulation.advance(1)
        assert simulation.server.clients == 1
        assert simulation.logged["refused"] == 1
        assert simulation.logged["disconnected"] == 0


def test_a_client_that_breaks_off_while_it_lingers_is_logged_with_the_first_reason():
    with simulate(config(burst_bytes=1_000, linger_s=1)) as simulation:
        (client,) = log_in(simulation, "alice")
        client.stop_reading()
        client.send_lines("QUIT")
        simulation.run_until_idle()
        client._push(memoryview(b"x" * 5_000))
        simulation.run_until_idle()
        client.close()
        simulation.run_until_idle()
        assert simulation.server.clients == 0
        assert simulation.logged["quit"] == simulation.logged["disconnected"] == 1


# --- What is held, and what is handled at a time ---------------------------------------------------------------------


def connection_of(simulation: Simulation, index: int) -> Any:
    return list(simulation.server._connections.open.values())[index]


def unread(sock: socket.socket) -> int:
    return int.from_bytes(ioctl(sock.fileno(), FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize(("logged_in", "most"), [(True, 16_384), (False, 4_096)])
def test_a_client_that_waits_for_its_rate_holds_one_chunk(logged_in: bool, most: int):
    with simulate(config(bytes_per_s=1, burst_bytes=100)) as simulation:
        client = log_in(simulation, "alice")[0] if logged_in else simulation.connect()
        sock = connection_of(simulation, 0)._transport
        client._push(memoryview(b"x" * 30_000))
        simulation.run_until_idle()
        assert unread(sock) == 30_000 - most


@pytest.mark.parametrize("line", ["x", "x" * 500])
def test_lines_are_handled_in_bounded_batches(line: str, monkeypatch: pytest.MonkeyPatch):
    batches: list[tuple[int, int]] = []
    handle = Chat.handle

    def recording(self: Chat, session: Session, command: Command) -> Any:
        if isinstance(command, Say):
            batches.append((len(command.texts), sum(len(f"MSG {text}\n") for text in command.texts)))
        return handle(self, session, command)

    monkeypatch.setattr(Chat, "handle", recording)
    with simulate(config(lines_per_s=0)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines(*[f"MSG {line}"] * 2_000)
        simulation.run_until_idle()
        assert said(bob) == 2_000
    assert all(lines <= 64 for lines, _ in batches)
    # A batch can begin with the rest of a line that the batch before had begun.
    assert all(size <= 8_192 + len(line) for _, size in batches)


def test_blank_lines_are_lines_too():
    with simulate(config(**RATED)) as simulation:
        alice, bob = log_in(simulation, "alice", "bob")
        alice.send_lines(*[""] * 50, "MSG hi")
        simulation.run_until_idle()
        assert said(bob) == 0
        simulation.advance(4)
        assert said(bob) == 1


def test_faults_are_logged_within_the_limit_of_their_address(monkeypatch: pytest.MonkeyPatch):
    def faulty(self: Chat, session: Session, command: Command) -> Any:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Chat, "handle", faulty)
    with simulate(config(address_burst_log_lines=30)) as simulation:
        for _ in range(50):
            client = simulation.connect()
            client.send_lines("PING")
            simulation.run_until_idle()
        events = simulation.logged["connected"] + simulation.logged["disconnected"] + len(simulation.faults)
        assert events == 30
        simulation.faults.clear()
