"""Who may come in: how many there are, how many from one address, how many on their way out. Pure; knows no sockets."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address

from geventchat.chat.events import Parting
from geventchat.settings import Limits


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
    """Counts places. A place is free when its client has been sent all it was owed, not when it has closed too."""

    __slots__ = ("_by_origin", "_limits", "inside", "parting")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_origin: Counter[str] = Counter()
        self.inside = 0
        self.parting = 0

    def enter(self, who: str) -> Parting | None:
        """Take a place for one more, or say why there is none."""
        if self.inside >= self._limits.clients:
            return Parting.FULL
        if self._by_origin[who] >= self._limits.clients_per_address:
            return Parting.ADDRESS_FULL
        self.inside += 1
        self._by_origin[who] += 1
        return None

    def leave(self, who: str) -> None:
        """Free a place."""
        self.inside -= 1
        self._by_origin[who] -= 1
        if not self._by_origin[who]:
            del self._by_origin[who]

    def part(self) -> bool:
        """Stay a moment on the way out, if not too many do; what is granted ends with `parted`."""
        if self.parting >= self._limits.closing:
            return False
        self.parting += 1
        return True

    def parted(self) -> None:
        """Out."""
        self.parting -= 1
