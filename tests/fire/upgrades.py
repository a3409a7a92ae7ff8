"""Programs that replace each other while thousands chat: no connection is lost, and no line is lost, doubled or reordered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fire.clients import Client, ClientPool, State, log_in
from tests.fire.process import NO_ADDRESS_RATES, ROOT, ServerProcess
from tests.patience import HANG_S

# People in a room: so many receive each message but one.
_ROOM = 20
# Chat before the first upgrade and after each, so that each is felt by itself.
_BETWEEN_S = 1.0


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The result of one run. A latency is the time from the sending of a message to its arrival at one of the others."""

    clients: int
    upgrades: int
    messages: int
    received: int
    # As the server measures them, from its rest until the new program has understood everything.
    pauses_ms: list[float]
    longest_before_ms: float
    longest_ms: float


class Chat:
    """Rooms of people who talk; the first of each speaks, the second notes when it hears what."""

    def __init__(self, pool: ClientPool, server: ServerProcess, clients: int, per_s: float) -> None:
        self._pool = pool
        self._per_s = per_s
        people = log_in(pool, server.address(), [f"p{number}" for number in range(clients)])
        self.rooms = [people[at : at + _ROOM] for at in range(0, clients, _ROOM)]
        for number, room in enumerate(self.rooms):
            # One after the other, so that the first is alone and the notices are few.
            for person in room:
                person.send_lines(f"JOIN r{number}")
        for room in self.rooms:
            for person in room:
                pool.wait_for("everyone is in a room", lambda person=person: b"\nOK\n" in person.received)  # type: ignore[misc]
        self.sent: list[list[float]] = [[] for _ in self.rooms]
        self._heard = [0 for _ in self.rooms]
        self._turn = 0
        self._due = time.monotonic()
        self.longest_s = 0.0
        # One of them reads nothing for the whole time, another is in the middle of a line.
        self.sleeper, self.typist = self.rooms[0][2], self.rooms[0][3]
        self.sleeper.stop_reading()
        self.typist.send(b"MSG half of a line")

    def go_on(self) -> None:
        """Say what is due, and hear what has come."""
        now = time.monotonic()
        if now >= self._due:
            self._due = max(self._due + 1 / self._per_s, now - 1)
            at = self._turn = (self._turn + 1) % len(self.rooms)
            self.rooms[at][0].send_lines(f"MSG {len(self.sent[at])}")
            self.sent[at].append(now)
        self._pool.poll(min(0.01, max(0.0, self._due - time.monotonic())))
        for at, room in enumerate(self.rooms):
            while room[1].find_next(b" p%d %d\n" % (at * _ROOM, self._heard[at])):
                self.longest_s = max(self.longest_s, time.monotonic() - self.sent[at][self._heard[at]])
                self._heard[at] += 1

    def go_on_for(self, seconds: float) -> None:
        """Chat for this long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.go_on()

    def check(self) -> int:
        """Everyone has received everything that was said, once and in order. Returns how many lines that is."""
        self.typist.send(b" and the rest\n")
        for number, room in enumerate(self.rooms):
            ending = b"MSG p%d end\n" % (number * _ROOM)
            room[0].send_lines("MSG end")
            for one in room[1:]:
                if one is self.sleeper:
                    _read_up_to(one, ending)
                self._pool.wait_for("all is heard", lambda one=one, ending=ending: ending in one.received)  # type: ignore[misc]
        received = 0
        for number, room in enumerate(self.rooms):
            said = [b"MSG p%d %d" % (number * _ROOM, at) for at in range(len(self.sent[number]))]
            said.append(b"MSG p%d end" % (number * _ROOM))
            for one in room:
                assert one.state is State.OPEN, f"a client of room {number} has lost its connection"
            for one in room[1:]:
                found = [line for line in one.lines if line.startswith(said[-1][:-3])]
                assert found == said, f"room {number}: {_difference(found, said)}"
                received += len(found)
        assert b"MSG p3 half of a line and the rest\n" in self.rooms[0][1].received
        return received


def _read_up_to(client: Client, ending: bytes) -> None:
    """Read all that waits for a client that has read nothing."""
    client.sock.settimeout(HANG_S)
    while ending not in client.received:
        data = client.sock.recv(65_536)
        assert data, "the one who reads nothing has lost its connection"
        client.received += data


def _difference(found: list[bytes], said: list[bytes]) -> str:
    for at, (got, wanted) in enumerate(zip(found, said, strict=False)):
        if got != wanted:
            return f"{got!r} where {wanted!r} was due, line {at}"
    return f"{len(found)} lines, not {len(said)}"


@contextmanager
def _server(clients: int, folder: Path, stored: bool) -> Iterator[tuple[ServerProcess, str]]:
    path = str(folder / "admin")
    limits = (f"--max-clients={clients}", f"--max-per-address={clients}", "--rate=0", "--idle-timeout=0")
    data = (f"--data={folder / 'data'}",) if stored else ()
    with ServerProcess(*limits, *data, f"--admin-socket={path}", *NO_ADDRESS_RATES) as server:
        try:
            yield server, path
        finally:
            with suppress(AssertionError):
                os.kill(int(_ask(path, "status")["pid"]), signal.SIGKILL)


def _ask(path: str, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "geventchat", "admin", *words, f"--admin-socket={path}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def upgrades(clients: int, per_s: float, times: int, stored: bool) -> Upgraded:
    """`clients` chat in rooms and say `per_s` messages each second, while the program is replaced so many times."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(clients, Path(folder), stored) as (server, path),
        ClientPool() as pool,
    ):
        chat = Chat(pool, server, clients, per_s)
        chat.go_on_for(_BETWEEN_S)
        before_s, chat.longest_s = chat.longest_s, 0.0
        pauses = []
        for _ in range(times):
            command = [
                sys.executable,
                "-m",
                "geventchat",
                "admin",
                "upgrade",
                f"--admin-socket={path}",
                "--json",
            ]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
            ) as asking:
                while asking.poll() is None:
                    chat.go_on()
                out, err = asking.communicate()
            assert asking.returncode == 0, err.decode()
            pauses.append(float(json.loads(out)["pause_ms"]))
            chat.go_on_for(_BETWEEN_S)
        received = chat.check()
        assert _ask(path, "status")["connections"] == clients
        return Upgraded(
            clients,
            times,
            sum(map(len, chat.sent)),
            received,
            pauses,
            round(before_s * 1000, 1),
            round(chat.longest_s * 1000, 1),
        )
