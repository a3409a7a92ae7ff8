"""Thousands of logins in a row, and everyone coming back at once: what each costs the server does not grow.

And a storm of logins from many networks at the same moment, beside an honest pair that chats.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from tests.fire.attacks.honest import HonestPair, Latency
from tests.fire.attacks.target import Target
from tests.fire.clients import Client, ClientPool, State, log_in
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess, wait_for

_PARTS = 20
_INTERVAL_S = 0.005
# The pair speaks so often that a storm of a tenth of a second has many messages.
_FAST_PAIR = ("--rate=1000", "--byte-rate=0", "--address-byte-rate=0")
_PROXY = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Logins:
    """The result of one run: the server's CPU time for each login, in each part of the run."""

    logins: int
    cpu_s_each: tuple[float, ...]

    @property
    def growth(self) -> float:
        """How many times as expensive the last logins are as the first, by the least disturbed part of each."""
        third = len(self.cpu_s_each) // 3
        # The very first include what the server does only once.
        return min(self.cpu_s_each[-third:]) / min(self.cpu_s_each[2 : 2 + third])


def logins(count: int) -> Logins:
    """Clients log in one after the other and stay."""
    options = (f"--max-clients={count}", f"--max-per-address={count}", "--idle-timeout=0", *NO_ADDRESS_RATES)
    with ServerProcess(*options) as server, ClientPool() as pool:
        spent = []
        for part in range(_PARTS):
            before = server.cpu_s
            log_in(pool, server.address(), [f"p{part}-{n}" for n in range(count // _PARTS)])
            spent.append((server.cpu_s - before) / (count // _PARTS))
        return Logins(count, tuple(spent))


def reconnects(clients: int, times: int) -> Logins:
    """All connections break at once, and all clients come back at once under their old names."""
    options = (f"--max-clients={2 * clients}", f"--max-per-address={2 * clients}", "--idle-timeout=0")
    with ServerProcess(*options, *NO_ADDRESS_RATES) as server, ClientPool() as pool:
        names = [f"p{n}" for n in range(clients)]
        spent, members = [], log_in(pool, server.address(), names)
        for time in range(times):
            before = server.cpu_s
            for client in members:
                if time % 2:
                    client.abort()
                else:
                    client.close()
            members = []
            for name in names:
                client = pool.connect(server.address())
                client.send_lines(f"LOGIN {name}")
                members.append(client)
            pool.wait_for(
                "every login is answered",
                lambda members=members: all(b"\n" in client.received for client in members),  # type: ignore[misc]
            )
            # Notices about the old connections can come first, but no name can still be taken.
            refused = [client for client in members if b"ERR" in client.received]
            refused += [client for client in members if client.state is not State.OPEN]
            assert not refused, bytes(refused[0].received)
            spent.append((server.cpu_s - before) / clients)
        members[0].send_lines("WHO", "PING done")
        pool.wait_for("the roster is complete", lambda: members[0].received.endswith(b"PONG done\n"))
        assert members[0].received.count(b"USER ") == clients
        return Logins(clients * times, tuple(spent))


@dataclass(frozen=True, slots=True)
class Storm:
    """How long the logins of each round took, what they cost the server, and the latency of an honest pair meanwhile."""

    logins: int
    took_s: tuple[float, ...]
    cpu_ms_each: float
    latency: tuple[Latency, ...]

    @property
    def busy_p50(self) -> float:
        """How long the server worked until a message had arrived: the median of the rounds."""
        return statistics.median(one.busy_p50 for one in self.latency)

    @property
    def busy_p99(self) -> float:
        """The same for the slowest hundredth."""
        return statistics.median(one.busy_p99 for one in self.latency)


def storm(clients: int, rounds: int) -> Storm:
    """In each round this many clients, each from another network, log in at the same moment, and all of them get in.

    The pair loses none of its messages.
    """
    windows: list[tuple[float, float]] = []
    cpu_s = 0.0
    with (
        Target(f"--proxy-from={_PROXY}", *_FAST_PAIR) as target,
        HonestPair(target.address(), target.pid, interval_s=_INTERVAL_S) as pair,
    ):

        def seen() -> tuple[Latency, ...]:
            return tuple(pair.latency(*window) for window in windows)

        for round in range(rounds):
            with ClientPool() as pool:
                came = [_come_from(pool, target, _network(number)) for number in range(clients)]
                pool.wait_for(
                    "everyone is connected",
                    lambda wanted=2 + clients * (round + 1): target.logged("connected") == wanted,  # type: ignore[misc]
                )
                began, cpu_before_s = time.monotonic(), target.cpu_s
                for number, client in enumerate(came):
                    client.send_lines(f"LOGIN p{round}-{number}")
                pool.wait_for("everyone is answered", lambda came=came: all(one.received for one in came))  # type: ignore[misc]
                windows.append((began, time.monotonic()))
                cpu_s += target.cpu_s - cpu_before_s
                refused = [bytes(one.received) for one in came if not one.received.startswith(b"OK\n")]
                assert not refused, refused[0]
                came[0].send_lines("WHO", "PING done")
                pool.wait_until_found(came[:1], b"PONG done\n")
                # With the pair.
                assert came[0].received.count(b"USER ") == clients + 2
        # What was sent at the end of a round can arrive later.
        wait_for("the pair has received everything", lambda: not any(one.missing for one in seen()))
        assert pair.connected, "the honest pair was disconnected"
        took = tuple(ended - began for began, ended in windows)
        return Storm(clients, took, 1000 * cpu_s / (clients * rounds), seen())


def _network(number: int) -> str:
    """An address in a network that no other number has."""
    return f"198.{18 + number // 256}.{number % 256}.1"


def _come_from(pool: ClientPool, target: Target, source: str) -> Client:
    """A client for which a proxy claims this address."""
    client = pool.connect(target.address(), source=_PROXY)
    client.send_lines(f"PROXY TCP4 {source} 127.0.0.1 50000 4000\r")
    return client
