"""Thousands of idle connections: what each costs, when each is disconnected, and that its name is free again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from tests.fire.clients import Client, ClientPool, State
from tests.fire.leaks import Census, baseline, leftovers
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess, wait_for
from tests.fire.simulation import simulate
from tests.patience import HANG_S

_BATCH = 250
_AT_ONCE = 50
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class IdleClients:
    """The result of one run on real sockets; how many seconds late the idle time-out was."""

    clients: int
    logged_in: bool
    bytes_each: int
    idle_cpu_s: float
    late_median_s: float
    late_most_s: float


class TooSlow(Exception):
    """The machine needed longer for all the clients than they can be idle."""


def idle_clients(
    clients: int, idle_s: float, *, logged_in: bool, watch_s: float = 0.0, spread_s: float = 0.0
) -> IdleClients:
    """Real sockets, real time.

    `watch_s` is how long the CPU of the idle server is watched. `spread_s` is how long it takes until every client has
    sent its last line, so it is also how long it takes from the first time-out to the last. TooSlow where a client has to
    be idle for too long before that.
    """
    with _server(clients, idle_s) as server, ClientPool() as pool:
        connected, connected_at, bytes_each = _connect(pool, server, clients, logged_in)
        cpu_s = server.cpu_s
        until = time.monotonic() + watch_s
        while time.monotonic() < until:
            pool.poll(0.05)
        cpu_s = max(0.0, server.cpu_s - cpu_s)
        last_lines, began = [], time.monotonic()
        for n, client in enumerate(connected):
            while (left := began + spread_s * n / clients - time.monotonic()) > 0:
                pool.poll(left)
            if time.monotonic() - connected_at[n] > idle_s:
                raise TooSlow
            last_lines.append(_last_line(pool, client))
            if last_lines[-1][1] - connected_at[n] > idle_s:
                raise TooSlow
        pool.wait_for(
            "everyone is disconnected",
            lambda: all(c.state is not State.OPEN for c in connected),
            idle_s + HANG_S,
        )
        late = []
        for client, (sent_at, answered_at) in zip(connected, last_lines, strict=True):
            assert client.state is State.FIN
            assert client.received.endswith(b"INFO idle-timeout\n"), bytes(client.received[-80:])
            # The server read the last line after it was sent, and disconnected before that was seen here.
            early_s = idle_s - (client.ended_at - sent_at)
            assert early_s <= 0, f"disconnected {early_s:.6f} s early"
            late.append(client.ended_at - answered_at - idle_s)
        wait_for("every descriptor is closed", lambda: server.descriptors < 20)
        if logged_in:
            again = pool.connect(server.address())
            again.send_lines("LOGIN p0", "WHO")
            pool.wait_until_received([again], b"OK\nUSER p0\n")
        late.sort()
        return IdleClients(clients, logged_in, bytes_each, cpu_s, late[len(late) // 2], late[-1])


def idle_memory(clients: int) -> int:
    """How many bytes one more client that is logged in and idle costs."""
    with _server(clients, 600) as server, ClientPool() as pool:
        return _connect(pool, server, clients, logged_in=True)[2]


def _server(clients: int, idle_s: float) -> ServerProcess:
    # Without a login, the deadline for logging in would come first.
    options = ("--login-timeout=0", f"--idle-timeout={idle_s}", "--log-level=warning", *NO_ADDRESS_RATES)
    return ServerProcess(*options, f"--max-clients={clients + 10}", f"--max-per-address={clients + 10}")


def _connect(
    pool: ClientPool, server: ServerProcess, clients: int, logged_in: bool
) -> tuple[list[Client], list[float], int]:
    """All clients, when each connected, and what each cost.

    The cost is the growth of the process from a fifth of them to all, since the first make it import and build what every
    later one shares. Few at a time: what many that wait for their logins take for a moment would be a cost of none.
    """
    connected: list[Client] = []
    connected_at: list[float] = []
    at_first, first = server.resident_bytes, 0
    while len(connected) < clients:
        some = []
        for n in range(len(connected), min(clients, len(connected) + _AT_ONCE)):
            connected_at.append(time.monotonic())
            client = pool.connect(server.address())
            client.send_lines(f"LOGIN p{n}" if logged_in else "PING")
            some.append(client)
        pool.wait_for("each client is answered", lambda some=some: all(one.received for one in some))  # type: ignore[misc]
        connected += some
        if not first and len(connected) >= clients // 5:
            at_first, first = server.resident_bytes, len(connected)
    return connected, connected_at, (server.resident_bytes - at_first) // max(1, clients - first)


def _last_line(pool: ClientPool, client: Client) -> tuple[float, float]:
    """Send one more line and wait for its answer: the server read it between these two instants."""
    mark = len(client.received)
    sent_at = time.monotonic()
    client.send_lines("PING")
    pool.wait_for("the last line is answered", lambda: len(client.received) > mark)
    return sent_at, time.monotonic()


def exact_idle_timeouts(clients: int, idle_s: float) -> None:
    """In virtual time: each client is connected until the microsecond at which it has been idle for `idle_s`."""
    limits = Limits(
        clients=clients,
        clients_per_address=clients,
        address_connections_per_s=0,
        address_logins_per_s=0,
        address_log_lines_per_s=0,
    )
    config = Config(listen=(Listen("line", "127.0.0.1", 0),), idle_s=idle_s, limits=limits)
    with simulate(config) as simulation:
        before = baseline(simulation)
        batches = []
        for start in range(0, clients, _BATCH):
            simulation.advance(0.001)
            batch = [simulation.connect() for _ in range(start, min(start + _BATCH, clients))]
            for n, client in enumerate(batch, start=start):
                client.send_lines(f"LOGIN p{n}")
            simulation.run_until_idle()
            batches.append((simulation.now_us, batch))
        chat = simulation.context.chat
        assert simulation.server.clients == len(chat) == clients
        left = clients
        for active_us, batch in batches:
            due_us = active_us + round(idle_s * _US)
            simulation.advance_to(due_us - 1)
            assert simulation.server.clients == left
            simulation.advance_to(due_us)
            left -= len(batch)
            assert simulation.server.clients == left, "disconnected early or late"
            assert len(chat) == left, "a name is still taken after its client has gone"
            for client in batch:
                assert (client.state, client.ended_us) == (State.FIN, due_us)
                assert client.received.startswith(b"OK\n")
                assert client.received.endswith(b"INFO idle-timeout\n")
        assert simulation.logged["idle"] == clients
        del batch, client, batches
        simulation.advance(1)
        assert not leftovers(simulation), leftovers(simulation)
        assert not Census(simulation).growth_since(before), Census(simulation).growth_since(before)
        # Every name is free again.
        for n in range(0, clients, max(1, clients // 100)):
            client = simulation.connect()
            client.send_lines(f"LOGIN P{n}", "QUIT")
            simulation.run_until_idle()
            assert client.received == b"OK\nGoodbye!\n", bytes(client.received)
