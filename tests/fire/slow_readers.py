"""Clients that stop reading, on real sockets: they are dropped, the others never wait for them, and memory stays bounded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from tests.fire.clients import Client, ClientPool, log_in
from tests.fire.process import ServerProcess

_WORDS = "x" * 900
_RECEIVE_BYTES = 4_096
# However much the kernel keeps for a client that does not read, it is less than this for each.
_MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SlowReaders:
    """The result of one run."""

    readers: int
    stalled: int
    rounds: int
    # Rounds that all readers received whole while every stalled client was still connected.
    rounds_beside: int
    # How much was sent, and by how much the server grew at most; the median of a round without and beside them.
    said_bytes: int
    grown_bytes: int
    round_before_s: float
    round_beside_s: float


def slow_readers(readers: int, stalled: int, queue_bytes: int, lines_per_round: int = 40) -> SlowReaders:
    """`readers` chat in rounds while `stalled` clients read nothing, until the last of those has been dropped."""
    options = (f"--max-queue={queue_bytes}", "--rate=0", "--max-per-address=10000", "--idle-timeout=0")
    with ServerProcess(*options) as server, ClientPool() as pool:
        members = log_in(pool, server.address(), [f"p{n}" for n in range(readers)])
        stuck: list[Client] = []
        for n in range(stalled):
            client = pool.connect(server.address(), receive_bytes=_RECEIVE_BYTES)
            client.send_lines(f"LOGIN stuck{n}")
            stuck.append(client)
        pool.wait_until_received(stuck, b"OK\n")
        chat = _Chat(pool, members, lines_per_round)
        before = [chat.round() for _ in range(5)]
        for client in stuck:
            client.stop_reading()
        at_first = server.resident_bytes
        most, gone = at_first, 0
        beside: list[float] = []
        while gone < stalled:
            took_s = chat.round()
            most = max(most, server.resident_bytes)
            gone = len(server.log_lines("disconnected"))
            if not gone:
                beside.append(took_s)
            assert chat.said_bytes < _MOST_BYTES, (
                f"{stalled - gone} still have {chat.said_bytes} bytes pending"
            )
        reasons = [line.rsplit("reason=", 1)[1] for line in server.log_lines("disconnected")]
        assert reasons == ["slow"] * stalled, reasons
        members[0].send_lines("WHO", "PING done")
        pool.wait_until_received(members[:1], b"PONG done\n")
        roster = {line for line in members[0].lines if line.startswith(b"USER ")}
        assert roster == {b"USER p%d" % n for n in range(readers)}
        chat.check([f"INFO stuck{n} disconnected".encode() for n in range(stalled)])
        return SlowReaders(
            readers,
            stalled,
            chat.rounds,
            len(beside),
            chat.said_bytes,
            most - at_first,
            median(before),
            median(beside),
        )


class _Chat:
    """Rounds of talk; a round ends when everyone has received the whole of it, so one that waits would stop it."""

    def __init__(self, pool: ClientPool, members: list[Client], lines: int) -> None:
        self._pool = pool
        self._members = members
        self._lines = lines
        self._said: list[list[bytes]] = []
        self.rounds = 0
        self.said_bytes = 0

    def round(self) -> float:
        """One member sends lines; returns how long it took until all others had received them."""
        speaker = self.rounds % len(self._members)
        lines = [f"{self.rounds}.{n} {_WORDS}" for n in range(self._lines)]
        began = time.monotonic()
        self._members[speaker].send_lines(*[f"MSG {line}" for line in lines])
        wire = [f"MSG p{speaker} {line}".encode() for line in lines]
        others = [client for n, client in enumerate(self._members) if n != speaker]
        marks = {client: len(client.received) for client in others}
        waiting = set(others)

        def all_received() -> bool:
            # Notices that others have been dropped can follow it.
            waiting.difference_update([c for c in waiting if c.received.find(wire[-1], marks[c]) >= 0])
            return not waiting

        self._pool.wait_for("everyone has received the round", all_received)
        self._said.append(wire)
        self.rounds += 1
        self.said_bytes += sum(map(len, wire)) + len(wire)
        return time.monotonic() - began

    def check(self, notices: list[bytes]) -> None:
        """Everyone has received every line of the others once and in order, and each notice once."""
        for n, member in enumerate(self._members):
            expected = [
                line for r, wire in enumerate(self._said) if r % len(self._members) != n for line in wire
            ]
            lines = member.lines
            assert [line for line in lines if line.startswith(b"MSG ")] == expected, f"p{n}"
            assert sorted(line for line in lines if line.startswith(b"INFO ")) == sorted(notices), f"p{n}"
