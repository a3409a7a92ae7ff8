"""The plan of an attack: a frozen value that can be written as JSON. Pure.

Knows no sockets, no server and no measurements: `play.py` plays it, `search.py` alters it. Invariants of an Attack:
- Everything in it is within the limits below, so that whatever is made up or read from a file is over in a few seconds.
- Played again, it sends the same bytes in the same order from each client; how they arrive depends on the machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

DIALECTS = ("line", "json", "slash", "json2")
# The listener for the clients of a dialect without its own listener.
LISTENER = {"json2": "json"}
# `none`: they do not log in. `clash`: they want the names of another group.
NAMES = ("none", "short", "wide", "marks", "clash")
READS = ("everything", "pace", "nothing")
LEAVES = ("stays", "reset", "close", "half-close", "quit")
# The characters of texts and tokens: one letter; letters of four bytes; control characters; stacked marks.
TEXTS = ("plain", "wide", "control", "marks")
ACTIONS = (
    "say",
    "ping",
    "who",
    "dm-group",
    "dm-partner",
    "dm-stranger",
    "dm-honest",
    "dm-self",
    "dm-absent",
    "unfinished",
    "blank",
    "garbage",
    "telnet",
    "bad-utf8",
    "bad-json",
    "many-values",
    "nested-json",
    "bad-login",
    "unknown",
    "enter",
    "leave",
    "rooms",
    "topic",
    "history",
    "key",
    "ban",
    "kick",
    "invite",
    "ignore",
    "register",
)

MOST_CLIENTS = 600
MOST_CONNECTIONS = 3_000
MOST_GROUPS = 4
MOST_SECONDS = 5.0
MOST_STOPS = 3
MOST_STOPPED_S = 0.6
MOST_ACTIONS = 6


def _check(is_so: bool, what: str, value: object) -> None:
    if not is_so:
        raise ValueError(f"{what}: {value!r}")


def _in_range(name: str, value: Any, least: float, most: float) -> None:
    _check(
        type(value) in {int, float} and least <= value <= most, f"{name} is not from {least} to {most}", value
    )


def _one_of(name: str, value: Any, words: tuple[str, ...]) -> None:
    _check(value in words, f"{name} is not one of {', '.join(words)}", value)


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a client sends, how often compared with the others, and roughly how many bytes it has."""

    kind: str
    weight: int = 1
    size: int = 10
    text: str = "plain"

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, ACTIONS)
        _in_range("weight", self.weight, 1, 100)
        _in_range("size", self.size, 1, 65_536)
        _one_of("text", self.text, TEXTS)


@dataclass(frozen=True, slots=True)
class Group:
    """Clients that do the same."""

    clients: int = 50
    addresses: int = 1
    dialect: str = "line"
    names: str = "short"
    program: tuple[Action, ...] = ()
    # How many actions are sent together, and how often per second; 0 is as fast as the socket takes it.
    actions_at_once: int = 8
    sends_per_s: float = 0.0
    reads: str = "everything"
    read_bytes_per_s: int = 125_000
    # 0 leaves the buffer to the kernel.
    receive_buffer: int = 0
    # In seconds since the attack began.
    starts_s: float = 0.0
    leaves: str = "stays"
    leaves_s: float = 2.0
    # Over how long their departures are spread: 0 is all at once.
    leaves_over_s: float = 0.0
    # How often each comes back under its name, and after how long.
    returns: int = 0
    away_s: float = 0.2

    def __post_init__(self) -> None:
        _in_range("clients", self.clients, 1, MOST_CLIENTS)
        _in_range("addresses", self.addresses, 1, self.clients)
        _one_of("dialect", self.dialect, DIALECTS)
        _one_of("names", self.names, NAMES)
        _check(len(self.program) <= MOST_ACTIONS, f"more than {MOST_ACTIONS} actions", self.program)
        _in_range("actions_at_once", self.actions_at_once, 1, 256)
        _in_range("sends_per_s", self.sends_per_s, 0, 50)
        _one_of("reads", self.reads, READS)
        _in_range("read_bytes_per_s", self.read_bytes_per_s, 1_024, 10_000_000)
        _in_range("receive_buffer", self.receive_buffer, 0, 1 << 20)
        _in_range("starts_s", self.starts_s, 0, MOST_SECONDS)
        _one_of("leaves", self.leaves, LEAVES)
        _in_range("leaves_s", self.leaves_s, 0, MOST_SECONDS)
        _in_range("leaves_over_s", self.leaves_over_s, 0, MOST_SECONDS)
        _in_range("returns", self.returns, 0, 50)
        _in_range("away_s", self.away_s, 0, MOST_SECONDS)

    @property
    def connections(self) -> int:
        """The most connections that it can make."""
        return self.clients * (1 + (self.returns if self.leaves != "stays" else 0))


@dataclass(frozen=True, slots=True)
class Stop:
    """The server stands still, as one whose machine is busy, while everyone sends."""

    at_s: float
    for_s: float

    def __post_init__(self) -> None:
        _in_range("at_s", self.at_s, 0, MOST_SECONDS)
        _in_range("for_s", self.for_s, 0.01, MOST_STOPPED_S)


@dataclass(frozen=True, slots=True)
class Attack:
    """A few groups of clients that attack for some seconds. The seed decides what is random in what they send."""

    groups: tuple[Group, ...]
    seconds: float = 4.0
    seed: int = 1
    stops: tuple[Stop, ...] = field(default=())

    def __post_init__(self) -> None:
        _check(1 <= len(self.groups) <= MOST_GROUPS, f"not 1 to {MOST_GROUPS} groups", len(self.groups))
        _in_range("seconds", self.seconds, 1, MOST_SECONDS)
        _in_range("seed", self.seed, 0, 1 << 32)
        _check(len(self.stops) <= MOST_STOPS, f"more than {MOST_STOPS} stops", len(self.stops))
        _in_range("clients of all groups", self.clients, 1, MOST_CLIENTS)
        _in_range("connections", sum(group.connections for group in self.groups), 1, MOST_CONNECTIONS)

    @property
    def clients(self) -> int:
        """How many clients there are at one time."""
        return sum(group.clients for group in self.groups)

    @property
    def addresses(self) -> int:
        """From how many addresses they come."""
        return sum(group.addresses for group in self.groups)

    def short(self, seconds: float = 2.5) -> Attack:
        """The same with less time: what happens late happens as early as it has to."""
        if self.seconds <= seconds:
            return self
        share = seconds / self.seconds
        groups = tuple(
            replace(
                group,
                starts_s=round(group.starts_s * share, 2),
                leaves_s=round(group.leaves_s * share, 2),
                leaves_over_s=round(group.leaves_over_s * share, 2),
            )
            for group in self.groups
        )
        stops = tuple(replace(stop, at_s=round(stop.at_s * share, 2)) for stop in self.stops)
        return replace(self, seconds=seconds, groups=groups, stops=stops)


def to_json(attack: Attack) -> dict[str, Any]:
    """The attack as values of JSON."""
    return asdict(attack)


def from_json(values: Any) -> Attack:
    """Read an attack. Raises ValueError for anything unknown or out of range."""
    groups = [
        _read(Group, {**_object(group), "program": _all(Action, _object(group).get("program", []))})
        for group in _list(_object(values).get("groups", []))
    ]
    attack = _read(Attack, {**values, "groups": tuple(groups), "stops": _all(Stop, values.get("stops", []))})
    assert isinstance(attack, Attack)
    return attack


def load(path: Path) -> Attack:
    """Read an attack from a file: either the attack alone, or a record with the key `attack`."""
    values = _object(json.loads(path.read_text()))
    return from_json(values.get("attack", values))


def _all(kind: type, values: Any) -> tuple[Any, ...]:
    return tuple(_read(kind, _object(one)) for one in _list(values))


def _read(kind: type, values: dict[str, Any]) -> Any:
    known = {one.name for one in fields(kind)}
    unknown = sorted(set(values) - known)
    _check(not unknown, f"unknown in {kind.__name__}", unknown)
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


def _object(value: Any) -> dict[str, Any]:
    _check(isinstance(value, dict), "not an object", value)
    return value  # type: ignore[no-any-return]


def _list(value: Any) -> Iterable[Any]:
    _check(isinstance(value, list | tuple), "not a list", value)
    return value  # type: ignore[no-any-return]
