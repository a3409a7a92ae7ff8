"""A turn as a script shows it: its steps in the script's own words, and the clients side by side, one lane each.

A row is a line of the script, or a line that the script does not have. Received lines stand in the row of the step that
expected them; an unexpected line stands in the next row in which its client has nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.language.renderer import render_item
from harness.language.steps import as_receive
from harness.playing.verdict import ACCEPTED_ENDS, ClientTurn, TurnReport, Verdict
from harness.report.styled_text import Line, Span, Tone, padded, width
from harness.stage.connection import End

TURNS_SHOWN = 3

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
        for entry in client_turn.entries:
            if entry.matches and entry.expected is not None:
                out.append(f"{name}{entry.expected.text}")
            elif entry.received is not None:
                out.append(f"{name}{received_text(entry.received, eol)}")
        if client_turn.ended_now:
            out.append(f"{name} {ending_text(client_turn)}")
    return out


def ending_text(client_turn: ClientTurn) -> str:
    """The step that expects how this connection ended, without the client's name."""
    if client_turn.ending is not None and client_turn.end in ACCEPTED_ENDS[client_turn.ending]:
        return client_turn.ending.value
    return END_WORDS[client_turn.end]


# --- rows ---------------------------------------------------------------------------------------------------


class Mark(enum.Enum):
    """What a cell shows; the value is written before its text."""

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
    """0: a line that the script does not have."""
    at_s: float
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    common: str = ""
    """The text of a step that belongs to no client, such as `wait 5s`."""


def rows(turn: TurnReport, eol: bytes) -> list[Row]:
    """What was done and received in this turn, in the order of the script's lines."""
    out: list[Row] = []
    for action in turn.actions:
        row = Row(action.line, action.at_s)
        if action.client is None:
            row.common = action.text
        else:
            row.cells[action.client] = [Cell(Mark.DONE, action.text)]
        out.append(row)
    first = len(out)
    out.extend(Row(line, turn.now_s) for line in sorted(_expected_lines(turn)))
    for client_turn in turn.client_turns:
        _place(client_turn, turn, out, first, eol)
    out.extend(Row(line, turn.now_s, common=f"the server raises {kind}") for kind, _, line in turn.raised)
    out.extend(
        Row(line, turn.now_s, common=f"- the server raises {kind}") for kind, _, line in turn.not_raised
    )
    out.extend(Row(0, turn.now_s, common=f"! the server raised {error.text}") for error in turn.errors)
    return out


def _expected_lines(turn: TurnReport) -> set[int]:
    lines = {entry.expected.line for one in turn.client_turns for entry in one.entries if entry.expected}
    return lines | {one.ending_line for one in turn.client_turns if one.ending_line}


def _place(client_turn: ClientTurn, turn: TurnReport, out: list[Row], first: int, eol: bytes) -> None:
    name, at = client_turn.client, first
    script_order = sorted(entry.expected.line for entry in client_turn.entries if entry.expected)
    for number, (entry, when) in enumerate(zip(client_turn.entries, client_turn.times_s, strict=True)):
        cells = []
        if entry.expected is not None and not entry.matches:
            cells.append(Cell(Mark.MISSING, entry.expected.text))
        if entry.received is not None:
            right = entry.matches and name not in turn.disagreed[1:]
            cells.append(Cell(Mark.RECEIVED if right else Mark.WRONG, received_text(entry.received, eol)))
        if entry.expected is not None:
            # Clients that disagree about an order each show their own, not that of the script.
            line = script_order[number] if name in turn.disagreed else entry.expected.line
            at = _row_of(line, when, out, first)
        else:
            at = _free_row(name, at, when, out)
        out[at].cells.setdefault(name, []).extend(cells)
        at += 1
    cells = list(_end_cells(client_turn))
    if cells:
        if client_turn.ending_line:
            at = _row_of(client_turn.ending_line, turn.now_s, out, first)
        else:
            at = _free_row(name, at, turn.now_s, out)
        out[at].cells.setdefault(name, []).extend(cells)


def _end_cells(client_turn: ClientTurn) -> Iterator[Cell]:
    if client_turn.ending is not None and not client_turn.ended_as_expected:
        if client_turn.ended_now or client_turn.end is End.OPEN:
            yield Cell(Mark.MISSING, client_turn.ending.value)
            still_open = client_turn.end is End.OPEN
            yield Cell(Mark.WRONG, "is still connected" if still_open else END_WORDS[client_turn.end])
    elif client_turn.ended_now:
        yield Cell(Mark.RECEIVED if client_turn.ending else Mark.WRONG, ending_text(client_turn))


def _row_of(line: int, when: float, out: list[Row], first: int) -> int:
    at = next(at for at in range(first, len(out)) if out[at].line == line)
    out[at].at_s = when
    return at


def _free_row(client: str, start: int, when: float, out: list[Row]) -> int:
    for at in range(start, len(out)):
        if client not in out[at].cells and not out[at].common:
            return at
    out.append(Row(0, when))
    return len(out) - 1


# --- the table ----------------------------------------------------------------------------------------------


def lanes(verdict: Verdict, turns: int = TURNS_SHOWN) -> Iterator[Line]:
    """One column for each client: the turn that failed, or else the last one, and the turns before it."""
    number = verdict.failures[0].turn if verdict.failures else len(verdict.turns)
    shown = [turn for turn in verdict.turns if number - turns < turn.number <= number]
    table = [(turn, rows(turn, verdict.eol)) for turn in shown]
    names = _clients_in(shown, verdict.clients)
    timed = verdict.virtual_time and any(row.at_s for _, found in table for row in found)
    widths = {name: _column_width(name, [row for _, found in table for row in found]) for name in names}
    head = "   line  " + ("time".ljust(10) if timed else "")
    yield [Span(head, Tone.DIM), *(Span(padded(name, widths[name] + 3), Tone.STRONG) for name in names)]
    for turn, found in table:
        yield from _rendered(found, widths, timed, failed=turn.number == number)


def _clients_in(turns: Iterable[TurnReport], script_order: tuple[str, ...]) -> tuple[str, ...]:
    present = {client_turn.client for turn in turns for client_turn in turn.client_turns}
    present |= {action.client for turn in turns for action in turn.actions if action.client}
    return tuple(name for name in script_order if name in present)


def _column_width(name: str, found: list[Row]) -> int:
    return max([width(name), *(width(str(cell)) for row in found for cell in row.cells.get(name, ()))])


def _rendered(found: list[Row], widths: dict[str, int], timed: bool, failed: bool) -> Iterator[Line]:
    for row in found:
        for depth in range(max([1, *(len(cells) for cells in row.cells.values())])):
            number = str(row.line) if row.line and not depth else ""
            line = [Span(f"{number:>7}  ", Tone.DIM)]
            if timed:
                line.append(Span(_clock(row.at_s if not depth else None), Tone.DIM))
            if row.common:
                yield [*line, Span(row.common, Tone.DIM)]
                continue
            for name, columns in widths.items():
                cells = row.cells.get(name, [])
                cell = cells[depth] if depth < len(cells) else None
                text = padded(str(cell) if cell else "", columns + 3)
                tone = _TONES[cell.mark] if cell else Tone.PLAIN
                # Only the turn that failed is coloured green, so that the eye finds it.
                line.append(Span(text, tone if failed or tone is not Tone.GOOD else Tone.PLAIN))
            yield line


def _clock(at_s: float | None) -> str:
    return " " * 10 if at_s is None else f"{at_s:.3f}".rstrip("0").rstrip(".").rjust(6) + " s  "
