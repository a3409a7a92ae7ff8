"""Verdicts on the zoo, in a short form: no wrong failure, and no wrong pass but those that docs/verdicts.md explains."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.publish import NotPublished, filled
from harness import Outcome, check, parse
from tests.harness.zoo import SERVERS, ZooServer, build
from tests.harness.zoo import __main__ as command
from tests.harness.zoo.__main__ import DOCS, publish
from tests.harness.zoo.measure import (
    GRADES,
    LOAD_BEFORE,
    NOT_PLAYED,
    SCRIPT,
    SERVER,
    SETTINGS,
    Job,
    Play,
    as_json,
    blocks,
    counted,
    done,
    fences,
    from_json,
    measured,
    must_not_be,
    scripts,
    tables,
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
    """No wrong failure, no wrong pass that is never right, and no more of late lines than the command allows."""
    failures = [f"{one.server}, {one.fence}, {one.report}" for one in plays if one.report]
    assert not failures, "\n\n".join(failures)
    wrong = must_not_be(counted(plays))
    assert not wrong, "\n".join(wrong)


def test_verdicts_on_servers_outside_this_process(tmp_path: Path) -> None:
    """A single test, since all of them play at the same time: waiting takes longest.

    The rule allows one wrong pass of each wait here: a run has about 200 plays in the long one and 4 in the short one, and two
    at once would be chance in fewer than two runs of a hundred, even if as many passed as the rule allows on the whole.
    """
    servers = [one for one in OUTSIDE if one.architecture.tool in TOOLS and not one.missing()]
    build(servers, str(tmp_path))
    with ThreadPoolExecutor(AT_ONCE) as executor:
        plays = measured(executor, short(servers, str(tmp_path)), lambda _done, _all: None)
    assert len(plays) == len(servers) * len(fences(servers[0])) * RUNS
    require_right(plays)
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
        ("a turn late", "threads early", "PING", "answered", WrongPass.IN_SETTLE),
        ("a turn late", "threads deliver=10", "PING", "answered", WrongPass.IN_SETTLE),
        ("late in a crowd", "threads deliver=10", "PING", "answered", WrongPass.IN_SETTLE),
        ("late after small talk", "threads deliver=10", "PING", "answered", WrongPass.EXPECTED),
        ("late after small talk", "threads deliver=1", "PING", "answered", WrongPass.IN_MOMENT),
        ("late after small talk", "threads deliver=10", "none", "settled", WrongPass.IN_SETTLE),
        ("late copy", "hub dup=2", "SYNC", "answered", WrongPass.IN_MOMENT),
        ("late copy", "threads dup=10", "SYNC", "answered", WrongPass.EXPECTED),
        ("late copy", "threads", "PING", "answered", WrongPass.NEVER),
        ("a turn late", "threads deliver=150", "SYNC", "answered", WrongPass.NEVER),
        ("late after small talk", "threads deliver=10", "MSG", "heard", WrongPass.NEVER),
        ("silence", "threads deliver=150", "MSG", "heard", WrongPass.NEVER),
        ("silence", "threads deliver=150", "MSG", "settled", WrongPass.EXPECTED),
        ("silence", "hub reverse=2", "MSG", "heard", WrongPass.IN_SETTLE),
        ("late copy", "threads dup=10", "MSG", "heard", WrongPass.EXPECTED),
        ("a turn late", "threads deliver=10", "none", "settled", WrongPass.IN_SETTLE),
        ("silence", "threads deliver=10", "PING", "answered", WrongPass.IN_SETTLE),
        ("silence", "threads deliver=150", "none", "settled", WrongPass.EXPECTED),
        ("late leaving", "node part=10", "PING", "settled", WrongPass.IN_SETTLE),
        ("talk", "threads dup=10", "SYNC", "answered", WrongPass.IN_SETTLE),
        ("farewell", "threads drop=10", "none", "settled", WrongPass.NEVER),
        ("twice", "threads deliver=150", "none", "settled", WrongPass.NEVER),
        ("silence", "gevent deliver=10 in process", "exact", "exact", WrongPass.NEVER),
    ],
)
def test_when_a_script_can_pass_wrongly(
    script: str, server: str, fence: str, grade: str, can: WrongPass
) -> None:
    assert wrong_pass(script, server, fence, grade) is can


def made_up(server: str, script: str, outcome: Outcome, fence: str = "PING", grade: str = "answered") -> Play:
    return Play(server, fence, script, outcome, SCRIPT[script].must_fail(SERVER[server]), grade)


def test_the_tables_count_wrong_verdicts() -> None:
    server = "threads deliver=10"
    played = [
        made_up(server, "talk", Outcome.PASSED),
        made_up(server, "talk", Outcome.FAILED),
        made_up(server, "late after small talk", Outcome.PASSED),
        made_up(server, "silence", Outcome.FAILED),
        made_up(server, "silence", Outcome.TARGET_ERROR, grade=NOT_PLAYED),
        made_up(server, "silence", Outcome.PASSED, grade="settled"),
        made_up(server, "twice", Outcome.FAILED, grade="settled"),
    ]
    counts = counted(played)
    assert [(one.grade, one.script, one.plays, one.wrong_failures, one.wrong_passes) for one in counts] == [
        ("answered", "talk", 2, 1, 0),
        ("answered", "silence", 1, 0, 0),
        ("answered", "late after small talk", 1, 0, 1),
        ("settled", "twice", 1, 0, 0),
        ("settled", "silence", 1, 0, 1),
        (NOT_PLAYED, "silence", 1, 0, 0),
    ]
    found = tables(counts)
    assert "| PING | 2 | 1 | 500 | 4 | 2 | 500 | 1 |" in found["fences"]
    assert found["grades"].splitlines()[2:] == [
        "| answered | 3 | 2 | 1 | 500 | 2 | 1 | 500 | 1 |",
        "| settled | 2 | 0 | 0 |  | 2 | 1 | 500 | 0 |",
        "| not played | 1 | 0 |  |  | 1 |  |  |  |",
    ]
    assert found["lateness"].splitlines()[2:] == [
        f"| {WrongPass.NEVER.value} | 1 | 1 | 1 | 0 |",
        f"| {WrongPass.IN_SETTLE.value} | 1 | 2 | 2 | 1 |",
        f"| {WrongPass.EXPECTED.value} | 1 | 1 | 1 | 1 |",
    ]
    assert found["shares"].splitlines()[2:] == ["| PING |  |  | 67 % | 33 % |"]
    assert f"| {server} | messages come 10 ms late |  |  |  | 1/2 · 2/4 |  |" in found["servers"]
    assert found["scripts"].splitlines()[2:] == [
        f"| {server} | PING | answered | late after small talk | 1/1 | {WrongPass.EXPECTED.value} |",
        f"| {server} | PING | settled | silence | 1/1 | {WrongPass.IN_SETTLE.value} |",
    ]


def test_a_server_that_does_not_start_is_not_played_and_the_run_goes_on(tmp_path: Path) -> None:
    plays = done(Job("c dup=10", ("SYNC",), 12, 0, str(tmp_path)))
    assert {(one.outcome, one.grade) for one in plays} == {(Outcome.TARGET_ERROR, NOT_PLAYED)}
    assert {one.must_fail for one in plays} == {True, False}
    assert "epoll" in plays[0].report
    counts = counted(plays)
    assert sum(one.wrong_failures + one.wrong_passes for one in counts) == 0
    assert {one.can_pass for one in counts} == {None}
    assert "| not played | " in tables(counts)["grades"]
    assert must_not_be(counts) == [f"not played: c dup=10, SYNC, {one.script}" for one in counts]
    assert from_json(as_json(counts, {})) == (counts, {})
    with pytest.raises(AssertionError, match="c dup=10, SYNC"):
        require_right(plays)


def test_a_run_that_is_stored_has_the_same_counts() -> None:
    counts = counted(
        [
            made_up("threads", "talk", Outcome.PASSED),
            made_up("threads", "talk", Outcome.FAILED, grade="settled"),
            made_up("hub dup=2", "late copy", Outcome.PASSED, fence="SYNC"),
        ]
    )
    assert from_json(as_json(counts, {"runs": 2})) == (counts, {"runs": 2})


def test_wrong_verdicts_are_found() -> None:
    right = made_up("threads", "talk", Outcome.FAILED)
    wrong = made_up("threads", "silence", Outcome.PASSED)
    assert right.wrong_failure
    assert wrong.wrong_pass is WrongPass.NEVER
    for play, kind in (
        (right, "wrong failure: threads, PING, talk"),
        (wrong, "wrong pass: threads, PING, silence"),
    ):
        assert must_not_be(counted([play])) == [kind]
        with pytest.raises(AssertionError, match="threads, PING"):
            require_right([play])


def in_settle(server: str, outcome: Outcome) -> Play:
    return made_up(server, "leaving", outcome, grade="settled")


def in_moment(server: str, outcome: Outcome) -> Play:
    return made_up(server, "late after small talk", outcome)


MANY = {
    in_settle: ("c dup=10", "threads dup=10", "rust dup=10"),
    in_moment: ("threads early", "hub early", "fork early"),
}
"""Three cells of each wait."""


@pytest.mark.parametrize(
    ("make", "kind", "passed", "noticed", "allowed"),
    [
        (in_settle, WrongPass.IN_SETTLE, 1, 0, True),
        (in_settle, WrongPass.IN_SETTLE, 2, 900, False),
        (in_settle, WrongPass.IN_SETTLE, 2, 1998, True),
        (in_settle, WrongPass.IN_SETTLE, 3, 1998, False),
        (in_moment, WrongPass.IN_MOMENT, 1, 0, True),
        (in_moment, WrongPass.IN_MOMENT, 2, 90, False),
        (in_moment, WrongPass.IN_MOMENT, 2, 98, True),
        (in_moment, WrongPass.IN_MOMENT, 3, 98, False),
    ],
)
def test_each_wait_has_its_own_bound(
    make: Callable[[str, Outcome], Play], kind: WrongPass, passed: int, noticed: int, allowed: bool
) -> None:
    servers = MANY[make]
    late = [make(servers[number % 3], Outcome.PASSED) for number in range(passed)]
    assert {one.wrong_pass for one in late} == {kind}
    right = [make(servers[number % 3], Outcome.FAILED) for number in range(noticed)]
    # A thousand right plays of the other wait change nothing.
    other = in_moment if make is in_settle else in_settle
    right += [other(MANY[other][0], Outcome.FAILED)] * 3000
    found = must_not_be(counted(late + right))
    expected = f"{kind.value}: {passed} wrong passes of {passed + noticed}: "
    assert bool(found) is not allowed
    assert all(one.startswith(expected) for one in found)


def test_a_cell_that_passes_again_and_again_is_found_among_thousands_of_right_plays() -> None:
    right = [in_settle("c dup=10", Outcome.FAILED)] * 5000
    always = [in_settle("rust dup=10", Outcome.PASSED)] * 3
    assert must_not_be(counted(right + always)) == [
        f"{WrongPass.IN_SETTLE.value}: 3 wrong passes of 3: rust dup=10, PING, leaving"
    ]
    assert must_not_be(counted(right + always + [in_settle("rust dup=10", Outcome.FAILED)] * 27)) == []


def test_lines_later_than_the_harness_waits_can_always_pass() -> None:
    late = made_up("threads deliver=10", "late after small talk", Outcome.PASSED)
    assert late.wrong_pass is WrongPass.EXPECTED
    assert must_not_be(counted([late] * 9)) == []


# --- the page -----------------------------------------------------------------------------------------------


def test_the_figures_of_the_page_are_those_of_the_run_that_is_stored_beside_it() -> None:
    page = (DOCS / "verdicts.md").read_text("utf-8")
    counts, settings = from_json((DOCS / "verdicts.json").read_text("utf-8"))
    content = blocks(counts, settings)
    assert filled(page, content, "zoo") == page
    assert {name for name in content if f"<!-- zoo: {name} -->" in page} == set(content)
    assert must_not_be(counts) == []


def test_each_grade_was_played_a_thousand_times_in_both_ways() -> None:
    counts, _ = from_json((DOCS / "verdicts.json").read_text("utf-8"))
    for grade in GRADES:
        for must_fail in (False, True):
            of_grade = [one for one in counts if one.grade == grade and one.must_fail == must_fail]
            assert sum(one.plays for one in of_grade) >= 1000, (grade, must_fail)


LAST_RUN = {
    **dict.fromkeys(("runs", "workers", "seed", "seconds", "cores", "load"), 8),
    "busy": 0,
    "date": "2027-01-01",
}


def test_the_load_before_a_run_is_not_that_of_its_own_plays() -> None:
    old = blocks([], LAST_RUN)["conditions"]
    assert "8 cores (load 8 at the end, of which the plays themselves are a part)" in old
    assert (
        "(load 3 before the run, 8 at the end, of which"
        in blocks([], LAST_RUN | {LOAD_BEFORE: 3})["conditions"]
    )


@pytest.mark.parametrize(
    ("expected", "in_settle", "sentence"),
    [
        (0, 0, "There was no wrong pass."),
        (1, 0, "There was one wrong pass, in a case that the harness does not promise to notice."),
        (0, 1, "There was one wrong pass, not in a case that the harness does not promise to notice."),
        (
            2,
            0,
            "There were 2 wrong passes, all of them in cases that the harness does not promise to notice.",
        ),
        (2, 1, "There were 3 wrong passes, 2 of them in cases that the harness does not promise to notice."),
        (
            0,
            2,
            "There were 2 wrong passes, none of them in cases that the harness does not promise to notice.",
        ),
    ],
)
def test_the_sentence_about_wrong_passes(expected: int, in_settle: int, sentence: str) -> None:
    server = "threads deliver=10"
    plays = [made_up(server, "late after small talk", Outcome.PASSED)] * expected
    plays += [made_up(server, "silence", Outcome.PASSED)] * in_settle
    played = f"In {expected + in_settle} plays there was no wrong failure."
    assert blocks(counted(plays), LAST_RUN)["sentence"] == f"{played} {sentence}\n"
    missing = made_up(server, "talk", Outcome.TARGET_ERROR, grade=NOT_PLAYED)
    with_missing = blocks(counted([*plays, missing]), LAST_RUN)["sentence"]
    assert with_missing == f"{played} {sentence} In 1 more the script could not be played.\n"


def test_a_run_is_published_from_its_file(tmp_path: Path) -> None:
    stored, page = tmp_path / "verdicts.json", tmp_path / "verdicts.md"
    stored.write_bytes((DOCS / "verdicts.json").read_bytes())
    old = re.sub(
        r"(<!-- zoo: (\w+) -->\n).*?(<!-- end)",
        r"\1old\n\3",
        (DOCS / "verdicts.md").read_text(),
        flags=re.DOTALL,
    )
    page.write_text(old)
    publish(tmp_path)
    assert page.read_text() == (DOCS / "verdicts.md").read_text()


def rename(run: dict[str, Any], column: int, name: str) -> None:
    run["rows"][0][column] = name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "verdicts.json does not hold a run: FileNotFoundError"),
        ("{}", "verdicts.json does not hold a run: KeyError"),
        ("runs", "verdicts.json does not hold a run: JSONDecodeError"),
        ('{"settings": {}, "rows": [["threads", "SYNC", "answered", {"talk": [1]}]]}', "does not hold a run: TypeError"),
        ("[]", "does not hold a run: TypeError"),
        ('{"settings": {}, "rows": [["threads", "SYNC", "answered", []]]}', "does not hold a run: AttributeError"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_not_published(tmp_path: Path, text: str | None, why: str) -> None:
    page = tmp_path / "verdicts.md"
    page.write_text("as before")
    if text is not None:
        (tmp_path / "verdicts.json").write_text(text)
    with pytest.raises(NotPublished, match=why):
        publish(tmp_path)
    assert page.read_text() == "as before"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: run["rows"].pop(), "lacks protocol greet=10 in process, exact: play every server with each fence"),
        (lambda run: run["settings"].clear(), "lacks the setting runs"),
        (lambda run: run["settings"].pop("load"), "lacks the setting load"),
        (lambda run: run["settings"].update(seconds="x"), "does not hold a run: TypeError"),
        (lambda run: rename(run, 0, "thread"), "has the unknown server thread"),
        (lambda run: rename(run, 1, "SYN"), "has the unknown fence SYN"),
        (lambda run: rename(run, 2, "sure"), "has the unknown grade sure"),
        (lambda run: run["rows"][0][3].update(chat=[1, 0, 0]), "has the unknown script chat"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_run_that_does_not_fit_the_zoo_is_not_published(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    run = json.loads((DOCS / "verdicts.json").read_text("utf-8"))
    change(run)
    (tmp_path / "verdicts.json").write_text(json.dumps(run))
    page = tmp_path / "verdicts.md"
    page.write_text("as before")
    with pytest.raises(NotPublished, match=f"verdicts.json {why}"):
        publish(tmp_path)
    assert page.read_text() == "as before"


# --- the command ----------------------------------------------------------------------------------------------


def zoo(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.harness.zoo", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)


def test_the_command_measures_and_writes_both_tables(tmp_path: Path) -> None:
    data, tables = tmp_path / "zoo.json", tmp_path / "zoo.md"
    words = ["--runs", "3", "--servers", "gevent greet=10 in", "--workers", "1", "--busy", "1"]
    ran = zoo(*words, "--json", str(data), "--markdown", str(tables))
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "3 of 3 plays" in ran.stderr
    counts, settings = from_json(data.read_text())
    assert settings["busy"] == 1
    assert set(settings) == {*SETTINGS, LOAD_BEFORE}
    assert sum(one.plays for one in counts) == 3
    assert "| gevent greet=10 in process | clients are greeted after 10 ms | 0/" in tables.read_text()


def test_the_command_fails_and_says_which_verdicts_must_not_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = made_up("c dup=10", "leaving", Outcome.PASSED, grade="settled")
    monkeypatch.setattr(sys, "argv", ["zoo", "--servers", "gevent greet=10 in"])
    for plays, code in (([late], 0), ([late, late], 1)):
        monkeypatch.setattr(command, "measured", lambda *_, plays=plays: plays)
        assert command.main() == code
    assert f"{WrongPass.IN_SETTLE.value}: 2 wrong passes of 2: c dup=10" in capsys.readouterr().err


def test_the_command_publishes_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["zoo", "--publish"])
    assert command.main() == 2
    assert capsys.readouterr().err.startswith("not published: verdicts.json does not hold a run: ")
    for name in ("verdicts.json", "verdicts.md"):
        (tmp_path / name).write_bytes((DOCS / name).read_bytes())
    assert command.main() == 0


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
