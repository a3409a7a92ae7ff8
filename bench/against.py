"""Compare the server in this tree with the same server at another commit, started with other options, or with other clients.

Both are measured in pairs (`pairs.py`).

- The result is the median over the rounds, with its confidence interval. A workload is measured until the interval
  proves that the costs are, or are not, equal within the limit. The confidence is high because this is checked after
  every round.

The other commit is exported to a temporary directory and started from there, so the two can differ in module layout.
Both are started as `python -m geventchat` with the same options, which both must understand.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from math import comb
from pathlib import Path
from statistics import median
from typing import TextIO

from bench import load, servers
from bench.load import Load
from bench.machine import Cores
from bench.pairs import (
    SATURATED_100,
    SATURATED_1000,
    Experiment,
    Logins,
    Round,
    Side,
    TooBusy,
    Traffic,
    measure_round,
)
from bench.servers import BY_KEY, OURS, ROOT, UNTHROTTLED, Server
from bench.tables import kilobytes, markdown, microseconds

ROUNDS = 20
LIMIT = 1.05
"""A cost of up to this many times the other's cost is called equal, unless another limit is given."""
CONFIDENCE = 0.99
THIS_TREE = "this tree"
LINE = "line"
DIALECTS = BY_KEY[OURS].dialects
"""What the clients of a comparison can speak."""


class ComparisonFailed(Exception):
    """The comparison could not be made: an unknown commit, a server that does not start or loses messages."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one experiment."""

    key: str
    metric: str
    experiment: Experiment
    name: str
    """The name of the metric in the rounds of the experiment."""
    form: Callable[[float], str]


_LOGINS = Logins(Load(3000, timeout_s=30), pairs=20)

COMPARISONS = (
    Comparison(
        "saturated-100",
        "CPU per delivery",
        SATURATED_100,
        "cpu",
        microseconds,
    ),
    Comparison(
        "saturated-1000",
        "CPU per delivery",
        SATURATED_1000,
        "cpu",
        microseconds,
    ),
    Comparison(
        "one-at-a-time",
        "CPU per delivery",
        Traffic(Load(100, senders=1, window=1, warm_s=0.01, seconds=0.1), pairs=20),
        "cpu",
        microseconds,
    ),
    Comparison(
        "paced-20000",
        "CPU per delivery",
        Traffic(Load(100, senders=4, rate=20_000, warm_s=0.2, seconds=0.4), pairs=12),
        "cpu",
        microseconds,
    ),
    Comparison("idle", "memory per client", _LOGINS, "memory", kilobytes),
    Comparison("login", "CPU per login", _LOGINS, "cpu", microseconds),
)


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


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A confidence interval of the median from order statistics; None when there are too few values for one."""
    ordered, n = sorted(values), len(values)
    outside, rank = 0.0, 0
    while rank < n // 2 and 2 * (outside + comb(n, rank) / 2**n) <= 1 - CONFIDENCE:
        outside += comb(n, rank) / 2**n
        rank += 1
    return None if rank == 0 else (ordered[rank - 1], ordered[n - rank])


class Verdict(Enum):
    """Compare the interval of the ratios with the limit."""

    WITHIN = "within {:.0%}"
    WORSE = "WORSE by more than {:.0%}"
    UNDECIDED = "undecided, needs more rounds"
    TOO_FEW = "too few rounds"


def verdict(interval: tuple[float, float] | None, limit: float = LIMIT) -> Verdict:
    if interval is None:
        return Verdict.TOO_FEW
    low, high = interval
    if high <= limit:
        return Verdict.WITHIN
    return Verdict.WORSE if low > limit else Verdict.UNDECIDED


Rounds = Mapping[str, Sequence[Round]]
"""The rounds of each comparison, by its key."""


def measure_rounds(
    comparisons: Sequence[Comparison],
    this: Side,
    other: Side,
    rounds: int,
    cores: Cores,
    out: TextIO,
    limit: float = LIMIT,
) -> Rounds:
    """Measure until every comparison is decided. An interruption ends the measurement and keeps complete rounds."""
    found: dict[str, list[Round]] = {comparison.key: [] for comparison in comparisons}

    def undecided(comparison: Comparison) -> bool:
        interval = median_interval([one.ratio for one in found[comparison.key]])
        return verdict(interval, limit) in (Verdict.UNDECIDED, Verdict.TOO_FEW)

    try:
        for number in range(rounds):
            open_comparisons = [comparison for comparison in comparisons if undecided(comparison)]
            for experiment in dict.fromkeys(comparison.experiment for comparison in open_comparisons):
                measured = measure_round(experiment, this, other, cores)
                for comparison in comparisons:
                    if comparison.experiment is not experiment:
                        continue
                    one = measured[comparison.name]
                    found[comparison.key].append(one)
                    note = ", disturbed" if one.disturbed else ""
                    print(
                        f"[round {number + 1} of at most {rounds}] {comparison.key}: ratio {one.ratio:.3f}{note}",
                        file=out,
                        flush=True,
                    )
    except KeyboardInterrupt:
        print("interrupted: the results cover the rounds measured so far", file=out)
    except (load.RequestFailed, servers.ServerFailed, TooBusy) as failed:
        raise ComparisonFailed(str(failed)) from None
    return found


def _with_spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    if not values:
        return "–"
    middle = median(values)
    return f"{form(middle)} ±{(max(values) - min(values)) / 2 / middle:.0%}"


def table(
    comparisons: Sequence[Comparison], rounds: Rounds, names: tuple[str, str], limit: float = LIMIT
) -> tuple[str, bool]:
    """The comparison as a Markdown table, and whether every metric is proven to be within the limit."""
    rows, verdicts = [], []
    for comparison in comparisons:
        found = rounds[comparison.key]
        ratios = [one.ratio for one in found]
        disturbed = sum(one.disturbed for one in found)
        interval = median_interval(ratios)
        verdicts.append(verdict(interval, limit))
        rows.append(
            [
                comparison.key,
                comparison.metric,
                _with_spread([one.this for one in found], comparison.form),
                _with_spread([one.other for one in found], comparison.form),
                f"{median(ratios):.3f}" if ratios else "–",
                f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–",
                f"{len(found)}, {disturbed} disturbed" if disturbed else str(len(found)),
                verdicts[-1].value.format(limit - 1),
            ]
        )
    head = ["workload", "metric", *names, "ratio", f"{CONFIDENCE:.0%} interval", "rounds", "verdict"]
    return markdown(head, rows), all(one is Verdict.WITHIN for one in verdicts)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is compared: this tree with some options and clients, and a commit or this tree with others."""

    options: Sequence[str] = ()
    commit: str = ""
    """Empty for this tree."""
    other_options: Sequence[str] = ()
    dialect: str = LINE
    other_dialect: str = LINE

    @contextmanager
    def sides(self) -> Iterator[tuple[Side, Side]]:
        """Both sides; their titles tell them apart."""
        with exported(self.commit) if self.commit else nullcontext((_this_tree(), ROOT)) as (name, folder):
            this, other = server_in(ROOT, _this_tree()), server_in(folder, name)
            yield (
                _side(this, self.options, self.dialect),
                _side(other, self.other_options, self.other_dialect),
            )


def _side(server: Server, options: Sequence[str], dialect: str) -> Side:
    title = " ".join([server.title, *options])
    if dialect != LINE:
        title += f" ({dialect})"
    server = replace(server, key=title, title=title, command=(*server.command, *options))
    return Side(server, dialect)


def compare(
    choice: Choice, comparisons: Sequence[Comparison], rounds: int, cores: Cores, limit: float = LIMIT
) -> bool:
    """Measure and print. True when every metric is proven to be within the limit."""
    with choice.sides() as (this, other):
        found = measure_rounds(comparisons, this, other, rounds, cores, sys.stderr, limit)
    names = (this.server.title, other.server.title)
    text, all_within = table(comparisons, found, names, limit)
    print(text)
    print(f"\nA ratio above 1 means that {names[0]} costs more than {names[1]}.")
    return all_within
