"""Servers of other dialects play `suite:chat-line` through their adapters: what is left is what is known to be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness import Outcome
from harness.batch import scripts_in
from harness.compare import baseline
from harness.compare.compare import compare
from harness.compare.report import Table, text
from harness.playing.pipeline import PlayOptions
from harness.report.styled_text import plain
from tests.independent.adapted.servers import BASELINE, NAMES, compared, tool

IN_PIECES = "many-lines"
"""Sends lines in pieces, which no adapter can spell: it is for a server that understands them as they are."""
UNDERSTANDS_PIECES = "minutes"
WRONG = {"courier", "minutes", "tavern"}
"""The servers with a mistake."""
SKIPPED = 7
"""The scripts that need an idle limit or errors that only one document names."""


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_leaves_what_is_wrong(name: str, tmp_path: Path) -> None:
    if not shutil.which(tool(name)):
        pytest.skip(f"{tool(name)} is not installed")
    suite = list(scripts_in([Path("suite:chat-line")]))
    scripts = [path for path in suite if path.stem != IN_PIECES or name == UNDERSTANDS_PIECES]
    cells = list(compare(scripts, [compared(name, tmp_path)], PlayOptions(within_s=3.0), 1))
    table = Table(tuple(cells), baseline.read(BASELINE))
    assert not table.entries() - table.baseline, plain(text(table))
    assert table.gone() == []
    assert bool(table.entries()) is (name in WRONG)
    passed = sum(cell.outcome is Outcome.PASSED for cell in cells)
    assert passed == len(scripts) - SKIPPED - len({one.script for one in table.entries()})
