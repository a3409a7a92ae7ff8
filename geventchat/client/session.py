"""A whole visit: come in, talk, lose the connection and find it again, leave.

Knows no dialect's words and no terminal's keys. All that happens comes through one inbox, in order.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from geventchat.client.address import Address
from geventchat.client.arriving import CUT_REASONS, Login, TurnedAway, WrongDialect, log_in
from geventchat.client.asking import ask_name
from geventchat.client.away import Away
from geventchat.client.conversation import Clock, Conversation, Shown
from geventchat.client.exits import Ended, Exit
from geventchat.client.heard import CutReason, NameFault, NameRefused
from geventchat.client.inbox import Inbox
from geventchat.client.link import CannotConnect, Link, connect
from geventchat.client.naming import refusal
from geventchat.client.notes import Greeting, Offline, Parting, Problem, Remark
from geventchat.client.pauses import pauses, scattered
from geventchat.client.speech import Dialect
from geventchat.client.speeches import dialect_of_port, speak
from geventchat.client.talk import Talk
from geventchat.client.terminal import (
    Scene,
    Terminal,
    WalkedOut,
)

SHORTEST_KEEP_ALIVE_S = 1.0
HANG_UP_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Visit:
    """Where to and as whom."""

    address: Address
    # Where nobody said it, it is guessed and the guess corrected.
    dialect: Dialect | None
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
        self._dialect = visit.dialect or dialect_of_port(visit.address.port)
        self._keep_alive_s = visit.keep_alive_s
        self._talk: Talk | None = None
        self._online = False
        self._away = Away(terminal)

    async def run(self) -> Exit:
        """Visit, and say how it ended."""
        try:
            talk = await self._come_in()
            while True:
                self._talk, self._online, self._away.was_inside = talk, True, True
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
            talk.meet_everyone(Shown.A_LOOK_AROUND)
        return talk

    async def _first_talk(self) -> Talk:
        link = await self._connect()
        while True:
            try:
                answer = await self._log_in(link)
            except WrongDialect as wrong:
                if self._visit.dialect is not None or self._dialect is wrong.theirs:
                    raise
                # Nobody told us, and our guess was wrong. Now we know.
                self._dialect = wrong.theirs
                link = await self._connect()
                continue
            if isinstance(answer, Talk):
                return answer
            self._terminal.show(Problem(refusal(answer.fault, self._name)))
            if not self._terminal.has_person:
                await link.close(HANG_UP_WITHIN_S)
                raise Ended(Exit.FAILED)
            asking = ask_name(self._terminal.ask, lambda wrong: self._terminal.show(Problem(wrong)))
            self._name = await self._inbox.meanwhile(asking, self._away.deal_with)
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
            await self._away.until_enter(self._inbox)
            talk = await self._try_now()
        self._terminal.show(Greeting(f"Back in the chat as {self._name}."))
        talk.meet_everyone(Shown.NOTHING)
        talk.take(self._away.unsent())
        return talk

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
            await self._inbox.meanwhile(pause, self._away.deal_with)
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
        return await self._inbox.meanwhile(
            connect(self._visit.address, self._inbox.put), self._away.deal_with
        )

    async def _log_in(self, link: Link) -> Talk | NameRefused:
        speech = speak(self._dialect)
        try:
            answer = await log_in(
                link, speech, Login(self._dialect, self._name), self._inbox, self._away.deal_with
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

    # What the terminal may look at.

    def _prompt_name(self) -> str:
        return self._name if self._online else f"{self._name} (offline)"

    def _people(self) -> list[str]:
        if self._talk is None:
            return []
        # Nobody addresses oneself: without one's own name, fewer letters are enough for the others'.
        return [name for name in self._talk.people() if name != self._name]

    def _takes(self, line: str) -> bool:
        return self._online or self._away.takes(line)
