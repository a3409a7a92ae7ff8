"""Connections torn down in every abrupt way, on real sockets, while well-behaved clients chat and lose nothing."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.fire.clients import Address, Client, ClientPool, log_in
from tests.fire.garbage import random_garbage
from tests.fire.process import ServerProcess, wait_for
from tests.patience import HANG_S

_ABORT = struct.pack("ii", 1, 0)
_BATCH = 50
# The interpreter keeps some memory it has once used; this is far below one leak in each thousand connections.
_SLACK_BYTES = 12 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Disconnects:
    """The result of one run; memory and descriptors before the first round and after each."""

    members: int
    disconnects: int
    lines_said: int
    lines_received: int
    descriptors: tuple[int, ...]
    resident_bytes: tuple[int, ...]


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    sock.close()


def _close_at_once(sock: socket.socket, name: str, rng: random.Random) -> None:
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


def _unread_answers(sock: socket.socket, name: str, rng: random.Random) -> None:
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


def _shut_down_reading(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.shutdown(socket.SHUT_RD)
    sock.sendall(f"LOGIN {name}\n".encode() + b"PING\n" * 20)
    sock.close()


def _read_answer_and_reset(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\n".encode())
    assert sock.recv(3)
    sock.sendall(b"MSG hello")
    _reset(sock)


def _quit_and_continue(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(f"LOGIN {name}\nQUIT\nMSG still here\n".encode())
    rng.choice((_reset, socket.socket.close))(sock)


def _garbage(sock: socket.socket, name: str, rng: random.Random) -> None:
    _, data = random_garbage(rng)
    try:
        sock.sendall(data[:100_000])
    except OSError:
        pass  # The server has closed already.
    rng.choice((_reset, socket.socket.close))(sock)


def _out_of_band(sock: socket.socket, name: str, rng: random.Random) -> None:
    sock.sendall(b"LOG")
    sock.send(b"\xf2", socket.MSG_OOB)
    _reset(sock)


WAYS: tuple[Callable[[socket.socket, str, random.Random], None], ...] = (
    _close_at_once,
    _reset_at_once,
    _half_a_line,
    _log_in_and_reset,
    _log_in_and_close,
    _unread_answers,
    _half_close,
    _half_close_and_reset,
    _shut_down_reading,
    _read_answer_and_reset,
    _quit_and_continue,
    _garbage,
    _out_of_band,
)


def _connect_and_disconnect(address: Address, number: int, rng: random.Random) -> None:
    sock = socket.socket()
    try:
        # From many addresses, as it would be; a port in TIME_WAIT on one is free on the next.
        sock.bind((f"127.1.{number // 250 % 250}.{number % 250 + 1}", 0))
        sock.settimeout(HANG_S)
        sock.connect(address)
        rng.choice(WAYS)(sock, f"abrupt{number}", rng)
    except (ConnectionError, TimeoutError):
        _reset(sock)
        raise
    finally:
        sock.close()


def disconnects(count: int, rounds: int, members: int, seed: int) -> Disconnects:
    """`rounds` times `count` connections beside a chat of `members`."""
    rng = random.Random(seed)
    with ServerProcess("--idle-timeout=0", "--rate=0", "--log-level=error") as server, ClientPool() as pool:
        chat = _Chat(pool, log_in(pool, server.address(), [f"p{n}" for n in range(members)]))
        chat.everyone_speaks()
        descriptors, resident = [server.descriptors], [server.resident_bytes]
        number = 0
        for _ in range(rounds):
            for _ in range(0, count, _BATCH):
                for _ in range(_BATCH):
                    _connect_and_disconnect(server.address(), number, rng)
                    number += 1
                chat.everyone_speaks()
            wait_for("every descriptor is closed", lambda: server.descriptors == descriptors[0])
            descriptors.append(server.descriptors)
            resident.append(server.resident_bytes)
        roster = chat.roster()
        assert roster == {f"p{n}" for n in range(members)}, roster
        received = chat.check()
        assert resident[-1] - resident[0] < _SLACK_BYTES, f"{resident}"
        assert not server.log(), server.log()
        return Disconnects(members, number, chat.said, received, tuple(descriptors), tuple(resident))


class _Chat:
    """Well-behaved members; a round ends when everyone has received all of it."""

    def __init__(self, pool: ClientPool, members: list[Client]) -> None:
        self._pool = pool
        self._members = members
        self._order: list[bytes] = []
        self.said = 0

    def everyone_speaks(self) -> None:
        """One after the other, so that there is one right order of everything that is received."""
        for n, speaker in enumerate(self._members):
            speaker.send_lines(f"MSG {self.said}")
            self._order.append(f"MSG p{n} {self.said}".encode())
            self.said += 1
            # When the PING is answered, the message before it has been handled.
            speaker.send_lines("PING")
            self._pool.wait_until_found([speaker], b"PONG\n")
        self._pool.wait_until_found(self._members[:-1], self._order[-1] + b"\n")

    def roster(self) -> set[str]:
        """The names that are logged in, according to the server."""
        first = self._members[0]
        mark = len(first.received)
        first.send_lines("WHO", "PING all")
        self._pool.wait_until_found([first], b"PONG all\n")
        lines = bytes(first.received[mark:]).split(b"\n")
        return {line[5:].decode() for line in lines if line.startswith(b"USER ")}

    def check(self) -> int:
        """No line was lost, doubled or reordered; returns how many were received."""
        received = 0
        for n, member in enumerate(self._members):
            own = f"MSG p{n} ".encode()
            lines = [line for line in member.lines if line.startswith(b"MSG p")]
            assert lines == [line for line in self._order if not line.startswith(own)], f"p{n} differs"
            received += len(lines)
        return received
