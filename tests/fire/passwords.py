"""Many logins with passwords at once, beside an honest pair that chats: how much longer that pair waits.

The time is that of the wall, not that of the processor: what hashing could do is keep the server from running. Each login
has an account and an address to itself, as those of people have.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from geventchat.chat.passwords import prepare
from geventchat.chat.records import AccountRecord
from geventchat.clock import SystemClock
from geventchat.log import LogEvent
from geventchat.services.passwords import hash_here
from geventchat.services.storage.sqlite import SqliteStorage
from geventchat.settings import Limits
from tests.fire.attacks.honest import HonestPair, Latency
from tests.fire.attacks.load import Client, Load, addresses
from tests.fire.attacks.target import Target

PASSWORD = "correct horse battery staple"
_INTERVAL_S = 0.02
# How long a hash can have to wait on a machine that has much else to do.
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class PasswordLogins:
    """The latency of an honest pair without and with logins, in milliseconds, in each round; and how long the logins took."""

    logins: int
    took_s: tuple[float, ...]
    quiet: tuple[Latency, ...]
    hashing: tuple[Latency, ...]

    @property
    def p99_rises(self) -> list[float]:
        """How much longer the slowest hundredth took, in each round."""
        return [hashing.p99 - quiet.p99 for quiet, hashing in zip(self.quiet, self.hashing, strict=True)]

    @property
    def p99_rise(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.p99_rises)

    @property
    def busy_p99_rise(self) -> float:
        """How much longer the server worked until the slowest hundredth had arrived: the median of the rounds."""
        return statistics.median(
            hashing.busy_p99 - quiet.busy_p99 for quiet, hashing in zip(self.quiet, self.hashing, strict=True)
        )


def password_logins(target: Target, logins: int, rounds: int, window_s: float) -> PasswordLogins:
    """In each round be quiet for a while, then send all logins at once and wait until all are answered.

    The server needs as many accounts as there are logins.
    """
    took, quiet, hashing = [], [], []
    with HonestPair(target.address("line"), target.pid, interval_s=_INTERVAL_S) as pair, Load() as load:
        for _ in range(rounds):
            began = time.monotonic()
            load.run(window_s)
            quiet.append(pair.latency(began, time.monotonic()))
            clients = load.connect_many(logins, target.address("line"), sources=addresses(logins))
            began = time.monotonic()
            for number, client in enumerate(clients):
                client.send(_login(number))
            _until_all_are_in(load, clients)
            ended = time.monotonic()
            took.append(ended - began)
            # The last messages still have to arrive.
            load.run(0.5)
            hashing.append(pair.latency(began, ended))
        assert pair.connected, "the honest pair was disconnected"
    return PasswordLogins(logins, tuple(took), tuple(quiet), tuple(hashing))


def _until_all_are_in(load: Load, clients: list[Client]) -> None:
    waiting = set(clients)

    def done() -> bool:
        for client in [client for client in waiting if client.received or not client.open]:
            # A refusal comes alone; after a success, it hears the honest pair, which is not what is being measured.
            assert client.open, "a client was disconnected"
            assert not client.tail.startswith(b"ERR"), client.tail
            client.reset()
            waiting.discard(client)
        return not waiting

    load.wait(f"{len(clients)} logins", done, _PATIENCE_S)


def _login(number: int) -> bytes:
    return f"LOGIN someone{number} {PASSWORD}\n".encode()


# --- The server ------------------------------------------------------------------------------------------------------


@contextmanager
def server_with_accounts(accounts: int) -> Iterator[Target]:
    """A server that has these accounts, all with the password that `login` sends."""
    with TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        storage = SqliteStorage(data, Limits(), SystemClock(), _no_log, lambda call: call())
        hashed = hash_here(prepare(PASSWORD))
        for number in range(accounts):
            name = f"someone{number}"
            storage.save(AccountRecord(name, name, hashed, last_login_ms=int(1000 * time.time())))
        assert storage.close(_PATIENCE_S)
        with Target("--data", str(data)) as target:
            yield target


def _no_log(event: LogEvent, /, **fields: object) -> None:
    """Nothing that is worth a line happens to a new directory."""
