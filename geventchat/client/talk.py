"""The time on one logged-in connection, until it is lost or left.

Turns what happens into the conversation's effects and carries them out. Knows no dialect's words and no keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from geventchat.client.conversation import Conversation, Depart, Effect, Ring, Send, Show, Shown
from geventchat.client.exits import Ended, Exit
from geventchat.client.heard import Cut, CutReason, Farewell
from geventchat.client.inbox import Inbox, Terminated
from geventchat.client.link import Closed, Link, Received, Writable
from geventchat.client.notes import Problem
from geventchat.client.speech import Speech
from geventchat.client.terminal import Deaf, InputEnded, Interrupted, NotText, Terminal, Typed

# How long a farewell may take: a person wants to be gone, a script wants to know that all was delivered.
PERSON_PATIENCE_S = 2.0
SCRIPT_PATIENCE_S = 30.0
INTERRUPTED_PATIENCE_S = 1.0

# A pipe is faster than any server, and a server may take our lines slowly on purpose. So a script's lines go out with a
# ping behind every few of them, and only so many pings may be unanswered: what is under way stays small, an answer
# shows that it arrived, and silence means that something is wrong.
LINES_FOR_A_PING = 16
PINGS_UNDER_WAY = 2


class Talk:
    """One connection after its login."""

    def __init__(
        self,
        link: Link,
        speech: Speech,
        conversation: Conversation,
        terminal: Terminal,
        inbox: Inbox,
        users: tuple[str, ...] | None,
    ) -> None:
        """`users` is who is here, where the welcome said it."""
        self._link = link
        self._speech = speech
        self._conversation = conversation
        self._terminal = terminal
        self._inbox = inbox
        self._users = users
        self._line_withheld = False
        self._lines_since_ping = 0
        self._failed = False
        self._sent_at_s = asyncio.get_running_loop().time()
        self.cut: CutReason | None = None

    async def run(self, keep_alive_s: float | None) -> str:
        """Talk until the connection is lost, and say why it was. Raises `Ended` when it was left instead."""
        while True:
            quiet_for_s = self._until_keep_alive(keep_alive_s)
            if quiet_for_s is not None and quiet_for_s <= 0:
                self._do([self._conversation.keep_alive()])
                continue
            match await self._inbox.next(quiet_for_s):
                case Received(link, line) if link is self._link:
                    self._hear(line)
                    self._welcome_next_line()
                case Closed(link, why) if link is self._link:
                    return why
                case Writable():
                    self._welcome_next_line()
                case Typed(line):
                    if self._do(self._conversation.typed(line)):
                        await self._leave(Exit.LEFT)
                    self._lines_since_ping += 1
                    self._line_withheld = True
                    self._welcome_next_line()
                case NotText(why):
                    self._do([Show(Problem(why))])
                    self._line_withheld = True
                    self._welcome_next_line()
                case InputEnded():
                    await self._leave(Exit.LEFT)
                case Interrupted():
                    await self._leave(Exit.LEFT if self._terminal.has_person else Exit.INTERRUPTED)
                case Terminated():
                    await self._leave(Exit.TERMINATED)
                case Deaf():
                    await self._leave(Exit.FAILED)

    def meet_everyone(self, shown: Shown) -> None:
        """Learn who is here."""
        self._do(self._conversation.learn_people(self._users, shown))

    def people(self) -> list[str]:
        """The names that are known to be here."""
        return self._conversation.people()

    def take(self, line: str) -> None:
        """Say a line that was typed before there was a connection."""
        self._do(self._conversation.typed(line))

    def _do(self, effects: Iterable[Effect]) -> bool:
        """Carry the effects out; true if one of them is to leave."""
        for effect in effects:
            match effect:
                case Send(data):
                    self._sent_at_s = asyncio.get_running_loop().time()
                    self._link.send(data)
                case Show(note):
                    self._failed = self._failed or isinstance(note, Problem)
                    self._terminal.show(note)
                case Ring():
                    self._terminal.ring()
                case Depart():
                    return True
        return False

    def _until_keep_alive(self, keep_alive_s: float | None) -> float | None:
        # Only what we say keeps us in, however much the others talk.
        if keep_alive_s is None:
            return None
        return self._sent_at_s + keep_alive_s - asyncio.get_running_loop().time()

    def _hear(self, line: bytes | None) -> bool:
        """Take in a line; true if it is the server's farewell."""
        self._link.dealt_with()
        if line is None:
            self._do([Show(Problem("The server said something too long to be shown."))])
            return False
        farewell = False
        for heard in self._speech.hear(line):
            farewell = farewell or isinstance(heard, Farewell)
            if isinstance(heard, Cut):
                self.cut = heard.why
            self._do(self._conversation.heard(heard))
        return farewell

    def _welcome_next_line(self) -> None:
        if not self._line_withheld:
            return
        if not self._terminal.has_person:
            if self._lines_since_ping >= LINES_FOR_A_PING:
                self._lines_since_ping = 0
                self._do([self._conversation.keep_alive()])
            if self._link.blocked or self._conversation.unanswered_pings() >= PINGS_UNDER_WAY:
                return
        self._line_withheld = False
        self._terminal.next_line()

    async def _leave(self, exit_code: Exit) -> None:
        """Say goodbye, and hear what comes before the answer: a server deals with our lines in order."""
        self._link.send(self._speech.leave())
        if exit_code is not Exit.LEFT:
            await self._farewell(INTERRUPTED_PATIENCE_S, with_each_line=False)
        elif self._terminal.has_person:
            await self._farewell(PERSON_PATIENCE_S, with_each_line=False)
        else:
            wrong = await self._farewell(SCRIPT_PATIENCE_S, with_each_line=True)
            if wrong is not None:
                self._do([Show(Problem(f"{wrong}: the last lines may not have been delivered."))])
            exit_code = Exit.FAILED if self._failed else Exit.LEFT
        await self._link.close(INTERRUPTED_PATIENCE_S)
        raise Ended(exit_code, was_inside=True)

    async def _farewell(self, patience_s: float, *, with_each_line: bool) -> str | None:
        """Wait for the server's farewell, and say what was wrong with it if it does not come."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + patience_s
        while True:
            match await self._inbox.next(max(0.0, deadline_s - loop.time())):
                case Received(link, line) if link is self._link:
                    if self._hear(line):
                        return None
                    if with_each_line:
                        deadline_s = loop.time() + patience_s
                case Closed(link, _) if link is self._link:
                    return "The server hung up before it had answered everything"
                case Interrupted() | Terminated():
                    # Asked a second time: no more waiting.
                    return "Interrupted before the server had answered everything"
                case None:
                    return f"The server has been silent for {patience_s:.0f} s"
                case _:
                    pass
            if loop.time() > deadline_s:
                return f"The server has not said goodbye within {patience_s:.0f} s"
