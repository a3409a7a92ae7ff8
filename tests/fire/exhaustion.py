"""Resources that run out: open files, and the kernel's queue of connections that have not been accepted."""

from __future__ import annotations

import errno
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fire.clients import Address, Client, ClientPool, State, log_in
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess, wait_for
from tests.patience import HANG_S

_SPARE = 3
# The response to any request before login.
_ANSWER = b"ERR must-login-first\n"


@dataclass(frozen=True, slots=True)
class Recovery:
    """The result of one run; seconds from the moment the resource was free until the last client was served."""

    served: int
    waited: int
    recovered_s: float


def out_of_files(clients: int, newcomers: int) -> Recovery:
    """The limit on open files falls below the need: old clients are served, new ones wait until it rises."""
    with ServerProcess("--idle-timeout=0", "--rate=0") as server, ClientPool() as pool:
        old = log_in(pool, server.address(), [f"p{n}" for n in range(clients)])
        plenty = 1_000
        server.limit_files(server.descriptors + _SPARE)
        first, late = _newcomers(pool, server.address(), newcomers)
        wait_for("the log says that accepting has paused", lambda: bool(server.log_lines("accept-paused")))
        pool.wait_for(
            "those with a descriptor are served", lambda: all(client.received == _ANSWER for client in first)
        )
        before_cpu = server.cpu_s
        began = time.monotonic()
        _chat(pool, old, "no free descriptor", 20)
        assert not any(client.received or client.state is not State.OPEN for client in late), (
            "a client was accepted or refused without a free descriptor"
        )
        server.limit_files(plenty)
        freed = time.monotonic()
        pool.wait_for("the late ones are served", lambda: all(client.received == _ANSWER for client in late))
        recovered_s = time.monotonic() - freed
        # It must not spin while it waits; a whole processor would be as much as the time that has passed.
        assert server.cpu_s - before_cpu < max(0.5, 0.9 * (time.monotonic() - began))
        wait_for("the log says that accepting has resumed", lambda: bool(server.log_lines("accept-resumed")))
        assert len(server.log_lines("accept-paused")) == 1, "the log repeats itself"
        _chat(pool, old, "free descriptors again", 5)
        assert all(client.state is State.OPEN for client in old)
        return Recovery(clients, len(late), recovered_s)


def descriptor_freed(clients: int) -> None:
    """Without a free descriptor one client waits; when another leaves, the waiting one is served at once."""
    with ServerProcess("--idle-timeout=0", "--rate=0") as server, ClientPool() as pool:
        old = log_in(pool, server.address(), [f"p{n}" for n in range(clients)])
        server.limit_files(server.descriptors)
        waiting = pool.connect(server.address())
        waiting.send_lines("PING")
        wait_for("the log says that accepting has paused", lambda: bool(server.log_lines("accept-paused")))
        _chat(pool, old, "one waits", 5)
        assert not waiting.received
        old.pop().close()
        pool.wait_for("the waiting client is served", lambda: waiting.received == _ANSWER)


def lowered_client_limit(files: int, newcomers: int) -> int:
    """A server with few descriptors serves as many clients as it can and refuses the others; returns how many."""
    with ServerProcess("--idle-timeout=0", "--rate=0", files=files) as server, ClientPool() as pool:
        wait_for("the log says so", lambda: bool(server.log_lines("client-limit-lowered")))
        limit = int(server.log_lines("client-limit-lowered")[0].rsplit("clients=", 1)[1])
        clients = []
        for n in range(newcomers):
            client = pool.connect(server.address())
            client.send_lines(f"LOGIN p{n}")
            clients.append(client)
            # One after the other: of a crowd, those beyond `lingering` would be closed without a notice.
            pool.wait_for("it is served or refused", lambda client=client: bool(client.received))  # type: ignore[misc]
        refused = [client for client in clients if client.received == b"ERR server-full\n"]
        served = [client for client in clients if client.received == b"OK\n"]
        assert len(served) == limit
        assert len(refused) == newcomers - limit
        pool.wait_for(
            "the others are closed", lambda: all(client.state is not State.OPEN for client in refused)
        )
        assert all(client.state is State.FIN for client in refused), "reset before it could read the notice"
        assert not server.log_lines("accept-paused")
        _chat(pool, served, "the server is full", 5)
        # When one leaves, its slot is free at once.
        served.pop().close()
        wait_for("the slot is free", lambda: len(server.log_lines("disconnected")) == 1)
        another = pool.connect(server.address())
        another.send_lines("LOGIN another")
        pool.wait_until_received([another], b"OK\n")
        return limit


def full_accept_queue(beyond: int) -> Recovery:
    """The server is stopped until the kernel's queue is full and connecting itself waits; then it serves everyone."""
    backlog = min(4_096, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    options = ("--idle-timeout=0", f"--max-per-address={2 * backlog}", "--log-level=warning")
    with ServerProcess(*options, *NO_ADDRESS_RATES) as server, ClientPool() as pool:
        old = log_in(pool, server.address(), ["old", "other"])
        with _suspended(server):
            # The kernel accepts one more than its limit.
            queued = [pool.connect(server.address()) for _ in range(backlog + 1)]
            for client in queued:
                client.send_lines("PING")
            waiting = [_begin_connecting(server.address()) for _ in range(beyond)]
            assert all(sock.connect_ex(server.address()) == errno.EALREADY for sock in waiting), (
                "the queue was not full"
            )
        freed = time.monotonic()
        _chat(pool, old, "running again", 3)
        pool.wait_for("the queue is served", lambda: all(client.received == _ANSWER for client in queued))
        recovered_s = time.monotonic() - freed
        for sock in waiting:
            with sock:
                sock.settimeout(HANG_S)
                # The kernel retries by itself, after a second.
                wait_for("the connection is established", lambda sock=sock: _is_connected(sock))  # type: ignore[misc]
                sock.sendall(b"PING\n")
                assert sock.recv(100) == _ANSWER
        return Recovery(len(queued), beyond, recovered_s)


def _begin_connecting(address: Address) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex(address) == errno.EINPROGRESS
    return sock


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


@contextmanager
def _suspended(server: ServerProcess) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        wait_for("the server is suspended", lambda: _process_state(server.pid) == "T")
        yield
    finally:
        server.signal(signal.SIGCONT)


def _process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def _newcomers(pool: ClientPool, address: Address, count: int) -> tuple[list[Client], list[Client]]:
    clients = [pool.connect(address) for _ in range(count)]
    for client in clients:
        client.send_lines("PING")
    return clients[:_SPARE], clients[_SPARE:]


def _chat(pool: ClientPool, clients: list[Client], words: str, times: int) -> None:
    for n in range(times):
        clients[0].send_lines(f"MSG {words} {n}")
        pool.wait_until_received(clients[1:], f" {words} {n}\n".encode())
