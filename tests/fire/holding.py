"""Thousands of quiet connections: what each costs, when each is cut, and that its name is free again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from tests.fire.arena import End, arena
from tests.fire.crowd import Crowd, Fate, Peer
from tests.fire.leaks import Census, kept
from tests.fire.process import ServerProcess, eventually

_AT_ONCE = 250
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """What one run on real sockets has shown; lateness in seconds, of all who were cut."""

    clients: int
    named: bool
    bytes_each: int
    idle_cpu_s: float
    late_median_s: float
    late_most_s: float


def hold(clients: int, idle_s: float, *, named: bool, watch_s: float = 0.0, spread_s: float = 0.0) -> Held:
    """Real sockets, real time; `watch_s` is how long the idle server's CPU is watched, `spread_s` how long it takes until
    all have said their last word: so long it takes from the first cut to the last, and the less is due at any one instant.
    """
    # The notice would tell a client that the cut is near; here it is the end of the connection that counts.
    options = (f"--max-clients={clients + 10}", f"--max-per-address={clients + 10}", "--log-level=warning")
    with ServerProcess(*options, f"--idle-timeout={idle_s}") as server, Crowd() as crowd:
        with Crowd() as first:
            # The first few make the server import and build what every later one shares.
            for _ in range(20):
                first.join(server.at()).say("LOGIN early", "QUIT")
        eventually("the first have gone", lambda: server.descriptors < 20)
        at_first = server.resident_bytes
        peers: list[Peer] = []
        for n in range(clients):
            peer = crowd.join(server.at())
            peer.say(f"LOGIN p{n}" if named else "PING")
            peers.append(peer)
            if not n % _AT_ONCE:
                crowd.turn()
        crowd.until("everyone was answered", lambda: all(peer.heard for peer in peers))
        each = (server.resident_bytes - at_first) // clients
        spent = server.cpu_s
        until = time.monotonic() + watch_s
        while time.monotonic() < until:
            crowd.turn(0.05)
        spent = max(0.0, server.cpu_s - spent)
        words, began = [], time.monotonic()
        for n, peer in enumerate(peers):
            while (left := began + spread_s * n / clients - time.monotonic()) > 0:
                crowd.turn(left)
            words.append(_last_word(crowd, peer))
        crowd.until("everyone has been cut", lambda: all(peer.fate is not Fate.OPEN for peer in peers))
        late = []
        for peer, (said_at, answered_at) in zip(peers, words, strict=True):
            assert peer.fate is Fate.FIN
            assert peer.heard.endswith(b"INFO idle-timeout\n"), bytes(peer.heard[-80:])
            # The server has heard the last word after it was said and it has cut before that was seen.
            assert peer.ended_at - said_at >= idle_s, f"cut {idle_s - peer.ended_at + said_at:.6f} s early"
            late.append(peer.ended_at - answered_at - idle_s)
        eventually("every descriptor is closed", lambda: server.descriptors < 20)
        if named:
            again = crowd.join(server.at())
            again.say(*[line for n in range(0, clients, 50) for line in (f"LOGIN p{n}", "WHO")][:2])
            crowd.until_heard([again], b"OK\nUSER p0\n")
        late.sort()
        return Held(clients, named, each, spent, late[len(late) // 2], late[-1])


def _last_word(crowd: Crowd, peer: Peer) -> tuple[float, float]:
    """Say one more line and wait for its answer: it was heard between these two instants, and they are close."""
    mark = len(peer.heard)
    said_at = time.monotonic()
    peer.say("PING")
    crowd.until("the last word was answered", lambda: len(peer.heard) > mark)
    return said_at, time.monotonic()


def cut_exactly(clients: int, idle_s: float) -> None:
    """Virtual time: all come logged in, some each millisecond; each is there until its time is up and gone when it is."""
    limits = Limits(clients=clients, clients_per_address=clients)
    config = Config(listen=(Listen("line", "127.0.0.1", 0),), idle_s=idle_s, limits=limits)
    with arena(config) as scene:
        before = Census(scene)
        groups = []
        for start in range(0, clients, _AT_ONCE):
            scene.pass_s(0.001)
            group = [scene.come() for _ in range(start, min(start + _AT_ONCE, clients))]
            for n, guest in enumerate(group, start=start):
                guest.say(f"LOGIN p{n}")
            scene.settle()
            groups.append((scene.now_us, group))
        assert scene.server.clients == len(scene.around.hub.room) == clients
        left = clients
        for came_us, group in groups:
            due_us = came_us + round(idle_s * _US)
            scene.pass_until(due_us - 1)
            assert scene.server.clients == left
            scene.pass_until(due_us)
            left -= len(group)
            assert scene.server.clients == left, "cut before or after its time"
            assert len(scene.around.hub.room) == left, "a name outlives its owner"
            for guest in group:
                assert (guest.end, guest.ended_us) == (End.ENDED, due_us)
                assert guest.heard.startswith(b"OK\n")
                assert guest.heard.endswith(b"INFO idle-timeout\n")
        assert scene.happened["idle"] == clients
        del group, guest, groups
        assert not kept(scene), kept(scene)
        assert not Census(scene).since(before), Census(scene).since(before)
        # Whoever comes now may have any of the names.
        for n in range(0, clients, max(1, clients // 100)):
            guest = scene.come()
            guest.say(f"LOGIN P{n}", "QUIT")
            scene.settle()
            assert guest.heard == b"OK\nGoodbye!\n", bytes(guest.heard)
