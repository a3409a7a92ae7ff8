"""A turn as a table: its steps in the words of the script, and one column, a lane, for each client.

A row is a line of the script, or an unexpected line. Received lines are in the row of the step that expected them; an
unexpected line is in the next row in which its client has nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from harness.language.columns import cut, width
from harness.language.renderer import render_item
from harness.language.steps import Ending, as_receive
from harness.playing.expectations import Entry
from harness.playing.verdict import ClientTurn, TurnReport, Verdict
from harness.report.styled_text import Line, Span, Tone, padded, wrapped
from harness.stage.connection import End

TURNS_SHOWN = 3
NARROW_COLUMNS = 20
"""Lanes are cut to this width before one is left out."""
WIDEST = 10_000
"""A longer line is cut also where a report has no width, such as in a file."""
MOST_SHOWN, FIRST_SHOWN, LAST_SHOWN = 12, 8, 3
"""If there are more unexpected lines, or lines in one row, only the first and the last are shown."""

END_WORDS = {End.CLOSED: "is closed", End.RESET: "is reset", End.REFUSED: "is refused"}


# --- in the script's words ----------------------------------------------------------------------------------


def received_text(data: bytes, eol: bytes) -> str:
    """The step that expects this data, without the client's name: `< OK`."""
    return next(iter(render_item(as_receive("x", data, eol))))[1:]


def as_received(turn: TurnReport, eol: bytes) -> list[str]:
    """The steps that expect what this turn received, client by client; patterns that matched stay patterns."""
    out: list[str] = []
    for client_turn in turn.client_turns:
        name = client_turn.client
        missing = {id(entry.expected) for entry in client_turn.entries if not entry.matches}
        for entry in client_turn.entries:
            if entry.passed_over and id(entry.expected) in missing:
                # Without the end of `any lines until`, nothing passes over these.
                out.append(f"{name}{received_text(entry.received or b'', eol)}")
            elif entry.matches and entry.expected is not None:
                if not entry.passed_over:
                    out.append(entry.expected.line_for(name))
            elif entry.received is not None:
                out.append(f"{name}{received_text(entry.received, eol)}")
        if client_turn.ended_now:
            out.append(f"{name} {ending_to_expect(client_turn, turn)}")
    return out


def ending_to_expect(client_turn: ClientTurn, turn: TurnReport) -> str:
    """The step that expects this end in the next play, without the client's name."""
    # A fence line that the server has not read can be what makes its close a reset.
    unanswered = any(
        one.client == client_turn.client and one.answer is None and not one.heard_by
        for one in turn.fence_lines
    )
    if unanswered and client_turn.end is End.RESET and not client_turn.ended_as_expected:
        return Ending.DISCONNECTED.value
    return ending_text(client_turn)


def ending_text(client_turn: ClientTurn) -> str:
    """The step that expects how this connection ended, without the client's name."""
    if client_turn.ending is not None and client_turn.ended_as_expected:
        return with_detail(client_turn.ending.value, client_turn.ending_detail)
    return with_detail(END_WORDS[client_turn.end], client_turn.end_detail)


def with_detail(words: str, detail: str) -> str:
    """`is closed with 1001`."""
    return f"{words} with {detail}" if detail else words


# --- rows ---------------------------------------------------------------------------------------------------


class Mark(enum.Enum):
    """The kinds of cells; the value is written before the text."""

    DONE = ""
    RECEIVED = " "
    MISSING = "-"
    WRONG = "!"


_TONES = {Mark.DONE: Tone.PLAIN, Mark.RECEIVED: Tone.GOOD, Mark.MISSING: Tone.WARNING, Mark.WRONG: Tone.BAD}


@dataclass(frozen=True, slots=True)
class Cell:
    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark.value} {self.text}" if self.mark.value.strip() else self.text


@dataclass(slots=True)
class Row:
    line: int
    """0 for an unexpected line."""
    at_s: float
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    common: str = ""
    """The text of a step that belongs to no client, such as `wait 5s`."""
    file: str = ""
    """The file of the line that is expected here."""


def rows(turn: TurnReport, eol: bytes) -> list[Row]:
    """The rows of this turn, in the order of the script's lines."""
    out: list[Row] = []
    for action in turn.actions:
        row = Row(action.line, action.at_s)
        if action.client is None:
            row.common = action.text
        else:
            row.cells[action.client] = [Cell(Mark.DONE, action.text)]
        out.append(row)
    first = len(out)
    out.extend(Row(line, turn.now_s, file=file) for line, file in sorted(_expected_lines(turn)))
    for client_turn in turn.client_turns:
        _place(client_turn, turn, out, first, eol)
    out.extend(Row(line, turn.now_s, common=f"the server raises {kind}") for kind, _, line in turn.raised)
    out.extend(
        Row(line, turn.now_s, common=f"- the server raises {kind}") for kind, _, line in turn.not_raised
    )
    out.extend(Row(0, turn.now_s, common=f"! the server raised {error.text}") for error in turn.errors)
    return out


_Place = tuple[int, str]
"""A line and its file: a definition in another file can have the same line."""


def _expected_lines(turn: TurnReport) -> set[_Place]:
    places = {_place_of(entry) for one in turn.client_turns for entry in one.entries if entry.expected}
    return places | {(one.ending_line, one.ending_file) for one in turn.client_turns if one.ending_line}


def _place_of(entry: Entry) -> _Place:
    return (entry.expected.line, entry.expected.file) if entry.expected is not None else (0, "")


def _place(client_turn: ClientTurn, turn: TurnReport, out: list[Row], first: int, eol: bytes) -> None:
    name, at = client_turn.client, first
    disagreed = [
        entry
        for entry in client_turn.entries
        if entry.expected and name in turn.disagreed and entry.expected.group == turn.agreement_group
    ]
    script_order = iter(sorted(map(_place_of, disagreed)))
    for entry, when in zip(client_turn.entries, client_turn.times_s, strict=True):
        cells = []
        in_disagreement = any(entry is one for one in disagreed)
        if entry.expected is not None and not entry.matches:
            cells.append(Cell(Mark.MISSING, entry.expected.text))
        if entry.received is not None:
            right = entry.matches and not (in_disagreement and name in turn.disagreed[1:])
            cells.append(Cell(Mark.RECEIVED if right else Mark.WRONG, received_text(entry.received, eol)))
        if entry.expected is not None:
            # Clients that disagree about an order each show their own, not that of the script.
            where = next(script_order) if in_disagreement else _place_of(entry)
            at = _row_of(where, when, out, first)
        else:
            at = _free_row(name, at, when, out)
        out[at].cells.setdefault(name, []).extend(cells)
        at += 1
    cells = list(_end_cells(client_turn))
    if cells:
        if client_turn.ending_line:
            at = _row_of((client_turn.ending_line, client_turn.ending_file), turn.now_s, out, first)
        else:
            at = _free_row(name, at, turn.now_s, out)
        out[at].cells.setdefault(name, []).extend(cells)


def _end_cells(client_turn: ClientTurn) -> Iterator[Cell]:
    if client_turn.ending is not None and not client_turn.ended_as_expected:
        if client_turn.ended_now or client_turn.end is End.OPEN:
            yield Cell(Mark.MISSING, with_detail(client_turn.ending.value, client_turn.ending_detail))
            still_open = client_turn.end is End.OPEN
            yield Cell(Mark.WRONG, "is still connected" if still_open else ending_text(client_turn))
    elif client_turn.ended_now:
        yield Cell(Mark.RECEIVED if client_turn.ending else Mark.WRONG, ending_text(client_turn))


def _row_of(where: _Place, when: float, out: list[Row], first: int) -> int:
    at = next(at for at in range(first, len(out)) if (out[at].line, out[at].file) == where)
    out[at].at_s = when
    return at


def _free_row(client: str, start: int, when: float, out: list[Row]) -> int:
    for at in range(start, len(out)):
        if client not in out[at].cells and not out[at].common:
            return at
    out.append(Row(0, when))
    return len(out) - 1


# --- the table ----------------------------------------------------------------------------------------------


def lanes(verdict: Verdict, turns: int = TURNS_SHOWN, columns: int | None = None) -> Iterator[Line]:
    """One column for each client: the turn that failed, or else the last one, and the turns before it. Where they do not
    fit, the clients that matter least are left out, and long lines are cut."""
    number = verdict.failures[0].turn if verdict.failures else len(verdict.turns)
    shown = [turn for turn in verdict.turns if number - turns < turn.number <= number]
    table = [(turn, _shortened(rows(turn, verdict.eol))) for turn in shown]
    present = _clients_in(shown, verdict.clients)
    timed = verdict.virtual_time and any(row.at_s for _, found in table for row in found)
    widths = {name: _column_width(name, [row for _, found in table for row in found]) for name in present}
    head = "   line  " + ("time".ljust(10) if timed else "")
    room = None if columns is None else columns - width(head)
    if room is not None:
        widths = _fitting(widths, _by_importance(verdict, shown, present), room)
    if not widths:
        return
    heads = (Span(padded(cut(name, size), size + 3), Tone.STRONG) for name, size in widths.items())
    yield [Span(head, Tone.DIM), *heads]
    for turn, found in table:
        yield from _rendered(found, widths, timed, failed=turn.number == number, room=room)
    left_out = [name for name in present if name not in widths]
    if left_out:
        note = [Span(" " * 9), Span(_left_out(left_out, shown), Tone.DIM)]
        yield from wrapped(note, columns)


def _shortened(found: list[Row]) -> list[Row]:
    """The rows without most of those of a server that sends without end."""
    out: list[Row] = []
    for unexpected, group in groupby(found, key=lambda row: row.line == 0 and not row.common):
        part = list(group)
        if unexpected and len(part) > MOST_SHOWN:
            left_out = part[FIRST_SHOWN:-LAST_SHOWN]
            size = sum(len(cells) for row in left_out for cells in row.cells.values())
            gap = Row(0, left_out[0].at_s, common=_more(size))
            part = [*part[:FIRST_SHOWN], gap, *part[-LAST_SHOWN:]]
        out.extend(part)
    for row in out:
        for name, cells in row.cells.items():
            if len(cells) > MOST_SHOWN:
                gap_cell = Cell(cells[FIRST_SHOWN].mark, _more(len(cells) - FIRST_SHOWN - LAST_SHOWN))
                row.cells[name] = [*cells[:FIRST_SHOWN], gap_cell, *cells[-LAST_SHOWN:]]
    return out


def _more(lines: int) -> str:
    return f"\N{HORIZONTAL ELLIPSIS} {lines} more"


def _left_out(names: list[str], shown: list[TurnReport]) -> str:
    wrong = sum(
        any(not one.as_expected for turn in shown if (one := turn.client_turn(name))) for name in names
    )
    noun = "1 more client" if len(names) == 1 else f"{len(names)} more clients"
    return f"{noun} not shown; {wrong or 'none'} of them with anything unexpected"


def _by_importance(verdict: Verdict, shown: list[TurnReport], names: tuple[str, ...]) -> list[str]:
    """The clients of the failures first, then those that act in that turn, then those that receive something in it."""
    failed = {name for failure in verdict.failures for name in failure.client.split(" and ")}
    last = shown[-1:]
    acting = {action.client for turn in last for action in turn.actions}
    wrong = {one.client for turn in last for one in turn.client_turns if not one.as_expected}
    receiving = {one.client for turn in last for one in turn.client_turns if one.entries}
    first = verdict.failures[0].client.split(" and ") if verdict.failures else []
    ranks = (set(first), acting, failed, wrong, receiving)
    return sorted(names, key=lambda name: [name not in rank for rank in ranks])


def _fitting(widths: dict[str, int], by_importance: list[str], room: int) -> dict[str, int]:
    """The widths of the columns that fit, in the order of the script."""
    kept: list[str] = []
    for name in by_importance:
        if kept and sum(min(widths[one], NARROW_COLUMNS) + 3 for one in (*kept, name)) > room:
            break
        kept.append(name)
    most = min(max(widths.values(), default=0), max(room, 1))
    while most > 1 and sum(min(widths[name], most) + 3 for name in kept) > room:
        most -= 1
    return {name: min(columns, most) for name, columns in widths.items() if name in kept}


def _clients_in(turns: Iterable[TurnReport], script_order: tuple[str, ...]) -> tuple[str, ...]:
    present = {client_turn.client for turn in turns for client_turn in turn.client_turns}
    present |= {action.client for turn in turns for action in turn.actions if action.client}
    return tuple(name for name in script_order if name in present)


def _column_width(name: str, found: list[Row]) -> int:
    cells = (str(cell)[:WIDEST] for row in found for cell in row.cells.get(name, ()))
    return max([width(name), *map(width, cells)])


def _rendered(
    found: list[Row], widths: dict[str, int], timed: bool, failed: bool, room: int | None
) -> Iterator[Line]:
    for row in found:
        if row.cells and not row.cells.keys() & widths.keys():
            continue
        for depth in range(max([1, *(len(row.cells.get(name, ())) for name in widths)])):
            number = str(row.line) if row.line and not depth else ""
            line = [Span(f"{number:>7}  ", Tone.DIM)]
            if timed:
                line.append(Span(_clock(row.at_s if not depth else None), Tone.DIM))
            if row.common:
                yield [*line, Span(row.common if room is None else cut(row.common, room), Tone.DIM)]
                continue
            for name, columns in widths.items():
                cells = row.cells.get(name, [])
                cell = cells[depth] if depth < len(cells) else None
                text = padded(cut(str(cell), columns) if cell else "", columns + 3)
                tone = _TONES[cell.mark] if cell else Tone.PLAIN
                # Green only in the turn that failed, so that it stands out.
                line.append(Span(text, tone if failed or tone is not Tone.GOOD else Tone.PLAIN))
            yield line


def _clock(at_s: float | None) -> str:
    return " " * 10 if at_s is None else f"{at_s:.3f}".rstrip("0").rstrip(".").rjust(6) + " s  "
