"""A search for attacks that cost the server, or the people on it, the most.

Knows how to choose the next attack and what to keep. Does not know how one is played: a trial is any function from an attack
to what was measured. Invariants:
- With the same seed, the same files to begin with and the same measurements, the same attacks are tried in the same order.
- The value of an attack that is kept as the best is the lower one of two measurements, and a finding is a bound that was
  exceeded in three trials of the same attack.
- What was found is written as it is found, so that an interrupted search loses nothing but its last trial.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geventchat import Limits
from tests.fire.attacks import bounds, plan, play
from tests.fire.attacks.bounds import Broken
from tests.fire.attacks.plan import Attack
from tests.fire.attacks.play import Measured
from tests.fire.attacks.variation import crossed, mutated, random_attack

# Changes with everything that makes totals of different searches different things.
VERSION = 1
HERE = Path(__file__).parent
BEST, SEEDS = HERE / "best", HERE / "seeds"
TOTALS = "totals.json"

Trial = Callable[[Attack], Measured]

# One address that delays for a second counts no more than a few that do.
_FEW = 4


def _for_each_address(measured: Measured, wait_ms: float) -> float:
    return max(0.0, wait_ms - 1000 * measured.starved_s) / (measured.addresses + _FEW)


OBJECTIVES: dict[str, Callable[[Measured], float]] = {
    "memory": lambda measured: measured.memory_share,
    "cpu": lambda measured: measured.cpu_per_s,
    "cpu-after": lambda measured: measured.cpu_after_per_s,
    # Each address is waited for in turn, and a few dozen outlast a trial. What counts is the delay for each of them.
    "latency": lambda measured: _for_each_address(measured, measured.latency_p99_ms),
    "newcomer": lambda measured: _for_each_address(measured, measured.newcomer_ms),
    # The further a reader is behind, the nearer it is to being disconnected.
    "disconnected": lambda measured: (
        len(measured.disconnected) + min(0.99, measured.behind_bytes / (4 * Limits().queue_bytes))
    ),
    "log": lambda measured: measured.log_bytes_per_s,
}

# How many attacks are kept for each objective, and how often a bound has to be exceeded after the first time.
_KEPT = 4
_REPEATS = 2
# A bound that has been found exceeded this often is not repeated any more.
_ENOUGH = 3
_MOST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Kept:
    """An attack and what it was measured with."""

    attack: Attack
    value: float
    measured: Measured


@dataclass(frozen=True, slots=True)
class Finding:
    """A bound that an attack exceeds every time."""

    attack: Attack
    broken: Broken
    measured: Measured
    file: str


@dataclass(slots=True)
class Totals:
    """The cost of a search."""

    trials: int = 0
    cpu_s: float = 0.0
    seconds: float = 0.0
    findings: int = 0


@dataclass(slots=True)
class Outcome:
    """The findings of a search."""

    totals: Totals = field(default_factory=Totals)
    findings: list[Finding] = field(default_factory=list)
    best: dict[str, list[Kept]] = field(default_factory=lambda: {name: [] for name in OBJECTIVES})


def attacks_in(directory: Path) -> dict[str, Attack]:
    """The attacks that are kept in this directory, by the name of their file."""
    return {path.stem: plan.load(path) for path in sorted(directory.glob("*.json")) if path.name != TOTALS}


class Search:
    """Tries attacks until its time is over."""

    def __init__(
        self,
        trial: Trial,
        seed: int,
        starts: Mapping[str, Attack],
        directory: Path,
        *,
        jobs: int = 1,
        say: Callable[[str], None] = print,
    ) -> None:
        """`starts` are tried first. `directory` is where the best, the findings and the totals are kept."""
        self._trial = trial
        self._seed = seed
        # One attack can have been the best in several ways.
        self._starts: dict[Attack, str] = {}
        for name, attack in starts.items():
            self._starts.setdefault(attack, name)
        self._unsaved: set[str] = set()
        self._directory = directory
        self._jobs = jobs
        self._say = say
        self._chosen = 0
        # For each way to make an attack, how often the attack was kept, and how often not.
        self._ways = {(objective, how): [1, 1] for objective in OBJECTIVES for how in ("mutate", "cross")}
        self._ways["new", "new"] = [1, 1]
        self._exceeded: dict[str, int] = {}
        self._failures = 0
        self._counting = threading.Lock()
        self._cpu_s = _cpu_s()
        self._began = time.monotonic()
        self.outcome = Outcome()

    def run(self, seconds: float, trials: int | None = None) -> Outcome:
        """Search for this long, or until this many attacks have been tried. Ctrl-C ends it in order."""
        self._began, self._cpu_s = time.monotonic(), _cpu_s()
        self._directory.mkdir(parents=True, exist_ok=True)
        deadline = self._began + seconds
        try:
            with ThreadPoolExecutor(self._jobs) as pool:
                while time.monotonic() < deadline and (trials is None or self._chosen < trials):
                    chosen = [self._choose() for _ in range(self._jobs)]
                    tried = (
                        [self._try(chosen[0][1])]
                        if self._jobs == 1
                        else pool.map(self._try, [attack for _, attack in chosen])
                    )
                    for (way, attack), measured in zip(chosen, tried, strict=True):
                        if measured is not None:
                            self._learn(way, attack, measured)
        except KeyboardInterrupt:
            self._say("interrupted")
        self._count(0)
        return self.outcome

    # --- Choosing ----------------------------------------------------------------------------------------------------

    def _choose(self) -> tuple[tuple[str, str], Attack]:
        self._chosen += 1
        if self._starts:
            attack = next(iter(self._starts))
            return ("given", self._starts.pop(attack)), attack
        # Separate random numbers for each trial, so that the draws of one do not shift the others.
        rng = random.Random(f"{self._seed}:{self._chosen}")
        way = max(self._ways, key=lambda way: rng.betavariate(*self._ways[way]))
        objective, how = way
        parents = self.outcome.best.get(objective)
        if not parents:
            return ("new", "new"), random_attack(rng)
        # The best is the parent of every other one.
        parent = parents[0] if rng.random() < 0.5 else rng.choice(parents)
        if how == "mutate":
            return way, mutated(parent.attack, rng)
        everyone = [kept.attack for best in self.outcome.best.values() for kept in best]
        return way, crossed(parent.attack, rng.choice(everyone), rng)

    # --- Trying ------------------------------------------------------------------------------------------------------

    def _try(self, attack: Attack) -> Measured | None:
        try:
            measured = self._trial(attack)
        except (AssertionError, OSError, ValueError) as error:
            self._failures += 1
            self._say(
                f"the trial failed: {type(error).__name__}: {error}; {json.dumps(plan.to_json(attack))}"
            )
            if self._failures >= _MOST_FAILURES:
                raise
            return None
        self._failures = 0
        self._count(1)
        return measured

    def _learn(self, way: tuple[str, str], attack: Attack, measured: Measured) -> None:
        exceeded = bounds.broken(measured)
        kept = self._keep(attack, measured)
        if way in self._ways:
            self._ways[way][0 if kept else 1] += 1
        number = self.outcome.totals.trials
        self._say(
            f"{number:5} {'/'.join(way):34} {measured}"
            + (f" best: {', '.join(kept)}" if kept else "")
            + "".join(f" EXCEEDED {one}" for one in exceeded)
        )
        fresh = [one for one in exceeded if self._exceeded.get(one.bound, 0) < _ENOUGH]
        if fresh:
            self._repeat(attack, measured, fresh)

    def _keep(self, attack: Attack, measured: Measured) -> list[str]:
        """Keep the attack for each objective for which it is among the best; returns those for which it is the best."""
        first: list[str] = []
        again: Measured | None = None
        for name, value_of in OBJECTIVES.items():
            best, value = self.outcome.best[name], value_of(measured)
            leads = not best or value > best[0].value
            if leads and best:
                if again is None:
                    again = self._try(attack)
                    if again is None:
                        return first
                value = min(value, value_of(again))
                leads = value > best[0].value
            if not leads and len(best) >= _KEPT and value <= best[-1].value:
                continue
            best.append(Kept(attack, value, measured))
            best.sort(key=lambda kept: kept.value, reverse=True)
            del best[_KEPT:]
            if leads:
                first.append(name)
                self._unsaved.add(name)
        self._save()
        return first

    def _save(self) -> None:
        for name in sorted(self._unsaved):
            # Until all that is given has been tried, what is kept from earlier can still turn out to be better.
            if not (self._starts and (self._directory / f"{name}.json").exists()):
                best = self.outcome.best[name][0]
                self._write(name, best.attack, best.measured, value=best.value)
                self._unsaved.remove(name)

    def _repeat(self, attack: Attack, measured: Measured, exceeded: list[Broken]) -> None:
        for _ in range(_REPEATS):
            again = self._try(attack)
            if again is None:
                return
            still = {one.bound for one in bounds.broken(again)}
            exceeded = [one for one in exceeded if one.bound in still]
            if not exceeded:
                self._say("      not exceeded again")
                return
        for one in exceeded:
            number = self._exceeded[one.bound] = self._exceeded.get(one.bound, 0) + 1
            name = f"finding-{re.sub('[^a-z0-9]+', '-', one.bound.lower())}-{number}"
            file = self._write(name, attack, measured, bound=str(one), trials=1 + _REPEATS)
            self.outcome.findings.append(Finding(attack, one, measured, str(file)))
            self.outcome.totals.findings += 1
            self._count(0)
            self._say(f"      FINDING {one}; in {file}")

    # --- Files -------------------------------------------------------------------------------------------------------

    def _write(self, name: str, attack: Attack, measured: Measured, **more: Any) -> Path:
        path = self._directory / f"{name}.json"
        record = {
            "version": VERSION,
            **more,
            "attack": plan.to_json(attack),
            "measured": play.to_json(measured),
        }
        _replace(path, record)
        return path

    def _count(self, trials: int) -> None:
        """Add what has been used since the last call to the totals of this search and of all."""
        with self._counting:
            self._count_alone(trials)

    def _count_alone(self, trials: int) -> None:
        cpu_s, now = _cpu_s(), time.monotonic()
        totals = self.outcome.totals
        totals.trials += trials
        totals.cpu_s += cpu_s - self._cpu_s
        totals.seconds += now - self._began
        path = self._directory / TOTALS
        with _locked(self._directory):
            all_totals = json.loads(path.read_text()) if path.exists() else {}
            before = all_totals.setdefault(str(VERSION), {"trials": 0, "cpu_s": 0.0, "seconds": 0.0})
            before["trials"] += trials
            before["cpu_s"] = round(before["cpu_s"] + cpu_s - self._cpu_s, 1)
            before["seconds"] = round(before["seconds"] + now - self._began, 1)
            _replace(path, all_totals)
        self._cpu_s, self._began = cpu_s, now


def summary(outcome: Outcome) -> str:
    """A summary of the findings, in a few lines."""
    totals = outcome.totals
    lines = [f"{totals.trials} trials, {totals.cpu_s:.0f} s of CPU in {totals.seconds:.0f} s"]
    for name, best in outcome.best.items():
        if best:
            lines.append(f"{name:>12}: {best[0].value:.4g} ({best[0].measured})")
    lines += [f"FINDING {finding.broken}; {finding.file}" for finding in outcome.findings]
    return "\n".join(lines if outcome.findings else [*lines, "no bound was exceeded"])


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Several searches can add to the same totals."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, record: dict[str, Any]) -> None:
    """Write the file whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, path)


def _cpu_s() -> float:
    """Processor time of this process and of all its children that have ended: servers, honest people, load."""
    spent = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        spent += usage.ru_utime + usage.ru_stime
    return spent
