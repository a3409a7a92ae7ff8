"""The suite of the line protocol finds what is wrong with three small servers, each by its own first lines, and no more."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness import Grade, Outcome
from harness.compare.comparing import Cell, compare
from harness.compare.servers import ComparedServer
from harness.compare.table import mark
from harness.compare.tags import Tags
from harness.language.plan import plan
from harness.language.script import load
from harness.language.steps import FenceLine, ReceivesNothing
from harness.playing.files import scripts_in
from harness.playing.pipeline import PlayOptions
from harness.targets.choice import TargetChoice

SUITE = Path(__file__).parents[1] / "conformance"
SCRIPTS = list(scripts_in([SUITE]))
FENCE = FenceLine("PING", ("PONG", "ERR must-login-first"))

# What each is expected to get wrong, and which of its documented mistakes that is.
WRONG = {
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


@pytest.mark.parametrize("name", WRONG)
def test_it_finds_what_is_wrong_and_nothing_else(name: str) -> None:
    server = SUITE / "servers" / f"{name}.py"
    command = f"{sys.executable} {server} {{port}} {{idle=60}}"
    entrant = ComparedServer(name, TargetChoice(server=command, features=frozenset(FEATURES[name].split())))
    # A line that does not come is waited for so long, so this is what most of the time goes into.
    cells = list(compare(SCRIPTS, [entrant], PlayOptions(FENCE, 2.0), 1))
    assert {Path(cell.file).stem for cell in cells if cell.outcome is Outcome.FAILED} == set(WRONG[name]), (
        told(cells)
    )
    assert {cell.outcome for cell in cells} == {Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED}
    shown = column(name)
    assert shown.keys() == {Path(cell.file).name for cell in cells}
    for cell in cells:
        # What a connection that ended has caused is only waited for, so its line may be blamed a turn later.
        unsure = cell.verdict is not None and cell.verdict.grade is Grade.SETTLED
        words = slice(1) if unsure else slice(None)
        assert mark(cell).split()[words] == shown[Path(cell.file).name].split()[words], cell.file
    documented = {int(line[0]) for line in server.read_text().splitlines() if line[:2] in ("1.", "2.", "3.")}
    assert documented == set(WRONG[name].values())


def column(server: str) -> dict[str, str]:
    """What docs/audit-and-compare.md shows of this server."""
    page = (SUITE.parents[1] / "docs" / "audit-and-compare.md").read_text(encoding="utf-8")
    rows = [re.split(r" {2,}", line.strip()) for line in page.splitlines()]
    at = next(row for row in rows if "threaded" in row and "selecting" in row).index(server)
    return {row[0]: row[at + 1] for row in rows if len(row) == 5 and row[0].endswith(".chat")}


def told(cells: list[Cell]) -> str:
    return "\n".join(f"{cell.file}:{cell.line} {cell.outcome.value} {cell.message}" for cell in cells)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_each_expectation_says_which_document_it_comes_from(path: Path) -> None:
    script = load(path)
    tags = Tags(script)
    for turn in plan(script).turns:
        for located in turn.expectations:
            if isinstance(located.step, ReceivesNothing):
                continue  # for the reader: it is so anyway
            found = tags.at(located.script.file, located.line)
            assert found, f"{located.script.file}:{located.line}"
            assert set(found) <= {"000", "001", "002"}
