"""A Take -> a Script that plays green against the server it was taken from. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from harness.language.matching import ANONYMOUS, Capture, Kind, Pattern
from harness.language.steps import (
    Blank,
    Connects,
    Does,
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
from harness.recording.take import Came, Did, Moment, Said, Take, Waited

WAIT_MARGIN_S = 0.25
"""How much longer than the server took is waited for it."""

AT_ONCE_S = 0.25
"""Pieces of a line that the recorder hands on within so long of each other were written by one press of a key."""

_CLOCK_WITHIN_S = 5
_TIMESTAMP = re.compile(r"(?<![\d.])\d{10}(?:\d{3})?(?![\d.])")


def transcript(take: Take, title: str, fence: FenceLine | None = None) -> Script:
    """The session as a script."""
    eol = _line_end(take)
    header: list[Setting] = [Title(title)]
    if eol is not Eol.LF:
        header.append(LineEnd(eol))
    if fence is not None:
        header.append(fence)
    return Script(tuple(header), tuple(_Writer(names(take), eol).body(take)))


def _line_end(take: Take) -> Eol:
    """How most lines ended that were heard; of those said, where nothing was heard."""
    heard = b"".join(bytes(data) for moment in take.moments for data in moment.heard.values())
    said = b"".join(moment.doing.data for moment in take.moments if isinstance(moment.doing, Said))
    lines = heard if b"\n" in heard else said
    return Eol.CRLF if lines.count(b"\r\n") * 2 > lines.count(b"\n") else Eol.LF


class _Writer:
    def __init__(self, called: dict[int, str], eol: Eol) -> None:
        self._called = called
        self._eol = eol
        self._torn: set[int] = set()
        """Who has said part of a line and not yet its end: the rest is bytes too."""

    def body(self, take: Take) -> Iterator[Step]:
        moments = list(_without_needless_connects(list(_with_whole_lines(take.moments))))
        for at, moment in enumerate(moments):
            yield self._doing(moment)
            for number, data in sorted(moment.heard.items()):
                yield from self._heard(self._called[number], bytes(data), moment.at)
            for number, ending in sorted(moment.ends.items()):
                yield Ends(self._called[number], ending)
            if not moment.came_to_nothing and at + 1 < len(moments):
                yield Blank()

    def _doing(self, moment: Moment) -> Step:
        match moment.doing:
            case Came(number):
                return Connects(self._called[number])
            case Said(number, data):
                return self._said(number, data)
            case Did(number, deed):
                return Does(self._called[number], deed)
            case Waited(seconds):
                return Wait(math.ceil((seconds + WAIT_MARGIN_S) * 10) * 100_000)

    def _said(self, number: int, data: bytes) -> Sending:
        name = self._called[number]
        torn = number in self._torn
        self._torn.discard(number)
        if not data.endswith(b"\n"):
            self._torn.add(number)
        text = None if torn else _literal(data, self._eol)
        return SendBytes(name, data) if text is None else Send(name, text)

    def _heard(self, name: str, data: bytes, at: float) -> Iterator[Receiving]:
        for line in re.findall(b"[^\n]*\n|[^\n]+", data):
            text = _literal(line, self._eol)
            if text is None:
                yield ReceiveBytes(name, line)
            else:
                pattern = _with_times(text, at)
                yield Receive(name, text) if pattern is None else ReceivePattern(name, pattern)


def _with_whole_lines(moments: list[Moment]) -> Iterator[Moment]:
    """A line that was written in pieces, as `nc -C` does with its line ends, is one line if nothing came in between;
    one that somebody took time over was meant to be torn."""
    held: Moment | None = None
    for moment in moments:
        match (held.doing if held else None, moment.doing):
            case (Said(speaker, piece), Said(again, rest)) if (
                held is not None
                and speaker == again
                and not piece.endswith(b"\n")
                and held.came_to_nothing
                and moment.at - held.at <= AT_ONCE_S
            ):
                moment = Moment(Said(speaker, piece + rest), moment.at, moment.heard, moment.ends)
            case _:
                if held is not None:
                    yield held
        held = moment
    if held is not None:
        yield held


def _without_needless_connects(moments: list[Moment]) -> Iterator[Moment]:
    """A connection that came to nothing and was at once spoken over needs no line: a first send makes it."""
    for moment, following in zip(moments, [*moments[1:], None], strict=True):
        speaks = following.doing if following else None
        needless = (
            isinstance(moment.doing, Came)
            and moment.came_to_nothing
            and isinstance(speaks, Said)
            and speaks.connection == moment.doing.connection
        )
        if not needless:
            yield moment


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
