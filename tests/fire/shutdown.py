"""Signals in the middle of traffic: what was accepted is delivered, everyone gets the notice and an orderly end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.fire.clients import Client, ClientPool, State, log_in
from tests.fire.process import ServerProcess

_NOTICE = b"INFO server-shutdown"
_LINES_AT_THE_END = 3
# More than any kernel keeps for a client that does not read, and less than the server does here.
_STUCK_ROUNDS = 120
_STUCK_QUEUE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The result of one run."""

    clients: int
    received_lines: int
    exit_code: int


def signal_in_traffic(clients: int, signum: signal.Signals, lines_before: int = 2_000) -> Shutdown:
    """All clients talk without a pause, and the signal comes in the middle of it."""
    with ServerProcess("--rate=0") as server, ClientPool() as pool:
        members = log_in(pool, server.address(), [f"p{n}" for n in range(clients)])
        talk = _Talk(members)
        pool.wait_for(
            "the talk has begun", talk.until(lambda: members[0].received.count(b"\n") >= lines_before)
        )
        server.signal(signum)
        # Input that the server has not read when it closes would cause a reset instead of a FIN.
        talk.send(_LINES_AT_THE_END)
        pool.wait_for(
            "every connection has ended",
            talk.until(lambda: all(client.state is not State.OPEN for client in members)),
        )
        code = server.exit_code()
        server.wait_for_output("Server stopped.")
        assert code == 0, code
        return Shutdown(clients, _check_agreement(members, talk.sent), code)


class _Talk:
    """Everyone sends numbered lines, the next one as soon as the server has taken the last."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients
        self.sent = [0] * len(clients)

    def send(self, lines: int) -> None:
        """This many lines from everyone, at once."""
        for n, client in enumerate(self._clients):
            client.send_lines(*[f"MSG {number}" for number in range(self.sent[n], self.sent[n] + lines)])
            self.sent[n] += lines

    def until(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """The condition; each time it does not hold, everyone talks on."""

        def talk() -> bool:
            if condition():
                return True
            for n, client in enumerate(self._clients):
                if client.state is State.OPEN and not client.unsent:
                    client.send_lines(f"MSG {self.sent[n]}")
                    self.sent[n] += 1
            return False

        return talk


def _check_agreement(clients: list[Client], sent: list[int]) -> int:
    """Everyone has received the same lines in the same order, none missing; returns how many in all."""
    accepted = [0] * len(clients)
    received: list[list[tuple[int, int]]] = []
    for client in clients:
        assert client.state is State.FIN, f"reset, after {bytes(client.received[-80:])!r}"
        assert client.received.endswith(_NOTICE + b"\n"), bytes(client.received[-80:])
        lines = client.lines[1:-1]
        messages = [line.split(b" ") for line in lines]
        assert all(len(words) == 3 and words[0] == b"MSG" for words in messages), lines[-3:]
        received.append([(int(name[1:]), int(number)) for _, name, number in messages])
    for messages_of_one in received:
        for speaker, number in messages_of_one:
            accepted[speaker] = max(accepted[speaker], number + 1)
    # Everyone logged in before the first line, so each has received every accepted line of the others.
    for n, messages_of_one in enumerate(received):
        counted = [0] * len(clients)
        for speaker, number in messages_of_one:
            assert number == counted[speaker], (
                f"p{n} received {number} of p{speaker}, expected {counted[speaker]}"
            )
            counted[speaker] += 1
        expected = [0 if speaker == n else count for speaker, count in enumerate(accepted)]
        assert counted == expected, f"p{n} received other counts than the others"
    assert all(count <= count_sent for count, count_sent in zip(accepted, sent, strict=True))
    # One order for all: two clients differ only in their own lines.
    for n, messages_of_one in enumerate(received[1:], start=1):
        without_first = [message for message in messages_of_one if message[0] != 0]
        assert without_first == [message for message in received[0] if message[0] != n], (
            f"p{n} differs from p0"
        )
    return sum(map(len, received))


def stuck_client(shutdown_s: float, second: signal.Signals | None) -> int:
    """A client that reads nothing delays the shutdown; a second signal can follow. Returns the exit code."""
    with (
        ServerProcess(
            f"--shutdown-timeout={shutdown_s}",
            f"--max-queue={_STUCK_QUEUE_BYTES}",
            "--rate=0",
            "--idle-timeout=0",
        ) as server,
        ClientPool() as pool,
    ):
        speaker, other = log_in(pool, server.address(), ["speaker", "other"])
        stuck = pool.connect(server.address(), receive_bytes=4096)
        stuck.send_lines("LOGIN stuck")
        pool.wait_until_received([stuck], b"OK\n")
        stuck.stop_reading()
        for n in range(_STUCK_ROUNDS):
            speaker.send_lines(*[f"MSG {'x' * 1000}"] * 100, f"DM other {n}")
            pool.wait_until_received([other], f"DM speaker {n}\n".encode())
        server.signal(signal.SIGTERM)
        server.wait_for_output("Shutting down...")
        if second is not None:
            server.signal(second)
        return server.exit_code()
