"""The interface between the session and a terminal. `screen` and `plain` are the two terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from geventchat.client.render import Line


@dataclass(frozen=True, slots=True)
class LineEntered:
    """A line was typed, or came through a pipe."""

    text: str


@dataclass(frozen=True, slots=True)
class LineUnreadable:
    """A line of the input cannot be sent; `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class InputEnded:
    """Ctrl-D, or the end of a pipe."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Ctrl-C."""


@dataclass(frozen=True, slots=True)
class OutputClosed:
    """The output is closed, as by `| head`. Nothing can be shown any more."""


TerminalEvent = LineEntered | LineUnreadable | InputEnded | Interrupted | OutputClosed
TerminalHandler = Callable[[TerminalEvent], None]


class SessionView(Protocol):
    """The session, as a terminal sees it."""

    @property
    def prompt(self) -> str:
        """The text before the input."""

    @property
    def asking(self) -> bool:
        """True while the next line answers a question, which is the prompt."""

    @property
    def others(self) -> Iterable[str]:
        """The people who can be addressed."""

    def accepts(self, text: str) -> bool:
        """True when this input can be handled now; otherwise it stays in the input line."""


class Terminal(Protocol):
    """The source of input lines, and where output is shown.

    Events are handled before the call returns, so a terminal emits none while the session calls it.
    """

    @property
    def interactive(self) -> bool:
        """True for a person, who can answer questions and wait for a reconnect; False for a script."""

    @property
    def echoes_input(self) -> bool:
        """True when typed lines stay on the screen by themselves."""

    def open(self, view: SessionView) -> None:
        """The session begins."""

    def ask(self) -> None:
        """Ask the question that is the prompt now; the next line is the answer."""

    def request_line(self) -> None:
        """The session is ready for one more line."""

    def show(self, line: Line) -> None:
        """Show a line above the input."""

    def show_error(self, text: str) -> None:
        """Show that something failed."""

    def ring(self) -> None:
        """Ring the bell, unless it is off."""

    def end_input_line(self) -> None:
        """Begin a new line after the `^C` that Ctrl-C leaves on the screen."""

    async def close(self) -> None:
        """Restore the terminal."""
