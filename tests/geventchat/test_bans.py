"""Bans: what one concerns."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from geventchat.chat.bans import Ban, Bans, Person
from geventchat.chat.records import Restriction, RestrictionKind
from tests.geventchat.interpreter import events_of_interpreter

HOME = ip_address("192.0.2.7")
AWAY = ip_address("198.51.100.7")


def ban(after_login: int = 0, **fields) -> Ban:
    empty = dict.fromkeys(("name", "account", "network", "shown", "reason", "by"), "")
    record = Restriction(RestrictionKind.BAN, "dev", **{**empty, "until_ms": None, "time_ms": 0, **fields})
    return Ban(record, after_login)


GUEST = ban(5, name="bob", network="192.0.2.7/32", shown="bob")
MEMBER = ban(account="bob", shown="bob")
NAME = ban(name="bob", shown="name:bob")
NETWORK = ban(network="192.0.2.0/24", shown="192.0.2.0/24")


@pytest.mark.parametrize(
    ("tested", "person", "concerned"),
    [
        (GUEST, Person("bob", "", HOME, 3), True),
        (GUEST, Person("bob", "", AWAY, 3), True),
        (GUEST, Person("bob", "", None, 3), True),
        (GUEST, Person("eve", "", HOME, 6), True),
        (GUEST, Person("eve", "", HOME, 5), False),
        (GUEST, Person("eve", "", AWAY, 6), False),
        (GUEST, Person("eve", "eve", HOME, 6), False),
        (GUEST, Person("eve", "", None, 6), False),
        (MEMBER, Person("bob", "bob", AWAY, 6), True),
        (MEMBER, Person("b", "bob", AWAY, 6), True),
        (MEMBER, Person("bob", "", HOME, 6), False),
        (NAME, Person("bob", "", AWAY, 6), True),
        (NAME, Person("eve", "", HOME, 6), False),
        (NETWORK, Person("eve", "eve", HOME, 3), True),
        (NETWORK, Person("eve", "", AWAY, 6), False),
        (NETWORK, Person("eve", "", None, 6), False),
        (NETWORK, Person("eve", "", ip_address("::1"), 6), False),
    ],
)
def test_whom_a_ban_concerns(tested: Ban, person: Person, concerned: bool):
    assert tested.concerns(person) is concerned
    bans = Bans()
    bans.put(tested)
    assert bans.find(person, 0) is (tested if concerned else None)


def test_two_bans_of_one_address_hold_and_end_separately():
    bans = Bans()
    first = ban(name="a", network="192.0.2.7/32", until_ms=10)
    second = ban(name="b", network="192.0.2.7/32", until_ms=20)
    bans.put(first)
    bans.put(second)
    newcomer = Person("eve", "", HOME, 1)
    assert bans.find(newcomer, 9) is second
    assert bans.find(newcomer, 10) is second
    assert bans.find(newcomer, 20) is None
    bans.remove("b")
    assert bans.find(newcomer, 10) is None
    assert bans.find(newcomer, 9) is first


def test_ten_thousand_bans_are_looked_up_as_fast_as_ten():
    """Only the number of prefix lengths matters: a client has one name, one account and one address."""

    def look_up(many: int, *, together: bool) -> int:
        bans = Bans()
        for number in range(many):
            address = 0x0A000007 if together else 0x0A000000 + number
            bans.put(ban(5, name=f"n{number}", network=str(ip_network((address, 32))), until_ms=number % 3))
        for person in (Person("eve", "", ip_address(0x0A000007), 3), Person("eve", "", AWAY, 6)):
            assert bans.find(person, 2) is None
        return events_of_interpreter(lambda: bans.find(Person("eve", "", ip_address(0x0A000007), 6), 2))

    for together in (True, False):
        work = [look_up(many, together=together) for many in (10, 10_000)]
        # Of those at one address, the right one is found by bisection.
        assert work[0] == work[1] > 10
