"""Connections opened and torn down in every rude way, on real sockets, while well-behaved people chat and lose nothing."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.fire.crowd import Address, Crowd, Peer, logged_in
from tests.fire.garbage import piece_of_garbage
from tests.fire.process import PATIENCE_S, ServerProcess, eventually

_ABORT = struct.pack("ii", 1, 0)
_AT_ONCE = 50
# The interpreter keeps some of the memory that it has once needed; this is far below what one leak in each thousand costs.
_BREATH_BYTES = 12 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Survived:
    """What one run has shown; memory and descriptors before the first and after each round."""

    polite: int
    rude: int
    lines_said: int
    lines_heard: int
    descriptors: tuple[int, ...]
    resident_bytes: tuple[int, ...]


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    sock.close()


def _at_once(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.close()


def _reset_at_once(sock: socket.socket, name: str, rng: random.Random) -> None:
    _reset(sock)


def _half_a_line(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(b"LOGIN " + name.encode()[: rng.randrange(4)])
    rng.choice((_reset, socket.socket.close))(sock)


def _log_in_and_reset(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\n".encode())
    _reset(sock)


def _log_in_and_close(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\nMSG bye\n".encode())
    sock.close()


def _unread(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\n".encode() + b"WHO\n" * 50)
    rng.choice((_reset, socket.socket.close))(sock)


def _half_close(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\nWHO\n".encode())
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65_536):
        pass
    sock.close()


def _half_close_and_reset(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\nWHO\n".encode())
    sock.shutdown(socket.SHUT_WR)
    _reset(sock)


def _deaf(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.shutdown(socket.SHUT_RD)
    sock.sendall(f"LOGIN {name}\n".encode() + b"PING\n" * 20)
    sock.close()


def _answered_and_reset(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\n".encode())
    assert sock.recv(3)
    sock.sendall(b"MSG hello")
    _reset(sock)


def _quit_and_go_on(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\nQUIT\nMSG still here\n".encode())
    rng.choice((_reset, socket.socket.close))(sock)


def _garbage(sock: socket.socket, name: str, rng: random.Random) -> None:
    _, data = piece_of_garbage(rng)
    try:
        sock.sendall(data[:100_000])
    except OSError:
        pass  # It has been shown the door already.
    rng.choice((_reset, socket.socket.close))(sock)


def _out_of_band(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(b"LOG")
    sock.send(b"\xf2", socket.MSG_OOB)
    _reset(sock)


WAYS: tuple[Callable[[socket.socket, str, random.Random], None], ...] = (
    _at_once,
    _reset_at_once,
    _half_a_line,
    _log_in_and_reset,
    _log_in_and_close,
    _unread,
    _half_close,
    _half_close_and_reset,
    _deaf,
    _answered_and_reset,
    _quit_and_go_on,
    _garbage,
    _out_of_band,
)


def _behave(address: Address, number: int, rng: random.Random) -> None:
    sock = socket.socket()
    try:
        # From many addresses, as it would be; a port that waits out its end on one is free on the next.
        sock.bind((f"127.1.{number // 250 % 250}.{number % 250 + 1}", 0))
        sock.settimeout(PATIENCE_S)
        sock.connect(address)
        rng.choice(WAYS)(sock, f"rude{number}", rng)
    except (ConnectionError, TimeoutError):
        _reset(sock)
        raise
    finally:
        sock.close()


def endure(rude: int, rounds: int, polite: int, seed: int) -> Survived:
    """`rounds` times `rude` connections beside a chat of `polite` people; raises where anyone is wronged."""
    rng = random.Random(seed)
    with ServerProcess("--idle-timeout=0", "--rate=0", "--log-level=error") as server, Crowd() as crowd:
        people = logged_in(crowd, server.at(), [f"p{n}" for n in range(polite)])
        chat = _Chat(crowd, people)
        chat.everyone_speaks()
        descriptors, resident = [server.descriptors], [server.resident_bytes]
        number = 0
        for _ in range(rounds):
            for _ in range(0, rude, _AT_ONCE):
                for _ in range(_AT_ONCE):
                    _behave(server.at(), number, rng)
                    number += 1
                chat.everyone_speaks()
            eventually("every descriptor is closed", lambda: server.descriptors == descriptors[0])
            descriptors.append(server.descriptors)
            resident.append(server.resident_bytes)
        roster = chat.everyone_who_is_here()
        assert roster == {f"p{n}" for n in range(polite)}, roster
        heard = chat.check()
        assert resident[-1] - resident[0] < _BREATH_BYTES, f"{resident}"
        assert not server.log(), server.log()
        return Survived(polite, number, chat.said, heard, tuple(descriptors), tuple(resident))


class _Chat:
    """Polite people; a turn of theirs is over when everyone has heard all of it."""

    def __init__(self, crowd: Crowd, people: list[Peer]) -> None:
        self._crowd = crowd
        self._people = people
        self._order: list[bytes] = []
        self.said = 0

    def everyone_speaks(self) -> None:
        """One after the other, so that there is one right order of all that is heard."""
        for n, speaker in enumerate(self._people):
            speaker.say(f"MSG {self.said}")
            self._order.append(f"MSG p{n} {self.said}".encode())
            self.said += 1
            # The speaker's pong comes when its words have been handled: nobody else's come before them.
            speaker.say("PING")
            self._crowd.until_heard_since([speaker], b"PONG\n")
        self._crowd.until_heard_since(self._people[:-1], self._order[-1] + b"\n")

    def everyone_who_is_here(self) -> set[str]:
        """Those that the server names."""
        first = self._people[0]
        mark = len(first.heard)
        first.say("WHO", "PING all")
        self._crowd.until_heard_since([first], b"PONG all\n")
        return {
            line[5:].decode() for line in bytes(first.heard[mark:]).split(b"\n") if line.startswith(b"USER ")
        }

    def check(self) -> int:
        """Not one line lost, doubled or out of order; returns how many were heard."""
        heard = 0
        for n, peer in enumerate(self._people):
            mine = f"MSG p{n} ".encode()
            lines = [line for line in peer.lines if line.startswith(b"MSG p")]
            assert lines == [line for line in self._order if not line.startswith(mine)], (
                f"p{n} heard otherwise"
            )
            heard += len(lines)
        return heard
