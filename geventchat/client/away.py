"""What can happen while there is nobody to talk to: at the door, in a pause, after a long silence.

Knows no connection; it only keeps what was typed for the one that comes.
"""

from __future__ import annotations

from types import NoneType

from geventchat.client.exits import Ended, Exit
from geventchat.client.inbox import Happening, Inbox, Terminated
from geventchat.client.notes import Commands, Problem
from geventchat.client.terminal import Deaf, InputEnded, Interrupted, NotText, Terminal, Typed
from geventchat.client.words import HELP, AskHelp, Leave, wish_of


class Away:
    """The person's time without a connection."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._waits_for_enter = False
        self._unsent = ""
        self.was_inside = False

    async def until_enter(self, inbox: Inbox) -> None:
        """Wait until the person presses Enter; what they typed before it is kept."""
        self._waits_for_enter = True
        while self._waits_for_enter:
            happening = await inbox.next()
            if happening is not None:
                self.deal_with(happening)

    def unsent(self) -> str:
        """The line that brought the person back, once."""
        line, self._unsent = self._unsent, ""
        return line

    def takes(self, line: str) -> bool:
        """Whether a line can be dealt with now; where not, the person is told."""
        if self._waits_for_enter or isinstance(wish_of(line), Leave | AskHelp | NoneType):
            return True
        self._terminal.show(Problem("Not connected: your line stays here until you are back."))
        return False

    def deal_with(self, happening: Happening) -> None:
        """Deal with it. Raises `Ended` where it means that the visit is over."""
        match happening:
            case Typed(line):
                self._typed(line)
                self._terminal.next_line()
            case NotText(why):
                self._terminal.show(Problem(why))
                self._terminal.next_line()
            case InputEnded():
                raise Ended(Exit.LEFT if self.was_inside else Exit.FAILED, was_inside=self.was_inside)
            case Interrupted():
                raise Ended(Exit.LEFT if self.was_inside else Exit.INTERRUPTED, was_inside=self.was_inside)
            case Terminated():
                raise Ended(Exit.TERMINATED)
            case Deaf():
                raise Ended(Exit.FAILED)
            case _:
                # The last words of a connection that is given up.
                pass

    def _typed(self, line: str) -> None:
        match wish_of(line):
            case Leave():
                raise Ended(Exit.LEFT, was_inside=True)
            case AskHelp():
                self._terminal.show(Commands(HELP))
                return
            case None:
                pass
            case _ if self._waits_for_enter:
                self._unsent = line
            case _:
                self._terminal.show(Problem("Not connected: that was not sent."))
        self._waits_for_enter = False
