"""An adapter: how one server differs from a suite on purpose, as a file of `key: value` lines.

    eol: crlf
    fence: /ping -> pong
    greets: Welcome to chat
    sends: LOGIN ${name} => /nick ${name}
    receives: You are now known as ${_} => OK
    ignores: * ${_} is now away

A suite says what its authors meant; an adapter translates it, line by line, and never decides whether a server is right. The
settings are those of a script's header and replace its own. Pure but for reading the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.language.escapes import parse_bytes, unescape
from harness.language.fences import Fence
from harness.language.forms import header_line
from harness.language.patterns import ANONYMOUS, Pattern, fill, match, parse_pattern
from harness.language.problems import LineError, ScriptError, ScriptProblem, columns_from
from harness.language.steps import Setting

_SETTINGS = ("fence", "fence-after", "unfenced", "eol", "within", "settle", "start")
_ARROW = " => "


@dataclass(frozen=True, slots=True)
class Spelling:
    """A line of one side, and the same of the other."""

    pattern: Pattern
    becomes: Pattern


@dataclass(frozen=True, slots=True)
class Adapter:
    """Everything about one server; patterns are in its own words, but for the left side of `sends`."""

    file: str = ""
    settings: tuple[Setting, ...] = ()
    features: frozenset[str] = frozenset()
    greets: tuple[Pattern, ...] = ()
    """The first lines of each connection, in order; they are removed."""
    prompts: tuple[bytes, ...] = ()
    """Bytes that can stand before any line; they are removed."""
    sends: tuple[Spelling, ...] = ()
    receives: tuple[Spelling, ...] = ()
    ignores: tuple[Pattern, ...] = ()

    @property
    def fence(self) -> Fence | None:
        return next((one for one in self.settings if isinstance(one, Fence)), None)

    def sent(self, line: str) -> str:
        """The line of a script as this server understands it."""
        return _spelled(self.sends, line)

    def received(self, line: str) -> str | None:
        """A line of this server as a script expects it; None if it is to be ignored."""
        if any(match(pattern, line, {}) is not None for pattern in self.ignores):
            return None
        return _spelled(self.receives, line)


def _spelled(spellings: tuple[Spelling, ...], line: str) -> str:
    for spelling in spellings:
        bound = match(spelling.pattern, line, {})
        if bound is not None:
            return fill(spelling.becomes, bound)
    return line


# --- reading ------------------------------------------------------------------------------------------------


def load_adapter(path: str | Path) -> Adapter:
    """The adapter in this file; ScriptError where it cannot be read or contradicts itself."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"cannot read {path}: {why}"
        raise ScriptError(ScriptProblem(str(path), 0, 0, message, "a readable file")) from None
    return parse_adapter(text, str(path))


def parse_adapter(text: str, file: str = "<adapter>") -> Adapter:
    """The adapter that this text describes."""
    adapter, seen = Adapter(file), dict[str, int]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            key, colon, value = line.partition(": ")
            if not colon or not value.strip():
                raise LineError(0, "this says nothing", f"`KEY: VALUE` with one of {', '.join(_KEYS)}")
            if key in seen and key not in _LISTS:
                raise LineError(0, f"{key} is already set in line {seen[key]}", "each setting once")
            seen[key] = number
            with columns_from(len(key) + 2):
                adapter = _with(adapter, key, value, number)
        except LineError as wrong:
            problem = ScriptProblem(file, number, wrong.column + 1, wrong.message, wrong.expected, line)
            raise ScriptError(problem) from None
    _check_fence(adapter, seen, text.splitlines())
    return adapter


_LISTS = ("greets", "prompts", "sends", "receives", "ignores")
_KEYS = (*_SETTINGS, "features", *_LISTS)


def _with(adapter: Adapter, key: str, value: str, number: int) -> Adapter:
    match key:
        case "features":
            return replace(adapter, features=frozenset(value.split()))
        case "greets":
            return replace(adapter, greets=(*adapter.greets, parse_pattern(value)))
        case "prompts":
            return replace(adapter, prompts=(*adapter.prompts, parse_bytes(value)))
        case "sends":
            return replace(adapter, sends=(*adapter.sends, _read_spelling(value)))
        case "receives":
            return replace(adapter, receives=(*adapter.receives, _read_spelling(value)))
        case "ignores":
            return replace(adapter, ignores=(*adapter.ignores, parse_pattern(value)))
        case _ if key in _SETTINGS:
            with columns_from(-len(key) - 2):
                setting = header_line(f"{key}: {value}", number)
            return replace(adapter, settings=(*adapter.settings, setting))
        case _:
            raise LineError(-len(key) - 2, f"unknown key {key!r}", ", ".join(_KEYS))


def _read_spelling(value: str) -> Spelling:
    left, arrow, right = value.partition(_ARROW)
    if not arrow or not left or not right:
        raise LineError(0, "one spelling and not two", "a line, => and the same line in other words")
    pattern = parse_pattern(left)
    known = {capture.name for capture in pattern.captures} - {ANONYMOUS}
    with columns_from(len(left) + len(_ARROW)):
        becomes = parse_pattern(right)
        for capture in becomes.captures:
            if capture.name not in known:
                raise LineError(0, f"${{{capture.name}}} is not bound on the left", "a name of the left side")
    return Spelling(pattern, becomes)


def _check_fence(adapter: Adapter, lines: Mapping[str, int], source: list[str]) -> None:
    """An answer that is changed or ignored would never come."""
    for answer in adapter.fence.replies if adapter.fence else ():
        line = unescape(answer.replace("${token}", "f1")).decode("utf-8", "replace").rstrip("\r\n")
        if adapter.received(line) != line:
            number = lines["fence"]
            raise ScriptError(
                ScriptProblem(
                    adapter.file,
                    number,
                    1,
                    f"the answer {answer!r} is also spelled differently or ignored",
                    "an answer that `receives` and `ignores` leave alone",
                    source[number - 1],
                )
            )
