"""Which clients can connect, and what those of one address and of one network can use up together. Knows no sockets.

Invariants of Admission:
- `connected` is the number of clients that hold a slot, and the sum of `connections` over all addresses. That of a network
  is the sum over its addresses.
- An address is remembered while it has connections, and until its rates have recovered; a network while one of its
  addresses is, and until its rates have recovered.
- `_departed` holds each address that is remembered without connections once, the longest-departed first, and perhaps
  some that are back. `_departed_networks` is the same for networks without addresses.
- The addresses of this machine, and peers without an address, are in no network that has a limit.
"""

from __future__ import annotations

import math
import resource
from dataclasses import replace
from enum import Enum
from typing import Any

from gevent.hub import Hub

from geventchat.chat import addresses
from geventchat.chat.events import NoticeReason
from geventchat.clock import Clock
from geventchat.net.gate import CanWait, Gate
from geventchat.rate import Rate, TokenBucket
from geventchat.settings import Limits

# Standard streams, the loop, the listeners, the log, a library that is imported late.
_RESERVED_DESCRIPTORS = 64
# Departed addresses that are checked for expiry with each new connection.
_SWEEP = 2


class Refusal(Enum):
    """Why a client is refused, by the reason in the log."""

    SERVER_FULL = NoticeReason.SERVER_FULL.value
    ADDRESS_FULL = NoticeReason.ADDRESS_FULL.value
    BANNED = NoticeReason.BANNED.value
    PROXY_HEADER = "proxy_header"


def origin_of(host: str) -> str:
    """The unit that limits per address count: an IPv4 address, or the /64 that contains an IPv6 address."""
    if ":" not in host:
        return host
    address = addresses.parse_address(host)
    return host if address is None else str(addresses.origin_of(address).network_address)


def network_of(origin: str) -> str:
    """The network of this address, a /24 of IPv4 or a /48 of IPv6; empty for this machine and peers without an address."""
    address = addresses.parse_address(origin)
    # The unspecified address is the /64 of ::1.
    if address is None or address.is_loopback or address.is_unspecified:
        return ""
    return str(addresses.neighbourhood_of(address))


class Rates:
    """The limits of each address or each network. Unlimited until a subclass sets them, and always for this machine."""

    def __init__(self) -> None:
        self.connections: float = math.inf
        self.connects, self.logins, self.traffic, self.accounts, self.rooms = (Rate(0, 0) for _ in range(5))


class AddressRates(Rates):
    """The limits of each address."""

    def change(self, limits: Limits) -> None:
        """Allow this much from now on."""
        self.connections = limits.clients_per_address
        self.connects.change(limits.address_connections_per_s, limits.address_burst_connections)
        self.logins.change(limits.address_logins_per_s, limits.address_burst_logins)
        self.traffic.change(limits.address_bytes_per_s, limits.address_burst_bytes)
        self.accounts.change(limits.address_accounts_per_min / 60, limits.address_burst_accounts)
        self.rooms.change(limits.address_rooms_per_min / 60, limits.address_burst_rooms)


class NetworkRates(Rates):
    """The limits of each network."""

    def change(self, limits: Limits) -> None:
        """Allow this much from now on."""
        self.connections = limits.clients_per_network
        self.connects.change(limits.network_connections_per_s, limits.network_burst_connections)
        self.logins.change(limits.network_logins_per_s, limits.network_burst_logins)
        self.traffic.change(limits.network_bytes_per_s, limits.network_burst_bytes)
        self.accounts.change(limits.network_accounts_per_min / 60, limits.network_burst_accounts)
        self.rooms.change(limits.network_rooms_per_min / 60, limits.network_burst_rooms)


class Quota:
    """What all connections from one address, or from one network, have used up of its limits together."""

    __slots__ = (
        "_clock",
        "_rates",
        "accounts",
        "connections",
        "connects",
        "login_gate",
        "logins",
        "name",
        "rooms",
        "traffic",
        "traffic_gate",
    )

    def __init__(self, name: str, hub: Hub, clock: Clock, rates: Rates) -> None:
        self.name = name
        self.connections = 0
        self._clock = clock
        self._rates = rates
        self.connects = TokenBucket(rates.connects)
        self.logins = TokenBucket(rates.logins)
        self.traffic = TokenBucket(rates.traffic)
        self.rooms = TokenBucket(rates.rooms)
        self.accounts = TokenBucket(rates.accounts)
        self.login_gate = Gate(hub, self._login_delay_s)
        self.traffic_gate = Gate(hub, self._traffic_delay_s)

    # Connections are counted again.
    TRANSIENT = frozenset({"_clock", "_rates", "connections", "login_gate", "traffic_gate"})

    def to_state(self) -> dict[str, Any]:
        """The used part of the limits, to be handed over."""
        return {
            "name": self.name,
            "connects": self.connects.to_state(),
            "logins": self.logins.to_state(),
            "traffic": self.traffic.to_state(),
            "rooms": self.rooms.to_state(),
            "accounts": self.accounts.to_state(),
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over what was used up."""
        self.connects.take_state(state["connects"])
        self.logins.take_state(state["logins"])
        self.traffic.take_state(state["traffic"])
        self.rooms.take_state(state["rooms"])
        self.accounts.take_state(state["accounts"])

    @property
    def is_full(self) -> bool:
        """True while it has as many connections as it can have."""
        return self.connections >= self._rates.connections

    def charge(self, cost: int, now: float) -> bool:
        """Count bytes; False if there is too much debt to be charged more."""
        return self.traffic.charge(cost, now)

    def recovered(self) -> bool:
        """True when nothing of this needs to be remembered."""
        now = self._clock.monotonic()
        buckets = (self.connects, self.logins, self.traffic, self.rooms, self.accounts)
        return all(bucket.is_full(now) for bucket in buckets)

    def forget(self) -> None:
        """Break the cycles with the gates: nothing of this is left."""
        del self.login_gate, self.traffic_gate

    def _login_delay_s(self) -> float:
        return self.logins.delay_s(1, self._clock.monotonic())

    def _traffic_delay_s(self) -> float:
        return self.traffic.delay_s(0, self._clock.monotonic())


class Network(Quota):
    """The limits that all addresses of one network share."""

    __slots__ = ("addresses",)

    def __init__(self, name: str, hub: Hub, clock: Clock, rates: Rates) -> None:
        super().__init__(name, hub, clock, rates)
        # How many of its addresses are remembered. They are counted again.
        self.addresses = 0

    TRANSIENT = Quota.TRANSIENT | {"addresses"}


class Address(Quota):
    """The limits that all connections from one address share. Its name is its origin. What it uses up is its network's, too."""

    __slots__ = ("network", "reserved_logins")

    def __init__(self, origin: str, network: Network, hub: Hub, clock: Clock, rates: Rates) -> None:
        super().__init__(origin, hub, clock, rates)
        self.network = network
        # Clients that have passed the gate of this address and wait at that of its network. They are charged later.
        self.reserved_logins = 0

    TRANSIENT = Quota.TRANSIENT | {"network", "reserved_logins"}

    def connect(self) -> bool:
        """Count one more connection; False if the rate is exceeded."""
        return self._take(self.connects, self.network.connects)

    def create_room(self) -> bool:
        """Count a new room; False if too many have been created."""
        return self._take(self.rooms, self.network.rooms)

    def register(self) -> bool:
        """Count a new account; False if too many have been registered."""
        return self._take(self.accounts, self.network.accounts)

    def wait_for_login(self, waiter: CanWait, queue: str) -> None:
        """Count a login, once there can be one more. `queue` is that of the client among those of its address.

        A wait that ends otherwise costs nothing, and neither does one that another process begins again.
        """
        own, network = self.login_gate, self.network
        if own.is_open():
            self.reserved_logins += 1
        else:
            with own.passage(waiter, queue):
                self.reserved_logins += 1
        try:
            if network.login_gate.is_open():
                self._charge_login()
            else:
                with network.login_gate.passage(waiter, self.name):
                    self._charge_login()
        finally:
            self.reserved_logins -= 1
            own.pump()

    def _charge_login(self) -> None:
        now = self._clock.monotonic()
        self.logins.charge(1, now)
        self.network.logins.charge(1, now)

    def _login_delay_s(self) -> float:
        wanted = 1 + self.reserved_logins
        if wanted > self._rates.logins.burst:
            # No time suffices: one of those who wait for the network has to go first.
            return math.inf
        return self.logins.delay_s(wanted, self._clock.monotonic())

    def _take(self, own: TokenBucket, of_network: TokenBucket) -> bool:
        """Take one of each, or none: what one of them refuses is not charged to the other."""
        now = self._clock.monotonic()
        if not own.take(1, now):
            return False
        if not of_network.take(1, now):
            own.charge(-1, now)
            return False
        return True


class Admission:
    """Counts slots. A slot is free once its client has been sent everything, even if it still has to close."""

    def __init__(self, hub: Hub, clock: Clock, limits: Limits) -> None:
        self._hub = hub
        self._clock = clock
        self._limits = limits
        self.rates = AddressRates()
        self._addresses: dict[str, Address] = {}
        self._departed: dict[str, Address] = {}
        self.network_rates = NetworkRates()
        self._networks: dict[str, Network] = {}
        self._departed_networks: dict[str, Network] = {}
        self._this_machine = Network("", hub, clock, Rates())
        self.connected = 0
        self.lingering = 0
        self.change_rates(limits)

    def change_rates(self, limits: Limits) -> None:
        """Allow each address and each network this much from now on."""
        self.rates.change(limits)
        self.network_rates.change(limits)

    @property
    def addresses(self) -> int:
        """How many addresses are remembered."""
        return len(self._addresses)

    def enter(self, host: str) -> Address | NoticeReason:
        """Take a slot for one more client; returns the reason if it is refused."""
        if self._departed or self._departed_networks:
            self._sweep()
        if self.connected >= self._limits.clients:
            return NoticeReason.SERVER_FULL
        address = self._address(origin_of(host))
        if address.is_full or address.network.is_full or not address.connect():
            if not address.connections:
                self._departed[address.name] = address
            return NoticeReason.ADDRESS_FULL
        self._take_slot(address)
        return address

    # Slots are taken again.
    TRANSIENT = frozenset(
        {
            *("_hub", "_clock", "_limits", "rates", "network_rates", "_departed", "_departed_networks"),
            *("_this_machine", "connected", "lingering"),
        }
    )

    def to_state(self) -> dict[str, Any]:
        """The addresses and networks that are remembered, to be handed over."""
        return {
            "networks": [network.to_state() for network in self._networks.values()],
            "addresses": [address.to_state() for address in self._addresses.values()],
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Remember these addresses and networks."""
        for one in state["networks"]:
            network = self._network(one["name"])
            network.take_state(one)
            self._departed_networks[network.name] = network
        for one in state["addresses"]:
            address = self._address(one["name"])
            address.take_state(one)
            self._departed[address.name] = address

    def adopt(self, host: str) -> Address:
        """Take a slot for a client that another process has admitted."""
        address = self._address(origin_of(host))
        self._take_slot(address)
        return address

    def _take_slot(self, address: Address) -> None:
        self.connected += 1
        address.connections += 1
        address.network.connections += 1

    def _address(self, origin: str) -> Address:
        address = self._addresses.get(origin)
        if address is None:
            name = network_of(origin)
            network = self._network(name) if name else self._this_machine
            network.addresses += 1
            address = Address(origin, network, self._hub, self._clock, self.rates)
            self._addresses[origin] = address
        return address

    def leave(self, address: Address) -> None:
        """Free a slot."""
        self.connected -= 1
        address.connections -= 1
        address.network.connections -= 1
        if not address.connections:
            self._departed[address.name] = address

    def reserve_linger(self) -> bool:
        """Reserve a place to linger in until the peer closes; True if there was one. `free_linger` frees it."""
        if self.lingering >= self._limits.lingering:
            return False
        self.lingering += 1
        return True

    def free_linger(self) -> None:
        """Free a place to linger in."""
        self.lingering -= 1

    def _network(self, name: str) -> Network:
        network = self._networks.get(name)
        if network is None:
            network = self._networks[name] = Network(name, self._hub, self._clock, self.network_rates)
        return network

    def _sweep(self) -> None:
        for _ in range(min(_SWEEP, len(self._departed))):
            origin = next(iter(self._departed))
            address = self._departed.pop(origin)
            if address.connections:
                continue
            if address.recovered():
                del self._addresses[origin]
                address.forget()
                network = address.network
                network.addresses -= 1
                if not network.addresses and network is not self._this_machine:
                    self._departed_networks[network.name] = network
            else:
                self._departed[origin] = address
        for _ in range(min(_SWEEP, len(self._departed_networks))):
            name = next(iter(self._departed_networks))
            network = self._departed_networks.pop(name)
            if network.addresses:
                continue
            if network.recovered():
                del self._networks[name]
                network.forget()
            else:
                self._departed_networks[name] = network


def raise_descriptor_limit() -> None:
    """Raise the soft limit on open files to the hard one, for the whole process. Called once, by the program itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return  # Some systems allow less than they report. The server reads the effective limit when it starts.


def fit_to_descriptors(limits: Limits) -> Limits:
    """The limits with no more clients than there can be descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or limits.clients + limits.lingering + _RESERVED_DESCRIPTORS <= soft:
        return limits
    lingering = min(limits.lingering, soft // 16)
    return replace(
        limits,
        clients=max(1, min(limits.clients, soft - _RESERVED_DESCRIPTORS - lingering)),
        lingering=lingering,
    )
