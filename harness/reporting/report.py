"""A verdict told to a person: what failed and where, side by side, with hints. Styled lines; knows no sockets."""

from __future__ import annotations

from collections.abc import Iterator

from harness.playing.verdict import FailureKind, Outcome, TurnReport, Verdict
from harness.reporting.failure_text import headline, particulars
from harness.reporting.hints import hints
from harness.reporting.lanes import Cell, Mark, Row, clients_of, rows
from harness.reporting.styled_text import Line, Span, Tone, padded, width
from harness.stage.fence import Grade
from harness.updating.rewriting import as_received

_NOTHING_TO_LEARN = (
    FailureKind.SERVER_DIED,
    FailureKind.UNANSWERED,
    FailureKind.NEVER_IDLE,
    FailureKind.DISAGREED,
)
TURNS_SHOWN = 3
SERVER_OUTPUT_LINES = 12
_TONES = {Mark.DONE: Tone.PLAIN, Mark.RECEIVED: Tone.GOOD, Mark.MISSING: Tone.WANTED, Mark.WRONG: Tone.BAD}
GRADES = {
    Grade.EXACT: "exact: the server has nothing left to do",
    Grade.ANSWERED: "answered: the server has replied to everyone's fence line",
    Grade.SETTLED: "settled: nothing more came for a while",
}


def report(verdict: Verdict) -> Iterator[Line]:
    """Everything there is to say about this verdict; one line when it passed."""
    match verdict.outcome:
        case Outcome.PASSED:
            yield [Span("passed ", Tone.GOOD), Span(verdict.file), Span(_grade_note(verdict), Tone.QUIET)]
        case Outcome.SKIPPED:
            yield [Span("skipped ", Tone.WANTED), Span(f"{verdict.file}  {verdict.reason}")]
        case Outcome.SCRIPT_WRONG:
            yield [Span("SCRIPT WRONG ", Tone.BAD), Span(verdict.file, Tone.STRONG)]
            yield from _indented(verdict.reason)
        case Outcome.TARGET_BROKEN:
            yield [
                Span("TARGET BROKEN ", Tone.BAD),
                Span(verdict.file, Tone.STRONG),
                Span(f"  {verdict.target}"),
            ]
            yield from _indented(verdict.reason)
        case Outcome.FAILED:
            yield from _failed(verdict)


def _grade_note(verdict: Verdict) -> str:
    if verdict.grade is not Grade.SETTLED:
        return ""
    if verdict.fenced:
        return "  (settled: someone could not be asked, so what they caused was waited for, not proven)"
    return "  (settled: silence is not proven; a fence line would prove it)"


def _indented(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        yield [Span(f"  {line}")]


def _failed(verdict: Verdict) -> Iterator[Line]:
    first = verdict.failures[0]
    yield [
        Span("FAILED ", Tone.BAD),
        Span(f"{first.file}:{first.line}", Tone.STRONG),
        Span(f"   {headline(first)}"),
    ]
    if verdict.script.title:
        yield [Span(f"  {verdict.script.title}", Tone.QUIET)]
    yield from particulars(first, verdict, GRADES[verdict.grade] if verdict.grade else "")
    for other in verdict.failures[1:]:
        yield [Span(f"  and line {other.line}: {headline(other)}", Tone.QUIET)]
    yield []
    yield from lanes(verdict)
    told = list(hints(verdict))
    if told:
        yield []
    for hint in told:
        yield [Span("  hint  ", Tone.HINT), Span(hint)]
    yield from _pasteable(verdict)
    if verdict.server_output.strip():
        yield []
        yield [Span("  the server's last words", Tone.STRONG)]
        for line in verdict.server_output.rstrip().splitlines()[-SERVER_OUTPUT_LINES:]:
            yield [Span("  | ", Tone.QUIET), Span("".join(c if c.isprintable() else "\ufffd" for c in line))]


def _pasteable(verdict: Verdict) -> Iterator[Line]:
    if verdict.failures[0].kind in _NOTHING_TO_LEARN:
        return
    failed = next((turn for turn in verdict.turns if turn.number == verdict.failures[0].turn), None)
    if failed is None:
        return
    lines = as_received(failed, verdict.eol)
    if lines:
        yield []
        yield [Span("  what was heard, as it would pass", Tone.STRONG)]
        for line in lines:
            yield [Span(f"{line}", Tone.GOOD)]


# --- lanes --------------------------------------------------------------------------------------------------


def lanes(verdict: Verdict, turns: int = TURNS_SHOWN) -> Iterator[Line]:
    """One column per client: the turn that failed and the two before it, or as many as are asked for."""
    number = verdict.failures[0].turn if verdict.failures else len(verdict.turns)
    shown = [turn for turn in verdict.turns if number - turns < turn.number <= number]
    names = clients_of(shown, verdict.clients)
    table = [(turn, rows(turn, verdict.eol)) for turn in shown]
    timed = verdict.virtual_time and any(row.at_s for _, found in table for row in found)
    widths = {name: _column_width(name, [row for _, found in table for row in found]) for name in names}
    clock_width = 10 if timed else 0
    head = "   line  " + ("time".ljust(clock_width) if timed else "")
    yield [Span(head, Tone.QUIET), *(Span(padded(name, widths[name] + 3), Tone.STRONG) for name in names)]
    for turn, found in table:
        yield from _turn(turn, found, widths, timed, failed=turn.number == number)


def _column_width(name: str, found: list[Row]) -> int:
    cells = [cell for row in found for cell in row.cells.get(name, ())]
    return max([width(name), *(width(_cell_text(cell)) for cell in cells)])


def _cell_text(cell: Cell) -> str:
    return f"{cell.mark.value} {cell.text}" if cell.mark.value.strip() else cell.text


def _turn(
    turn: TurnReport, found: list[Row], widths: dict[str, int], timed: bool, failed: bool
) -> Iterator[Line]:
    for row in found:
        for depth in range(max([1, *(len(cells) for cells in row.cells.values())])):
            number = str(row.line) if row.line and not depth else ""
            line = [Span(f"{number:>7}  ", Tone.QUIET)]
            if timed:
                line.append(Span(_clock(row.at_s if not depth else None), Tone.QUIET))
            if row.everyone:
                line.append(Span(row.everyone, Tone.QUIET))
            for name, columns in widths.items():
                if row.everyone:
                    break
                cells = row.cells.get(name, [])
                cell = cells[depth] if depth < len(cells) else None
                text = padded(_cell_text(cell) if cell else "", columns + 3)
                tone = _TONES[cell.mark] if cell else Tone.PLAIN
                line.append(Span(text, tone if failed or tone is not Tone.GOOD else Tone.PLAIN))
            yield line


def _clock(at_s: float | None) -> str:
    return " " * 10 if at_s is None else f"{at_s:.3f}".rstrip("0").rstrip(".").rjust(6) + " s  "
