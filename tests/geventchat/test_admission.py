"""Admission: slots in total and per address, connection rates, connections that linger, descriptors."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

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


def log_in(address: Address) -> None:
    """Log in without having to wait."""
    address.wait_for_login(NeverWaits(), "")


def can_log_in(address: Address) -> bool:
    """Log in if that is possible without having to wait."""
    if not (address.login_gate.is_open() and address.network.login_gate.is_open()):
        return False
    log_in(address)
    return True


class NeverWaits:
    def until_passed(self, watcher: Any) -> None:
        raise AssertionError("a login has to wait")


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
    admitted = admission(clock, network_connections_per_s=0, network_logins_per_s=0)
    for n in range(60_000):
        address = entered(admitted, f"2001:db8:0:{n:x}::1")
        log_in(address)
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


@pytest.mark.parametrize(
    ("hosts", "stranger"),
    [
        (["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3"], "192.0.3.1"),
        (["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"], "2001:db8:1:1::1"),
    ],
)
@pytest.mark.parametrize("used_up", [Address.create_room, Address.register])
def test_what_one_address_uses_up_is_missing_in_its_network_and_nowhere_else(
    hosts: list[str], stranger: str, used_up: Callable[[Address], bool]
):
    clock = ManualClock()
    rates = {"network_rooms_per_min": 1, "network_accounts_per_min": 1}
    admitted = admission(clock, network_burst_rooms=2, network_burst_accounts=2, **rates)
    first, second, third = (entered(admitted, host) for host in hosts)
    assert [used_up(one) for one in (first, second, third, third)] == [True, True, False, False]
    assert used_up(entered(admitted, stranger))
    clock.now += 60
    assert [used_up(one) for one in (third, first)] == [True, False]


def test_what_the_network_refuses_is_not_charged_to_the_address_nor_the_other_way_round():
    clock = ManualClock()
    rates = {"network_rooms_per_min": 1, "address_rooms_per_min": 0.5}
    admitted = admission(clock, network_burst_rooms=2, address_burst_rooms=1, **rates)
    first, second, third = (entered(admitted, f"192.0.2.{n}") for n in range(3))
    assert [one.create_room() for one in (first, first, first)] == [True, False, False]
    assert second.create_room()
    for _ in range(100):
        assert not third.create_room()
    clock.now += 60
    assert third.create_room()


@pytest.mark.parametrize(
    "used_up",
    [Address.create_room, Address.register, Address.connect, can_log_in],
    ids=lambda one: one.__name__,
)
def test_what_an_address_and_its_network_have_used_up_is_handed_over(used_up: Callable[[Address], bool]):
    clock = ManualClock()
    limits = {"address_burst_rooms": 2, "address_burst_accounts": 2, "address_burst_connections": 2}
    limits |= {"network_burst_rooms": 3, "network_burst_accounts": 3, "network_burst_connections": 3}
    limits |= {"address_burst_logins": 2, "network_burst_logins": 3}
    before, after = admission(clock, **limits), admission(clock, **limits)
    address = before.adopt("192.0.2.1")
    assert used_up(address)
    assert used_up(address)
    after.take_state(before.to_state())
    assert not used_up(after.adopt("192.0.2.1"))
    assert used_up(after.adopt("192.0.2.2"))
    assert not used_up(after.adopt("192.0.2.3"))


def test_a_network_is_remembered_until_it_can_register_as_many_accounts_again():
    clock = ManualClock()
    admitted = admission(clock, network_accounts_per_min=1, network_burst_accounts=1)
    address = entered(admitted, "192.0.2.1")
    assert address.register()
    admitted.leave(address)
    for wait_s, remembered in ((59, True), (1, False)):
        clock.now += wait_s
        for _ in range(10):
            entered(admitted, "127.0.0.1")
        assert ("192.0.2.0/24" in admitted._networks) is remembered


@pytest.mark.parametrize("host", ["127.0.0.{n}", "::1", "uid:{n}"])
def test_this_machine_is_in_no_network(host: str):
    limits = {"clients_per_network": 1, "network_connections_per_s": 1, "network_burst_connections": 1}
    limits |= {"network_burst_logins": 1, "network_burst_rooms": 1, "network_burst_accounts": 1}
    admitted = admission(**limits)
    # Also after an upgrade, which knows its addresses by their origins alone.
    successor = admission(**limits)
    for n in range(1, 5):
        entered(admitted, host.format(n=n))
    successor.take_state(admitted.to_state())
    for n in range(1, 5):
        successor.adopt(host.format(n=n))
        address = entered(successor, host.format(n=n))
        log_in(address)
        assert address.create_room()
        assert address.register()


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
