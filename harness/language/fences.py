"""The fence line: its answer, or its delivery to other clients, proves that the server has handled everything before it.

Text in, bytes and places in bytes out. The stage decides when the line is sent, and by which clients.

- `${token}` is a new word each time, so that an answer with it cannot be mistaken for another.
- `${_}` in an answer matches anything up to the end of the line.
- Backslash escapes are decoded as in byte lines, for answers of more than one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.language.escapes import unescape
from harness.language.patterns import TOKEN, WILDCARD
from harness.language.problems import LineError

_HEARD, _ANSWERED, _OR = " heard as ", " -> ", " | "
_NONE = "none"
_FORMS = "PING -> PONG   or   PING -> PONG | ERR login first   or   MSG ${token} heard as MSG ${_} ${token}   or   none"


@dataclass(frozen=True, slots=True)
class Fence:
    """A line and its possible answers, or a line that the other clients hear. An empty one means no fence, whatever the options
    say.

    The sender of a line that others hear receives nothing, or always one of the `answers`, or one of the `refusals` if the
    others do not hear it.
    """

    question: str = ""
    answers: tuple[str, ...] = ()
    heard: str = ""
    """The pattern of the line as the others hear it."""
    refusals: tuple[str, ...] = ()
    spelled: tuple[str, ...] = field(default=(), compare=False, kw_only=True, repr=False)
    """The answers and refusals as an adapter spells them for the script, if one does."""
    line: int = field(default=0, compare=False, kw_only=True, repr=False)
    """The line number in the file, or 0."""

    def __post_init__(self) -> None:
        effects = self.answers or self.heard
        if bool(self.question) is not bool(effects) or not all((*self.answers, *self.refusals)):
            raise ValueError(f"a fence is a line and its answers, such as PING -> PONG, not {self}")
        if self.refusals and (self.answers or not self.heard):
            raise ValueError("only a line that others hear can be refused, and not if it is always answered")
        if self.heard and (TOKEN not in self.question or TOKEN not in self.heard):
            raise ValueError("what others hear is known by its ${token}, which the line has as well")
        if b"\n" in unescape(self.heard):
            raise ValueError("what others hear is one line")

    @classmethod
    def parse(cls, text: str) -> Fence:
        """From `PING -> PONG | ERR must-login-first` or `MSG ${token} heard as MSG ${_} ${token}`, or `none`; LineError if it
        is none of these."""
        if text == _NONE:
            return cls()
        question, _, answers = text.partition(_ANSWERED)
        try:
            return cls._parse_heard(text) if _HEARD in question else cls(question, _choices(answers))
        except ValueError as wrong:
            raise LineError(0, str(wrong), _FORMS) from None

    @classmethod
    def _parse_heard(cls, text: str) -> Fence:
        question, _, rest = text.partition(_HEARD)
        heard, arrow, answers = rest.partition(_ANSWERED)
        refusals = ""
        if not arrow:
            heard, _, refusals = rest.partition(_OR)
        if not question or not heard.strip():
            raise ValueError("a line without what others hear")
        said = _choices(answers) if arrow else (), _choices(refusals) if refusals else ()
        return cls(question, said[0], heard, said[1])

    def __str__(self) -> str:
        text = self.question + (f"{_HEARD}{self.heard}" if self.heard else "")
        if self.answers:
            text += f"{_ANSWERED}{_OR.join(self.answers)}"
        return "".join((text, *(f"{_OR}{one}" for one in self.refusals))) or _NONE

    @property
    def replies(self) -> tuple[str, ...]:
        """All answers and refusals that the sender can receive, as a script sees them."""
        return self.spelled or self.answers + self.refusals

    def wire(self, token: str) -> bytes:
        """The question as it is sent, without a line end."""
        return unescape(self.question.replace(TOKEN, token))

    def find_answers(
        self, inbox: bytes | bytearray, start: int, token: str, unended: Iterable[bytes] = ()
    ) -> Iterator[Place]:
        """The place of each answer: at the beginning of a line, or of the input after the question. Only telnet sequences and
        expected bytes without a line end, `unended`, can come before it.
        An answer is a line or, if written with a line end, exactly those bytes."""
        return _at_line_starts(_pattern(token, self.replies, unended), inbox, start)

    def find_own_answer(
        self, inbox: bytes | bytearray, start: int, token: str, unended: Iterable[bytes] = ()
    ) -> Place | None:
        """The place of an answer with a token, which cannot be anything else."""
        return (
            next(_at_line_starts(_pattern(token, self._own, unended), inbox, start), None)
            if self._own
            else None
        )

    def find_own_behind(self, inbox: bytes | bytearray, start: int, token: str) -> Place | None:
        """The place of an answer with a token, whatever precedes it."""
        found = _pattern(token, self._own, (), False).search(inbox, start) if self._own else None
        return _place(found) if found else None

    def find_at_end(self, line: bytes, token: str) -> Place | None:
        """The place of an answer at the end of this line, after other bytes."""
        found = (_place(one) for one in _pattern(token, self.replies, (), False).finditer(line + b"\n"))
        return next((place for place in found if place[0] > 0 and sum(place) > len(line)), None)

    @property
    def has_lookalikes(self) -> bool:
        """Whether a line of another kind can look like an answer: like one without a token."""
        return any(TOKEN not in answer for answer in self.replies)

    def lookalikes(self, data: bytes) -> int:
        """How many byte strings in this data look like an answer without a token."""
        others = [answer for answer in self.replies if TOKEN not in answer]
        return sum(1 for _ in _at_line_starts(_pattern("", others), data, 0)) if others else 0

    def heard_line(self, tokens: bytes) -> HeardLine:
        """Finds the line that others hear, with a token that the regular expression `tokens` matches."""
        return HeardLine(unescape(self.heard), tokens)

    @property
    def _own(self) -> list[str]:
        return [answer for answer in self.replies if TOKEN in answer]


@dataclass(frozen=True, slots=True)
class Heard:
    """A fence line of another client, at the end of a line."""

    token: str
    starts: tuple[int, ...]
    """The offsets at which it can begin, in order: more than one if the text for a `${_}` can contain what precedes it."""
    likely: int
    """The first of them from which the text for each `${_}` ends where what follows it comes first; else the first of all."""


class HeardLine:
    """Finds the line that others hear. Any bytes without a line end can precede it, because the token makes it unique. If
    it begins with any text, it begins where the line does."""

    def __init__(self, heard: bytes, tokens: bytes) -> None:
        before, *others = heard.split(TOKEN.encode())
        self._first, *self._pieces = before.split(WILDCARD.encode())
        behind = (_with_wildcards(piece, b"piece_%d" % at) for at, piece in enumerate(others))
        self._rest = re.compile(rb"(?P<token>%b)%b\r?\n" % (tokens, b"(?P=token)".join(behind)))

    def find(self, line: bytes) -> Heard | None:
        """The fence line in this line, which has its end."""
        at = 0
        while found := self._rest.search(line, at):
            before, at = line[: found.start()], found.start() + 1
            starts = self._starts(before)
            if starts:
                likely = next((start for start in starts if self._ends_early(before, start)), starts[0])
                return Heard(found["token"].decode(), starts, likely)
        return None

    def _starts(self, before: bytes) -> tuple[int, ...]:
        """The offsets in what precedes a token."""
        if not before.endswith((self._first, *self._pieces)[-1]):
            return ()
        if not self._pieces:
            return (len(before) - len(self._first),)
        end = len(before) - len(self._pieces[-1])
        for piece in reversed(self._pieces[:-1]):
            end = before.rfind(piece, 0, end)
            if end < 0:
                return ()
        begin = before.rfind(b"\r", 0, end) + 1
        if not self._first:
            return (begin,)
        starts = []
        while (begin := before.find(self._first, begin, end)) >= 0:
            starts.append(begin)
            begin += 1
        return tuple(starts)

    def _ends_early(self, before: bytes, start: int) -> bool:
        at = start + len(self._first)
        for piece in self._pieces:
            at = before.find(piece, at) + len(piece)
        return at == len(before)


Place = tuple[int, int]
"""An offset and a number of bytes."""

_MOST_UNENDED = 4
"""How many expected byte sequences without a line end can precede one answer."""
_TELNET = rb"\xff(?:[\xfb-\xfe][\x00-\xff]|\xfa(?:[^\xff]|\xff\xff)*\xff\xf0|[\xf1-\xf9])"
"""One command, with its option; FF FF is a byte of data."""


def _pattern(
    token: str, answers: Iterable[str], unended: Iterable[bytes] = (), at_line_start: bool = True
) -> re.Pattern[bytes]:
    ways = []
    for at, answer in enumerate(answers):
        wire = unescape(answer.replace(TOKEN, token))
        end = b"" if b"\n" in wire else rb"\r?\n"
        ways.append(_with_wildcards(wire, b"way_%d" % at) + end)
    # Bounded and without an overlap, so that no inbox takes long to search.
    known = b"|".join(re.escape(one) for one in unended if not re.fullmatch(rb"(?:%b)*" % _TELNET, one))
    before = rb"(?:(?:%b)(?:%b)*){0,%d}" % (known, _TELNET, _MOST_UNENDED) if known else b""
    where = rb"(?<=\n)" if at_line_start else b""
    return re.compile(rb"%b(?:%b)*%b(?P<answer>%b)" % (where, _TELNET, before, b"|".join(ways)))


def _with_wildcards(wire: bytes, name: bytes) -> bytes:
    """The regular expression of these bytes, with any text for each wildcard. The text for one that is not the last ends for
    good where what follows it comes first: a server decides how long a line is, and must not decide how long a comparison
    takes."""
    first, *others = wire.split(WILDCARD.encode())
    out = [re.escape(first)]
    for at, piece in enumerate(others, 1):
        if at < len(others) and not re.search(rb"[\r\n]", piece):
            group = b"%b_%d" % (name, at)
            out.append(rb"(?=(?P<%b>[^\r\n]*?%b))(?P=%b)" % (group, re.escape(piece), group))
        else:
            out.append(rb"[^\r\n]*" + re.escape(piece))
    return b"".join(out)


def _choices(answers: str) -> tuple[str, ...]:
    choices = tuple(answers.split(_OR))
    if not all(choice and choice == choice.strip() for choice in choices):
        raise ValueError("a line without its answer")
    return choices


def _at_line_starts(pattern: re.Pattern[bytes], inbox: bytes | bytearray, start: int) -> Iterator[Place]:
    for found in pattern.finditer(b"\n" + inbox[start:]):
        at, size = _place(found)
        yield start + at - 1, size


def _place(found: re.Match[bytes]) -> Place:
    return found.start("answer"), found.end("answer") - found.start("answer")
