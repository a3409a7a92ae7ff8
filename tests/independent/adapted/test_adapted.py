"""Three servers of other dialects play `suite:chat-line` through their adapters: what is left is a difference."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from harness import Outcome
from harness.batch import scripts_in
from harness.compare.compare import ComparedServer, compare
from harness.compare.report import Table, text
from harness.language.adapter import load_adapter
from harness.playing.pipeline import PlayOptions
from harness.report.styled_text import plain
from harness.targets.choice import TargetChoice

HERE = Path(__file__).parent
DIALECTS = {
    "tavern": (f"{sys.executable} -S {HERE}/tavern.py {{port}}", ["leaving"]),
    "numerics": (f"node {HERE}/numerics.js {{port}}", []),
    "events": (f"perl {HERE}/events.pl {{port}}", []),
}
"""The command of each server, and the scripts in which it is wrong."""
SCRIPTS = ("dm", "leaving", "login-refused", "msg", "quit", "session-001", "ten-users", "who")


@pytest.mark.parametrize("name", DIALECTS)
def test_an_adapter_leaves_what_is_wrong(name: str) -> None:
    command, wrong = DIALECTS[name]
    if not shutil.which(command.split()[0]):
        pytest.skip(f"{command.split()[0]} is not installed")
    server = ComparedServer(name, TargetChoice(server=command), load_adapter(HERE / f"{name}.adapter"))
    scripts = [path for path in scripts_in([Path("suite:chat-line")]) if path.stem in SCRIPTS]
    cells = list(compare(scripts, [server], PlayOptions(within_s=3.0), 1))
    failed = [Path(cell.file).stem for cell in cells if cell.outcome not in (Outcome.PASSED, Outcome.SKIPPED)]
    assert failed == wrong, plain(text(Table(tuple(cells))))
    assert sum(cell.outcome is Outcome.PASSED for cell in cells) + len(wrong) == len(SCRIPTS)
