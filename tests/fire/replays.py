"""Many clients that come back at once and are sent what they missed: how long an honest pair waits meanwhile, and how much
memory the server takes.

The clients speak version 2 of `json`, from several addresses. The server is a process with default settings.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from dataclasses import dataclass

from tests.fire.attacks import wire
from tests.fire.attacks.honest import HonestPair, Latency
from tests.fire.attacks.load import Client, Load, addresses
from tests.fire.attacks.target import Target

_INTERVAL_S = 0.02
_WINDOW_S = 3.0
_PER_SPEAKER = 100
_PER_ADDRESS = 250
_TEXT = "x" * 100
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Replays:
    """The latency of an honest pair without and with replays, in milliseconds, in each round."""

    clients: int
    messages: int
    bytes_each: int
    took_s: tuple[float, ...]
    quiet: tuple[Latency, ...]
    replaying: tuple[Latency, ...]
    grown_bytes: tuple[int, ...]
    """The most memory that the server took on top, in each round."""

    @property
    def p99_rise(self) -> float:
        """How much longer the slowest hundredth took: the median of the rounds."""
        return statistics.median(
            replaying.p99 - quiet.p99 for quiet, replaying in zip(self.quiet, self.replaying, strict=True)
        )

    @property
    def busy_p99_rise(self) -> float:
        """How much longer the server worked until the slowest hundredth had arrived: the median of the rounds."""
        return statistics.median(
            replaying.busy_p99 - quiet.busy_p99
            for quiet, replaying in zip(self.quiet, self.replaying, strict=True)
        )


def replays(clients: int, messages: int, rounds: int) -> Replays:
    """Send this many messages; then, in each round, let this many clients that have missed all of them come at once."""
    took, quiet, replaying, grown = [], [], [], []
    with Target() as target, Load() as load:
        _say(load, target, messages)
        size = _size_of_replay(target, messages)
        with HonestPair(target.address("line"), target.pid, interval_s=_INTERVAL_S) as pair:
            for round in range(rounds):
                came = load.connect_many(
                    clients, target.address("json"), sources=addresses(1 + clients // _PER_ADDRESS)
                )
                began = time.monotonic()
                load.run(_WINDOW_S)
                quiet.append(pair.latency(began, time.monotonic()))
                target.reset_peak()
                before = target.resident_bytes
                began = time.monotonic()
                for number, client in enumerate(came):
                    client.send(_join(f"back{round}-{number}"))
                load.wait("everyone was sent what was missed", _AllHave(came, size), _PATIENCE_S)
                ended = time.monotonic()
                took.append(ended - began)
                grown.append(target.peak_bytes - before)
                load.run(0.5)  # the last messages have to arrive
                replaying.append(pair.latency(began, ended))
                for client in came:
                    client.reset()
            assert pair.connected, "the honest pair was disconnected"
    return Replays(clients, messages, size, tuple(took), tuple(quiet), tuple(replaying), tuple(grown))


class _AllHave:
    """True once all of these clients have received so much. Looks at those only that have not."""

    def __init__(self, clients: list[Client], size: int) -> None:
        self._waiting = clients
        self._size = size

    def __call__(self) -> bool:
        self._waiting = [client for client in self._waiting if client.received < self._size]
        for client in self._waiting:
            assert client.open, (
                f"a client was disconnected ({client.ended}) after {client.received} bytes: {client.tail[-200:]!r}"
            )
        return not self._waiting


def _join(name: str) -> bytes:
    return b'{"type": "join", "v": 2, "username": "%s", "rooms": {"lobby": 0}}\n' % name.encode()


def _say(load: Load, target: Target, messages: int) -> None:
    # Each says no more than it can say at once.
    speakers = load.connect_many(-(-messages // _PER_SPEAKER), target.address("line"), sources=addresses(20))
    left = messages
    for number, client in enumerate(speakers):
        count = min(left, _PER_SPEAKER)
        left -= count
        client.send(wire.login("line", f"speaker{number}"))
        client.send(wire.say("line", _TEXT) * count + wire.quit_request("line"))
    load.wait(
        "everything was sent", lambda: all(b"Goodbye" in client.tail for client in speakers), _PATIENCE_S
    )
    for client in speakers:
        client.reset()


def _size_of_replay(target: Target, messages: int) -> int:
    """How many bytes one client is sent that has missed everything. Each message comes once, in order."""
    with socket.create_connection(target.address("json"), _PATIENCE_S) as sock:
        sock.sendall(_join("measure"))
        size, ids = 0, []
        with sock.makefile("rb") as lines:
            while len(ids) < messages:
                line = next(lines)
                size += len(line)
                event = json.loads(line)
                if event["type"] == "chat":
                    ids.append(event["id"])
    assert ids == list(range(ids[0], ids[0] + messages)), "something was missing or out of order"
    return size
