"""Signals in the middle of traffic: what was accepted is delivered, everyone is told, every connection ends in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.fire.crowd import Crowd, Fate, Peer, logged_in
from tests.fire.process import ServerProcess

_NOTICE = b"INFO server-shutdown"
_AT_THE_END = 3
# More than any kernel keeps for a reader that is stuck, and less than the server does here.
_STUCK_ROUNDS = 120
_STUCK_QUEUE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stopped:
    """What one run has shown."""

    clients: int
    heard_lines: int
    exit_code: int


def in_traffic(clients: int, signum: signal.Signals, lines_before: int = 2_000) -> Stopped:
    """All clients talk without a pause, the signal comes in the middle of it; raises where anyone is wronged."""
    with ServerProcess("--rate=0") as server, Crowd() as crowd:
        people = logged_in(crowd, server.at(), [f"p{n}" for n in range(clients)])
        talk = _Talk(people)
        crowd.until("the talk is under way", talk.on(lambda: people[0].heard.count(b"\n") >= lines_before))
        server.signal(signum)
        # What the server has not read when it closes is what would turn an orderly end into a reset.
        talk.more(_AT_THE_END)
        crowd.until(
            "everyone's connection has ended", talk.on(lambda: all(p.fate is not Fate.OPEN for p in people))
        )
        code = server.exit_code()
        server.says("Server stopped.")
        assert code == 0, code
        return Stopped(clients, _agree(people, talk.said), code)


class _Talk:
    """Everyone says numbered lines, and the next one as soon as the server has taken the last."""

    def __init__(self, people: list[Peer]) -> None:
        self._people = people
        self.said = [0] * len(people)

    def more(self, lines: int) -> None:
        """So many lines of everyone, at once."""
        for n, peer in enumerate(self._people):
            peer.say(*[f"MSG {number}" for number in range(self.said[n], self.said[n] + lines)])
            self.said[n] += lines

    def on(self, is_so: Callable[[], bool]) -> Callable[[], bool]:
        """Go on talking until it is so."""

        def talk() -> bool:
            if is_so():
                return True
            for n, peer in enumerate(self._people):
                if peer.fate is Fate.OPEN and not peer.unsent:
                    peer.say(f"MSG {self.said[n]}")
                    self.said[n] += 1
            return False

        return talk


def _agree(people: list[Peer], said: list[int]) -> int:
    """Everyone has heard the same lines of the same people in the same order, none missing; returns how many in all."""
    accepted = [0] * len(people)
    heard: list[list[tuple[int, int]]] = []
    for peer in people:
        assert peer.fate is Fate.FIN, f"reset, after {bytes(peer.heard[-80:])!r}"
        assert peer.heard.endswith(_NOTICE + b"\n"), bytes(peer.heard[-80:])
        lines = peer.lines[1:-1]
        messages = [line.split(b" ") for line in lines]
        assert all(len(words) == 3 and words[0] == b"MSG" for words in messages), lines[-3:]
        heard.append([(int(name[1:]), int(number)) for _, name, number in messages])
    for listener in heard:
        for speaker, number in listener:
            accepted[speaker] = max(accepted[speaker], number + 1)
    # Everyone came in before the first word, so each has heard all that was accepted of everyone else.
    for n, listener in enumerate(heard):
        counted = [0] * len(people)
        for speaker, number in listener:
            assert number == counted[speaker], (
                f"p{n} heard {number} of p{speaker}, expected {counted[speaker]}"
            )
            counted[speaker] += 1
        expected = [0 if speaker == n else count for speaker, count in enumerate(accepted)]
        assert counted == expected, f"p{n} heard other counts than the others"
    assert all(count <= sent for count, sent in zip(accepted, said, strict=True))
    # One order of all: two listeners differ in nothing but their own words.
    for n, listener in enumerate(heard[1:], start=1):
        assert [w for w in listener if w[0] != 0] == [w for w in heard[0] if w[0] != n], f"p{n} and p0 differ"
    return sum(map(len, heard))


def stuck_at_the_end(shutdown_s: float, again: signal.Signals | None) -> int:
    """A client that reads nothing holds up the end; a second signal may come. Returns the exit code."""
    with (
        ServerProcess(
            f"--shutdown-timeout={shutdown_s}",
            f"--max-queue={_STUCK_QUEUE_BYTES}",
            "--rate=0",
            "--idle-timeout=0",
        ) as server,
        Crowd() as crowd,
    ):
        speaker, other = logged_in(crowd, server.at(), ["speaker", "other"])
        stuck = crowd.join(server.at(), receive_bytes=4096)
        stuck.say("LOGIN stuck")
        crowd.until_heard([stuck], b"OK\n")
        stuck.stop_reading()
        for n in range(_STUCK_ROUNDS):
            speaker.say(*[f"MSG {'x' * 1000}"] * 100, f"DM other {n}")
            crowd.until_heard([other], f"DM speaker {n}\n".encode())
        server.signal(signal.SIGTERM)
        server.says("Shutting down...")
        if again is not None:
            server.signal(again)
        return server.exit_code()
