"""A line in which a client sends or receives, `a> text` and its kin -> what it says. Pure."""

from __future__ import annotations

import re
import unicodedata

from harness.language.escapes import BytesError, parse_bytes
from harness.language.patterns import ANONYMOUS, Kind, Pattern, PatternError, parse_pattern
from harness.language.problems import LineError
from harness.language.steps import (
    NAME,
    RESERVED,
    Receive,
    ReceiveBytes,
    ReceivePattern,
    Send,
    SendBytes,
    SendPattern,
)

_MESSAGE = re.compile(r"(?P<client>[^\s<>]*)(?P<arrow>>~|>>|>|<~|<<|<)")
Message = Send | SendBytes | SendPattern | Receive | ReceiveBytes | ReceivePattern


def talk(text: str, number: int) -> Message | None:
    """What the line sends or receives; None when it is a line of another kind."""
    found = _MESSAGE.match(text)
    if found is None:
        return None
    client, arrow, start = found["client"], found["arrow"], found.end()
    if client:
        check_client(client, 0)
    rest = text[start:]
    if rest and not rest.startswith(" "):
        raise LineError(
            start, f"no space after {arrow}", f"one space, then what is {_verb(arrow)}: {client}{arrow} text"
        )
    if rest == " ":
        raise LineError(start, "a space at the end of the line", f"{client}{arrow} alone for an empty line")
    content, column = rest[1:], start + 1
    if arrow in (">>", "<<"):
        data = _bytes(content, column)
        return (
            SendBytes(client, data, line=number) if arrow == ">>" else ReceiveBytes(client, data, line=number)
        )
    _check_literal(content, column, client + arrow[0] * 2)
    if arrow in (">~", "<~"):
        pattern = _pattern(content, column)
        if arrow == "<~":
            return ReceivePattern(client, pattern, line=number)
        _check_sendable(pattern, content, column)
        return SendPattern(client, pattern, line=number)
    return Send(client, content, line=number) if arrow == ">" else Receive(client, content, line=number)


def _verb(arrow: str) -> str:
    return "sent" if arrow[0] == ">" else "received"


def check_client(client: str, column: int) -> None:
    """Wrong where this cannot be the name of a client."""
    if client in RESERVED:
        raise LineError(column, f"{client!r} is a word of the language", "another name for this client")
    if not NAME.fullmatch(client):
        raise LineError(
            column,
            f"{client!r} is no name for a client",
            "a letter, then letters, digits, _ and single - or .",
        )


def _check_literal(content: str, column: int, bytes_form: str) -> None:
    for at, char in enumerate(content):
        if unicodedata.category(char) == "Cc":
            what = "a tab" if char == "\t" else f"the control character U+{ord(char):04X}"
            raise LineError(
                column + at,
                f"{what} in a literal",
                f"visible text; {bytes_form} with \\t or \\xNN says it exactly",
            )
    if content != content.rstrip():
        end = len(content.rstrip())
        raise LineError(
            column + end,
            "white space at the end of a literal",
            f"{bytes_form} with \\x20 for a space that is meant",
        )


def _bytes(content: str, column: int) -> bytes:
    if not content:
        raise LineError(column - 1, "no bytes here", "at least one byte, such as \\n")
    try:
        return parse_bytes(content)
    except BytesError as wrong:
        raise LineError(column + wrong.column, str(wrong), wrong.expected) from None


def _pattern(content: str, column: int) -> Pattern:
    try:
        return parse_pattern(content)
    except PatternError as wrong:
        raise LineError(
            column + wrong.column, str(wrong), "${x}, ${x:int}, ${x:/re/}, ${_}, $$ or literal text"
        ) from None


def _check_sendable(pattern: Pattern, content: str, column: int) -> None:
    for capture in pattern.captures:
        if capture.name == ANONYMOUS or capture.kind is not Kind.TEXT:
            at = content.index("${" + capture.name)
            raise LineError(
                column + at, "what is sent must be known", "${x} with a name that something bound before"
            )
