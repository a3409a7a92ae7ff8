"""Patterns with captures: `MSG ${who} ${n:int}`. Pure: text in, bindings out; knows no clients.

A literal line never comes here, so nothing in it can mean anything but itself.
"""

from __future__ import annotations

import enum
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

ANONYMOUS = "_"
_CAPTURE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A capture never swallows a line end: a stray \r must be seen, not hidden inside ${x}.
_SOMETHING = r"[^\r\n]+?"
_ANYTHING = r"[^\r\n]*?"
_INT = r"-?[0-9]+"


class Kind(enum.Enum):
    """What a capture accepts."""

    TEXT = "text"
    INT = "int"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Capture:
    name: str
    kind: Kind = Kind.TEXT
    regex: str = ""

    @property
    def accepts(self) -> str:
        """The regular expression of what it stands for."""
        if self.kind is Kind.REGEX:
            return self.regex
        if self.kind is Kind.INT:
            return _INT
        return _ANYTHING if self.name == ANONYMOUS else _SOMETHING


Part = str | Capture


@dataclass(frozen=True, slots=True)
class Pattern:
    """Literal pieces and captures in turn; no piece is empty and no two literal pieces are neighbours."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        merged: list[Part] = []
        for part in self.parts:
            if part == "":
                continue
            if isinstance(part, str) and merged and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        object.__setattr__(self, "parts", tuple(merged))

    @property
    def captures(self) -> tuple[Capture, ...]:
        return tuple(part for part in self.parts if isinstance(part, Capture))


class PatternError(ValueError):
    """The text is no pattern; `column` (from 0) is where it stops being one."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column


class Unbound(LookupError):
    """A pattern to be sent uses a name that nothing has bound."""

    def __init__(self, name: str) -> None:
        super().__init__(f"${{{name}}} is not bound")
        self.name = name


def parse_pattern(text: str) -> Pattern:
    """`${x}`, `${x:int}`, `${x:/re/}`, `${_}` and `$$` -> Pattern."""
    parts: list[Part] = []
    at = 0
    while at < len(text):
        dollar = text.find("$", at)
        if dollar < 0:
            parts.append(text[at:])
            break
        parts.append(text[at:dollar])
        if text.startswith("$$", dollar):
            parts.append("$")
            at = dollar + 2
        elif text.startswith("${", dollar):
            capture, at = _parse_capture(text, dollar + 2)
            parts.append(capture)
        else:
            raise PatternError(dollar, "a lone $; expected ${name}, or $$ for a dollar")
    return Pattern(tuple(parts))


def _parse_capture(text: str, at: int) -> tuple[Capture, int]:
    found = _CAPTURE_NAME.match(text, at)
    if found is None:
        raise PatternError(at, "expected a name here: ${x}, ${x:int}, ${x:/re/} or ${_}")
    name, at = found.group(), found.end()
    if text.startswith("}", at):
        return Capture(name), at + 1
    if text.startswith(":int}", at):
        return Capture(name, Kind.INT), at + 5
    if text.startswith(":/", at):
        end = _regex_end(text, at + 2)
        regex = text[at + 2 : end].replace("\\/", "/")
        _check_regex(regex, at + 2)
        return Capture(name, Kind.REGEX, regex), end + 2
    raise PatternError(at, "expected }, :int} or :/regular expression/} here")


def _regex_end(text: str, start: int) -> int:
    at = start
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith("/}", at):
            return at
        elif text[at] == "/":
            raise PatternError(at, "a / inside the regular expression is written \\/; expected /} at its end")
        else:
            at += 1
    raise PatternError(start, "this regular expression has no end; expected /}")


def _check_regex(regex: str, column: int) -> None:
    if not regex:
        raise PatternError(column, "expected a regular expression between the slashes")
    try:
        with warnings.catch_warnings():
            # A regular expression that Python only warns about today is none tomorrow.
            warnings.simplefilter("error")
            # In a group, as it will be used: a flag for the whole expression, say, cannot stand there.
            compiled = re.compile(f"(?:{regex})")
    except re.error as wrong:
        raise PatternError(
            column + max((wrong.pos or 0) - 3, 0), f"no regular expression: {wrong.msg}"
        ) from None
    except Warning as wrong:
        raise PatternError(column, f"no regular expression: {wrong}") from None
    if compiled.groups:
        raise PatternError(column, "groups that capture have no use here; write (?:…) instead of (…)")


def render_pattern(pattern: Pattern) -> str:
    """The text that parses back to this pattern."""
    return "".join(
        part.replace("$", "$$") if isinstance(part, str) else _render_capture(part) for part in pattern.parts
    )


def _render_capture(capture: Capture) -> str:
    if capture.kind is Kind.INT:
        return f"${{{capture.name}:int}}"
    if capture.kind is Kind.REGEX:
        return f"${{{capture.name}:/{_escape_slashes(capture.regex)}/}}"
    return f"${{{capture.name}}}"


def _escape_slashes(regex: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(regex):
        step = 2 if regex[at] == "\\" else 1
        piece = regex[at : at + step]
        out.append("\\/" if piece == "/" else piece)
        at += step
    return "".join(out)


def bind(pattern: Pattern, known: Mapping[str, str]) -> Pattern:
    """The pattern with every capture whose name is known replaced by its value, literally."""
    return Pattern(
        tuple(known.get(part.name, part) if isinstance(part, Capture) else part for part in pattern.parts)
    )


def fill(pattern: Pattern, known: Mapping[str, str]) -> str:
    """The text to be sent; Unbound where a name has no value yet."""
    out: list[str] = []
    for part in pattern.parts:
        if isinstance(part, str):
            out.append(part)
        elif part.name in known:
            out.append(known[part.name])
        else:
            raise Unbound(part.name)
    return "".join(out)


def match(pattern: Pattern, text: str, known: Mapping[str, str]) -> Mapping[str, str] | None:
    """What the text binds in addition to what is known, or None when it does not match."""
    values = tuple((name, known[name]) for name in _names(pattern) if name in known)
    found = _compiled(pattern, values).fullmatch(text)
    if found is None:
        return None
    return {name.removeprefix("h_"): value for name, value in found.groupdict().items()}


def _names(pattern: Pattern) -> frozenset[str]:
    return frozenset(capture.name for capture in pattern.captures if capture.name != ANONYMOUS)


@lru_cache(maxsize=1024)
def _compiled(pattern: Pattern, known: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    values = dict(known)
    seen: set[str] = set()
    out: list[str] = []
    for part in pattern.parts:
        if isinstance(part, str):
            out.append(re.escape(part))
        elif part.name == ANONYMOUS:
            out.append(f"(?:{part.accepts})")
        elif part.name in values:
            # A known value must still be what this capture accepts: ${x:int} says so in every place.
            matches = part.kind is Kind.TEXT or re.fullmatch(part.accepts, values[part.name])
            out.append(re.escape(values[part.name]) if matches else r"(?!)")
        elif part.name in seen:
            out.append(f"(?P=h_{part.name})")
        else:
            seen.add(part.name)
            out.append(f"(?P<h_{part.name}>{part.accepts})")
    return re.compile("".join(out))
