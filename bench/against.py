"""Compare the server in this tree with the same server at another commit.

Both run in the same rounds, one directly after the other and in alternating order, and each round yields one ratio.
A change in the speed of the machine therefore affects both sides of a ratio alike. A round in which other work
disturbed either server is discarded and measured again. A workload is measured until its ratios prove that the costs
are, or are not, equal within the limit; the confidence is high because the proof is checked after every round.

The other commit is exported to a temporary directory and started from there, so the two may differ in module layout.
Both are started as `python -m geventchat` with the same options, which both must understand.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from math import comb
from pathlib import Path
from statistics import median
from typing import TextIO

from bench.load import Load
from bench.machine import Cores
from bench.metrics import Metrics, Run
from bench.rounds import PlannedRun, measure
from bench.servers import BY_KEY, OURS, ROOT, UNTHROTTLED, Server
from bench.tables import kilobytes, markdown, microseconds
from bench.workloads import Workload, saturated

ROUNDS = 40
ATTEMPTS = 5
"""How often one round is measured at most until it is undisturbed."""
LIMIT = 1.05
"""The other commit's cost times this is still called equal."""
CONFIDENCE = 0.99
THIS_TREE = "this tree"


class ComparisonFailed(Exception):
    """The comparison could not be made: an unknown commit, a server that does not start or loses messages."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one workload."""

    key: str
    metric: str
    workload: Workload
    value: Callable[[Metrics], float | None]
    form: Callable[[float], str]


_LOGINS = Workload("logins", "3,000 logins, then idle", Load(3000, idle_s=0.5, timeout_s=30))

COMPARISONS = (
    Comparison(
        "saturated-100",
        "CPU per delivery",
        Workload("saturated-100", "100 clients, 4 senders, window 64", saturated(100, 1.0)),
        lambda metrics: metrics.cpu_per_delivery_us,
        microseconds,
    ),
    Comparison(
        "saturated-1000",
        "CPU per delivery",
        Workload("saturated-1000", "1,000 clients, 4 senders, window 64", saturated(1000, 1.5)),
        lambda metrics: metrics.cpu_per_delivery_us,
        microseconds,
    ),
    Comparison(
        "one-at-a-time",
        "CPU per delivery",
        Workload("one-at-a-time", "one message at a time", Load(100, senders=1, window=1, seconds=1.0)),
        lambda metrics: metrics.cpu_per_delivery_us,
        microseconds,
    ),
    Comparison("idle", "memory per client", _LOGINS, lambda metrics: metrics.memory_per_client_kb, kilobytes),
    Comparison("login", "CPU per login", _LOGINS, lambda metrics: metrics.cpu_per_login_us, microseconds),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two runs of one undisturbed round."""

    this: Run
    other: Run


def _git(*arguments: str, index: Path | None = None) -> str:
    environment = os.environ if index is None else {**os.environ, "GIT_INDEX_FILE": str(index)}
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise ComparisonFailed("git is not installed") from None
    if done.returncode != 0:
        raise ComparisonFailed(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def exported(commit: str) -> Iterator[tuple[str, Path]]:
    """The files of a commit in a temporary directory, with the commit's short name. The repository is not changed."""
    name = _git("rev-parse", "--short", "--verify", "--end-of-options", f"{commit}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="bench-against-") as folder:
        files = Path(folder) / "files"
        index = Path(folder) / "index"
        _git("read-tree", name, index=index)
        _git("checkout-index", "--all", f"--prefix={files}/", index=index)
        yield name, files


def server_in(folder: Path, name: str) -> Server:
    """The server in this directory, compiled so that its first start costs no more than the next."""
    compileall.compile_dir(folder / "geventchat", quiet=2)
    server = replace(BY_KEY[OURS], key=name, title=name, folder=folder)
    server = replace(server, command=_understood(server))
    found = subprocess.run(
        [sys.executable, "-c", "import geventchat; print(geventchat.__file__)"],
        cwd=folder,
        env=server.environment,
        capture_output=True,
        text=True,
    )
    if not Path(found.stdout.strip()).is_relative_to(folder):
        raise ComparisonFailed(
            f"{name}: geventchat is not imported from {folder}: {found.stdout}{found.stderr}"
        )
    return server


def _understood(server: Server) -> tuple[str, ...]:
    """The server's command without rates that it has no option for: an earlier commit can have fewer limits."""
    help_text = subprocess.run(
        [sys.executable, "-m", "geventchat", "--help"],
        cwd=server.folder,
        env=server.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = list(server.command)
    for option in UNTHROTTLED[::2]:
        if f"{option} " not in help_text:
            at = command.index(option)
            del command[at : at + 2]
    return tuple(command)


def _this_tree() -> str:
    return f"{THIS_TREE}, uncommitted changes" if _git("status", "--porcelain", "geventchat") else THIS_TREE


def _undisturbed_pair(
    workload: Workload, this: Server, other: Server, number: int, cores: Cores
) -> tuple[Pair | None, int]:
    """One round of one workload, with the number of attempts; no pair if every attempt was disturbed."""
    for attempt in range(ATTEMPTS):
        order = (this, other) if (number + attempt) % 2 == 0 else (other, this)
        runs = {server.key: measure(PlannedRun(workload, server, number), cores) for server in order}
        for key, run in runs.items():
            if run.failure:
                raise ComparisonFailed(f"{workload.key}, {key}: {run.failure}")
        if not any(run.disturbed for run in runs.values()):
            return Pair(runs[this.key], runs[other.key]), attempt + 1
    return None, ATTEMPTS


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A confidence interval of the median from order statistics; None when there are too few values for one."""
    ordered, n = sorted(values), len(values)
    outside, rank = 0.0, 0
    while rank < n // 2 and 2 * (outside + comb(n, rank) / 2**n) <= 1 - CONFIDENCE:
        outside += comb(n, rank) / 2**n
        rank += 1
    return None if rank == 0 else (ordered[rank - 1], ordered[n - rank])


class Verdict(Enum):
    """What the interval of the ratios proves about the limit."""

    WITHIN = f"within {LIMIT - 1:.0%}"
    WORSE = f"WORSE by more than {LIMIT - 1:.0%}"
    UNDECIDED = "undecided, needs more rounds"
    TOO_FEW = "too few undisturbed rounds"


def verdict(interval: tuple[float, float] | None) -> Verdict:
    if interval is None:
        return Verdict.TOO_FEW
    low, high = interval
    if high <= LIMIT:
        return Verdict.WITHIN
    return Verdict.WORSE if low > LIMIT else Verdict.UNDECIDED


def _sides(comparison: Comparison, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """The metric of both servers in every round in which it could be measured for both."""
    return [
        (this, other)
        for pair in pairs
        if (this := comparison.value(pair.this.metrics())) is not None
        and (other := comparison.value(pair.other.metrics()))
    ]


def _interval(comparison: Comparison, pairs: Sequence[Pair]) -> tuple[float, float] | None:
    return median_interval([this / other for this, other in _sides(comparison, pairs)])


def measure_pairs(
    comparisons: Sequence[Comparison], this: Server, other: Server, rounds: int, cores: Cores, out: TextIO
) -> dict[str, list[Pair]]:
    """The undisturbed rounds of each workload. An interruption ends the measurement and keeps what is complete."""
    workloads = {comparison.workload.key: comparison.workload for comparison in comparisons}
    pairs: dict[str, list[Pair]] = {key: [] for key in workloads}

    def undecided(key: str) -> bool:
        return any(
            verdict(_interval(comparison, pairs[key])) in (Verdict.UNDECIDED, Verdict.TOO_FEW)
            for comparison in comparisons
            if comparison.workload.key == key
        )

    try:
        for number in range(rounds):
            for key in [key for key in workloads if undecided(key)]:
                pair, attempts = _undisturbed_pair(workloads[key], this, other, number, cores)
                if pair is not None:
                    pairs[key].append(pair)
                result = "disturbed" if pair is None else f"measured in attempt {attempts}"
                print(f"[round {number + 1} of at most {rounds}] {key}: {result}", file=out, flush=True)
    except KeyboardInterrupt:
        print("interrupted: the results cover the rounds measured so far", file=out)
    return pairs


def _value_with_spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    middle = median(values)
    return f"{form(middle)} ±{(max(values) - min(values)) / 2 / middle:.0%}"


def table(
    comparisons: Sequence[Comparison], pairs: dict[str, list[Pair]], names: tuple[str, str]
) -> tuple[str, bool]:
    """The comparison as a Markdown table, and whether every metric is proven to be within the limit."""
    rows, verdicts = [], []
    for comparison in comparisons:
        both = _sides(comparison, pairs[comparison.workload.key])
        ratios = [this / other for this, other in both]
        interval = median_interval(ratios)
        verdicts.append(verdict(interval))
        rows.append(
            [
                comparison.key,
                comparison.metric,
                *(
                    _value_with_spread(side, comparison.form) if side else "–"
                    for side in ([this for this, _ in both], [other for _, other in both])
                ),
                f"{median(ratios):.3f}" if ratios else "–",
                f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–",
                str(len(ratios)),
                verdicts[-1].value,
            ]
        )
    head = ["workload", "metric", *names, "ratio", f"{CONFIDENCE:.0%} interval", "rounds", "verdict"]
    return markdown(head, rows), all(found is Verdict.WITHIN for found in verdicts)


def compare(commit: str, comparisons: Sequence[Comparison], rounds: int, cores: Cores) -> bool:
    """Measure and print. True when every metric is proven to be within the limit."""
    with exported(commit) as (name, folder):
        this, other = server_in(ROOT, _this_tree()), server_in(folder, name)
        pairs = measure_pairs(comparisons, this, other, rounds, cores, sys.stderr)
    text, all_within = table(comparisons, pairs, (this.title, other.title))
    print(text)
    print(f"\nA ratio above 1 means that {this.title} costs more than {other.title}.")
    return all_within
