"""Plays scripts against the servers of the zoo, many at a time, and counts wrong verdicts.

- One job is one server and a number of runs with each of its fences; a run plays one of the scripts. Its server is started
  once and serves all of them.
- A wrong failure is a failure of a script that says what the server does. A wrong pass is the opposite.
- Nothing here decides whether a wrong pass is a defect of the harness; `Script.wrong_pass` says when it can happen.
"""

from __future__ import annotations

import os
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
from tests.harness.zoo import SERVERS, ZooServer
from tests.harness.zoo.scripts import FENCES, SCRIPTS, Script, WrongPass

SCRIPT = {script.name: script for script in SCRIPTS}
SERVER = {server.name: server for server in SERVERS}


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
    seconds: float
    report: str = ""
    """Of a wrong failure."""

    @property
    def wrong_failure(self) -> bool:
        """A script that was not played is one, too."""
        return self.outcome is not (Outcome.FAILED if self.must_fail else Outcome.PASSED) and not self.passed

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
    found = Play(server, fence, script.name, verdict.outcome, must_fail, str(verdict.grade), verdict.real_s)
    return replace(found, report=plain(report(verdict))) if found.wrong_failure else found


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


# --- the tables ---------------------------------------------------------------------------------------------


def as_data(plays: Sequence[Play], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that was counted, by server, fence and script."""
    groups: dict[tuple[str, str, str], list[Play]] = {}
    for one in plays:
        groups.setdefault((one.server, one.fence, one.script), []).append(one)
    rows = []
    for (server, fence, script), group in sorted(groups.items(), key=lambda item: _order(item[0])):
        passes = Counter(kind.name.lower() for one in group if (kind := one.wrong_pass) is not None)
        rows.append(
            {
                "server": server,
                "where": SERVER[server].where,
                "right": SERVER[server].right,
                "fence": fence,
                "script": script,
                "must": "fail" if group[0].must_fail else "pass",
                "plays": len(group),
                "wrong failures": sum(one.wrong_failure for one in group),
                "wrong passes": dict(passes),
                "grades": dict(Counter(one.grade for one in group)),
                "median seconds": sorted(one.seconds for one in group)[len(group) // 2],
                "reports": [one.report for one in group if one.report][:3],
            }
        )
    load = os.getloadavg()[0]
    return {
        "settings": {**settings, "cores": os.cpu_count(), "load at the end": round(load, 1)},
        "rows": rows,
    }


def _order(key: tuple[str, str, str]) -> tuple[int, int, int]:
    server, fence, script = key
    return (
        list(SERVER).index(server),
        list(FENCES).index(fence),
        list(SCRIPT).index(script),
    )


def as_markdown(data: dict[str, Any]) -> str:
    """A row for each fence, one for each server, and one for each script that passed wrongly."""
    rows = data["rows"]
    lines = [
        "| fence | had to pass | wrong failures | had to fail | wrong passes | of which possible |",
        "|---|---|---|---|---|---|",
        *(_sum(name, own) for name in FENCES if (own := [row for row in rows if row["fence"] == name])),
        "",
        "| server | what is late or wrong | exact | SYNC | MSG | PING | none |",
        "|---|---|---|---|---|---|---|",
    ]
    for server in dict.fromkeys(row["server"] for row in rows):
        own = [row for row in rows if row["server"] == server]
        cells = [_cell([row for row in own if row["fence"] == f]) for f in FENCES]
        lines.append(f"| {' | '.join([server, own[0]['where'], *cells])} |")
    lines += ["", *_wrong_passes(rows)]
    return "\n".join(lines) + "\n"


def _sum(name: str, rows: Sequence[dict[str, Any]]) -> str:
    failures, passes = sum(row["wrong failures"] for row in rows), Counter[str]()
    for row in rows:
        passes.update(row["wrong passes"])
    right, wrong, expected = _plays(rows, "pass"), _plays(rows, "fail"), passes["expected"]
    return f"| {name} | {right} | {failures} | {wrong} | {passes.total()} | {expected} |"


def _cell(rows: Sequence[dict[str, Any]]) -> str:
    """`0/500 0/400`: wrong failures and wrong passes, each of the plays in which they could have been."""
    if not rows:
        return ""
    failures, right = sum(row["wrong failures"] for row in rows), _plays(rows, "pass")
    passes, wrong = sum(sum(row["wrong passes"].values()) for row in rows), _plays(rows, "fail")
    return f"{failures}/{right} · {passes}/{wrong}"


def _plays(rows: Sequence[dict[str, Any]], must: str) -> int:
    return sum(row["plays"] for row in rows if row["must"] == must)


def _wrong_passes(rows: Sequence[dict[str, Any]]) -> list[str]:
    found = [
        f"| {row['server']} | {row['fence']} | {row['script']} | {count}/{row['plays']} | {WrongPass[kind.upper()].value} |"
        for row in rows
        for kind, count in row["wrong passes"].items()
    ]
    if not found:
        return ["No script passed wrongly."]
    return ["| server | fence | script | wrong passes | possible? |", "|---|---|---|---|---|", *found]
