"""Bans: however many there are, one is found exactly if one of them concerns the person."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.addresses import origin_of
from geventchat.chat.bans import ACCOUNT, NAME, Ban, Bans, Person
from geventchat.chat.records import Restriction, RestrictionKind

NAMES = st.sampled_from(["a", "b", "c"])
ADDRESSES = st.sampled_from(
    [
        ip_address(text)
        for text in ("10.0.0.1", "10.0.0.2", "10.1.0.1", "::1", "2001:db8::1", "2001:db8:0:1::1")
    ]
)
NETWORKS = st.sampled_from(
    [
        ip_network(text)
        for text in (
            "10.0.0.0/24",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "10.0.0.1",
            "::1",
            "2001:db8::/32",
            "2001:db8::/64",
            "::/0",
        )
    ]
)
UNTIL = st.one_of(st.none(), st.integers(0, 4))
EMPTY = Restriction(RestrictionKind.BAN, "dev", "", "", "", "", None, "", "op", 0)


@st.composite
def bans(draw: st.DrawFn) -> Ban:
    record = replace(EMPTY, until_ms=draw(UNTIL))
    name = draw(NAMES)
    kind = draw(st.sampled_from(["guest", "member", "name", "account", "network"]))
    if kind == "guest":
        network = str(origin_of(draw(ADDRESSES)))
        return Ban(replace(record, name=name, network=network, shown=name), draw(st.integers(0, 3)))
    if kind == "member":
        return Ban(replace(record, account=name, shown=name))
    if kind == "name":
        return Ban(replace(record, name=name, shown=NAME + name))
    if kind == "account":
        return Ban(replace(record, account=name, shown=ACCOUNT + name))
    network = str(draw(NETWORKS))
    return Ban(replace(record, network=network, shown=network))


@st.composite
def people(draw: st.DrawFn) -> Person:
    name = draw(NAMES)
    address = draw(st.one_of(st.none(), ADDRESSES))
    return Person(name, draw(st.sampled_from(["", name])), address, draw(st.integers(1, 4)))


CHANGES = st.lists(st.one_of(bans(), st.integers(0, 4)), max_size=12)


@given(changes=CHANGES, asked=st.lists(people(), min_size=1, max_size=4), lifted=st.lists(bans(), max_size=3))
def test_a_ban_is_found_exactly_if_one_concerns_the_person(changes, asked, lifted):
    """The changes are bans, and moments at which those whose time is over are removed."""
    kept: dict[str, Ban] = {}
    tested = Bans()
    for change in changes:
        if isinstance(change, Ban):
            kept.pop(change.label, None)
            kept[change.label] = change
            tested.put(change)
        else:
            over = [ban for ban in kept.values() if ban.is_over(change)]
            assert tested.expire(change) == over
            kept = {label: ban for label, ban in kept.items() if ban not in over}
    for ban in lifted:
        assert tested.remove(ban.label) == kept.pop(ban.label, None)
    assert list(tested.by_label.items()) == list(kept.items())
    for now_ms in range(4):
        active = [ban for ban in kept.values() if not ban.is_over(now_ms)]
        for person in asked:
            concerning = [ban for ban in active if ban.concerns(person)]
            found = tested.find(person, now_ms)
            assert (found in concerning) if concerning else found is None
            if person.address is not None:
                networks = [ban for ban in active if ban.is_range and person.address in ban.network]
                at_door = tested.find_address(person.address, now_ms)
                assert (at_door in networks) if networks else at_door is None


@given(changes=CHANGES)
def test_bans_that_have_all_been_lifted_leave_nothing_behind(changes):
    tested = Bans()
    for change in changes:
        if isinstance(change, Ban):
            tested.put(change)
    for label in list(tested.by_label):
        tested.remove(label)
    assert not tested._networks
