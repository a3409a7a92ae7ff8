"""The table of a comparison for a terminal. Styled lines."""

from __future__ import annotations

from collections.abc import Iterator

from harness.compare.comparing import Cell
from harness.compare.table import BROKEN, Table, mark, source
from harness.playing.verdict import Outcome
from harness.reporting.styled_text import Line, Span, Tone, padded, width

_TONES = {Outcome.PASSED: Tone.GOOD, Outcome.FAILED: Tone.BAD, Outcome.SKIPPED: Tone.QUIET}


def text(table: Table) -> Iterator[Line]:
    """Server by script, the sums, and the first divergence of each server in each script."""
    yield from grid(table)
    for server in table.servers:
        found = table.divergences(server)
        if found:
            yield []
            yield [Span(f"{server} first diverges", Tone.STRONG)]
            for cell in found:
                yield _divergence(cell)


def grid(table: Table) -> Iterator[Line]:
    """The table alone, with its sums."""
    names = [table.short(file) for file in table.files]
    left = max([width(one) for one in [*names, "scripts kept", *map(_of, table.tags)]], default=0) + 2
    widths = [
        max(width(server), *(width(mark(table.row(file)[at])) for file in table.files), len("00 of 00")) + 2
        for at, server in enumerate(table.servers)
    ]
    yield [
        Span(" " * left),
        *(
            Span(padded(server, size), Tone.STRONG)
            for server, size in zip(table.servers, widths, strict=True)
        ),
    ]
    for file, name in zip(table.files, names, strict=True):
        cells = zip(table.row(file), widths, strict=True)
        yield [Span(padded(name, left)), *(Span(padded(mark(one), size), _tone(one)) for one, size in cells)]
    yield _sums("scripts kept", table, None, left, widths)
    for tag in table.tags:
        yield _sums(_of(tag), table, tag, left, widths)


def _of(tag: str) -> str:
    return f"of these, {tag}"


def _sums(label: str, table: Table, tag: str | None, left: int, widths: list[int]) -> Line:
    sums = [str(table.sum(server, tag)) for server in table.servers]
    cells = zip(sums, widths, strict=True)
    return [
        Span(padded(label, left), Tone.QUIET),
        *(Span(padded(one, size), Tone.QUIET) for one, size in cells),
    ]


def _tone(cell: Cell | None) -> Tone:
    return Tone.QUIET if cell is None else _TONES.get(cell.outcome, Tone.WANTED)


def _divergence(cell: Cell) -> Line:
    if cell.outcome in BROKEN:
        return [Span(f"  {cell.file}", Tone.WANTED), Span(f"  {cell.message}")]
    return [
        Span(f"  {cell.where}:{cell.line}", Tone.BAD),
        Span(f"  {cell.message}"),
        Span(f"  {source(cell.tags)}".rstrip(), Tone.QUIET),
    ]
