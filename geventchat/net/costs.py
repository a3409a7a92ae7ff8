"""Charges the costs of a client: its lines, and its bytes to itself, its address and its network.

The input of a client above a rate is read later, and nothing is lost. The waiter does the waiting.
"""

from __future__ import annotations

from typing import Any

from geventchat.clock import Clock
from geventchat.net.admission import Address
from geventchat.net.waiter import Waiter
from geventchat.rate import Rate, TokenBucket


class Costs:
    """The rates of one client. A refused client has no address, and is charged nothing."""

    __slots__ = (
        "_address",
        "_byte_bucket",
        "_clock",
        "_first_bytes",
        "_line_bucket",
        "_queue",
        "_uncharged_bytes",
        "_uncharged_network_bytes",
        "charged_bytes",
    )

    def __init__(
        self,
        address: Address | None,
        number: int,
        line_rate: Rate,
        byte_rate: Rate,
        first_bytes: int,
        clock: Clock,
    ) -> None:
        """`number` is that of the connection. Its `first_bytes` do not wait for its address, up to its first question."""
        self._address = address
        self._queue = str(number)
        self._line_bucket = TokenBucket(line_rate)
        self._byte_bucket = TokenBucket(byte_rate)
        self._first_bytes = first_bytes
        self._clock = clock
        # All bytes charged so far, of input and of answers.
        self.charged_bytes = 0
        # Bytes that are not charged to the address yet, because of its debt; charged when the address's gate admits the client.
        self._uncharged_bytes = 0
        # The same for its network.
        self._uncharged_network_bytes = 0

    TRANSIENT = frozenset({"_address", "_queue", "_first_bytes", "_clock"})

    def to_state(self) -> dict[str, Any]:
        """The used part of the client's rates, to be handed over."""
        return {
            "line_bucket": self._line_bucket.to_state(),
            "byte_bucket": self._byte_bucket.to_state(),
            "charged_bytes": self.charged_bytes,
            "uncharged_bytes": self._uncharged_bytes,
            "uncharged_network_bytes": self._uncharged_network_bytes,
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over the used part of the rates."""
        self._line_bucket.take_state(state["line_bucket"])
        self._byte_bucket.take_state(state["byte_bucket"])
        self.charged_bytes = state["charged_bytes"]
        self._uncharged_bytes = state["uncharged_bytes"]
        self._uncharged_network_bytes = state["uncharged_network_bytes"]

    def charge(self, cost: int, now: float) -> None:
        """Charge these bytes to the client, to its address and to its network."""
        address = self._address
        if address is not None:
            self.charged_bytes += cost
            self._byte_bucket.charge(cost, now)
            if not address.charge(cost, now):
                self._uncharged_bytes += cost
            if not address.network.charge(cost, now):
                self._uncharged_network_bytes += cost

    def charge_client(self, cost: int, now: float) -> None:
        """Charge these bytes to the client, and nothing to its address and network."""
        if self._address is not None:
            self._byte_bucket.charge(cost, now)

    def wait_for_bytes(self, waiter: Waiter, now: float) -> None:
        """Wait until the client, its address and its network have paid for what they were charged."""
        delay_s = self._byte_bucket.delay_s(0, now)
        if delay_s:
            waiter.pause(delay_s)
        # The first bytes of a connection are charged to its address but do not wait for it, so that a newcomer can log
        # in however busy the address is.
        address = self._address
        if address is None or self.charged_bytes < self._first_bytes:
            return
        if self._uncharged_bytes or not address.traffic_gate.is_open():
            with address.traffic_gate.passage(waiter, self._queue):
                address.charge(self._uncharged_bytes, self._clock.monotonic())
                self._uncharged_bytes = 0
        network = address.network
        if self._uncharged_network_bytes or not network.traffic_gate.is_open():
            with network.traffic_gate.passage(waiter, address.name):
                network.charge(self._uncharged_network_bytes, self._clock.monotonic())
                self._uncharged_network_bytes = 0

    def wait_for_question(self, waiter: Waiter) -> None:
        """Wait like that before an answer that can be long. It does not come with the first bytes."""
        if self._first_bytes:
            self._first_bytes = 0
            self.wait_for_bytes(waiter, self._clock.monotonic())

    def take_lines(self, lines: int, now: float) -> int:
        """How many of these lines can be handled now. They are charged."""
        return self._line_bucket.take(lines, now)

    def wait_for_line(self, waiter: Waiter, now: float) -> None:
        """Wait until the next line can be handled."""
        waiter.pause(self._line_bucket.delay_s(1, now))
