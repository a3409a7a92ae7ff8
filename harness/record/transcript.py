"""A recorded session as a script that passes against the same server. Pure.

The log has one `LoggedTurn` for each action of a client, with all its effects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.language.exhaustive import assert_never
from harness.language.fences import Fence
from harness.language.patterns import ANONYMOUS, Capture, Kind, Pattern
from harness.language.steps import (
    NAME,
    RESERVED,
    Acts,
    Blank,
    ConnectionAction,
    Connects,
    Ending,
    Ends,
    Eol,
    LineEnd,
    Receive,
    ReceivePattern,
    Receiving,
    Script,
    Send,
    SendBytes,
    Sending,
    Setting,
    Step,
    Title,
    Wait,
    as_receive,
)

WAIT_MARGIN_S = 0.25
"""How much longer than in the recording a play waits for unsolicited lines of the server."""

SAME_LINE_S = 0.25
"""Pieces of a line that are sent within this time are one line, such as the text and the line end of `nc -C`."""

_TIME_OF_DAY_TOLERANCE_S = 5
_TIMESTAMP = re.compile(r"(?<![\d.])\d{10}(?:\d{3})?(?![\d.])")


# --- the log ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    connection: int
    """Connections are numbered from 1, in order."""


@dataclass(frozen=True, slots=True)
class Sent:
    connection: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Acted:
    connection: int
    action: ConnectionAction


@dataclass(frozen=True, slots=True)
class Waited:
    """No client did anything for this long; then the server sent something by itself."""

    seconds: float


LoggedAction = Connected | Sent | Acted | Waited


@dataclass(slots=True)
class LoggedTurn:
    action: LoggedAction
    at: float
    """The time of day, in seconds since 1970."""
    received: dict[int, bytearray] = field(default_factory=dict)
    ends: dict[int, Ending] = field(default_factory=dict)

    @property
    def had_no_effect(self) -> bool:
        return not self.received and not self.ends


# --- names --------------------------------------------------------------------------------------------------

_INTRODUCTIONS = (
    re.compile(r"/?(?:login|nick|name|join|iam)\s+:?(?P<name>\S+)", re.IGNORECASE),
    re.compile(r'"(?:user_?name|nick(?:name)?|name|user|login)"\s*:\s*"(?P<name>[^"\s]+)"', re.IGNORECASE),
    re.compile(r"(?:user|helo|ehlo|hello)\s+:?(?P<name>\S+)", re.IGNORECASE),
)
_INTRODUCED_WITHIN_LINES = 5
# A first line of one word counts as a name, unless it is one of these commands.
_COMMANDS = frozenset(
    {"exit", "get", "help", "hello", "helo", "hi", "info", "list", "menu", "noop", "ping", "quit", "start"}
    | {"stats", "status", "stop", "test", "version", "who"}
)


def names(log: Sequence[LoggedTurn]) -> dict[int, str]:
    """A unique name for each connection: the name with which the client logs in, or else `client1` and so on."""
    found: dict[int, str] = {}
    for turn in log:
        if isinstance(turn.action, Connected):
            number = turn.action.connection
            taken = {name.casefold() for name in found.values()}
            found[number] = next(name for name in _candidates(log, number) if name.casefold() not in taken)
    return found


def _candidates(log: Sequence[LoggedTurn], number: int) -> Iterator[str]:
    sent = b"".join(
        turn.action.data for turn in log if isinstance(turn.action, Sent) and turn.action.connection == number
    )
    lines = sent.decode("utf-8", "replace").splitlines()[:_INTRODUCED_WITHIN_LINES]
    yield from _introductions(lines)
    if lines:
        word = lines[0].strip()
        if _is_name(word) and not word.isupper() and word.casefold() not in _COMMANDS:
            yield word
    yield f"client{number}"
    # A client can really log in as client2.
    yield from (f"client{number}.{again}" for again in range(2, 1000))


def _introductions(lines: list[str]) -> Iterator[str]:
    """The last one first: an earlier name was refused or changed."""
    for introduction in _INTRODUCTIONS:
        for line in reversed(lines):
            # A command begins its line; a field of a JSON object can stand anywhere.
            match = introduction.search(line) if "{" in line else introduction.match(line)
            if match and _is_name(match["name"]):
                yield match["name"]


def _is_name(text: str) -> bool:
    return bool(NAME.fullmatch(text)) and text not in RESERVED


# --- the script ---------------------------------------------------------------------------------------------


def split_lines(data: bytes) -> list[bytes]:
    """The data, cut behind each line feed; the last piece can lack one."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def transcript(log: Sequence[LoggedTurn], title: str, fence: Fence | None = None) -> Script:
    """The session as a script."""
    eol = _line_end(log)
    header: list[Setting] = [Title(title)]
    if eol is not Eol.LF:
        header.append(LineEnd(eol))
    if fence is not None:
        header.append(fence)
    return Script(tuple(header), tuple(_Body(names(log), eol).steps(log)))


def _line_end(log: Sequence[LoggedTurn]) -> Eol:
    """The line end of most received lines, or of most sent lines if none was received."""
    received = b"".join(bytes(data) for turn in log for data in turn.received.values())
    sent = b"".join(turn.action.data for turn in log if isinstance(turn.action, Sent))
    lines = received if b"\n" in received else sent
    return Eol.CRLF if lines.count(b"\r\n") * 2 > lines.count(b"\n") else Eol.LF


class _Body:
    def __init__(self, names: dict[int, str], eol: Eol) -> None:
        self._names = names
        self._eol = eol.wire
        self._mid_line: set[int] = set()
        """The connections that have sent a part of a line: its rest is written as bytes too."""

    def steps(self, log: Sequence[LoggedTurn]) -> Iterator[Step]:
        turns = list(_without_implied_connects(list(_with_whole_lines(log))))
        for at, turn in enumerate(turns):
            yield self._action(turn)
            for number, data in sorted(turn.received.items()):
                yield from self._receives(self._names[number], bytes(data), turn.at)
            for number, ending in sorted(turn.ends.items()):
                yield Ends(self._names[number], ending)
            if not turn.had_no_effect and at + 1 < len(turns):
                yield Blank()

    def _action(self, turn: LoggedTurn) -> Step:
        match turn.action:
            case Connected(number):
                return Connects(self._names[number])
            case Sent(number, data):
                return self._send(number, data)
            case Acted(number, done):
                return Acts(self._names[number], done)
            case Waited(seconds):
                return Wait(math.ceil((seconds + WAIT_MARGIN_S) * 10) * 100_000)
            case action:
                return assert_never(action)

    def _send(self, number: int, data: bytes) -> Sending:
        name, mid_line = self._names[number], number in self._mid_line
        self._mid_line.discard(number)
        if not data.endswith(b"\n"):
            self._mid_line.add(number)
        line = as_receive(name, data, self._eol)
        return Send(name, line.text) if isinstance(line, Receive) and not mid_line else SendBytes(name, data)

    def _receives(self, name: str, data: bytes, at: float) -> Iterator[Receiving]:
        for piece in split_lines(data):
            line = as_receive(name, piece, self._eol)
            pattern = _with_times(line.text, at) if isinstance(line, Receive) else None
            yield line if pattern is None else ReceivePattern(name, pattern)


def _with_whole_lines(log: Sequence[LoggedTurn]) -> Iterator[LoggedTurn]:
    """Join the pieces of a line if nothing came in between; pieces that took longer were split on purpose."""
    held: LoggedTurn | None = None
    for turn in log:
        match (held.action if held else None, turn.action):
            case (Sent(sender, piece), Sent(again, rest)) if (
                held is not None
                and sender == again
                and not piece.endswith(b"\n")
                and held.had_no_effect
                and turn.at - held.at <= SAME_LINE_S
            ):
                turn = LoggedTurn(Sent(sender, piece + rest), turn.at, turn.received, turn.ends)
            case _:
                if held is not None:
                    yield held
        held = turn
    if held is not None:
        yield held


def _without_implied_connects(log: list[LoggedTurn]) -> Iterator[LoggedTurn]:
    """A connection that had no effect needs no step if its client sends next: the first send connects."""
    for turn, following in zip(log, [*log[1:], None], strict=True):
        sends = following.action if following else None
        implied = (
            isinstance(turn.action, Connected)
            and turn.had_no_effect
            and isinstance(sends, Sent)
            and sends.connection == turn.action.connection
        )
        if not implied:
            yield turn


def _with_times(text: str, at: float) -> Pattern | None:
    """The line with a capture for each number that is the time of day; None if it has none."""
    parts: list[str | Capture] = []
    end = 0
    for found in _TIMESTAMP.finditer(text):
        digits = found.group()
        if abs(float(digits) / 10 ** (len(digits) - 10) - at) <= _TIME_OF_DAY_TOLERANCE_S:
            parts += [text[end : found.start()], Capture(ANONYMOUS, Kind.INT)]
            end = found.end()
    return Pattern((*parts, text[end:])) if parts else None
