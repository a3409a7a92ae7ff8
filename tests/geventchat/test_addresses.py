"""Addresses and ranges of addresses, as systems name them and as people write them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from geventchat.chat.addresses import origin_of, parse_address, parse_network, text_of


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_of_a_peer(host: str, address: str):
    assert parse_address(host) == ip_address(address)


@pytest.mark.parametrize("host", ["", "/run/chat.sock", "localhost"])
def test_a_peer_without_an_address(host: str):
    assert parse_address(host) is None


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8:1:2:3::9", "2001:db8:1:2::/64"),
    ],
)
def test_the_origin_of_an_address(address: str, origin: str):
    assert origin_of(ip_address(address)) == ip_network(origin)


@pytest.mark.parametrize(
    ("typed", "network", "shown"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32", "10.1.2.3"),
        ("2001:DB8::/32", "2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128", "::1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32", "10.1.2.3"),
        ("::/0", "::/0", "::/0"),
    ],
)
def test_a_range_that_is_typed(typed: str, network: str, shown: str):
    parsed = parse_network(typed)
    assert parsed == ip_network(network)
    assert text_of(parsed) == shown


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "bob",
        "12",
        "10.0.0",
        "10.0.0.0/33",
        "10.0.0.0/x",
        "1.2.3.4/",
        "::g",
        "١.0.0.1",
        "1" * 1_000_000,
        "10.0.0.0/8 ",
    ],
)
def test_what_is_not_a_range(typed: str):
    assert parse_network(typed) is None
