"""An adapter: how one server differs from a suite on purpose, as a file of `key: value` lines.

    eol: crlf
    fence: /ping -> pong
    greets: Welcome to chat
    sends: LOGIN ${name} => /nick ${name}
    receives: You are now known as ${_} => OK
    ignore: * ${_} is now away

A suite says what its authors meant; an adapter translates it, line by line, and never decides whether a server is right. The
settings are those of a script's header and replace its own; `ignore` is that of a header, in the words of the server. Pure
but for reading the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from harness.language.escapes import parse_bytes, render_bytes, unescape
from harness.language.fences import Fence
from harness.language.forms import header_line
from harness.language.patterns import (
    ANONYMOUS,
    TOKEN,
    WILDCARD,
    Pattern,
    fill,
    match,
    parse_pattern,
    render_pattern,
)
from harness.language.problems import LineError, ScriptError, ScriptProblem, columns_from
from harness.language.steps import Ignore, Setting

_SETTINGS = ("fence", "fence-after", "unfenced", "eol", "within", "settle", "start")
_ARROW = " => "
_A_TOKEN = "f0token0f"
"""Stands for the token of a fence line while its answer is spelled."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """A line with which a connection begins, and the line of the adapter that says so."""

    pattern: Pattern
    line: int = 0

    def __str__(self) -> str:
        return f"greets: {render_pattern(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Bytes that can come before any line."""

    data: bytes
    line: int = 0

    def __str__(self) -> str:
        return f"prompts: {render_bytes(self.data)}"


@dataclass(frozen=True, slots=True)
class Spelling:
    """A line of one side, and the same of the other."""

    pattern: Pattern
    becomes: Pattern
    sent: bool
    """Whether clients send it; the server does otherwise."""
    line: int = 0

    def __str__(self) -> str:
        key = "sends" if self.sent else "receives"
        return f"{key}: {render_pattern(self.pattern)}{_ARROW}{render_pattern(self.becomes)}"

    def of(self, line: str) -> str | None:
        """The line in the words of the other side; None if it is another line."""
        bound = match(self.pattern, line, {})
        return None if bound is None else fill(self.becomes, bound)


@dataclass(frozen=True, slots=True)
class Adapter:
    """Everything about one server; patterns are in its own words, but for the left side of `sends`."""

    file: str = ""
    settings: tuple[Setting, ...] = ()
    features: frozenset[str] = frozenset()
    greets: tuple[Greeting, ...] = ()
    """The first lines of each connection, in order; they are removed."""
    prompts: tuple[Prompt, ...] = ()
    sends: tuple[Spelling, ...] = ()
    receives: tuple[Spelling, ...] = ()
    ignore: tuple[Ignore, ...] = ()

    @property
    def fence(self) -> Fence | None:
        return next((one for one in self.settings if isinstance(one, Fence)), None)


def respelled(spellings: Iterable[Spelling], line: str) -> tuple[str, Spelling | None]:
    """The line in the words of the first spelling that it has, or as it is."""
    for spelling in spellings:
        other = spelling.of(line)
        if other is not None:
            return other, spelling
    return line, None


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
                raise LineError(0, "not a key and its value", f"KEY: VALUE, with one of {', '.join(_KEYS)}")
            if key in seen and key.split(" ")[0] not in _LISTS:
                raise LineError(0, f"{key} is already set in line {seen[key]}", "each setting once")
            seen[key] = number
            with columns_from(len(key) + 2):
                adapter = _with(adapter, key, value, number)
        except LineError as wrong:
            problem = ScriptProblem(file, number, wrong.column + 1, wrong.message, wrong.expected, line)
            raise ScriptError(problem) from None
    return _with_spelled_fence(adapter, seen, text.splitlines())


_LISTS = ("greets", "prompts", "sends", "receives", "ignore")
_KEYS = (*_SETTINGS, "features", *_LISTS)


def _with(adapter: Adapter, key: str, value: str, number: int) -> Adapter:
    match key:
        case "features":
            return replace(adapter, features=frozenset(value.split()))
        case "greets":
            return replace(adapter, greets=(*adapter.greets, Greeting(parse_pattern(value), number)))
        case "prompts":
            return replace(adapter, prompts=(*adapter.prompts, Prompt(parse_bytes(value), number)))
        case "sends":
            return replace(adapter, sends=(*adapter.sends, _read_spelling(value, True, number)))
        case "receives":
            return replace(adapter, receives=(*adapter.receives, _read_spelling(value, False, number)))
        case _ if key in _SETTINGS or key.split(" ")[0] == "ignore":
            with columns_from(-len(key) - 2):
                setting = header_line(f"{key}: {value}", number)
            if isinstance(setting, Ignore):
                return replace(adapter, ignore=(*adapter.ignore, setting))
            return replace(adapter, settings=(*adapter.settings, setting))
        case _:
            near = get_close_matches(key, _KEYS, n=1)
            expected = f"perhaps {near[0]}" if near else ", ".join(_KEYS)
            raise LineError(-len(key) - 2, f"unknown key {key!r}", expected)


def _read_spelling(value: str, sent: bool, number: int) -> Spelling:
    left, arrow, right = value.partition(_ARROW)
    if not arrow or not left or not right:
        raise LineError(0, "only one spelling", "a line, => and the same line in other words")
    pattern = parse_pattern(left)
    known = {capture.name for capture in pattern.captures} - {ANONYMOUS}
    with columns_from(len(left) + len(_ARROW)):
        becomes = parse_pattern(right)
        for capture in becomes.captures:
            if capture.name not in known:
                raise LineError(0, f"${{{capture.name}}} is not bound on the left", "a name of the left side")
    return Spelling(pattern, becomes, sent, number)


def _with_spelled_fence(adapter: Adapter, lines: Mapping[str, int], source: list[str]) -> Adapter:
    """The adapter whose fence knows how its answers are spelled for a script; an answer that is ignored would never come."""
    fence = adapter.fence
    if fence is None:
        return adapter
    spelled = []
    for answer in fence.replies:
        line = unescape(answer.replace(TOKEN, _A_TOKEN)).decode("utf-8", "replace").rstrip("\r\n")
        ignored = any(match(one.pattern, line, {}) is not None for one in adapter.ignore)
        other, spelling = respelled(adapter.receives, line)
        if ignored or (spelling and (WILDCARD in answer or answer.count(TOKEN) != other.count(_A_TOKEN))):
            number = lines["fence"]
            raise ScriptError(
                ScriptProblem(
                    adapter.file,
                    number,
                    1,
                    f"the answer {answer!r} is also {'ignored' if ignored else 'spelled differently'}",
                    "an answer that `ignore` leaves alone"
                    if ignored
                    else "an answer that `receives` leaves alone, or without a ${_} and with its ${token} afterwards",
                    source[number - 1],
                )
            )
        spelled.append(_escaped(other).replace(_A_TOKEN, TOKEN) if spelling else answer)
    changed = replace(fence, spelled=tuple(spelled))
    return replace(adapter, settings=tuple(changed if one is fence else one for one in adapter.settings))


def _escaped(line: str) -> str:
    return line.replace("\\", "\\\\")
