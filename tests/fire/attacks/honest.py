"""An honest pair: one says something from time to time, the other receives it. A separate process, so that the load does not
delay it.

`python -m tests.fire.attacks.honest HOST PORT DIALECT INTERVAL SOURCE` prints `ready` when both are logged in, then the number
of each message with the time when it is sent, and again when it arrives, until its standard input ends.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from types import TracebackType

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

_PING_S = 10.0


@dataclass(frozen=True)
class Latency:
    """What an honest pair saw, in milliseconds. A message that has not arrived counts with the time it has waited."""

    messages: int
    missing: int
    p50: float
    p99: float
    worst: float

    def __str__(self) -> str:
        return " ".join(f"{key}={value:g}" for key, value in asdict(self).items())


class HonestPair:
    """Starts the pair, and measures in windows."""

    def __init__(
        self,
        address: tuple[str, int],
        dialect: str = "line",
        interval_s: float = 0.02,
        source: str = "127.9.9.9",
    ) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fire.attacks.honest",
                *map(str, (*address, dialect, interval_s, source)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            # Ctrl-C is for the one who started all this, and that one ends it.
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        self._rest = b""
        self._sent: dict[int, float] = {}
        self._arrived: dict[int, float] = {}
        assert self._process.stdout.readline() == b"ready\n", "the honest pair could not log in"
        os.set_blocking(self._out, False)
        fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, 1 << 20)

    def __enter__(self) -> HonestPair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def latency(self, since: float, until: float) -> Latency:
        """The latency of what was sent between these two moments of the monotonic clock."""
        self._collect()
        now = time.monotonic()
        took = sorted(
            (self._arrived.get(number, now) - at) * 1000
            for number, at in self._sent.items()
            if since <= at < until
        )
        assert took, "the honest pair said nothing in this time"
        missing = sum(1 for n, at in self._sent.items() if since <= at < until and n not in self._arrived)
        return Latency(
            len(took),
            missing,
            round(took[len(took) // 2], 2),
            round(took[min(len(took) - 1, int(len(took) * 0.99))], 2),
            round(took[-1], 2),
        )

    @property
    def connected(self) -> bool:
        """True while both are connected."""
        return self._process.poll() is None

    def _collect(self) -> None:
        while True:
            try:
                data = os.read(self._out, 1 << 20)
            except BlockingIOError:
                break
            if not data:
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                number, at = line.split()
                times = self._arrived if int(number) in self._sent else self._sent
                times[int(number)] = float(at)


def main() -> int:
    """Say a number every interval, and print when and how long each took."""
    host, port, dialect, interval_s, source = sys.argv[1:]
    from tests.fire.attacks import wire

    every = float(interval_s)
    speaker, listener = (_connected(host, int(port), source) for _ in range(2))
    for sock, role in ((speaker, "speaker"), (listener, "listener")):
        sock.sendall(wire.login(dialect, f"{role}{os.getpid()}"))
        if not sock.recv(65_536):
            return 1
    for sock in (speaker, listener):
        sock.setblocking(False)
    print("ready", flush=True)
    os.set_blocking(0, False)
    word = f"honest-{os.getpid()}-"
    marker = word.encode()
    number, heard, unsent, due = 0, b"", b"", time.monotonic()
    ping_due = due + _PING_S
    while True:
        now = time.monotonic()
        if now >= due:
            print(f"{number} {now:.6f}", flush=True)
            unsent += wire.say(dialect, f"{word}{number}.")
            number += 1
            due = max(due + every, now)
        if now >= ping_due:
            # Otherwise the listener would be idle.
            listener.send(wire.ping(dialect))
            ping_due = now + _PING_S
        writing = [speaker] if unsent else []
        readable, writable, _ = select.select(
            [speaker, listener, 0], writing, [], max(0.0, due - time.monotonic())
        )
        if writable:
            try:
                unsent = unsent[speaker.send(unsent) :]
            except BlockingIOError:
                pass
        if 0 in readable and not os.read(0, 1):
            return 0
        if speaker in readable and not speaker.recv(1 << 20):
            return 1
        if listener in readable:
            data = listener.recv(1 << 20)
            if not data:
                return 1
            arrived = time.monotonic()
            *pieces, heard = (heard + data).split(b"\n")
            for piece in pieces:
                at = piece.find(marker)
                if at >= 0:
                    print(f"{int(piece[at + len(marker) :].partition(b'.')[0])} {arrived:.6f}", flush=True)


def _connected(host: str, port: int, source: str) -> socket.socket:
    sock = socket.create_connection((host, port), 30, (source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


if __name__ == "__main__":
    sys.exit(main())
