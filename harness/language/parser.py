"""Text -> Script: the header, indentation and blocks. `forms` parses the single lines. Reads no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, get_args

from harness.language.forms import HEADER_LINE, BlockHead, header_line, read_step, write_line
from harness.language.patterns import Pattern
from harness.language.problems import LineError, ScriptError, ScriptProblem
from harness.language.steps import (
    ActionStep,
    AnyOrder,
    Blank,
    Call,
    Comment,
    Define,
    Either,
    Include,
    InOneWay,
    InTime,
    Item,
    Layout,
    Or,
    Receive,
    ReceivePattern,
    Receiving,
    ReceivingOne,
    Reply,
    Rule,
    Script,
    Send,
    Sending,
    SendPattern,
    Setting,
    Together,
)

_Read = Item | BlockHead


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
    """Parse a script; ScriptError where the text breaks the language. Includes are not read."""
    return _Parser(text, file).script()


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self._file = file
        rows = text.split("\n")
        if rows[-1] == "":
            rows.pop()
        self._rows = tuple(rows)
        self._lines = [self._line(number, row) for number, row in enumerate(rows, 1)]
        self._at = 0

    def script(self) -> Script:
        header = self._header()
        return Script(header, tuple(self._block(0, None)), self._file, self._rows)

    # --- lines ------------------------------------------------------------------------------------

    def _line(self, number: int, row: str) -> _Line:
        text = row.lstrip(" ")
        line = _Line(number, len(row) - len(text), text)
        if number == 1 and row.startswith("\ufeff"):
            self._fail(line, 0, "the file begins with a byte order mark", "plain UTF-8 without one")
        if row.endswith("\r"):
            self._fail(
                line, len(text) - 1, "this file's own lines end in CR LF",
                "lines that end in LF; `eol: crlf` in the header is for a server that sends CR LF",
            )  # fmt: skip
        if text.startswith("\t"):
            self._fail(line, 0, "a tab in the indentation", "spaces")
        return _Line(number, 0, "") if text.isspace() else line

    def _fail(self, line: _Line, column: int, message: str, expected: str) -> NoReturn:
        """`column` counts from 0 within the line's text."""
        source = " " * line.indent + line.text
        at = line.indent + column + 1
        raise ScriptError(ScriptProblem(self._file, line.number, at, message, expected, source))

    def _read(self, line: _Line, reader: Callable[[str, int], Any]) -> Any:
        try:
            return reader(line.text, line.number)
        except LineError as error:
            self._fail(line, error.column, error.message, error.expected)

    # --- the header -------------------------------------------------------------------------------

    def _header(self) -> tuple[Setting | Layout, ...]:
        first = next((line for line in self._lines if not line.layout), None)
        if first is None or first.indent or not HEADER_LINE.match(first.text):
            return ()
        items: list[Setting | Layout] = []
        seen: dict[type, int] = {}
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if line.blank and line.number > first.number:
                break
            items.append(_layout(line) if line.layout else self._setting(line, seen))
        return tuple(items)

    def _setting(self, line: _Line, seen: dict[type, int]) -> Setting:
        if line.indent or not HEADER_LINE.match(line.text):
            expected = "a blank line, which ends the header, or `key: value`"
            self._fail(line, 0, "a step right below the header", expected)
        setting: Setting = self._read(line, header_line)
        if type(setting) in seen and not isinstance(setting, Rule):
            self._fail(line, 0, f"already set in line {seen[type(setting)]}", "each header once")
        seen[type(setting)] = line.number
        return setting

    # --- blocks -----------------------------------------------------------------------------------

    def _block(self, indent: int, block: type | None) -> list[Item]:
        items: list[Item] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.layout:
                if indent and self._leaves(line, indent):
                    break
                items.append(_layout(line))
                self._at += 1
                continue
            if line.indent < indent:
                break
            if line.indent > indent:
                expected = (
                    f"{indent} spaces, or a line above that ends in a colon" if indent else "no indentation"
                )
                self._fail(line, 0, "indented more than the line above", expected)
            items.append(self._step(line, block, items))
        return items

    def _leaves(self, line: _Line, indent: int) -> bool:
        """Whether this blank or comment line belongs to what follows the block."""
        following = next((later for later in self._lines[self._at :] if not later.layout), None)
        if following is not None and following.indent >= indent:
            return False
        if line.blank:
            # Blank lines before an indented comment that ends the block stay with that comment.
            comment = next((later for later in self._lines[self._at :] if not later.blank), None)
            return comment is None or not comment.layout or comment.indent < indent
        return line.indent < indent

    def _step(self, line: _Line, block: type | None, before: Sequence[Item]) -> Item:
        if HEADER_LINE.match(line.text):
            self._fail(
                line, 0, "a header below the header", "headers at the top, then a blank line, then steps"
            )
        read: _Read = self._read(line, read_step)
        refusal = _refusal(read, block, before)
        if refusal is not None:
            self._fail(line, 0, *refusal)
        self._at += 1
        if not isinstance(read, BlockHead):
            if isinstance(read, Receiving) and not read.client and not self._in_same_for(line):
                self._fail(line, 0, "no client is named here", "the name of a client before the <")
            return read
        body = self._body(line, read.kind)
        made: Item = read.kind(**read.values, body=body, line=line.number)
        return made

    def _body(self, head: _Line, block: type) -> tuple[Item, ...]:
        first = next((line for line in self._lines[self._at :] if not line.layout), None)
        if first is None or first.indent <= head.indent:
            self._fail(head, len(head.text), "nothing is indented below this line", "indented steps below it")
        return tuple(self._block(first.indent, block))

    def _in_same_for(self, line: _Line) -> bool:
        above = (other for other in reversed(self._lines[: line.number - 1]) if not other.layout)
        head = next((other for other in above if other.indent < line.indent), None)
        return head is not None and head.text.startswith("in any order, the same for")


def _layout(line: _Line) -> Layout:
    return Blank(line=line.number) if line.blank else Comment(line.text[1:], line=line.number)


# --- what a block refuses -----------------------------------------------------------------------------------

_RECEIVES = "receives: a< text, a<< bytes or a<~ pattern"
_IN_ONE_WAY = f"{_RECEIVES}, a receives nothing, or an end: a is closed"
_ADMITS: dict[type, tuple[tuple[type, ...], str, str]] = {
    Together: (get_args(Sending), "inside together:", "sends: a> text, a>> bytes or a>~ pattern"),
    AnyOrder: (get_args(ReceivingOne), "inside in any order:", _RECEIVES),
    Either: (get_args(InOneWay), "inside either:", _IN_ONE_WAY),
    InTime: (get_args(Receiving), "inside within:", _RECEIVES),
    Or: (get_args(InOneWay), "inside or:", _IN_ONE_WAY),
}


def _refusal(read: _Read, block: type | None, before: Sequence[Item]) -> tuple[str, str] | None:
    """Why such a block cannot contain this after those before it, and what was expected; None if it can."""
    kind = read.kind if isinstance(read, BlockHead) else type(read)
    if block is not None and kind in (Define, Include):
        return f"{_described(kind)} inside a block", "definitions and includes at the left margin"
    if block in (Either, Or) and issubclass(kind, get_args(ActionStep)):
        return _action_in_a_way(read, before)
    if block in _ADMITS:
        admitted, where, expected = _ADMITS[block]
        if kind not in admitted:
            return f"{_described(kind)} {where}", expected
    return None


def _action_in_a_way(action: _Read, before: Sequence[Item]) -> tuple[str, str]:
    """The error for an action within a way: ways differ only in what clients receive."""
    received = next((one for one in reversed(before) if not isinstance(one, Layout)), None)
    what = "a send" if isinstance(action, Sending) else "an action"
    if received is None:
        return (
            f"a way that begins with {what}: nothing that was received says which way to go",
            f"{what} above either:, done in any case, or a script for each way",
        )
    message = f"{what} in one way only: what clients do does not depend on what the server does"
    if not isinstance(action, Sending):
        return message, f"{what} below all ways, done in any case, or a script for each way"
    reply = _as_reply(received, action) or f"reply {action.client}: LINE -> ANSWER"
    return message, f"`{reply}` in the header, for what only some servers ask"


def _as_reply(received: Item, sent: Sending) -> str:
    """The rule that answers this line so; empty where no rule does."""
    if not isinstance(received, (Receive, ReceivePattern)) or not isinstance(sent, (Send, SendPattern)):
        return ""
    asked = Pattern((received.text,)) if isinstance(received, Receive) else received.pattern
    answer = Pattern((sent.text,)) if isinstance(sent, Send) else sent.pattern
    known = {one.name for one in asked.captures} >= {one.name for one in answer.captures}
    return write_line(Reply(asked, answer, sent.client)) if known and received.client == sent.client else ""


def _described(kind: type) -> str:
    if kind in get_args(Sending):
        return "a send"
    if kind in get_args(Receiving):
        return "a receive"
    names = {Call: "a defined step", Define: "a define", Include: "an include"}
    return names.get(kind, "another kind of step")
