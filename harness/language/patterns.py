"""Patterns with captures: `MSG ${who} ${n:int}`. Pure: text in, bindings out.

- A literal line is never a pattern, so nothing in it has a special meaning.
- A capture never matches a line end: a stray carriage return stays visible.
- A name is bound once; where it is already bound, only its value matches, and it has to satisfy the capture there as well.
- The time of a comparison is not a power of the length of the line, which a server decides, unless the pattern has regular
  expressions, names in several places, or numbers right before another capture.
"""

from __future__ import annotations

import enum
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.language.problems import LineError

ANONYMOUS = "_"
_CAPTURE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SOMETHING = r"[^\r\n]+?"
_ANYTHING = r"[^\r\n]*?"
_DIGITS = "0123456789"
_INT = rf"-?[{_DIGITS}]+"
_NAMED = "h_"
"""Before the name of a capture, as the name of its group."""
_NOTHING = re.compile(r"(?!)")


class Kind(enum.Enum):
    """The kinds of captures."""

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
        """The regular expression of the text that it matches."""
        if self.kind is Kind.REGEX:
            return self.regex
        if self.kind is Kind.INT:
            return _INT
        return _ANYTHING if self.name == ANONYMOUS else _SOMETHING


Part = str | Capture


@dataclass(frozen=True, slots=True)
class Pattern:
    """Literal pieces and captures; adjacent literal pieces are merged and empty ones dropped."""

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


class UnboundName(LookupError):
    """A pattern to be sent uses a name that nothing has bound."""

    def __init__(self, name: str) -> None:
        super().__init__(f"${{{name}}} is not bound")
        self.name = name


def parse_pattern(text: str) -> Pattern:
    """Parse `${x}`, `${x:int}`, `${x:/re/}`, `${_}`, `$$` and literal text."""
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
            raise _error(dollar, "a lone $; expected ${name}, or $$ for a dollar")
    return Pattern(tuple(parts))


def _error(column: int, message: str) -> LineError:
    return LineError(column, message, "${x}, ${x:int}, ${x:/re/}, ${_}, $$ or literal text")


def _parse_capture(text: str, at: int) -> tuple[Capture, int]:
    found = _CAPTURE_NAME.match(text, at)
    if found is None:
        raise _error(at, "expected a name here: ${x}, ${x:int}, ${x:/re/} or ${_}")
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
    raise _error(at, "expected }, :int} or :/regular expression/} here")


def _regex_end(text: str, start: int) -> int:
    at = start
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith("/}", at):
            return at
        elif text[at] == "/":
            raise _error(at, "a / inside the regular expression is written \\/; expected /} at its end")
        else:
            at += 1
    raise _error(start, "unterminated regular expression; expected /}")


def _check_regex(regex: str, column: int) -> None:
    if not regex:
        raise _error(column, "expected a regular expression between the slashes")
    try:
        with warnings.catch_warnings():
            # Python warns today about what a later version will reject.
            warnings.simplefilter("error")
            # In a group, as in the compiled pattern: a flag for the whole expression cannot stand there.
            compiled = re.compile(f"(?:{regex})")
    except re.error as wrong:
        raise _error(
            column + max((wrong.pos or 0) - 3, 0), f"invalid regular expression: {wrong.msg}"
        ) from None
    except RecursionError:
        raise _error(column, "invalid regular expression: too deeply nested") from None
    except (Warning, OverflowError) as wrong:
        what, _, at = str(wrong).partition(" at position ")
        raise _error(column + max(int(at or 0) - 3, 0), f"invalid regular expression: {what}") from None
    if compiled.groups:
        raise _error(column, "capturing groups are not supported; write (?:…) instead of (…)")


def render_pattern(pattern: Pattern) -> str:
    """The text that parses back to this pattern."""
    return "".join(
        part.replace("$", "$$") if isinstance(part, str) else _render_capture(part) for part in pattern.parts
    )


def _render_capture(capture: Capture) -> str:
    match capture.kind:
        case Kind.TEXT:
            return f"${{{capture.name}}}"
        case Kind.INT:
            return f"${{{capture.name}:int}}"
        case Kind.REGEX:
            regex = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], capture.regex)
            return f"${{{capture.name}:/{regex}/}}"


def bind(pattern: Pattern, known: Mapping[str, str]) -> Pattern:
    """Replace every capture whose name is known by its value, literally."""
    return Pattern(
        tuple(known.get(part.name, part) if isinstance(part, Capture) else part for part in pattern.parts)
    )


def fill(pattern: Pattern, known: Mapping[str, str]) -> str:
    """The text to send; UnboundName where a name has no value yet."""
    out: list[str] = []
    for part in pattern.parts:
        if isinstance(part, str):
            out.append(part)
        elif part.name in known:
            out.append(known[part.name])
        else:
            raise UnboundName(part.name)
    return "".join(out)


def match(pattern: Pattern, text: str, known: Mapping[str, str]) -> Mapping[str, str] | None:
    """The bindings that the text adds to the known ones, or None where it does not match."""
    values = tuple((name, known[name]) for name in _names(pattern) if name in known)
    found = _compiled(pattern, values).fullmatch(text)
    if found is None:
        return None
    groups = found.groupdict().items()
    return {name.removeprefix(_NAMED): value for name, value in groups if name.startswith(_NAMED)}


def _names(pattern: Pattern) -> frozenset[str]:
    return frozenset(capture.name for capture in pattern.captures if capture.name != ANONYMOUS)


@lru_cache(maxsize=1024)
def _compiled(pattern: Pattern, known: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    values = dict(known)
    literal = dict(values)
    for capture in pattern.captures:
        if capture.name not in values:
            continue
        # A bound value must also satisfy this capture: `${x:int}` holds in every place.
        if capture.kind is Kind.INT and not re.fullmatch(capture.accepts, values[capture.name]):
            return _NOTHING
        if capture.kind is Kind.REGEX:
            # Whether a value satisfies it can depend on the text around the value.
            literal.pop(capture.name, None)
    parts = bind(pattern, literal).parts
    often = Counter(part.name for part in parts if isinstance(part, Capture) and part.name != ANONYMOUS)
    named: set[str] = set()
    out: list[str] = []
    for at, part in enumerate(parts):
        if isinstance(part, str):
            out.append(re.escape(part))
        elif part.name == ANONYMOUS:
            out.append(f"(?:{part.accepts})")
        elif part.name in values:
            out.append(_again(re.escape(values[part.name]), part, at))
        elif part.name not in named:
            named.add(part.name)
            out.append(f"(?P<{_NAMED}{part.name}>{part.accepts})")
        else:
            out.append(_again(f"(?P={_NAMED}{part.name})", part, at))
    return re.compile("".join(_decided(parts, often, out)))


def _again(value: str, capture: Capture, at: int) -> str:
    """A regular expression for this value where it also satisfies the capture. What a regular expression accepts has to end
    where the value does: with the same rest of the line after it."""
    if capture.kind is Kind.TEXT:
        return value
    return rf"(?={value}(?P<rest_{at}>(?s:.*)))(?:{capture.accepts})(?=(?P=rest_{at})\Z)"


def _decided(parts: Sequence[Part], often: Mapping[str, int], expressions: Sequence[str]) -> Iterator[str]:
    """The expressions of these parts. A capture of any text ends for good where what follows it comes first, if another one
    begins behind that: the second one can take what is left, so every line that matches still does."""
    at = 0
    while at < len(parts):
        end = at + 1
        while end < len(parts) and _has_one_end(parts, end, often):
            end += 1
        decided = _is_any_text(parts[at], often) and end < len(parts) and _is_any_text(parts[end], often)
        if not decided:
            end = at + 1
        expression = "".join(expressions[at:end])
        yield _for_good(f"to_{at}", expression) if decided else expression
        at = end


def _is_any_text(part: Part, often: Mapping[str, int]) -> bool:
    return isinstance(part, Capture) and part.kind is Kind.TEXT and often[part.name] < 2


def _has_one_end(parts: Sequence[Part], at: int, often: Mapping[str, int]) -> bool:
    """Whether the place where this part begins decides where it ends, and an earlier beginning never means a later end."""
    part = parts[at]
    if isinstance(part, str):
        return "\r" not in part and "\n" not in part
    following = parts[at + 1] if at + 1 < len(parts) else None
    alone = isinstance(following, str) and following[0] not in _DIGITS
    return part.kind is Kind.INT and often[part.name] < 2 and alone


def _for_good(name: str, expression: str) -> str:
    """A regular expression whose first way to match is the only one: an atomic group, which Python 3.10 does not have."""
    return f"(?=(?P<{name}>{expression}))(?P={name})"


# --- answers to fence lines ---------------------------------------------------------------------------------

TOKEN = "${token}"
"""In a fence line and its answers: a word that is new each time."""

WILDCARD = "${_}"
"""In an answer to a fence line: anything up to the end of the line."""

_ANY_RUN, _INT_RUN = "any", "int"


def could_match(pattern: Pattern, answer: str) -> bool:
    """Whether a line exists that matches both the pattern and an answer with wildcards. A capture by a regular expression
    counts as one that matches anything."""
    ours = _runs(pattern.parts)
    theirs = _runs(
        tuple(
            Capture(ANONYMOUS) if at % 2 else text for at, text in enumerate(_split_around(answer, WILDCARD))
        )
    )
    todo, seen = [(0, 0)], set[tuple[int, int]]()
    while todo:
        i, j = todo.pop()
        if (i, j) in seen:
            continue
        seen.add((i, j))
        if i == len(ours) and j == len(theirs):
            return True
        one = ours[i] if i < len(ours) else ""
        other = theirs[j] if j < len(theirs) else ""
        if _is_run(one):
            todo.append((i + 1, j))
            if other and not _is_run(other) and _takes(one, other):
                todo.append((i, j + 1))
        if _is_run(other):
            todo.append((i, j + 1))
            if one and not _is_run(one) and _takes(other, one):
                todo.append((i + 1, j))
        if one and one == other and not _is_run(one):
            todo.append((i + 1, j + 1))
    return False


def _split_around(text: str, word: str) -> list[str]:
    out: list[str] = []
    for piece in text.split(word):
        out += [piece, word]
    return out[:-1]


def _runs(parts: tuple[Part, ...]) -> list[str]:
    """Single characters, and the names of runs of characters."""
    out: list[str] = []
    for part in parts:
        if isinstance(part, str):
            out.extend(part)
        else:
            out.append(_INT_RUN if part.kind is Kind.INT else _ANY_RUN)
    return out


def _is_run(token: str) -> bool:
    return len(token) > 1


def _takes(run: str, char: str) -> bool:
    return char in "-0123456789" if run == _INT_RUN else char not in "\r\n"
