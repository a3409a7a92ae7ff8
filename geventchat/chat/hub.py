"""A command goes in, events come out. Decides who may do what and in which order all of it happened.

Must not know bytes, sockets or the loop: it never waits, so one command is handled whole before the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from geventchat.chat.commands import Command, Fault, Help, Login, Ping, Quit, Say, Tell, Violation, Who
from geventchat.chat.events import (
    Event,
    Goodbye,
    Helped,
    Joined,
    Left,
    Pong,
    Reason,
    Refused,
    Relayed,
    Roster,
    Said,
    Told,
    Welcome,
)
from geventchat.chat.names import Name, Refusal, accept, key_of
from geventchat.chat.room import Ear, Room


class Session:
    """One client in the chat: its ear, and its name once it has one."""

    __slots__ = ("ear", "name")

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.name: Name | None = None


# What may be asked by someone who has not logged in; what was no command at all is told as that in any case.
_BEFORE_LOGIN = frozenset({Login, Quit})
_ALWAYS_TOLD = frozenset({Fault.TOO_LONG, Fault.NOT_UTF8, Fault.NOT_JSON})


class Hub:
    """The chat itself: one room, one order of all that happens in it."""

    def __init__(self, time: Callable[[], float], tap: Callable[[Event], None] | None = None) -> None:
        """`time` gives seconds since 1970; `tap` sees each thing said and must not block."""
        self.room = Room()
        self._time = time
        self._tap = tap
        self._acts: dict[type[Command], Callable[[Session, Any], bool]] = {
            Login: self._login,
            Say: self._say,
            Tell: self._tell,
            Who: self._who,
            Ping: self._ping,
            Help: self._help,
            Quit: self._quit,
            Violation: self._violation,
        }

    def handle(self, session: Session, command: Command) -> bool:
        """Do what the client asks, whole; false when it asked to leave and is gone."""
        kind = type(command)
        if session.name is None and kind not in _BEFORE_LOGIN and kind is not Violation:
            return self._refuse(session, Reason.NOT_IN)
        return self._acts[kind](session, command)

    def say(self, session: Session, texts: Sequence[str]) -> None:
        """Someone who is in says these texts, none of them empty, in one breath.

        The same as so many Say commands one after the other, at the price of little more than one.
        """
        assert session.name is not None
        said = Said(session.name.shown, texts, int(self._time()))
        self.room.tell_everyone(said, session.ear)
        if self._tap is not None:
            self._tap(said)

    def leave(self, session: Session) -> None:
        """The client is gone, however it went: its name is free, the others hear it once."""
        name = session.name
        if name is not None:
            session.name = None
            self.room.leave(name)
            self.room.tell_everyone(Left(name.shown, int(self._time())), session.ear)

    def close(self, session: Session) -> None:
        """The server stops: this client goes without a word to the others, who are told to go too."""
        name, session.name = session.name, None
        if name is not None:
            self.room.leave(name)

    def _refuse(self, session: Session, why: Reason | Fault, subject: str = "") -> bool:
        session.ear.hear(Refused(why, subject))
        return True

    def _login(self, session: Session, command: Login) -> bool:
        if session.name is not None:
            return self._refuse(session, Reason.ALREADY_IN)
        try:
            name = accept(command.name)
        except Refusal as refusal:
            return self._refuse(session, refusal.why)
        if self.room.holds(name.key):
            return self._refuse(session, Reason.NAME_TAKEN)
        session.name = name
        self.room.enter(name, session.ear)
        now = int(self._time())
        self.room.tell_everyone(Joined(name.shown, now), session.ear)
        session.ear.hear(Welcome(name.shown, self.room.users, now))
        return True

    def _say(self, session: Session, command: Say) -> bool:
        if not command.text:
            return self._refuse(session, Reason.EMPTY_MESSAGE)
        self.say(session, (command.text,))
        return True

    def _tell(self, session: Session, command: Tell) -> bool:
        if not command.text:
            return self._refuse(session, Reason.TELL_WHAT)
        if not command.to:
            return self._refuse(session, Reason.TELL_WHOM)
        assert session.name is not None
        found = self.room.find(key_of(command.to))
        if found is None:
            return self._refuse(session, Reason.NOBODY, command.to)
        shown, ear = found
        told = Told(session.name.shown, shown, command.text, int(self._time()))
        session.ear.hear(Relayed(told, command.to))
        ear.hear(told)
        if self._tap is not None:
            self._tap(told)
        return True

    def _who(self, session: Session, _: Who) -> bool:
        session.ear.hear(Roster(self.room.users))
        return True

    def _ping(self, session: Session, command: Ping) -> bool:
        session.ear.hear(Pong(command.token))
        return True

    def _help(self, session: Session, _: Help) -> bool:
        session.ear.hear(Helped())
        return True

    def _quit(self, session: Session, _: Quit) -> bool:
        session.ear.hear(Goodbye())
        self.leave(session)
        return False

    def _violation(self, session: Session, command: Violation) -> bool:
        if session.name is None and command.fault not in _ALWAYS_TOLD:
            return self._refuse(session, Reason.NOT_IN)
        return self._refuse(session, command.fault, command.subject)
