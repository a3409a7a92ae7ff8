"""Cells laid out as a table, server by script: the rows, the columns and the sums. Pure; knows no way of writing it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.comparing import Cell
from harness.playing.verdict import Outcome

BROKEN = (Outcome.SCRIPT_WRONG, Outcome.TARGET_BROKEN)


@dataclass(frozen=True, slots=True)
class Sum:
    """Of so many scripts that were played, so many were kept."""

    kept: int
    played: int

    def __str__(self) -> str:
        return f"{self.kept} of {self.played}"


@dataclass(frozen=True, slots=True)
class Table:
    cells: tuple[Cell, ...]

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.server for cell in self.cells))

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.file for cell in self.cells))

    @property
    def tags(self) -> tuple[str, ...]:
        """Every source that some script comes from."""
        return tuple(sorted({tag for cell in self.cells for tag in cell.of_script}))

    def row(self, file: str) -> tuple[Cell | None, ...]:
        """How each server did in this script; None where it has not come to it."""
        found = {cell.server: cell for cell in self.cells if cell.file == file}
        return tuple(found.get(server) for server in self.servers)

    def title(self, file: str) -> str:
        return next((cell.title for cell in self.cells if cell.file == file), "")

    def short(self, file: str) -> str:
        """The file's name without what all of them share."""
        folders = {os.path.dirname(one) for one in self.files}
        common = os.path.commonpath(folders) if len(folders) > 1 and "" not in folders else min(folders)
        return os.path.relpath(file, common) if common else file

    def sum(self, server: str, tag: str | None = None) -> Sum:
        """Over all scripts, or over those that hold something which comes from there."""
        own = [one for one in self.cells if one.server == server and (tag is None or tag in one.of_script)]
        played = [one for one in own if one.outcome in (Outcome.PASSED, Outcome.FAILED)]
        return Sum(sum(one.outcome is Outcome.PASSED for one in played), len(played))

    def divergences(self, server: str) -> tuple[Cell, ...]:
        """Where this server did not do as the scripts say, and where it could not be played."""
        return tuple(
            one
            for one in self.cells
            if one.server == server and (one.outcome is Outcome.FAILED or one.outcome in BROKEN)
        )


def mark(cell: Cell | None) -> str:
    """A cell in a word or two."""
    if cell is None:
        return ""
    match cell.outcome:
        case Outcome.PASSED:
            return "kept"
        case Outcome.SKIPPED:
            return "-"
        case Outcome.FAILED:
            return f"line {cell.line}"
        case _:
            return "broken"


def source(tags: Sequence[str]) -> str:
    """Where a line comes from, as scripts write it."""
    return f"[{' '.join(tags)}]" if tags else ""
