"""A turn as the terminals of its people side by side: rows of a script's lines, one cell per client. Pure data."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.language.renderer import render_item
from harness.language.steps import as_receive
from harness.playing.verdict import ACCEPTED_ENDS, ClientTurn, TurnReport
from harness.stage.connection import End


class Mark(enum.Enum):
    """How a cell is to be read; its value stands before the text where it is not plain."""

    DONE = ""
    RECEIVED = " "
    MISSING = "-"
    WRONG = "!"


@dataclass(frozen=True, slots=True)
class Cell:
    mark: Mark
    text: str


@dataclass(slots=True)
class Row:
    """One line of the table. No line number: the script has no such line. No clients: a step of nobody, such as wait."""

    line: int
    at_s: float
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    everyone: str = ""


def rows(turn: TurnReport, eol: bytes) -> list[Row]:
    """What was done and heard in this turn, in the order of the script's lines."""
    out: list[Row] = []
    for done in turn.actions:
        row = Row(done.line, done.at_s)
        if done.client is None:
            row.everyone = done.text
        else:
            row.cells[done.client] = [Cell(Mark.DONE, done.text)]
        out.append(row)
    first = len(out)
    out.extend(Row(line, turn.now_s) for line in sorted(_lines(turn)))
    for client_turn in turn.client_turns:
        _place(client_turn, turn, out, first, eol)
    return out


def _lines(turn: TurnReport) -> set[int]:
    """The script's lines of which something is shown: a lane's own place comes before what the script does not say."""
    lines = {entry.expected.line for one in turn.client_turns for entry in one.entries if entry.expected}
    return lines | {one.ending_line for one in turn.client_turns if one.ending_line}


def _place(client_turn: ClientTurn, turn: TurnReport, out: list[Row], first: int, eol: bytes) -> None:
    at = first
    orderly = sorted(entry.expected.line for entry in client_turn.entries if entry.expected)
    for number, (entry, when) in enumerate(zip(client_turn.entries, client_turn.times_s, strict=True)):
        cells = []
        if entry.expected is not None and not entry.matches:
            cells.append(Cell(Mark.MISSING, entry.expected.text))
        if entry.received is not None:
            well = entry.matches and client_turn.client not in turn.disagreed[1:]
            mark = Mark.RECEIVED if well else Mark.WRONG
            cells.append(Cell(mark, received_text(entry.received, eol)))
        if entry.expected is not None:
            # Where listeners disagree, each lane shows its own order and not that of the script.
            line = orderly[number] if client_turn.client in turn.disagreed else entry.expected.line
            at = _row_of(line, when, out, first)
        else:
            at = _free_row(client_turn.client, at, when, out)
        out[at].cells.setdefault(client_turn.client, []).extend(cells)
        at += 1
    text = end_text(client_turn)
    if text:
        right = client_turn.ending is not None and text == client_turn.ending.value
        cell = Cell(Mark.RECEIVED if right else Mark.WRONG, text)
        if client_turn.ending_line:
            place = _row_of(client_turn.ending_line, turn.now_s, out, first)
        else:
            place = _free_row(client_turn.client, at, turn.now_s, out)
        wanted = [] if right or client_turn.ending is None else [Cell(Mark.MISSING, client_turn.ending.value)]
        out[place].cells.setdefault(client_turn.client, []).extend([*wanted, cell])


def _row_of(line: int, when: float, out: list[Row], first: int) -> int:
    """The row of this script line among what was heard."""
    at = next(at for at in range(first, len(out)) if out[at].line == line)
    out[at].at_s = when
    return at


def _free_row(client: str, start: int, when: float, out: list[Row]) -> int:
    """A row from here on where the client has said and heard nothing: what is beside it there came in this turn too."""
    for at in range(start, len(out)):
        if client not in out[at].cells and not out[at].everyone:
            return at
    out.append(Row(0, when))
    return len(out) - 1


def received_text(data: bytes, eol: bytes) -> str:
    """What was heard as the script would say it, the client's name left out."""
    return next(iter(render_item(as_receive("x", data, eol))))[1:]


def end_text(client_turn: ClientTurn) -> str:
    """How the connection ended, in the script's words, where the turn has to say so."""
    if not client_turn.ended_now:
        return "is still connected" if client_turn.ending is not None and client_turn.end is End.OPEN else ""
    if client_turn.ending is not None and client_turn.end in ACCEPTED_ENDS[client_turn.ending]:
        return client_turn.ending.value
    return END_WORDS.get(client_turn.end, "")


END_WORDS = {End.CLOSED: "is closed", End.RESET: "is reset", End.REFUSED: "is refused"}


def clients_of(turns: Iterable[TurnReport], everyone: tuple[str, ...]) -> tuple[str, ...]:
    """The clients who have a lane in these turns, in the order of the script."""
    there = {client_turn.client for turn in turns for client_turn in turn.client_turns}
    there |= {done.client for turn in turns for done in turn.actions if done.client}
    return tuple(name for name in everyone if name in there)
