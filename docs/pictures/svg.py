"""Panels -> one SVG, side by side or one above the other. Knows the emulator's cells and nothing of what runs in them.

A panel is a title and something that is drawn below it. `terminal` makes one of a screen; another kind, such as a page in a
browser, only needs its size and its drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import pyte
from pyte.screens import Char
from symbols import is_symbol, symbol

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 9.6, 21, 16
MARGIN, TITLE_HEIGHT, GAP = 12, 32, 12
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,Liberation Mono,monospace"

BACKGROUND, FRAME, TITLE, FOREGROUND, FAINT = "#16181d", "#2b2f38", "#9aa3b2", "#d7dae0", "#8b93a1"

# The emulator's names of the sixteen colours.
COLOURS = {
    "default": FOREGROUND,
    "black": "#3b4048",
    "red": "#f0717a",
    "green": "#8fc776",
    "brown": "#e5c07b",
    "blue": "#6cb2f0",
    "magenta": "#c98be0",
    "cyan": "#5fc0cc",
    "white": "#d7dae0",
    "brightblack": "#7a828e",
    "brightred": "#ff8a92",
    "brightgreen": "#a9dd90",
    "brightbrown": "#f5d08b",
    "brightblue": "#8cc6ff",
    "brightmagenta": "#dba3f0",
    "brightcyan": "#7fd8e3",
    "brightwhite": "#ffffff",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """A drawing with a title above it. The drawing has its origin below the title, at the left edge."""

    title: str
    width: float
    height: float
    drawing: str


class Wrapped(Exception):
    """A line did not fit its terminal, so the picture would break a word."""


def screen_after(written: bytes, columns: int, rows: int) -> pyte.Screen:
    """The screen of a terminal to which these bytes were written, with faint text in grey: the emulator does not know it."""
    screen = pyte.Screen(columns, rows)
    pyte.ByteStream(screen).feed(written.replace(b"\x1b[2m", b"\x1b[90m"))
    return screen


def terminal(title: str, screen: pyte.Screen) -> Panel:
    """The screen of a terminal, without the empty lines at its end."""
    used = [row for row in range(screen.lines) if screen.display[row].strip()]
    rows = max([screen.cursor.y, *used]) + 1
    for row in used:
        if screen.buffer[row][screen.columns - 1].data.strip():
            raise Wrapped(f"{title}: {screen.display[row]!r} fills its line")
    parts = []
    for row in range(rows):
        parts += [_run(start, cells, row * CELL_HEIGHT) for start, cells in _runs(screen, row)]
    if not screen.cursor.hidden:
        x, y = MARGIN + screen.cursor.x * CELL_WIDTH, screen.cursor.y * CELL_HEIGHT
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{CELL_WIDTH}" height="{CELL_HEIGHT}" fill="{TITLE}"/>'
        )
    return Panel(
        title, screen.columns * CELL_WIDTH + 2 * MARGIN, rows * CELL_HEIGHT + MARGIN, "\n".join(parts)
    )


def side_by_side(panels: Sequence[Panel], description: str) -> str:
    """The panels in one row, for a wide page."""
    height = max(panel.height for panel in panels)
    x, drawn = 0.0, []
    for panel in panels:
        drawn.append(_placed(panel, x, 0, panel.width, height))
        x += panel.width + GAP
    return _picture(x - GAP, height + TITLE_HEIGHT, drawn, description)


def stacked(panels: Sequence[Panel], description: str) -> str:
    """The panels one above the other, for a narrow page."""
    width = max(panel.width for panel in panels)
    y, drawn = 0.0, []
    for panel in panels:
        drawn.append(_placed(panel, 0, y, width, panel.height))
        y += panel.height + TITLE_HEIGHT + GAP
    return _picture(width, y - GAP, drawn, description)


def _picture(width: float, height: float, drawn: Sequence[str], description: str) -> str:
    text = escape(description)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="{FONTS}" font-size="{FONT_SIZE}" role="img" aria-label="{text}">\n'
        f"<title>{text}</title>\n<style>text{{white-space:pre}}</style>\n" + "\n".join(drawn) + "\n</svg>\n"
    )


def _placed(panel: Panel, x: float, y: float, width: float, height: float) -> str:
    line = TITLE_HEIGHT - 4
    return (
        f'<g transform="translate({x:.1f},{y:.1f})">\n'
        f'<rect x=".5" y=".5" width="{width - 1:.1f}" height="{height + TITLE_HEIGHT - 1:.1f}" rx="8" '
        f'fill="{BACKGROUND}" stroke="{FRAME}"/>\n'
        f'<text x="{width / 2:.1f}" y="20" fill="{TITLE}" text-anchor="middle">{escape(panel.title)}</text>\n'
        f'<line x1="0" y1="{line}" x2="{width:.1f}" y2="{line}" stroke="{FRAME}"/>\n'
        f'<g transform="translate(0,{TITLE_HEIGHT})">\n{panel.drawing}\n</g>\n</g>'
    )


def _runs(screen: pyte.Screen, row: int) -> Iterator[tuple[int, list[Char]]]:
    """Adjacent cells with the same attributes. A symbol and a wide character, whose second cell is empty, are separate."""
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    start = 0
    while start < len(cells):
        end = start + 1
        if _is_wide(cells, start):
            end += 1
        elif not is_symbol(cells[start].data):
            while (
                end < len(cells)
                and _look(cells[end]) == _look(cells[start])
                and not _is_wide(cells, end)
                and not is_symbol(cells[end].data)
            ):
                end += 1
        if any(cell.data.strip() for cell in cells[start:end]) or cells[start].reverse:
            yield start, _without_trailing_blanks(cells[start:end])
        start = end


def _without_trailing_blanks(cells: list[Char]) -> list[Char]:
    end = len(cells)
    while end > 1 and cells[end - 1].data == " " and not cells[end - 1].reverse:
        end -= 1
    return cells[:end]


def _is_wide(cells: list[Char], column: int) -> bool:
    return column + 1 < len(cells) and cells[column + 1].data == ""


def _look(cell: Char) -> tuple[str, bool, bool]:
    return cell.fg, cell.bold, cell.reverse


def _run(start: int, cells: list[Char], y: float) -> str:
    x = MARGIN + start * CELL_WIDTH
    colour, bold, reverse = _look(cells[0])
    fill = COLOURS.get(colour, f"#{colour}")
    text = "".join(cell.data for cell in cells)
    length = len(cells) * CELL_WIDTH
    if is_symbol(text):
        return symbol(text, x, y + 1, min(length, FONT_SIZE + 1))
    behind = ""
    if reverse:
        behind = f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{CELL_HEIGHT}" fill="{fill}"/>'
        fill = BACKGROUND
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'{behind}<text x="{x:.1f}" y="{y + FONT_SIZE}" fill="{fill}"{weight} textLength="{length:.1f}" '
        f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(text)}</text>'
    )
