"""Addresses of clients, and ranges of them. Pure.

An *origin* is what one household is given: an IPv4 address, or a /64 of IPv6. A *neighbourhood* is what one organisation is
given at least: a /24 of IPv4, or a /48 of IPv6. An IPv4 address that is written as one of IPv6 is the IPv4 address.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The longest way to write a network: every group of an IPv6 address, an IPv4 address at its end, and a prefix.
_MAX_TYPED = 64
_ORIGIN_BITS = 64
_NEIGHBOURHOOD_BITS = {4: 24, 6: 48}
_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_address(host: str) -> Address | None:
    """The address of a peer as the system names it; None for a peer that has none."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def parse_network(typed: str) -> Network | None:
    """The address or range that is written like this; None if it is neither."""
    if len(typed) > _MAX_TYPED:
        return None
    try:
        network = ip_network(typed, strict=False)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = int(network.network_address) & 0xFFFF_FFFF
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network


def origin_of(address: Address) -> Network:
    """Everyone who counts as one with this address."""
    if isinstance(address, IPv4Address):
        return IPv4Network(address)
    return IPv6Network((int(address) >> _ORIGIN_BITS << _ORIGIN_BITS, _ORIGIN_BITS))


def neighbourhood_of(address: Address) -> Network:
    """The addresses that probably belong to the same organisation as this one."""
    kept = _NEIGHBOURHOOD_BITS[address.version]
    first = int(address) >> (address.max_prefixlen - kept) << (address.max_prefixlen - kept)
    return IPv4Network((first, kept)) if address.version == 4 else IPv6Network((first, kept))


def text_of(network: Network) -> str:
    """The shortest way to write it: a single address without its length."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)
