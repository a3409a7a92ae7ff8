"""A whole visit: come in, talk, lose the connection and find it again, leave.

Knows no dialect's words and no terminal's keys. All that happens comes through one inbox, in order.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from types import NoneType

from geventchat.client.address import Address
from geventchat.client.arriving import CUT_REASONS, Login, TurnedAway, log_in
from geventchat.client.asking import ask_name
from geventchat.client.conversation import Clock, Conversation
from geventchat.client.exits import Ended, Exit
from geventchat.client.heard import CutReason, NameFault, NameRefused
from geventchat.client.inbox import Happening, Inbox, Terminated
from geventchat.client.link import CannotConnect, Link, connect
from geventchat.client.naming import refusal
from geventchat.client.notes import Commands, Greeting, Offline, Parting, Problem, Remark
from geventchat.client.pauses import pauses, scattered
from geventchat.client.speech import Dialect
from geventchat.client.speeches import speak
from geventchat.client.talk import Talk
from geventchat.client.terminal import (
    Deaf,
    InputEnded,
    Interrupted,
    NotText,
    Scene,
    Terminal,
    Typed,
    WalkedOut,
)
from geventchat.client.words import HELP, AskHelp, Leave, wish_of

SHORTEST_KEEP_ALIVE_S = 1.0
HANG_UP_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Visit:
    """Where to and as whom."""

    address: Address
    dialect: Dialect
    name: str
    keep_alive_s: float | None


class Session:
    """One visit, from the first connection to the exit code."""

    def __init__(self, visit: Visit, terminal: Terminal, inbox: Inbox, clock: Clock) -> None:
        self._visit = visit
        self._terminal = terminal
        self._inbox = inbox
        self._clock = clock
        self._name = visit.name
        self._keep_alive_s = visit.keep_alive_s
        self._talk: Talk | None = None
        self._online = False
        self._waits_for_enter = False
        self._unsent = ""

    async def run(self) -> Exit:
        """Visit, and say how it ended."""
        try:
            talk = await self._come_in()
            while True:
                self._talk, self._online = talk, True
                why = await talk.run(self._keep_alive_s)
                self._online = False
                talk = await self._come_back(why, talk.cut)
        except WalkedOut as walked_out:
            return Exit.INTERRUPTED if walked_out.interrupted else Exit.FAILED
        except Ended as ended:
            await self._terminal.close()
            if ended.was_inside and self._terminal.has_person:
                self._terminal.show(Parting(self._name))
            return ended.exit_code
        finally:
            await self._terminal.close()

    async def _come_in(self) -> Talk:
        try:
            talk = await self._first_talk()
        except (CannotConnect, TurnedAway) as why:
            self._terminal.show(Problem(str(why)))
            raise Ended(Exit.FAILED) from why
        self._terminal.open(Scene(self._prompt_name, self._people, self._takes))
        if self._terminal.has_person:
            self._terminal.show(Greeting(f"Welcome to the chat, {self._name}!"))
            self._terminal.show(Remark("Type a message and press Enter. /help lists the commands."))
            talk.meet_everyone(shown=True)
        return talk

    async def _first_talk(self) -> Talk:
        link = await self._connect()
        while True:
            answer = await self._log_in(link)
            if isinstance(answer, Talk):
                return answer
            self._terminal.show(Problem(refusal(answer.fault, self._name)))
            if not self._terminal.has_person:
                await link.close(HANG_UP_WITHIN_S)
                raise Ended(Exit.FAILED)
            asking = ask_name(self._terminal.ask, lambda wrong: self._terminal.show(Problem(wrong)))
            self._name = await self._inbox.meanwhile(asking, self._while_away)
            if link.gone.is_set():
                # The server did not wait for the answer.
                link = await self._connect()

    async def _come_back(self, why: str, cut: CutReason | None) -> Talk:
        lost = (
            f"Lost the connection to {self._visit.address}: {CUT_REASONS[cut] if cut is not None else why}."
        )
        if not self._terminal.has_person:
            self._terminal.show(Problem(lost))
            raise Ended(Exit.FAILED)
        if cut is not CutReason.IDLE:
            talk = await self._try_until_in(lost)
        elif self._keep_alive_s is not None:
            # The server is less patient than we thought.
            self._keep_alive_s = max(self._keep_alive_s / 2, SHORTEST_KEEP_ALIVE_S)
            talk = await self._try_until_in(lost)
        else:
            self._terminal.show(Offline(f"{lost} Press Enter to come back."))
            await self._enter_pressed()
            talk = await self._try_now()
        self._terminal.show(Greeting(f"Back in the chat as {self._name}."))
        talk.meet_everyone(shown=False)
        talk.take(self._unsent)
        self._unsent = ""
        return talk

    async def _enter_pressed(self) -> None:
        self._waits_for_enter = True
        while self._waits_for_enter:
            happening = await self._inbox.next()
            if happening is not None:
                self._while_away(happening)

    async def _try_now(self) -> Talk:
        try:
            return await self._log_in_again()
        except (CannotConnect, TurnedAway) as why:
            return await self._try_until_in(str(why))

    async def _try_until_in(self, why: str) -> Talk:
        told = ""
        for pause_s in pauses():
            news = f"{why} Trying again in {pause_s:g} s."
            if news != told:
                told = news
                self._terminal.show(Offline(news))
            pause = asyncio.sleep(scattered(pause_s, random.random))
            await self._inbox.meanwhile(pause, self._while_away)
            try:
                return await self._log_in_again()
            except (CannotConnect, TurnedAway) as still:
                why = str(still)
        raise AssertionError("pauses never end")

    async def _log_in_again(self) -> Talk:
        link = await self._connect()
        answer = await self._log_in(link)
        if isinstance(answer, Talk):
            return answer
        await link.close(HANG_UP_WITHIN_S)
        if answer.fault is NameFault.TAKEN:
            # The server may not have noticed yet that our old connection is dead.
            raise TurnedAway(f"The name {self._name} is still held there.")
        self._terminal.show(Problem(refusal(answer.fault, self._name)))
        raise Ended(Exit.FAILED)

    async def _connect(self) -> Link:
        return await self._inbox.meanwhile(connect(self._visit.address, self._inbox.put), self._while_away)

    async def _log_in(self, link: Link) -> Talk | NameRefused:
        speech = speak(self._visit.dialect)
        try:
            answer = await log_in(
                link, speech, Login(self._visit.dialect, self._name), self._inbox, self._while_away
            )
        except TurnedAway:
            await link.close(HANG_UP_WITHIN_S)
            raise
        if isinstance(answer, NameRefused):
            return answer
        self._name = answer.name
        shows_own = not self._terminal.keeps_typed_lines
        conversation = Conversation(speech, self._name, self._clock, shows_own=shows_own)
        return Talk(link, speech, conversation, self._terminal, self._inbox, answer.users)

    # What can happen while nobody is there to talk to.

    def _while_away(self, happening: Happening) -> None:
        match happening:
            case Typed(line):
                self._typed_while_away(line)
                self._terminal.next_line()
            case NotText(why):
                self._terminal.show(Problem(why))
                self._terminal.next_line()
            case InputEnded():
                raise Ended(Exit.LEFT if self._was_inside else Exit.FAILED, was_inside=self._was_inside)
            case Interrupted():
                raise Ended(Exit.LEFT if self._was_inside else Exit.INTERRUPTED, was_inside=self._was_inside)
            case Terminated():
                raise Ended(Exit.TERMINATED)
            case Deaf():
                raise Ended(Exit.FAILED)
            case _:
                # The last words of a connection that is given up.
                pass

    def _typed_while_away(self, line: str) -> None:
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

    @property
    def _was_inside(self) -> bool:
        return self._talk is not None

    # What the terminal may look at.

    def _prompt_name(self) -> str:
        return self._name if self._online else f"{self._name} (offline)"

    def _people(self) -> list[str]:
        return self._talk.people() if self._talk is not None else []

    def _takes(self, line: str) -> bool:
        if self._online or self._waits_for_enter or isinstance(wish_of(line), Leave | AskHelp | NoneType):
            return True
        self._terminal.show(Problem("Not connected: your line stays here until you are back."))
        return False
