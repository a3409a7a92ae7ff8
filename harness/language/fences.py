"""The fence line: what is sent to a server so that its answer tells that everything before it has been handled.

Text in, bytes and places in bytes out: when it is sent, and to whom, is the business of the stage.

- `${token}` stands for a word that is new each time; with it an answer cannot be taken for another.
- `${_}` in an answer stands for anything up to the end of the line.
- Backslash escapes as in byte lines are decoded, for answers of more than one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.language.escapes import unescape
from harness.language.patterns import TOKEN, WILDCARD
from harness.language.problems import LineError

_ANSWERED, _OR = " -> ", " | "
_NONE = "none"
_FORMS = "PING -> PONG   or   PING -> PONG | ERR login first   or   none"


@dataclass(frozen=True, slots=True)
class Fence:
    """A line that the server must answer, and the answers that count. Without a line: no fence, whatever else says so."""

    question: str = ""
    answers: tuple[str, ...] = ()
    line: int = field(default=0, compare=False, kw_only=True, repr=False)
    """The line of the file that says so, or 0."""

    def __post_init__(self) -> None:
        if bool(self.question) is not bool(self.answers) or not all(self.answers):
            raise ValueError(f"a fence is a line and its answers, such as PING -> PONG, not {self}")

    @classmethod
    def parse(cls, text: str) -> Fence:
        """From `PING -> PONG | ERR must-login-first`, or `none`; LineError if it is neither."""
        if text == _NONE:
            return cls()
        question, _, answers = text.partition(_ANSWERED)
        choices = tuple(answers.split(_OR))
        if not question or not all(choice and choice == choice.strip() for choice in choices):
            raise LineError(0, "a line without its answer", _FORMS)
        return cls(question, choices)

    def __str__(self) -> str:
        return f"{self.question}{_ANSWERED}{_OR.join(self.answers)}" if self.question else _NONE

    def wire(self, token: str) -> bytes:
        """The question as it is sent, without a line end."""
        return unescape(self.question.replace(TOKEN, token))

    def find_answers(self, inbox: bytes | bytearray, start: int, token: str) -> Iterator[tuple[int, int]]:
        """Where each answer stands and how long it is: at the beginning of a line, or of what came after the question.
        An answer is a line or, written with a line end in it, exactly those bytes."""
        return _at_line_starts(_pattern(token, self.answers), inbox, start)

    def find_own_answer(self, inbox: bytes | bytearray, start: int, token: str) -> tuple[int, int] | None:
        """The same of an answer with a token, which cannot be anything else."""
        own = [answer for answer in self.answers if TOKEN in answer]
        return next(_at_line_starts(_pattern(token, own), inbox, start), None) if own else None


def _pattern(token: str, answers: Iterable[str]) -> re.Pattern[bytes]:
    ways = []
    for answer in answers:
        wire = unescape(answer.replace(TOKEN, token))
        end = b"" if b"\n" in wire else rb"\r?\n"
        ways.append(rb"[^\r\n]*".join(map(re.escape, wire.split(WILDCARD.encode()))) + end)
    return re.compile(b"|".join(ways))


def _at_line_starts(
    pattern: re.Pattern[bytes], inbox: bytes | bytearray, start: int
) -> Iterator[tuple[int, int]]:
    for found in pattern.finditer(inbox, start):
        if found.start() == start or inbox[found.start() - 1] == 0x0A:
            yield found.start(), found.end() - found.start()
