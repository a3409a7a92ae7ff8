"""A Take -> a Script that plays green against the server it was taken from. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from harness.language.patterns import ANONYMOUS, Capture, Kind, Pattern
from harness.language.steps import (
    Acts,
    Blank,
    Connects,
    Ends,
    Eol,
    FenceLine,
    LineEnd,
    Receive,
    ReceiveBytes,
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
    is_literal,
)
from harness.recording.naming import names
from harness.recording.session_log import Acted, Connected, LoggedTurn, Sent, SessionLog, Waited

WAIT_MARGIN_S = 0.25
"""How much longer than the server took is waited for it."""

AT_ONCE_S = 0.25
"""Pieces of a line that the recorder hands on within so long of each other were written by one press of a key."""

_CLOCK_WITHIN_S = 5
_TIMESTAMP = re.compile(r"(?<![\d.])\d{10}(?:\d{3})?(?![\d.])")


def transcript(log: SessionLog, title: str, fence: FenceLine | None = None) -> Script:
    """The session as a script."""
    eol = _line_end(log)
    header: list[Setting] = [Title(title)]
    if eol is not Eol.LF:
        header.append(LineEnd(eol))
    if fence is not None:
        header.append(fence)
    return Script(tuple(header), tuple(_Writer(names(log), eol).body(log)))


def _line_end(log: SessionLog) -> Eol:
    """How most lines ended that were heard; of those said, where nothing was heard."""
    received = b"".join(
        bytes(data) for logged_turn in log.logged_turns for data in logged_turn.received.values()
    )
    sent = b"".join(
        logged_turn.action.data for logged_turn in log.logged_turns if isinstance(logged_turn.action, Sent)
    )
    lines = received if b"\n" in received else sent
    return Eol.CRLF if lines.count(b"\r\n") * 2 > lines.count(b"\n") else Eol.LF


class _Writer:
    def __init__(self, called: dict[int, str], eol: Eol) -> None:
        self._called = called
        self._eol = eol
        self._torn: set[int] = set()
        """Who has said part of a line and not yet its end: the rest is bytes too."""

    def body(self, log: SessionLog) -> Iterator[Step]:
        logged_turns = list(_without_needless_connects(list(_with_whole_lines(log.logged_turns))))
        for at, logged_turn in enumerate(logged_turns):
            yield self._action(logged_turn)
            for number, data in sorted(logged_turn.received.items()):
                yield from self._received(self._called[number], bytes(data), logged_turn.at)
            for number, ending in sorted(logged_turn.ends.items()):
                yield Ends(self._called[number], ending)
            if not logged_turn.had_no_effect and at + 1 < len(logged_turns):
                yield Blank()

    def _action(self, logged_turn: LoggedTurn) -> Step:
        match logged_turn.action:
            case Connected(number):
                return Connects(self._called[number])
            case Sent(number, data):
                return self._sent(number, data)
            case Acted(number, connection_action):
                return Acts(self._called[number], connection_action)
            case Waited(seconds):
                return Wait(math.ceil((seconds + WAIT_MARGIN_S) * 10) * 100_000)

    def _sent(self, number: int, data: bytes) -> Sending:
        name = self._called[number]
        torn = number in self._torn
        self._torn.discard(number)
        if not data.endswith(b"\n"):
            self._torn.add(number)
        text = None if torn else _literal(data, self._eol)
        return SendBytes(name, data) if text is None else Send(name, text)

    def _received(self, name: str, data: bytes, at: float) -> Iterator[Receiving]:
        for line in re.findall(b"[^\n]*\n|[^\n]+", data):
            text = _literal(line, self._eol)
            if text is None:
                yield ReceiveBytes(name, line)
            else:
                pattern = _with_times(text, at)
                yield Receive(name, text) if pattern is None else ReceivePattern(name, pattern)


def _with_whole_lines(logged_turns: list[LoggedTurn]) -> Iterator[LoggedTurn]:
    """A line that was written in pieces, as `nc -C` does with its line ends, is one line if nothing came in between;
    one that somebody took time over was meant to be torn."""
    held: LoggedTurn | None = None
    for logged_turn in logged_turns:
        match (held.action if held else None, logged_turn.action):
            case (Sent(speaker, piece), Sent(again, rest)) if (
                held is not None
                and speaker == again
                and not piece.endswith(b"\n")
                and held.had_no_effect
                and logged_turn.at - held.at <= AT_ONCE_S
            ):
                logged_turn = LoggedTurn(
                    Sent(speaker, piece + rest), logged_turn.at, logged_turn.received, logged_turn.ends
                )
            case _:
                if held is not None:
                    yield held
        held = logged_turn
    if held is not None:
        yield held


def _without_needless_connects(logged_turns: list[LoggedTurn]) -> Iterator[LoggedTurn]:
    """A connection that came to nothing and was at once spoken over needs no line: a first send makes it."""
    for logged_turn, following in zip(logged_turns, [*logged_turns[1:], None], strict=True):
        speaks = following.action if following else None
        needless = (
            isinstance(logged_turn.action, Connected)
            and logged_turn.had_no_effect
            and isinstance(speaks, Sent)
            and speaks.connection == logged_turn.action.connection
        )
        if not needless:
            yield logged_turn


def _literal(data: bytes, eol: Eol) -> str | None:
    """The line as text, where it can be written as a line."""
    if not data.endswith(eol.wire):
        return None
    try:
        text = data[: -len(eol.wire)].decode()
    except UnicodeDecodeError:
        return None
    return text if is_literal(text) else None


def _with_times(text: str, at: float) -> Pattern | None:
    """The line with a hole where it tells the time, which will be another one when it is played."""
    parts: list[str | Capture] = []
    end = 0
    for found in _TIMESTAMP.finditer(text):
        digits = found.group()
        if abs(float(digits) / 10 ** (len(digits) - 10) - at) <= _CLOCK_WITHIN_S:
            parts += [text[end : found.start()], Capture(ANONYMOUS, Kind.INT)]
            end = found.end()
    return Pattern((*parts, text[end:])) if parts else None
