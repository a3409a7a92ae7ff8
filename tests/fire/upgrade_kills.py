"""Kills or stops one of two programs at a random moment during an upgrade.

If the serving program is killed, both end, and a new server finds its data as after any kill. In all other cases exactly one
program goes on to serve, and no client loses its connection or a line.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from geventchat.admin.protocol import encode
from tests.fire.clients import Client, ClientPool, State, log_in
from tests.fire.process import ServerProcess, wait_for

_PEOPLE = 20
# The latest time of a kill after the request to upgrade: about when the new program has taken over.
_LATEST_S = 1.5
_LONGEST_STOP_S = 0.5


@dataclass
class Kills:
    """The result of one run: how often each program was killed or stopped, and which served afterwards."""

    killed_new: int = 0
    killed_old: int = 0
    stopped_new: int = 0
    stopped_old: int = 0
    old_went_on: int = 0
    new_went_on: int = 0
    ended: int = 0
    messages: int = 0


class _World:
    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._path = str(folder / "admin")
        self.run = Kills()

    def _pids(self) -> list[int]:
        """The pids of all server processes, including one that is starting."""
        found = []
        for entry in os.listdir("/proc"):
            with suppress(OSError):
                if entry.isdigit() and self._path.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
        return found

    def play(self, rounds: int) -> None:
        """Attack a server `rounds` times; start a new one after each that has ended."""
        options = (
            "--data",
            str(self._folder / "data"),
            "--admin-socket",
            self._path,
            "--rate=0",
            "--idle-timeout=0",
        )
        left, is_first = rounds, True
        while left:
            with ServerProcess(*options) as server, ClientPool() as pool:
                wait_for(
                    "the storage is open", lambda server=server: bool(server.log_lines("storage-opened"))
                )  # type: ignore[misc]
                assert is_first or "epoch=kept" in server.log_lines("storage-opened")[0], server.log()
                is_first = False
                people = log_in(pool, server.address(), [f"p{number}" for number in range(_PEOPLE)])
                try:
                    while left and self._attack(pool, people):
                        left -= 1
                    left = max(0, left - 1)
                    assert "fault" not in server.log(), server.log()[-4_000:]
                finally:
                    for pid in self._pids():
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    wait_for("all have ended", lambda: not self._pids())

    def _attack(self, pool: ClientPool, people: list[Client]) -> bool:
        """Disturb one upgrade; False if no program serves afterwards."""
        (old,) = self._pids()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(self._path)
            asking.sendall(encode({"act": "upgrade"}))
            asking.setblocking(False)
            at = time.monotonic() + self._random.uniform(0, _LATEST_S)
            self._chat_until(pool, people, at)
            self._disturb(old)
            answer = b""
            while not answer.endswith(b"\n") or b"progress" in answer.splitlines()[-1]:
                self._chat_until(pool, people, time.monotonic() + 0.02)
                with suppress(BlockingIOError):
                    some = asking.recv(65_536)
                    if not some:
                        break
                    answer += some
        pool.wait_for("one serves, or none", self._is_settled)
        pids = self._pids()
        if not pids:
            self.run.ended += 1
            return False
        self.run.old_went_on += pids == [old]
        self.run.new_went_on += pids != [old]
        self._check(pool, people)
        return True

    def _is_settled(self) -> bool:
        """True when no program is left, or exactly one and it answers."""
        pids = self._pids()
        if len(pids) != 1:
            return not pids
        with socket.socket(socket.AF_UNIX) as asking, suppress(OSError):
            asking.settimeout(_LONGEST_STOP_S)
            asking.connect(self._path)
            asking.sendall(encode({"act": "status"}))
            return b'"done"' in asking.recv(65_536)
        return False

    def _disturb(self, old: int) -> None:
        others = [pid for pid in self._pids() if pid != old]
        is_new = bool(others) and self._random.random() < 0.7
        pid = others[0] if is_new else old
        with suppress(ProcessLookupError):
            if self._random.random() < 0.5:
                self.run.killed_new += is_new
                self.run.killed_old += not is_new
                os.kill(pid, signal.SIGKILL)
                return
            self.run.stopped_new += is_new
            self.run.stopped_old += not is_new
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._random.uniform(0, _LONGEST_STOP_S))
            os.kill(pid, signal.SIGCONT)

    def _chat_until(self, pool: ClientPool, people: list[Client], end: float) -> None:
        while time.monotonic() < end:
            people[0].send_lines(f"MSG {self.run.messages}")
            self.run.messages += 1
            pool.poll(0.005)

    def _check(self, pool: ClientPool, people: list[Client]) -> None:
        people[0].send_lines(f"MSG {self.run.messages}")
        last = b"MSG p0 %d\n" % self.run.messages
        self.run.messages += 1
        pool.wait_until_received(people[1:], last)
        for client in people:
            assert client.state is State.OPEN
        for client in people[1:]:
            numbers = [int(line[7:]) for line in client.lines if line.startswith(b"MSG p0 ")]
            first = numbers[0]
            assert numbers == list(range(first, first + len(numbers))), "a line is lost, doubled or reordered"
            assert numbers[-1] == self.run.messages - 1


def kills(rounds: int, seed: int) -> dict[str, int]:
    """Disturb `rounds` upgrades."""
    with tempfile.TemporaryDirectory() as folder:
        world = _World(Path(folder), seed)
        world.play(rounds)
        return asdict(world.run)
