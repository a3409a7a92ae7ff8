"""Admission: slots in total and per address, connection rates, connections that linger, descriptors."""

from __future__ import annotations

import resource

import gevent
import pytest

from geventchat.chat.events import NoticeReason
from geventchat.net.admission import Address, Admission, fit_to_descriptors, origin_of
from geventchat.settings import Limits
from tests.geventchat.manual_clock import ManualClock


def admission(clock: ManualClock | None = None, **limits: float) -> Admission:
    return Admission(gevent.get_hub(), clock or ManualClock(), Limits(**limits))


def entered(door: Admission, host: str) -> Address:
    address = door.enter(host)
    assert isinstance(address, Address), address
    return address


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("fe80::2%eth1", "fe80::"),
        # Addresses into which a router translates IPv4 are not taken apart: all of them count as one.
        ("::ffff:0:192.0.2.7", "::"),
        ("::192.0.2.7", "::"),
        ("64:ff9b::192.0.2.7", "64:ff9b::"),
        ("::1", "::"),
        ("", ""),
        ("a socket pair", "a socket pair"),
    ],
)
def test_an_origin_is_one_ipv4_address_or_one_64_of_ipv6(host: str, origin: str):
    assert origin_of(host) == origin


def test_slots_are_counted_and_freed():
    admitted = admission(clients=3, clients_per_address=2)
    first, second = entered(admitted, "192.0.2.1"), entered(admitted, "192.0.2.1")
    assert first is second
    assert admitted.enter("192.0.2.1") is NoticeReason.ADDRESS_FULL
    other = entered(admitted, "192.0.2.2")
    assert admitted.enter("192.0.2.3") is NoticeReason.SERVER_FULL
    assert admitted.connected == 3
    admitted.leave(first)
    assert entered(admitted, "192.0.2.1") is first
    for address in (first, second, other):
        admitted.leave(address)
    assert admitted.connected == first.connections == other.connections == 0
    assert isinstance(admitted.enter("192.0.2.3"), Address)


def test_connections_of_one_address_have_a_rate_and_those_of_another_are_unaffected():
    clock = ManualClock()
    admitted = admission(clock, address_connections_per_s=2, address_burst_connections=3)
    for _ in range(3):
        admitted.leave(entered(admitted, "192.0.2.1"))
    assert admitted.enter("192.0.2.1") is NoticeReason.ADDRESS_FULL
    assert isinstance(admitted.enter("192.0.2.2"), Address)
    clock.now += 0.5
    assert isinstance(admitted.enter("192.0.2.1"), Address)
    assert admitted.enter("192.0.2.1") is NoticeReason.ADDRESS_FULL


def test_a_refused_connection_takes_no_slot():
    admitted = admission(clients_per_address=1, address_connections_per_s=1, address_burst_connections=1)
    address = entered(admitted, "192.0.2.1")
    assert admitted.enter("192.0.2.1") is NoticeReason.ADDRESS_FULL
    admitted.leave(address)
    assert admitted.enter("192.0.2.1") is NoticeReason.ADDRESS_FULL
    assert admitted.connected == address.connections == 0


def test_without_a_rate_of_lines_connections_have_none_either():
    limits = Limits(lines_per_s=0, address_connections_per_s=1, address_burst_connections=1)
    admitted = Admission(gevent.get_hub(), ManualClock(), limits.without_rates())
    for _ in range(50):
        entered(admitted, "192.0.2.1")


def test_an_address_is_forgotten_once_its_rates_have_recovered():
    clock = ManualClock()
    admitted = admission(clock, address_connections_per_s=1, address_burst_connections=5)
    for n in range(100):
        admitted.leave(entered(admitted, f"192.0.2.{n}"))
    assert len(admitted._addresses) == 100
    clock.now += 0.5
    # Two departed addresses are looked at for each new connection.
    staying = entered(admitted, "198.51.100.1")
    assert len(admitted._addresses) == 101
    clock.now += 0.5
    for _ in range(100):
        admitted.leave(entered(admitted, "203.0.113.1"))
        clock.now += 1
    assert set(admitted._addresses) <= {"198.51.100.1", "203.0.113.1"}
    assert admitted._addresses["198.51.100.1"] is staying


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::{n:x}"])
def test_an_address_that_comes_and_goes_is_remembered_once(host: str):
    admitted = admission(address_burst_connections=60_000, network_burst_connections=60_000)
    for n in range(60_000):
        admitted.leave(entered(admitted, host.format(n=n)))
    assert len(admitted._addresses) == len(admitted._departed) == 1


def test_sixty_thousand_addresses_are_remembered_no_longer_than_their_rates_need():
    clock = ManualClock()
    admitted = admission(clock, network_connections_per_s=0)
    for n in range(60_000):
        address = entered(admitted, f"2001:db8:0:{n:x}::1")
        address.charge_login()
        admitted.leave(address)
        clock.now += 0.001
        # A login has recovered after 0.2 s, and is found so within another 0.1 s.
        assert len(admitted._addresses) == len(admitted._departed) <= 310
    clock.now += 1
    for _ in range(310):
        admitted.leave(entered(admitted, "192.0.2.1"))
        clock.now += 1
    assert set(admitted._addresses) == {"192.0.2.1"}


@pytest.mark.parametrize(
    ("hosts", "stranger"),
    [
        (["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3"], "192.0.3.1"),
        (["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"], "2001:db8:1:1::1"),
    ],
)
def test_connections_of_a_network_are_counted_together(hosts: list[str], stranger: str):
    admitted = admission(clients_per_network=2)
    first, second = (entered(admitted, host) for host in hosts[:2])
    assert admitted.enter(hosts[2]) is NoticeReason.ADDRESS_FULL
    assert isinstance(admitted.enter(stranger), Address)
    admitted.leave(first)
    assert entered(admitted, hosts[2]).network is second.network


def test_connections_of_a_network_have_a_rate():
    clock = ManualClock()
    admitted = admission(clock, network_connections_per_s=2, network_burst_connections=3)
    for n in range(3):
        admitted.leave(entered(admitted, f"192.0.2.{n}"))
    assert admitted.enter("192.0.2.4") is NoticeReason.ADDRESS_FULL
    assert isinstance(admitted.enter("192.0.3.1"), Address)
    clock.now += 0.5
    assert isinstance(admitted.enter("192.0.2.5"), Address)
    assert admitted.enter("192.0.2.6") is NoticeReason.ADDRESS_FULL


@pytest.mark.parametrize("host", ["127.0.0.{n}", "::1", "uid:{n}"])
def test_this_machine_is_in_no_network(host: str):
    admitted = admission(clients_per_network=1, network_connections_per_s=1, network_burst_connections=1)
    for n in range(1, 5):
        entered(admitted, host.format(n=n))


def test_an_address_that_is_refused_for_its_network_is_forgotten():
    clock = ManualClock()
    admitted = admission(clock, clients_per_network=1)
    entered(admitted, "192.0.2.1")
    for n in range(2, 100):
        assert admitted.enter(f"192.0.2.{n}") is NoticeReason.ADDRESS_FULL
        clock.now += 1
    assert len(admitted._addresses) < 5
    assert len(admitted._networks) == 1


def test_a_network_is_forgotten_once_its_addresses_are_and_its_rates_have_recovered():
    clock = ManualClock()
    admitted = admission(clock, network_connections_per_s=0.1, network_burst_connections=5)
    for n in range(100):
        admitted.leave(entered(admitted, f"198.51.{n}.1"))
    assert len(admitted._networks) == 100
    clock.now += 5
    staying = entered(admitted, "203.0.113.1")
    for _ in range(100):
        assert isinstance(admitted.enter("127.0.0.1"), Address)
    # Their addresses are forgotten by now.
    assert len(admitted._addresses) == 2
    assert len(admitted._networks) == 101
    clock.now += 5
    for _ in range(100):
        assert isinstance(admitted.enter("127.0.0.1"), Address)
    assert list(admitted._networks.values()) == [staying.network]
    assert not admitted._departed_networks


def test_an_address_that_comes_back_before_it_is_forgotten_keeps_its_rates():
    clock = ManualClock()
    admitted = admission(clock, address_connections_per_s=0.001, address_burst_connections=2)
    first = entered(admitted, "192.0.2.1")
    admitted.leave(first)
    entered(admitted, "192.0.2.2")
    assert entered(admitted, "192.0.2.1") is first
    assert admitted.enter("192.0.2.1") is NoticeReason.ADDRESS_FULL


def test_the_number_of_lingering_connections_is_bounded():
    admitted = admission(lingering=1)
    assert admitted.reserve_linger()
    assert not admitted.reserve_linger()
    admitted.free_linger()
    assert admitted.reserve_linger()


def test_fewer_clients_are_allowed_where_descriptors_are_few(monkeypatch: pytest.MonkeyPatch):
    limits = Limits(clients=1_000, lingering=100)
    for soft, clients, lingering in (
        (resource.RLIM_INFINITY, 1_000, 100),
        (1_164, 1_000, 100),
        (1_163, 1_027, 72),
        (120, 49, 7),
        (10, 1, 0),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        fitted = fit_to_descriptors(limits)
        assert fitted.clients == min(1_000, clients)
        assert fitted.lingering == lingering
