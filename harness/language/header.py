"""What the header of a transcript can say, as frozen data. Pure; the steps below it are in steps.py."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def no_line() -> Any:
    """The field for the line of a file in which something stands: no part of what it says."""
    return field(default=0, compare=False, kw_only=True, repr=False)


class Eol(enum.Enum):
    """What ends a line on the wire."""

    LF = "lf"
    CRLF = "crlf"

    @property
    def wire(self) -> bytes:
        return b"\n" if self is Eol.LF else b"\r\n"


@dataclass(frozen=True, slots=True)
class Title:
    text: str
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Server:
    """What the target is asked for."""

    endpoints: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Needs:
    features: tuple[str, ...]
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class FenceLine:
    """A line that the server must answer, and the answers that count."""

    question: str
    answers: tuple[str, ...]
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class LineEnd:
    eol: Eol
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Within:
    """How long any one thing may take, in real time."""

    microseconds: int
    line: int = no_line()


Setting = Title | Server | Needs | FenceLine | LineEnd | Within
