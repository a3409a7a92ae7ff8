"""Measure the costs of two servers in pairs.

The speed of a shared machine changes from second to second, by far more than the difference that matters. Both servers
therefore run at the same time, on the same core, and work alternately, each for a fraction of a second.

- A *pair* is one such period of each server. It yields one ratio of their costs.
- A *round* starts both servers anew and takes the median ratio of its pairs. It differs from other rounds by what
  differs from one start of a server to the next, such as the layout of its memory.
- A pair that other work disturbed is repeated. If most pairs of a round stay disturbed, the round uses all of them and
  is marked. Disturbance makes ratios noisier but favours neither server: CPU time does not count while a process
  waits, and the order alternates.

It does not know why the two are compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import load, metrics, servers
from bench.load import Load, Session
from bench.machine import Cores
from bench.servers import Server

DISTURBED = metrics.DISTURBED
"""A pair is disturbed when one of its periods lost more than this share of its time to other work."""


class TooBusy(Exception):
    """No pair could be measured: no period delivered a message, or used a tick of the processor."""


Costs = tuple[float, float]
"""The costs of both servers in one pair."""


@dataclass(frozen=True, slots=True)
class Round:
    """One metric in one round: the cost of both servers and its ratio."""

    this: float
    other: float
    ratio: float
    disturbed: bool = False


def round_of(calm: Sequence[Costs], disturbed: Sequence[Costs], pairs: int) -> Round:
    """The round of these pairs: of the undisturbed ones if they are at least half of the pairs wanted."""
    enough = 2 * len(calm) >= pairs
    used = calm if enough else [*calm, *disturbed]
    return Round(
        median(this for this, _ in used),
        median(other for _, other in used),
        median(this / other for this, other in used),
        not enough,
    )


class Experiment(ABC):
    """How one round is measured, with a session for each of the two servers."""

    def __init__(self, load: Load, pairs: int) -> None:
        self.load = load
        self.pairs = pairs

    @abstractmethod
    def measure(self, this: Session, other: Session) -> dict[str, Round]:
        """The metrics of one round, by name."""


Answers = tuple[dict[str, Any], dict[str, Any]]


def _pair(this: Session, other: Session, request: str, number: int) -> Answers:
    """One period of each server. They take turns in going first."""
    if number % 2 == 0:
        first = this.request(request)
        return first, other.request(request)
    second = other.request(request)
    return this.request(request), second


def _undisturbed(answers: Answers) -> bool:
    return all(answer.get("disturbance", 0.0) <= DISTURBED for answer in answers)


class Traffic(Experiment):
    """All clients log in; then each pair exchanges messages for one period."""

    ATTEMPTS = 3
    """A round measures at most this many times the pairs that it needs."""

    def measure(self, this: Session, other: Session) -> dict[str, Round]:
        for session in (this, other):
            session.request(f"login {self.load.clients}")
            session.request("traffic")  # the first period is slower, because caches and buffers are empty
        calm: list[Costs] = []
        disturbed: list[Costs] = []
        for number in range(self.ATTEMPTS * self.pairs):
            answers = _pair(this, other, "traffic", number)
            if not all(answer["deliveries"] and answer["server_cpu_s"] for answer in answers):
                continue  # on a very busy machine a period can pass before anything is delivered, or a tick of CPU used
            ours, theirs = (answer["server_cpu_s"] / answer["deliveries"] * 1e6 for answer in answers)
            (calm if _undisturbed(answers) else disturbed).append((ours, theirs))
            if len(calm) == self.pairs:
                break
        for session in (this, other):
            session.request("fence")
        if not calm and not disturbed:
            raise TooBusy("the machine is too busy: no pair could be measured")
        return {"cpu": round_of(calm, disturbed, self.pairs)}


class Logins(Experiment):
    """Each pair is a block of logins. After the last one the memory of the servers is compared."""

    def measure(self, this: Session, other: Session) -> dict[str, Round]:
        block = self.load.clients // self.pairs
        before = _pair(this, other, "memory", 0)
        calm: list[Costs] = []
        disturbed: list[Costs] = []
        for number in range(self.pairs):
            answers = _pair(this, other, f"login {block}", number)
            ours, theirs = (answer["server_cpu_s"] / answer["logins"] * 1e6 for answer in answers)
            (calm if _undisturbed(answers) else disturbed).append((ours, theirs))
        after = _pair(this, other, "memory", 0)
        for session in (this, other):
            session.request("fence")
        ours, theirs = (
            (end["rss_kb"] - start["rss_kb"]) / (block * self.pairs)
            for start, end in zip(before, after, strict=True)
        )
        return {
            "cpu": round_of(calm, disturbed, self.pairs),
            "memory": Round(ours, theirs, ours / theirs),
        }


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two servers."""

    server: Server
    dialect: str
    """What its clients speak."""


def measure_round(experiment: Experiment, this: Side, other: Side, cores: Cores) -> dict[str, Round]:
    """Start both servers and measure one round."""
    with ExitStack() as stack:
        sessions = []
        for side in (this, other):
            running = stack.enter_context(servers.started(side.server, (side.dialect,), core=cores.server))
            session = load.session(
                experiment.load,
                running.ports,
                running.process.pid,
                core=cores.load,
                stop_server=running.stop,
            )
            sessions.append(stack.enter_context(session))
        return experiment.measure(*sessions)


SATURATED_100 = Traffic(Load(100, senders=4, window=64, warm_s=0.03, seconds=0.1), pairs=20)
SATURATED_1000 = Traffic(Load(1000, senders=4, window=64, warm_s=0.1, seconds=0.25), pairs=12)
