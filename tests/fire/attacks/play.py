"""A trial: plays one attack on a new server with default settings, beside honest people, and measures.

Knows how a plan becomes clients of a `Load`, and what is measured. Does not know which attack is worth another trial
(`search.py`), nor what is allowed (`bounds.py`).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from geventchat import Limits
from tests.fire.attacks import actions, bounds, plan, wire
from tests.fire.attacks.honest import HonestPair
from tests.fire.attacks.load import Client, Load, addresses, unfinished
from tests.fire.attacks.plan import Attack, Group
from tests.fire.attacks.target import ROOT, Target
from tests.fire.attacks.witnesses import NAMES, Report, Witnesses

_MOST_TRIAL_S = 120.0
_SAMPLE_S = 0.25
_LOGIN_S = 3.0
# After everyone has gone: how long until the server is expected to be at rest, and how long that is measured.
# In relation to the attack, and at most.
_REST_SHARE = 0.2
_MOST_REST_S = 1.0
# How many names of each group are claimed.
_CLAIMS = 3
# The pair's messages shortly before a stop and after it waited for the stop.
_BEFORE_STOP_S, _AFTER_STOP_S = 0.5, 1.0
_SHORTEST_WINDOW_S = 0.3
# The messages that a stopped server finds when it continues.
_PIECES_WHILE_STOPPED = 8
_GONE_S = 10.0
# Newcomers, and those who claim a name.
_COMING_AND_GOING = 8
# A client whose socket takes nothing has at most this much to send.
_PENDING_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a trial."""

    seconds: float
    clients: int
    addresses: int
    # The most that were connected at one time, honest people included.
    connected: int
    memory_bytes: int
    promised_bytes: int
    cpu_per_s: float
    cpu_after_per_s: float
    latency_p99_ms: float
    latency_missing: int
    newcomer_ms: float
    newcomers_refused: int
    disconnected: tuple[str, ...]
    names_claimed: int
    names_taken: int
    tracebacks: int
    # Of the attackers, some time after all of them have gone.
    connections_left: int
    log_lines: int
    log_bytes_per_s: float
    log_s: float
    slow: int
    stopped_s: float
    behind_bytes: int
    readers_paused_s: float
    # How long the server waited for a processor that other programs used.
    starved_s: float
    died: bool
    fault: str = ""

    @property
    def memory_share(self) -> float:
        """The memory above the start, in relation to the promise."""
        return self.memory_bytes / self.promised_bytes

    def __str__(self) -> str:
        return (
            f"clients={self.connected} memory={self.memory_bytes / 1e6:.1f}MB ({self.memory_share:.3f}) "
            f"cpu={self.cpu_per_s:.2f} after={self.cpu_after_per_s:.2f} p99={self.latency_p99_ms:.0f}ms "
            f"newcomer={self.newcomer_ms:.0f}ms behind={self.behind_bytes / 1e6:.2f}MB "
            f"cut={len(self.disconnected)} slow={self.slow} "
            f"names={self.names_taken}/{self.names_claimed} log={self.log_bytes_per_s / 1e3:.1f}kB/s "
            f"starved={self.starved_s:.1f}s"
        )


def to_json(measured: Measured) -> dict[str, Any]:
    """The figures as values of JSON."""
    return {**asdict(measured), "memory_share": round(measured.memory_share, 4)}


def from_json(values: dict[str, Any]) -> Measured:
    """The figures from values of JSON."""
    known = {key: value for key, value in values.items() if key != "memory_share"}
    return Measured(**{**known, "disconnected": tuple(known["disconnected"])})


def play(attack: Attack, *options: str) -> Measured:
    """Play the attack once. `options` are for the server, whose limits are then not those that are promised."""
    with ExitStack() as stack:
        target = stack.enter_context(Target(*options))
        target.reset_peak()
        witnesses = stack.enter_context(Witnesses(target.ports))
        pair = stack.enter_context(HonestPair(target.address("line"), target.pid))
        witnesses.wait_until_ready()
        load = stack.enter_context(Load())
        return _Trial(attack, target, witnesses, pair, load).run()


def play_elsewhere(attack: Attack) -> Measured:
    """Play the attack once, with its load in a separate process: for several trials at a time."""
    command = [sys.executable, "-m", "tests.fire", "attack", "replay", "--json", "-"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(plan.to_json(attack)),
        capture_output=True,
        text=True,
        timeout=_MOST_TRIAL_S,
        start_new_session=True,
    )
    if done.returncode:
        raise AssertionError(done.stderr.strip().rpartition("\n")[2])
    return from_json(json.loads(done.stdout))


class _Trial:
    """One attack under way."""

    def __init__(
        self, attack: Attack, target: Target, witnesses: Witnesses, pair: HonestPair, load: Load
    ) -> None:
        self._attack = attack
        self._target = target
        self._witnesses = witnesses
        self._pair = pair
        self._load = load
        self._rng = random.Random(attack.seed)
        self._names = actions.names_of(attack)
        self._over = False
        self._descriptors = target.descriptors
        self._starved_s = target.starved_s
        self._most_descriptors = 0
        self._memory_bytes = 0
        self._groups = [self._playing(number) for number in range(len(attack.groups))]

    def run(self) -> Measured:
        """Connect, attack, leave, rest."""
        try:
            return self._run()
        except OSError:
            if self._died:
                return self._dead()
            raise

    def _run(self) -> Measured:
        attack, target, load = self._attack, self._target, self._load
        log_began, log_before = time.monotonic(), len(target.log())
        cpu_before = target.cpu_s
        self._keep_counting()
        for playing in self._groups:
            if not playing.group.starts_s:
                playing.connect()
        load.run(_LOGIN_S, lambda: self._died or all(playing.answered for playing in self._groups))
        if self._died:
            return self._dead()
        # Once more at the moments that count, because a busy load is late with everything else.
        self._count_connections()
        began = time.monotonic()
        for playing in self._groups:
            load.after(playing.group.starts_s, playing.begin)
        for stop in attack.stops:
            load.after(stop.at_s, lambda for_s=stop.for_s: self._stand_still(for_s))  # type: ignore[misc]
        load.run(attack.seconds, lambda: self._died)
        ended = time.monotonic()
        if self._died:
            return self._dead()
        self._count_connections()
        cpu_per_s = (target.cpu_s - cpu_before) / (ended - log_began)
        latency = self._latency(began, ended)
        self._over = True
        for client in load.clients:
            client.reset()
        rest_s = min(_MOST_REST_S, _REST_SHARE * attack.seconds)
        load.run(rest_s, lambda: self._died)
        rested = time.monotonic()
        cpu_before = 0.0 if self._died else target.cpu_s
        load.run(rest_s, lambda: self._died)
        if self._died:
            return self._dead()
        cpu_after_per_s = (target.cpu_s - cpu_before) / (time.monotonic() - rested)
        self._memory_bytes = max(self._memory_bytes, target.peak_bytes - target.start_bytes)
        # A server that was given too little of the processor gets more time.
        load.run(_GONE_S, lambda: self._died or not self._connections_left)
        if self._died:
            return self._dead()
        left = self._connections_left
        log_s, log = time.monotonic() - log_began, target.log()
        report = self._witnesses.report()
        return self._measured(
            ended - began, cpu_per_s, cpu_after_per_s, latency, report, left, log[log_before:], log_s
        )

    @property
    def _died(self) -> bool:
        return not self._target.alive

    @property
    def _connections_left(self) -> int:
        left = self._target.descriptors - self._descriptors - _COMING_AND_GOING
        return max(0, left - unfinished(self._target.ports.values())) if left > 0 else 0

    def _playing(self, number: int) -> _Playing:
        attack = self._attack
        group = attack.groups[number]
        first = 2 + sum(before.addresses for before in attack.groups[:number])
        others = [
            name for other, names in enumerate(self._names) if other != number for name in names if name
        ]
        people = actions.People([name for name in self._names[number] if name], others, NAMES)
        claimed = group.names not in {"none", "clash"} and all(
            other.names != "clash" for other in attack.groups
        )
        return _Playing(
            group,
            self._names[number],
            addresses(group.addresses, first=first),
            actions.blocks(group, people, self._rng),
            self._load,
            self._target.address(group.dialect),
            self._claim if claimed and not group.returns else None,
            lambda: self._over or self._died,
        )

    def _claim(self, dialect: str, name: str) -> None:
        if not self._over:
            self._witnesses.claim(dialect, name)

    def _stand_still(self, for_s: float) -> None:
        with self._target.stopped():
            for playing in self._groups:
                playing.send_more(_PIECES_WHILE_STOPPED)
            until = time.monotonic() + for_s
            while time.monotonic() < until:
                # Timers wait: what is due meanwhile happens when the server goes on.
                self._load.look(max(0.0, until - time.monotonic()))

    def _keep_counting(self) -> None:
        if not (self._over or self._died):
            self._count_connections()
            self._load.after(_SAMPLE_S, self._keep_counting)

    def _count_connections(self) -> None:
        self._most_descriptors = max(self._most_descriptors, self._target.descriptors)

    def _latency(self, began: float, ended: float) -> tuple[float, int]:
        """The worst p99 of all windows without a stop, and how many messages were missing in them."""
        edges = [began]
        for stop in sorted(self._attack.stops, key=lambda stop: stop.at_s):
            edges += [began + stop.at_s - _BEFORE_STOP_S, began + stop.at_s + stop.for_s + _AFTER_STOP_S]
        edges.append(ended)
        worst, missing = 0.0, 0
        for since, until in zip(edges[::2], edges[1::2], strict=True):
            if min(until, ended) - since >= _SHORTEST_WINDOW_S:
                latency = self._pair.latency(since, min(until, ended))
                worst, missing = max(worst, latency.p99), missing + latency.missing
        return worst, missing

    def _measured(
        self,
        seconds: float,
        cpu_per_s: float,
        cpu_after_per_s: float,
        latency: tuple[float, int],
        report: Report,
        connections_left: int,
        log: str,
        log_s: float,
    ) -> Measured:
        disconnected = report.disconnected
        if not self._pair.connected:
            disconnected += ("the honest pair",)
        connected = max(self._most_descriptors - self._descriptors, 0) + len(NAMES) + 2
        fault = log.find(" fault ")
        return Measured(
            seconds=round(seconds, 2),
            clients=self._attack.clients,
            addresses=self._attack.addresses,
            connected=connected,
            memory_bytes=self._memory_bytes,
            promised_bytes=bounds.worst_memory_bytes(Limits(), connected),
            cpu_per_s=round(cpu_per_s, 3),
            cpu_after_per_s=round(cpu_after_per_s, 3),
            latency_p99_ms=latency[0],
            latency_missing=latency[1],
            newcomer_ms=max(report.newcomers_ms, default=0.0),
            newcomers_refused=report.refused,
            disconnected=disconnected,
            names_claimed=report.names_claimed,
            names_taken=report.names_taken,
            tracebacks=log.count("Traceback"),
            connections_left=connections_left,
            log_lines=log.count("\n"),
            log_bytes_per_s=round(len(log.encode()) / log_s),
            log_s=round(log_s, 2),
            slow=log.count("reason=slow"),
            stopped_s=round(sum(stop.for_s for stop in self._attack.stops), 3),
            behind_bytes=report.behind_bytes,
            readers_paused_s=report.paused_s,
            starved_s=round(self._target.starved_s - self._starved_s, 3),
            died=False,
            fault=log[fault : fault + 4_000] if fault >= 0 else "",
        )

    def _dead(self) -> Measured:
        log = self._target.log()
        return Measured(
            seconds=0.0,
            clients=self._attack.clients,
            addresses=self._attack.addresses,
            connected=self._attack.clients,
            memory_bytes=0,
            promised_bytes=bounds.worst_memory_bytes(Limits(), self._attack.clients),
            cpu_per_s=0.0,
            cpu_after_per_s=0.0,
            latency_p99_ms=0.0,
            latency_missing=0,
            newcomer_ms=0.0,
            newcomers_refused=0,
            disconnected=(),
            names_claimed=0,
            names_taken=0,
            tracebacks=log.count("Traceback"),
            connections_left=0,
            log_lines=log.count("\n"),
            log_bytes_per_s=0.0,
            log_s=0.0,
            slow=log.count("reason=slow"),
            stopped_s=0.0,
            behind_bytes=0,
            readers_paused_s=0.0,
            starved_s=0.0,
            died=True,
            fault=log[-4_000:],
        )


class _Playing:
    """One group under way."""

    def __init__(
        self,
        group: Group,
        names: list[str],
        sources: list[str],
        pieces: list[bytes],
        load: Load,
        address: tuple[str, int],
        claim: Callable[[str, str], None] | None,
        over: Callable[[], bool],
    ) -> None:
        self.group = group
        self._names = names
        self._partners = actions.partners(names)
        self._sources = sources
        self._pieces = pieces
        self._load = load
        self._address = address
        self._claim = claim
        self._is_over = over
        self._clients: dict[int, Client] = {}
        self._began = False
        self._sent = 0

    @property
    def answered(self) -> bool:
        """True when each has been answered, or has nothing to wait for."""
        if self.group.names == "none":
            return True
        return all(client.received or not client.open for client in self._clients.values())

    def connect(self) -> None:
        """Connect all, and log in."""
        for number in range(self.group.clients):
            self._connect(number)
            if number % 50 == 49:
                self._load.look(0)

    def begin(self) -> None:
        """Start to send, and to read as planned."""
        if self._is_over():
            return
        if not self._clients:
            self.connect()
        self._began = True
        for number in list(self._clients):
            self._start(number)
        if self._pieces and self.group.sends_per_s:
            self._load.after(1 / self.group.sends_per_s, self._send)
        if self.group.leaves != "stays":
            self._load.after(max(0.0, self.group.leaves_s - self.group.starts_s), self._leave_all)

    def send_more(self, pieces: int) -> None:
        """Send this many pieces more."""
        if not (self._began and self._pieces):
            return
        for number, client in self._clients.items():
            if client.open and len(client.pending) < _PENDING_BYTES:
                client.send(b"".join(self._piece(number, extra) for extra in range(pieces)))

    def _connect(self, number: int) -> None:
        client = self._load.connect(
            self._address,
            source=self._sources[number % len(self._sources)],
            receive_buffer=self.group.receive_buffer,
        )
        self._clients[number] = client
        client.name = self._names[number]
        if client.name:
            client.send(wire.login(self.group.dialect, client.name))

    def _start(self, number: int) -> None:
        client, group = self._clients[number], self.group
        if not client.open:
            return
        if group.reads == "nothing":
            client.read_nothing()
        elif group.reads == "pace":
            client.read_at(group.read_bytes_per_s)
        if self._pieces and not group.sends_per_s:
            client.keep_sending(self._endless(number))

    def _endless(self, number: int) -> Iterator[bytes]:
        return actions.endless(self._pieces, number, self._partners[number])

    def _piece(self, number: int, more: int) -> bytes:
        return actions.piece(self._pieces, number + more, self._partners[number])

    def _send(self) -> None:
        if self._is_over():
            return
        self._sent += 1
        for number, client in self._clients.items():
            if client.open and len(client.pending) < _PENDING_BYTES:
                client.send(self._piece(number, self._sent))
        self._load.after(1 / self.group.sends_per_s, self._send)

    # --- Leaving -----------------------------------------------------------------------------------------------------

    def _leave_all(self) -> None:
        group = self.group
        claimed = {0, group.clients // 2, group.clients - 1} if group.leaves == "reset" else set()
        for number in range(group.clients):
            claim = number in claimed
            if group.leaves_over_s:
                delay_s = group.leaves_over_s * number / group.clients
                self._load.after(delay_s, lambda number=number, claim=claim: self._leave(number, claim))  # type: ignore[misc]
            else:
                self._leave(number, claim)

    def _leave(self, number: int, claim: bool, left: int | None = None) -> None:
        client, group = self._clients[number], self.group
        left = group.returns if left is None else left
        if self._is_over():
            return
        if client.open:
            match group.leaves:
                case "reset":
                    welcome = wire.WELCOME[group.dialect]
                    held = bool(client.name) and (client.received > 4_096 or welcome in client.tail)
                    client.reset()
                    if claim and held and self._claim is not None:
                        ask, name = self._claim, client.name
                        self._load.after(bounds.NAME_FREE_S, lambda: ask(group.dialect, name))
                case "close":
                    client.close()
                case "half-close":
                    client.half_close()
                    client.stop_sending()
                case "quit":
                    client.stop_sending()
                    client.send(wire.quit_request(group.dialect))
        if left:
            self._load.after(group.away_s, lambda: self._return(number, left - 1))

    def _return(self, number: int, left: int) -> None:
        if self._is_over():
            return
        self._clients[number].close()
        self._connect(number)
        self._start(number)
        self._load.after(max(0.05, self.group.away_s), lambda: self._leave(number, False, left))
