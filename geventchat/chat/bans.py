"""Who is banned from one room or from the server, or muted in it. Pure; the time is passed in.

A ban of a person sticks to the account. A person without one is banned by name and by origin: nobody can have the name,
and nobody who logs in later from the same origin gets past the ban without an account. Those who were there already are
other people. A ban of a name, of an account or of a network holds for nothing else.

Invariants of Bans:
- `_all` holds each ban under its label, the longest-standing first. A label has one ban: the latest.
- Each ban is also in `_networks`, under its network or origin, if it has one.
- A ban whose time is over has no effect, and is removed at the next opportunity.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from geventchat.chat.addresses import Address, Network


class Sanction(Enum):
    """What a ban forbids; the value is the word in a record."""

    BAN = "ban"
    MUTE = "mute"


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of someone who wants to enter or to speak."""

    name_key: str
    account_key: str
    address: Address | None
    login_number: int


@dataclass(frozen=True, slots=True)
class Ban:
    """One person, name, account or network that is banned or muted."""

    sanction: Sanction
    # The key of the room; that of the lobby for the whole server.
    room: str
    # What it is called in the list, and what lifts it.
    label: str
    shown: str
    by: str
    reason: str = ""
    until_ms: int | None = None
    name_key: str = ""
    account_key: str = ""
    network: Network | None = None
    origin: Network | None = None
    # Those who logged in up to this one are exempt from the ban of the origin.
    after_login: int = 0

    def is_over(self, now_ms: int) -> bool:
        """True when its time is over."""
        return self.until_ms is not None and self.until_ms <= now_ms

    def concerns(self, person: Person) -> bool:
        """True when this person is meant."""
        if self.account_key:
            return person.account_key == self.account_key
        if self.name_key and person.name_key == self.name_key:
            return True
        address = person.address
        if address is None:
            return False
        if self.network is not None:
            return address in self.network
        return (
            self.origin is not None
            and not person.account_key
            and person.login_number > self.after_login
            and address in self.origin
        )


class Bans:
    """The bans, or the mutes, of one room or of the server."""

    __slots__ = ("_all", "_networks")

    def __init__(self) -> None:
        self._all: dict[str, Ban] = {}
        # By version, length of the prefix, and prefix.
        self._networks: dict[tuple[int, int], dict[int, dict[str, Ban]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, label: str) -> bool:
        return label in self._all

    def get(self, label: str) -> Ban | None:
        """The ban with this label."""
        return self._all.get(label)

    def put(self, ban: Ban) -> None:
        """Add a ban, in place of the one with the same label."""
        self.remove(ban.label)
        self._all[ban.label] = ban
        network = ban.network or ban.origin
        if network is not None:
            kind, prefix = _prefix_of(network)
            self._networks.setdefault(kind, {}).setdefault(prefix, {})[ban.label] = ban

    def remove(self, label: str) -> Ban | None:
        """Lift the ban with this label; None if there is none."""
        ban = self._all.pop(label, None)
        network = None if ban is None else ban.network or ban.origin
        if network is not None:
            kind, prefix = _prefix_of(network)
            del self._networks[kind][prefix][label]
            if not self._networks[kind][prefix]:
                del self._networks[kind][prefix]
            if not self._networks[kind]:
                del self._networks[kind]
        return ban

    def expire(self, now_ms: int) -> list[Ban]:
        """Remove the bans whose time is over, and return them."""
        over = [ban for ban in self._all.values() if ban.is_over(now_ms)]
        for ban in over:
            self.remove(ban.label)
        return over

    def all(self) -> list[Ban]:
        """Every ban, the longest-standing first."""
        return list(self._all.values())

    def find(self, person: Person, now_ms: int) -> Ban | None:
        """A ban that concerns this person."""
        names, accounts = label_of_name(person.name_key), label_of_account(person.account_key)
        for label in (person.name_key, person.account_key, names, accounts):
            ban = self._all.get(label)
            if ban is not None and ban.concerns(person) and not ban.is_over(now_ms):
                return ban
        if person.address is not None:
            for ban in self._at(person.address):
                if ban.concerns(person) and not ban.is_over(now_ms):
                    return ban
        return None

    def find_address(self, address: Address, now_ms: int) -> Ban | None:
        """A ban of a network that contains this address, whoever has it."""
        for ban in self._at(address):
            if ban.network is not None and not ban.is_over(now_ms):
                return ban
        return None

    def _at(self, address: Address) -> list[Ban]:
        found: list[Ban] = []
        for (version, length), prefixes in self._networks.items():
            if version == address.version:
                found += prefixes.get(int(address) >> (address.max_prefixlen - length), {}).values()
        return found


def label_of_name(key: str) -> str:
    """The label of the ban of a name alone."""
    return f"name:{key}"


def label_of_account(key: str) -> str:
    """The label of the ban of an account that was named as one."""
    return f"account:{key}"


def _prefix_of(network: Network) -> tuple[tuple[int, int], int]:
    length = network.prefixlen
    return (network.version, length), int(network.network_address) >> (network.max_prefixlen - length)
