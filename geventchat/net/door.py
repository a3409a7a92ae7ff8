"""Who may come in: how many there are, and how many from one address. Pure; must not know sockets."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address

from geventchat.chat.events import Parting
from geventchat.config import Limits


def origin(host: str) -> str:
    """Whom an address stands for: one IPv4 address, or the 64 bits of IPv6 that one household is given."""
    if ":" not in host:
        return host
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return host


class Door:
    """Counts who is inside."""

    __slots__ = ("_by_origin", "_limits", "inside", "refusing")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_origin: Counter[str] = Counter()
        self.inside = 0
        self.refusing = 0

    def enter(self, who: str) -> Parting | None:
        """Let one more in, or say why not."""
        if self.inside >= self._limits.clients:
            return Parting.FULL
        if self._by_origin[who] >= self._limits.clients_per_address:
            return Parting.ADDRESS_FULL
        self.inside += 1
        self._by_origin[who] += 1
        return None

    def leave(self, who: str) -> None:
        """One of those inside has gone."""
        self.inside -= 1
        self._by_origin[who] -= 1
        if not self._by_origin[who]:
            del self._by_origin[who]

    def may_explain(self) -> bool:
        """Is there room for one more who is told why there is none?"""
        return self.refusing < self._limits.refusals
