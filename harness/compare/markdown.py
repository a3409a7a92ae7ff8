"""The table of a comparison as Markdown. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.compare.comparing import Cell
from harness.compare.table import BROKEN, Table, mark, source
from harness.playing.verdict import Outcome
from harness.reporting import styled_text
from harness.reporting.report import report

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def markdown(table: Table) -> str:
    """The whole document: the table, its sums, then each first divergence with its report."""
    return "\n".join(_lines(table)) + "\n"


def _lines(table: Table) -> Iterator[str]:
    yield "# Servers compared"
    yield ""
    yield _row("script", *map(_plain, table.servers))
    yield _row(*["---"] * (len(table.servers) + 1))
    for file in table.files:
        title = table.title(file)
        name = f"`{table.short(file)}`" + (f" {_plain(title)}" if title else "")
        yield _row(name, *map(_cell, table.row(file)))
    yield _row("**scripts kept**", *(str(table.sum(server)) for server in table.servers))
    for tag in table.tags:
        yield _row(f"of these, {_plain(tag)}", *(str(table.sum(server, tag)) for server in table.servers))
    for server in table.servers:
        found = table.divergences(server)
        if found:
            yield ""
            yield f"## Where {_plain(server)} first diverges"
            for cell in found:
                yield from _divergence(cell)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _cell(cell: Cell | None) -> str:
    if cell is None or cell.outcome in (Outcome.PASSED, Outcome.SKIPPED):
        return mark(cell)
    return f"**{mark(cell)}** {_plain(source(cell.tags))}".rstrip()


def _divergence(cell: Cell) -> Iterator[str]:
    where = f"`{cell.file}`" if cell.outcome in BROKEN else f"`{cell.where}:{cell.line}`"
    yield ""
    yield f"{where} {_plain(cell.message)} {_plain(source(cell.tags))}".rstrip()
    if cell.verdict is not None:
        told = styled_text.plain(report(cell.verdict)).rstrip("\n")
        longest = max((len(run) for run in re.findall("`+", told)), default=0)
        fence = "`" * max(3, longest + 1)
        yield ""
        yield f"{fence}text"
        yield told
        yield fence
