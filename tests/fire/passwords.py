"""Many logins with passwords at once, beside an honest pair that chats: how much longer that pair waits.

The time is that of the wall, not that of the processor: what hashing could do is keep the server from running.

`python -m tests.fire.passwords` is a server that echoes lines and verifies passwords, and nothing else: it prints its port,
and serves until its standard input ends. `password_logins` measures any server that speaks as much of the dialect `line`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.server import StreamServer

from geventchat.chat.passwords import HasherFull, prepare
from geventchat.services.passwords import Hasher
from tests.fire.attacks.honest import HonestPair, Latency
from tests.fire.attacks.load import Client, Load
from tests.fire.attacks.target import ROOT

PASSWORD = "correct horse battery staple"
_INTERVAL_S = 0.02
# How long a hash can have to wait on a machine that has much else to do.
_PATIENCE_S = 300.0

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PasswordLogins:
    """What an honest pair saw without logins and with them, in milliseconds, in each round; and how long the logins took."""

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


def password_logins(
    address: Address, pid: int, login: Callable[[int], bytes], logins: int, rounds: int, window_s: float
) -> PasswordLogins:
    """In each round be quiet for a while, then send all logins at once and wait until all are answered."""
    took, quiet, hashing = [], [], []
    with HonestPair(address, pid, interval_s=_INTERVAL_S) as pair, Load() as load:
        for round in range(rounds):
            began = time.monotonic()
            load.run(window_s)
            quiet.append(pair.latency(began, time.monotonic()))
            clients = load.connect_many(logins, address)
            began = time.monotonic()
            for number, client in enumerate(clients):
                client.send(login(round * logins + number))
            _until_all_are_in(load, clients)
            ended = time.monotonic()
            took.append(ended - began)
            # What was said at the end still has to arrive.
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


def login(number: int) -> bytes:
    """A login with the password that the server here expects."""
    return f"LOGIN someone{number} {PASSWORD}\n".encode()


# --- A server that does nothing else ---------------------------------------------------------------------------------


class EchoServer:
    """Understands LOGIN NAME, LOGIN NAME PASSWORD, MSG and PING of the dialect `line`."""

    def __init__(self, hasher: Hasher) -> None:
        self.hasher = hasher
        self._stored = ""
        self._clients: dict[str, Any] = {}
        self._server = StreamServer(("127.0.0.1", 0), self._serve, backlog=4_096)

    def start(self) -> None:
        """Hash the password that everyone has, and listen."""
        self._stored = self.hasher.hash(prepare(PASSWORD), "")
        self._server.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.stop()
        self.hasher.close()

    @property
    def addresses(self) -> dict[str, Address]:
        """Where it listens."""
        return {"line": self._server.address}

    def _serve(self, sock: Any, peer: Address) -> None:
        name = ""
        try:
            with sock, sock.makefile("rb") as lines:
                for line in lines:
                    verb, _, rest = line.decode().rstrip("\n").partition(" ")
                    if verb == "LOGIN" and not name:
                        typed, _, password = rest.partition(" ")
                        answer = self.log_in(typed, password, peer[0]) if password else "OK"
                        if answer == "OK":
                            name = typed
                            self._clients[name] = sock
                        sock.sendall(f"{answer}\n".encode())
                    elif verb == "PING":
                        sock.sendall(f"PONG {rest}\n".encode())
                    elif verb == "MSG":
                        self._echo(name, f"MSG {name} {rest}\n".encode())
        except OSError:
            pass  # The client has gone.
        finally:
            self._clients.pop(name, None)

    def _echo(self, name: str, data: bytes) -> None:
        for other, sock in list(self._clients.items()):
            if other != name:
                # One that has gone is removed by its own greenlet.
                with suppress(OSError):
                    sock.sendall(data)

    def log_in(self, name: str, password: str, host: str) -> str:
        """The answer to a login with a password."""
        try:
            matches = self.hasher.verify(prepare(password), self._stored, host)
        except HasherFull:
            return "ERR too-many-attempts"
        return "OK" if matches else "ERR wrong-password"


@contextmanager
def echo_server() -> Iterator[tuple[Address, int]]:
    """The server in a process, and its id."""
    command = [sys.executable, "-m", "tests.fire.passwords"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield ("127.0.0.1", int(process.stdout.readline())), process.pid
        finally:
            process.kill()


def main() -> int:
    """Serve until the standard input ends."""
    server = EchoServer(Hasher())
    server.start()
    print(server.addresses["line"][1], flush=True)
    hub = gevent.get_hub()
    hub.wait(hub.loop.io(0, 1))
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
