"""Who may come in."""

from __future__ import annotations

import pytest

from geventchat.chat.events import Parting
from geventchat.net.door import Door, origin
from geventchat.settings import Limits


@pytest.mark.parametrize(
    ("host", "who"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
    ],
)
def test_an_address_stands_for_one_household(host: str, who: str):
    assert origin(host) == who


def test_places_are_counted_and_given_back():
    door = Door(Limits(clients=3, clients_per_address=2, closing=1))
    assert door.enter("a") is None
    assert door.enter("a") is None
    assert door.enter("a") is Parting.ADDRESS_FULL
    assert door.enter("b") is None
    assert door.enter("c") is Parting.FULL
    door.leave("a")
    assert door.enter("a") is None
    for who in ("a", "a", "b"):
        door.leave(who)
    assert door.inside == 0
    assert door.enter("c") is None


def test_few_may_linger_on_the_way_out():
    door = Door(Limits(closing=1))
    assert door.part()
    assert not door.part()
    door.parted()
    assert door.part()
