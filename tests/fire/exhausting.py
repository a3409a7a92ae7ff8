"""What runs out for real: open files, the kernel's queue of connections that nobody has accepted yet."""

from __future__ import annotations

import errno
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fire.crowd import Address, Crowd, Fate, Peer, logged_in
from tests.fire.process import PATIENCE_S, ServerProcess, eventually

_SPARE = 3
# What a newcomer hears who asks anything before it has a name.
_ANSWER = b"ERR must-login-first\n"


@dataclass(frozen=True, slots=True)
class Exhausted:
    """What one run has shown; seconds from the moment at which there was room again until the last was served."""

    served: int
    waited: int
    recovered_s: float


def out_of_files(clients: int, newcomers: int) -> Exhausted:
    """The limit on open files falls below what is needed: the old are served, the new wait, and are served when it rises."""
    with ServerProcess("--idle-timeout=0", "--rate=0") as server, Crowd() as crowd:
        people = logged_in(crowd, server.at(), [f"p{n}" for n in range(clients)])
        plenty = 1_000
        server.allow_files(server.descriptors + _SPARE)
        first, late = _arrivals(crowd, server.at(), newcomers)
        eventually("the server says that it waits", lambda: bool(server.logged("accept-paused")))
        crowd.until(
            "those for whom there was room are served", lambda: all(p.heard == _ANSWER for p in first)
        )
        before_cpu = server.cpu_s
        began = time.monotonic()
        _everyone_hears(crowd, people, "while there is no room", 20)
        assert not any(peer.heard or peer.fate is not Fate.OPEN for peer in late), (
            "somebody came in, or was sent away"
        )
        server.allow_files(plenty)
        freed = time.monotonic()
        crowd.until("all the late ones are served", lambda: all(peer.heard == _ANSWER for peer in late))
        recovered_s = time.monotonic() - freed
        # It must not spin while it waits; a whole processor would be as much as the time that has passed.
        assert server.cpu_s - before_cpu < max(0.5, 0.9 * (time.monotonic() - began))
        eventually("the server says that it goes on", lambda: bool(server.logged("accept-resumed")))
        assert len(server.logged("accept-paused")) == 1, "the log says it again and again"
        _everyone_hears(crowd, people, "when there is room again", 5)
        assert all(peer.fate is Fate.OPEN for peer in people)
        return Exhausted(clients, len(late), recovered_s)


def room_by_leaving(clients: int) -> None:
    """No more files, and one who is served leaves: the one who waits has the place at once."""
    with ServerProcess("--idle-timeout=0", "--rate=0") as server, Crowd() as crowd:
        people = logged_in(crowd, server.at(), [f"p{n}" for n in range(clients)])
        server.allow_files(server.descriptors)
        waiting = crowd.join(server.at())
        waiting.say("PING")
        eventually("the server says that it waits", lambda: bool(server.logged("accept-paused")))
        _everyone_hears(crowd, people, "one waits", 5)
        assert not waiting.heard
        people.pop().close()
        crowd.until("the one who waited is served", lambda: waiting.heard == _ANSWER)


def too_few_from_the_start(files: int, newcomers: int) -> int:
    """A server that may open few files takes as many as it can serve and tells the others; returns how many it took."""
    with ServerProcess("--idle-timeout=0", "--rate=0", files=files) as server, Crowd() as crowd:
        eventually("the server says so", lambda: bool(server.logged("client-limit-lowered")))
        most = int(server.logged("client-limit-lowered")[0].rsplit("clients=", 1)[1])
        peers = []
        for n in range(newcomers):
            peer = crowd.join(server.at())
            peer.say(f"LOGIN p{n}")
            peers.append(peer)
            # In a crowd that all come at once, those beyond `closing` would be shown out without a word.
            crowd.until("it is served or told", lambda peer=peer: bool(peer.heard))  # type: ignore[misc]
        told = [peer for peer in peers if peer.heard == b"ERR server-full\n"]
        taken = [peer for peer in peers if peer.heard == b"OK\n"]
        assert len(taken) == most
        assert len(told) == newcomers - most
        crowd.until("the others are shown out", lambda: all(peer.fate is not Fate.OPEN for peer in told))
        assert all(peer.fate is Fate.FIN for peer in told), "reset before it could read why"
        assert not server.logged("accept-paused")
        _everyone_hears(crowd, taken, "we are full", 5)
        # And at once there is room again where somebody leaves.
        taken.pop().close()
        eventually("the place is free", lambda: len(server.logged("disconnected")) == 1)
        again = crowd.join(server.at())
        again.say("LOGIN again")
        crowd.until_heard([again], b"OK\n")
        return most


def full_queue(beyond: int) -> Exhausted:
    """The server stands still, the kernel's queue fills until connecting itself waits; then it goes on and serves all."""
    backlog = min(4_096, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    limit = f"--max-per-address={2 * backlog}"
    with ServerProcess("--idle-timeout=0", limit, "--log-level=warning") as server, Crowd() as crowd:
        old = logged_in(crowd, server.at(), ["old", "other"])
        with _standing_still(server):
            # The kernel takes one more than it was told.
            queued = [crowd.join(server.at()) for _ in range(backlog + 1)]
            for peer in queued:
                peer.say("PING")
            waiting = [_knock(server.at()) for _ in range(beyond)]
            assert all(sock.connect_ex(server.at()) == errno.EALREADY for sock in waiting), (
                "the queue was not full"
            )
        freed = time.monotonic()
        _everyone_hears(crowd, old, "we go on", 3)
        crowd.until("all who were queued are served", lambda: all(peer.heard == _ANSWER for peer in queued))
        recovered_s = time.monotonic() - freed
        for sock in waiting:
            with sock:
                sock.settimeout(PATIENCE_S)
                # The kernel asks again by itself, after a second.
                eventually("the connection is made", lambda sock=sock: _is_made(sock))  # type: ignore[misc]
                sock.sendall(b"PING\n")
                assert sock.recv(100) == _ANSWER
        return Exhausted(len(queued), beyond, recovered_s)


def _knock(address: Address) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex(address) == errno.EINPROGRESS
    return sock


def _is_made(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


@contextmanager
def _standing_still(server: ServerProcess) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        eventually("the server stands still", lambda: _state(server.pid) == "T")
        yield
    finally:
        server.signal(signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def _arrivals(crowd: Crowd, address: Address, newcomers: int) -> tuple[list[Peer], list[Peer]]:
    peers = [crowd.join(address) for _ in range(newcomers)]
    for peer in peers:
        peer.say("PING")
    return peers[:_SPARE], peers[_SPARE:]


def _everyone_hears(crowd: Crowd, people: list[Peer], words: str, times: int) -> None:
    for n in range(times):
        people[0].say(f"MSG {words} {n}")
        crowd.until_heard(people[1:], f" {words} {n}\n".encode())
