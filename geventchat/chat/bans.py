"""Bans and mutes, of one room or of the server. Pure; the time is passed in.

A ban of a person applies to the account. Without an account, it applies to the name, and to clients without an account
that log in later from the same address; clients that had logged in before belong to other people. A ban of a name applies
only to the name, a ban of an account only to the account, and a ban of a range only to its addresses.

Invariants of Bans:
- The `total` of several lists is how many bans they hold together.
- `by_label` holds each ban under its label, the longest-standing first. A label has one ban: the latest. Others read it.
- Each ban with a network is also in `_networks`, together with others of the same addresses.
- A ban whose time is over has no effect, and is removed at the next opportunity.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from geventchat.chat.addresses import Address, Network, parse_network, text_of
from geventchat.chat.names import InvalidName, parse_name
from geventchat.chat.records import Restriction, RestrictionKind
from geventchat.chat.states import pack, unpack
from geventchat.chat.text import visible

# The prefixes of bans of only a name or only an account.
NAME = "name:"
ACCOUNT = "account:"
_ALMOST_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+)+")


@dataclass(frozen=True, slots=True)
class Person:
    """The facts that bans are compared with, about a client that wants to enter or speak."""

    name_key: str
    account_key: str
    address: Address | None
    login_number: int


class Ban:
    """A restriction, ready to be compared with people."""

    __slots__ = ("after_login", "label", "network", "record")

    def __init__(self, record: Restriction, after_login: int = 0) -> None:
        """A ban of a person applies to others at the same address only if they logged in after `after_login`; 0 for a ban from
        an earlier run."""
        self.record = record
        self.after_login = after_login
        self.network = parse_network(record.network)
        # The name of the ban in its list, and for lifting it.
        self.label = record.name or record.account or str(self.network)
        for prefix in (NAME, ACCOUNT):
            if record.shown.startswith(prefix):
                self.label = prefix + self.label

    @property
    def is_range(self) -> bool:
        """True for a ban of addresses."""
        return not (self.record.name or self.record.account)

    def is_over(self, now_ms: int) -> bool:
        """True when its time is over."""
        until_ms = self.record.until_ms
        return until_ms is not None and until_ms <= now_ms

    def concerns(self, person: Person) -> bool:
        """True when the ban applies to this person."""
        record = self.record
        if record.account:
            return person.account_key == record.account
        if record.name and person.name_key == record.name:
            return True
        if self.network is None or person.address is None or person.address not in self.network:
            return False
        return self.is_range or (not person.account_key and person.login_number > self.after_login)


class BanTotal:
    """The number of bans and mutes in several lists together."""

    __slots__ = ("bans",)

    def __init__(self) -> None:
        self.bans = 0


class Bans:
    """The bans, or the mutes, of one room or of the server."""

    __slots__ = ("_networks", "_total", "by_label")

    def __init__(self, total: BanTotal | None = None) -> None:
        self._total = total or BanTotal()
        self.by_label: dict[str, Ban] = {}
        # By version, length of the prefix, whether it is a range, and prefix.
        self._networks: dict[_Kind, dict[int, _Neighbours]] = {}

    def put(self, ban: Ban) -> None:
        """Add a ban, in place of the one with the same label."""
        self.remove(ban.label)
        self.by_label[ban.label] = ban
        self._total.bans += 1
        if ban.network is not None:
            kind, prefix = _prefix_of(ban, ban.network)
            prefixes = self._networks.setdefault(kind, {})
            if prefix not in prefixes:
                prefixes[prefix] = _Neighbours()
            prefixes[prefix].put(ban)

    def remove(self, label: str) -> Ban | None:
        """Lift the ban with this label; None if there is none."""
        ban = self.by_label.pop(label, None)
        self._total.bans -= ban is not None
        if ban is not None and ban.network is not None:
            kind, prefix = _prefix_of(ban, ban.network)
            prefixes = self._networks[kind]
            prefixes[prefix].remove(ban)
            if not prefixes[prefix].bans:
                del prefixes[prefix]
            if not prefixes:
                del self._networks[kind]
        return ban

    def forget(self) -> None:
        """Stop counting these bans, because the room is gone."""
        self._total.bans -= len(self.by_label)

    def expire(self, now_ms: int) -> list[Ban]:
        """Remove the bans whose time is over, and return them."""
        over = [ban for ban in self.by_label.values() if ban.is_over(now_ms)]
        for ban in over:
            self.remove(ban.label)
        return over

    def find(self, person: Person, now_ms: int) -> Ban | None:
        """A ban that applies to this person; None if there are none."""
        name, account = person.name_key, person.account_key
        for label in (name, account, NAME + name, ACCOUNT + account):
            ban = self.by_label.get(label)
            if ban is not None and ban.concerns(person) and not ban.is_over(now_ms):
                return ban
        if person.address is not None:
            # A ban of another person at the same address does not apply to accounts.
            return self._find_at(person.address, now_ms, 0 if person.account_key else person.login_number)
        return None

    def find_address(self, address: Address, now_ms: int) -> Ban | None:
        """A ban of a range that contains this address, for any client."""
        return self._find_at(address, now_ms, 0)

    def _find_at(self, address: Address, now_ms: int, login_number: int) -> Ban | None:
        """A ban of this address. With the number of a login, also the ban of a person there that applies to later logins."""
        for (version, length, is_range), prefixes in self._networks.items():
            if version == address.version and (is_range or login_number):
                neighbours = prefixes.get(int(address) >> (address.max_prefixlen - length))
                ban = None if neighbours is None else neighbours.latest(1 if is_range else login_number)
                if ban is not None and not ban.is_over(now_ms):
                    return ban
        return None

    def to_state(self) -> list[Any]:
        """The bans, to be handed over."""
        return [[pack(ban.record), ban.after_login] for ban in self.by_label.values()]

    def take_state(self, state: list[Any]) -> None:
        """Take over bans, in place of the present ones."""
        for label in list(self.by_label):
            self.remove(label)
        for record, after_login in state:
            self.put(Ban(unpack(record), after_login))


def read_ban_list(text: str, now_ms: int, most: int) -> list[Ban]:
    """Read a ban list, with one ban per line. Raises ValueError, which names the wrong line.

    A line begins with an address or a range, with `account:NAME`, or with a name, which can be written `name:NAME`. The rest of
    the line is the reason. Text after a `#` is a comment.
    """
    bans: list[Ban] = []
    # Not `splitlines`, which counts more lines than an editor does.
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split(maxsplit=1)
        if not words:
            continue
        if len(bans) == most:
            raise ValueError(f"line {number}: more than {most:,} bans (max-server-bans)")
        listed = _listed(words[0])
        if listed is None:
            raise ValueError(f"line {number}: {words[0]!r:.50} is neither a name nor an address")
        reason = visible("".join(words[1:]).strip())
        bans.append(Ban(replace(listed, reason=reason, time_ms=now_ms)))
    return bans


def _listed(who: str) -> Restriction | None:
    """The ban for the first word of a line; None if it is not valid."""
    record = Restriction(RestrictionKind.BAN, "", "", "", "", who, None, "", "the ban list", 0)
    network = parse_network(who)
    if network is not None:
        return replace(record, network=str(network), shown=text_of(network))
    if _ALMOST_ADDRESS.fullmatch(who):
        # Such as 10.0.0.300: a valid name, but most likely a wrong address.
        return None
    of_account = who.startswith(ACCOUNT)
    try:
        name = parse_name(who.removeprefix(ACCOUNT if of_account else NAME))
    except InvalidName:
        return None
    if of_account:
        return replace(record, account=name.key, shown=ACCOUNT + name.shown)
    return replace(record, name=name.key, shown=NAME + name.shown)


class _Neighbours:
    """Bans of the same addresses. Finds the one that applies in logarithmic time, however many there are."""

    __slots__ = ("_latest", "_logins", "bans")

    def __init__(self) -> None:
        self.bans: dict[str, Ban] = {}
        # The `after_login` of each ban, sorted, and for each the latest-ending ban up to there; empty when out of date.
        self._logins: list[int] = []
        self._latest: list[Ban] = []

    def put(self, ban: Ban) -> None:
        """Add a ban."""
        self.bans[ban.label] = ban
        self._logins = []

    def remove(self, ban: Ban) -> None:
        """Remove a ban."""
        del self.bans[ban.label]
        self._logins = []

    def latest(self, login_number: int) -> Ban | None:
        """The latest-ending ban that applies to this login; None if none does."""
        if not self._logins:
            self._sort()
        at = bisect_left(self._logins, login_number)
        return self._latest[at - 1] if at else None

    def _sort(self) -> None:
        bans = sorted(self.bans.values(), key=lambda ban: ban.after_login)
        self._logins = [ban.after_login for ban in bans]
        self._latest = list(accumulate(bans, _later))


_Kind = tuple[int, int, bool]


def _later(one: Ban, other: Ban) -> Ban:
    """The ban that ends later."""
    ends = [math.inf if ban.record.until_ms is None else ban.record.until_ms for ban in (one, other)]
    return one if ends[0] >= ends[1] else other


def _prefix_of(ban: Ban, network: Network) -> tuple[_Kind, int]:
    length = network.prefixlen
    prefix = int(network.network_address) >> (network.max_prefixlen - length)
    return (network.version, length, ban.is_range), prefix
