"""Logins in a row by the thousand, and everyone coming back at once: what each costs the server does not grow."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fire.crowd import Crowd, Fate, logged_in
from tests.fire.process import ServerProcess

_PARTS = 20


@dataclass(frozen=True, slots=True)
class Stormed:
    """What one run has shown: the server's processor time for each login, in each part of the storm."""

    logins: int
    cpu_s_each: tuple[float, ...]

    @property
    def growth(self) -> float:
        """How much dearer the last logins are than the first, by the part of each that was disturbed the least."""
        third = len(self.cpu_s_each) // 3
        # The very first have the server's warming up in them.
        return min(self.cpu_s_each[-third:]) / min(self.cpu_s_each[2 : 2 + third])


def login_storm(logins: int) -> Stormed:
    """One after the other comes, logs in, and stays."""
    options = (f"--max-clients={logins}", f"--max-per-address={logins}", "--idle-timeout=0")
    with ServerProcess(*options) as server, Crowd() as crowd:
        spent = []
        for part in range(_PARTS):
            before = server.cpu_s
            logged_in(crowd, server.at(), [f"p{part}-{n}" for n in range(logins // _PARTS)])
            spent.append((server.cpu_s - before) / (logins // _PARTS))
        return Stormed(logins, tuple(spent))


def reconnect_storm(clients: int, times: int) -> Stormed:
    """All connections break at once, and all come back at once, under their names, which must be theirs."""
    options = (f"--max-clients={2 * clients}", f"--max-per-address={2 * clients}", "--idle-timeout=0")
    with ServerProcess(*options) as server, Crowd() as crowd:
        names = [f"p{n}" for n in range(clients)]
        spent, people = [], logged_in(crowd, server.at(), names)
        for time in range(times):
            before = server.cpu_s
            for peer in people:
                if time % 2:
                    peer.abort()
                else:
                    peer.close()
            people = []
            for name in names:
                peer = crowd.join(server.at())
                peer.say(f"LOGIN {name}")
                people.append(peer)
            crowd.until("everyone was answered", lambda people=people: all(b"\n" in p.heard for p in people))  # type: ignore[misc]
            # The old ones' goodbyes may come between, but a name that is taken may not.
            refused = [peer for peer in people if b"ERR" in peer.heard or peer.fate is not Fate.OPEN]
            assert not refused, bytes(refused[0].heard)
            spent.append((server.cpu_s - before) / clients)
        people[0].say("WHO", "PING done")
        crowd.until("the roster has come", lambda: people[0].heard.endswith(b"PONG done\n"))
        assert people[0].heard.count(b"USER ") == clients
        return Stormed(clients * times, tuple(spent))
