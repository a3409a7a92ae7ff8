"""The header's lines, `key: value` -> setting, and durations as the language writes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.language.problems import LineError
from harness.language.steps import Eol, FenceLine, LineEnd, Needs, Server, Setting, Title, Within, is_literal

_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>us|ms|s|m|h)")
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_WORD = re.compile(r"[A-Za-z0-9_.-]+")


def header_line(text: str, number: int) -> Setting:
    """The setting of one `key: value` line."""
    key, _, value = text.partition(":")
    reader = _SETTINGS.get(key)
    if reader is None:
        raise LineError(0, f"no header is called {key!r}", ", ".join(f"{known}:" for known in _SETTINGS))
    if not value.startswith(" ") or value[1:2] in ("", " "):
        raise LineError(len(key) + 1, "no value", f"one space, then the value: {key}: …")
    if not is_literal(value):
        raise LineError(
            len(key) + 1, "a control character, or white space at the end of the line", "visible text"
        )
    return reader(value[1:], len(key) + 2, number)


def parse_duration(text: str, column: int) -> int:
    """`60s`, `1.5s`, `200ms`, `2m` -> microseconds."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise LineError(
            column, f"{text!r} is no duration", "a number and its unit: 60s, 1.5s, 200ms, 2m, 1h, 50us"
        )
    whole, _, fraction = found["number"].partition(".")
    unit = _UNITS[found["unit"]]
    # In integers: 59.999 s as a float is not 59 seconds and 999 milliseconds.
    scaled: int = int(whole + fraction) * unit
    size: int = 10 ** len(fraction)
    microseconds, lost = divmod(scaled, size)
    if lost:
        raise LineError(column, f"{text!r} is finer than a microsecond", "whole microseconds")
    return microseconds


def render_duration(microseconds: int) -> str:
    """The shortest way to write so many microseconds in s, ms or us."""
    if microseconds % 1_000 or 0 < microseconds < 1_000:
        unit, size = ("us", 1) if microseconds < 1_000 else ("ms", 1_000)
    else:
        unit, size = ("ms", 1_000) if 0 < microseconds < 1_000_000 else ("s", 1_000_000)
    whole, rest = divmod(microseconds, size)
    fraction = f".{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}{fraction}{unit}"


def _title(value: str, column: int, number: int) -> Setting:
    return Title(value, line=number)


def _server(value: str, column: int, number: int) -> Setting:
    endpoints: list[str] = []
    options: dict[str, str] = {}
    for word in value.split():
        at = column + value.index(word)
        key, equals, setting = word.partition("=")
        if not _WORD.fullmatch(key) or (equals and not setting):
            raise LineError(at, f"{word!r} is neither an endpoint nor an option", "a word, or key=value")
        if key in options or (not equals and key in endpoints):
            raise LineError(at, f"{key} twice", "each endpoint and each option once")
        if equals:
            options[key] = setting
        else:
            endpoints.append(key)
    return Server(tuple(endpoints), options, line=number)


def _needs(value: str, column: int, number: int) -> Setting:
    words = value.split()
    for word in words:
        if not _WORD.fullmatch(word):
            raise LineError(
                column + value.index(word), f"{word!r} is no feature", "words: virtual-time in-process"
            )
    return Needs(tuple(words), line=number)


def _fence(value: str, column: int, number: int) -> Setting:
    question, arrow, answers = value.partition(" -> ")
    choices = tuple(answers.split(" | "))
    if not arrow or not question or not all(choice and choice == choice.strip() for choice in choices):
        raise LineError(
            column,
            "a line without its answer",
            "fence: PING -> PONG   or   fence: PING -> PONG | ERR login first",
        )
    return FenceLine(question, choices, line=number)


def _eol(value: str, column: int, number: int) -> Setting:
    try:
        return LineEnd(Eol(value), line=number)
    except ValueError:
        raise LineError(column, f"{value!r} ends no line", "lf or crlf") from None


def _within(value: str, column: int, number: int) -> Setting:
    microseconds = parse_duration(value, column)
    if microseconds == 0:
        raise LineError(column, "no time at all", "a duration above zero")
    return Within(microseconds, line=number)


_SETTINGS: dict[str, Callable[[str, int, int], Setting]] = {
    "title": _title,
    "server": _server,
    "needs": _needs,
    "fence": _fence,
    "eol": _eol,
    "within": _within,
}
