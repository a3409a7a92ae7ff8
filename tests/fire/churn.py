"""Measures how much clients that come and go as fast as the limits allow delay an honest pair, beside thousands of listeners.

`python -m tests.fire.churn HOST PORT COUNT` is the listeners' process: it prints `ready` when all are logged in, and reads
everything until its standard input ends.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.fire.attacks import wire
from tests.fire.attacks.honest import HonestPair, Latency
from tests.fire.attacks.load import Client, Load, addresses
from tests.fire.attacks.target import ROOT, Target, raise_descriptor_limit

_PER_ADDRESS = 500
_INTERVAL_S = 0.1
_AT_A_TIME = 16
_CHURN_FROM = "127.8.8.8"
# With this many times as many disturbed rounds as wanted ones, the machine is too busy to measure.
_MOST_DISTURBED = 6


@dataclass(frozen=True, slots=True)
class Churn:
    """The latency of an honest pair without churn and with it, in milliseconds: the median of the rounds.

    `busy` is the CPU time of the server until a message had arrived: the cost of the churn on a machine without other
    work.
    """

    listeners: int
    connections: int
    logins: int
    quiet_p50: float
    churn_p50: float
    quiet_p99: float
    churn_p99: float
    quiet_busy_p99: float
    churn_busy_p99: float
    p99_of_each_round: tuple[tuple[float, float], ...]
    disturbed_windows: int

    @property
    def p99_rise(self) -> float:
        """How much longer the slowest hundredth took."""
        return self.churn_p99 - self.quiet_p99

    @property
    def busy_p99_rise(self) -> float:
        """How much more CPU time the server took until the slowest hundredth had arrived."""
        return self.churn_busy_p99 - self.quiet_busy_p99


class _Churner:
    """Connects, logs in and leaves, several at a time, from enough addresses to be admitted every time."""

    def __init__(self, load: Load, target: Target, per_s: float, seconds: float) -> None:
        self._load = load
        self._address = target.address("json")
        self._per_s = per_s
        # An address can log in a thousand times at once.
        self._sources = addresses(1 + int(per_s * seconds / 1_000), first=5_000)
        self._clients: list[Client] = []
        self._began = 0.0
        self._connected = 0
        self.connections = 0

    def start(self) -> None:
        """Start to count the rate from now on."""
        self._began, self._connected = time.monotonic(), 0

    def turn(self) -> bool:
        """Replace the clients whose connections have ended; returns False, because it is never done."""
        self._clients = [client for client in self._clients if client.open]
        allowed = int((time.monotonic() - self._began) * self._per_s)
        while self._connected < allowed and len(self._clients) < _AT_A_TIME:
            client = self._load.connect(
                self._address, source=self._sources[self.connections % len(self._sources)]
            )
            client.send(wire.login("json", f"guest{self.connections}") + wire.quit_request("json"))
            self._connected += 1
            self.connections += 1
            self._clients.append(client)
        return False

    def stop(self) -> None:
        """Disconnect all clients."""
        for client in self._clients:
            client.reset()


def churn(listeners: int, rounds: int, window_s: float, per_s: float, most_starved: float) -> Churn:
    """Alternate windows without and with churn.

    A round in which the server had to wait for a processor for more than the share `most_starved` of a window is left out.
    """
    with (
        Target() as target,
        _listening(target, listeners),
        HonestPair(target.address("json"), target.pid, "json", _INTERVAL_S) as pair,
        Load() as load,
    ):
        churner = _Churner(load, target, per_s, rounds * _MOST_DISTURBED * window_s)
        load.run(1)
        seen: list[tuple[Latency, Latency]] = []
        disturbed = 0
        while len(seen) < rounds:
            quiet, quiet_share = _window(target, load, pair, window_s, None)
            churner.start()
            busy, busy_share = _window(target, load, pair, window_s, churner)
            if max(quiet_share, busy_share) <= most_starved:
                seen.append((quiet, busy))
            else:
                disturbed += 1
            assert disturbed < rounds * _MOST_DISTURBED, "other programs keep the server from running"
        assert pair.connected, "the honest pair was disconnected"
        load.wait("the last guest has gone", lambda: not load.clients)
        return Churn(
            listeners,
            churner.connections,
            target.log().count(" name=guest") // 2,
            statistics.median(quiet.p50 for quiet, _ in seen),
            statistics.median(busy.p50 for _, busy in seen),
            statistics.median(quiet.p99 for quiet, _ in seen),
            statistics.median(busy.p99 for _, busy in seen),
            statistics.median(quiet.busy_p99 for quiet, _ in seen),
            statistics.median(busy.busy_p99 for _, busy in seen),
            tuple((quiet.p99, busy.p99) for quiet, busy in seen),
            disturbed,
        )


def _window(
    target: Target, load: Load, pair: HonestPair, seconds: float, churner: _Churner | None
) -> tuple[Latency, float]:
    """The latency of the pair in this time, and the share of it in which the server waited for a processor."""
    began, starved_s = time.monotonic(), target.starved_s
    load.run(seconds, None if churner is None else churner.turn)
    ended, share = time.monotonic(), (target.starved_s - starved_s) / seconds
    if churner is not None:
        churner.stop()
    # The last messages of the window still have to arrive.
    load.run(0.5)
    return pair.latency(began, ended), share


@contextmanager
def _listening(target: Target, count: int) -> Iterator[None]:
    host, port = target.address("json")
    command = [sys.executable, "-m", "tests.fire.churn", host, str(port), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the listeners could not log in"
        try:
            yield
        finally:
            process.kill()


def main() -> int:
    """Log in, and read until the standard input ends."""
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    raise_descriptor_limit()
    with Load() as load:
        sources = addresses(-(-count // _PER_ADDRESS))
        for begin in range(0, count, _PER_ADDRESS):
            some = load.connect_many(min(_PER_ADDRESS, count - begin), (host, port), sources=[sources.pop()])
            wire.log_in_all(load, some, "json", [f"listener{begin + n}" for n in range(len(some))])
        load.run(1)
        print("ready", flush=True)
        # The caller ends it.
        load.run(3_600, lambda: not load.clients)
    return 1


if __name__ == "__main__":
    sys.exit(main())
