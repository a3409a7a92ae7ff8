"""The suite of the line protocol finds the documented mistakes of three small servers, and no others."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import Grade, Outcome
from harness.batch import scripts_in
from harness.compare.compare import Cell, ComparedServer, Tags, compare
from harness.compare.report import Table, mark
from harness.language.fences import Fence
from harness.language.loading import check, load
from harness.language.steps import Acts, Ends, ReceivesNothing
from harness.playing.pipeline import PlayOptions
from harness.report.styled_text import plain
from harness.report.text import report
from harness.targets.choice import TargetChoice

SERVERS = Path(__file__).parents[1] / "conformance" / "servers"
SCRIPTS = list(scripts_in([Path("suite:chat-line")]))
FENCE = Fence("PING", ("PONG", "ERR must-login-first"))

# The scripts that each server fails, and the documented mistake that each of them finds.
FOUND = {
    "threaded": {"many-lines": 1, "login-refused": 2},
    "selecting": {
        "msg": 1,
        "msg-text": 1,
        "many-lines": 1,
        "login-refused": 1,
        "ten-users": 1,
        "session-000": 1,
        "session-001": 1,
        "leaving": 2,
    },
    "streaming": {"dm-text": 1, "who": 2, "session-000": 2, "session-001": 2, "session-002": 2, "quit": 3},
}
FEATURES = {"threaded": "000 idle-info", "selecting": "001 idle-err", "streaming": "002 idle-none"}


@pytest.mark.parametrize("name", FOUND)
def test_it_finds_the_documented_mistakes_of_each_server_and_no_others(name: str) -> None:
    source = SERVERS / f"{name}.py"
    command = f"{sys.executable} {source} {{port}} {{idle=60}}"
    server = ComparedServer(name, TargetChoice(server=command, features=frozenset(FEATURES[name].split())))
    # Most of the time goes into waiting this long for lines that are missing.
    cells = list(compare(SCRIPTS, [server], PlayOptions(FENCE, 1.0), 1))
    failed = {Path(cell.file).stem for cell in cells if cell.outcome is Outcome.FAILED}
    assert failed == set(FOUND[name]), listed(cells)
    assert {cell.outcome for cell in cells} == {Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED}
    documented = documented_column(name)
    assert documented.keys() == {Path(cell.file).name for cell in cells}
    for cell in cells:
        shown, expected = mark(cell), documented[Path(cell.file).name]
        assert shown == expected or may_be_blamed_later(cell, expected), (
            f"{cell.file}: {shown}, not {expected}"
        )
    groups = Table(tuple(cells)).groups(name)
    assert {group.cause for group in groups} == documented_causes(name)
    if name == "threaded":
        refused = next(cell for cell in cells if Path(cell.file).name == "login-refused.chat")
        assert refused.verdict is not None
        shown = next(text for text in documented_blocks() if "login-refused.chat:13 " in text)
        assert "".join(plain(report(refused.verdict)).splitlines(keepends=True)[:4]) == shown
    mistakes = {int(line[0]) for line in source.read_text().splitlines() if line[:2] in ("1.", "2.", "3.")}
    assert mistakes == set(FOUND[name].values())


def may_be_blamed_later(cell: Cell, documented: str) -> bool:
    """The effects of a connection's end are only waited for, so a later turn than the documented one can be blamed for them."""
    if cell.outcome is not Outcome.FAILED or not documented.startswith("line "):
        return False
    assert cell.verdict is not None
    line = int(documented.removeprefix("line "))
    settled = cell.verdict.grade is Grade.SETTLED
    return settled and first_end(Path(cell.file)) <= line < cell.own_line


def first_end(path: Path) -> float:
    """The line with the first step that ends a connection, or in which the server has to."""
    steps = [located for turn in check(load(path)).turns for located in (*turn.actions, *turn.expectations)]
    return min((one.line for one in steps if isinstance(one.step, (Acts, Ends))), default=math.inf)


def test_only_after_the_end_of_a_connection_can_a_later_line_be_blamed() -> None:
    paths = {path.stem: path for path in SCRIPTS}
    assert first_end(paths["login-refused"]) == 11
    assert first_end(paths["who"]) == 18
    assert math.isinf(first_end(paths["msg"]))
    verdict = SimpleNamespace(grade=Grade.SETTLED)

    def later(stem: str, line: int, grade: Grade = Grade.SETTLED) -> bool:
        verdict.grade = grade
        cell = SimpleNamespace(file=str(paths[stem]), outcome=Outcome.FAILED, own_line=line, verdict=verdict)
        return may_be_blamed_later(cell, "line 13")

    assert later("login-refused", 15)
    assert not later("login-refused", 12)  # earlier
    assert not later("login-refused", 15, Grade.ANSWERED)
    assert not later("who", 23)  # nobody had left before line 13


def documented_blocks() -> list[str]:
    """The examples of docs/audit-and-compare.md."""
    page = (Path(__file__).parents[2] / "docs" / "audit-and-compare.md").read_text(encoding="utf-8")
    return re.findall(r"^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def documented_causes(server: str) -> set[str]:
    table = next(text for text in documented_blocks() if "compare suite:chat-line --fence" in text)
    section = table.partition(f"\n{server} differs in ")[2].partition("\n\n")[0]
    return set(re.findall(r"^ +\d+x  (.*?)  \[", section, re.MULTILINE))


def documented_column(server: str) -> dict[str, str]:
    """The column of this server in the table."""
    page = "\n".join(documented_blocks())
    rows = [re.split(r" {2,}", line.strip()) for line in page.splitlines()]
    at = next(row for row in rows if "threaded" in row and "selecting" in row).index(server)
    return {row[0]: row[at + 1] for row in rows if len(row) == 5 and row[0].endswith(".chat")}


def listed(cells: list[Cell]) -> str:
    return "\n".join(f"{cell.file}:{cell.line} {cell.outcome.value} {cell.message}" for cell in cells)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_expectation_names_the_documents_it_comes_from(path: Path) -> None:
    script = load(path)
    tags = Tags(script)
    for turn in check(script).turns:
        for located in turn.expectations:
            if isinstance(located.step, ReceivesNothing):
                continue  # only a remark for the reader
            found = tags.at(located.script.file, located.line)
            assert found, f"{located.script.file}:{located.line}"
            assert set(found) <= {"000", "001", "002"}
