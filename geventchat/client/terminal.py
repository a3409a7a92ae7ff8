"""The interface between the session and a terminal. `screen` and `plain` are the two terminals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from geventchat.client.conversation import Conversation
from geventchat.client.display import Display
from geventchat.client.editor import EditorView


class LineEntered(NamedTuple):
    """A line was typed, or came through a pipe; with a paste it can be several. `literal`: it is text, never a command."""

    text: str
    literal: bool = False


class LineUnreadable(NamedTuple):
    """A line of the input cannot be sent; `reason` says why."""

    reason: str


class InputEnded(NamedTuple):
    """Ctrl-D, or the end of a pipe."""


class Interrupted(NamedTuple):
    """Ctrl-C on an empty line."""


class Cancelled(NamedTuple):
    """Escape at a question."""


class OutputClosed(NamedTuple):
    """The output is closed, as by `| head`. Nothing can be shown any more."""


class Resumed(NamedTuple):
    """The program had been stopped, as by Ctrl-Z, and runs again."""


TerminalEvent = LineEntered | LineUnreadable | InputEnded | Interrupted | Cancelled | OutputClosed | Resumed
TerminalHandler = Callable[[TerminalEvent], None]


class SessionView(EditorView, Protocol):
    """The session, as a terminal sees it."""

    @property
    def asking(self) -> bool:
        """True while the next line answers a question."""

    @property
    def prompt(self) -> str:
        """The text before the input."""

    @property
    def is_online(self) -> bool:
        """True while there is something to read besides questions."""

    @property
    def status(self) -> Sequence[str]:
        """What is wrong with the connection, in few words; and what else a person should know now."""

    @property
    def conversation(self) -> Conversation:
        """What there is to read."""


class Terminal(Display, Protocol):
    """The source of input lines, and where output is shown.

    Events are handled before the call returns, so a terminal emits none while the session calls it.
    """

    def open(self, view: SessionView) -> None:
        """The session begins."""

    def ask(self) -> None:
        """Ask the question that is the prompt now; the next line is the answer."""

    def request_line(self) -> None:
        """The session is ready for one more line."""

    def show_error(self, text: str) -> None:
        """Show that something failed, for a script."""

    def leave_screen(self) -> None:
        """What is shown from now on stays when the program has ended."""

    def close(self) -> None:
        """Give the terminal back as it was."""
