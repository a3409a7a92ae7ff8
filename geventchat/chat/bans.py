"""Bans and mutes, of one room or of the server. Pure; the time is passed in.

A ban of a person applies to the account. Without an account, it applies to the name, and to clients without an account
that log in later from the same address; clients that had logged in before belong to other people. A ban of a name, of an
account or of a range of addresses applies to nothing else.

Invariants of Bans:
- The `total` of several lists is how many bans they hold together.
- `by_label` holds each ban under its label, the longest-standing first. A label has one ban: the latest. Others read it.
- Each ban with a network is also in `_networks`.
- A ban whose time is over has no effect, and is removed at the next opportunity.
"""

from __future__ import annotations

from dataclasses import dataclass

from geventchat.chat.addresses import Address, Network, parse_network
from geventchat.chat.records import Restriction

# How bans of a name or an account alone are written, to tell them from bans of people.
NAME = "name:"
ACCOUNT = "account:"


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of someone who wants to enter or to speak."""

    name_key: str
    account_key: str
    address: Address | None
    login_number: int


class Ban:
    """A restriction, ready to be compared with people."""

    __slots__ = ("after_login", "label", "network", "record")

    def __init__(self, record: Restriction, after_login: int = 0) -> None:
        """The address of someone else does not affect logins up to `after_login`; 0 for a ban from an earlier run."""
        self.record = record
        self.after_login = after_login
        self.network = parse_network(record.network)
        # What lifts it, and what one can have at a time.
        self.label = record.name or record.account or str(self.network)
        for prefix in (NAME, ACCOUNT):
            if record.shown.startswith(prefix):
                self.label = prefix + self.label

    @property
    def is_range(self) -> bool:
        """True for a ban of addresses, whoever has them."""
        return not (self.record.name or self.record.account)

    def is_over(self, now_ms: int) -> bool:
        """True when its time is over."""
        until_ms = self.record.until_ms
        return until_ms is not None and until_ms <= now_ms

    def concerns(self, person: Person) -> bool:
        """True when this person is meant."""
        record = self.record
        if record.account:
            return person.account_key == record.account
        if record.name and person.name_key == record.name:
            return True
        if self.network is None or person.address is None or person.address not in self.network:
            return False
        return self.is_range or (not person.account_key and person.login_number > self.after_login)


class BanTotal:
    """How many bans and mutes several lists hold together."""

    __slots__ = ("bans",)

    def __init__(self) -> None:
        self.bans = 0


class Bans:
    """The bans, or the mutes, of one room or of the server."""

    __slots__ = ("_networks", "_total", "by_label")

    def __init__(self, total: BanTotal | None = None) -> None:
        self._total = total or BanTotal()
        self.by_label: dict[str, Ban] = {}
        # By version, length of the prefix, and prefix.
        self._networks: dict[tuple[int, int], dict[int, dict[str, Ban]]] = {}

    def put(self, ban: Ban) -> None:
        """Add a ban, in place of the one with the same label."""
        self.remove(ban.label)
        self.by_label[ban.label] = ban
        self._total.bans += 1
        if ban.network is not None:
            kind, prefix = _prefix_of(ban.network)
            self._networks.setdefault(kind, {}).setdefault(prefix, {})[ban.label] = ban

    def remove(self, label: str) -> Ban | None:
        """Lift the ban with this label; None if there is none."""
        ban = self.by_label.pop(label, None)
        self._total.bans -= ban is not None
        if ban is not None and ban.network is not None:
            kind, prefix = _prefix_of(ban.network)
            prefixes = self._networks[kind]
            del prefixes[prefix][label]
            if not prefixes[prefix]:
                del prefixes[prefix]
            if not prefixes:
                del self._networks[kind]
        return ban

    def forget(self) -> None:
        """Count no longer: the room is gone."""
        self._total.bans -= len(self.by_label)

    def expire(self, now_ms: int) -> list[Ban]:
        """Remove the bans whose time is over, and return them."""
        over = [ban for ban in self.by_label.values() if ban.is_over(now_ms)]
        for ban in over:
            self.remove(ban.label)
        return over

    def find(self, person: Person, now_ms: int) -> Ban | None:
        """A ban that concerns this person."""
        name, account = person.name_key, person.account_key
        for label in (name, account, NAME + name, ACCOUNT + account):
            ban = self.by_label.get(label)
            if ban is not None and ban.concerns(person) and not ban.is_over(now_ms):
                return ban
        if person.address is not None:
            for ban in self._at(person.address):
                if ban.concerns(person) and not ban.is_over(now_ms):
                    return ban
        return None

    def find_address(self, address: Address, now_ms: int) -> Ban | None:
        """A ban of a range that contains this address, whoever has it."""
        for ban in self._at(address):
            if ban.is_range and not ban.is_over(now_ms):
                return ban
        return None

    def _at(self, address: Address) -> list[Ban]:
        found: list[Ban] = []
        for (version, length), prefixes in self._networks.items():
            if version == address.version:
                found += prefixes.get(int(address) >> (address.max_prefixlen - length), {}).values()
        return found


def _prefix_of(network: Network) -> tuple[tuple[int, int], int]:
    length = network.prefixlen
    return (network.version, length), int(network.network_address) >> (network.max_prefixlen - length)
