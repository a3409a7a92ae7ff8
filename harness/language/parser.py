"""Text -> Script: lines, indentation and blocks. What one line says is in sentences.py. Reads no files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, cast

from harness.language.problems import ScriptError
from harness.language.step_forms import (
    AnyOrderHead,
    DefineHead,
    LineError,
    RepeatHead,
    Sentence,
    TogetherHead,
    header_line,
    sentence,
)
from harness.language.steps import (
    RECEIVING,
    SENDING,
    AnyOrder,
    AnyOrderItem,
    Blank,
    Call,
    Comment,
    Define,
    Include,
    Item,
    Layout,
    Repeat,
    Script,
    Setting,
    Step,
    Together,
    TogetherItem,
)

# What a block refuses: (what stands there, what was expected), or None where the step is welcome.
_Admits = Callable[[Sentence], tuple[str, str] | None]

_HEADER = re.compile(r"([a-z][a-z_-]*):(?!$)")


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    indent: int
    text: str

    @property
    def blank(self) -> bool:
        return not self.text

    @property
    def layout(self) -> bool:
        return not self.text or self.text.startswith("#")


def parse(text: str, file: str = "<script>") -> Script:
    """The Script that the text says; ScriptError where it breaks the language. Includes stay unread."""
    return _Parser(text, file).script()


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        rows = text.split("\n")
        if rows[-1] == "":
            rows.pop()
        self.rows = tuple(rows)
        self.lines = [self._line(number, row) for number, row in enumerate(rows, 1)]
        self.at = 0

    def script(self) -> Script:
        header = self._header()
        body = self._block(0, _anything)
        return Script(header, tuple(body), self.file, self.rows)

    # --- lines ------------------------------------------------------------------------------------

    def _line(self, number: int, row: str) -> _Line:
        text = row.lstrip(" ")
        line = _Line(number, len(row) - len(text), text)
        if number == 1 and row.startswith("\ufeff"):
            self._fail(line, 0, "the file begins with a byte order mark", "plain UTF-8 without one")
        if row.endswith("\r"):
            self._fail(
                line,
                len(text) - 1,
                "this file's own lines end in CR LF",
                "lines that end in LF; `eol: crlf` in the header is for a server that speaks CR LF",
            )
        if text.startswith("\t"):
            self._fail(line, 0, "a tab in the indentation", "spaces")
        return _Line(number, 0, "") if text.isspace() else line

    def _fail(self, line: _Line, column: int, message: str, expected: str) -> NoReturn:
        """Column counts from 0 within the line's text."""
        raise ScriptError(
            self.file, line.number, line.indent + column + 1, " " * line.indent + line.text, message, expected
        )

    # --- the header -------------------------------------------------------------------------------

    def _header(self) -> tuple[Setting | Layout, ...]:
        first = next((line for line in self.lines if not line.layout), None)
        if first is None or first.indent or not _HEADER.match(first.text):
            return ()
        items: list[Setting | Layout] = []
        seen: dict[type, int] = {}
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.blank and line.number > first.number:
                self.at += 1
                break
            items.append(self._layout(line) if line.layout else self._setting(line, seen))
            self.at += 1
        return tuple(items)

    def _setting(self, line: _Line, seen: dict[type, int]) -> Setting:
        if line.indent or not _HEADER.match(line.text):
            self._fail(
                line,
                0,
                "a step right below the header",
                "a blank line, which ends the header, or `key: value`",
            )
        try:
            setting = header_line(line.text, line.number)
        except LineError as wrong:
            self._fail(line, wrong.column, wrong.message, wrong.expected)
        if type(setting) in seen:
            self._fail(line, 0, f"said already in line {seen[type(setting)]}", "each header once")
        seen[type(setting)] = line.number
        return setting

    # --- blocks -----------------------------------------------------------------------------------

    def _block(self, indent: int, admits: _Admits) -> list[Item]:
        items: list[Item] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.layout:
                if indent and self._leaves(line, indent):
                    break
                items.append(self._layout(line))
                self.at += 1
                continue
            if line.indent < indent:
                break
            if line.indent > indent:
                self._fail(line, 0, "indented more than what is above it", self._expected_indent(indent))
            items.append(self._step(line, admits))
        return items

    def _expected_indent(self, indent: int) -> str:
        return f"{indent} spaces, or a line above that ends in a colon" if indent else "no indentation here"

    def _leaves(self, line: _Line, indent: int) -> bool:
        """Whether this blank or comment line is no longer the block's own: no step of it follows."""
        following = next((later for later in self.lines[self.at :] if not later.layout), None)
        if following is not None and following.indent >= indent:
            return False
        if line.blank:
            # Blank lines before an indented comment that ends the block stay with that comment.
            comment = next((later for later in self.lines[self.at :] if not later.blank), None)
            return comment is None or not comment.layout or comment.indent < indent
        return line.indent < indent

    def _layout(self, line: _Line) -> Layout:
        return Blank(line=line.number) if line.blank else Comment(line.text[1:], line=line.number)

    def _step(self, line: _Line, admits: _Admits) -> Item:
        if _HEADER.match(line.text):
            self._fail(
                line, 0, "a header below the header", "headers at the top, then a blank line, then steps"
            )
        try:
            message = sentence(line.text, line.number)
        except LineError as wrong:
            self._fail(line, wrong.column, wrong.message, wrong.expected)
        refusal = admits(message)
        if refusal is not None:
            self._fail(line, 0, refusal[0], refusal[1])
        self.at += 1
        match message:
            case TogetherHead():
                return Together(
                    cast("tuple[TogetherItem, ...]", self._inner(line, _sends_only)), line=line.number
                )
            case AnyOrderHead(same_for):
                inner = self._inner(line, _receives_only)
                self._check_clients(inner, same_for)
                return AnyOrder(cast("tuple[AnyOrderItem, ...]", inner), same_for, line=line.number)
            case RepeatHead(times, name):
                return Repeat(
                    times, cast("tuple[Step, ...]", self._inner(line, _anything)), name, line=line.number
                )
            case DefineHead(words):
                inner = self._inner(line, _anything)
                return Define(words, cast("tuple[Step, ...]", inner), line=line.number)
            case _:
                self._need_client(line, message)
                return message

    def _inner(self, head: _Line, admits: _Admits) -> tuple[Item, ...]:
        first = next((line for line in self.lines[self.at :] if not line.layout), None)
        if first is None or first.indent <= head.indent:
            self._fail(head, len(head.text), "nothing is indented below this line", "indented steps below it")
        items = self._block(first.indent, lambda message: _top_level_only(message) or admits(message))
        return tuple(items)

    def _need_client(self, line: _Line, message: Item) -> None:
        """Only in `the same for` may a receive leave its client out."""
        if isinstance(message, RECEIVING) and not message.client and not self._within_same_for(line):
            self._fail(line, 0, "nobody is named here", "the name of a client before the <")

    def _within_same_for(self, line: _Line) -> bool:
        above = (other for other in reversed(self.lines[: line.number - 1]) if not other.layout)
        head = next((other for other in above if other.indent < line.indent), None)
        return head is not None and head.text.startswith("in any order, the same for")

    def _check_clients(self, inner: tuple[Item, ...], same_for: tuple[str, ...]) -> None:
        for item in inner:
            if same_for and isinstance(item, RECEIVING) and item.client and item.client not in same_for:
                line = self.lines[item.line - 1]
                self._fail(line, 0, f"{item.client} is not among those who must agree", " or ".join(same_for))


def _top_level_only(message: Sentence) -> tuple[str, str] | None:
    if isinstance(message, DefineHead):
        return "a define inside a block", "definitions at the left margin"
    if isinstance(message, Include):
        return "an include inside a block", "includes at the left margin"
    return None


def _anything(message: Sentence) -> tuple[str, str] | None:
    return None


def _sends_only(message: Sentence) -> tuple[str, str] | None:
    if isinstance(message, SENDING):
        return None
    return f"{_what(message)} inside together:", "sends: a> text, a>> bytes or a>~ pattern"


def _receives_only(message: Sentence) -> tuple[str, str] | None:
    if isinstance(message, RECEIVING):
        return None
    return f"{_what(message)} inside in any order:", "receives: a< text, a<< bytes or a<~ pattern"


def _what(message: Sentence) -> str:
    if isinstance(message, SENDING):
        return "a send"
    if isinstance(message, RECEIVING):
        return "a receive"
    if isinstance(message, Call):
        return "a defined step"
    return "another kind of step"
