"""Everything that a server could have got wrong in a conversation that went well, one mutation for each.

Pure: the verdict of a clean run in, mutations out, the same ones in the same order every time. Knows no sockets.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.language.steps import ConnectionAction, ReceivePattern
from harness.playing.comparison import Expectation
from harness.playing.verdict import ClientTurn, TurnReport, Verdict
from harness.stage.connection import End

STRANGE, STRANGER = b"??", b"!!"
"""What a word is altered to: two characters that no number, name or identifier is made of."""

_WORD = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")


class Kind(enum.Enum):
    """What a server can get wrong about one line."""

    DROPPED = "dropped"
    DOUBLED = "doubled"
    ALTERED = "altered"
    SWAPPED = "swapped with the next"
    DELAYED = "delayed by a turn"
    MISSENT = "sent to {other} instead"
    LEAKED = "sent to {other} too"


@dataclass(frozen=True, slots=True)
class Span:
    """Which bytes of a line are altered, and to what."""

    start: int
    end: int
    becomes: bytes


@dataclass(frozen=True, slots=True)
class Mutation:
    """One thing got wrong about one line: the `index`th that `client` received in the turn of that number."""

    kind: Kind
    turn: int
    client: str
    index: int
    wire: bytes
    file: str
    line: int
    expected: Expectation | None
    other: str = ""
    span: Span | None = None

    @property
    def text(self) -> str:
        """What is done to the line."""
        return self.kind.value.format(other=self.other)

    def altered(self, wire: bytes) -> bytes:
        """The line with the span in it changed."""
        assert self.span is not None
        return wire[: self.span.start] + self.span.becomes + wire[self.span.end :]


def mutations(clean: Verdict) -> tuple[Mutation, ...]:
    """Every mutation of this run that changes what somebody hears; those that change nothing are left out."""
    found: list[Mutation] = []
    not_reading: frozenset[str] = frozenset()
    for at, turn in enumerate(clean.turns):
        not_reading = _not_reading_after(turn, not_reading)
        following = clean.turns[at + 1] if at + 1 < len(clean.turns) else None
        for client_turn in turn.client_turns:
            recipients = tuple(
                other.client
                for other in turn.client_turns
                if other.client not in not_reading | {client_turn.client} and other.end is End.OPEN
            )
            later = following is not None and client_turn.end is End.OPEN
            found.extend(_of_one(turn, client_turn, recipients, later, clean.eol))
    return tuple(found)


def _not_reading_after(turn: TurnReport, not_reading: frozenset[str]) -> frozenset[str]:
    """Who does not read any more: nothing can be sent to them that anybody would see."""
    now = set(not_reading)
    for action in turn.actions:
        if action.client is not None and action.text == ConnectionAction.STOPS_READING.value:
            now.add(action.client)
        elif action.client is not None and action.text == ConnectionAction.READS_AGAIN.value:
            now.discard(action.client)
    return frozenset(now)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One line as it was received, and what the script has awaited there."""

    wire: bytes
    expected: Expectation


def _of_one(
    turn: TurnReport, client_turn: ClientTurn, recipients: Sequence[str], later: bool, eol: bytes
) -> Iterator[Mutation]:
    pieces = list(_pieces(client_turn))
    for index, piece in enumerate(pieces):

        def one(kind: Kind, other: str = "", span: Span | None = None) -> Mutation:
            return Mutation(
                kind, turn.number, client_turn.client, index, piece.wire,  # noqa: B023  # used at once
                piece.expected.file, piece.expected.line, piece.expected, other, span,  # noqa: B023
            )  # fmt: skip

        yield one(Kind.DROPPED)
        yield one(Kind.DOUBLED)
        for span in _spans(piece, eol):
            yield one(Kind.ALTERED, span=span)
        if index + 1 < len(pieces) and not _same_swapped(piece, pieces[index + 1]):
            yield one(Kind.SWAPPED)
        if later:
            yield one(Kind.DELAYED)
        if recipients:
            yield one(Kind.MISSENT, recipients[0])
        for other in recipients:
            yield one(Kind.LEAKED, other)


def lines(data: bytes) -> list[bytes]:
    """What was received, cut after each line end; the last piece may have none."""
    return data.splitlines(keepends=True) if b"\r" not in data else re.findall(rb"[^\n]*\n|[^\n]+", data)


def _pieces(client_turn: ClientTurn) -> Iterator[_Piece]:
    entries = [
        (entry.expected, entry.received) for entry in client_turn.entries if entry.expected and entry.received
    ]
    starts: list[tuple[int, Expectation]] = []
    at = 0
    for expected, received in entries:
        starts.append((at, expected))
        at += len(received)
    at = 0
    for wire in lines(b"".join(received for _, received in entries)):
        # A line may be awaited in several pieces; it belongs to the one in which it begins.
        yield _Piece(wire, [expected for start, expected in starts if start <= at][-1])
        at += len(wire)


def _same_swapped(piece: _Piece, following: _Piece) -> bool:
    """Whether the two may change places and nobody could tell, by the script's own word or by any other means."""
    if piece.wire == following.wire:
        return True
    if not (piece.wire.endswith(b"\n") and following.wire.endswith(b"\n")):
        return False
    group = piece.expected.group
    if group is None or group != following.expected.group:
        return False
    # In `in any order, the same for b c:` the lines have no client of their own, and their order matters: all of
    # those who hear them must agree on one.
    return piece.expected.step.client != ""


def _spans(piece: _Piece, eol: bytes) -> Iterator[Span]:
    """The places of a line worth altering: one of its words, every word that a pattern may not look at, its end."""
    end = piece.wire.endswith(eol)
    body = piece.wire[: -len(eol)] if end else piece.wire.rstrip(b"\r\n")
    words = [_strange(found) for found in _WORD.finditer(body)] or [Span(0, len(body), STRANGE)]
    loose = [span for span in words if _accepts(piece, span, eol)]
    yield from loose
    if len(loose) < len(words):
        yield next(span for span in reversed(words) if span not in loose)
    if end:
        other = b"\n" if eol == b"\r\n" else b"\r\n"
        yield Span(len(body), len(piece.wire), other)


def _strange(found: re.Match[bytes]) -> Span:
    return Span(found.start(), found.end(), STRANGER if found.group() == STRANGE else STRANGE)


def _accepts(piece: _Piece, span: Span, eol: bytes) -> bool:
    """Whether the pattern, where it knows nothing yet, takes the line with this word altered. A literal never does, so
    that one altered word speaks for all; a pattern that does not will not do so where it knows more."""
    if not isinstance(piece.expected.step, ReceivePattern):
        return False
    wire = piece.wire[: span.start] + span.becomes + piece.wire[span.end :]
    found = piece.expected.match_end(wire, 0, {}, eol)
    return found is not None and found[0] == len(wire)
