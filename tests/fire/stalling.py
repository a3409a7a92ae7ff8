"""Clients that stop reading, on real sockets: they are dropped as slow, nobody waits for them, memory stays bounded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from tests.fire.crowd import Crowd, Peer, logged_in
from tests.fire.process import ServerProcess

_WORDS = "x" * 900
_RECEIVE_BYTES = 4_096
# However much the kernel keeps for a reader that is stuck, it is less than this for each.
_MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stalled:
    """What one run has shown."""

    readers: int
    stalled: int
    rounds: int
    # Rounds that all readers heard whole while every stalled client was still connected and reading nothing.
    rounds_beside: int
    # How much was said, and by how much the server has grown at most. Then the medians of a round without and beside them.
    owed_bytes: int
    grown_bytes: int
    round_before_s: float
    round_beside_s: float


def beside_stalled(readers: int, stalled: int, queue_bytes: int, a_round: int = 40) -> Stalled:
    """`readers` chat in rounds while `stalled` read nothing, until the last of those has been dropped."""
    options = (f"--max-queue={queue_bytes}", "--rate=0", "--max-per-address=10000", "--idle-timeout=0")
    with ServerProcess(*options) as server, Crowd() as crowd:
        people = logged_in(crowd, server.at(), [f"p{n}" for n in range(readers)])
        stuck: list[Peer] = []
        for n in range(stalled):
            peer = crowd.join(server.at(), receive_bytes=_RECEIVE_BYTES)
            peer.say(f"LOGIN stuck{n}")
            stuck.append(peer)
        crowd.until_heard(stuck, b"OK\n")
        chat = _Chat(crowd, people, a_round)
        before = [chat.round() for _ in range(5)]
        for peer in stuck:
            peer.stop_reading()
        at_first = server.resident_bytes
        most, gone = at_first, 0
        beside: list[float] = []
        while gone < stalled:
            took_s = chat.round()
            most = max(most, server.resident_bytes)
            gone = len(server.logged("disconnected"))
            if not gone:
                beside.append(took_s)
            assert chat.said_bytes < _MOST_BYTES, f"{stalled - gone} are still owed {chat.said_bytes} bytes"
        reasons = [line.rsplit("reason=", 1)[1] for line in server.logged("disconnected")]
        assert reasons == ["slow"] * stalled, reasons
        people[0].say("WHO", "PING done")
        crowd.until_heard(people[:1], b"PONG done\n")
        roster = {line for line in people[0].lines if line.startswith(b"USER ")}
        assert roster == {b"USER p%d" % n for n in range(readers)}
        chat.check([f"INFO stuck{n} disconnected".encode() for n in range(stalled)])
        return Stalled(
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
    """Rounds of talk; a round ends when everyone has heard the whole of it, so one client that waits would stop it."""

    def __init__(self, crowd: Crowd, people: list[Peer], lines: int) -> None:
        self._crowd = crowd
        self._people = people
        self._lines = lines
        self._said: list[list[bytes]] = []
        self.rounds = 0
        self.said_bytes = 0

    def round(self) -> float:
        """One person says so many lines; returns how long it took until all others had heard them."""
        speaker = self.rounds % len(self._people)
        lines = [f"{self.rounds}.{n} {_WORDS}" for n in range(self._lines)]
        began = time.monotonic()
        self._people[speaker].say(*[f"MSG {line}" for line in lines])
        wire = [f"MSG p{speaker} {line}".encode() for line in lines]
        others = [peer for n, peer in enumerate(self._people) if n != speaker]
        marks = {peer: len(peer.heard) for peer in others}
        waiting = set(others)

        def all_heard() -> bool:
            # Notices that others have been dropped may come behind it.
            waiting.difference_update([p for p in waiting if p.heard.find(wire[-1], marks[p]) >= 0])
            return not waiting

        self._crowd.until("everyone has heard the round", all_heard)
        self._said.append(wire)
        self.rounds += 1
        self.said_bytes += sum(map(len, wire)) + len(wire)
        return time.monotonic() - began

    def check(self, notices: list[bytes]) -> None:
        """Everyone has heard every line of the others once and in order, and each notice once."""
        for n, peer in enumerate(self._people):
            expected = [
                line for r, wire in enumerate(self._said) if r % len(self._people) != n for line in wire
            ]
            heard = peer.lines
            assert [line for line in heard if line.startswith(b"MSG ")] == expected, f"p{n}"
            assert sorted(line for line in heard if line.startswith(b"INFO ")) == sorted(notices), f"p{n}"
