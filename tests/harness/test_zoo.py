"""Verdicts on the zoo, in a short form: no wrong failure, and no wrong pass but those that docs/verdicts.md explains."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness import Outcome, check, parse
from tests.harness.zoo import SERVERS, ZooServer, build
from tests.harness.zoo.measure import (
    SCRIPT,
    SERVER,
    Job,
    Play,
    as_data,
    as_markdown,
    done,
    fences,
    measured,
    scripts,
)
from tests.harness.zoo.scripts import SCRIPTS, Script, WrongPass
from tests.patience import HANG_S

ROOT = Path(__file__).parents[2]
AT_ONCE = 64
"""Servers that are played with at a time: plays mostly wait."""
RUNS = 3
"""Plays of each server with each fence. All servers together play nearly every script with every fence."""

OUTSIDE = [server for server in SERVERS if not server.in_process]
INSIDE = [server for server in SERVERS if server.in_process]
TOOLS = ("", "gcc", "node", "perl")
"""The programs that the servers of the short form need. Rust and Java take too long to build or to start."""


def short(servers: list[ZooServer], built: str) -> list[Job]:
    """A dozen plays of each server. Their numbers are the seeds, so that neighbours play other scripts."""
    return [
        Job(server.name, tuple(fences(server)), RUNS, number, built) for number, server in enumerate(servers)
    ]


def require_right(plays: list[Play]) -> None:
    """No wrong failure, and no wrong pass that is never right."""
    failures = [f"{one.server}, {one.fence}, {one.report}" for one in plays if one.wrong_failure]
    assert not failures, "\n\n".join(failures)
    passes = [
        f"{one.server}, {one.fence}: {one.script}" for one in plays if one.wrong_pass is WrongPass.NEVER
    ]
    assert not passes, "\n".join(passes)


def require_noticed(plays: list[Play]) -> None:
    """Lines that are late by less than the harness waits are noticed: not each time on a busy machine, but as a rule."""
    late = [one for one in plays if one.must_fail and SERVER[one.server].delay_ms]
    delayed = [one for one in late if one.wrong_pass is WrongPass.DELAYED]
    for script, count in Counter(one.script for one in delayed).items():
        among = sum(one.script == script for one in late)
        assert count == 1 or count <= among / 2, [one for one in delayed if one.script == script]


def test_verdicts_on_servers_outside_this_process(tmp_path: Path) -> None:
    """A single test, since all of them play at the same time: waiting takes longest."""
    servers = [one for one in OUTSIDE if one.architecture.tool in TOOLS and not one.missing()]
    build(servers, str(tmp_path))
    with ThreadPoolExecutor(AT_ONCE) as executor:
        plays = measured(executor, short(servers, str(tmp_path)), lambda _done, _all: None)
    assert len(plays) == len(servers) * len(fences(servers[0])) * RUNS
    require_right(plays)
    require_noticed(plays)
    missing = {one.missing() for one in OUTSIDE if one.architecture.tool in TOOLS} - {""}
    if missing:
        pytest.skip(f"all other servers passed; {', '.join(sorted(missing))}")


def test_verdicts_on_servers_inside_this_process() -> None:
    played = [
        one for number in range(5) for job in short(INSIDE, "") for one in done(replace(job, seed=number))
    ]
    require_right(played)
    assert {one.grade for one in played} == {"exact"}


@pytest.mark.parametrize("server", SERVERS, ids=[server.name for server in SERVERS])
def test_each_server_has_scripts_that_are_right_and_scripts_that_are_not(server: ZooServer) -> None:
    texts = [(one, one.text(server, fence, "r1")) for one in scripts(server) for fence in fences(server)]
    for _, text in texts:
        check(parse(text))
    assert {one.must_fail(server) for one, _ in texts} == {True, False}
    assert any(one.must_fail(server) and not one.asks for one, _ in texts) == (not server.right)


# --- what is counted, and when it can be ------------------------------------------------------------------------


def wrong_pass(script: str, server: str, fence: str, grade: str) -> WrongPass:
    return SCRIPT[script].wrong_pass(SERVER[server], fence, grade)


@pytest.mark.parametrize(
    ("script", "server", "fence", "grade", "can"),
    [
        ("a turn late", "threads", "PING", "answered", WrongPass.NEVER),
        ("a turn late", "threads early", "PING", "answered", WrongPass.DELAYED),
        ("a turn late", "threads deliver=10", "PING", "answered", WrongPass.DELAYED),
        ("late in a crowd", "threads deliver=10", "PING", "answered", WrongPass.DELAYED),
        ("late after small talk", "threads deliver=10", "PING", "answered", WrongPass.EXPECTED),
        ("late after small talk", "threads deliver=1", "PING", "answered", WrongPass.DELAYED),
        ("late after small talk", "threads deliver=10", "none", "settled", WrongPass.DELAYED),
        ("late copy", "hub dup=2", "SYNC", "answered", WrongPass.DELAYED),
        ("late copy", "threads dup=10", "SYNC", "answered", WrongPass.EXPECTED),
        ("late copy", "threads", "PING", "answered", WrongPass.NEVER),
        ("a turn late", "threads deliver=150", "SYNC", "answered", WrongPass.NEVER),
        ("late after small talk", "threads deliver=10", "MSG", "heard", WrongPass.NEVER),
        ("silence", "threads deliver=150", "MSG", "heard", WrongPass.NEVER),
        ("silence", "threads deliver=150", "MSG", "settled", WrongPass.EXPECTED),
        ("silence", "hub reverse=2", "MSG", "heard", WrongPass.DELAYED),
        ("late copy", "threads dup=10", "MSG", "heard", WrongPass.EXPECTED),
        ("a turn late", "threads deliver=10", "none", "settled", WrongPass.DELAYED),
        ("silence", "threads deliver=10", "PING", "answered", WrongPass.DELAYED),
        ("silence", "threads deliver=150", "none", "settled", WrongPass.EXPECTED),
        ("late leaving", "node part=10", "PING", "settled", WrongPass.DELAYED),
        ("talk", "threads dup=10", "SYNC", "answered", WrongPass.DELAYED),
        ("farewell", "threads drop=10", "none", "settled", WrongPass.NEVER),
        ("twice", "threads deliver=150", "none", "settled", WrongPass.NEVER),
        ("silence", "gevent deliver=10 in process", "exact", "exact", WrongPass.NEVER),
    ],
)
def test_when_a_script_can_pass_wrongly(
    script: str, server: str, fence: str, grade: str, can: WrongPass
) -> None:
    assert wrong_pass(script, server, fence, grade) is can


def test_the_tables_count_wrong_verdicts() -> None:
    def one(script: str, outcome: Outcome) -> Play:
        must_fail = SCRIPT[script].must_fail(SERVER["threads deliver=10"])
        return Play("threads deliver=10", "PING", script, outcome, must_fail, "answered", 0.1)

    played = [
        one("talk", Outcome.PASSED),
        one("talk", Outcome.FAILED),
        one("late after small talk", Outcome.PASSED),
        one("silence", Outcome.FAILED),
        one("silence", Outcome.TARGET_ERROR),
    ]
    data = as_data(played, {"runs": 4})
    assert [(row["script"], row["wrong failures"], row["wrong passes"]) for row in data["rows"]] == [
        ("talk", 1, {}),
        ("silence", 1, {}),
        ("late after small talk", 0, {"expected": 1}),
    ]
    text = as_markdown(data)
    assert "| PING | 2 | 2 | 3 | 1 | 1 |" in text
    assert "| threads deliver=10 | messages come 10 ms late |  |  |  | 2/2 · 1/3 |  |" in text
    assert f"| threads deliver=10 | PING | late after small talk | 1/1 | {WrongPass.EXPECTED.value} |" in text
    with pytest.raises(AssertionError, match="threads deliver=10, PING"):
        require_right(played)


def test_wrong_verdicts_are_found() -> None:
    right = Play("threads", "PING", "talk", Outcome.FAILED, must_fail=False, grade="answered", seconds=0.1)
    wrong = Play("threads", "PING", "silence", Outcome.PASSED, must_fail=True, grade="answered", seconds=0.1)
    assert right.wrong_failure
    assert wrong.wrong_pass is WrongPass.NEVER
    for play in (right, wrong):
        with pytest.raises(AssertionError, match="threads, PING"):
            require_right([play])
    late = Play("c dup=10", "PING", "leaving", Outcome.PASSED, must_fail=True, grade="settled", seconds=0.1)
    require_noticed([late])
    with pytest.raises(AssertionError, match="leaving"):
        require_noticed([late, late, replace(late, outcome=Outcome.FAILED)])


def zoo(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.harness.zoo", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)


def test_the_command_measures_and_writes_both_tables(tmp_path: Path) -> None:
    data, tables = tmp_path / "zoo.json", tmp_path / "zoo.md"
    words = ["--runs", "3", "--servers", "gevent greet=10 in", "--workers", "1", "--busy", "1"]
    ran = zoo(*words, "--json", str(data), "--markdown", str(tables))
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "3 of 3 plays" in ran.stderr
    read = json.loads(data.read_text())
    assert read["settings"]["busy"] == 1
    assert sum(row["plays"] for row in read["rows"]) == 3
    assert "| gevent greet=10 in process | clients are greeted after 10 ms | 0/" in tables.read_text()


def test_the_command_names_what_it_cannot_do() -> None:
    assert "no server's name contains nosuch" in zoo("--servers", "nosuch").stderr
    for words in (["--busy", "-1"], ["--runs", "0"], ["--fences", "NOSUCH"]):
        ran = zoo(*words)
        assert ran.returncode == 2
        assert "error: " in ran.stderr


def test_scripts_are_named_once() -> None:
    names = [script.name for script in SCRIPTS] + [server.name for server in SERVERS]
    assert len(set(names)) == len(names)
    assert all(isinstance(script, Script) for script in SCRIPTS)
