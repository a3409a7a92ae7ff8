"""Thousands of people are present, and many clients ask who they are in a loop without reading the answers.

The long answers must cost only the clients that ask: memory stays bounded, and others chat as before.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from tests.fire.clients import Client, ClientPool
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess

_BATCH = 250
_ROUND_TRIP_S = 0.02


@dataclass(frozen=True, slots=True)
class Rosters:
    """The result of one run. The times are those of a message from one client to another, before and meanwhile."""

    people: int
    askers: int
    asked: int
    answer_bytes: int
    most_mb: float
    """How much memory the server took in addition."""
    median_before_ms: float
    median_meanwhile_ms: float
    p99_before_ms: float
    p99_meanwhile_ms: float
    slowest_answer_ms: float
    """Of a client that reads, and asks the same once."""


def rosters(people: int, askers: int, rounds: int, *, of_many_addresses: bool = True) -> Rosters:
    """`askers` of the `people` ask; for `rounds` messages of another person.

    With `of_many_addresses` each asker has an address to itself, so that only the limits of a client bind it.
    """
    options = ("--idle-timeout=0", "--log-level=warning", *(() if of_many_addresses else NO_ADDRESS_RATES))
    room = (f"--max-clients={people + 10}", f"--max-per-address={people + 10}")
    # 127.0.0.1 and its neighbours are all this machine.
    login_rates = ("--address-connection-rate=0", "--address-login-rate=0")
    with ServerProcess(*options, *room, *login_rates) as server, ClientPool() as pool:
        connected: list[Client] = []
        for start in range(0, people, _BATCH):
            batch = []
            for n in range(start, min(start + _BATCH, people)):
                source = f"127.1.{n // 240}.{1 + n % 240}" if of_many_addresses else ""
                batch.append(pool.connect(server.address(), source=source))
                batch[-1].send_lines(f"LOGIN somebody-{n}")
            pool.wait_for("they are in", lambda batch=batch: all(c.received[:3] == b"OK\n" for c in batch))  # type: ignore[misc]
            connected += batch
            for client in connected:
                # The arrivals do not matter here.
                client.received.clear()
        speaker, listener, *rest = connected
        asking = rest[:askers]
        answer_bytes = sum(len(f"USER somebody-{n}\n") for n in range(people))
        before_bytes = server.resident_bytes
        before = _round_trips(pool, speaker, listener, rounds)
        for client in asking:
            client.stop_reading()
        most, asked, meanwhile = before_bytes, 0, list[float]()
        for _ in range(rounds):
            for client in asking:
                if not client.unsent:
                    client.send_lines("WHO")
                    client.stop_reading()
                    asked += 1
            meanwhile += _round_trips(pool, speaker, listener, 1)
            most = max(most, server.resident_bytes)
        reader, began = rest[askers], time.monotonic()
        reader.received.clear()
        reader.send_lines("WHO", "PING")
        pool.wait_for("one that reads is answered", lambda: b"PONG\n" in reader.received)
        answer_s = time.monotonic() - began
        assert bytes(reader.received).count(b"USER ") == people
        return Rosters(
            people,
            askers,
            asked,
            answer_bytes,
            round((most - before_bytes) / 1e6, 1),
            *(round(1000 * statistics.median(times), 2) for times in (before, meanwhile)),
            *(round(1000 * statistics.quantiles(times, n=100)[98], 2) for times in (before, meanwhile)),
            round(1000 * answer_s, 1),
        )


def _round_trips(pool: ClientPool, speaker: Client, listener: Client, count: int) -> list[float]:
    times = []
    for n in range(count):
        text = f"message {time.monotonic_ns()} {n}"
        began = time.monotonic()
        speaker.send_lines(f"MSG {text}")
        pool.wait_for("it is heard", lambda text=text: text.encode() in listener.received[-200:])  # type: ignore[misc]
        times.append(time.monotonic() - began)
        time.sleep(_ROUND_TRIP_S)
    return times
