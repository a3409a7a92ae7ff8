"""Styles and themes: words such as `bold yellow` to the parameters of an SGR sequence. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from geventchat.client.options import InvalidOption

_ATTRIBUTES = {"bold": "1", "faint": "2", "italic": "3", "underline": "4", "reverse": "7"}
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_RGB = re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})")
_COLOUR_PARAMETERS = re.compile(r"(?:[34]8;5;\d+|[34]8;2;\d+;\d+;\d+|9[0-7]|10[0-7]|[34][0-7])")

# What each theme says of a role; what it leaves out is shown plainly. `names` has several, and each name keeps one of them.
_DARK = {
    "time": "faint",
    "own": "bold",
    "notice": "faint",
    "joined": "faint",
    "pending": "faint",
    "topic": "faint",
    "error": "red",
    "offline": "red",
    "success": "bold",
    "people": "bold",
    "announcement": "bold yellow",
    "direct": "magenta",
    "mention": "bold yellow",
    "bold": "bold",
    "code": "cyan",
    "bar": "faint",
    "quote": "faint",
    "link": "underline",
    "marker": "yellow",
    "day": "faint",
    "question": "bold yellow",
    "status": "reverse",
    "current": "reverse bold",
    "unread": "reverse bold",
    "alert": "bold white on-red",
    "names": "bright-blue, green, cyan, yellow, bright-green, bright-cyan",
}
_THEMES: dict[str, dict[str, str]] = {
    "dark": _DARK,
    "light": {
        **_DARK,
        "announcement": "bold magenta",
        "mention": "bold red",
        "code": "blue",
        "marker": "red",
        "question": "bold red",
        "names": "blue, green, magenta, red, bright-blue, bright-magenta",
    },
    "contrast": {
        "own": "bold",
        "error": "bold red",
        "offline": "bold red",
        "success": "bold",
        "people": "bold",
        "announcement": "bold reverse",
        "direct": "bold magenta",
        "mention": "bold reverse",
        "bold": "bold",
        "code": "bold cyan",
        "link": "underline",
        "marker": "bold",
        "question": "bold reverse",
        "status": "reverse",
        "current": "reverse bold underline",
        "unread": "reverse bold",
        "alert": "bold white on-red",
        "names": "bold",
    },
    "mono": {
        "time": "faint",
        "own": "bold",
        "notice": "faint",
        "joined": "faint",
        "pending": "faint",
        "topic": "faint",
        "error": "bold",
        "offline": "bold",
        "success": "bold",
        "people": "bold",
        "announcement": "bold",
        "direct": "italic",
        "mention": "bold",
        "bold": "bold",
        "bar": "faint",
        "quote": "faint",
        "link": "underline",
        "marker": "bold",
        "day": "faint",
        "question": "bold",
        "names": "bold",
        "status": "reverse",
        "current": "reverse bold",
        "unread": "reverse bold",
        "alert": "reverse bold underline",
    },
}
ROLES = tuple(_DARK)


def styles_of(theme: str, changes: Mapping[str, str], *, colour: bool) -> dict[str, str]:
    """The SGR parameters of each role. Raises InvalidOption for a role or a style that does not exist."""
    unknown = sorted(set(changes) - set(ROLES))
    if unknown:
        raise InvalidOption(f"unknown role {unknown[0]} in colours; there are: {', '.join(ROLES)}")
    words = {**dict.fromkeys(ROLES, ""), **_THEMES[theme if colour else "mono"], **changes}
    return {
        role: ",".join(
            [_without_colour(sgr) if not colour else sgr for sgr in map(parse_style, style.split(","))]
        )
        for role, style in words.items()
    }


def parse_style(style: str) -> str:
    """The SGR parameters of words such as `bold bright-yellow on-blue`. Raises InvalidOption."""
    return ";".join([_parameter(word) for word in style.lower().split()])


def _parameter(word: str) -> str:
    if word in _ATTRIBUTES:
        return _ATTRIBUTES[word]
    background = word.startswith("on-")
    name = word.removeprefix("on-")
    bright = name.startswith("bright-")
    if name.removeprefix("bright-") in _COLOURS:
        base = (100 if bright else 40) if background else (90 if bright else 30)
        return str(base + _COLOURS.index(name.removeprefix("bright-")))
    plane = "48" if background else "38"
    if rgb := _RGB.fullmatch(name):
        return ";".join([plane, "2", *[str(int(part, 16)) for part in rgb.groups()]])
    if name.isascii() and name.isdigit() and int(name[:4]) < 256:
        return f"{plane};5;{int(name)}"
    raise InvalidOption(
        f"unknown style {word!r}: use {', '.join(_ATTRIBUTES)}, {', '.join(_COLOURS)}, bright-red, on-red, #ff8800 "
        "or a number up to 255"
    )


def _without_colour(sgr: str) -> str:
    return ";".join([part for part in _COLOUR_PARAMETERS.sub("", sgr).split(";") if part])
