"""The workloads: the servers that take part in each, and the number of rounds.

It does not know how servers are started, nor what the measurements are used for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from bench import pairs
from bench.load import Load
from bench.servers import OURS, OURS_BARE, Server

_SEND_S = 8e-6
_LOGIN_S = 0.25e-3


class Participants(Enum):
    """Which servers take part in a workload."""

    ALL = "every server"
    OURS = "geventchat alone"
    ALL_AND_BARE = "every server, and geventchat with limits and logs off"
    SHEDDING = "servers that continue when a client stops reading"
    ENCRYPTED = "servers that speak TLS"
    FRAMED = "servers that speak WebSocket"


@dataclass(frozen=True, slots=True)
class Workload:
    key: str
    title: str
    load: Load
    participants: Participants = Participants.ALL
    dialects: tuple[str, ...] = ("line",)
    rounds: int = 3
    in_pairs: pairs.Traffic | None = None
    """Measure it in pairs with the same server, whose clients speak the dialect `beside`."""
    beside: str = ""

    @property
    def encrypted(self) -> bool:
        """True if its clients speak TLS."""
        return any(dialect.endswith("+tls") for dialect in self.dialects)

    def servers(self, chosen: Iterable[Server]) -> list[Server]:
        """The chosen servers that take part."""
        return [server for server in chosen if self._includes(server)]

    def _includes(self, server: Server) -> bool:
        if server.key == OURS_BARE:
            return self.participants is Participants.ALL_AND_BARE
        if self.participants is Participants.ENCRYPTED:
            return bool(server.tls)
        if self.participants is Participants.FRAMED or server.dialects == ("web",):
            return self.participants is Participants.FRAMED and "web" in server.dialects
        if self.participants is Participants.OURS:
            return server.key == OURS
        return self.participants is not Participants.SHEDDING or server.sheds_stalled

    def dialects_of(self, server: Server) -> tuple[str, ...]:
        return self.dialects if self.dialects[0] in server.dialects else server.dialects[:1]

    def expected_s(self, server: Server) -> float:
        """About how long one run takes, with the start and the end of the server."""
        load = self.load
        if self.in_pairs is not None:
            return 2 * (0.6 + self.in_pairs.pairs * (load.warm_s + load.seconds) + load.clients * _LOGIN_S)
        traffic_s = load.warm_s + load.seconds if load.senders else 0.0
        # A run waits for the messages in flight. That takes long for a server with a separate send for every delivery.
        rest_s = 0.0 if server.joins else load.senders * load.window * load.clients * _SEND_S
        return 0.6 + traffic_s + rest_s + load.idle_s + load.clients * _LOGIN_S


def saturated(clients: int, seconds: float, **more: int) -> Load:
    return Load(clients, senders=4, window=64, warm_s=0.3, seconds=seconds, timeout_s=8, **more)


def paced(rate: float, seconds: float) -> Load:
    return Load(100, senders=4, rate=rate, warm_s=0.5, seconds=seconds)


SATURATED_100 = Workload(
    "saturated-100",
    "saturated: 100 clients, 4 senders, window 64",
    saturated(100, 1.5),
    Participants.ALL_AND_BARE,
    rounds=5,
)
SATURATED_1000 = Workload(
    "saturated-1000", "saturated: 1,000 clients, 4 senders, window 64", saturated(1000, 2.5), rounds=5
)
ONE_AT_A_TIME = Workload(
    "one-at-a-time",
    "one message at a time, 100 clients",
    Load(100, senders=1, window=1, seconds=1.5),
    rounds=5,
)
PACED_500 = Workload("paced-500", "paced: 100 clients, 500 messages/s in all", paced(500, 3), rounds=5)
IDLE_8000 = Workload(
    # Thousands of threads take a minute to answer.
    "idle-8000",
    "8,000 logins in a row, then idle",
    Load(8000, idle_s=4, timeout_s=120),
)
STALLED_100 = Workload(
    "stalled-100",
    "saturated: 100 clients, 1 of which did not read and was dropped",
    # The warm-up ends when that client is dropped.
    replace(saturated(100, 1.5, stalled=1), warm_s=10),
    Participants.SHEDDING,
)
JSON_100 = Workload(
    "json-100", "saturated: 100 clients, json", saturated(100, 1.5), Participants.OURS, ("json",), rounds=5
)
SLASH_100 = Workload(
    "slash-100", "saturated: 100 clients, slash", saturated(100, 1.5), Participants.OURS, ("slash",), rounds=5
)
MIXED_100 = Workload(
    "mixed-100",
    "saturated: 100 clients, all three dialects",
    saturated(100, 1.5),
    Participants.OURS,
    ("line", "json", "slash"),
    rounds=5,
)

TLS_100 = Workload(
    "tls-100",
    "saturated: 100 clients over TLS",
    saturated(100, 1.5),
    Participants.ENCRYPTED,
    ("line+tls",),
    rounds=5,
)
WEB_100 = Workload(
    "web-100",
    "saturated: 100 clients, json over WebSocket",
    saturated(100, 1.5),
    Participants.FRAMED,
    ("web",),
    rounds=5,
)
WEB_1000 = Workload(
    "web-1000",
    "saturated: 1,000 clients, json over WebSocket",
    saturated(1000, 2.5),
    Participants.FRAMED,
    ("web",),
    rounds=5,
)
_WEB_IN_PAIRS = tuple(
    Workload(
        f"web-{experiment.load.clients}-to-{dialect}",
        f"saturated: {experiment.load.clients:,} clients, json over WebSocket in pairs with {dialect}",
        experiment.load,
        Participants.OURS,
        ("web",),
        rounds=5,
        in_pairs=experiment,
        beside=dialect,
    )
    for experiment, dialect in (
        (pairs.SATURATED_100, "line"),
        (pairs.SATURATED_100, "json"),
        (pairs.SATURATED_1000, "line"),
    )
)
ROOMS_1000 = Workload(
    "rooms-1000",
    "saturated: 1,000 rooms of 10 clients, one of each sends",
    Load(10_000, senders=1000, window=1, seconds=4, warm_s=1, rooms=1000, timeout_s=20),
    Participants.OURS,
    rounds=3,
)
ROOM_10000 = Workload(
    "saturated-10000",
    "saturated: one room of 10,000 clients, 4 senders",
    replace(saturated(10_000, 6.0), timeout_s=30),
    Participants.OURS,
    rounds=3,
)

SCALE_CLIENTS = (10, 30, 100, 300, 1000, 3000, 5000)
PACES = (100, 500, 2000, 5000, 20000)
IDLE_STEPS = 8


def scale_key(clients: int) -> str:
    return f"saturated-{clients}"


def pace_key(rate: int) -> str:
    return f"paced-{rate}"


_SCALE = tuple(
    Workload(
        scale_key(clients),
        f"saturated: {clients:,} clients, 4 senders",
        saturated(clients, 1.0 if clients < 1000 else 2.0),
    )
    for clients in SCALE_CLIENTS
    if clients not in (100, 1000)
)
_PACES = tuple(
    Workload(
        pace_key(rate),
        f"paced: 100 clients, {rate:,} messages/s in all",
        # The slowest hundredth of a few messages would be a matter of luck.
        paced(rate, 10.0 if rate == 100 else 2.5),
    )
    for rate in PACES
    if rate != 500
)

FULL = (
    SATURATED_100,
    SATURATED_1000,
    ONE_AT_A_TIME,
    PACED_500,
    IDLE_8000,
    STALLED_100,
    JSON_100,
    SLASH_100,
    MIXED_100,
    TLS_100,
    WEB_100,
    WEB_1000,
    *_WEB_IN_PAIRS,
    ROOMS_1000,
    ROOM_10000,
    *_SCALE,
    *_PACES,
)

_QUICK_SECONDS = {"saturated-100": 0.5, "one-at-a-time": 0.5, "paced-500": 1.0}
_QUICK_OURS = ("stalled-100", "json-100", "slash-100", "mixed-100")


def quick() -> tuple[Workload, ...]:
    """One short round of the workloads that fit into a minute. The results are noisier, and with fewer clients."""
    short = [
        replace(
            workload,
            rounds=1,
            load=replace(workload.load, seconds=_QUICK_SECONDS[workload.key], warm_s=0.2),
        )
        for workload in FULL
        if workload.key in _QUICK_SECONDS
    ]
    ours = [
        replace(
            workload,
            rounds=1,
            participants=Participants.OURS,
            load=replace(workload.load, seconds=0.5, warm_s=0.2),
        )
        for workload in FULL
        if workload.key in _QUICK_OURS
    ]
    idle = replace(
        IDLE_8000,
        key="idle-1000",
        title="1,000 logins in a row, then idle",
        load=Load(1000, idle_s=0.7),
        rounds=1,
    )
    return (*short, idle, *ours)
