"""The addresses of one network share its limits, and other networks are not affected; in virtual time, behind a proxy."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from geventchat import Config, Limits, Listen
from geventchat.log import LogEvent
from tests.fire.clients import State
from tests.fire.leaks import leftovers
from tests.fire.simulation import SimulatedClient, Simulation, simulate

PROXY = "10.0.0.1"
PASSWORD = "correct horse battery"
CROWD = [f"192.0.2.{number}" for number in range(40)]
CROWD_V6 = [f"2001:db8:0:{number:x}::1" for number in range(40)]
ELSEWHERE = {"192.0.2.0": "198.51.100.1", "2001:db8:0:0::1": "2001:db8:1:0::1"}
EACH_FAMILY = pytest.mark.parametrize("crowd", [CROWD, CROWD_V6], ids=["IPv4", "IPv6"])


def config(**limits: Any) -> Config:
    proxies = (ip_network("10.0.0.0/24"),)
    listen = (Listen("line", "127.0.0.1", 0),)
    return Config(listen=listen, idle_s=0, proxy_from=proxies, limits=Limits(**limits))


def come(simulation: Simulation, source: str, *lines: str) -> SimulatedClient:
    """A client for which the proxy claims this address, and what it says."""
    client = simulation.connect(host=PROXY)
    family = "TCP6 {} ::1" if ":" in source else "TCP4 {} 10.0.0.1"
    client.send(f"PROXY {family.format(source)} 50000 4000\r\n".encode())
    client.send_lines(*lines)
    simulation.run_until_idle()
    return client


def answers(client: SimulatedClient) -> list[bytes]:
    """What it was answered, without what others say and do."""
    return [line for line in bytes(client.received).split(b"\n") if line[:2] in {b"OK", b"ER"}]


@EACH_FAMILY
def test_the_addresses_of_a_network_register_a_limited_number_of_accounts_together(crowd: list[str]):
    with simulate(config(network_burst_accounts=8, network_accounts_per_min=2)) as simulation:
        for number, source in enumerate(crowd):
            come(simulation, source, f"LOGIN a{number}", f"REGISTER {PASSWORD}")
        assert len(simulation.context.chat._accounts) == 8
        other = come(simulation, ELSEWHERE[crowd[0]], "LOGIN other", f"REGISTER {PASSWORD}")
        assert answers(other) == [b"OK", b"OK"]
        refused = come(simulation, crowd[0], "LOGIN late", f"REGISTER {PASSWORD}")
        assert answers(refused) == [b"OK", b"ERR too-many-attempts"]
        simulation.advance(30)
        refused.send_lines(f"REGISTER {PASSWORD}")
        simulation.run_until_idle()
        assert answers(refused)[2:] == [b"OK"]


@EACH_FAMILY
def test_the_addresses_of_a_network_create_a_limited_number_of_rooms_together(crowd: list[str]):
    with simulate(config(network_burst_rooms=8, network_rooms_per_min=2)) as simulation:
        for number, source in enumerate(crowd):
            come(simulation, source, f"LOGIN a{number}", f"JOIN room{number}")
        # The lobby is one more.
        assert len(simulation.context.chat.rooms) == 9
        other = come(simulation, ELSEWHERE[crowd[0]], "LOGIN other", "JOIN elsewhere")
        assert answers(other) == [b"OK", b"OK"]
        refused = come(simulation, crowd[0], "LOGIN late", "JOIN late", "JOIN room1")
        assert answers(refused) == [b"OK", b"ERR too-many-rooms", b"OK"]
        simulation.advance(30)
        refused.send_lines("JOIN late")
        simulation.run_until_idle()
        assert answers(refused)[3:] == [b"OK"]


@EACH_FAMILY
def test_the_addresses_of_a_network_log_in_at_a_rate_together_and_those_of_another_do_not_wait_for_it(
    crowd: list[str],
):
    with simulate(config(network_logins_per_s=2, network_burst_logins=10)) as simulation:
        # The first address has as many that wait as all others together, and they take turns with the others.
        waiting = [come(simulation, crowd[0], f"LOGIN first{number}") for number in range(40)]
        waiting += [come(simulation, source, f"LOGIN p{number}") for number, source in enumerate(crowd[1:])]
        assert sum(bool(answers(client)) for client in waiting) == 10
        other = come(simulation, ELSEWHERE[crowd[0]], "LOGIN other")
        assert answers(other) == [b"OK"]
        simulation.advance(20)
        assert sum(bool(answers(client)) for client in waiting[40:]) == 39
        assert sum(bool(answers(client)) for client in waiting[:40]) == 11
        simulation.advance(15)
        assert all(answers(client) == [b"OK"] for client in waiting)


def test_a_network_that_logs_in_and_out_gets_no_more_logins_than_its_rate():
    with simulate(config(network_logins_per_s=2, network_burst_logins=10)) as simulation:
        for number in range(120):
            come(simulation, CROWD[number % 40], f"LOGIN p{number}", "QUIT")
            simulation.advance(0.25)
        logins = simulation.context.chat.logins
        assert 10 + 2 * 29 <= logins <= 10 + 2 * 30
        come(simulation, ELSEWHERE[CROWD[0]], "LOGIN other")
        assert simulation.context.chat.logins == logins + 1


@pytest.mark.parametrize("end", [SimulatedClient.close, SimulatedClient.half_close])
def test_a_client_that_goes_while_it_waits_for_its_network_holds_nothing_up(end: Any):
    with simulate(config(network_logins_per_s=1, network_burst_logins=1)) as simulation:
        first = come(simulation, CROWD[0], "LOGIN first")
        gone = [come(simulation, source, "LOGIN gone") for source in CROWD[1:]]
        stays = come(simulation, CROWD[1], "LOGIN stays")
        for client in gone:
            end(client)
        simulation.run_until_idle()
        assert len(simulation.server._connections.open) == 2
        simulation.advance(1)
        assert answers(stays) == [b"OK"]
        assert not simulation.context.admission._networks["192.0.2.0/24"].login_gate._waiting
        for client in (first, stays):
            client.send_lines("QUIT")
        simulation.run_until_idle()
        simulation.advance(10)
        assert not leftovers(simulation)


def test_a_client_that_waits_for_its_network_still_has_to_log_in_in_time():
    with simulate(config(network_logins_per_s=0.001, network_burst_logins=1, login_s=60)) as simulation:
        come(simulation, CROWD[0], "LOGIN first")
        second = come(simulation, CROWD[1], "LOGIN second")
        simulation.advance(59)
        assert second.state is State.OPEN
        simulation.advance(1)
        assert second.state is State.FIN


@pytest.mark.parametrize("end", [SimulatedClient.close, lambda client: None], ids=["closed", "too late"])
def test_an_address_loses_no_logins_to_clients_that_wait_in_vain_for_its_network(end: Any):
    limits = {"network_logins_per_s": 0.001, "network_burst_logins": 1, "login_s": 60}
    limits |= {"address_logins_per_s": 0.001, "address_burst_logins": 2}
    with simulate(config(**limits)) as simulation:
        come(simulation, CROWD[0], "LOGIN first")
        for _ in range(3):
            waiting = [come(simulation, CROWD[1], "LOGIN honest") for _ in range(3)]
            address = simulation.context.admission._addresses[CROWD[1]]
            # The third waits for the other two.
            assert address.reserved_logins == 2
            for client in waiting:
                end(client)
            simulation.advance(60)
            assert [answers(client) for client in waiting] == [[]] * 3
            assert not address.reserved_logins
        # The flood is over.
        simulation.context.admission.network_rates.logins.change(0, 0)
        names = ("LOGIN honest", "LOGIN second", "LOGIN third")
        clients = [come(simulation, CROWD[1], line) for line in names]
        assert [answers(client) for client in clients] == [[b"OK"], [b"OK"], []]


def test_an_address_whose_logins_all_wait_for_its_network_goes_on_with_the_next_when_one_of_them_ends():
    with simulate(
        config(network_logins_per_s=1, network_burst_logins=1, address_burst_logins=1)
    ) as simulation:
        come(simulation, CROWD[0], "LOGIN first")
        waits = come(simulation, CROWD[1], "LOGIN waits")
        later = come(simulation, CROWD[1], "LOGIN later")
        waits.close()
        simulation.advance(1)
        assert answers(later) == [b"OK"]
        third = come(simulation, CROWD[1], "LOGIN third")
        simulation.advance(1)
        assert answers(third) == [b"OK"]


def test_the_addresses_of_a_network_write_a_limited_number_of_lines_to_the_log_together():
    logged: list[tuple[LogEvent, dict[str, object]]] = []
    limits = {"network_burst_log_lines": 30, "network_log_lines_per_s": 1}
    with simulate(config(**limits)) as simulation:
        simulation.context.log._log = lambda event, /, **fields: logged.append((event, fields))
        for number, source in enumerate(CROWD):
            come(simulation, source, f"LOGIN p{number}", "QUIT").close()
        assert len(logged) == 30
        come(simulation, ELSEWHERE[CROWD[0]], "LOGIN other")
        assert [event for event, _ in logged[30:]] == [LogEvent.CONNECTED, LogEvent.LOGIN]
        simulation.advance(1)
        simulation.context.log(LogEvent.ACCEPT_RESUMED)
        dropped = 3 * len(CROWD) - 30
        assert logged[32] == (LogEvent.LOG_SUPPRESSED, {"network": "192.0.2.0/24", "events": dropped})


@pytest.mark.parametrize(
    "rates", [{"lines_per_s": 0}, {"network_logins_per_s": 0, "network_rooms_per_min": 0}]
)
def test_a_rate_of_zero_turns_the_limits_of_a_network_off(rates: dict[str, float]):
    limits = {"network_burst_logins": 1, "network_burst_rooms": 1, **rates}
    with simulate(config(**limits)) as simulation:
        for number, source in enumerate(CROWD):
            client = come(simulation, source, f"LOGIN p{number}", f"JOIN room{number}")
            assert answers(client) == [b"OK", b"OK"]
