"""Compare the server in this tree with the same server at another commit, started with other options, or with other clients.

The speed of a shared machine changes from second to second, by far more than the difference that matters. Both servers
therefore run at the same time, on the same core, and work alternately, each for a fraction of a second.

- A *pair* is one such period of each server. It yields one ratio of their costs.
- A *round* starts both servers anew and takes the median ratio of its pairs. It differs from other rounds by what
  differs from one start of a server to the next, such as the layout of its memory.
- A pair that other work disturbed is repeated. If most pairs of a round stay disturbed, the round uses all of them and
  is marked. Disturbance makes ratios noisier but favours neither server: CPU time does not count while a process
  waits, and the order alternates. The interval shows the noise.
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from math import comb
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from bench import load, metrics, servers
from bench.load import Load, Session
from bench.machine import Cores
from bench.servers import BY_KEY, OURS, ROOT, UNTHROTTLED, Server
from bench.tables import kilobytes, markdown, microseconds

ROUNDS = 20
DISTURBED = metrics.DISTURBED
"""A pair is disturbed when one of its periods lost more than this share of its time to other work."""
LIMIT = 1.05
"""A cost of up to this many times the other's cost is called equal, unless another limit is given."""
CONFIDENCE = 0.99
THIS_TREE = "this tree"
LINE = "line"
DIALECTS = (LINE, "json", "slash", "web")
"""What the clients of a comparison can speak."""


class ComparisonFailed(Exception):
    """The comparison could not be made: an unknown commit, a server that does not start or loses messages."""


Costs = tuple[float, float]
"""The costs of this tree and of the other commit in one pair."""


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
            if not all(answer["deliveries"] for answer in answers):
                continue  # on a very busy machine a period can pass before anything is delivered
            ours, theirs = (answer["server_cpu_s"] / answer["deliveries"] * 1e6 for answer in answers)
            (calm if _undisturbed(answers) else disturbed).append((ours, theirs))
            if len(calm) == self.pairs:
                break
        for session in (this, other):
            session.request("fence")
        if not calm and not disturbed:
            raise ComparisonFailed("the machine is too busy: no period delivered a message")
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
        Traffic(Load(100, senders=4, window=64, warm_s=0.03, seconds=0.1), pairs=20),
        "cpu",
        microseconds,
    ),
    Comparison(
        "saturated-1000",
        "CPU per delivery",
        Traffic(Load(1000, senders=4, window=64, warm_s=0.1, seconds=0.25), pairs=12),
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


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison."""

    server: Server
    dialect: str = LINE
    """What its clients speak."""

    @property
    def title(self) -> str:
        """What distinguishes it from the other side."""
        return self.server.title if self.dialect == LINE else f"{self.server.title} ({self.dialect})"


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
    except (load.RequestFailed, servers.ServerFailed) as failed:
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
                Side(_with_options(this, self.options), self.dialect),
                Side(_with_options(other, self.other_options), self.other_dialect),
            )


def _with_options(server: Server, options: Sequence[str]) -> Server:
    title = " ".join([server.title, *options])
    return replace(server, key=title, title=title, command=(*server.command, *options))


def compare(
    choice: Choice, comparisons: Sequence[Comparison], rounds: int, cores: Cores, limit: float = LIMIT
) -> bool:
    """Measure and print. True when every metric is proven to be within the limit."""
    with choice.sides() as (this, other):
        found = measure_rounds(comparisons, this, other, rounds, cores, sys.stderr, limit)
    text, all_within = table(comparisons, found, (this.title, other.title), limit)
    print(text)
    print(f"\nA ratio above 1 means that {this.title} costs more than {other.title}.")
    return all_within
