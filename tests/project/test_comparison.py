"""docs/comparison.md says something in every cell, and of every tool which version was looked at, or that none was noted."""

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


def unversioned(page: str) -> list[str]:
    """The tools of the last table whose second cell names no version, no documentation or repository, and admits no gap."""
    _, *rows = tables(page)[-1]
    known = re.compile(r"\d+\.\d+|its documentation, as of \w+ \d{4}|its repository|no version noted")
    return [row[0] for row in rows if not known.match(row[1])]


def test_every_tool_has_a_version_or_says_that_none_was_noted() -> None:
    assert unversioned(PAGE) == []
    rows = "| a | 1.2 | x |\n| b | new | x |\n| c | no version noted | x |\n| d | its documentation | x |\n"
    assert unversioned(f"| | version | how |\n|---|---|---|\n{rows}") == ["b", "d"]


def test_every_tool_has_a_row_about_its_version_and_a_paragraph() -> None:
    compared, versions = ([row[0] for row in rows[1:]] for rows in tables(PAGE))
    assert compared[0] == "harness"
    assert compared[1:] == versions
    paragraphs = re.findall(r"^\*\*(?:The )?([^*]+)\*\*", PAGE, re.MULTILINE)
    assert paragraphs == versions
