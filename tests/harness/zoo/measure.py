"""Plays scripts against the servers of the zoo, many at a time, and counts wrong verdicts.

- One job is one server and a number of runs with each of its fences; a run plays one of the scripts. Its server is started
  once and serves all of them.
- A wrong failure is a failure of a script that says what the server does. A wrong pass is the opposite.
- Nothing here decides whether a wrong pass is a defect of the harness; `Script.wrong_pass` says when it can happen.
- `Count` is what is kept of the plays. Everything that is printed or published is made of counts, so a stored run has the
  same tables.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from harness import Command, Outcome, parse, play
from harness.playing.verdict import Verdict
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.fence import Grade
from tests.harness.zoo import SERVERS, ZooServer
from tests.harness.zoo.scripts import FENCES, MOMENT_MS, SCRIPTS, SETTLE_MS, Script, WrongPass

SCRIPT = {script.name: script for script in SCRIPTS}
SERVER = {server.name: server for server in SERVERS}
GRADES = [str(grade) for grade in reversed(Grade)]
NOT_PLAYED = "not played"
"""Instead of a grade: the server did not start, or does not have what the script requires. No verdict, so neither right nor
wrong."""

ONE_IN = {WrongPass.IN_SETTLE: 1_000, WrongPass.IN_MOMENT: 50}
"""Of so many plays one can pass. A run has few plays in the short wait, so it cannot show that fewer than that pass."""
ONE_IN_A_CELL = 10
"""The same for one script with one server and fence: a defect of a single cell has to show among thousands of right plays."""

RULE = (
    "Where a line is late by less than the harness waits, a wrong pass should be rare. The measurement fails if more than one "
    f"play in {ONE_IN[WrongPass.IN_SETTLE]:,} passes where the harness waits {SETTLE_MS:g} ms, more than one in "
    f"{ONE_IN[WrongPass.IN_MOMENT]} where it waits {MOMENT_MS:g} ms, or more than one in {ONE_IN_A_CELL} of one script with "
    "one server and fence. One of any number is allowed in each case.\n"
)


@dataclass(frozen=True)
class Job:
    server: str
    fences: tuple[str, ...]
    runs: int
    seed: int
    built: str


@dataclass(frozen=True)
class Play:
    """One play, and whether its verdict is right."""

    server: str
    fence: str
    script: str
    outcome: Outcome
    must_fail: bool
    grade: str
    report: str = ""
    """Of a wrong failure, and of a script that was not played."""

    @property
    def played(self) -> bool:
        return self.grade != NOT_PLAYED

    @property
    def wrong_failure(self) -> bool:
        return self.outcome is Outcome.FAILED and not self.must_fail

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED

    @property
    def wrong_pass(self) -> WrongPass | None:
        """When this could be, if it is one."""
        if not self.passed or not self.must_fail:
            return None
        return SCRIPT[self.script].wrong_pass(SERVER[self.server], self.fence, self.grade)


def fences(server: ZooServer) -> Sequence[str]:
    return ("exact",) if server.in_process else ("SYNC", "MSG", "PING", "none")


def scripts(server: ZooServer) -> list[Script]:
    """The scripts that say something about this server."""
    return [script for script in SCRIPTS if script.suits(server)]


def jobs(
    servers: Iterable[ZooServer], wanted: Sequence[str], runs: int, seed: int, built: str, at_once: int
) -> list[Job]:
    """Jobs of at most `at_once` runs, so that all processes have something to do."""
    pieces = [min(at_once, runs - begin) for begin in range(0, runs, at_once)]
    found = [
        Job(server.name, (fence,), piece, seed + number, built)
        for server in servers
        for fence in fences(server)
        if fence in wanted
        for number, piece in enumerate(pieces)
    ]
    random.Random(seed).shuffle(found)
    return found


def done(job: Job) -> list[Play]:
    """Play all runs of a job. The scripts follow one another, from one that the seed chooses."""
    server = SERVER[job.server]
    among = scripts(server)
    target = server.target(job.built)
    try:
        played = []
        for at, fence in enumerate(job.fences):
            for number in range(job.runs):
                script = among[((job.seed + at) * job.runs + number) % len(among)]
                text = script.text(server, fence, f"{fence}{number}")
                verdict = play(parse(text, f"{script.name}.chat"), target)
                played.append(_play(job.server, fence, script, verdict))
        return played
    finally:
        if isinstance(target, Command):
            target.close()


def _play(server: str, fence: str, script: Script, verdict: Verdict) -> Play:
    must_fail = script.must_fail(SERVER[server])
    played = verdict.outcome in (Outcome.PASSED, Outcome.FAILED)
    # A turn that was interrupted was not proven to be over, which is the weakest.
    grade = str(verdict.grade or Grade.SETTLED) if played else NOT_PLAYED
    found = Play(server, fence, script.name, verdict.outcome, must_fail, grade)
    to_report = found.wrong_failure or not found.played
    return replace(found, report=plain(report(verdict))) if to_report else found


def measured(executor: Executor, todo: Sequence[Job], progress: Callable[[int, int], None]) -> list[Play]:
    """All plays of all jobs."""
    plays: list[Play] = []
    total = sum(job.runs * len(job.fences) for job in todo)
    futures = [executor.submit(done, job) for job in todo]
    try:
        for future in as_completed(futures):
            plays += future.result()
            progress(len(plays), total)
    finally:
        for future in futures:
            future.cancel()
    return plays


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that compete for the processors. They end when their standard input does, at the latest with this one."""
    program = (
        "import os, threading\n"
        "threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()\n"
        "while True: pass\n"
    )
    loops = [
        subprocess.Popen([sys.executable, "-S", "-c", program], stdin=subprocess.PIPE) for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.communicate()


# --- what is kept -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """The plays of one script with one server and fence that had this grade, or were `NOT_PLAYED`."""

    server: str
    fence: str
    grade: str
    script: str
    plays: int
    wrong_failures: int
    wrong_passes: int

    @property
    def played(self) -> bool:
        return self.grade != NOT_PLAYED

    @property
    def must_fail(self) -> bool:
        return SCRIPT[self.script].must_fail(SERVER[self.server])

    @property
    def can_pass(self) -> WrongPass | None:
        """When these plays could pass wrongly; None if they had to pass, or were none."""
        if not self.must_fail or not self.played:
            return None
        return SCRIPT[self.script].wrong_pass(SERVER[self.server], self.fence, self.grade)


def counted(plays: Iterable[Play]) -> list[Count]:
    groups: dict[tuple[str, str, str, str], list[Play]] = {}
    for one in plays:
        groups.setdefault((one.server, one.fence, one.grade, one.script), []).append(one)
    found = [
        Count(
            *key,
            plays=len(group),
            wrong_failures=sum(one.wrong_failure for one in group),
            wrong_passes=sum(one.wrong_pass is not None for one in group),
        )
        for key, group in groups.items()
    ]
    return sorted(found, key=_order)


def _order(count: Count) -> tuple[int, int, int, int]:
    return (
        list(SERVER).index(count.server),
        list(FENCES).index(count.fence),
        [*GRADES, NOT_PLAYED].index(count.grade),
        list(SCRIPT).index(count.script),
    )


def as_json(counts: Iterable[Count], settings: dict[str, Any]) -> str:
    """A line for each server, fence and grade."""
    lines: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for one in counts:
        of_scripts = lines.setdefault((one.server, one.fence, one.grade), {})
        of_scripts[one.script] = [one.plays, one.wrong_failures, one.wrong_passes]
    rows = ",\n".join(
        json.dumps([*key, of_scripts], separators=(",", ": ")) for key, of_scripts in lines.items()
    )
    columns = json.dumps(
        ["server", "fence", "grade", {"script": ["plays", "wrong failures", "wrong passes"]}]
    )
    return f'{{"settings": {json.dumps(settings)},\n"columns": {columns},\n"rows": [\n{rows}\n]}}\n'


def from_json(text: str) -> tuple[list[Count], dict[str, Any]]:
    """The counts and the settings of a run that was stored."""
    data = json.loads(text)
    counts = [
        Count(server, fence, grade, script, *numbers)
        for server, fence, grade, of_scripts in data["rows"]
        for script, numbers in of_scripts.items()
    ]
    return counts, data["settings"]


def must_not_be(counts: Sequence[Count]) -> list[str]:
    """The wrong verdicts that mean a defect, and the plays without a verdict, in words. `RULE` is what is rare enough."""
    found = [f"not played: {_name(one)}" for one in counts if not one.played]
    found += [f"wrong failure: {_name(one)}" for one in counts if one.wrong_failures]
    found += [
        f"wrong pass: {_name(one)}" for one in counts if one.wrong_passes and one.can_pass is WrongPass.NEVER
    ]
    for kind, one_in in ONE_IN.items():
        cells: dict[str, list[Count]] = {}
        for one in counts:
            if one.can_pass is kind:
                cells.setdefault(_name(one), []).append(one)
        passed = [name for name, cell in cells.items() if any(one.wrong_passes for one in cell)]
        everything = [one for cell in cells.values() for one in cell]
        checked = [(everything, one_in, "; ".join(passed))]
        checked += [(cells[name], ONE_IN_A_CELL, name) for name in passed]
        for some, most, where in checked:
            passes, plays = sum(one.wrong_passes for one in some), sum(one.plays for one in some)
            if passes > max(1, plays / most):
                found.append(f"{kind.value}: {passes} wrong passes of {plays}: {where}")
    return list(dict.fromkeys(found))


def _name(count: Count) -> str:
    return f"{count.server}, {count.fence}, {count.script}"


# --- the tables ---------------------------------------------------------------------------------------------


def tables(every: Sequence[Count]) -> dict[str, str]:
    """All tables, by the name of their place on the page. Plays without a verdict have a row among the grades only."""
    counts = [one for one in every if one.played]
    return {
        "grades": _table(
            ["grade", "pairs", *_COLUMNS],
            [
                *([one, *_pairs(_of(counts, grade=one)), *_sums(_of(counts, grade=one))] for one in GRADES),
                [NOT_PLAYED, *_pairs([one for one in every if not one.played]), *_not_played(every)],
            ],
        ),
        "fences": _table(["fence", *_COLUMNS], [[one, *_sums(_of(counts, fence=one))] for one in FENCES]),
        "lateness": _table(
            ["can it pass?", "pairs", "plays", "of which delayed", "wrong passes"],
            [[kind.value, *_passes([one for one in counts if one.can_pass is kind])] for kind in WrongPass],
        ),
        "shares": _table(["fence", *GRADES], [[one, *_shares(_of(counts, fence=one))] for one in FENCES]),
        "scripts": _table(
            ["server", "fence", "grade", "script", "wrong passes", "possible?"], _passed_wrongly(counts)
        ),
        "servers": _table(
            ["server", "what is late or wrong", *FENCES],
            [
                [
                    server,
                    SERVER[server].where,
                    *(_cell(_of(counts, server=server, fence=one)) for one in FENCES),
                ]
                for server in dict.fromkeys(one.server for one in every)
            ],
        ),
    }


_COLUMNS = (
    "had to pass",
    "wrong failures",
    "per 1,000",
    "had to fail",
    "wrong passes",
    "per 1,000",
    "of which possible",
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Without rows that say nothing."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *(row for row in rows if any(row[1:])))]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:], ""])


def _of(counts: Iterable[Count], **wanted: str) -> list[Count]:
    return [one for one in counts if all(getattr(one, name) == value for name, value in wanted.items())]


def _sums(counts: Sequence[Count]) -> list[str]:
    """The cells of a row: how many verdicts could be wrong in each of the two ways, how many were, and the rate."""
    if not counts:
        return [""] * len(_COLUMNS)
    right, wrong = _plays(counts, must_fail=False), _plays(counts, must_fail=True)
    failures, passes = sum(one.wrong_failures for one in counts), sum(one.wrong_passes for one in counts)
    possible = sum(one.wrong_passes for one in counts if one.can_pass is WrongPass.EXPECTED)
    return [
        f"{right:,}", f"{failures:,}", _per_thousand(failures, right),
        f"{wrong:,}", f"{passes:,}", _per_thousand(passes, wrong), f"{possible:,}",
    ]  # fmt: skip


def _not_played(every: Sequence[Count]) -> list[str]:
    """The cells of a row: how many verdicts are missing of each kind. They have no rate."""
    missing = [one for one in every if not one.played]
    cells = [""] * len(_COLUMNS)
    if missing:
        cells[0] = f"{_plays(missing, must_fail=False):,}"
        cells[3] = f"{_plays(missing, must_fail=True):,}"
    return cells


def _per_thousand(part: int, of: int) -> str:
    if not of:
        return ""
    return "0" if not part else f"{1000 * part / of:.2g}" if part < of / 10 else f"{1000 * part / of:.0f}"


def _pairs(counts: Sequence[Count]) -> list[str]:
    """The cell with the number of different pairs of server and script, empty without any."""
    return [f"{len({(one.server, one.script) for one in counts}):,}" if counts else ""]


def _passes(counts: Sequence[Count]) -> list[str]:
    if not counts:
        return [""] * 4
    delayed = [one for one in counts if SCRIPT[one.script].late_ms(SERVER[one.server])]
    return [
        *_pairs(counts),
        f"{sum(one.plays for one in counts):,}",
        f"{sum(one.plays for one in delayed):,}",
        f"{sum(one.wrong_passes for one in counts):,}",
    ]


def _shares(counts: Sequence[Count]) -> list[str]:
    of_grades = Counter[str]()
    for one in counts:
        of_grades[one.grade] += one.plays
    return [f"{100 * of_grades[one] / of_grades.total():.0f} %" if of_grades[one] else "" for one in GRADES]


def _cell(counts: Sequence[Count]) -> str:
    """`0/500 · 0/400`: wrong failures and wrong passes, each of the plays in which they could have been."""
    if not counts:
        return ""
    failures, passes = sum(one.wrong_failures for one in counts), sum(one.wrong_passes for one in counts)
    return f"{failures}/{_plays(counts, must_fail=False)} · {passes}/{_plays(counts, must_fail=True)}"


def _plays(counts: Iterable[Count], *, must_fail: bool) -> int:
    return sum(one.plays for one in counts if one.must_fail == must_fail)


def _passed_wrongly(counts: Sequence[Count]) -> Iterator[list[str]]:
    for one in counts:
        if one.wrong_passes and one.can_pass is not None:
            times = f"{one.wrong_passes}/{one.plays}"
            yield [one.server, one.fence, one.grade, one.script, times, one.can_pass.value]


# --- the page -----------------------------------------------------------------------------------------------

SETTINGS = ("runs", "workers", "busy", "seed", "seconds", "date", "cores", "load")
"""What the page says of every run."""
LOAD_BEFORE = "load before"
"""What else it says of newer runs: what the machine did besides."""


def unpublishable(counts: Sequence[Count], settings: dict[str, Any]) -> str:
    """Why no page can be made of this run; empty if one can."""
    missing = [name for name in SETTINGS if name not in settings]
    if missing:
        return f"lacks the setting {missing[0]}"
    for one in counts:
        for what, name, known in (
            ("server", one.server, SERVER),
            ("script", one.script, SCRIPT),
            ("fence", one.fence, FENCES),
            ("grade", one.grade, (*GRADES, NOT_PLAYED)),
        ):
            if name not in known:
                return f"has the unknown {what} {name}"
    there = {(one.server, one.fence) for one in counts}
    for server in SERVERS:
        for fence in fences(server):
            if (server.name, fence) not in there:
                return f"lacks {server.name}, {fence}: play every server with each fence"
    return ""


def blocks(counts: Sequence[Count], settings: dict[str, Any]) -> dict[str, str]:
    """What stands between the comments of the page, by name."""
    plays, failures = sum(one.plays for one in counts), sum(one.wrong_failures for one in counts)
    passes = sum(one.wrong_passes for one in counts)
    possible = sum(one.wrong_passes for one in counts if one.can_pass is WrongPass.EXPECTED)
    unplayed = plays - sum(one.plays for one in counts if one.played)
    options = {name: settings[name] for name in ("runs", "workers", "busy", "seed") if settings[name]}
    command = " ".join(f"--{name} {value}" for name, value in options.items())
    before = f"{settings[LOAD_BEFORE]} before the run, " if LOAD_BEFORE in settings else ""
    return {
        **{name: f"\n{table}\n" for name, table in tables(counts).items()},
        "sentence": f"In {plays - unplayed:,} plays there {_many(failures, 'wrong failure')}. There "
        f"{_many(passes, 'wrong pass')}{_promised(passes, possible)}."
        + (f" In {unplayed:,} more the script could not be played." if unplayed else "")
        + "\n",
        "rule": RULE,
        "conditions": f"Each server was played {settings['runs']} times with each fence: {plays:,} plays in "
        f"{settings['seconds'] / 60:.0f} minutes, {settings['workers']} at a time, on {settings['date']}, on "
        f"{settings['cores']} cores (load {before}{settings['load']} at the end, of which the plays themselves are a part).\n"
        f"\n`python -m tests.harness.zoo {command} --json docs/verdicts.json`\n",
    }


def _promised(passes: int, possible: int) -> str:
    """The end of the sentence about wrong passes: how many of them the harness does not promise to notice."""
    if not passes:
        return ""
    if passes == 1:
        return f", {'' if possible else 'not '}in a case that the harness does not promise to notice"
    share = "all" if possible == passes else f"{possible:,}" if possible else "none"
    return f", {share} of them in cases that the harness does not promise to notice"


def _many(number: int, what: str) -> str:
    plural = what + ("es" if what.endswith("s") else "s")
    return (
        f"was no {what}" if not number else f"was one {what}" if number == 1 else f"were {number:,} {plural}"
    )
