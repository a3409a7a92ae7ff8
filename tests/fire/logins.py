"""Thousands of logins in a row, and everyone coming back at once: what each costs the server does not grow."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fire.clients import ClientPool, State, log_in
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess

_PARTS = 20


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
