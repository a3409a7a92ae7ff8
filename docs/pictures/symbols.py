"""The symbols that the terminal client prints, drawn: not every machine has a font for them. Each fills a square of 16."""

from __future__ import annotations

GREEN, RED, YELLOW, BLUE, SKIN, GREY, WHITE = (
    "#5fb760",
    "#e5534b",
    "#f2cc60",
    "#79b8ff",
    "#f0c48a",
    "#9aa3b2",
    "#ffffff",
)


def _stroke(path: str, colour: str, width: float = 2) -> str:
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}" stroke-linecap="round" '
        'stroke-linejoin="round"/>'
    )


def _fill(path: str, colour: str) -> str:
    return f'<path d="{path}" fill="{colour}"/>'


def _circle(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"/>'


def _box(x: float, y: float, width: float, height: float, round_: float, colour: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_:g}" fill="{colour}"/>'
    )


_FINGERS = "M5.2 10V5.4M7.4 9V3.6M9.6 9V4M11.8 9.5V5.6"

SYMBOLS = {
    "🟢": _circle(8, 8, 5, GREEN),
    "🔴": _circle(8, 8, 5, RED),
    "👥": _circle(11, 5.6, 2.4, GREY)
    + _fill("M6.8 13c0-3 1.8-4.4 4.2-4.4s4.4 1.4 4.4 4.4z", GREY)
    + _circle(6, 6, 2.9, BLUE)
    + _fill("M.8 14c0-3.4 2.3-4.8 5.2-4.8s5.2 1.4 5.2 4.8z", BLUE),
    "✅": _box(2, 2, 12, 12, 2.5, GREEN) + _stroke("M5 8.3 7.1 10.5 11.2 5.6", WHITE, 1.8),
    "❌": _stroke("M4 4l8 8M12 4l-8 8", RED, 2.4),
    "💡": _circle(8, 6.4, 4.4, YELLOW)
    + _box(6, 10.2, 4, 2, 0.6, YELLOW)
    + _box(6.4, 12.6, 3.2, 1.6, 0.8, GREY),
    "👋": _stroke(_FINGERS, SKIN, 1.9)
    + _fill("M4.3 8.6h8.4v1.8c0 2.6-1.7 4.2-4.2 4.2-2.3 0-3.4-1-4.2-3z", SKIN)
    + _stroke("M4.8 11.4 2.6 8.8", SKIN, 1.9),
    "🏓": _circle(6.8, 6.4, 4.4, RED) + _stroke("M10 9.6 13 12.6", SKIN, 2.2) + _circle(13.4, 4, 1.4, WHITE),
    "🔌": _stroke("M5.2 2.6v3M9 2.6v3", GREY, 1.6)
    + _box(3.2, 5.4, 7.8, 4.4, 1.5, GREY)
    + _stroke("M7.1 9.8v1.8c0 1.6 1 2.4 2.6 2.4h3.3", GREY, 1.6),
}


class NotDrawn(Exception):
    """There is no drawing of a symbol."""


def is_symbol(text: str) -> bool:
    """True for a character that only fonts of symbols have."""
    return text[:1] >= "\U0001f000" or "\u2600" <= text[:1] <= "\u27bf"


def symbol(text: str, x: float, y: float, size: float) -> str:
    """The symbol in a square of this size."""
    try:
        shape = SYMBOLS[text.rstrip("\ufe0f")]
    except KeyError:
        raise NotDrawn(
            f"{text!r} (U+{ord(text[0]):04X}) is not in docs/pictures/symbols.py: draw it there"
        ) from None
    return f'<g transform="translate({x:.1f},{y:.1f}) scale({size / 16:.3f})">{shape}</g>'
