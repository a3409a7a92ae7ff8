"""One logged-in connection: what is typed and what is heard -> what to send, show and ring.

Pure: no sockets, no terminal; time is handed in. The dialects end here: from this module on they look alike.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from geventchat.client.cleaning import clean
from geventchat.client.heard import (
    Cut,
    Farewell,
    Heard,
    Joined,
    Left,
    NameRefused,
    Pong,
    Refused,
    Roster,
    Said,
    TellConfirmed,
    Told,
    Unclear,
    Welcomed,
)
from geventchat.client.naming import refusal
from geventchat.client.notes import (
    CameIn,
    Commands,
    Note,
    OwnPrivateWords,
    People,
    PingTook,
    PrivateWords,
    Problem,
    Remark,
    WentAway,
    Words,
)
from geventchat.client.speech import Speech, Unsayable
from geventchat.client.words import HELP, AskHelp, AskPing, AskUsers, Leave, Mistake, Say, Tell, Wish, wish_of


@dataclass(frozen=True, slots=True)
class Clock:
    """The two times there are: what a person reads, and what can be subtracted."""

    now: Callable[[], datetime]
    seconds: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes go to the server."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Show:
    """The person gets to see this."""

    note: Note


@dataclass(frozen=True, slots=True)
class Ring:
    """The person is wanted."""


@dataclass(frozen=True, slots=True)
class Depart:
    """The person wishes to leave."""


Effect = Send | Show | Ring | Depart


class Shown(Enum):
    """How much of a roster a person wants to see; the value is how many names."""

    NOTHING = 0
    # Whoever comes into a crowd should still see what is said there.
    A_LOOK_AROUND = 30
    EVERYONE = 1_000_000_000


class Conversation:
    """What has to be remembered while one talks: who is here and which answers are under way."""

    def __init__(self, speech: Speech, name: str, clock: Clock, *, shows_own: bool) -> None:
        """`shows_own` is off where the terminal itself leaves on the screen what was typed."""
        self.name = name
        self._speech = speech
        self._clock = clock
        self._shows_own = shows_own
        self._mention = re.compile(rf"(?<!\w){re.escape(name.casefold())}(?!\w)")
        self._people: dict[str, None] = {name: None}
        # Answers come in the order of the questions, so a queue is all it takes to know whose answer this is.
        self._pings: deque[float | None] = deque()
        self._rosters: deque[Shown] = deque()

    def people(self) -> list[str]:
        """The names that are known to be here."""
        return list(self._people)

    def learn_people(self, users: tuple[str, ...] | None, shown: Shown) -> Iterator[Effect]:
        """Who is here, from the welcome if it says so, otherwise by asking."""
        if users is None:
            self._rosters.append(shown)
            yield Send(self._speech.ask_users())
        else:
            yield from self._roster(users, shown)

    def unanswered_pings(self) -> int:
        """How many pings are under way."""
        return len(self._pings)

    def keep_alive(self) -> Send:
        """A sign of life whose answer nobody sees."""
        self._pings.append(None)
        return Send(self._speech.ping())

    def typed(self, line: str) -> Iterator[Effect]:
        """What follows from one typed line."""
        wish = wish_of(line)
        if wish is None:
            return
        try:
            yield from self._grant(wish)
        except Unsayable as why:
            yield Show(Problem(str(why)))

    def _grant(self, wish: Wish) -> Iterator[Effect]:
        match wish:
            case Say(text):
                yield Send(self._speech.say(text))
                if self._shows_own and not self._speech.echoes_speech:
                    yield Show(Words(self._clock.now(), self.name, text, own=True))
            case Tell(to, text):
                yield Send(self._speech.tell(to, text))
                # What one tells oneself is shown when it arrives, and only then.
                if self._shows_own and not self._speech.confirms_tells and not self._is_me(to):
                    yield Show(OwnPrivateWords(self._clock.now(), to, text))
            case AskUsers():
                self._rosters.append(Shown.EVERYONE)
                yield Send(self._speech.ask_users())
            case AskPing():
                self._pings.append(self._clock.seconds())
                yield Send(self._speech.ping())
            case AskHelp():
                yield Show(Commands(HELP))
            case Leave():
                yield Depart()
            case Mistake(text):
                yield Show(Problem(text))

    def heard(self, heard: Heard) -> Iterator[Effect]:
        """What follows from one thing that the server said."""
        match heard:
            case Said(name, text) if self._is_me(name):
                if self._shows_own:
                    yield Show(Words(self._clock.now(), name, text, own=True))
            case Said(name, text):
                self._meet(name)
                mentioned = self._mention.search(text.casefold()) is not None
                yield Show(Words(self._clock.now(), name, text, mentions_me=mentioned))
                if mentioned:
                    yield Ring()
            case Told(name, text):
                self._meet(name)
                yield Show(PrivateWords(self._clock.now(), name, text))
                if not self._is_me(name):
                    yield Ring()
            case TellConfirmed(to, text):
                if self._shows_own and not self._is_me(to):
                    yield Show(OwnPrivateWords(self._clock.now(), to, text))
            case Joined(name):
                self._meet(name)
                yield Show(CameIn(name))
            case Left(name):
                self._people.pop(clean(name), None)
                yield Show(WentAway(name))
            case Roster(names):
                yield from self._roster(names, self._rosters.popleft() if self._rosters else Shown.EVERYONE)
            case Pong():
                yield from self._pong()
            case Refused(text):
                yield Show(Problem(text))
            case NameRefused(fault):
                yield Show(Problem(refusal(fault, self.name)))
            case Unclear(text):
                yield Show(Remark(text))
            case Cut() | Farewell() | Welcomed():
                # What these mean for the connection is the session's business; there is nothing to see yet.
                return

    def _pong(self) -> Iterator[Effect]:
        asked = self._pings.popleft() if self._pings else None
        if asked is not None:
            yield Show(PingTook(self._clock.seconds() - asked))

    def _roster(self, names: tuple[str, ...], shown: Shown) -> Iterator[Effect]:
        self._people = dict.fromkeys([clean(name) for name in names])
        if shown is not Shown.NOTHING:
            yield Show(People(names[: shown.value], max(0, len(names) - shown.value)))

    def _meet(self, name: str) -> None:
        self._people[clean(name)] = None

    def _is_me(self, name: str) -> bool:
        return name.casefold() == self.name.casefold()
