"""Cells as text and back, for carrying them from the process that played to the one that writes the table. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from harness.compare.comparing import Cell
from harness.compare.servers import ComparedServer, compared_servers, named
from harness.compare.table import Table
from harness.compare.text import text
from harness.playing.verdict import Outcome
from harness.reporting.styled_text import Line
from harness.targets.choice import TargetChoice


def commands(servers: Sequence[str], features: Sequence[str]) -> tuple[ComparedServer, ...]:
    """The entrants that are all commands: NAME=CMD, and NAME='FEATURE FEATURE'."""
    pairs = [named(one) for one in servers]
    return compared_servers([(name, TargetChoice(server=command)) for name, command in pairs], features)


def serialized(cell: Cell) -> str:
    """The cell as text, without its verdict."""
    where = (cell.file, cell.title, cell.server, cell.outcome.value)
    return json.dumps([*where, cell.line, cell.where, cell.message, cell.tags, cell.of_script])


def deserialized(text: str) -> Cell:
    """The cell that was carried."""
    file, title, server, outcome, line, where, message, tags, of_script = json.loads(text)
    return Cell(file, title, server, Outcome(outcome), line, where, message, tuple(tags), tuple(of_script))


def summed_up(texts: Iterable[str], servers: Sequence[str]) -> list[Line]:
    """The table of what was carried here, with the servers in the order in which they were named."""
    names = [named(one)[0] for one in servers]
    cells = sorted(map(deserialized, texts), key=lambda cell: (cell.file, names.index(cell.server)))
    return list(text(Table(tuple(cells))))
