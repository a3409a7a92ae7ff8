"""A recorded session as a script that passes against the same server. Pure.

The log has one `LoggedTurn` for each action of a client, with all its effects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
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
    SendPattern,
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


# --- secrets ------------------------------------------------------------------------------------------------

_SECRET_ARGUMENTS = (
    re.compile(rb"\s*/?login[ \t]+\S+[ \t]+(?P<first>[^\r\n]*\S)", re.IGNORECASE),
    re.compile(rb"\s*/?(?:register|pass)[ \t]+:?(?P<first>[^\r\n]*\S)", re.IGNORECASE),
    re.compile(rb"\s*/?password[ \t]+(?P<first>\S+)(?:[ \t]+(?P<second>\S+))?", re.IGNORECASE),
)
_SECRET_FIELDS = re.compile(rb'"(?:password|new|token)"\s*:\s*"((?:[^"\\\r\n]|\\.)+)"', re.IGNORECASE)
# A token that a server issues, such as gct_ or ghp_ and random letters.
_TOKEN = re.compile(r"(?<![\w-])[a-z]{2,8}_[A-Za-z0-9_-]{32,}(?![\w-])")
# Shorter secrets are too common to be replaced outside their place, and so are words of protocols.
_LEAST_SECRET_BYTES = 8
_NO_SECRETS = frozenset({b"password", b"register", b"username"})


class _Secrets:
    """Replaces each password by a placeholder of the same length, and each token by a capture."""

    def __init__(self, names: Iterable[str]) -> None:
        """The `names` of clients are not secrets: some servers register those."""
        self._names = frozenset(name.encode() for name in names)
        self._numbers: dict[bytes, int] = {}
        self._tokens: dict[str, Capture] = {}

    def hide_sent(self, data: bytes) -> bytes:
        """The sent bytes with placeholders for passwords."""
        return b"".join([self.hide_known(self._hide_in_line(line)) for line in split_lines(data)])

    def hide_known(self, data: bytes) -> bytes:
        """The bytes with the same placeholders for the passwords that have been sent, wherever they are."""
        # One can be a part of another.
        for secret in sorted(self._numbers, key=len, reverse=True):
            if len(secret) >= _LEAST_SECRET_BYTES and secret.lower() not in _NO_SECRETS:
                data = data.replace(secret, self._placeholder(secret))
        return data

    def captures(self, text: str) -> Iterator[tuple[int, int, Capture]]:
        """The positions of tokens in a received text, with their captures."""
        for found in _TOKEN.finditer(text):
            name = f"token{len(self._tokens) + 1}"
            yield *found.span(), self._tokens.setdefault(found.group(), Capture(name))

    def pattern(self, text: str) -> Pattern | None:
        """A sent text as a pattern with captures for its tokens; None if it has none."""
        found = [
            (*one.span(), self._tokens[one.group()])
            for one in _TOKEN.finditer(text)
            if one.group() in self._tokens
        ]
        return _pattern(text, found)

    def _hide_in_line(self, line: bytes) -> bytes:
        spans = [match.span(1) for match in _SECRET_FIELDS.finditer(line)]
        for pattern in _SECRET_ARGUMENTS:
            if (match := pattern.match(line)) is not None:
                spans += [match.span(group) for group in match.groupdict() if match[group] is not None]
        spans = [(self._behind_name(line, start, end), end) for start, end in spans]
        hidden = bytearray(line)
        for start, end in spans:
            secret = line[start:end]
            if secret and secret.decode("utf-8", "replace") not in self._tokens:
                hidden[start:end] = self._placeholder(secret)
        return bytes(hidden)

    def _behind_name(self, line: bytes, start: int, end: int) -> int:
        first, _, rest = line[start:end].partition(b" ")
        return end - len(rest.lstrip()) if first in self._names else start

    def _placeholder(self, secret: bytes) -> bytes:
        number = self._numbers.setdefault(secret, len(self._numbers) + 1)
        return (b"%d-secret" % number).ljust(len(secret), b"x")[: len(secret)]


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
        self._secrets = _Secrets(names.values())
        self._begun: dict[int, bytes] = {}
        """By the connections that have sent a part of a line, that part: its rest is written as bytes too."""

    def steps(self, log: Sequence[LoggedTurn]) -> Iterator[Step]:
        turns = list(_without_implied_connects(list(_with_whole_lines(log))))
        rests = _rests_of_lines(turns)
        for at, turn in enumerate(turns):
            yield self._action(turn, rests[at])
            for number, data in sorted(turn.received.items()):
                yield from self._receives(self._names[number], bytes(data), turn.at)
            for number, ending in sorted(turn.ends.items()):
                yield Ends(self._names[number], ending)
            if not turn.had_no_effect and at + 1 < len(turns):
                yield Blank()

    def _action(self, turn: LoggedTurn, rest_of_line: bytes) -> Step:
        match turn.action:
            case Connected(number):
                return Connects(self._names[number])
            case Sent(number, data):
                return self._send(number, data, rest_of_line)
            case Acted(number, done):
                return Acts(self._names[number], done)
            case Waited(seconds):
                return Wait(math.ceil((seconds + WAIT_MARGIN_S) * 10) * 100_000)
            case action:
                return assert_never(action)

    def _send(self, number: int, data: bytes, rest_of_line: bytes) -> Sending:
        name, begun = self._names[number], self._begun.pop(number, b"")
        if not data.endswith(b"\n"):
            self._begun[number] = split_lines(begun + data)[-1]
        # A password can come in pieces, and is known only from its whole line.
        hidden = self._secrets.hide_sent(begun + data + rest_of_line)
        data = hidden[len(begun) : len(begun) + len(data)]
        line = as_receive(name, data, self._eol)
        if begun or not isinstance(line, Receive):
            return SendBytes(name, data)
        pattern = self._secrets.pattern(line.text)
        return Send(name, line.text) if pattern is None else SendPattern(name, pattern)

    def _receives(self, name: str, data: bytes, at: float) -> Iterator[Receiving]:
        for piece in split_lines(self._secrets.hide_known(data)):
            line = as_receive(name, piece, self._eol)
            pattern = None
            if isinstance(line, Receive):
                pattern = _pattern(line.text, [*_times(line.text, at), *self._secrets.captures(line.text)])
            yield line if pattern is None else ReceivePattern(name, pattern)


def _rests_of_lines(turns: Sequence[LoggedTurn]) -> list[bytes]:
    """For each turn that sends a line without its end, the rest of it, which the connection sends later; otherwise nothing."""
    found = [b""] * len(turns)
    following = dict[int, bytes]()
    for at, turn in reversed(list(enumerate(turns))):
        if isinstance(turn.action, Sent):
            number, data = turn.action.connection, turn.action.data
            if not data.endswith(b"\n"):
                found[at] = following.get(number, b"")
            following[number] = split_lines(data + found[at])[0]
    return found


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


def _times(text: str, at: float) -> Iterator[tuple[int, int, Capture]]:
    """Where there are numbers that are the time of day."""
    for found in _TIMESTAMP.finditer(text):
        digits = found.group()
        if abs(float(digits) / 10 ** (len(digits) - 10) - at) <= _TIME_OF_DAY_TOLERANCE_S:
            yield *found.span(), Capture(ANONYMOUS, Kind.INT)


def _pattern(text: str, captures: Sequence[tuple[int, int, Capture]]) -> Pattern | None:
    """The line with these captures in these places; None if there are none. Of two that overlap, the one that begins first
    is taken: a token can contain the time."""
    parts: list[str | Capture] = []
    end = 0
    for start, stop, capture in sorted(captures, key=lambda one: one[0]):
        if start >= end:
            parts += [text[end:start], capture]
            end = stop
    return Pattern((*parts, text[end:])) if parts else None
