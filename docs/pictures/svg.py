"""Panels -> one SVG, in rows. Knows the emulator's cells and nothing of what runs in them.

A panel is a title and something that is drawn below it: `terminal` makes one of a screen, `page` of a picture of a browser,
and `film` of several that follow each other.
"""

from __future__ import annotations

import base64
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
# Darker behind a text, so that it can be read.
COLOURS_BEHIND = {**COLOURS, "red": "#b3363f"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A drawing with a title above it: elements, one on each line, with their origin below the title, at the left edge."""

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
        if screen.buffer[row][screen.columns - 1].data.strip(" ─"):
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


def film(frames: Sequence[Panel], seconds: Sequence[float]) -> Panel:
    """A panel that shows these again and again, each for its time. What stays on the screen is drawn once.

    A reader who wants no motion sees the last one.
    """
    shown: dict[str, list[int]] = {}
    for number, frame in enumerate(frames):
        for element in frame.drawing.split("\n"):
            shown.setdefault(element, []).append(number)
    together: dict[tuple[int, ...], list[str]] = {}
    for element, numbers in shown.items():
        together.setdefault(tuple(dict.fromkeys(numbers)), []).append(element)
    parts = []
    for visible, elements in together.items():
        if len(visible) == len(frames):
            parts += elements
        else:
            name = "f" + "-".join(map(str, visible))
            parts += [_style(name, visible, seconds), f'<g class="{name}">', *elements, "</g>"]
    return Panel(frames[-1].title, frames[-1].width, max(one.height for one in frames), "\n".join(parts))


def _style(name: str, visible: Sequence[int], seconds: Sequence[float]) -> str:
    """When something is visible."""
    total, at, steps = sum(seconds), 0.0, []
    for number, length in enumerate(seconds):
        if number == 0 or (number in visible) is not (number - 1 in visible):
            steps.append(f"{100 * at / total:.2f}%{{visibility:{_visibility(number in visible)}}}")
        at += length
    return (
        f"<style>.{name}{{visibility:{_visibility(len(seconds) - 1 in visible)}}}@keyframes {name}{{{''.join(steps)}}}"
        f"@media(prefers-reduced-motion:no-preference){{.{name}{{animation:{name} {total:g}s step-end infinite}}}}</style>"
    )


def _visibility(on: bool) -> str:
    return "visible" if on else "hidden"


def page(title: str, image: bytes, width: float, height: float) -> Panel:
    """A page in a browser, of this size; the image, PNG or WebP, can have more pixels."""
    kind = "webp" if image.startswith(b"RIFF") else "png"
    data = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    inside = f'width="{width - 2:g}" height="{height - 6:g}" preserveAspectRatio="xMidYMin slice"'
    return Panel(title, width, height, f'<image x="1" y="-3" {inside} href="{data}"/>')


def rows(panels: Sequence[Sequence[Panel]], description: str) -> str:
    """The panels, in rows of the same width."""
    width = max(sum(panel.width + GAP for panel in row) - GAP for row in panels)
    y, drawn = 0.0, []
    for row in panels:
        height = max(panel.height for panel in row)
        x = 0.0
        for panel in row:
            # The last one reaches the edge.
            reach = width - x if panel is row[-1] else panel.width
            drawn.append(_placed(panel, x, y, reach, height))
            x += panel.width + GAP
        y += height + TITLE_HEIGHT + GAP
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
        if any(cell.data.strip() for cell in cells[start:end]) or _look(cells[start])[1]:
            yield start, _without_trailing_blanks(cells[start:end])
        start = end


def _without_trailing_blanks(cells: list[Char]) -> list[Char]:
    end = len(cells)
    while end > 1 and cells[end - 1].data == " " and not _look(cells[end - 1])[1]:
        end -= 1
    return cells[:end]


def _is_wide(cells: list[Char], column: int) -> bool:
    return column + 1 < len(cells) and cells[column + 1].data == ""


def _look(cell: Char) -> tuple[str, str, bool, bool]:
    """The colours of the letter and of what is behind it, and whether it is bold and underlined."""
    colour, behind = COLOURS.get(cell.fg, f"#{cell.fg}"), ""
    if cell.bg != "default":
        behind = COLOURS_BEHIND.get(cell.bg, f"#{cell.bg}")
    if cell.reverse:
        colour, behind = behind or BACKGROUND, colour
    return colour, behind, cell.bold, cell.underscore


def _run(start: int, cells: list[Char], y: float) -> str:
    x = MARGIN + start * CELL_WIDTH
    fill, colour_behind, bold, underlined = _look(cells[0])
    text = "".join(cell.data for cell in cells)
    length = len(cells) * CELL_WIDTH
    if is_symbol(text):
        return symbol(text, x, y + 1, min(length, FONT_SIZE + 1))
    behind = ""
    if colour_behind:
        behind = (
            f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{CELL_HEIGHT}" fill="{colour_behind}"/>'
        )
    weight = (' font-weight="bold"' if bold else "") + (' text-decoration="underline"' if underlined else "")
    return (
        f'{behind}<text x="{x:.1f}" y="{y + FONT_SIZE}" fill="{fill}"{weight} textLength="{length:.1f}" '
        f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(text)}</text>'
    )
