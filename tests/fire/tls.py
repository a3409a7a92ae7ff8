"""TLS handshakes by the thousand, whole, half and broken, beside two who chat without TLS; on a real server."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from tests.certificates import made_certificate
from tests.fire.attacks.honest import HonestPair, Latency
from tests.fire.clients import Client, ClientPool, State, log_in, send_broken
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess, wait_for
from tests.tls_client import MemoryClient, client_context

_TLS = "line+tls"
_BEFORE_S = 1.0
# For those who never finish.
_SHORT = "--handshake-timeout=0.5"


_context = cache(client_context)


@contextmanager
def server(clients: int, *options: str) -> Iterator[ServerProcess]:
    """A server with and without TLS."""
    cert, key = made_certificate()
    limits = (f"--max-clients={clients}", f"--max-per-address={clients}")
    files = (f"--tls-cert={cert}", f"--tls-key={key}")
    with ServerProcess(*limits, *files, *NO_ADDRESS_RATES, *options, dialects=(_TLS,)) as process:
        yield process
        assert "fault" not in process.log(), process.log()[-4_000:]


# --- Whole handshakes ------------------------------------------------------------------------------------------------


class SecureClient:
    """A client of a pool that speaks TLS."""

    def __init__(self, pool: ClientPool, process: ServerProcess) -> None:
        self.wire: Client = pool.connect(process.address(_TLS))
        self.memory = MemoryClient(_context())

    def go_on(self) -> bool:
        """Decrypt what has come, send what has to be sent; True once the handshake is complete."""
        if self.wire.received:
            came = bytes(self.wire.received)
            self.wire.received.clear()
            self.memory.feed(came)
        if out := self.memory.take():
            self.wire.send(out)
        return self.memory.secure


@dataclass(frozen=True, slots=True)
class Handshakes:
    """The result of one run: how long they took, what they cost the server, and what the pair saw before and meanwhile."""

    handshakes: int
    took_s: float
    cpu_ms_each: float
    before: Latency
    meanwhile: Latency


def handshakes(count: int) -> Handshakes:
    """Everyone connects first, and then all of them shake hands at the same moment."""
    with server(count + 100, "--handshake-timeout=60") as process, ClientPool() as pool:
        clients = [SecureClient(pool, process) for _ in range(count)]
        # Made before, since that takes as long as the server takes to answer them.
        hellos = [client.memory.take() for client in clients]
        with HonestPair(process.address(), process.pid) as pair:
            began = time.monotonic()
            wait_for("some time has passed", lambda: time.monotonic() > began + _BEFORE_S)
            now, cpu_s = time.monotonic(), process.cpu_s
            waiting = set(clients)
            for client, hello in zip(clients, hellos, strict=True):
                client.wire.send(hello)

            def all_have() -> bool:
                waiting.difference_update([client for client in waiting if client.go_on()])
                return not waiting

            pool.wait_for("every handshake is complete", all_have)
            end = time.monotonic()
            cpu_s = process.cpu_s - cpu_s
            clients[0].wire.send(clients[0].memory.send(b"LOGIN first\n"))

            def answered() -> bool:
                clients[0].go_on()
                return b"OK\n" in clients[0].memory.received

            pool.wait_for("one of them is answered", answered)
            assert pair.connected
            before, meanwhile = pair.latency(began, now), pair.latency(now, end)
        assert not [client for client in clients if client.wire.state is not State.OPEN]
    return Handshakes(count, end - now, 1000 * cpu_s / count, before, meanwhile)


# --- Memory ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Memory:
    """The result of one run: what one client costs the server, in KB."""

    clients: int
    plain: float
    tls: float
    # After a long text was said to everyone.
    tls_that_was_sent_much: float


def memory(count: int) -> Memory:
    """Clients that are logged in and idle, first without TLS and then with it."""
    with server(2 * count + 100, "--idle-timeout=0") as process, ClientPool() as pool:
        log_in(pool, process.address(), [f"w{n}" for n in range(50)])
        first = process.resident_bytes
        log_in(pool, process.address(), [f"p{n}" for n in range(count)])
        second = process.resident_bytes
        clients = [SecureClient(pool, process) for _ in range(count)]
        waiting = set(clients)

        def all_have() -> bool:
            waiting.difference_update([client for client in waiting if client.go_on()])
            return not waiting

        pool.wait_for("every handshake is complete", all_have)
        for n, client in enumerate(clients):
            client.wire.send(client.memory.send(f"LOGIN t{n}\n".encode()))

        def received(words: bytes) -> Callable[[], bool]:
            left = set(clients)

            def everyone_has() -> bool:
                for client in list(left):
                    client.go_on()
                    if words in client.memory.received:
                        left.discard(client)
                return not left

            return everyone_has

        pool.wait_for("everyone is logged in", received(b"OK\n"))
        third = process.resident_bytes
        (speaker,) = log_in(pool, process.address(), ["speaker"])
        speaker.send_lines(*(f"MSG {'x' * 4_000}" for _ in range(16)), "MSG end")
        pool.wait_for("everyone has heard it", received(b"speaker end\n"))
        fourth = process.resident_bytes
    kb = 1_024 * count
    return Memory(count, (second - first) / kb, (third - second) / kb, (fourth - second) / kb)


# --- Half and broken handshakes --------------------------------------------------------------------------------------


def _hello() -> bytes:
    return MemoryClient(_context()).take()


def _cut(rng: random.Random) -> bytes:
    hello = _hello()
    return hello[: rng.randrange(len(hello))]


def _changed(rng: random.Random) -> bytes:
    hello = bytearray(_hello())
    for _ in range(rng.randrange(1, 8)):
        hello[rng.randrange(5, len(hello))] = rng.randrange(256)
    return bytes(hello)


def _wrong_server_name(rng: random.Random) -> bytes:
    hello = _hello()
    name = bytes(rng.randrange(256) for _ in range(len(b"localhost")))
    return hello.replace(b"localhost", name)


def _huge_record(rng: random.Random) -> bytes:
    return b"\x16\x03\x01\xff\xff" + rng.randbytes(30_000)


def _early_data(rng: random.Random) -> bytes:
    # Early data after a hello that does not offer it.
    return _hello() + b"\x17\x03\x03\x00\x40" + rng.randbytes(64)


def _noise(rng: random.Random) -> bytes:
    return b"\x16\x03\x01\x00\x40" + rng.randbytes(64)


def _alert(rng: random.Random) -> bytes:
    return _hello() + b"\x15\x03\x01\x00\x02" + bytes([rng.randrange(1, 3), rng.randrange(256)])


def _many_records(rng: random.Random) -> bytes:
    return _hello() + b"\x14\x03\x03\x00\x01\x01" * rng.randrange(1, 400)


def _plain(rng: random.Random) -> bytes:
    return rng.choice([b"LOGIN mallory\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00", b"\x80\x2e\x01\x03\x01", b""])


BROKEN = (
    _cut,
    _changed,
    _wrong_server_name,
    _huge_record,
    _early_data,
    _noise,
    _alert,
    _many_records,
    _plain,
    lambda rng: _hello(),
)


@dataclass(frozen=True, slots=True)
class Broken:
    """The result of one run."""

    connections: int
    took_s: float
    memory_before_bytes: int
    memory_after_bytes: int
    meanwhile: Latency


def broken_handshakes(count: int, seed: int, at_once: int = 500) -> Broken:
    """Clients send invalid or half handshakes, and leave, break off, continue slowly or stay until the deadline."""
    rng = random.Random(seed)
    with server(2 * at_once, _SHORT) as process, ClientPool() as pool:
        # OpenSSL allocates this once.
        send_broken(pool, process.address(_TLS), rng, BROKEN, at_once)
        before, descriptors = process.resident_bytes, process.descriptors
        with HonestPair(process.address(), process.pid) as pair:
            began = time.monotonic()
            for done in range(0, count, at_once):
                send_broken(pool, process.address(_TLS), rng, BROKEN, min(at_once, count - done))
            end = time.monotonic()
            assert pair.connected
            meanwhile = pair.latency(began, end)
        wait_for("everything is closed", lambda: process.descriptors <= descriptors)
        after = process.resident_bytes
        client = SecureClient(pool, process)
        pool.wait_for("a handshake is complete", client.go_on)
    return Broken(count, end - began, before, after, meanwhile)
