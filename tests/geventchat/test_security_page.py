"""SECURITY.md states every bound, and each row names a test that exists."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest

from geventchat import Limits

ROOT = Path(__file__).resolve().parents[2]
HEADER = ["resource", "bound", "default", "at the bound", "test"]
TABLE = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "SECURITY.md").read_text().splitlines()
    if line.startswith("| ")
]
ROWS = [row for row in TABLE if row != HEADER]


def test_the_last_column_of_each_table_is_the_test():
    assert TABLE.count(HEADER) == (ROOT / "SECURITY.md").read_text().count("\n|---|") > 1
    assert len(ROWS) > 20
    assert all(len(row) == len(HEADER) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_test_of_a_row_exists(row: list[str]):
    match = re.fullmatch(r"`(\w+\.py)::(test_\w+)`", row[-1])
    assert match, f"no test in the last column: {row}"
    file = ROOT / "tests/geventchat" / match[1]
    functions = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert match[2] in functions, f"{match[1]} has no {match[2]}"


@pytest.mark.parametrize("limit", [field.name for field in fields(Limits)])
def test_every_limit_is_in_the_table_with_its_default(limit: str):
    stating = [row for row in ROWS if f"`{limit}`" in row[1]]
    assert stating, f"Limits.{limit} is in no row"
    value = f"{getattr(Limits(), limit):,.0f}"
    for row in stating:
        assert re.search(rf"(?<![\d,]){value}(?![\d,])", row[2]), f"{limit} is {value}: {row[2]}"


CONSTANT, MODULE = re.compile(r"`(_?[A-Z][A-Z_]+)`"), re.compile(r"`([\w/]+)\.py`")
WITH_CONSTANTS = [row for row in ROWS if CONSTANT.search(row[1])]


@pytest.mark.parametrize("row", WITH_CONSTANTS, ids=[row[0] for row in WITH_CONSTANTS])
def test_every_constant_in_the_table_is_in_its_module_and_has_the_value(row: list[str]):
    paths = MODULE.findall(row[1])
    assert paths, f"no module is named: {row[1]}"
    modules = [importlib.import_module(f"geventchat.{path.replace('/', '.')}") for path in paths]
    for name in CONSTANT.findall(row[1]):
        values = [getattr(module, name) for module in modules if hasattr(module, name)]
        assert values, f"{name} is in none of {paths}"
        for value in values:
            assert re.search(rf"(?<![\d,]){value:,.0f}(?![\d,])", row[2]), f"{name} is {value}: {row[2]}"
