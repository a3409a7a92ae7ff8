"""Clients that request much and read nothing, and clients that never finish a line: what the server keeps for them."""

from __future__ import annotations

from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from tests.fire.clients import ClientPool
from tests.fire.leaks import leftovers
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess, wait_for
from tests.fire.simulation import simulate

_SOCKET_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class UnreadAnswers:
    """The result of one run."""

    requests: int
    answer_bytes: int
    most_kept_bytes: int


def unread_answers(members: int, requests: int) -> UnreadAnswers:
    """One client sends WHO again and again and reads no answer, while two others chat; in virtual time."""
    limits = Limits(clients_per_address=members + 10, lines_per_s=0)
    config = Config(listen=(Listen("line", "127.0.0.1", 0),), idle_s=0, limits=limits)
    with simulate(config) as simulation:
        clients = [simulation.connect() for _ in range(members)]
        for n, client in enumerate(clients):
            client.send_lines(f"LOGIN p{n}")
        simulation.run_until_idle()
        requester = simulation.connect(buffer_bytes=_SOCKET_BYTES)
        requester.send_lines("LOGIN requester")
        simulation.run_until_idle()
        subscribers = [connection._subscriber for connection in simulation.server._connections.open.values()]
        requester.stop_reading()
        most = 0
        for n in range(requests):
            requester.try_send_line("WHO")
            simulation.run_until_idle()
            most = max(most, sum(subscriber.backlog_bytes for subscriber in subscribers))
            if not n % 100:
                mark = len(clients[1].received)
                clients[0].send_lines(f"MSG {n}")
                simulation.run_until_idle()
                assert clients[1].received[mark:] == f"MSG p0 {n}\n".encode()
        answer = sum(len(f"USER p{n}\n") for n in range(members)) + len("USER requester\n")
        for client in (*clients, requester):
            client.close()
        simulation.advance(60)
        assert not leftovers(simulation), leftovers(simulation)
        return UnreadAnswers(requests, answer, most)


@dataclass(frozen=True, slots=True)
class UnfinishedLines:
    """The result of one run: what the server keeps for each unfinished line, besides what a connection costs."""

    clients: int
    sent_bytes: int
    kept_bytes_each: int
    more_bytes_each: int
    """When each has sent as much again. The allocator has then grown to the size that it needs."""


def unfinished_lines(clients: int, sent_bytes: int) -> UnfinishedLines:
    """Every client sends the beginning of a line in pieces and never its end, then as much again; on real sockets."""
    options = (f"--max-clients={clients + 10}", f"--max-per-address={clients + 10}", "--idle-timeout=0")
    with ServerProcess(*options, *NO_ADDRESS_RATES) as server, ClientPool() as pool:
        connected = [pool.connect(server.address()) for _ in range(clients)]
        for client in connected:
            client.send_lines("PING")
        pool.wait_for("every PING is answered", lambda: all(client.received for client in connected))
        grown = []
        for _ in range(2):
            before = server.resident_bytes
            for _ in range(4):
                for client in connected[:clients]:
                    client.send(b"MSG " + b"x" * (sent_bytes // 4 - 4))
            pool.wait_for("everything is sent", lambda: not any(client.unsent for client in connected))
            wait_for("everything is read", lambda: server.unread_bytes == 0)
            # When one more client is answered, what was read has been dealt with.
            last = pool.connect(server.address())
            last.send_lines("PING")
            pool.wait_for("the last PING is answered", lambda last=last: bool(last.received))
            grown.append((server.resident_bytes - before) // clients)
            connected.append(last)
        for client in connected:
            client.close()
        wait_for("every connection is closed", lambda: server.descriptors < 20)
        return UnfinishedLines(clients, sent_bytes, *grown)
