"""Terminal screens -> one SVG, side by side. Knows the emulator's cells and nothing of what runs in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import pyte
from pyte.screens import Char

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 8.4, 18, 14
MARGIN, TITLE_HEIGHT, GAP = 14, 34, 18
FONTS = "ui-monospace,DejaVu Sans Mono,Liberation Mono,Menlo,Consolas,monospace"

BACKGROUND, FRAME, TITLE, FOREGROUND = "#16181d", "#2b2f38", "#9aa3b2", "#d7dae0"

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
class Window:
    """A screen and what stands above it."""

    title: str
    screen: pyte.Screen


def draw(windows: Sequence[Window], description: str) -> str:
    """The picture of the windows."""
    x = 0.0
    drawn = []
    for window in windows:
        drawn.append(f'<g transform="translate({x:.1f},0)">{_window(window)}</g>')
        x += _width(window) + GAP
    width, height = x - GAP, max(_height(window) for window in windows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="{FONTS}" font-size="{FONT_SIZE}" role="img" '
        f'aria-label="{escape(description)}">\n'
        f"<title>{escape(description)}</title>\n"
        "<style>text{white-space:pre}</style>\n" + "\n".join(drawn) + "\n</svg>\n"
    )


def _width(window: Window) -> float:
    return window.screen.columns * CELL_WIDTH + 2 * MARGIN


def _height(window: Window) -> float:
    return window.screen.lines * CELL_HEIGHT + TITLE_HEIGHT + MARGIN


def _window(window: Window) -> str:
    width, height = _width(window), _height(window)
    parts = [
        f'<rect width="{width:.1f}" height="{height:.1f}" rx="8" fill="{BACKGROUND}" stroke="{FRAME}"/>',
        f'<text x="{width / 2:.1f}" y="22" fill="{TITLE}" text-anchor="middle">{escape(window.title)}</text>',
        f'<line x1="0" y1="{TITLE_HEIGHT - 4}" x2="{width:.1f}" y2="{TITLE_HEIGHT - 4}" stroke="{FRAME}"/>',
    ]
    for row in range(window.screen.lines):
        y = TITLE_HEIGHT + row * CELL_HEIGHT
        parts += [_run(start, cells, y) for start, cells in _runs(window.screen, row)]
    cursor = window.screen.cursor
    if not cursor.hidden:
        x, y = MARGIN + cursor.x * CELL_WIDTH, TITLE_HEIGHT + cursor.y * CELL_HEIGHT
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{CELL_WIDTH}" height="{CELL_HEIGHT}" fill="{TITLE}"/>'
        )
    return "\n".join(parts)


def _runs(screen: pyte.Screen, row: int) -> Iterator[tuple[int, list[Char]]]:
    """Adjacent cells with the same attributes. A wide character, whose second cell is empty, is a separate run."""
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    start = 0
    while start < len(cells):
        end = start + 1
        wide = end < len(cells) and cells[end].data == ""
        if wide:
            end += 1
        else:
            while (
                end < len(cells) and _look(cells[end]) == _look(cells[start]) and not _opens_wide(cells, end)
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


def _opens_wide(cells: list[Char], column: int) -> bool:
    return column + 1 < len(cells) and cells[column + 1].data == ""


def _look(cell: Char) -> tuple[str, bool, bool]:
    return cell.fg, cell.bold, cell.reverse


def _run(start: int, cells: list[Char], y: int) -> str:
    x = MARGIN + start * CELL_WIDTH
    colour, bold, reverse = _look(cells[0])
    fill = COLOURS.get(colour, f"#{colour}")
    text = "".join(cell.data for cell in cells)
    length = len(cells) * CELL_WIDTH
    behind = ""
    if reverse:
        behind = f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{CELL_HEIGHT}" fill="{fill}"/>'
        fill = BACKGROUND
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'{behind}<text x="{x:.1f}" y="{y + FONT_SIZE}" fill="{fill}"{weight} textLength="{length:.1f}" '
        f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(text)}</text>'
    )
