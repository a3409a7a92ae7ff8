"""What a session needs of the place where a person or a script sits.

The interface alone: `screen` and `plain` are the two that there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from geventchat.client.notes import Note


@dataclass(frozen=True, slots=True)
class Typed:
    """A line was typed, or came in through a pipe."""

    line: str


@dataclass(frozen=True, slots=True)
class NotText:
    """A line of the input cannot be sent; `why` says what is wrong with it."""

    why: str


@dataclass(frozen=True, slots=True)
class InputEnded:
    """Ctrl-D, or the end of the pipe."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Deaf:
    """Nobody reads any more what is shown (`| head` has seen enough)."""


TerminalEvent = Typed | NotText | InputEnded | Interrupted | Deaf
Sink = Callable[[TerminalEvent], None]


class WalkedOut(Exception):
    """The person left instead of answering a question."""

    def __init__(self, *, interrupted: bool) -> None:
        super().__init__("left at a question")
        self.interrupted = interrupted


@dataclass(frozen=True, slots=True)
class Scene:
    """What a terminal may look at while a session runs."""

    name: Callable[[], str]
    people: Callable[[], list[str]]
    # Whether a typed line can be dealt with now. Where not, a terminal that can leaves it in the input line.
    takes: Callable[[str], bool]


class Terminal(Protocol):
    """Where notes are shown and lines come from."""

    @property
    def has_person(self) -> bool:
        """Whether someone sits there who can be asked and who waits for a lost connection to return."""

    @property
    def keeps_typed_lines(self) -> bool:
        """Whether what was typed stays on the screen by itself."""

    async def ask(self, question: str) -> str:
        """The answer to a question. Raises `WalkedOut`."""

    def open(self, scene: Scene) -> None:
        """From now on lines are taken, the first at once."""

    def next_line(self) -> None:
        """The last line was dealt with: the next one is welcome."""

    def show(self, note: Note) -> None:
        """Show it, above what is being typed."""

    def ring(self) -> None:
        """Ring the bell, unless the person wants it quiet."""

    def interrupted(self) -> None:
        """The process was interrupted from the keyboard."""

    async def close(self) -> None:
        """Give the terminal back as it was. Notes can still be shown."""
