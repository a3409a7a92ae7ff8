"""docs/comparison.md says something in every cell, and of every tool which version was looked at."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text("utf-8")


def tables(page: str) -> list[list[list[str]]]:
    """The cells of each table, by row, without the rule below the head."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", page, re.MULTILINE)
    return [
        [
            [cell.strip(" *") for cell in line.strip("|").split("|")]
            for line in table.splitlines()
            if "---" not in line
        ]
        for table in found
    ]


def gaps(page: str) -> list[str]:
    """Rows that have another number of cells than their head, or an empty one."""
    return [row[0] for head, *rows in tables(page) for row in rows if len(row) != len(head) or not all(row)]


def test_no_cell_is_empty_or_missing() -> None:
    assert gaps(PAGE) == []
    assert gaps("| | a | b |\n|---|---|---|\n| x | 1 |  |\n| y | 1 | 2 |\n| z | 1 |\n") == ["x", "z"]


def test_every_tool_has_a_version_and_a_paragraph() -> None:
    compared, versions = ([row[0] for row in rows[1:]] for rows in tables(PAGE))
    assert compared[0] == "harness"
    assert compared[1:] == versions
    paragraphs = re.findall(r"^\*\*(?:The )?([^*]+)\*\*", PAGE, re.MULTILINE)
    assert paragraphs == versions
