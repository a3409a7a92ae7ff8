"""Half, broken and hostile HTTP and WebSockets by the thousand, beside two who chat in `line`; on a real server."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.fire.attacks.honest import HonestPair, Latency
from tests.fire.clients import ClientPool, State, send_broken
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess, wait_for
from tests.geventchat.web_client import HANDSHAKE, frame, masked, request

_BEFORE_S = 1.0
_UPGRADE = request("/ws", HANDSHAKE)
_HEADER = b"Host: localhost\r\n"


@contextmanager
def _server(clients: int, *options: str) -> Iterator[ServerProcess]:
    limits = (f"--max-clients={clients}", f"--max-per-address={clients}")
    with ServerProcess(*limits, *NO_ADDRESS_RATES, *options, dialects=("web",)) as process:
        yield process
        assert "fault" not in process.log(), process.log()[-4_000:]


def _check_that_it_serves(pool: ClientPool, process: ServerProcess) -> None:
    client = pool.connect(process.address("web"))
    client.send(_UPGRADE + frame('{"type": "join", "v": 2, "username": "last"}'))
    pool.wait_for("someone logs in", lambda: b'"welcome"' in client.received)


# --- Half of an upgrade ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """The result of one run, and what the pair saw before, while requests began, and while they were given up."""

    connections: int
    took_s: float
    cpu_ms_each: float
    memory_each_bytes: float
    before: Latency
    meanwhile: Latency
    given_up: Latency


def half_open_upgrades(count: int, seed: int, request_s: float = 30.0) -> HalfOpen:
    """Everyone connects first. Then all of them begin to open a WebSocket at the same moment, and none goes on."""
    rng = random.Random(seed)
    with _server(count + 100, f"--request-timeout={request_s:g}") as process, ClientPool() as pool:
        descriptors, memory = process.descriptors, process.resident_bytes
        with HonestPair(process.address(), process.pid) as pair:
            connected = time.monotonic()
            clients = [pool.connect(process.address("web")) for _ in range(count)]
            wait_for("all are accepted", lambda: process.descriptors >= descriptors + count)
            began = time.monotonic()
            wait_for("some time has passed", lambda: time.monotonic() > began + _BEFORE_S)
            now, cpu_s = time.monotonic(), process.cpu_s
            for client in clients:
                client.send(_UPGRADE[: rng.randrange(1, len(_UPGRADE))])
            wait_for("everything is read", lambda: not process.unread_bytes)
            # Whoever waits for a turn has read nothing, so everyone has had theirs.
            end, cpu_s = time.monotonic(), process.cpu_s - cpu_s
            memory = process.resident_bytes - memory
            assert end < connected + request_s, "some have been given up meanwhile"
            pool.wait_for(
                "all are given up",
                lambda: all(client.state is not State.OPEN for client in clients),
                2 * request_s + 30,
            )
            gone = time.monotonic()
            assert pair.connected
            before, meanwhile = pair.latency(began, now), pair.latency(now, end)
            given_up = pair.latency(connected + request_s, gone)
        assert all(client.received.startswith(b"HTTP/1.1 408 ") for client in clients)
        wait_for("everything is closed", lambda: process.descriptors <= descriptors)
        _check_that_it_serves(pool, process)
    return HalfOpen(count, end - now, 1000 * cpu_s / count, memory / count, before, meanwhile, given_up)


# --- Broken and hostile ones -----------------------------------------------------------------------------------------


def _cut(rng: random.Random) -> bytes:
    return _UPGRADE[: rng.randrange(len(_UPGRADE))]


def _changed(rng: random.Random) -> bytes:
    changed = bytearray(_UPGRADE)
    for _ in range(rng.randrange(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _foreign(rng: random.Random) -> bytes:
    origin = rng.choice(
        ("null", "http://evil.example", "http://localhost:81", "HTTP://LOCALHOST@evil", "\x00")
    )
    return request("/ws", f"{HANDSHAKE}Origin: {origin}\n", host=rng.choice(("localhost", "evil.example")))


def _smuggled(rng: random.Random) -> bytes:
    inner = request("/ws", HANDSHAKE)
    fields = rng.choice(
        (
            b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\nContent-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding:\x0bchunked\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"Content-Length: +0\r\n",
            b"X: y\r\n Content-Length: 9\r\n",
            b"X: y\n\nGET /ws HTTP/1.1\r\n",
        )
    )
    return b"POST /api/rooms/lobby/messages HTTP/1.1\r\n" + _HEADER + fields + b"\r\n0\r\n\r\n" + inner


def _header_flood(rng: random.Random) -> bytes:
    return b"GET / HTTP/1.1\r\n" + _HEADER + b"A: b\r\n" * rng.randrange(60, 3_000)


def _pipelined(rng: random.Random) -> bytes:
    targets = (
        "/",
        "/chat.js",
        "/missing",
        "/../../etc/passwd",
        "/%2e%2e/%00",
        "/api/rooms/%ff/messages",
        "/ws",
    )
    return b"".join([request(rng.choice(targets)) for _ in range(rng.randrange(1, 30))])


def _large_body(rng: random.Random) -> bytes:
    length = rng.choice((b"5000000", b"4096", b"99999999999999999999"))
    head = b"POST /api/rooms/lobby/messages HTTP/1.1\r\n" + _HEADER
    return head + b"Content-Length: " + length + b"\r\n\r\n" + b"x" * rng.randrange(10_000)


def _large_frame(rng: random.Random) -> bytes:
    size = rng.choice((4_097, 1 << 24, (1 << 63) - 1, (1 << 64) - 1))
    head = bytes((rng.choice((0x81, 0x01, 0x82, 0x89)), 0xFF)) + size.to_bytes(8, "big")
    return _UPGRADE + head + rng.randbytes(rng.randrange(10_000))


def _broken_frames(rng: random.Random) -> bytes:
    frames = [
        masked(rng.randrange(256), rng.randbytes(rng.randrange(130))) for _ in range(rng.randrange(1, 10))
    ]
    return _UPGRADE + b"".join(frames)


def _unmasked(rng: random.Random) -> bytes:
    return _UPGRADE + b"\x81\x05hello"


def _fragments(rng: random.Random) -> bytes:
    middle = b"".join([masked(0x00, bytes((rng.choice(b" {}\xff"),))) for _ in range(rng.randrange(400))])
    return _UPGRADE + masked(0x01, b"{") + middle


def _noise(rng: random.Random) -> bytes:
    return rng.choice(
        (rng.randbytes(64), b"\x16\x03\x01\x00\x40" + rng.randbytes(64), b"LOGIN mallory\n", b"\r\n", b"")
    )


BROKEN: tuple[Callable[[random.Random], bytes], ...] = (
    _cut,
    _changed,
    _foreign,
    _smuggled,
    _header_flood,
    _pipelined,
    _large_body,
    _large_frame,
    _broken_frames,
    _unmasked,
    _fragments,
    _noise,
    lambda rng: _UPGRADE,
)


@dataclass(frozen=True, slots=True)
class Broken:
    """The result of one run."""

    connections: int
    took_s: float
    memory_before_bytes: int
    memory_after_bytes: int
    meanwhile: Latency


def broken_upgrades(count: int, seed: int, at_once: int = 500) -> Broken:
    """Clients send invalid or half requests, or frames that WebSocket forbids, and leave, break off, trickle or stay."""
    rng = random.Random(seed)
    options = ("--request-timeout=0.5", "--login-timeout=0.5", "--rate=1000", "--burst=1000")
    with _server(2 * at_once, *options) as process, ClientPool() as pool:
        # Objects that are allocated once.
        send_broken(pool, process.address("web"), rng, BROKEN, at_once)
        before, descriptors = process.resident_bytes, process.descriptors
        with HonestPair(process.address(), process.pid) as pair:
            began = time.monotonic()
            for done in range(0, count, at_once):
                send_broken(pool, process.address("web"), rng, BROKEN, min(at_once, count - done))
            end = time.monotonic()
            assert pair.connected
            meanwhile = pair.latency(began, end)
        wait_for("everything is closed", lambda: process.descriptors <= descriptors)
        after = process.resident_bytes
        _check_that_it_serves(pool, process)
    return Broken(count, end - began, before, after, meanwhile)
