"""The mistakes that a server could have made in a conversation that went well, and their application to a replay.

- `mutations` is pure: the same passed verdict gives the same mutations in the same order.
- A mutation changes one line that one client receives in one turn.
- Invisible mutations are left out: equal lines that change places, lines whose order is free, and lines for clients that
  have left or do not read. So is what a script tolerates: an optional line that is missing, a line that could be any
  other, a second copy before `any lines until`, a line of an `either:` that another of its clients receives instead.
- `Mutator` changes the inboxes at the end of each turn, after the fence: nothing waits for a line that it takes away.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.language.exhaustive import assert_never
from harness.language.steps import ConnectionAction, ReceivePattern, ReceiveUntil
from harness.playing.expectations import Expectation
from harness.playing.verdict import ClientTurn, TurnReport, Verdict
from harness.stage.connection import End
from harness.stage.stage import Client

_ALTERED_WORD, _OTHER_ALTERED_WORD = b"??", b"!!"
"""The replacement of a word: two characters that no number, name or identifier contains."""

_WORD = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")


class MutationKind(enum.Enum):
    """The kinds of mistakes about one line."""

    DROPPED = "dropped"
    DUPLICATED = "sent twice"
    ALTERED = "altered"
    SWAPPED = "swapped with the next line"
    DELAYED = "delayed by one turn"
    MISDIRECTED = "sent to {other} instead"
    LEAKED = "also sent to {other}"


@dataclass(frozen=True, slots=True)
class Alteration:
    """The bytes of a line that are replaced."""

    start: int
    end: int
    replacement: bytes

    def of(self, data: bytes) -> bytes:
        """The line with the alteration."""
        return data[: self.start] + self.replacement + data[self.end :]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mistake about the `index`th line that `client` receives in this turn."""

    kind: MutationKind
    turn: int
    client: str
    index: int
    data: bytes
    """The line as it was received."""
    expected: Expectation
    other: str = ""
    alteration: Alteration | None = None

    @property
    def text(self) -> str:
        """The mistake, in words."""
        return self.kind.value.format(other=self.other)


def mutations(passed: Verdict) -> tuple[Mutation, ...]:
    """Every visible mutation."""
    found: list[Mutation] = []
    not_reading: frozenset[str] = frozenset()
    for at, turn in enumerate(passed.turns):
        not_reading = _not_reading_after(turn, not_reading)
        is_last = at + 1 == len(passed.turns)
        for client_turn in turn.client_turns:
            others = tuple(
                other.client
                for other in turn.client_turns
                if other.client not in not_reading | {client_turn.client} and other.end is End.OPEN
            )
            can_delay = not is_last and client_turn.end is End.OPEN
            found.extend(_of_client(turn, client_turn, others, can_delay, passed.eol))
    return tuple(found)


def _not_reading_after(turn: TurnReport, before: frozenset[str]) -> frozenset[str]:
    now = set(before)
    for action in turn.actions:
        if action.client is not None and action.on_connection is ConnectionAction.STOPS_READING:
            now.add(action.client)
        elif action.client is not None and action.on_connection is ConnectionAction.READS_AGAIN:
            now.discard(action.client)
    return frozenset(now)


@dataclass(frozen=True, slots=True)
class _Line:
    data: bytes
    expected: Expectation
    of_any_text: bool = False


def optional_lines(passed: Verdict) -> int:
    """The number of lines that were received and could have been missing."""
    entries = (entry for turn in passed.turns for one in turn.client_turns for entry in one.entries)
    return sum(1 for one in entries if one.received and one.expected and one.expected.optional)


def _of_client(
    turn: TurnReport, client_turn: ClientTurn, others: Sequence[str], can_delay: bool, eol: bytes
) -> Iterator[Mutation]:
    lines = list(_lines_of(client_turn))
    for index, line in enumerate(lines):

        def mutation(kind: MutationKind, other: str = "", alteration: Alteration | None = None) -> Mutation:
            return Mutation(
                kind, turn.number, client_turn.client, index, line.data, line.expected, other, alteration,  # noqa: B023
            )  # fmt: skip

        if line.of_any_text:
            continue
        if not line.expected.optional:
            yield mutation(MutationKind.DROPPED)
        if index + 1 == len(lines) or not isinstance(lines[index + 1].expected.step, ReceiveUntil):
            yield mutation(MutationKind.DUPLICATED)
        for alteration in _alterations(line, eol):
            yield mutation(MutationKind.ALTERED, alteration=alteration)
        if index + 1 < len(lines) and not _order_is_free(line, lines[index + 1]):
            yield mutation(MutationKind.SWAPPED)
        if can_delay:
            yield mutation(MutationKind.DELAYED)
        choice = line.expected.choice
        to = [other for other in others if choice is None or other not in choice.receiving]
        if to:
            yield mutation(MutationKind.MISDIRECTED, to[0])
        for other in others:
            yield mutation(MutationKind.LEAKED, other)


def split_lines(data: bytes) -> list[bytes]:
    """The data, cut behind each line feed; the last piece can lack one."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def _lines_of(client_turn: ClientTurn) -> Iterator[_Line]:
    """The lines that the client received; a line that is expected in several pieces belongs to the piece that begins it."""
    entries = [one for one in client_turn.entries if one.expected and one.received]
    starts: list[tuple[int, Expectation, bool]] = []
    at = 0
    for entry in entries:
        if entry.expected is not None:
            starts.append((at, entry.expected, entry.passed_over or entry.unread))
        at += len(entry.received or b"")
    at = 0
    for data in split_lines(b"".join(one.received or b"" for one in entries)):
        yield _Line(data, *[piece[1:] for piece in starts if piece[0] <= at][-1])
        at += len(data)


def _order_is_free(line: _Line, following: _Line) -> bool:
    """Whether it would be invisible if the two lines changed places."""
    if line.data == following.data:
        return True
    if not (line.data.endswith(b"\n") and following.data.endswith(b"\n")):
        return False
    group = line.expected.group
    if group is None or group != following.expected.group:
        return False
    # In `in any order, the same for b c:` lines have no client, and all who hear them must agree about the order.
    return line.expected.step.client != ""


def _alterations(line: _Line, eol: bytes) -> Iterator[Alteration]:
    """Every word that a pattern by itself would not notice, one word that is noticed, and the line end."""
    has_end = line.data.endswith(eol)
    body = line.data[: -len(eol)] if has_end else line.data.rstrip(b"\r\n")
    words = [_altered_word(found) for found in _WORD.finditer(body)] or [
        Alteration(0, len(body), _ALTERED_WORD)
    ]
    loose = [word for word in words if _accepted(line, word, eol)]
    yield from loose
    if len(loose) < len(words):
        yield next(word for word in reversed(words) if word not in loose)
    if has_end:
        yield Alteration(len(body), len(line.data), b"\n" if eol == b"\r\n" else b"\r\n")


def _altered_word(found: re.Match[bytes]) -> Alteration:
    replacement = _OTHER_ALTERED_WORD if found.group() == _ALTERED_WORD else _ALTERED_WORD
    return Alteration(found.start(), found.end(), replacement)


def _accepted(line: _Line, alteration: Alteration, eol: bytes) -> bool:
    return _fits(line.expected, alteration.of(line.data), eol)


def _fits(expected: Expectation, data: bytes, eol: bytes) -> bool:
    """Whether a pattern without any bindings matches this line; with bindings it can only match less."""
    if not isinstance(expected.step, (ReceivePattern, ReceiveUntil)):
        return False
    return expected.accepts(data, {}, eol)


# --- in a replay --------------------------------------------------------------------------------------------


class Mutator:
    """Applies one mutation to one play, as its inbox filter."""

    def __init__(self, mutation: Mutation, eol: bytes) -> None:
        self._mutation = mutation
        self._eol = eol
        self._delayed = b""
        self.applied = False
        """Whether the line came that was to be mutated."""
        self.altered: bytes | None = None
        """The altered line."""

    def __call__(self, turn: int, clients: Mapping[str, Client]) -> None:
        client = clients.get(self._mutation.client)
        if client is None:
            return
        if self._delayed:
            client.inbox[:0] = self._delayed
            self._delayed = b""
        if turn != self._mutation.turn:
            return
        lines = split_lines(bytes(client.inbox))
        at = self._place(lines)
        if at is not None:
            self.applied = True
            self._mutate(lines, at, clients)
            client.inbox[:] = b"".join(lines)

    def _place(self, lines: list[bytes]) -> int | None:
        """Where the mutated line is in this play, which can have more lines before it, or fewer; None if it did not come."""
        index, expected = self._mutation.index, self._mutation.expected
        if expected.group is not None:  # any line of the group will do
            return index if index < len(lines) else None
        found = (
            at
            for at, line in enumerate(lines)
            if line == self._mutation.data or _fits(expected, line, self._eol)
        )
        return min(found, key=lambda at: abs(at - index), default=None)

    def _mutate(self, lines: list[bytes], at: int, clients: Mapping[str, Client]) -> None:
        mutation = self._mutation
        match mutation.kind:
            case MutationKind.DROPPED:
                del lines[at]
            case MutationKind.DUPLICATED:
                lines.insert(at, lines[at])
            case MutationKind.ALTERED:
                assert mutation.alteration is not None
                lines[at] = self.altered = mutation.alteration.of(lines[at])
            case MutationKind.SWAPPED:
                lines[at : at + 2] = reversed(lines[at : at + 2])
            case MutationKind.DELAYED:
                self._delayed = lines.pop(at)
            case MutationKind.MISDIRECTED:
                clients[mutation.other].inbox += lines.pop(at)
            case MutationKind.LEAKED:
                clients[mutation.other].inbox += lines[at]
            case kind:
                assert_never(kind)
