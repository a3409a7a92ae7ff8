"""An honest pair: one says something from time to time, the other receives it. A separate process, so that the load does not
delay it.

`python -m tests.fire.attacks.honest HOST PORT DIALECT INTERVAL SOURCE PID` prints `ready` when both are logged in, then the
number of each message with the time when it is sent and the processor time that the main thread of the server PID has had by
then, and both again when it arrives, until its standard input ends.
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
    """The latency of an honest pair, in milliseconds. A message that has not arrived counts with the time since it was sent.

    `busy_p50` and `busy_p99` are how long the server's processor worked meanwhile, which other programs do not make longer.
    """

    messages: int
    missing: int
    p50: float
    p99: float
    worst: float
    busy_p50: float
    busy_p99: float

    def __str__(self) -> str:
        return " ".join(f"{key}={value:g}" for key, value in asdict(self).items())


class HonestPair:
    """Starts the pair, and measures in windows."""

    def __init__(
        self,
        address: tuple[str, int],
        pid: int,
        dialect: str = "line",
        interval_s: float = 0.02,
        source: str = "127.9.9.9",
    ) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fire.attacks.honest",
                *map(str, (*address, dialect, interval_s, source, pid)),
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
        # When, and what the server's processor time was.
        self._sent: dict[int, tuple[float, float]] = {}
        self._arrived: dict[int, tuple[float, float]] = {}
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
        sent = {number: then for number, then in self._sent.items() if since <= then[0] < until}
        assert sent, "the honest pair said nothing in this time"
        arrived = {number: self._arrived[number] for number in sent if number in self._arrived}
        now = time.monotonic()
        took = sorted((arrived.get(number, (now, 0.0))[0] - at) * 1000 for number, (at, _) in sent.items())
        busy = sorted((spent - sent[number][1]) * 1000 for number, (_, spent) in arrived.items())
        return Latency(
            len(took),
            len(sent) - len(arrived),
            _share(took, 0.5),
            _share(took, 0.99),
            _share(took, 1),
            _share(busy, 0.5),
            _share(busy, 0.99),
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
                number, at, spent = line.split()
                times = self._arrived if int(number) in self._sent else self._sent
                times[int(number)] = float(at), float(spent)


def _share(sorted_values: list[float], share: float) -> float:
    at = min(len(sorted_values) - 1, int(len(sorted_values) * share))
    return round(sorted_values[at], 2) if sorted_values else 0.0


def main() -> int:
    """Say a number every interval, and print when and how long each took."""
    host, port, dialect, interval_s, source, pid = sys.argv[1:]
    from tests.fire.attacks import wire

    every = float(interval_s)
    schedstat = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY)

    def spent_s() -> float:
        return int(os.pread(schedstat, 100, 0).split()[0]) / 1e9

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
            print(f"{number} {now:.6f} {spent_s():.6f}", flush=True)
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
            arrived, spent = time.monotonic(), spent_s()
            *pieces, heard = (heard + data).split(b"\n")
            for piece in pieces:
                at = piece.find(marker)
                if at >= 0:
                    heard_number = int(piece[at + len(marker) :].partition(b".")[0])
                    print(f"{heard_number} {arrived:.6f} {spent:.6f}", flush=True)


def _connected(host: str, port: int, source: str) -> socket.socket:
    sock = socket.create_connection((host, port), 30, (source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


if __name__ == "__main__":
    sys.exit(main())
