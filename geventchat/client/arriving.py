"""A connection is there; now to be let in.

Knows the first exchange of words and nothing of what is talked about later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from geventchat.client.cleaning import clean
from geventchat.client.heard import Cut, CutReason, Heard, NameRefused, Unclear, Welcomed
from geventchat.client.inbox import Happening, Inbox
from geventchat.client.link import Closed, Link, Received
from geventchat.client.speech import Dialect, Speech, looks_like

LOGIN_WITHIN_S = 10.0
QUOTED_CHARACTERS = 60

CUT_REASONS = {
    CutReason.IDLE: "the server closed it after a long silence",
    CutReason.FULL: "the server is full",
    CutReason.CROWDED: "the server has too many connections from this address",
    CutReason.SHUTDOWN: "the server is shutting down",
}


class TurnedAway(Exception):
    """Nobody let us in; the message says why."""


class WrongDialect(TurnedAway):
    """The server speaks another dialect than we do."""

    def __init__(self, theirs: Dialect) -> None:
        super().__init__(f"The server speaks {theirs.value}: try --dialect {theirs.value}.")
        self.theirs = theirs


@dataclass(frozen=True, slots=True)
class Login:
    """How we say who we are."""

    dialect: Dialect
    name: str


async def log_in(
    link: Link, speech: Speech, login: Login, inbox: Inbox, deal_with: Callable[[Happening], None]
) -> Welcomed | NameRefused:
    """Say who we are and hear whether that will do. What else happens is the caller's to deal with."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOGIN_WITHIN_S
    link.send(speech.login(login.name))
    first_words = ""
    why = None
    while True:
        happening = await inbox.next(max(0.0, deadline - loop.time()))
        match happening:
            case None:
                raise TurnedAway(f"No answer to the login within {LOGIN_WITHIN_S:.0f} s.{first_words}")
            case Received(its_link, line) if its_link is link:
                link.dealt_with()
                for heard in speech.hear(line) if line is not None else ():
                    if isinstance(heard, Welcomed | NameRefused):
                        _check_dialect(line, login.dialect)
                        return heard
                    if isinstance(heard, Cut):
                        why = CUT_REASONS[heard.why]
                    first_words = first_words or _quoted(heard)
                _check_dialect(line, login.dialect)
            case Closed(its_link, closed_why) if its_link is link:
                raise TurnedAway(f"Not let in: {why or closed_why}.{first_words}")
            case _:
                deal_with(happening)


def _check_dialect(line: bytes | None, dialect: Dialect) -> None:
    theirs = looks_like(line or b"")
    if theirs is not None and theirs is not dialect:
        raise WrongDialect(theirs)


def _quoted(heard: Heard) -> str:
    """What it said instead, which tells a person what kind of server it is."""
    return f" It said: {clean(heard.text)[:QUOTED_CHARACTERS]}" if isinstance(heard, Unclear) else ""
